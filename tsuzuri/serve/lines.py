"""What crosses from one process of ours to another, as lines of JSON: the values of the seams, and our errors.

In: values. Out: a line. The law: what is read is what was written, its tuples, mappings and numbers the same. Only the dataclasses named
here can be made by a line, each through its own checks (a constraint, which has been checked, as it is): whoever writes one can say nothing else.
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

MOST = 256 << 20  # bytes of a line: a body is 10 MiB at most, and a byte is no more than a token, of nine digits
SIMPLE = frozenset((int, float, str, bool, type(None)))
VALUES = (Text, Thought, ToolCall, Source, Notice, Usage, Done, Token, Message, Options, Sampling, Constraint, Prepared, Embedded)
NAMED: Mapping[str, Any] = {kind.__name__: kind for kind in VALUES}
FIELDS: Mapping[type, tuple[tuple[str, Any], ...]] = {
    kind: tuple((each.name, each.default) for each in dataclasses.fields(kind)) for kind in VALUES
}
ERRORS: Mapping[str, type[TsuzuriError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, TsuzuriError)
}


def written(line: Mapping[str, Any]) -> bytes:
    """With its end. Its values go in as `plain` makes them."""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def read(line: bytes) -> dict[str, Any]:
    """Its values are as they were written: see `value`. Raises ValueError for what is no line."""
    found = json.loads(line.decode("utf-8", "surrogatepass"))
    if not isinstance(found, dict):
        raise ValueError("a line is an object")
    return found


def of_error(error: TsuzuriError) -> dict[str, Any]:
    return {"kind": type(error).__name__, "asked": [*error.asked], "found": [*error.found], "todo": [*error.todo], "code": error.code}


def error(found: Mapping[str, Any]) -> TsuzuriError:
    asked, stood, todo = (Words(*found[name]) for name in ("asked", "found", "todo"))
    return ERRORS[found["kind"]](asked, found=stood, todo=todo, code=found["code"])


def plain(value: Any) -> Any:
    """In what JSON has: {"a": its name, "of": its fields} of a dataclass, those that are as usual left out."""
    if value is None or isinstance(value, str | int | float):
        return value
    kind = type(value)
    if kind in FIELDS:
        return {"a": kind.__name__, "of": {name: plain(each) for name, usual in FIELDS[kind] if (each := getattr(value, name)) != usual}}
    if isinstance(value, tuple):
        return {"tuple": [plain(each) for each in value]}
    if isinstance(value, list):
        return value if SIMPLE.issuperset(map(type, value)) else [plain(each) for each in value]
    if isinstance(value, Mapping):
        return {"pairs": [[plain(key), plain(each)] for key, each in value.items()]}
    raise TypeError(f"{kind.__name__} in a line")


def value(found: Any) -> Any:
    """What `plain` was given. Raises ValueError, KeyError, TypeError for what it does not make, and what the checks of a dataclass raise."""
    if isinstance(found, list):
        return found if SIMPLE.issuperset(map(type, found)) else [value(each) for each in found]
    if not isinstance(found, dict):
        return found
    if "a" in found:
        fields = {name: value(each) for name, each in found["of"].items()}
        return Constraint.checked(**fields) if found["a"] == Constraint.__name__ else NAMED[found["a"]](**fields)
    if "tuple" in found:
        return tuple(value(each) for each in found["tuple"])
    return {value(key): value(each) for key, each in found["pairs"]}
