"""Which JSON Schemas an output can be held to: checked here before anything is compiled, so that no keyword is ignored.

In: the parsed schema. Out: the same without its remarks (title, description …), or a ConfigError that names the keyword and its place.
References stay inside the document and must come to an end. The bounds keep compilation short; it compiles nothing itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NoReturn
from urllib.parse import quote, unquote

from tsuzuri.errors import ConfigError, Words

SIZE = 16 * 1024  # bytes of the text
DEPTH = 16  # schemas inside each other
NODES = 128  # schemas in all
BRANCHES = 16  # of anyOf, oneOf, allOf
CHOICES = 256  # of enum
PATTERN = 512  # bytes
COUNT = 4096  # of minLength, maxItems and the like
PERIOD = 20_000  # after which the multiples of all multipleOf repeat: compilation takes time in proportion (20,000: 0.2 s)

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
FORMATS = ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
REMARKS = ("title", "description", "default", "examples", "$comment", "$schema", "deprecated", "readOnly", "writeOnly")
NAMED = ("properties", "$defs", "definitions")  # name -> schema
SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
ONE = ("items", "additionalProperties")
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "maxProperties")  # no minProperties: a name said twice would count twice
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
OTHERS = ("type", "enum", "const", "required", "pattern", "format", "$ref")
KEYWORDS = (*OTHERS, *NAMED, *SEVERAL, *ONE, *COUNTS, *NUMBERS)


def parse(text: str) -> Any:
    """The schema of a JSON text. Raises ConfigError for what is no JSON, says one thing twice, or is too large."""
    if len(text.encode()) > SIZE:
        _too_long()
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except ValueError as error:
        refuse(Words(f"JSON として読めません（{error}）。", f"It is no JSON ({error})."))
    except RecursionError:
        refuse(Words("入れ子が深すぎます。", "It is nested too deeply."))


def check_size(schema: Any) -> None:
    """Raises ConfigError for what cannot but be too large: a megabyte need not be written to be refused. Counted is the least that each
    text, each value of a list and each key takes."""
    least, left = 0, [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            least += 4 * len(part) + sum(len(key) for key in part if isinstance(key, str))
            left += part.values()
        elif isinstance(part, list | tuple):
            least += 2 * len(part)
            left += part
        elif isinstance(part, str):
            least += len(part)
        if least > SIZE:
            _too_long()


def _too_long() -> NoReturn:
    refuse(Words(f"スキーマが {SIZE:,} バイトを超えています。", f"The schema is longer than {SIZE:,} bytes."))


def checked(schema: Any) -> Any:
    """The schema with nothing but what decides which outputs are valid. Raises ConfigError."""
    walk = _Walk()
    found = walk.schema(schema, "#", 0)
    walk.check_multiples()
    walk.check_references()
    return found


def refuse(found: Words, todo: Words | None = None) -> NoReturn:
    raise ConfigError(
        Words("出力を JSON スキーマに従わせようとしました。", "Holding the output to a JSON Schema."),
        found=found,
        todo=todo or Words("スキーマを直してください。", "Correct the schema."),
    )


@dataclass(slots=True)
class _Walk:
    """One pass over a schema: what was met, by its place (#/properties/名前)."""

    nodes: dict[str, Any] = field(default_factory=dict)
    references: list[tuple[str, str]] = field(default_factory=list)  # place, target
    multiples: set[Fraction] = field(default_factory=set)

    def schema(self, value: Any, place: str, depth: int) -> Any:
        self.nodes[place] = value
        if isinstance(value, bool):
            return value
        if not isinstance(value, dict):
            refuse(Words(f"{place} がスキーマではありません。", f"{place} is no schema."))
        if depth > DEPTH:
            refuse(Words(f"{place} は {DEPTH} 段より深い入れ子です。", f"{place} is nested more than {DEPTH} deep."))
        if len(self.nodes) > NODES:
            refuse(Words(f"スキーマの部分が {NODES} 個を超えています。", f"It has more than {NODES} parts."))
        found = {}
        for name, part in value.items():
            if name in REMARKS or (name == "$id" and place == "#"):
                continue
            found[name] = self._keyword(name, part, place, depth)
        return found

    def _keyword(self, name: str, value: Any, place: str, depth: int) -> Any:
        here = f"{place}/{name}"
        if name in NAMED:
            _need(isinstance(value, dict), here, Words("名前とスキーマの対応", "a mapping of names to schemas"))
            return {key: self.schema(part, f"{here}/{_escaped(key)}", depth + 1) for key, part in value.items()}
        if name in SEVERAL:
            _need(isinstance(value, list) and bool(value), here, Words("一つ以上のスキーマの並び", "a list of one or more schemas"))
            _most(len(value), BRANCHES if name != "prefixItems" else NODES, here)
            return [self.schema(part, f"{here}/{number}", depth + 1) for number, part in enumerate(value)]
        if name in ONE:
            return self.schema(value, here, depth + 1)
        if name not in CHECKS:
            refuse(
                Words(f"{place} のキーワード「{name}」には対応していません。", f"The keyword '{name}' of {place} is not supported."),
                Words(f"使えるのは {'、'.join(KEYWORDS)} です。", f"There is {', '.join(KEYWORDS)}."),
            )
        CHECKS[name](value, here)
        if name == "$ref":
            self.references.append((place, unquote(value)))
            return quote(unquote(value), safe="#/~$&'()*+,;=:@!")  # Japanese names as an address has them
        if name == "pattern":
            return _ecma(value, here)
        if name == "multipleOf":
            self.multiples.add(Fraction(str(value)))
        return value

    def check_multiples(self) -> None:
        """They may apply to one number together: then what counts is their least common multiple, in units of the finest digit."""
        scale = math.lcm(*(each.denominator for each in self.multiples))
        if math.lcm(*(int(each * scale) for each in self.multiples)) > PERIOD:
            refuse(
                Words(
                    f"multipleOf の最小公倍数が大きすぎます（いちばん細かい桁を 1 として {PERIOD:,} まで）。",
                    f"The least common multiple of multipleOf is too large (at most {PERIOD:,} in units of the finest digit).",
                )
            )

    def check_references(self) -> None:
        """Every one leads to a schema of this document, and something finite satisfies each schema."""
        for place, target in self.references:
            if target not in self.nodes:
                refuse(
                    Words(
                        f"{place} の $ref が指す {target} は、この文書のスキーマではありません。",
                        f"The $ref of {place} leads to {target}, which is no schema of this document.",
                    ),
                    Words("$defs の中など、同じ文書の中を指してください。", "Let it lead into the same document, for example into $defs."),
                )
        ending: set[str] = set()
        while fresh := {place for place in self.nodes if place not in ending and self._ends(place, ending)}:
            ending |= fresh
        if "#" not in ending:
            refuse(
                Words(
                    "満たせる値がありません。参照が自分自身に戻り続けるか、false で禁じられています。",
                    "No value satisfies it: references lead back to themselves for ever, or false forbids it.",
                ),
                Words("anyOf に null を加えるなど、終わる道を作ってください。", "Give it a way to end, such as null in an anyOf."),
            )

    def _ends(self, place: str, ending: set[str]) -> bool:
        """Whether a finite value satisfies the schema, given those that are known to have one."""
        schema = self.nodes[place]
        if isinstance(schema, bool):
            return schema
        if "$ref" in schema and unquote(schema["$ref"]) not in ending:
            return False
        for name in ("anyOf", "oneOf"):
            if name in schema and not any(f"{place}/{name}/{number}" in ending for number in range(len(schema[name]))):
                return False
        if not all(f"{place}/allOf/{number}" in ending for number in range(len(schema.get("allOf", ())))):
            return False
        if "enum" in schema or "const" in schema:
            return True
        types = schema.get("type", TYPES)
        kinds = {types} if isinstance(types, str) else set(types)
        return bool(kinds - {"object", "array"}) or any(all(part in ending for part in self._needed(place, kind)) for kind in kinds)

    def _needed(self, place: str, kind: str) -> Iterator[str]:
        """The places of the schemas that every value of the kind contains a value of."""
        schema = self.nodes[place]
        if kind == "object":
            for name in schema.get("required", ()):
                here = f"{place}/properties/{_escaped(name)}"
                other = f"{place}/additionalProperties"
                yield from (each for each in (here if here in self.nodes else other,) if each in self.nodes)
            return
        first = len(schema.get("prefixItems", ()))
        least = schema.get("minItems", 0)
        for number in range(min(first, least)):
            yield f"{place}/prefixItems/{number}"
        if least > first and f"{place}/items" in self.nodes:
            yield f"{place}/items"


def _need(good: bool, here: str, kind: Words) -> None:
    if not good:
        refuse(Words(f"{here} には{kind.ja}が要ります。", f"{here} takes {kind.en}."))


def _most(count: int, most: int, here: str) -> None:
    if count > most:
        refuse(Words(f"{here} は {count} 個あります。{most} 個までです。", f"{here} has {count}, and may have {most}."))


def _type(value: Any, here: str) -> None:
    names = [value] if isinstance(value, str) else value
    good = isinstance(names, list) and bool(names) and all(name in TYPES for name in names) and len(set(names)) == len(names)
    _need(good, here, Words(f" {'、'.join(TYPES)} のどれか（またはその並び）", f"one of {', '.join(TYPES)}, or a list of them"))


def _enum(value: Any, here: str) -> None:
    _need(isinstance(value, list) and bool(value), here, Words("一つ以上の値の並び", "a list of one or more values"))
    _most(len(value), CHOICES, here)


def _names(value: Any, here: str) -> None:
    good = isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)
    _need(good, here, Words("異なる名前の並び", "a list of different names"))


