"""Reading a config.json field by field, so that none is overlooked.

In: the mapping of a config.json that may come from anywhere. Each field is taken, required to have one value, or named
as having no effect on the logits; `done` refuses what is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import ConfigError, Words

# Fields of Hugging Face's config.json that say nothing about the logits.
WITHOUT_EFFECT = frozenset(
    [
        "architectures",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "initializer_range",
        "is_decoder",
        "is_encoder_decoder",
        "label2id",
        "model_type",
        "name_or_path",
        "_name_or_path",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "tie_encoder_decoder",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "chunk_size_feed_forward",
        "add_cross_attention",
        "cross_attention_hidden_size",
        "attention_dropout",
        "embd_pdrop",
        "resid_pdrop",
        "attn_pdrop",
        "_attn_implementation_autoset",
    ]
)
# What others call the functions of `parts/_activation.py`.
ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_pytorch_tanh", "gelu_pytorch_tanh": "gelu_pytorch_tanh",
    "gelu_fast": "gelu_pytorch_tanh", "gelu_accurate": "gelu_pytorch_tanh", "gelu_python_tanh": "gelu_pytorch_tanh", "gelu_python": "gelu",
    "relu": "relu", "relu2": "relu2", "relu_squared": "relu2", "tanh": "tanh",
}  # fmt: skip
TODO = Words("対応する形のモデルを使うか、この項目を直してください。", "Use a model of a supported shape, or correct this field.")


class Fields:
    """The fields of one config.json, taken one at a time."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.left = set(config) - WITHOUT_EFFECT

    def whole(self, name: str, default: int | None = None) -> int:
        """A positive whole number. Booleans and floats are refused."""
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
            raise self.wrong(name, Words(f"{value!r} です。正の整数が要ります。", f"It is {value!r}; a positive whole number is needed."))
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise self.wrong(name, Words(f"{value!r} です。正の数が要ります。", f"It is {value!r}; a positive number is needed."))
        return float(value)

    def amount(self, name: str, default: float) -> float:
        """A number that may be 0."""
        if type(self.config.get(name)) in (int, float) and self.config[name] == 0:
            self.left.discard(name)
            return 0.0
        return self.number(name, default)

    def flag(self, name: str, default: bool) -> bool:
        value = self._take(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, Words(f"{value!r} です。true か false が要ります。", f"It is {value!r}; true or false is needed."))
        return value

    def optional(self, name: str) -> Any:
        """The value, or None where there is none."""
        self.left.discard(name)
        return self.config.get(name)

    def must_be(self, name: str, *allowed: Any) -> None:
        """The field is absent or has one of the values that this family computes."""
        self.left.discard(name)
        if name in self.config and self.config[name] not in allowed:
            text = " / ".join(repr(value) for value in allowed)
            raise self.wrong(
                name,
                Words(f"{self.config[name]!r} です。計算できるのは {text} です。", f"It is {self.config[name]!r}; {text} can be computed."),
            )

    def choice(self, name: str, names: Mapping[str, str], default: str | None = None) -> str:
        """Our word for their value, which has to be one of `names` (theirs -> ours)."""
        value = self._take(name, default)
        if not isinstance(value, str) or value not in names:
            text = " / ".join(repr(one) for one in names)
            raise self.wrong(name, Words(f"{value!r} です。計算できるのは {text} です。", f"It is {value!r}; {text} can be computed."))
        return names[value]

    def done(self) -> None:
        """Refuses fields nobody took: silently ignoring one could change the result."""
        if self.left:
            name = sorted(self.left)[0]
            raise self.wrong(name, Words("この項目には対応していません。", "The meaning of this field is not known."))

    def wrong(self, name: str, found: Words) -> ConfigError:
        kind = self.config.get("model_type")
        return ConfigError(
            Words(f"config.json（{kind}）の {name} に問題があります。", f"Reading {name} of config.json ({kind})."),
            found=found,
            todo=TODO,
        )

    def _take(self, name: str, default: Any) -> Any:
        self.left.discard(name)
        value = self.config.get(name, default)
        if value is None and default is None:
            raise self.wrong(name, Words("項目がありません。", "It is missing."))
        return default if value is None else value


def said(shape: Any, fixed: Mapping[str, Any], family: str) -> None:
    """Raises ConfigError for a shape that the family cannot say: one in which a field is not as the family always has it."""
    for name, value in fixed.items():
        found = getattr(shape, name)
        if found != value:
            raise ConfigError(
                Words(f"モデルを {family} として書き出そうとしました。", f"Writing the model as {family}."),
                found=Words(
                    f"{name} が {found!r} です。{family} では {value!r} に限ります。", f"{name} is {found!r}; {family} has {value!r}."
                ),
                todo=Words(
                    f"family を tsuzuri にするか、形を {family} に合わせてください。",
                    f"Use the family tsuzuri, or give the model {family}'s shape.",
                ),
            )


def every(shape_type: type, *varying: str) -> dict[str, Any]:
    """The defaults of all fields of a shape but those that vary: what a family that knows none of them always has."""
    return {field.name: field.default for field in dataclasses.fields(shape_type) if field.name not in varying}


def one_key_each(shape: Any) -> dict[str, Any]:
    """For `said`: every head has keys of its own, and together the heads are as wide as the hidden state."""
    heads, size = shape.num_attention_heads, shape.hidden_size // shape.num_attention_heads
    return {
        "hidden_size": heads * size,
        "head_dim": None if shape.head_dim is None else size,
        "num_key_value_heads": None if shape.num_key_value_heads is None else heads,
    }
