"""Recorded = plain: a past that keeps what each head looked at changes no logit, and keeps a softmax of what may be looked at."""

from __future__ import annotations

import pytest
import torch

from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families import bert, falcon, gemma2, llama, marian, mistral, modernbert, t5
from tsuzuri.model.past import Bidirectional, Causal, Memory, Recorded
from tsuzuri.model.transformer import Shape, Transformer

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64,
}  # fmt: skip
ALONE = {
    "llama": {**llama.USUAL, "num_key_value_heads": 2},
    "gemma2, a cap and a window": {**gemma2.USUAL, "sliding_window": 4, "attn_logit_softcapping": 2.0, "attention_scale": 0.9},
    "mistral, a window": {**mistral.USUAL, "sliding_window": 3},
    "falcon, alibi": {**falcon.USUAL, "position": "alibi"},
    "bert": bert.USUAL,
    "modernbert, a window": {**modernbert.USUAL, "sliding_window": 3},
}
TIME = 11


def random(model: Transformer | EncoderDecoder) -> Transformer | EncoderDecoder:
    generator = torch.Generator().manual_seed(3)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model.double().requires_grad_(False)


@pytest.mark.parametrize("choices", ALONE.values(), ids=ALONE)
def test_one_stack(choices: dict[str, object]) -> None:
    model, ids = random(Transformer(Shape(**{**SIZES, **choices}))), torch.arange(TIME) * 7 % 50
    causal = model.shape.causal
    past = Recorded(torch.arange(TIME), causal=causal)
    plain = (Causal if causal else Bidirectional)(torch.arange(TIME))
    torch.testing.assert_close(model(ids, past), model(ids, plain), rtol=1e-9, atol=1e-9)
    assert [(each.layer, each.kind) for each in past.kept] == [(0, "self"), (1, "self")]
    for each in past.kept:
        assert each.heads.shape == (4, TIME, TIME)
        torch.testing.assert_close(each.heads.sum(-1), torch.ones(4, TIME))
        window = model.shape.window(each.layer) or TIME
        apart = torch.arange(TIME)[:, None] - torch.arange(TIME)
        seen = (apart.abs() < window) & ((apart >= 0) | (not causal))
        assert ((each.heads > 0) == seen).all()


@pytest.mark.parametrize("family", [t5, marian], ids=["t5", "marian"])
def test_two_stacks(family: object) -> None:
    model = random(EncoderDecoder(PairShape(**{**family.USUAL, **SIZES})))
    source, target = torch.arange(7) * 5 % 50, torch.arange(5) * 3 % 50
    reading = Recorded(torch.arange(7), causal=False)
    states = model.encode(source, reading)
    torch.testing.assert_close(states, model.encode(source, Bidirectional(torch.arange(7))), rtol=1e-9, atol=1e-9)
    writing = Recorded(torch.arange(5), causal=True, memory=Memory(states))
    plain = Causal(torch.arange(5), memory=Memory(states))
    torch.testing.assert_close(model(target, writing), model(target, plain), rtol=1e-9, atol=1e-9)
    assert [(each.kind, tuple(each.heads.shape)) for each in writing.kept] == [("self", (4, 5, 5)), ("cross", (4, 5, 7))] * 2
    for each in (*reading.kept, *writing.kept):
        torch.testing.assert_close(each.heads.sum(-1), torch.ones(each.heads.shape[:-1]))
