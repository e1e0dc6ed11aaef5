"""The decoder and its parts: twins agree, positions matter, documents do not leak, wrong shapes are refused by name."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tsuzuri.errors import ConfigError
from tsuzuri.folder import find, names
from tsuzuri.model.parts.mamba2 import StateSpace
from tsuzuri.model.parts.rotary import Scaling
from tsuzuri.model.past import Bidirectional, Causal, Naive
from tsuzuri.model.transformer import PARTS, Shape, Transformer

TINY = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}


def built(seed: int = 0, dtype: torch.dtype = torch.float64, **choices: object) -> Transformer:
    """A model with every weight random, so that nothing is hidden behind a zero."""
    model = Transformer(Shape(**{**TINY, **choices}))
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model.to(dtype)


def kind(name: str) -> list[str]:
    return [part for part in names(PARTS) if name == find(PARTS, part).KIND]


EVERY = [
    *({"position": p} for p in kind("position")),
    *({"feedforward": f} for f in kind("feedforward")),
    *({"norm": n} for n in kind("norm")),
    *({"num_key_value_heads": k} for k in (1, 2)),
    {"qk_norm": "head"},
    {"qk_norm": "token", "attn_logit_softcapping": 2.0},
    {"block": "parallel", "attention": "attention_by_depth"},
    {"block": "parallel_one_norm"},
    *({"block": block} for block in ("post_norm", "sandwich", "reordered_norm")),
    {"feedforward": "experts", "num_experts": 4, "num_experts_per_tok": 2},
    {"layer_types": ("sliding_attention",), "sliding_window": 3, "embedding_multiplier": None},
    {"layer_types": ("sliding_attention", "full_attention"), "sliding_window": 3, "rope_local_theta": 100.0},
    {"sliding_window": 3},
    {"tie_word_embeddings": True},
    {"attention_bias": True, "mlp_bias": True},
    {"head_dim": 6},
    {"position": "alibi", "sliding_window": 4, "num_key_value_heads": 2},
]


@pytest.mark.parametrize("choices", EVERY, ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_fused_attention_agrees_with_the_naive_one(choices: dict[str, object], packed: bool) -> None:
    model = built(**choices)
    tokens = torch.randint(50, (2, 11), generator=torch.Generator().manual_seed(1))
    documents = torch.tensor([[0] * 4 + [1] * 7, [0] * 11]) if packed else None
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6], list(range(11))]) if packed else torch.arange(11).expand(2, 11)
    fused, naive = model(tokens, Causal(positions, documents)), model(tokens, Naive(positions, documents))
    torch.testing.assert_close(fused, naive, rtol=1e-5, atol=1e-5)


def test_training_attention_in_bfloat16_agrees_with_the_fused_one() -> None:
    """On a CPU bfloat16 training takes another way (past.PRODUCT_LIMIT): the same to bfloat16's three digits."""
    q, k, v = (torch.randn(2, 12, heads, 8, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(2)) for heads in (4, 2, 2))
    past = Causal(torch.arange(12).expand(2, 12))
    plain = past.attend(0, q, k, v)
    trained = past.attend(0, q.requires_grad_(), k, v)
    torch.testing.assert_close(trained.float(), plain.float(), rtol=0, atol=2e-2)
    trained.float().sum().backward()
    got = q.grad.float()
    wide = q.detach().float().requires_grad_()
    past.attend(0, wide, k.float(), v.float()).sum().backward()
    torch.testing.assert_close(got, wide.grad, rtol=0, atol=3e-2)


@pytest.mark.parametrize("past", [Causal, Naive])
def test_one_document_does_not_move_another(past: type[Causal]) -> None:
    model = built()
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    one, other = torch.tensor([[1, 2, 3, 4, 9, 8, 7, 6]]), torch.tensor([[5, 6, 7, 8, 9, 8, 7, 6]])
    before, after = (model(tokens, past(positions, documents))[0, 4:] for tokens in (one, other))
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    leaking = [model(tokens, past(positions))[0, 4:] for tokens in (one, other)]
    assert not torch.allclose(*leaking), "without documents the second one does see the first"


def test_a_token_does_not_see_what_comes_after_it_unless_the_past_is_bidirectional() -> None:
    model, positions = built(), torch.arange(6)
    one, other = torch.tensor([1, 2, 3, 4, 5, 6]), torch.tensor([1, 2, 3, 4, 5, 9])
    torch.testing.assert_close(model(one, Causal(positions))[:5], model(other, Causal(positions))[:5], rtol=0, atol=0)
    assert not torch.allclose(model(one, Bidirectional(positions))[:5], model(other, Bidirectional(positions))[:5])


@pytest.mark.parametrize("position", kind("position"))
def test_the_dog_chases_the_cat_or_the_cat_the_dog(position: str) -> None:
    """犬が猫を追いかける / 猫が犬を追いかける: the order of what came before is seen, except without positions."""
    model = built(position=position, num_hidden_layers=1)
    dog, cat = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([3, 2, 1, 4, 5])
    last = [model(tokens, Causal(torch.arange(5)))[-1] for tokens in (dog, cat)]
    assert torch.allclose(*last) == (position == "none")


