"""dataclass <-> YAML <-> key=value. Unknown keys fail and name their neighbours; wrong types fail and name the place.

In: a mapping (from YAML or JSON) and `a.b=c` overrides. Out: frozen dataclasses, fully checked.
It does not know what the values mean: combinations are checked by whoever owns the dataclass, in `__post_init__`.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tsuzuri.errors import ConfigError, InputError, MissingError, Words
from tsuzuri.folder import suggestion

T = TypeVar("T")
UNITS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}  # milliseconds
MAX_YAML_BYTES = 1 << 20  # a recipe is a page of text
RECIPE = Words("設定ファイルか上書き指定を直してください。", "Correct the recipe or the override.")


class _Loader(yaml.SafeLoader):
    """The safe loader, and stricter: what reads in two ways is refused, and so is what makes a page of text fill the memory.

    3e-4 is a number here (YAML 1.1 reads it as a string, and nobody means that).
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _Refused(mark, Words("別名（*）は使えません", "aliases (*) are not taken"))
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _Refused(key.start_mark, Words(f"「{key.value}」が二度あります", f"'{key.value}' stands twice"))
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> int | float:
        if re.fullmatch(r"[-+]?0[0-9_]+|.*:.*", node.value):
            why = f"「{node.value}」は 8 進数か 60 進数になります", f"'{node.value}' would be octal or base 60"
            raise _Refused(node.start_mark, Words(*why))
        whole: bool = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


class _Refused(yaml.MarkedYAMLError):
    def __init__(self, mark: yaml.Mark, why: Words) -> None:
        super().__init__(problem_mark=mark)
        self.why = why


class _Dumper(yaml.SafeDumper):
    """What `_Loader` reads back as it was: line ends that only Unicode knows are escaped."""

    def text(self, value: str) -> yaml.ScalarNode:
        style = '"' if re.search("[\x85\u2028\u2029\ufeff]", value) else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)


for _either in (_Loader, _Dumper):
    _either.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))
_Dumper.add_representer(str, _Dumper.text)
for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.number)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping, by the safe loader. Raises MissingError, InputError (unreadable), ConfigError (not a mapping)."""
    asked = Words(f"設定ファイル {path} を読もうとしました。", f"Reading the recipe {path}.")
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise InputError(
                asked,
                found=Words("1 MiB を超えています。", "It is larger than 1 MiB."),
                todo=Words("YAML の設定ファイルを指定してください。", "Name a YAML recipe."),
            )
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506  a safe loader
    except FileNotFoundError as error:
        raise MissingError(
            asked,
            found=Words("そのファイルはありません。", "It is not there."),
            todo=Words("パスを確かめてください。例：recipes/tiny.yaml", "Check the path, for example recipes/tiny.yaml."),
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            asked,
            found=Words(f"読めません（{type(error).__name__}）。", f"It cannot be read ({type(error).__name__})."),
            todo=Words("パスと UTF-8 であることを確かめてください。", "Check the path and that it is UTF-8."),
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that cannot be
        raise ConfigError(
            asked,
            found=_where(error),
            todo=Words("そこを、字下げとコロンも含めて確かめてください。", "Check that place, indentation and colons too."),
        ) from error
    if not isinstance(value, dict):
        raise ConfigError(
            asked,
            found=Words("「名前: 値」の形になっていません。", "It is not a mapping of keys to values."),
            todo=Words("recipes/tiny.yaml を手本にしてください。", "Take recipes/tiny.yaml as a model."),
        )
    return value


def _where(error: Exception) -> Words:
    """Which line is wrong, and why where we know."""
    mark = getattr(error, "problem_mark", None)
    ja, en = (f"{mark.line + 1} 行目", f"Line {mark.line + 1}") if mark else ("内容", "Its content")
    if isinstance(error, _Refused):
        return Words(f"{ja}：{error.why.ja}。", f"{en}: {error.why.en}.")
    return Words(f"{ja}が YAML として読めません。", f"{en} is not YAML.")


def override(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with each `a.b=c` set; c is read as YAML, so 3e-4, true, [1, 2] and null mean what they say."""
    result = _copy(values)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(
                Words(f"上書き指定「{setting}」を読もうとしました。", f"Reading the override '{setting}'."),
                found=Words("「名前=値」の形ではありません。", "It is not of the form key=value."),
                todo=Words("例：pretrain.learning_rate=3e-4", "For example: pretrain.learning_rate=3e-4"),
            )
        *path, last = key.split(".")
        place = result
        for name in path:
            if place.get(name) is None:  # an empty section, written or not
                place[name] = {}
            inner = place[name]
            if not isinstance(inner, dict):
                raise _wrong(key, Words(f"「{name}」は値で、その下に項目はありません。", f"'{name}' is a value, nothing lies below it."))
            place = inner
        place[last] = _scalar(text)
    return result


