"""Constraints: whatever a model would say, the output is valid, whole, the same again, and what cannot be kept to is refused by name."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
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
from tsuzuri.engine.choosing import Choosing
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
    ),
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


@settings(max_examples=70, deadline=None, suppress_health_check=list(HealthCheck))
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
    assert finished["all"] >= 60
    assert finished["whole"] > 0.7 * finished["all"]


CLOSED = {"type": "object", "additionalProperties": False}
EACH = {
    "enum of a type": {"type": "string", "enum": ["a", 1, "日本"]},
    "const": {"const": {"a": [1, None, "二"]}},
    "one of": {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]},
    "one of, told apart": {
        "oneOf": [{**CLOSED, "properties": {"種": {"const": kind}, kind: {"type": "null"}}, "required": ["種"]} for kind in "犬猫"]
    },
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"a": {"minimum": 5}, "b": {"type": "null"}}, "required": ["b"], "additionalProperties": True},
        ]
    },
    "a reference with neighbours": {"$defs": {"s": {"type": "string", "minLength": 2}}, "$ref": "#/$defs/s", "maxLength": 3},
    "the whole again": {
        "type": "object",
        "properties": {"次": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["次"],
        "additionalProperties": False,
    },
    "definitions": {"definitions": {"a/b~c%": {"type": "boolean"}}, "$ref": "#/definitions/a~1b~0c%25"},
    "into properties": {**CLOSED, "properties": {"a": {"type": "null"}, "b": {"$ref": "#/properties/a"}}, "required": ["a", "b"]},
    "required beside": {
        "type": "object",
        "properties": {"a": {"type": "null"}},
        "required": ["他", "a"],
        "additionalProperties": {"type": "boolean"},
    },
    "forbidden": {"type": "object", "properties": {"a": False, "b": {"type": "null"}}, "required": ["b"], "additionalProperties": False},
    "anything": {"type": "object", "properties": {"a": True}, "required": ["a"], "maxProperties": 1},
    "sevens": {"type": "integer", "multipleOf": 7, "minimum": 100, "exclusiveMaximum": 200},
    "bounds of numbers": {"type": "number", "exclusiveMinimum": -1.5, "maximum": 2},
    "digits": {"type": "string", "pattern": r"^\d{2}\w$"},
    "within": {"type": "string", "pattern": "b{3}", "maxLength": 6},
    **{name: {"type": "string", "format": name} for name in schema.FORMATS},
}


@pytest.mark.parametrize("name", EACH)
def test_every_keyword_is_kept_to(name: str) -> None:
    finished = 0
    for seed in range(12):
        found = output(json_schema(EACH[name]), seed=seed, max_tokens=100)
        if found[-1].finish == "stop":
            jsonschema.validate(json.loads(said(found)), EACH[name], jsonschema.Draft202012Validator, format_checker=CHECKER)
            finished += 1
    assert finished


def test_every_keyword_is_met_above() -> None:
    written = json.dumps([EACH, str(SCHEMAS), DEFINED])
    used = {name for name in schema.KEYWORDS if f'"{name}"' in written}
    made = {"minItems", "maxItems", "items", "prefixItems"}  # by the random ones
    assert set(schema.KEYWORDS) == used | made


PATTERNS = {  # JSON Schema means the expressions of ECMA-262, where these are ASCII, and a dot is no end of a line
    r"^\d\w.$": r"^[0-9][0-9A-Za-z_][^\n\r\u2028\u2029]$",
    r"[\d\w.-]\.\\.": r"[0-90-9A-Za-z_.-]\.\\[^\n\r\u2028\u2029]",
    r"\D\W\s[^\]^\-]": r"[^0-9][^0-9A-Za-z_]\s[^\]^\-]",
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_that_of_a_schema(pattern: str) -> None:
    found = json.loads(json_schema({"pattern": pattern}).text)["pattern"]
    assert found == PATTERNS[pattern]
    assert json_schema({"pattern": found}) == json_schema({"pattern": pattern})
    assert engine().matcher(Sampling(constraint=json_schema({"pattern": pattern})))


@pytest.mark.parametrize(
    "pattern", ["[a[b]", "[a&&b]", "[a--b]", "[a~~b]", r"[\D]", "[ab", "a\\", "(?i)a", "(?<name>a)", "(?x: a)", "(?=a)b", "(?<=a)b"]
)
def test_a_pattern_that_means_another_thing_elsewhere_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="#/pattern"):
        json_schema({"pattern": pattern})


# ── what is refused


def with_place(**keywords: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"名前": {"type": "string", **keywords}}}


UNSUPPORTED = [
    "not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "dependentRequired", "dependentSchemas",
    "dependencies", "propertyNames", "patternProperties", "minProperties", "unevaluatedItems", "unevaluatedProperties", "additionalItems",
    "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary", "$id", "contentEncoding", "contentMediaType",
    "discriminator", "nullable", "x-guidance", "minLenght", "Type",
]  # fmt: skip


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_keyword_is_refused_by_name(name: str) -> None:
    assert name not in schema.KEYWORDS
    for value in (True, {}, [], 1):
        with pytest.raises(ConfigError, match=re.escape(f"#/properties/名前 のキーワード「{name}」")):
            json_schema(with_place(**{name: value}))
    json_schema({"properties": {name: {"type": "string"}}, "required": [name]})  # the name of a property is no keyword


def test_remarks_are_no_keywords() -> None:
    plain = {"type": "object", "properties": {"title": {"type": "string"}}}
    remarks = {"title": "題", "description": "説明", "default": {}, "examples": [1], "$comment": "", "$schema": "s", "deprecated": True}
    assert json_schema({**plain, **remarks, "$id": "https://example.com/"}) == json_schema(plain)


def nested(depth: int) -> dict[str, Any]:
    return {"type": "null"} if depth == 0 else {"type": "array", "items": nested(depth - 1)}


BAD: dict[str, tuple[Any, str]] = {
    "no schema": ([1], "# がスキーマではありません"),
    "nor inside": ({"properties": {"a": 1}}, "#/properties/a がスキーマではありません"),
    "items of old": ({"items": [{}]}, "#/items がスキーマではありません"),
    "too deep": (nested(schema.DEPTH + 1), "16 段より深い"),
    "too many": ({"properties": {f"{n}": {} for n in range(schema.NODES)}}, "128 個を超えて"),
    "too long": ({"description": "あ" * 6000}, "16,384 バイト"),
    "branches": ({"anyOf": [{}] * 17}, "#/anyOf は 17 個あります。16 個まで"),
    "no branch": ({"anyOf": []}, "#/anyOf には一つ以上"),
    "choices": ({"enum": list(range(257))}, "#/enum は 257 個あります。256 個まで"),
    "pattern": ({"pattern": "あ" * 171}, "#/pattern には 1 から 512 バイト"),
    "type": ({"type": "int"}, "#/type には null、boolean"),
    "types": ({"type": ["null", "null"]}, "#/type には"),
    "format": ({"format": "postcode"}, "#/format には date"),
    "count": ({"minLength": -1}, "#/minLength には 0 から 4,096"),
    "counted": ({"maxItems": 5000}, "#/maxItems には"),
    "half": ({"minLength": 1.5}, "#/minLength には"),
    "true": ({"maximum": True}, "#/maximum には数"),
    "huge": ({"maximum": 2**63}, "#/maximum には数"),
    "multiple": ({"multipleOf": 0}, "#/multipleOf には 0 より大きい"),
    "slow to compile": ({"type": "integer", "multipleOf": 9999991}, "最小公倍数"),
    "slow together": ({"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}, "最小公倍数"),
    "fine digits": ({"multipleOf": 1234.567}, "最小公倍数"),
    "required": ({"required": "a"}, "#/required には異なる名前"),
    "far": ({"$ref": "https://example.com/schema.json"}, r"# の \$ref が指す https://example.com"),
    "file": ({"$ref": "file:///etc/passwd"}, "file:///etc/passwd は、この文書の"),
    "nowhere": ({"$ref": "#/$defs/a", "$defs": {"b": {}}}, r"#/\$defs/a は、この文書の"),
    "no part": ({"$ref": "#/enum/0", "enum": [{}]}, "#/enum/0 は、この文書の"),
    "itself": ({"$ref": "#"}, "戻り続ける"),
    "each other": ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "戻り続ける"),
    "without end": ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "戻り続ける"),
    "without end, named elsewhere": ({"type": "object", "additionalProperties": {"$ref": "#"}, "required": ["a"]}, "戻り続ける"),
    "without end in a list": ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "戻り続ける"),
    "nor in a row": ({"type": "array", "prefixItems": [{}, {"$ref": "#"}], "minItems": 2}, "戻り続ける"),
    "required and forbidden": ({"type": "object", "required": ["z"], "additionalProperties": False}, "戻り続けるか、false"),
    "nothing": (False, "戻り続けるか、false"),
    "twice": ('{"type": "string", "type": "null"}', "「type」が二度"),
    "no JSON": ("{", "JSON として読めません"),
    "no number": ('{"minimum": NaN}', "NaN は JSON の数ではない"),
    "brackets": ("[" * 8000, "深すぎます|JSON として読めません"),
    "no text": ({"const": {1, 2}}, "JSON にできません"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_said(name: str) -> None:
    value, words = BAD[name]
    with pytest.raises(ConfigError, match=words):
        json_schema(json.dumps(value) if isinstance(value, list | bool) else value)


def test_what_ends_somewhere_is_no_endless_reference() -> None:
    for good in (
        {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
        {"type": ["object", "null"], "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "array", "prefixItems": [{"$ref": "#"}], "minItems": 0},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        nested(schema.DEPTH),
    ):
        json_schema(good)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("regex", "", "regex が空"),
        ("regex", "あ" * 171, f"{REGEX} バイト"),
        ("choice", "[]", "一つ以上"),
        ("choice", '["a", ""]', "空でない"),
        ("choice", "a", "一つ以上"),
        ("choice", json.dumps(["a"] * (CHOICES + 1)), f"{CHOICES} 個"),
        ("choice", json.dumps(["あ" * 6000]), "16,384 バイト"),
        ("grammar", 'start: "' + "a" * GRAMMAR + '"', "8,192 バイト"),
        ("grammar", "start: " + "(" * 201 + '"a"' + ")" * 201, "200 段"),
        ("grammar", 'start: %json {"not": {}}', "「json」"),
        ("grammar", 'start: "a"\n%llguidance {"no_forcing": false}', "「llguidance」"),
        ("grammar", "start: <|im_end|>", r"「<\|im_end\|>」"),
        ("grammar", "start: <[3-5]>", r"「<\[3-5\]>」"),
        ("grammar", "start: @other", "「@other」"),
        ("grammar", 'start: a\na[temperature=0.5]: "x"', r"「\[temperature=0.5\]」"),
        ("json_object", "{}", "中身を付けません"),
        ("yaml", "", "「yaml」"),
        ("regex", "\ud83d", "サロゲート"),
        ("regex", 5, "int"),
    ],
)
def test_bounds_and_kinds(kind: Any, text: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Constraint(kind, text)
    with pytest.raises(ConfigError, match="choice"):
        choice("abc")


@pytest.mark.parametrize(
    "bad",
    [
        Constraint("regex", "foo**["),
        Constraint("regex", "(?=a)b"),
        Constraint("regex", r"(a)\1"),
        Constraint("grammar", "start: missing"),
        Constraint("grammar", "begin: 'a'"),
        json_schema({"type": "integer", "minimum": 5, "maximum": 3}),
        json_schema({"oneOf": [{"type": "string"}, {"maxLength": 2}]}),
    ],
    ids=lambda constraint: constraint.text[:40],
)
def test_what_cannot_be_compiled_is_refused_before_anything_is_computed(bad: Constraint) -> None:
    with pytest.raises(ConfigError, match="使えません"):
        engine().stream([5], Sampling(constraint=bad))
    with pytest.raises(ConfigError, match="使えません"):
        BatchEngine(engine(), 50).stream([5], Sampling(constraint=bad, max_tokens=5))


def test_ends_and_the_vocabulary_are_needed() -> None:
    sampling = Sampling(constraint=choice(["東京"]), max_tokens=9)
    known = tokenizer("bpe")
    vocabulary = Vocabulary(known.token_bytes, known.vocab_size)
    with pytest.raises(ConfigError, match="vocabulary"):
        LocalEngine(engine().model, {END}, CONTEXT).stream([5], sampling)
    with pytest.raises(ConfigError, match="stop_token_ids"):
        LocalEngine(engine().model, (), CONTEXT, vocabulary=vocabulary).stream([5], sampling)
    with pytest.raises(ConfigError, match="ignore_eos"):
        Sampling(constraint=choice(["東京"]), ignore_eos=True)


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingError, match=r"tsuzuri\[constrain\]"):
        Vocabulary(lambda id: b"a", 3).matcher(choice(["a"]))


# ── the other kinds


REGEXES = [
    "[ぁ-ん]{2,5}", "[0-9]{3}-[0-9]{4}", "(a+)+b", "a/b", r"[/\\]+", "はい|いいえ", "(?i:yes|no)", "[^。]{0,5}。", "a\nb", "x?", r"(?s:.){3}", "🍣|🍜", '"+',
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", REGEXES)
def test_a_regular_expression_covers_the_whole_output(pattern: str, kind: str) -> None:
    whole = 0
    for seed in range(6):
        found = output(Constraint("regex", pattern), kind, seed=seed, max_tokens=60)
        if found[-1].finish == "stop":
            whole += 1
            assert re.fullmatch(pattern, said(found, kind)), said(found, kind)
    assert whole


CHOSEN = ["赤", "赤い", "青い空", 'a"b', "back\\slash", "改行\nタブ\t", "/", "#", "\u0001", "🍣"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_choice_is_one_of_them_and_each_can_be(kind: str) -> None:
    met = set()
    for seed in range(30):
        tokens = output(choice(CHOSEN), kind, seed=seed, temperature=2)
        assert tokens[-1].finish == "stop"
        met.add(said(tokens, kind))
    assert met <= set(CHOSEN)
    assert len(met) > 5
    for text in CHOSEN:
        assert said(output(choice([text]), kind), kind) == text


ARITHMETIC = r"""
start: sum  // #1: 式
sum: product (("+" | "-") product)*
product: atom (("*" | "/") atom)*
atom: NUMBER | "(" sum ")"
NUMBER: /[1-9][0-9]{0,2}/
"""


def test_a_grammar_is_kept_to() -> None:
    for seed in range(15):
        found = output(Constraint("grammar", ARITHMETIC), seed=seed)
        if found[-1].finish == "stop":
            assert re.fullmatch(r"[0-9+*/()-]+", said(found))
            compile(said(found), "式", "eval")  # Python's own arithmetic has these rules too


def test_any_object() -> None:
    for seed in range(8):
        found = output(Constraint("json_object"), seed=seed)
        if found[-1].finish == "stop":
            assert isinstance(json.loads(said(found)), dict)


def test_special_tokens_are_never_said() -> None:
    text = "<|im_start|>"
    id = tokenizer("bpe").special[text]
    tokens = output(choice([text]), logit_bias={id: 100})
    assert said(tokens) == text
    assert len(tokens) > 3 and not {token.id for token in tokens[:-1]} & set(tokenizer("bpe").special.values())


def test_spaces_come_to_an_end() -> None:
    spaces = {id: 100 for id in range(600) if not tokenizer("bpe").token_bytes(id).strip(b" \n") and tokenizer("bpe").token_bytes(id)}
    found = output(json_schema(EACH["all of"]), logit_bias=spaces, max_tokens=400)
    assert 2 < max(map(len, re.findall("[ \n]+", said(found)))) <= 20
    assert found[-1].finish == "stop"


# ── how it chooses


def test_every_filter_leaves_only_what_is_allowed() -> None:
    constraint = Constraint("regex", "[ぁ-ん]{4}")
    for choices in (
        {"temperature": 0.0}, {"top_k": 1}, {"top_k": 400}, {"top_p": 1e-9}, {"min_p": 1.0}, {"typical_p": 0.01}, {"temperature": 1e-300},
        {"repetition_penalty": 9.0}, {"presence_penalty": 2.0, "frequency_penalty": 2.0}, {"logit_bias": {END: 100, 5: 100}}, {"min_tokens": 100},
    ):  # fmt: skip
        found = output(constraint, **choices)
        assert re.fullmatch("[ぁ-ん]{4}", said(found)), choices
        assert found[-1].finish == "stop" and found[-1].id == END


def test_a_bias_and_the_temperature_still_decide_among_what_is_allowed() -> None:
    constraint = choice(["a", "b"])
    for letter in ("a", "b"):
        id = next(id for id in range(600) if tokenizer("bpe").token_bytes(id) == letter.encode())
        assert said(output(constraint, logit_bias={id: 100})) == letter
    assert {said(output(constraint, seed=seed)) for seed in range(20)} == {"a", "b"}


def test_min_tokens_holds_while_something_else_fits() -> None:
    found = output(Constraint("regex", "あ{1,9}"), min_tokens=5, logit_bias={END: 100})
    assert len(found) == 6 or len(said(found)) == 9


def test_log_probabilities_are_the_models_own() -> None:
    found = output(choice(["東京"]), logprobs=3)
    text = [*tokenizer("bpe").encode("今日は"), *(token.id for token in found)]
    assert [token.logprob for token in found] == pytest.approx(engine().score(text)[-len(found) :], abs=1e-5)
    assert all(len(token.top) == 3 for token in found)


def test_cut_is_length_and_stop_ids_end_only_what_is_whole() -> None:
    assert [token.finish for token in output(json_schema({"type": "array", "minItems": 50}), max_tokens=4)] == [None] * 3 + ["length"]
    letter = next(id for id in range(600) if tokenizer("bpe").token_bytes(id) == b"a")
    found = output(Constraint("regex", "b{3}"), stop_token_ids=(letter,), logit_bias={letter: 100, END: -100})
    assert said(found) == "bbba" and found[-1].id == letter  # the letter ends it, once it is whole
    with pytest.raises(InputError, match="一つもありません"):
        output(Constraint("regex", "a"), stop_token_ids=[id for id in range(600) if b"a" in tokenizer("bpe").token_bytes(id)])


def test_next_shows_the_distribution_under_the_constraint() -> None:
    sampling = Sampling(constraint=choice(["東京"]))
    matcher = engine().matcher(sampling)
    assert matcher is not None
    ruled_out = matcher.ruled_out(engine().vocab_size, {END})
    found = distribution(engine().after([5]), sampling, History(ruled_out=ruled_out))
    assert {tokenizer("bpe").token_bytes(id) for id in found.nonzero().flatten().tolist()} <= {"東京".encode()[:n] for n in range(1, 7)}
    with pytest.raises(AssertionError):
        distribution(engine().after([5]), sampling)  # nobody ignores it


def test_the_same_seed_gives_the_same_and_a_compiled_constraint_is_used_again() -> None:
    constraint = json_schema({"type": "array", "items": {"type": "string"}, "minItems": 2})
    assert output(constraint, seed=3) == output(constraint, seed=3)
    assert said(output(constraint, seed=3)) != said(output(constraint, seed=4))
    vocabulary = engine("bpe").vocabulary
    assert vocabulary is not None
    first = vocabulary._kept.get("", constraint)
    output(constraint, seed=5)
    assert vocabulary._kept.get("", constraint) is first is not None


def test_what_was_used_longest_ago_is_forgotten() -> None:
    known = tokenizer("bpe")
    vocabulary = Vocabulary(known.token_bytes, known.vocab_size)
    asked = [choice([f"{number}" * 2000]) for number in range(30)]
    for constraint in asked:
        vocabulary.matcher(asked[0])
        vocabulary.matcher(constraint)
    kept = vocabulary._kept.keys("")
    assert sum(constrain.EACH + len(each.text) for each in kept) <= constrain.KEPT
    assert asked[0] in kept and asked[1] not in kept and asked[-1] in kept


def test_a_form_is_prepared_for_the_tenant_who_asks() -> None:
    one = engine()
    stream = BatchEngine(one, 50).stream([5], Sampling(constraint=choice(["甲", "乙"]), max_tokens=5), "key 7")
    assert one.vocabulary is not None
    assert one.vocabulary._kept.keys("key 7") == [choice(["甲", "乙"])]
    stream.cancel()


def mixed() -> Iterator[Sampling]:
    for number, constraint in enumerate([choice(CHOSEN), Constraint("regex", "[ぁ-ん]{3,9}"), json_schema(EACH["the whole again"]), None, json_schema(EACH["all of"]), choice(CHOSEN)]):  # fmt: skip
        yield Sampling(constraint=constraint, max_tokens=40, seed=number, temperature=1.0 if number % 2 else 0.0, top_p=0.9)


@pytest.mark.parametrize(("pages", "size", "budget"), [(400, 4, 64), (30, 4, 8)])
def test_batched_is_one_by_one(pages: int, size: int, budget: int) -> None:
    """With and without preemption: a request keeps its place in its constraint while its pages are computed again."""
    batch = BatchEngine(engine(), pages, size=size, budget=budget)
    prompts = [[5 + number, 30, 40 + number] for number in range(6)]
    streams = [batch.stream(prompt, sampling) for prompt, sampling in zip(prompts, mixed(), strict=True)]
    while batch.step():
        pass
    for stream, prompt, sampling in zip(streams, prompts, mixed(), strict=True):
        found, alone = list(stream), list(engine().stream(prompt, sampling))
        assert [(token.id, token.finish) for token in found] == [(token.id, token.finish) for token in alone]


HOSTILE = [
    Constraint("regex", "(.{0,200}a){20}"), Constraint("regex", "((a{0,50}){0,50}){0,50}"), Constraint("regex", "(a|b)*a(a|b){30}"),
    Constraint("regex", "x?" * 100 + "x" * 100), Constraint("regex", ".{1000000}"), Constraint("regex", "(.*a.*b.*c.*d.*){20}"),
    Constraint("grammar", 'start: s\ns: "" | s s s s | "a" | "b"'), json_schema({"type": "string", "minLength": 4096}),
    json_schema({"allOf": [{"anyOf": [{"type": "object", "properties": {f"{i}{j}": {}}, "required": [f"{i}{j}"]} for i in range(8)]} for j in range(7)]}),
    json_schema({"type": "integer", "multipleOf": 19997}), json_schema({"enum": ["あ" * n for n in range(1, 90)]}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_what_is_made_to_be_slow_is_not(number: int) -> None:
    import time

    start = time.process_time()
    try:
        output(HOSTILE[number], max_tokens=20)
    except ConfigError as error:
        assert "使えません" in str(error)
    assert time.process_time() - start < 2  # seconds; measured 0.05 to 0.4


def letters(text: str) -> list[int]:
    return [next(id for id in range(600) if tokenizer("bpe").token_bytes(id) == letter.encode()) for letter in text]


def test_what_the_model_holds_impossible_is_not_said_though_nothing_else_fits() -> None:
    sampling = Sampling(constraint=choice(["a"]))
    logits = torch.zeros(engine().vocab_size)
    for temperature in (0.0, 1.0):
        for ruled_out in (letters("a"), [END, *letters("a")]):
            choosing = Choosing([5], replace(sampling, temperature=temperature, seed=1), {END}, CONTEXT, engine().matcher(sampling))
            with pytest.raises(InputError, match="確率も、モデルでは 0"):
                choosing(logits.index_fill(0, torch.tensor(ruled_out), -torch.inf))


def test_guesses_are_tried_without_going_on() -> None:
    matcher = engine().matcher(Sampling(constraint=choice(["abc"])))
    assert matcher is not None
    assert [matcher.fitting(letters(text)) for text in ("abx", "abc", "b", "", "abca")] == [2, 3, 0, 0, 3]
    matcher.accept(letters("a")[0])
    assert matcher.fitting(letters("bc")) == 2


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=6),
    max_leaves=30,
)


@given(ANYTHING)
def test_only_what_is_too_long_is_refused_before_it_is_written(value: Any) -> None:
    length = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "SIZE", length)
        schema.check_size(value)  # what fits is never counted as longer
    with pytest.raises(ConfigError, match="16,384"):
        schema.check_size([value] * schema.SIZE)
