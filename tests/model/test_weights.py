"""A model directory and a model: nothing is lost on the way, and a directory that does not fit is refused by name."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from tsuzuri.errors import ConfigError, FormatError, MissingError
from tsuzuri.model import weights
from tsuzuri.model.families.ngram import NgramModel
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer

TINY = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
LLAMAS = [
    {},
    {"num_key_value_heads": 2, "head_dim": 6},
    {"tie_word_embeddings": True},
    {"attention_bias": True, "mlp_bias": True, "norm_eps": 1e-3, "rope_theta": 500.0},
]
OTHERS = [
    {"position": "learned", "norm": "layer_norm", "feedforward": "plain", "hidden_act": "gelu", "mlp_bias": True},
    {"position": "alibi", "qk_norm": "head", "sliding_window": 3},
    {"position": "none", "feedforward": "plain", "hidden_act": "relu2"},
    {"position": "sinusoidal", "tie_word_embeddings": True},
]
TOKENS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])


def built(dtype: torch.dtype = torch.float32, **choices: Any) -> Transformer:
    """Every weight random."""
    model, generator = Transformer(Shape(**{**TINY, **choices})), torch.Generator().manual_seed(7)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model.to(dtype)


def logits(model: Transformer) -> Tensor:
    with torch.inference_mode():
        return model(TOKENS, Causal(torch.arange(len(TOKENS))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(("family", "choices"), [*(("llama", c) for c in LLAMAS), *(("tsuzuri", c) for c in (*LLAMAS, *OTHERS))], ids=str)
def test_what_was_saved_is_loaded_to_the_bit(tmp_path: Path, family: str, choices: dict[str, Any], dtype: torch.dtype) -> None:
    model = built(dtype, **choices)
    weights.save(model, tmp_path, family)
    again = weights.load(tmp_path)
    assert again.shape.head_size == model.shape.head_size
    assert {name: (w.dtype, w.tolist()) for name, w in again.named_parameters()} == {
        name: (w.dtype, w.tolist()) for name, w in model.named_parameters()
    }
    assert torch.equal(logits(again), logits(model))
    assert not any(weight.requires_grad for weight in again.parameters())
    other = built(dtype, **choices).initialise(1)
    weights.restore(other, tmp_path, family)
    assert torch.equal(logits(other), logits(model))


def test_the_precision_asked_for_is_the_precision_given(tmp_path: Path) -> None:
    weights.save(built(), tmp_path)
    assert {weight.dtype for weight in weights.load(tmp_path, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}


def test_of_several_precisions_the_one_that_holds_all_is_taken(tmp_path: Path) -> None:
    weights.save(built(torch.bfloat16), tmp_path)
    change(tmp_path, lambda found: found.update({"model.norm.weight": torch.full((32,), 1.0 + 2**-20)}))
    model = weights.load(tmp_path)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert float(model.norm.weight[0]) == 1.0 + 2**-20


@pytest.mark.parametrize("choices", OTHERS[:3], ids=str)
def test_a_shape_that_a_family_cannot_say_is_not_written_as_that_family(tmp_path: Path, choices: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        weights.save(built(**choices), tmp_path, "llama")
    assert any(name in str(caught.value) for name in choices)
    assert list(tmp_path.iterdir()) == []


# ── weights that do not fit


def change(directory: Path, how: Callable[[dict[str, Tensor]], object]) -> None:
    """The weights of a directory, changed."""
    found = {name: value.clone() for name, value in load_file(directory / weights.WEIGHTS).items()}
    how(found)
    save_file(found, directory / weights.WEIGHTS)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    weights.save(built(), tmp_path)
    return tmp_path


QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda found: found.pop(QUERY), f"足りない重みがあります：{QUERY}"),
        (lambda found: found.update({"adapter.weight": torch.zeros(1)}), "知らない重みがあります：adapter.weight"),
        (lambda found: found.update({QUERY: torch.zeros(32, 31)}), r"blocks\.1\.mixer\.query\.weight: \(32, 31\)"),
        (lambda found: found.update({QUERY: torch.zeros(32 * 32)}), r"blocks\.1\.mixer\.query\.weight: \(1024,\)"),
        (lambda found: found.update({QUERY: torch.zeros(32, 32, dtype=torch.int32)}), r"query\.weight: .*int32"),
        (lambda found: found.update({QUERY: torch.zeros(32, 32).to(torch.float8_e4m3fn)}), r"query\.weight: .*float8"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(llama: Path, how: Callable[[dict[str, Tensor]], object], words: str) -> None:
    change(llama, how)
    for read in (lambda: weights.load(llama), lambda: weights.restore(built(), llama, "llama")):
        with pytest.raises(FormatError, match=words):
            read()


def test_what_old_checkpoints_derive_or_copy_is_passed_over_only_where_it_is_a_copy(tmp_path: Path) -> None:
    model = built(tie_word_embeddings=True)
    weights.save(model, tmp_path)
    change(tmp_path, lambda found: found.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    change(tmp_path, lambda found: found.update({"lm_head.weight": found["model.embed_tokens.weight"].clone()}))
    assert torch.equal(logits(weights.load(tmp_path)), logits(model))
    for other in (torch.zeros(50, 32), torch.zeros(50, 32, dtype=torch.float64), torch.zeros(3)):
        change(tmp_path, lambda found, other=other: found.update({"lm_head.weight": other}))
        with pytest.raises(FormatError, match=r"lm_head\.weight"):
            weights.load(tmp_path)


def split(directory: Path) -> dict[str, str]:
    """The weights in two files with an index."""
    found = load_file(directory / weights.WEIGHTS)
    names = sorted(found)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: found[name].clone() for name in part}, directory / file)
    (directory / weights.WEIGHTS).unlink()
    table = {name: file for file, part in parts.items() for name in part}
    (directory / weights.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return table


def test_shards_are_one_model(llama: Path) -> None:
    whole = logits(weights.load(llama))
    split(llama)
    assert torch.equal(logits(weights.load(llama)), whole)


def test_a_weight_in_two_shards_is_refused(llama: Path) -> None:
    name = "model.norm.weight"
    table = split(llama)
    for file in set(table.values()) - {table[name]}:
        save_file({**load_file(llama / file), name: torch.zeros(32)}, llama / file)
    with pytest.raises(FormatError, match=r"model\.norm\.weight が二つ"):
        weights.load(llama)


def test_a_shard_that_is_not_there_is_missing(llama: Path) -> None:
    split(llama)
    (llama / "two.safetensors").unlink()
    with pytest.raises(MissingError, match=r"two\.safetensors"):
        weights.load(llama)


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        *((table, FormatError) for table in (None, {}, [], "one.safetensors", {"a": 3}, {"a": "one.bin"}, {"a": ".."}, {"a": ""})),
        *(({"a": name}, FormatError) for name in ("../one.safetensors", "/one.safetensors", "sub/one.safetensors")),
        *(({"a": f"{name}.safetensors"}, MissingError) for name in ("\0", "\ud800", "x" * 300)),
    ],
    ids=ascii,
)
def test_an_index_names_files_of_its_directory_and_no_others(llama: Path, table: object, kind: type[Exception]) -> None:
    split(llama)
    (llama / weights.INDEX).write_text(json.dumps({"weight_map": table}))
    with pytest.raises(kind):
        weights.load(llama)


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["one.safetensors", "two.safetensors"])
)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=40)
    | anything.map(lambda value: json.dumps({"weight_map": value}).encode())
    | anything.map(json.dumps).map(str.encode)
)
def test_any_index_is_the_model_or_an_error_of_ours(llama: Path, content: bytes) -> None:
    """Bytes, JSON of any kind, and any table; it is the model only where the table names both of its files."""
    if (llama / weights.WEIGHTS).is_file():
        split(llama)
    (llama / weights.INDEX).write_bytes(content)
    try:
        weights.load(llama)
    except (FormatError, MissingError):
        return
    assert b"one.safetensors" in content and b"two.safetensors" in content


def test_no_weights_at_all(llama: Path) -> None:
    (llama / weights.WEIGHTS).unlink()
    with pytest.raises(MissingError, match=r"model\.safetensors"):
        weights.load(llama)


# ── config.json


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 10_000 + b"}", b"{'a': 1}"],
    ids=lambda value: str(value[:8]),
)
def test_garbage_is_no_config(llama: Path, content: bytes) -> None:
    (llama / "config.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"config\.json"):
        weights.load(llama)


def test_a_config_larger_than_any_is_not_read(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (llama / "config.json").read_text()
    monkeypatch.setattr(weights, "MAX_JSON_BYTES", len(text) + 10)
    (llama / "config.json").write_text(text + " " * 10)
    weights.load(llama)
    (llama / "config.json").write_text(text + " " * 11)
    with pytest.raises(FormatError):
        weights.load(llama)


def test_a_missing_config_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingError, match=r"config\.json"):
            weights.load(path)


LLAMA_FIELDS = [
    ({"model_type": "lama"}, ["lama", "llama"]),
    ({"model_type": None}, ["model_type", "ありません", "llama"]),
    ({"model_type": ["llama"]}, ["llama"]),
    ({"model_type": "../families/llama"}, ["llama"]),
    ({"model_type": "_fields"}, ["_fields", "llama"]),
    ({"logit_softcapping": 30.0}, ["logit_softcapping"]),
    ({"hidden_act": "gelu"}, ["hidden_act", "gelu", "silu"]),
    ({"hidden_act": ["silu"]}, ["hidden_act"]),
    ({"hidden_size": None}, ["hidden_size"]),
    ({"hidden_size": "32"}, ["hidden_size"]),
    ({"hidden_size": 32.0}, ["hidden_size"]),
    ({"hidden_size": True}, ["hidden_size"]),
    ({"hidden_size": -1}, ["hidden_size"]),
    ({"hidden_size": 2**31}, ["hidden_size"]),
    ({"num_attention_heads": 5}, ["num_attention_heads", "num_key_value_heads"]),
    ({"num_key_value_heads": 3}, ["num_key_value_heads"]),
    ({"head_dim": 7}, ["head_dim"]),
    ({"head_dim": 2**24}, ["head_dim", "大きすぎます"]),
    ({"num_hidden_layers": 2**30}, ["num_hidden_layers", "大きすぎます"]),
    ({"vocab_size": 2**30}, ["vocab_size", "大きすぎます"]),
    ({"rms_norm_eps": 0}, ["rms_norm_eps"]),
    ({"rms_norm_eps": float("nan")}, ["rms_norm_eps"]),
    ({"rope_theta": -1.0}, ["rope_theta"]),
    ({"rope_theta": float("inf")}, ["rope_theta"]),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ["rope_scaling", "linear"]),
    ({"rope_scaling": "linear"}, ["rope_scaling"]),
    ({"rope_parameters": {"rope_theta": "x"}}, ["rope_theta", "'x'"]),
    ({"rope_parameters": {"rope_theta": [1]}}, ["rope_theta"]),
    ({"rope_parameters": {"rope_type": "yarn"}}, ["yarn"]),
    ({"attention_bias": "false"}, ["attention_bias"]),
]
TSUZURI_FIELDS = [
    ({"hidden_siez": 32}, ["hidden_siez", "hidden_size"]),
    ({"position": "rotory"}, ["rotory", "rotary"]),
    ({"position": "gated"}, ["gated", "rotary"]),
    ({"position": 3}, ["position", "3"]),
    ({"position": "../past"}, ["rotary"]),
    ({"norm_eps": float("nan")}, ["norm_eps"]),
    ({"rope_theta": 0}, ["rope_theta"]),
    ({"sliding_window": 0}, ["sliding_window"]),
    ({"intermediate_size": 2**62}, ["intermediate_size", "大きすぎます"]),
    ({"num_hidden_layers": 10**30}, ["num_hidden_layers", "大きすぎます"]),
    ({"num_attention_heads": 2**20, "head_dim": 2**20}, ["head_dim", "大きすぎます"]),
]


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [*(("llama", *row) for row in LLAMA_FIELDS), *(("tsuzuri", *row) for row in TSUZURI_FIELDS)],
    ids=str,
)
def test_a_field_that_cannot_be_is_refused_by_name(tmp_path: Path, family: str, changes: dict[str, Any], named: list[str]) -> None:
    weights.save(built(), tmp_path, family)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ConfigError) as caught:
        weights.load(tmp_path)
    for words in named:
        assert words in str(caught.value)
    assert "上書き指定" not in str(caught.value)  # there is no recipe


def test_a_config_without_a_model_type_is_told_so(llama: Path) -> None:
    path = llama / "config.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "model_type"}))
    for call in (weights.load, weights.family_of):
        with pytest.raises(ConfigError, match=r"model_type の項目がありません[\s\S]*llama"):
            call(llama)


def test_a_config_that_may_not_be_read_is_not_called_damaged(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", forbidden)
    with pytest.raises(MissingError, match=r"config\.json[\s\S]*Permission denied[\s\S]*権限"):
        weights.load(llama)


def forbidden(self: Path, **_: object) -> str:
    """What the system says to whoever lacks the right; root is refused nothing, so it has to be said here."""
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))


def test_the_largest_shape_that_is_taken_allocates_nothing_before_the_weights_were_seen(llama: Path) -> None:
    """Every side at its bound: 2**48 numbers a matrix, and not one of them in memory."""
    path, most = llama / "config.json", 1 << 24
    sides = ("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings")
    path.write_text(json.dumps({**json.loads(path.read_text()), **dict.fromkeys(sides, most), "head_dim": most // 4}))
    with pytest.raises(FormatError, match=r"embedding\.weight: \(50, 32\)"):
        weights.load(llama)


def test_a_model_of_counts_is_not_taken_for_one_of_layers(tmp_path: Path) -> None:
    NgramModel.fit([numpy.array([1, 2, 3, 1, 2])], 5, 2).save(tmp_path)
    assert weights.load(tmp_path).order == 2
    for call in (
        lambda: weights.restore(built(), tmp_path, "ngram"),
        lambda: weights.save(built(), tmp_path, "ngram"),
    ):
        with pytest.raises(ConfigError, match="数えて作るモデル"):
            call()
    assert NgramModel.load(tmp_path).order == 2
