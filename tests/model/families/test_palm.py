"""PaLM against a direct computation in NumPy, written from section 2 of the paper: no weights of it were ever published."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from numpy.typing import NDArray

from tsuzuri.errors import ConfigError
from tsuzuri.model import safe, weights
from tsuzuri.model.families import palm
from tsuzuri.model.transformer import Transformer

TINY = {
    "model_type": "palm", "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "heads as wide as the hidden state": {},
    "heads wider than the hidden state": {"head_dim": 12, "num_attention_heads": 3},
    "feed-forward four times as wide": {"intermediate_size": None, "num_hidden_layers": 3},
    "other constants": {"rope_theta": 500.0, "layer_norm_eps": 1e-3, "logit_scale": 0.5},
}
Floats = NDArray[np.float64]


def normed(x: Floats, scale: Floats, eps: float) -> Floats:
    deviation = x - x.mean()
    return deviation / math.sqrt((deviation**2).mean() + eps) * scale


def turned(x: Floats, position: int, theta: float) -> Floats:
    """A head (E,): the pair (i, i + E/2) as a complex number, times e^(i · angle)."""
    half = len(x) // 2
    pairs = x[:half] + 1j * x[half:]
    pairs = pairs * np.exp(1j * position * np.array([theta ** (-i / half) for i in range(half)]))
    return np.concatenate([pairs.real, pairs.imag])


def computed(config: dict[str, Any], weight: dict[str, Floats], ids: list[int]) -> Floats:
    """Logits (T, V), one token and one head at a time."""
    heads, size, eps = config["num_attention_heads"], config["head_dim"], config.get("layer_norm_eps", 1e-5)
    theta, hidden = config.get("rope_theta", 10000.0), config["hidden_size"]
    table = weight["model.embed_tokens.weight"]
    rows = [table[one] for one in ids]
    for layer in range(config["num_hidden_layers"]):
        w = {name.removeprefix(f"model.layers.{layer}."): value for name, value in weight.items() if f".{layer}." in name}
        inputs = [normed(x, w["input_layernorm.weight"], eps) for x in rows]
        keys = [turned(w["self_attn.k_proj.weight"] @ n, t, theta) for t, n in enumerate(inputs)]  # one for all heads
        values = [w["self_attn.v_proj.weight"] @ n for n in inputs]
        for t, n in enumerate(inputs):
            queries = (w["self_attn.q_proj.weight"] @ n).reshape(heads, size)
            looked = []
            for query in queries:
                scores = np.array([turned(query, t, theta) @ key for key in keys[: t + 1]]) / math.sqrt(size)
                shares = np.exp(scores - scores.max())
                looked.append(sum(share * value for share, value in zip(shares / shares.sum(), values, strict=False)))
            gate = w["mlp.gate_proj.weight"] @ n
            inner = gate / (1 + np.exp(-gate)) * (w["mlp.up_proj.weight"] @ n)
            rows[t] = rows[t] + w["self_attn.o_proj.weight"] @ np.concatenate(looked) + w["mlp.down_proj.weight"] @ inner
    scale = config.get("logit_scale", 1 / math.sqrt(hidden))
    return np.stack([table @ normed(x, weight["model.norm.weight"], eps) for x in rows]) * scale


def random(config: dict[str, Any], dtype: torch.dtype = torch.float32) -> Transformer:
    model, generator = weights.build(palm, palm.shape(config)), torch.Generator().manual_seed(3)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=0.2, generator=generator)
    return model.to(dtype)


@pytest.mark.parametrize("name", CASES)
def test_the_model_is_what_the_paper_says(tmp_path: Path, name: str) -> None:
    config = {key: value for key, value in {**TINY, **CASES[name]}.items() if value is not None}
    weights.save(random(config, torch.float64), tmp_path, "palm")
    stored = {name: value.double().numpy() for name, value in safe.read(tmp_path / weights.WEIGHTS).items()}
    ids, model = reference.tokens(60), weights.load(tmp_path)
    expected = torch.from_numpy(computed(config, stored, ids.tolist()))
    with torch.inference_mode():
        with reference.Wide():
            reference.close(reference.logits(model, ids), expected, reference.RELATIVE_WIDE)
        reference.close(reference.logits(model.float(), ids), expected.float())
        reference.cut_is_whole(model, ids)
        reference.paged_is_whole(model, ids)
    greedy = []
    for _ in range(32):
        greedy.append(int(computed(config, stored, [*ids.tolist(), *greedy])[-1].argmax()))
    assert reference.greedy_here(model, ids, 32) == greedy


def test_written_with_its_config_it_is_the_same_model(tmp_path: Path) -> None:
    model, ids = random({**TINY, "rope_theta": 500.0}), reference.tokens(60)
    weights.save(model, tmp_path, "palm")
    assert weights.load(tmp_path).shape == model.shape
    assert torch.equal(reference.logits(weights.load(tmp_path), ids), reference.logits(model, ids))


@pytest.mark.parametrize(
    "change",
    [{"num_key_value_heads": 2}, {"tie_word_embeddings": False}, {"hidden_act": "gelu"}, {"attention_bias": False}, {"logit_scale": 0}],
)
def test_what_it_cannot_compute_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        palm.shape({**TINY, **change})


@pytest.mark.parametrize(
    "choices", [{"block": "parallel"}, {"num_key_value_heads": 2}, {"norm": "layer_norm"}, {"tie_word_embeddings": False}]
)
def test_a_shape_it_cannot_say_is_not_written(choices: dict[str, Any]) -> None:
    reference.cannot_say(palm, choices)


def test_it_learns() -> None:
    reference.learns(palm)
