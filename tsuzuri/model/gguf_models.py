"""Our models <-> GGUF's architectures: which metadata and tensor names say which shape and weight.

In: a `Transformer` of a shape that llama.cpp computes (llama, mistral, qwen2, qwen3, gpt2). Out: metadata and tensors, and back.
Everything here is by our own names, so a family needs no table of its own. It knows no tokenizer (`text/gguf_vocabulary.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsuzuri.errors import ConfigError, TsuzuriError, Words
from tsuzuri.model import gguf
from tsuzuri.model.parts.rotary import Part as Rotary
from tsuzuri.model.parts.rotary import Scaling, llama3
from tsuzuri.model.transformer import Shape, Transformer

FACTORS = "rope_freqs.weight"  # (R/2,): what each rotary frequency is divided by (llama3)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture of llama.cpp, and the shape it computes."""

    name: str
    fixed: Mapping[str, Any]  # fields of `Shape` that are so
    interleaved: bool = False  # rotary pairs are neighbours there: rows of queries and keys change places


LLAMA = {
    "block": "pre_norm", "feedforward": "gated", "hidden_act": "silu", "norm": "rms_norm", "position": "rotary", "head": "next_token",
    "causal": True, "embedding_multiplier": 1.0, "logit_multiplier": 1.0, "attention_scale": None, "attn_logit_softcapping": None,
    "final_logit_softcapping": None, "embedding_norm": False, "type_vocab_size": 0, "rope_local_theta": None, "head_bias": False,
    "layer_types": None, "sliding_window": None, "partial_rotary_factor": 1.0, "cross_attention": False,
}  # fmt: skip
ARCHITECTURES = (
    Architecture("qwen3", {**LLAMA, "qk_norm": "head", "attention_bias": False, "mlp_bias": False}),
    Architecture(
        "qwen2",
        {**LLAMA, "qk_norm": "none", "attention_bias": True, "output_bias": False, "mlp_bias": False},
    ),
    Architecture("llama", {**LLAMA, "qk_norm": "none"}, interleaved=True),
    Architecture(
        "gpt2",
        {**LLAMA, "feedforward": "plain", "hidden_act": "gelu_pytorch_tanh", "norm": "layer_norm", "position": "learned", "qk_norm": "none",
         "attention_bias": True, "output_bias": True, "mlp_bias": True, "position_offset": 0},
    ),
)  # fmt: skip
LAYER = {
    "mixer_norm": "attn_norm", "mixer.query": "attn_q", "mixer.key": "attn_k", "mixer.value": "attn_v", "mixer.output": "attn_output",
    "mixer.query_norm": "attn_q_norm", "mixer.key_norm": "attn_k_norm", "feedforward_norm": "ffn_norm", "feedforward.gate": "ffn_gate",
    "feedforward.up": "ffn_up", "feedforward.down": "ffn_down",
}  # fmt: skip
OUTSIDE = {"embedding": "token_embd", "norm": "output_norm", "head": "output", "position.table": "position_embd"}
FUSED = ("mixer.query", "mixer.key", "mixer.value")  # one tensor, attn_qkv, in gpt2


def architecture(shape: Shape) -> Architecture:
    """The first that computes this shape. Raises ConfigError naming what none of them has."""
    nearest: tuple[int, Architecture, list[str]] | None = None
    for one in ARCHITECTURES:
        wrong = [name for name, value in one.fixed.items() if getattr(shape, name) != value]
        if shape.layer_types is None and "sliding_window" in wrong:
            wrong.remove("sliding_window")  # the file's context ends where the window would begin to matter
        if shape.position == "rotary" and shape.rope_scaling and shape.rope_scaling.grows:
            wrong.append("rope_scaling")
        if not wrong:
            return one
        if nearest is None or len(wrong) < nearest[0]:
            nearest = len(wrong), one, wrong
    assert nearest is not None
    _, one, wrong = nearest
    said = "、".join(f"{name}={getattr(shape, name)!r}" for name in wrong[:3])
    raise ConfigError(
        Words("モデルを GGUF で書き出そうとしました。", "Writing the model as GGUF."),
        found=Words(f"この形は llama.cpp の {one.name} では計算できません（{said}）。", f"llama.cpp's {one.name} cannot compute {said}."),
        todo=Words("--to hf で書き出してください。", "Export it with --to hf."),
    )


