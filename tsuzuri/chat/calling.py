"""Which tools an answer may call and must call, as the constraint that it is held to.

In: the form in which a model writes calls, `Options`. Out: their sampling, with a constraint where one is asked for: a call that must
be made, a tool that is `strict`, an answer of a given form. Where nothing is asked for nothing is held, and nothing has to be installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tsuzuri.chat.parse import Form
from tsuzuri.chat.reading import name_of
from tsuzuri.engine import constraint
from tsuzuri.engine.constraint import Around
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, Words
from tsuzuri.types import Options

ANYTHING: Mapping[str, Any] = {"type": "object"}
NOTHING: Mapping[str, Any] = {"type": "object", "additionalProperties": False}


def held(form: Form, options: Options) -> Sampling:
    """Raises ConfigError for a strict tool whose schema cannot be followed, naming the keyword."""
    (least, most), sampling = options.calls, options.sampling
    if not least and sampling.constraint is None and not any(strict(tool) for tool in options.tools):
        return sampling
    around = Around(form.head, form.middle, form.tail, form.between, form.name_first)
    arguments = {name_of(tool): schema_of(tool) for tool in options.tools}
    return replace(sampling, constraint=constraint.calls(around, arguments, least, most, sampling.constraint))


def strict(tool: Mapping[str, Any]) -> bool:
    return tool["function"].get("strict") is True


def schema_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the arguments are held to: the tool's own schema; of one that is not strict and cannot be followed, any object."""
    parameters = tool["function"].get("parameters")
    if parameters is None:
        return NOTHING
    schema = {"type": "object", **parameters}
    if not strict(tool):
        try:
            _checked(schema)
        except ConfigError:
            return ANYTHING
        return schema
    _checked(schema)
    return schema


def _checked(schema: Mapping[str, Any]) -> None:
    if schema["type"] != "object":
        raise ConfigError(
            Words("ツールの引数を JSON スキーマに従わせようとしました。", "Holding the arguments of a tool to a JSON Schema."),
            found=Words("type が object ではありません。", "Its type is not object."),
            todo=Words("引数の名前と型を properties に並べてください。", "List the names and types of the arguments under properties."),
        )
    constraint.json_schema(schema)
