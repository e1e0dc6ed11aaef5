"""Whether the native library has everything a model is made of; where it has not, what is missing is named.

In: a model. Out: None, or the first thing that stands in the way. What it does not know it refuses: a field that came later and changes
the logits must not be ignored.
"""

from __future__ import annotations

import dataclasses
import re

import torch
from torch import nn

from tsuzuri.errors import Words
from tsuzuri.model._packing import plain_matrix
from tsuzuri.model.parts._build import ATTENTION
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.native.program import MOST_OPERATIONS

ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "relu2": "relu2"}  # config.json's name: the library's
NORMS = {"rms_norm": "rms_norm", "rms_norm_offset": "rms_norm", "layer_norm": "layer_norm", "layer_norm_scale": "layer_norm"}
POSITIONS = ("rotary", "alibi", "none", "learned", "sinusoidal", "sinusoidal_halves")
BLOCKS = ("pre_norm", "pre_norm_but_first", "parallel", "parallel_one_norm", "sandwich", "reordered_norm", "post_norm")
MIXERS = ("attention", "attention_by_depth")
LAYERS = (MOST_OPERATIONS - 8) // 9  # operations of a layer, at most: two norms of queries and keys, five, two norms after
HONOURED = {  # fields of a shape that are computed, or checked in `supports`; any other must be as if it were not there
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
    "num_key_value_heads", "head_dim", "norm_eps", "rope_theta", "rope_scaling", "rope_local_theta", "partial_rotary_factor",
    "position_offset", "sliding_window", "layer_types", "attention_scale", "attn_logit_softcapping", "final_logit_softcapping",
    "embedding_multiplier", "logit_multiplier", "attention_bias", "attention_output_bias", "mlp_bias", "head_bias", "embedding_norm",
    "tie_word_embeddings",
}  # fmt: skip
WEIGHTS = re.compile(
    r"(embedding|head|norm|embedding_norm|position\.table"
    r"|blocks\.\d+\.(norm|(mixer|feedforward)_(norm|after)|feedforward\.(gate|up|down)"
    r"|mixer\.(query|key|value|output|query_norm|key_norm)))\.(weight|bias|values|scale_bits)"
)


def supports(model: object) -> Words | None:
    """What of the model the library does not have; None where it has everything."""
    if type(model) is not Transformer:
        return Words("Transformer ではありません。", "It is not a Transformer.")
    return _of_shape(model.shape) or _of_weights(model)


def _of_shape(shape: Shape) -> Words | None:
    known: dict[str, tuple[object, ...]] = {
        "block": BLOCKS,
        "attention": MIXERS,
        "head": ("next_token",),
        "norm": tuple(NORMS),
        "position": POSITIONS,
        "causal": (True,),
        "cross_attention": (False,),
        "qk_norm": ("none", "head", "token") if NORMS.get(shape.norm) == "rms_norm" else ("none", "token"),
        "feedforward": (None, "gated", "plain"),
        "hidden_act": tuple(name for name in ACTIVATIONS if shape.feedforward != "gated" or name != "relu2"),
    }
    others: dict[str, tuple[object, ...]] = {
        field.name: (field.default,) for field in dataclasses.fields(shape) if field.name not in {*known, *HONOURED}
    }
    for name, values in {**known, **others}.items():
        found = getattr(shape, name)
        if found not in values:
            return Words(f"{name} が {found} です。", f"{name} is {found}.")
    mixers = sorted({*(shape.layer_types or ())} - {*ATTENTION, *MIXERS})
    if mixers or (shape.rope_scaling is not None and shape.rope_scaling.grows):
        text = ", ".join(mixers) or "rope_scaling"
        return Words(f"{text} は計算できません。", f"{text} cannot be computed.")
    if shape.num_hidden_layers > LAYERS:
        return Words(f"層が {LAYERS} を超えます。", f"It has more than {LAYERS} layers.")
    return None


def _of_weights(model: Transformer) -> Words | None:
    for name in model.state_dict():
        if not WEIGHTS.fullmatch(name):
            return Words(f"{name} という重みを知りません。", f"It does not know the weight {name}.")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding) and not plain_matrix(module):
            return Words(f"{name} が対応していない形です。", f"{name} is of a kind it does not have.")
    kinds = {weight.dtype for weight in model.parameters()}
    if any(weight.device.type != "cpu" for weight in model.parameters()) or len(kinds) > 1 or torch.float64 in kinds:
        return Words("CPU の float32 か bfloat16 ではありません。", "It is not in float32 or bfloat16 on the CPU.")
    return None