def _count(value: Any, here: str) -> None:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= COUNT
    _need(good, here, Words(f" 0 から {COUNT:,} までの整数", f"a whole number from 0 to {COUNT:,}"))


def _number(value: Any, here: str) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
    _need(good, here, Words("数（絶対値が 2⁶³ 未満）", "a number of absolute value under 2⁶³"))


def _multiple(value: Any, here: str) -> None:
    _number(value, here)
    _need(value > 0, here, Words(" 0 より大きい数", "a number greater than 0"))


def _pattern(value: Any, here: str) -> None:
    good = isinstance(value, str) and 0 < len(value.encode()) <= PATTERN
    _need(good, here, Words(f" 1 から {PATTERN} バイトまでの正規表現", f"a regular expression of 1 to {PATTERN} bytes"))


SIGN = re.compile(r"\\.|\[\^?\]?|.", re.DOTALL)
SHORT = {r"\d": "0-9", r"\w": "0-9A-Za-z_"}
LONG = {r"\D": "[^0-9]", r"\W": "[^0-9A-Za-z_]", ".": r"[^\n\r\u2028\u2029]"}


def _ecma(pattern: str, here: str) -> str:
    """The expression with what is ASCII in ECMA-262, which JSON Schema means, written out: what compiles it would take all of Unicode.
    Raises ConfigError for what has another meaning there."""
    found, inside = [], False
    signs = SIGN.findall(pattern)
    special = re.search(r"(?<!\\)(?:\\\\)*(\(\?[^:]?)", pattern)  # flags, names, what looks ahead or back
    if special:
        refuse(Words(f"{here} の「{special[1]}」の書き方には対応していません。", f"'{special[1]}' in {here} is not supported."))
    for sign, following in zip(signs, [*signs[1:], ""], strict=True):
        odd = sign == "\\"
        if inside:
            odd = odd or sign.startswith("[") or sign in LONG.keys() - {"."} or (sign in "&-~" and following == sign)
            found.append(SHORT.get(sign, sign))
        else:
            found.append(f"[{SHORT[sign]}]" if sign in SHORT else LONG.get(sign, sign))
        if odd:
            refuse(
                Words(f"{here} の「{sign}{following}」の書き方には対応していません。", f"'{sign}{following}' in {here} is not supported.")
            )
        inside = sign.startswith("[") or (inside and sign != "]")
    if inside:
        refuse(Words(f"{here} の [ が閉じていません。", f"A [ in {here} is not closed."))
    return "".join(found)


def _format(value: Any, here: str) -> None:
    _need(value in FORMATS, here, Words(f" {'、'.join(FORMATS)} のどれか", f"one of {', '.join(FORMATS)}"))


def _reference(value: Any, here: str) -> None:
    _need(isinstance(value, str), here, Words("文書の中の場所（#/$defs/…）", "a place in the document (#/$defs/…)"))


CHECKS: dict[str, Callable[[Any, str], None]] = {
    **dict.fromkeys(COUNTS, _count),
    **dict.fromkeys(NUMBERS, _number),
    "multipleOf": _multiple,
    "type": _type,
    "enum": _enum,
    "const": lambda value, here: None,
    "required": _names,
    "pattern": _pattern,
    "format": _format,
    "$ref": _reference,
}


def _escaped(name: str) -> str:
    """A name as it stands in a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(Words(f"「{twice}」が二度書かれている", f"'{twice}' is there twice"))
    return found


def _no_number(name: str) -> float:
    raise ValueError(Words(f"{name} は JSON の数ではない", f"{name} is no number of JSON"))
