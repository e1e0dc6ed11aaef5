"""Whether the native library has everything a model is made of; where it has not, what is missing is named.

In: a model. Out: None, or the first thing that stands in the way. What it does not know it refuses: a field that came later and changes
the logits must not be ignored.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch
from torch import nn

from tsuzuri.errors import Words
from tsuzuri.model._packing import plain_matrix
from tsuzuri.model.transformer import Transformer

ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "relu2": "relu2"}  # config.json's name: the library's
NORMS = {"rms_norm": "rms_norm", "layer_norm": "layer_norm", "layer_norm_scale": "layer_norm"}
POSITIONS = ("rotary", "alibi", "none", "learned", "sinusoidal")
OLD = {"swiglu": ("gated", "silu"), "gelu": ("plain", "gelu"), "relu2": ("plain", "relu2")}  # one part for each function
HONOURED = {  # fields of a shape that are computed, or checked in `supports`; any other must be as if it were not there
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
    "num_key_value_heads", "head_dim", "block", "attention", "feedforward", "norm", "position", "head", "hidden_act", "layer_types", "causal",
    "cross_attention", "norm_eps", "rope_theta", "rope_scaling", "rope_local_theta", "partial_rotary_factor", "position_offset",
    "sliding_window", "attention_scale", "attn_logit_softcapping", "final_logit_softcapping", "embedding_multiplier", "logit_multiplier",
    "qk_norm", "attention_bias", "attention_output_bias", "mlp_bias", "head_bias", "embedding_norm", "type_vocab_size", "tie_word_embeddings",
}  # fmt: skip
WEIGHTS = re.compile(
    r"(embedding|head|norm|embedding_norm|position\.table|local_position\.table"
    r"|blocks\.\d+\.(mixer_norm|attention_norm|feedforward_norm|feedforward\.(gate|up|down)"
    r"|(mixer|attention)\.(query|key|value|output|query_norm|key_norm)))\.(weight|bias|values|scale_bits)"
)


def supports(model: nn.Module) -> Words | None:
    """What of the model the library does not have; None where it has everything."""
    if type(model) is not Transformer:
        return Words("Transformer ではありません。", "It is not a Transformer.")
    return _of_shape(model.shape) or _of_weights(model)


def _of_shape(shape: Any) -> Words | None:
    known = {
        "block": ("pre_norm",),
        "attention": ("attention",),
        "head": ("next_token",),
        "norm": tuple(NORMS),
        "position": POSITIONS,
        "causal": (True,),
        "cross_attention": (False,),
        "type_vocab_size": (0,),
        "qk_norm": (False, "none") if shape.norm != "rms_norm" else (False, True, "none", "head"),
        "feedforward": (None, "gated", "plain", *OLD),
        "hidden_act": tuple(name for name in ACTIVATIONS if shape.feedforward != "gated" or name != "relu2"),
    }
    others = {field.name: (field.default,) for field in dataclasses.fields(shape) if field.name not in HONOURED}
    for name, values in {**known, **others}.items():
        found = getattr(shape, name, values[0])
        if found not in values:
            return Words(f"{name} が {found} です。", f"{name} is {found}.")
    mixers = {kind for kind in getattr(shape, "layer_types", None) or () if kind not in ("full_attention", "sliding_attention")}
    if mixers or getattr(getattr(shape, "rope_scaling", None), "grows", False):
        text = ", ".join(sorted(mixers)) or "rope_scaling"
        return Words(f"{text} は計算できません。", f"{text} cannot be computed.")
    return None


def _of_weights(model: Transformer) -> Words | None:
    for name in model.state_dict():
        if not WEIGHTS.fullmatch(name):
            return Words(f"{name} という重みを知りません。", f"It does not know the weight {name}.")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding) and not plain_matrix(module):
            return Words(f"{name} が対応していない形です。", f"{name} is of a kind it does not have.")
    if any(weight.device.type != "cpu" or weight.dtype == torch.float64 for weight in model.parameters()):
        return Words("CPU の float32 か bfloat16 ではありません。", "It is not in float32 or bfloat16 on the CPU.")
    return None
