"""What every family with a reference in transformers has to show: one function, called by a test file a family.

A tiny model with random weights is saved by transformers. It loads here and gives the same logits and the same greedy text;
saved here it loads there and gives the same again; cut into calls it is the same as whole; in a padded batch every row is as it is
alone. float64 where the reference computes in it (rotary angles stay float32 there, hence its tolerance).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from tsuzuri.engine.cache import Cached
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.model import weights
from tsuzuri.model.past import Bidirectional, Causal
from tsuzuri.model.pooling import classified

LENGTH, GREEDY = 23, 32
RELATIVE = 1e-5  # of the largest logit, float32
RELATIVE_WIDE = 1e-6  # float64, with angles in float32


def saved(model_class: type, config: Any, directory: Path, *, dtype: torch.dtype = torch.float32, std: float = 0.2) -> Any:
    """A reference model, every weight random (norms around one), in a directory."""
    torch.manual_seed(5)
    model = model_class(config).eval().to(dtype)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(std=std)
            if weight.dim() == 1 and "norm" in name.lower() and name.endswith("weight"):
                weight.add_(1)
    model.generation_config = transformers.GenerationConfig()
    model.save_pretrained(directory)
    return model


def tokens(vocabulary: int, count: int = LENGTH, seed: int = 1) -> Tensor:
    return torch.randint(3, vocabulary, (count,), generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Tensor, relative: float = RELATIVE) -> None:
    """Largest difference at most `relative` × the largest logit."""
    assert found.dtype == expected.dtype
    assert expected.isfinite().all() and float(expected.std()) > 0
    assert float((found - expected).abs().max()) <= relative * float(expected.abs().max())


def logits(model: Any, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(ids, Causal(torch.arange(ids.shape[-1]).expand(ids.shape)))


@torch.inference_mode()
def parity(reference: Any, directory: Path, back: Path, *, length: int = LENGTH, greedy: int = GREEDY) -> None:
    """All of the above for a causal model; `back` is an empty directory to write to."""
    ids = tokens(reference.config.vocab_size, length)
    expected = reference(ids[None]).logits[0]
    model = weights.load(directory)
    close(logits(model, ids), expected)
    written_and_read_there(reference, model, directory, back, ids, expected)
    cut_is_whole(model, ids)
    padded_is_alone(reference, model, ids)
    assert greedy_here(model, ids, greedy) == greedy_there(reference, ids, greedy)
    wide = type(reference)(reference.config).eval().double()
    wide.load_state_dict(reference.state_dict())
    close(logits(model.double(), ids), wide(ids[None]).logits[0], RELATIVE_WIDE)


def written_and_read_there(reference: Any, model: Any, directory: Path, back: Path, ids: Tensor, expected: Tensor) -> None:
    weights.save(model, back, weights.family_of(directory).MODEL_TYPE)
    again = type(reference).from_pretrained(back).eval()
    close(again(ids[None]).logits[0], expected)
    assert torch.equal(logits(weights.load(back), ids), logits(model, ids))


def cut_is_whole(model: Any, ids: Tensor) -> None:
    """One token at a time, and in stretches, with what the engine keeps."""
    expected = logits(model, ids)
    for size in (1, 7):
        past, found = Cached(bound=len(ids)), []
        for part in ids.split(size):
            past.begin(len(part))
            found.append(model(part, past))
        close(torch.cat(found), expected)


def padded_is_alone(reference: Any, model: Any, ids: Tensor) -> None:
    """Two rows, the second shorter and padded on the right: padding is a document of its own."""
    short = len(ids) // 2
    batch = torch.stack([ids, torch.cat([ids[5 : 5 + short], ids.new_zeros(len(ids) - short)])])
    there = torch.ones_like(batch)
    there[1, short:] = 0
    positions = torch.arange(len(ids)).expand(2, -1)
    found = model(batch, Causal(positions, 1 - there))
    expected = reference(batch, attention_mask=there).logits
    close(found[0], expected[0])
    close(found[1, :short], expected[1, :short])
    close(found[1, :short], logits(model, batch[1, :short]))


def greedy_here(model: Any, ids: Tensor, count: int) -> list[int]:
    engine = LocalEngine(model, [], model.context_length)
    return [token.id for token in engine.stream(ids.tolist(), Sampling(temperature=0, max_tokens=count))]


def greedy_there(reference: Any, ids: Tensor, count: int) -> list[int]:
    settings = transformers.GenerationConfig(
        max_new_tokens=count, min_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0, bos_token_id=None
    )
    found = reference.generate(ids[None], attention_mask=torch.ones_like(ids)[None], generation_config=settings)
    return found[0, len(ids) :].tolist()


def refuses(directory: Path, change: dict[str, Any]) -> str:
    """What is said of a config.json with these fields changed; it has to be refused by name."""
    import pytest

    from tsuzuri.errors import ConfigError

    path = directory / "config.json"
    before = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(before) | change), encoding="utf-8")
    try:
        with pytest.raises(ConfigError) as caught:
            weights.load(directory)
    finally:
        path.write_text(before, encoding="utf-8")
    assert any(name in str(caught.value) for name in (*change, "rope_scaling"))
    return str(caught.value)


# ── encoders


def encoded(model: Any, ids: Tensor, segments: Tensor | None = None) -> Tensor:
    """(T,) or (B, T) -> what the head gives at every token."""
    with torch.inference_mode():
        return model(ids, Bidirectional(torch.arange(ids.shape[-1]).expand(ids.shape), segments=segments))


def result(model: Any, **inputs: Any) -> Tensor:
    """What the reference's head gives, whatever it calls it: (B, labels) or (B, T, …)."""
    found = model(**inputs)
    if hasattr(found, "start_logits"):
        return torch.stack((found.start_logits, found.end_logits), -1)
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