def build(cls: type[T], values: Mapping[str, Any], where: str = "", *, todo: Words = RECIPE) -> T:
    """`values` as the dataclass `cls`. Raises ConfigError naming the key, and the nearest ones if it is unknown.

    `todo`: what the person can do about a wrong value, where the values are not a recipe's.
    """
    try:
        return _built(cls, values, where)
    except ConfigError as error:
        if error.todo is RECIPE and todo is not RECIPE:
            raise ConfigError(error.asked, found=error.found, todo=todo) from error
        raise


def _built(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    prefix = f"{where}." if where else ""
    for key in values:
        if key not in fields:
            raise ConfigError(
                Words(f"設定「{prefix}{key}」が指定されました。", f"The setting '{prefix}{key}' was given."),
                found=Words(
                    f"その名前の項目はありません。あるのは {'、'.join(fields)} です。",
                    f"There is no such key. There is {', '.join(fields)}.",
                ),
                todo=suggestion(str(key), list(fields)),
            )
    given = {key: _value(hints[key], value, f"{prefix}{key}") for key, value in values.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in given:
            raise _wrong(f"{prefix}{name}", Words("必須の項目ですが、ありません。", "It is required and missing."))
    return cls(**given)


def milliseconds(written: str) -> int:
    """30d, 12h, 90m. Raises ConfigError."""
    match = re.fullmatch(r"([1-9][0-9]{0,6})([mhd])", written)
    if match is None:
        raise ConfigError(
            Words(f"「{written[:80]}」を読もうとしました。", f"Reading '{written[:80]}'."),
            found=Words("長さではありません。", "It is no length of time."),
            todo=Words("例：90m、12h、30d", "For example 90m, 12h or 30d."),
        )
    return int(match[1]) * UNITS[match[2]]


def dump(value: Any) -> Any:
    """The inverse of `build`: plain dicts, lists and scalars, ready for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: dump(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(key): dump(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [dump(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def to_yaml(value: Any) -> str:
    """`dump` as YAML that `read_yaml` reads back."""
    return yaml.dump(dump(value), Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def _value(hint: Any, value: Any, where: str) -> Any:  # noqa: PLR0911
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, value, where)
    if origin is typing.Literal:
        if value in arguments:
            return value
        known = [str(a) for a in arguments]
        raise ConfigError(
            Words(f"設定「{where}」に {_short(value)} が指定されました。", f"The setting '{where}' was given {_short(value)}."),
            found=Words(f"選べるのは {'、'.join(known)} です。", f"It takes one of {', '.join(known)}."),
            todo=suggestion(str(value), known),
        )
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise _type(where, "項目の並び（名前: 値）", "a mapping", value)
        return _built(typing.cast(type, hint), value, where)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            raise _type(where, "並び（[a, b]）", "a list", value)
        return (tuple if origin is tuple else list)(_value(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _type(where, "項目の並び（名前: 値）", "a mapping", value)
        return {str(k): _value(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    return _plain(hint, value, where)


def _union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    options = [a for a in arguments if a is not type(None)]
    for option in options[:-1]:
        try:
            return _value(option, value, where)
        except ConfigError:
            continue
    return _value(options[-1], value, where)


def _plain(hint: Any, value: Any, where: str) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    if hint is str and isinstance(value, str):
        return value
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    kinds = {
        bool: ("true か false", "true or false"),
        int: ("整数", "a whole number"),
        float: ("数", "a number"),
        str: ("文字列", "a string"),
        Path: ("パス", "a path"),
    }
    ja, en = kinds.get(hint, (str(hint), str(hint)))
    raise _type(where, ja, en, value)


def _type(where: str, ja: str, en: str, value: Any) -> ConfigError:
    return _wrong(where, Words(f"{ja}が要りますが、{_short(value)} です。", f"It takes {en} but was given {_short(value)}."))


def _short(value: Any) -> str:
    """As it was written, but no more than a line of it."""
    limit = reprlib.Repr()
    limit.maxstring = limit.maxother = limit.maxlong = 80
    text = limit.repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _wrong(where: str, found: Words) -> ConfigError:
    return ConfigError(
        Words(f"設定「{where}」に問題があります。", f"Checking the setting '{where}'."),
        found=found,
        todo=RECIPE,
    )


def _scalar(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a safe loader
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}