def metadata(shape: Shape, name: str, kind: str) -> dict[str, Any]:
    """The keys that say the shape. `kind`: the type of the matrices."""
    own = architecture(shape).name
    found: dict[str, Any] = {
        "general.architecture": own,
        "general.name": name,
        "general.file_type": gguf.FILE_TYPES[kind],
        "general.quantization_version": 2,
        f"{own}.context_length": min(shape.max_position_embeddings, shape.sliding_window or shape.max_position_embeddings),
        f"{own}.embedding_length": shape.hidden_size,
        f"{own}.block_count": shape.num_hidden_layers,
        f"{own}.feed_forward_length": shape.intermediate_size,
        f"{own}.attention.head_count": shape.num_attention_heads,
        f"{own}.vocab_size": shape.vocab_size,
    }
    if own == "gpt2":
        return found | {f"{own}.attention.layer_norm_epsilon": shape.norm_eps}
    found |= {
        f"{own}.attention.head_count_kv": shape.kv_heads,
        f"{own}.attention.layer_norm_rms_epsilon": shape.norm_eps,
        f"{own}.attention.key_length": shape.head_size,
        f"{own}.attention.value_length": shape.head_size,
        f"{own}.rope.dimension_count": shape.rotary_size,
        f"{own}.rope.freq_base": shape.rope_theta,
    }
    return found | _scaling_keys(own, shape.rope_scaling)


def _scaling_keys(own: str, scaling: Scaling | None) -> dict[str, Any]:
    if scaling is None or scaling.rope_type == "llama3":  # llama3 is a tensor of factors
        return {}
    found = {f"{own}.rope.scaling.type": scaling.rope_type, f"{own}.rope.scaling.factor": scaling.factor}
    if scaling.rope_type == "yarn":
        assert scaling.original_max_position_embeddings is not None and scaling.attention_factor is not None
        usual = 0.1 * math.log(scaling.factor) + 1
        if not math.isclose(scaling.attention_factor, usual, rel_tol=1e-6) or scaling.truncate is False:
            raise ConfigError(
                Words("モデルを GGUF で書き出そうとしました。", "Writing the model as GGUF."),
                found=Words(
                    "yarn の attention_factor か truncate が既定と違い、GGUF では表せません。",
                    "attention_factor or truncate of yarn is not the usual one; GGUF cannot say it.",
                ),
                todo=Words("--to hf で書き出してください。", "Export it with --to hf."),
            )
        found |= {
            f"{own}.rope.scaling.original_context_length": scaling.original_max_position_embeddings,
            f"{own}.rope.scaling.yarn_beta_fast": float(scaling.beta_fast or 32),
            f"{own}.rope.scaling.yarn_beta_slow": float(scaling.beta_slow or 1),
        }
    return found


def tensors(model: Transformer, kind: str) -> dict[str, tuple[str, Tensor]]:
    """Name -> (type, tensor), as llama.cpp wants them: matrices in `kind` where their rows are whole blocks, the rest wider."""
    shape, own = model.shape, architecture(model.shape)
    weight = {name: value.detach().float() for name, value in model.named_parameters()}
    found: dict[str, Tensor] = {}
    for name, value in weight.items():
        part, _, ending = name.rpartition(".")
        if not name.startswith("blocks."):
            found[f"{OUTSIDE[part]}.{ending}"] = value
            continue
        _, layer, inner = part.split(".", 2)
        if own.name == "gpt2" and inner in FUSED:
            if inner == FUSED[0]:
                found[f"blk.{layer}.attn_qkv.{ending}"] = torch.cat([weight[f"blocks.{layer}.{one}.{ending}"] for one in FUSED])
            continue
        if own.interleaved and inner in FUSED[:2]:
            value = _to_neighbours(value, shape)
        found[f"blk.{layer}.{LAYER[inner]}.{ending}"] = value
    if shape.tie_word_embeddings and own.name == "gpt2":
        found["output.weight"] = found["token_embd.weight"]
    if shape.rope_scaling is not None and shape.rope_scaling.rope_type == "llama3":
        found[FACTORS] = _factors(shape)
    return {name: (_type(name, value, kind), value) for name, value in found.items()}