def test_recur_starts_anew_at_every_document() -> None:
    def total(x: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        out = x.cumsum(-2) + (0 if state is None else state)
        return out, out[..., -1:, :]

    x = torch.ones(2, 5, 3)
    documents = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
    found = Causal(torch.arange(5).expand(2, 5), documents).recur(0, x, total)
    assert found[..., 0].tolist() == [[1, 2, 1, 2, 3], [1, 2, 3, 4, 5]]


def test_alibi_slopes_are_those_of_the_paper() -> None:
    from tsuzuri.model.parts.alibi import slopes

    eight, six = (slopes(heads, torch.device("cpu")).tolist() for heads in (8, 6))
    assert eight == [2.0**-i for i in range(1, 9)]
    assert six == [2.0**-i for i in (2, 4, 6, 8, 1, 3)]


def test_the_first_loss_is_that_of_a_uniform_guess_and_blocks_start_as_the_identity() -> None:
    model = Transformer(Shape(**TINY)).initialise(3)
    tokens = torch.randint(50, (1, 40), generator=torch.Generator().manual_seed(4))
    past = Causal(torch.arange(40).expand(1, 40))
    loss = torch.nn.functional.cross_entropy(model(tokens, past).flatten(0, 1), tokens.flatten())
    assert abs(float(loss.detach()) - float(torch.tensor(50.0).log())) < 0.05
    hidden = model.embedding(tokens)
    torch.testing.assert_close(model.blocks[0](hidden, model.position(past), past), hidden)


def test_layers_repeat_the_pattern_of_their_types() -> None:
    shape = Shape(**{**TINY, "num_hidden_layers": 5}, layer_types=("sliding_attention", "full_attention"), sliding_window=3)
    assert [shape.window(layer) for layer in range(5)] == [3, None, 3, None, 3]


def test_initialise_is_a_function_of_the_seed() -> None:
    one, same, other = (Transformer(Shape(**TINY)).initialise(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["embedding.weight"], other["embedding.weight"])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 7}, "head_dim"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"position": "rotory"}, "rotary"),
        ({"norm": "gated"}, "rms_norm"),
        ({"num_experts": 2, "num_experts_per_tok": 3}, "num_experts_per_tok"),
        ({"num_experts": 1 << 16}, "num_experts"),
        ({"router_aux_loss_coef": -1.0}, "router_aux_loss_coef"),
        ({"layer_types": ()}, "layer_types"),
    ],
)
def test_an_impossible_shape_is_refused_by_name(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Shape(**{**TINY, **wrong})
    assert named in str(caught.value)


CHANGES: dict[str, dict[str, object]] = {
    "head_dim": {"head_dim": 6}, "feedforward": {"feedforward": "plain"}, "hidden_act": {"hidden_act": "relu2"}, "norm": {"norm": "layer_norm"},
    "position": {"position": "sinusoidal"}, "norm_eps": {"norm_eps": 0.5}, "rope_theta": {"rope_theta": 50.0},
    "sliding_window": {"sliding_window": 2}, "qk_norm": {"qk_norm": "token"}, "attention_bias": {"attention_bias": True},
    "mlp_bias": {"mlp_bias": True}, "tie_word_embeddings": {"tie_word_embeddings": True}, "num_key_value_heads": {"num_key_value_heads": 2},
    "block": {"block": "post_norm"}, "rope_scaling": {"rope_scaling": Scaling(rope_type="linear", factor=2.0)},
    "rope_local_theta": {"rope_local_theta": 30.0, "sliding_window": 9}, "partial_rotary_factor": {"partial_rotary_factor": 0.5},
    "attention_scale": {"attention_scale": 0.1}, "attn_logit_softcapping": {"attn_logit_softcapping": 0.5},
    "final_logit_softcapping": {"final_logit_softcapping": 0.5}, "embedding_multiplier": {"embedding_multiplier": 2.0},
    "logit_multiplier": {"logit_multiplier": 2.0}, "attention_output_bias": {"attention_output_bias": True}, "head_bias": {"head_bias": True},
    "embedding_norm": {"embedding_norm": True}, "type_vocab_size": {"type_vocab_size": 2},
    "state_space": {"state_space": StateSpace(state_size=4), "layer_types": ("full_attention", "mamba2")},
    "relative_buckets": {"position": "relative", "relative_buckets": 4, "relative_distance": 100},
    "relative_distance": {"position": "relative", "relative_buckets": 8, "relative_distance": 5},
    "layer_types": {"layer_types": ("full_attention", "sliding_attention"), "sliding_window": 2},
    "num_experts": {"feedforward": "experts", "num_experts": 3},
    "num_experts_per_tok": {"feedforward": "experts", "num_experts": 3, "num_experts_per_tok": 2},
}  # fmt: skip
# Chosen elsewhere: which past is brought, what a decoder looks at, how long a text may be, the parts of other kinds of model, what
# only training knows, the heads of encoders (`test_pooling.py`).
ELSEWHERE = {"attention", "causal", "cross_attention", "max_position_embeddings", "position_offset", "head", "router_aux_loss_coef"}
ELSEWHERE |= {"labels", "pooling", "head_act", "head_norm", "head_dense_bias"}


def test_every_choice_of_a_shape_changes_the_logits() -> None:
    """No accepted-and-ignored parameter."""
    tokens, past = torch.arange(9), Causal(torch.arange(9))
    optional = {field.name for field in dataclasses.fields(Shape)} - set(TINY) - ELSEWHERE
    assert set(CHANGES) == optional
    base = built()(tokens, past)
    for name, choices in CHANGES.items():
        assert not torch.equal(built(**choices)(tokens, past), base), name
