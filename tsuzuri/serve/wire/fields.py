"""The fields of a request, as a table: what each does, or why it is refused. Nothing is accepted and ignored.

In: a request and the table of its format. Out: nothing, or a `Refusal` with the field in `param`, an unknown one with its
nearest names. Sampling fields are not written down: they come from the dataclass `Sampling`, and a new one is new everywhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from tsuzuri.engine.sampling import Rule, Sampling
from tsuzuri.errors import ConfigError, Words
from tsuzuri.serve.refusal import Refusal, sentence

JSON: TypeAlias = Mapping[str, Any]
Use: TypeAlias = Literal["used", "recorded", "hint", "refused"]


@dataclass(frozen=True, slots=True)
class Field:
    """`used`: it changes the answer. `recorded`: it is kept with the record of the request, which is its purpose. `hint`: it may
    save time and never changes an answer, so leaving it unfollowed is no lie. `refused`: any value but those in `neutral`, which
    ask for what happens anyway."""

    name: str
    use: Use
    words: Words
    neutral: tuple[object, ...] = ()


def used(name: str, ja: str, en: str) -> Field:
    return Field(name, "used", Words(ja, en))


def recorded(name: str, ja: str, en: str) -> Field:
    return Field(name, "recorded", Words(ja, en))


def hint(name: str, ja: str, en: str) -> Field:
    return Field(name, "hint", Words(ja, en))


def refused(name: str, ja: str, en: str, *neutral: object) -> Field:
    return Field(name, "refused", Words(ja, en), neutral)


def sampling_fields(*without: str) -> tuple[Field, ...]:
    """A field for each of `Sampling` but the constraint, which every format says in its own way (`forms.py`)."""
    left = (*without, "constraint")
    return tuple(Field(each.name, "used", each.metadata["rule"].words) for each in fields(Sampling) if each.name not in left)


def check(request: JSON, table: Sequence[Field]) -> None:
    """Raises Refusal for the first field that is unknown or refused. null stands for a field that was not given."""
    known = {field.name: field for field in table}
    for name, value in request.items():
        if name not in known:
            raise _unknown(name, known)
        field = known[name]
        if field.use == "refused" and value is not None and not any(_same(value, each) for each in field.neutral):
            shown = "、".join(map(_shown, field.neutral)), ", ".join(map(_shown, field.neutral))
            only = Words(f"受け付けるのは {shown[0]} だけです。", f" Only {shown[1]} is taken.") if field.neutral else Words("", "")
            raise invalid(name, Words(f"{field.words.ja}{only.ja}", f"{field.words.en}{only.en}"), code="unsupported_parameter")


def _same(value: object, neutral: object) -> bool:
    return type(value) is type(neutral) and value == neutral


def _shown(value: object) -> str:
    return {True: "true", False: "false"}.get(value, repr(value)) if isinstance(value, bool) else repr(value).replace("'", '"')


def _unknown(name: str, known: Iterable[str]) -> Refusal:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6) if len(name) <= 80 else []
    name = name[:80]
    ja = f"「{'」「'.join(near)}」のことではありませんか。" if near else "綴りを確かめるか、外してください。"
    en = f"Did you mean {' or '.join(near)}?" if near else "Check its spelling, or leave it out."
    return invalid(name, Words(f"そのような項目はありません。{ja}", f"There is no such field. {en}"), code="unknown_parameter")


def invalid(param: str, words: Words, code: str = "invalid_value") -> Refusal:
    """400 for one field."""
    return Refusal(400, Words(f"{param}：{words.ja}", f"{param}: {words.en}"), param=param, code=code)


# ── values


def string(request: JSON, name: str, *, most: int, place: str = "", required: bool = False) -> str | None:
    """A string of at most so many characters; null and absent are None."""
    value, param = request.get(name), place + name
    if value is None:
        if required:
            raise invalid(param, Words("必ず要ります。", "It is required."), code="missing_required_parameter")
        return None
    if not isinstance(value, str):
        raise invalid(param, Words("文字列が要ります。", "It takes a string."), code="invalid_type")
    if len(value) > most:
        raise invalid(param, Words(f"{most} 文字までです。", f"It takes at most {most} characters."))
    return value


def needed(request: JSON, name: str, *, most: int = 1 << 24, place: str = "") -> str:
    found = string(request, name, most=most, place=place, required=True)
    assert found is not None
    return found


def boolean(request: JSON, name: str, *, default: bool = False, place: str = "") -> bool:
    value = request.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(place + name, Words("true か false が要ります。", "It takes true or false."), code="invalid_type")
    return default if value is None else value


def whole(request: JSON, name: str, low: int, high: int, *, place: str = "") -> int | None:
    value = request.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(place + name, Words("整数が要ります。", "It takes a whole number."), code="invalid_type")
    if not low <= value <= high:
        raise invalid(place + name, Words(f"{low} 以上 {high} 以下の値が要ります。", f"It takes {low} to {high}."))
    return value


def mapping(value: object, param: str) -> JSON:
    if not isinstance(value, dict):
        raise invalid(param, Words("{…} の形のオブジェクトが要ります。", "It takes an object."), code="invalid_type")
    return value


def several(value: object, param: str, *, least: int = 0, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise invalid(param, Words("[…] の形の配列が要ります。", "It takes an array."), code="invalid_type")
    if not least <= len(value) <= most:
        raise invalid(param, Words(f"{least} 個以上 {most} 個以下です。", f"It takes {least} to {most} items."))
    return value


def stops(request: JSON, name: str, *, most: int) -> tuple[str, ...]:
    """One string or several; each of 1 to 1,024 characters."""
    value = request.get(name)
    if value is None:
        return ()
    found = [value] if isinstance(value, str) else several(value, name, most=most)
    for each in found:
        if not isinstance(each, str) or not 0 < len(each) <= 1024:
            raise invalid(name, Words("1〜1024 文字の文字列が要ります。", "It takes strings of 1 to 1024 characters."))
    return tuple(found)


def marks(request: JSON, table: Sequence[Field]) -> dict[str, str]:
    """What is recorded with the request: short strings, and `metadata` of at most 16 short pairs."""
    found: dict[str, str] = {}
    for field in table:
        value = request.get(field.name)
        if field.use != "recorded" or value is None:
            continue
        if field.name != "metadata":
            found[field.name] = needed(request, field.name, most=512)
            continue
        pairs = mapping(value, "metadata")
        if len(pairs) > 16 or not all(len(key) <= 64 and isinstance(text, str) and len(text) <= 512 for key, text in pairs.items()):
            words = Words("64 文字までの名前と 512 文字までの文字列の組を 16 個までです。", "At most 16 pairs of 64 and 512 characters.")
            raise invalid("metadata", words)
        found |= {f"metadata.{key}": text for key, text in pairs.items()}
    return found


# ── sampling


def sampling(request: JSON, table: Sequence[Field], **others: object) -> Sampling:
    """`Sampling` from the fields of that name in the table, and `others`, which the format names differently."""
    names = {field.name for field in table if field.use == "used"}
    given: dict[str, Any] = {}
    for each in fields(Sampling):
        value = request.get(each.name) if each.name in names else None
        if each.name in others or value is None:
            continue
        given[each.name] = _rule_value(each.name, each.metadata["rule"], value)
    given |= {name: value for name, value in others.items() if value is not None}
    try:
        return Sampling(**given)
    except ConfigError as error:  # what two fields make impossible together
        param = "ignore_eos" if given.get("ignore_eos") and given.get("constraint") else "min_tokens"
        raise Refusal(400, sentence(error), param=param, code="invalid_value") from error


def _rule_value(name: str, rule: Rule, value: Any) -> object:
    """One field, tried alone, so that a refusal names it. Keys of JSON objects are strings; ids are numbers."""
    if rule.by_id:
        pairs = mapping(value, name)
        if len(pairs) > 1024 or not all(key.isascii() and key.isdecimal() and len(key) <= 10 for key in pairs):
            words = Words("トークン番号から値への対応を 1024 個までです。", "At most 1024 token ids and a value for each.")
            raise invalid(name, words)
        value = {int(key): number for key, number in pairs.items()}
    if rule.several:
        value = tuple(several(value, name, most=64))
    if name == "top_k" and value == -1 and not isinstance(value, bool):
        return 0  # how vLLM's clients say: all
    try:
        Sampling(**{name: value})
    except ConfigError as error:
        raise Refusal(400, sentence(error), param=name, code="invalid_value") from error
    return value


def max_tokens(request: JSON, *names: str) -> int | None:
    """The limit of the answer under any of its names; two that differ are refused."""
    found = {name: whole(request, name, 1, 2**31 - 1) for name in names if request.get(name) is not None}
    if len(set(found.values())) > 1:
        raise invalid(names[-1], Words(f"{'と'.join(found)}の値が違います。", f"{' and '.join(found)} differ."))
    return next(iter(found.values()), None)