def _type(name: str, value: Tensor, kind: str) -> str:
    if value.dim() < 2 or "position" in name:
        return "f32"
    return kind if value.shape[-1] % gguf.SIZES[kind][0] == 0 else "f16"


def _factors(shape: Shape) -> Tensor:
    """(R/2,): unscaled frequency / scaled frequency"""
    part, plain = Rotary(shape), shape.rope_theta ** -(torch.arange(0, shape.rotary_size, 2) / shape.rotary_size)
    return plain / part.frequencies(torch.device("cpu"), torch.float32, None)


def _to_neighbours(value: Tensor, shape: Shape) -> Tensor:
    """Rows (or biases) of each head from halves (i, i + E/2) to neighbours (2i, 2i + 1)."""
    heads = torch.unflatten(value, 0, (-1, 2, shape.head_size // 2))  # (H, 2, E/2, …)
    return heads.transpose(1, 2).flatten(0, 2)


def _to_halves(value: Tensor, shape: Shape) -> Tensor:
    """The inverse of `_to_neighbours`."""
    heads = torch.unflatten(value, 0, (-1, shape.head_size // 2, 2))
    return heads.transpose(1, 2).flatten(0, 2)


# ── reading


def load(file: gguf.File) -> Transformer:
    """The model of a file, in float32. Raises FormatError and ConfigError."""
    shape, own = _shape(file)
    model = Transformer(shape, device="meta")
    found = dict(_found(file, model, shape, own))
    for name, weight in model.named_parameters():
        if found[name].shape != weight.shape:
            raise gguf.wrong(file.path, f"{name}: {tuple(found[name].shape)}, metadata: {tuple(weight.shape)}")
    model.load_state_dict(found, assign=True)
    return model.requires_grad_(False)


def _found(file: gguf.File, model: Transformer, shape: Shape, own: Architecture) -> dict[str, Tensor]:
    """Our names -> tensors. Every tensor of the file has to have a meaning."""
    found: dict[str, Tensor] = {}
    used = {FACTORS}
    sizes = [shape.num_attention_heads * shape.head_size] + [shape.kv_heads * shape.head_size] * 2
    for name, _ in model.named_parameters():
        part, _, ending = name.rpartition(".")
        if not name.startswith("blocks."):
            theirs = f"{OUTSIDE[part]}.{ending}"
            found[name] = file.tensor(theirs)
        else:
            _, layer, inner = part.split(".", 2)
            fused = own.name == "gpt2" and inner in FUSED
            theirs = f"blk.{layer}.{'attn_qkv' if fused else LAYER[inner]}.{ending}"
            value = file.tensor(theirs)
            if fused:
                if len(value) != sum(sizes):
                    raise gguf.wrong(file.path, theirs)
                value = torch.split(value, sizes)[FUSED.index(inner)].clone()
            elif own.interleaved and inner in FUSED[:2]:
                if len(value) % shape.head_size:
                    raise gguf.wrong(file.path, theirs)
                value = _to_halves(value, shape)
            found[name] = value
        used.add(theirs)
    unknown = sorted(set(file.entries) - used - ({"output.weight"} if shape.tie_word_embeddings else set()))
    if unknown:
        raise gguf.wrong(file.path, f"{unknown[0]} is not known")
    return found


def _shape(file: gguf.File) -> tuple[Shape, Architecture]:
    keys = file.metadata
    name = keys.get("general.architecture")
    own = next((one for one in ARCHITECTURES if one.name == name), None)
    if own is None:
        known = ", ".join(one.name for one in ARCHITECTURES)
        raise ConfigError(
            Words(f"{file.path.name} を読もうとしました。", f"Reading {file.path.name}."),
            found=Words(f"architecture が「{name}」です。読めるのは {known} です。", f"Its architecture is '{name}'; {known} can be read."),
            todo=Words("safetensors 形式のモデルを入手してください。", "Fetch the model as safetensors."),
        )
    try:
        return _checked(file, keys, own), own
    except (KeyError, TypeError) as error:
        raise gguf.wrong(file.path, f"metadata: {error}") from error
    except TsuzuriError:
        raise


def _checked(file: gguf.File, keys: Mapping[str, Any], own: Architecture) -> Shape:
    def whole(key: str, default: int | None = None) -> int:
        value = keys[f"{own.name}.{key}"] if default is None else keys.get(f"{own.name}.{key}", default)
        if type(value) is not int:
            raise TypeError(key)
        return value

    heads, size = whole("attention.head_count"), whole("embedding_length")
    layers, vocabulary = whole("block_count"), file.entries["token_embd.weight"].shape[0]
    fixed = {name: value for name, value in own.fixed.items() if name != "output_bias"}
    if heads < 1 or whole("attention.sliding_window", 0):
        raise KeyError("attention.sliding_window" if heads else "attention.head_count")
    common = {
        **fixed, "vocab_size": vocabulary, "hidden_size": size, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": whole("feed_forward_length"), "max_position_embeddings": whole("context_length"),
    }  # fmt: skip
    if own.name == "gpt2":
        return Shape(**common, norm_eps=float(keys["gpt2.attention.layer_norm_epsilon"]), tie_word_embeddings=_tied(file))
    head = whole("attention.key_length", size // heads)
    bias, output = ("blk.0.attn_q.bias" in file.entries), ("blk.0.attn_output.bias" in file.entries)
    biases = {
        "attention_bias": bias,
        "attention_output_bias": None if output == bias else output,
        "mlp_bias": "blk.0.ffn_down.bias" in file.entries,
    }
    theta = float(keys.get(f"{own.name}.rope.freq_base", 10000.0))
    if whole("rope.dimension_count", head) != head:
        raise KeyError("rope.dimension_count")
    shape = {
        **common, **biases, "num_key_value_heads": whole("attention.head_count_kv", heads), "head_dim": head, "rope_theta": theta,
        "norm_eps": float(keys[f"{own.name}.attention.layer_norm_rms_epsilon"]),
        "tie_word_embeddings": _tied(file),
    }  # fmt: skip
    return Shape(**{**shape, "rope_scaling": _scaling(file, keys, own, theta)})


def _tied(file: gguf.File) -> bool:
    """No output matrix, or one that only repeats the embedding."""
    if "output.weight" not in file.entries:
        return True
    same = file.entries["output.weight"].shape == file.entries["token_embd.weight"].shape
    return same and torch.equal(file.tensor("output.weight"), file.tensor("token_embd.weight"))


def _scaling(file: gguf.File, keys: Mapping[str, Any], own: Architecture, theta: float) -> Scaling | None:
    if FACTORS in file.entries:
        return _llama3(file.tensor(FACTORS), theta)
    kind = keys.get(f"{own.name}.rope.scaling.type", "none")
    if kind == "none":
        return None
    factor = float(keys[f"{own.name}.rope.scaling.factor"])
    if kind == "linear":
        return Scaling(rope_type="linear", factor=factor)
    if kind != "yarn":
        raise KeyError(f"rope.scaling.type {kind}")
    original = keys[f"{own.name}.rope.scaling.original_context_length"]
    fast, slow = (keys.get(f"{own.name}.rope.scaling.yarn_beta_{side}") for side in ("fast", "slow"))
    longer = 0.1 * math.log(factor) + 1
    return Scaling(
        rope_type="yarn", factor=factor, original_max_position_embeddings=original, beta_fast=fast, beta_slow=slow, attention_factor=longer
    )


def _llama3(factors: Tensor, theta: float) -> Scaling:
    """The scaling that gives the factors of a file, with the low and high factors of the published models."""
    plain = theta ** -(torch.arange(0, 2 * len(factors), 2) / (2 * len(factors)))
    for original in (2**power for power in range(3, 18)):
        scaling = Scaling(
            rope_type="llama3",
            factor=float(factors.max()),
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=original,
        )
        if torch.allclose(plain / llama3(plain, scaling), factors, rtol=1e-4):
            return scaling
    raise KeyError(FACTORS)


def export(model: Transformer, path: Path, name: str, kind: str, vocabulary: Mapping[str, Any]) -> dict[str, int]:
    """Write a model; how many tensors were written in which type. `vocabulary`: the keys of the tokenizer."""
    found = tensors(model, kind)
    gguf.write(path, {**metadata(model.shape, name, kind), **vocabulary}, found)
    types = [each for each, _ in found.values()]
    return {each: types.count(each) for each in sorted(set(types))}
