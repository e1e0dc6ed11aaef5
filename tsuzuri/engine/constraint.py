"""What an output may be: the value that a request carries.

In: a JSON Schema, a regular expression, texts to choose from, a grammar. Out: a `Constraint`, checked for everything that needs no
model; `constrain.py` makes of it which tokens may come next. It imports neither torch nor the library that compiles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from tsuzuri.engine import schema as schemas
from tsuzuri.errors import ConfigError, Words

Kind: TypeAlias = Literal["json_schema", "json_object", "regex", "choice", "grammar", "calls"]

REGEX = 512  # bytes
GRAMMAR = 8 * 1024  # bytes
NESTING = 200  # brackets of a grammar inside each other
CHOICES = 256
CHOSEN = 16 * 1024  # bytes of all choices
CALLS = 64 * 1024  # bytes of all that can be called
CALLED = 128  # names
SEVERAL = 16  # calls after each other
QUOTED = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|//[^\n]*|#[^\n]*')  # strings, expressions and remarks of a grammar
DIRECTIVES = ("ignore", "import", "regex")


@dataclass(frozen=True, slots=True)
class Constraint:
    """Raises ConfigError for what cannot be followed, or is larger than its bound.

    `text`: the schema as JSON, the regular expression (Rust's syntax; it covers the whole output), the choices as a JSON list, a
    grammar in the Lark dialect of llguidance whose rule `start` is the output, nothing for any JSON object, or what `calls` makes.
    """

    kind: Kind
    text: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise _refused(Words(f"制約の種類「{self.kind}」はありません。", f"There is no constraint '{self.kind}'."))
        if not isinstance(self.text, str):
            raise _refused(
                Words(f"制約の中身が {type(self.text).__name__} です。", f"It was given {type(self.text).__name__}, not a text.")
            )
        try:
            self.text.encode()
        except UnicodeEncodeError:
            raise _refused(Words("片方だけのサロゲートがあります。", "It contains half of a surrogate pair.")) from None
        object.__setattr__(self, "text", READ[self.kind](self.text))

    @classmethod
    def checked(cls, kind: Kind, text: str) -> Constraint:
        """The one that has been checked, with this text: of another process, or with other words in it. What a check writes may be longer
        than what it reads, so it is not checked again."""
        assert kind in READ and isinstance(text, str), kind
        found = object.__new__(cls)
        object.__setattr__(found, "kind", kind)
        object.__setattr__(found, "text", text)
        return found


def json_schema(schema: str | Mapping[str, Any]) -> Constraint:
    """A schema as text or as what `json.loads` makes of it."""
    if isinstance(schema, str):
        return Constraint("json_schema", schema)
    schemas.check_size(schema)
    try:
        return Constraint("json_schema", json.dumps(schema, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise _refused(Words(f"スキーマを JSON にできません（{error}）。", f"The schema is no JSON ({error}).")) from error


def choice(texts: Sequence[str]) -> Constraint:
    """One of these texts."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise _refused(Words("choice には文字列の並びが要ります。", "choice takes a list of texts."))
    if any(texts):
        _bounded("choice", "".join(texts), CHOSEN)  # before a megabyte of it is written as JSON
    return Constraint("choice", json.dumps(list(texts), ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around the name and the arguments of a call, which is a JSON object between two marks."""

    head: str  # the mark before it, up to the name
    middle: str
    tail: str  # from the end of the arguments on
    between: str | None  # between two calls; None: there is one at most
    name_first: bool = True  # or the arguments


def calls(around: Around, arguments: Mapping[str, Any], least: int, most: int | None, answer: Constraint | None = None) -> Constraint:
    """Calls by name, each with arguments of its JSON Schema: from `least` (0 or 1) to `most` of them, SEVERAL where there is no limit.
    Where there may be none, any text goes in their place and between them, or what `answer` says goes in their place."""
    if answer is not None and answer.kind in ("grammar", "calls"):
        raise _refused(
            Words("文法で決めた答えは、ツールと一緒には使えません。", "An answer by a grammar cannot stand beside calls of tools."),
            Words("JSON スキーマを使うか、ツールを外してください。", "Use a JSON schema, or leave the tools out."),
        )
    made = {
        "around": [around.head, around.middle, around.tail, around.between, around.name_first],
        "arguments": dict(arguments),
        "calls": [least, 1 if around.between is None else most],
        "answer": None if answer is None else [answer.kind, answer.text],
    }
    return Constraint("calls", json.dumps(made, ensure_ascii=False))


def _calls(text: str) -> str:
    """Each schema without its remarks."""
    try:
        made = json.loads(text)
        arguments, (least, most), (head, _, tail, _, _) = made["arguments"], made["calls"], made["around"]
        good = least in (0, 1) and (most is None or least <= most) and "{" in head and "}" in tail
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good or not 0 < len(arguments) <= CALLED:
        raise _refused(Words(f"呼び出せるのは 1 から {CALLED} 個までの名前です。", f"There are 1 to {CALLED} names that can be called."))
    made["arguments"] = {name: schemas.checked(schemas.parse(json.dumps(schema, ensure_ascii=False))) for name, schema in arguments.items()}
    found = json.dumps(made, ensure_ascii=False)
    _bounded("tools", found, CALLS)
    return found


def _schema(text: str) -> str:
    """The schema without its remarks, as what is compiled and what tells constraints apart."""
    return json.dumps(schemas.checked(schemas.parse(text)), ensure_ascii=False)


def _nothing(text: str) -> str:
    if text:
        raise _refused(Words("json_object には中身を付けません。", "json_object goes without a text."))
    return text


def _regex(text: str) -> str:
    _bounded("regex", text, REGEX)
    return text


def _choice(text: str) -> str:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(each, str) and each for each in found):
        raise _refused(Words("choice には空でない文字列が一つ以上要ります。", "choice takes one or more texts that are not empty."))
    if len(found) > CHOICES:
        raise _refused(Words(f"選択肢は {CHOICES} 個までです。", f"There are at most {CHOICES} choices."))
    _bounded("choice", "".join(found), CHOSEN)
    return json.dumps(found, ensure_ascii=False)


def _grammar(text: str) -> str:
    _bounded("grammar", text, GRAMMAR)
    plain = QUOTED.sub(" ", text)
    depth = 0
    for sign in plain:
        depth += (sign in "([{") - (sign in ")]}")
        if depth > NESTING:
            raise _refused(
                Words(f"文法のかっこが {NESTING} 段より深いです。", f"The brackets of the grammar are more than {NESTING} deep.")
            )
    unknown = [name for name in re.findall(r"%\s*(\w+)", plain) if name not in DIRECTIVES]
    unknown += re.findall(r"^\s*\w+\s*(\[[^\]]*\])\s*:", plain, re.MULTILINE)  # attributes of a rule: some would be ignored
    unknown += re.findall(r"<[^>\s]*>?", plain) + re.findall(r"@\w+", plain)
    if unknown:
        raise _refused(
            Words(f"文法の「{unknown[0]}」には対応していません。", f"'{unknown[0]}' of a grammar is not supported."),
            Words(
                f"規則、文字列、正規表現と %{'、%'.join(DIRECTIVES)} で書いてください。",
                f"Write it with rules, strings, regular expressions and %{', %'.join(DIRECTIVES)}.",
            ),
        )
    return text


READ: dict[str, Callable[[str], str]] = {
    "json_schema": _schema,
    "json_object": _nothing,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
    "calls": _calls,
}


def _bounded(name: str, text: str, most: int) -> None:
    if not text:
        raise _refused(Words(f"{name} が空です。", f"{name} is empty."))
    if len(text.encode()) > most:
        raise _refused(Words(f"{name} は {most:,} バイトまでです。", f"{name} has at most {most:,} bytes."))


def _refused(found: Words, todo: Words | None = None) -> ConfigError:
    return ConfigError(
        Words("出力の形を決めようとしました。", "Constraining the output."),
        found=found,
        todo=todo or Words("制約を直してください。", "Correct the constraint."),
    )