def read(model: Any, ids: Tensor, past: Bidirectional) -> Tensor:
    """The same of ours."""
    return classified(model, ids, past) if model.shape.head == "classify" else model(ids, past)


@torch.inference_mode()
def encoder_parity(reference: Any, directory: Path, back: Path, *, length: int = LENGTH) -> None:
    """Every head of an encoder: alone, in a padded batch with two segments, written and read there, and in float64."""
    reference.config.architectures = [type(reference).__name__]
    ids = tokens(reference.config.vocab_size, length)
    short = length // 2
    batch = torch.stack([ids, torch.cat([ids[5 : 5 + short], ids.new_full((length - short,), reference.config.pad_token_id)])])
    there = torch.ones_like(batch)
    there[1, short:] = 0
    second = (torch.arange(length) > 6).long().expand(2, -1)  # the second segment
    types = {"token_type_ids": second} if getattr(reference.config, "type_vocab_size", 1) > 1 else {}
    expected = result(reference, input_ids=batch, attention_mask=there, **types)
    model = weights.load(directory)

    def past(segments: Tensor | None = second if types else None) -> Bidirectional:
        return Bidirectional(torch.arange(length).expand(2, -1), 1 - there, segments=segments)

    found = read(model, batch, past())
    rows = [(0, length), (1, short)]
    for row, count in rows:
        each = slice(None) if found.dim() == 2 else slice(count)
        close(found[row][each], expected[row][each])
        close(read(model, batch[row : row + 1, :count], _alone(count, past().segments))[0], expected[row][each])
    weights.save(model, back, weights.family_of(directory).MODEL_TYPE)
    again, said = type(reference).from_pretrained(back, output_loading_info=True)
    unneeded = ("pooler.dense.weight", "pooler.dense.bias", "predictions.bias", "lm_head.bias")  # where the result does not need them
    assert not [name for name in said["missing_keys"] if not name.endswith(unneeded)], said
    assert not said["unexpected_keys"], said
    close(result(again.eval(), input_ids=batch, attention_mask=there, **types)[0], expected[0])
    assert again.config.id2label == reference.config.id2label
    assert torch.equal(read(weights.load(back), batch, past()), found)
    wide = type(reference)(reference.config).eval().double()
    wide.load_state_dict(reference.state_dict())
    expected = result(wide, input_ids=ids[None])[0]
    close(read(model.double(), ids[None], _alone(length, None))[0], expected, RELATIVE_WIDE)


def _alone(length: int, segments: Tensor | None) -> Bidirectional:
    return Bidirectional(torch.arange(length)[None], segments=None if segments is None else segments[:1, :length])
