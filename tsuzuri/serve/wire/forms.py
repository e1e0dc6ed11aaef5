"""What an answer may be, as clients say it: OpenAI's `response_format` and `text.format`, Anthropic's `output_config.format`, vLLM's
`structured_outputs`.

In: a request. Out: the `Constraint` of its sampling, or None. A schema that cannot be followed to the letter is refused by keyword.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tsuzuri.engine import constraint
from tsuzuri.engine.constraint import Constraint
from tsuzuri.errors import ConfigError, Words
from tsuzuri.serve.refusal import Refusal, sentence
from tsuzuri.serve.wire import fields
from tsuzuri.serve.wire.fields import JSON, Field, invalid, used

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
FIELDS: tuple[Field, ...] = (
    used("response_format", "答えの形：文章、JSON、スキーマに従う JSON", "the form of the answer: text, JSON, or JSON of a schema"),
    used(
        "structured_outputs",
        "答えの形（vLLM の書き方）：json、regex、choice、grammar の一つ",
        "the same as vLLM says it: one of json, regex, choice, grammar",
    ),
)
WAYS: Mapping[str, Callable[[Any], Constraint]] = {
    "json": constraint.json_schema,
    "regex": lambda text: Constraint("regex", text),
    "choice": constraint.choice,
    "grammar": lambda text: Constraint("grammar", text),
}
OTHERS: Mapping[str, Constraint | None] = {"text": None, "json_object": Constraint("json_object")}


def read(request: JSON) -> Constraint | None:
    """Raises Refusal, naming the field."""
    given = [name for name in ("response_format", "structured_outputs") if request.get(name) is not None]
    if len(given) > 1:
        raise invalid(given[1], Words("response_format と一緒には使えません。", "Not together with response_format."))
    if not given:
        return None
    value = fields.mapping(request[given[0]], given[0])
    return _format(value) if given[0] == "response_format" else _structured(value)


def _format(value: JSON) -> Constraint | None:
    kind = _kind(value, "response_format")
    _only(value, ("type", "json_schema") if kind == "json_schema" else ("type",), "response_format.")
    if kind != "json_schema":
        return OTHERS[kind]
    place = "response_format.json_schema"
    return _named(fields.mapping(value.get("json_schema"), place), ("name", "schema", "strict", "description"), place)


def of_text(request: JSON) -> Constraint | None:
    """`text.format` of OpenAI's responses: the schema stands beside its kind. Raises Refusal."""
    text = fields.mapping(request.get("text") or {}, "text")
    _only(text, ("format", "verbosity"), "text.")
    if text.get("verbosity") not in (None, "medium"):
        raise invalid("text.verbosity", Words("くわしさは選べません。", "It cannot be chosen."), code="unsupported_parameter")
    value = text.get("format")
    if value is None:
        return None
    place = "text.format"
    form = fields.mapping(value, place)
    kind = _kind(form, place)
    if kind == "json_schema":
        return _named(form, ("type", "name", "schema", "strict", "description"), place)
    _only(form, ("type",), f"{place}.")
    return OTHERS[kind]


def of_output_config(request: JSON) -> Constraint | None:
    """Anthropic's `output_config.format`: a schema, or nothing. Raises Refusal."""
    config = fields.mapping(request.get("output_config") or {}, "output_config")
    _only(config, ("format", "effort"), "output_config.")
    if config.get("effort") is not None:
        raise invalid(
            "output_config.effort", Words("考える深さは選べません。", "The effort cannot be chosen."), code="unsupported_parameter"
        )
    if config.get("format") is None:
        return None
    place = "output_config.format"
    form = fields.mapping(config["format"], place)
    _only(form, ("type", "schema"), f"{place}.")
    if form.get("type") != "json_schema":
        raise invalid(f"{place}.type", Words("json_schema です。", "It is json_schema."))
    return _made(constraint.json_schema, fields.mapping(form.get("schema"), f"{place}.schema"), f"{place}.schema")


def _kind(value: JSON, place: str) -> str:
    kind = value.get("type")
    if kind not in (*OTHERS, "json_schema"):
        raise invalid(f"{place}.type", Words("text、json_object、json_schema のどれかです。", "It is text, json_object or json_schema."))
    return str(kind)


def _named(schema: JSON, known: tuple[str, ...], place: str) -> Constraint:
    """A schema with a name."""
    _only(schema, known, f"{place}.")
    name = fields.needed(schema, "name", most=64, place=f"{place}.")
    if not NAME.fullmatch(name):
        raise invalid(f"{place}.name", Words("英数字と _- だけが使えます。", "It may have letters, digits, _ and - only."))
    fields.boolean(schema, "strict", place=f"{place}.")  # a schema is followed either way
    fields.string(schema, "description", most=4096, place=f"{place}.")
    return _made(constraint.json_schema, fields.mapping(schema.get("schema"), f"{place}.schema"), f"{place}.schema")


def _structured(value: JSON) -> Constraint:
    _only(value, tuple(WAYS), "structured_outputs.")
    given = [name for name, each in value.items() if each is not None]
    if len(given) != 1:
        raise invalid("structured_outputs", Words(f"{'、'.join(WAYS)} のどれか一つです。", f"It has one of {', '.join(WAYS)}."))
    return _made(WAYS[given[0]], value[given[0]], f"structured_outputs.{given[0]}")


def _made(make: Callable[[Any], Constraint], value: Any, param: str) -> Constraint:
    try:
        return make(value)
    except ConfigError as error:
        raise Refusal(400, sentence(error), param=param, code="invalid_value") from error


def _only(value: JSON, known: tuple[str, ...], place: str) -> None:
    unknown = next((name for name in value if name not in known), None)
    if unknown is not None:
        words = Words(f"あるのは {'、'.join(known)} です。", f"There is {', '.join(known)}.")
        raise invalid(f"{place}{unknown[:80]}", words, code="unknown_parameter")
