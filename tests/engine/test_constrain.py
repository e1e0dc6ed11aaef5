"""Constraints: whatever a model would say, the output is valid, whole, the same again, and what cannot be kept to is refused by name."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tsuzuri.engine import constrain, schema
from tsuzuri.engine.batch import BatchEngine
from tsuzuri.engine.constrain import Vocabulary
from tsuzuri.engine.constraint import CHOICES, GRAMMAR, REGEX, Constraint, choice, json_schema
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import History, Sampling, distribution
from tsuzuri.errors import ConfigError, InputError, MissingError
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.text import fast
from tsuzuri.types import Token

SAMPLE = Path(__file__).parents[1] / "data" / "ryoriten.txt"
CONTEXT = 512
END, SPARE = 2, 7  # the id that ends a text; ids of the model that the tokenizer has not
KINDS = ("bpe", "unigram")  # bytes throughout; pieces that fall back to bytes


@functools.cache
def tokenizer(kind: str) -> fast.FastTokenizer:
    signs = ' {}[]:,"' * 30 + '{"名前": "日本語", "数": [1, 23, -4.5e6], "真": true, "偽": false, "無": null}' * 30
    return fast.train(kind, [SAMPLE.read_text(encoding="utf-8"), signs], 600)


class Babble(Transformer):
    """A model that says anything, but likes to close what it opened: texts come to an end."""

    def __init__(self, kind: str) -> None:
        size = tokenizer(kind).vocab_size + SPARE
        super().__init__(Shape(vocab_size=size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, max_position_embeddings=CONTEXT))  # fmt: skip
        generator = torch.Generator().manual_seed(5)
        for weight in self.parameters():
            torch.nn.init.normal_(weight, std=0.3, generator=generator)
        closes = [any(sign in tokenizer(kind).token_bytes(id) for sign in b'"}]') for id in range(size - SPARE)] + [False] * SPARE
        self.liked = 4 * torch.tensor(closes).double()
        self.liked[END] = 4
        self.double().requires_grad_(False)

    def logits(self, hidden: Tensor) -> Tensor:
        return super().logits(hidden) + self.liked


@functools.cache
def engine(kind: str = "bpe") -> LocalEngine:
    known = tokenizer(kind)
    return LocalEngine(Babble(kind), {END}, CONTEXT, vocabulary=Vocabulary(known.token_bytes, known.vocab_size, known.special.values()))


def said(tokens: list[Token], kind: str = "bpe") -> str:
    return b"".join(tokenizer(kind).token_bytes(token.id) for token in tokens if token.id != END).decode()


def output(constraint: Constraint, kind: str = "bpe", prompt: str = "今日は", **choices: Any) -> list[Token]:
    choices = {"seed": 1, "max_tokens": 200, **choices}
    return list(engine(kind).stream(tokenizer(kind).encode(prompt), Sampling(constraint=constraint, **choices)))


# ── random schemas

NAMES = st.sampled_from(["名前", "年齢", "a", "b/c", "d~e", "type", "住所 1", '引用"'])
TEXTS = st.sampled_from(["東京", "大阪府", "", "a", '"', "\\", "改行\n", "🍣", "か\u3099"])
VALUES = st.one_of(TEXTS, st.integers(-(10**6), 10**6), st.booleans(), st.none(), st.sampled_from([0.5, -1.25, 1e20]), st.just([]), st.just([1, "二"]), st.just({"鍵": 1}))  # fmt: skip


def ordered(low: str, high: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Neither, one or both, and then in order."""
    return st.tuples(values, values, st.integers(0, 3)).map(
        lambda found: {
            name: value for bit, (name, value) in enumerate(zip((low, high), sorted(found[:2]), strict=True)) if found[2] >> bit & 1
        }
    )


def with_type(kind: str, *parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda found: {"type": kind} | {key: value for part in found for key, value in part.items()})


STRINGS = st.one_of(
    with_type("string", ordered("minLength", "maxLength", st.integers(0, 9))),
    st.sampled_from(["^[ぁ-ん]{2,4}$", "^(東|西)京$", "[0-9]{3}-[0-9]{4}", "^.x", "日$"]).map(lambda p: {"type": "string", "pattern": p}),
    st.sampled_from(["date", "time", "date-time", "uuid", "ipv4"]).map(lambda name: {"type": "string", "format": name}),
)
NUMBERS = st.one_of(
    with_type("integer", ordered("minimum", "maximum", st.integers(-1000, 1000))),
    with_type("integer", ordered("minimum", "exclusiveMaximum", st.integers(0, 10).map(lambda n: 10 * n))).filter(
        lambda s: s.get("minimum", -1) != s.get("exclusiveMaximum")
    ),  # fmt: skip
    with_type("number", ordered("minimum", "maximum", st.integers(-400, 400).map(lambda n: n / 8))),
    st.sampled_from([{"type": "integer", "multipleOf": 7}, {"type": "integer", "multipleOf": 5, "minimum": 10}]),
)
LEAVES = st.one_of(
    STRINGS,
    NUMBERS,
    st.lists(VALUES, min_size=1, max_size=4).map(lambda values: {"enum": values}),
    VALUES.map(lambda value: {"const": value}),
    st.sampled_from(["null", "boolean"]).map(lambda kind: {"type": kind}),
    st.just({"type": ["string", "null"]}),
    st.just({"$ref": "#/$defs/住所"}),
    st.just({"$ref": "#/$defs/木"}),
)


def larger(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    closed = st.dictionaries(NAMES, inner, max_size=4).flatmap(
        lambda named: st.tuples(st.sets(st.sampled_from(sorted(named))) if named else st.just(set()), st.booleans()).map(
            lambda how: (
                {"type": "object", "properties": named, "required": sorted(how[0])} | ({} if how[1] else {"additionalProperties": False})
            )
        )
    )
    return st.one_of(
        closed,
        inner.map(lambda part: {"type": "object", "additionalProperties": part, "maxProperties": 2}),
        st.tuples(inner, ordered("minItems", "maxItems", st.integers(0, 3))).map(
            lambda found: {"type": "array", "items": found[0], **found[1]}
        ),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda parts: {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": [*parts, {"type": "null"}]}),
        st.tuples(st.just({"type": "string", "minLength": 1}), st.just({"maxLength": 3})).map(lambda parts: {"allOf": list(parts)}),
    )


DEFINED = {
    "住所": {"type": "object", "properties": {"県": {"type": "string", "maxLength": 4}}, "required": ["県"], "additionalProperties": False},
    "木": {
        "type": "object",
        "properties": {"値": {"type": "integer"}, "子": {"type": "array", "items": {"$ref": "#/$defs/木"}, "maxItems": 2}},
        "required": ["値", "子"],
        "additionalProperties": False,
    },
}
SCHEMAS = st.recursive(LEAVES, larger, max_leaves=6).map(lambda schema: {**schema, "$defs": DEFINED})
CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
finished = {"all": 0, "whole": 0}


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(SCHEMAS, st.sampled_from(KINDS), st.integers(0, 9))
def test_every_finished_output_is_valid(schema: dict[str, Any], kind: str, seed: int) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    found = output(json_schema(schema), kind, seed=seed, temperature=0.0 if seed == 0 else 1.0)
    finished["all"] += 1
    if found[-1].finish == "length":
        return
    finished["whole"] += 1
    value = json.loads(said(found, kind))
    jsonschema.validate(value, schema, jsonschema.Draft202012Validator, format_checker=CHECKER)


def test_most_of_them_finish() -> None:
    """That the law above meets what it speaks of."""
    assert finished["all"] >= 100
    assert finished["whole"] > 0.7 * finished["all"]
