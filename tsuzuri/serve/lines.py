"""What crosses from one process of ours to another, as lines of JSON: the values of the seams, and our errors.

In: values. Out: a line. The law: what is read is what was written, its tuples, mappings and numbers the same. Only the dataclasses named
here can be made by a line, each through its own checks: whoever writes one can say nothing else.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tsuzuri import errors
from tsuzuri.engine.constraint import Constraint
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import TsuzuriError, Words
from tsuzuri.serve.models import Embedded, Prepared
from tsuzuri.types import Done, Message, Notice, Options, Source, Text, Thought, Token, ToolCall, Usage

MOST = 64 << 20  # bytes of a line: a text within any context, and more
VALUES = (Text, Thought, ToolCall, Source, Notice, Usage, Done, Token, Message, Options, Sampling, Constraint, Prepared, Embedded)
NAMED: Mapping[str, Any] = {kind.__name__: kind for kind in VALUES}
FIELDS: Mapping[type, tuple[tuple[str, Any], ...]] = {
    kind: tuple((each.name, each.default) for each in dataclasses.fields(kind)) for kind in VALUES
}
ERRORS: Mapping[str, type[TsuzuriError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, TsuzuriError)
}


def written(value: Mapping[str, Any]) -> bytes:
    """With its end of line."""
    return json.dumps({key: _plain(each) for key, each in value.items()}, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def read(line: bytes) -> dict[str, Any]:
    """Raises ValueError, KeyError, TypeError for what `written` does not write."""
    found = json.loads(line.decode("utf-8", "surrogatepass"))
    return {key: _value(each) for key, each in found.items()}


def of_error(error: TsuzuriError) -> dict[str, Any]:
    return {"kind": type(error).__name__, "asked": [*error.asked], "found": [*error.found], "todo": [*error.todo], "code": error.code}


def error(found: Mapping[str, Any]) -> TsuzuriError:
    asked, stood, todo = (Words(*found[name]) for name in ("asked", "found", "todo"))
    return ERRORS[found["kind"]](asked, found=stood, todo=todo, code=found["code"])


def _plain(value: Any) -> Any:
    """In what JSON has: {"a": its name, "of": its fields} of a dataclass, those that are as usual left out."""
    if value is None or isinstance(value, str | int | float):
        return value
    kind = type(value)
    if kind in FIELDS:
        return {"a": kind.__name__, "of": {name: _plain(each) for name, usual in FIELDS[kind] if (each := getattr(value, name)) != usual}}
    if isinstance(value, tuple):
        return {"tuple": [_plain(each) for each in value]}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {"pairs": [[_plain(key), _plain(each)] for key, each in value.items()]}
    raise TypeError(f"{kind.__name__} in a line")


def _value(found: Any) -> Any:
    if isinstance(found, list):
        return [_value(each) for each in found]
    if not isinstance(found, dict):
        return found
    if "a" in found:
        return NAMED[found["a"]](**{name: _value(each) for name, each in found["of"].items()})
    if "tuple" in found:
        return tuple(_value(each) for each in found["tuple"])
    return {_value(key): _value(each) for key, each in found["pairs"]}
