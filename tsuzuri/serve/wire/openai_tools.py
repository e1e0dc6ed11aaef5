"""Messages and tools in OpenAI's chat form, as ours.

In: `messages`, `tools`, `tool_choice` of a request. Out: `Message`s and tool definitions; a `Refusal` names the very part.
Tools are kept in one form, OpenAI's: {"type": "function", "function": {"name", "description", "parameters"}}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tsuzuri.chat.calling import schema_of, strict
from tsuzuri.engine.constraint import CALLS
from tsuzuri.errors import ConfigError, Words
from tsuzuri.serve.refusal import Refusal, sentence
from tsuzuri.serve.wire import fields
from tsuzuri.serve.wire.asked import dumps
from tsuzuri.serve.wire.fields import JSON, Field, hint, invalid, mapping, needed, refused, several, string, used
from tsuzuri.types import Message, Role, ToolCall

MOST_MESSAGES, MOST_TOOLS, MOST_CALLS = 2048, 128, 128
MOST_ID = 1 << 15  # characters of the id of a call: some models elsewhere want a signature back, which travels in it
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",  # its later name
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MESSAGE = (
    used("role", "system、developer、user、assistant、tool", "system, developer, user, assistant, tool"),
    used("content", "文字列か、text の並び", "a string, or parts of text"),
    used("tool_calls", "assistant のツール呼び出し", "tool calls of the assistant"),
    used("tool_call_id", "tool が答える呼び出し", "the call that a tool answers"),
    used("refusal", "断りの文（content と同じに読む）", "a refusal, read like content"),
    hint("reasoning_content", "以前の考え。どのモデルも読み直さない", "earlier thoughts, which no model reads again"),
    refused("name", "発言者の名前は表せません。", "A speaker's name cannot be shown to the model."),
    refused("audio", "音声は扱えません。", "Audio is not supported."),
    refused("function_call", "tool_calls を使ってください。", "Use tool_calls."),
    refused("annotations", "注釈は読めません。", "Annotations are not read.", []),
)


def messages(request: JSON) -> tuple[Message, ...]:
    """The conversation. Raises Refusal."""
    found = several(request.get("messages"), "messages", least=1, most=MOST_MESSAGES)
    return tuple(_message(mapping(one, f"messages[{i}]"), f"messages[{i}]") for i, one in enumerate(found))


def _message(one: JSON, place: str) -> Message:
    if one.keys() == {"role", "content"} and isinstance(one["content"], str) and one["role"] in ("system", "user", "assistant"):
        return Message(ROLES[one["role"]], one["content"])  # most are like this, and there may be thousands
    _checked(one, MESSAGE, place)
    role = needed(one, "role", most=20, place=f"{place}.")
    if role not in ROLES:
        raise invalid(f"{place}.role", Words(f"{'、'.join(ROLES)} のどれかです。", f"It is one of {', '.join(ROLES)}."))
    calls = tuple(_call(mapping(call, f"{place}.tool_calls[{i}]"), f"{place}.tool_calls[{i}]") for i, call in enumerate(_calls(one, place)))
    answers = string(one, "tool_call_id", most=MOST_ID, place=f"{place}.", required=role == "tool")
    if calls and role != "assistant":
        raise invalid(f"{place}.tool_calls", Words("assistant だけが使えます。", "Only the assistant has them."))
    if answers is not None and role != "tool":
        raise invalid(f"{place}.tool_call_id", Words("tool だけが使えます。", "Only a tool has it."))
    content = text(one.get("content"), f"{place}.content") + text(one.get("refusal"), f"{place}.refusal")
    if one.get("content") is None and not calls and one.get("refusal") is None:
        raise invalid(f"{place}.content", Words("必ず要ります。", "It is required."), code="missing_required_parameter")
    return Message(ROLES[role], content, calls, answers)


def _checked(one: JSON, table: Sequence[Field], place: str) -> None:
    """`check`, with the place of the message in front of its fields."""
    for name in one:  # there may be thousands of messages: a table is not turned over for each
        field = next((field for field in table if field.name == name), None)
        if field is None:
            words = Words("そのような項目はありません。", "There is no such field.")
            raise invalid(f"{place}.{name[:80]}", words, code="unknown_parameter")
        if field.use == "refused" and one[name] is not None and one[name] not in field.neutral:
            raise invalid(f"{place}.{name}", field.words, code="unsupported_parameter")


def text(content: object, place: str) -> str:
    """A string, or parts that are all text, a line each."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = several(content, place, least=1, most=MOST_MESSAGES)
    return "\n".join(_part(mapping(part, f"{place}[{i}]"), f"{place}[{i}]") for i, part in enumerate(parts))


def _part(part: JSON, place: str) -> str:
    kind = needed(part, "type", most=40, place=f"{place}.")
    if kind not in ("text", "refusal"):
        words = Words("このモデルが読めるのは文章だけです。", "The models here read text only.")
        raise invalid(f"{place}.type", words, code="unsupported_content")
    extra = next((name for name in part if name not in ("type", kind)), None)
    if extra is not None:
        raise invalid(f"{place}.{extra[:80]}", Words("そのような項目はありません。", "There is no such field."), code="unknown_parameter")
    return needed(part, kind, place=f"{place}.")


def _calls(one: JSON, place: str) -> list[Any]:
    value = one.get("tool_calls")
    return [] if value is None else several(value, f"{place}.tool_calls", most=MOST_CALLS)


def _call(call: JSON, place: str) -> ToolCall:
    if call.get("type", "function") != "function":
        raise invalid(f"{place}.type", Words("function だけです。", "Only function."), code="unsupported_content")
    only(call, ("id", "type", "function", "index"), place)  # the index of a streamed call may be sent back
    function = mapping(call.get("function"), f"{place}.function")
    only(function, ("name", "arguments"), f"{place}.function")
    name = needed(function, "name", most=256, place=f"{place}.function.")
    return ToolCall(needed(call, "id", most=MOST_ID, place=f"{place}."), name, needed(function, "arguments", place=f"{place}.function."))


Placed: TypeAlias = tuple[str, JSON]  # where its schema stands in the request, and the tool


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tools may be called, and how many calls there are: at least, at most."""

    tools: tuple[JSON, ...] = ()
    calls: tuple[int, int | None] = (0, None)


def tools(request: JSON) -> Choice:
    """What `tools`, `tool_choice` and `parallel_tool_calls` come to. Raises Refusal."""
    value = request.get("tools")
    found = [] if value is None else several(value, "tools", most=MOST_TOOLS)
    made = [(f"tools[{i}].function.parameters", _tool(mapping(one, f"tools[{i}]"), f"tools[{i}]")) for i, one in enumerate(found)]
    return chosen(request, made, _name_in)


def _name_in(choice: JSON, place: str) -> str:
    only(choice, ("type", "function"), place)
    function = mapping(choice.get("function"), f"{place}.function")
    only(function, ("name",), f"{place}.function")
    return needed(function, "name", most=64, place=f"{place}.function.")


def chosen(request: JSON, made: Sequence[Placed], name_in: Callable[[JSON, str], str]) -> Choice:
    """OpenAI's `tool_choice`: a tool that may not be called is not shown to the model. `name_in`: the name in a choice, and its place."""
    choice, one = request.get("tool_choice"), not fields.boolean(request, "parallel_tool_calls", default=True)
    match choice:
        case None | "auto":
            return choice_of(made, None, required=False, one=one)
        case "none":
            return Choice((), (0, 1 if one else None))
        case "required":
            return choice_of(made, None, required=True, one=one)
        case {"type": "function"}:
            only(choice, ("type", "function", "name"), "tool_choice")
            return choice_of(made, [name_in(choice, "tool_choice")], required=True, one=True)
        case {"type": "allowed_tools"}:
            return _allowed(choice, made, name_in, one=one)
    words = Words(
        "none、auto、required、ツールの名前、allowed_tools のどれかです。",
        "It is none, auto, required, a function by name, or allowed_tools.",
    )
    raise invalid("tool_choice", words)


def _allowed(choice: JSON, made: Sequence[Placed], name_in: Callable[[JSON, str], str], *, one: bool) -> Choice:
    inner = choice.get("allowed_tools")  # the chat form has it nested, the responses form flat
    place = "tool_choice" if inner is None else "tool_choice.allowed_tools"
    only(choice, ("type", "mode", "tools") if inner is None else ("type", "allowed_tools"), "tool_choice")
    value = choice if inner is None else mapping(inner, place)
    only(value, ("type", "mode", "tools"), place)
    if value.get("mode") not in ("auto", "required"):
        raise invalid(f"{place}.mode", Words("auto か required です。", "It is auto or required."))
    names = []
    for i, each in enumerate(several(value.get("tools"), f"{place}.tools", least=1, most=MOST_TOOLS)):
        tool, here = mapping(each, f"{place}.tools[{i}]"), f"{place}.tools[{i}]"
        if tool.get("type") != "function":
            raise invalid(f"{here}.type", Words("function だけです。", "Only function."), code="unsupported_content")
        names.append(name_in(tool, here))
    return choice_of(made, names, required=value["mode"] == "required", one=one)


def choice_of(made: Sequence[Placed], names: Sequence[str] | None, *, required: bool, one: bool) -> Choice:
    """Of the tools those of these names, or all. Raises Refusal for a name that is not there, or twice, for a call of nothing, and for a
    keyword in the schema of a strict tool that cannot be followed."""
    there = [tool["function"]["name"] for _, tool in made]
    if len(set(there)) < len(there):
        twice = next(place for i, (place, _) in enumerate(made) if there[i] in there[:i])
        raise invalid(twice.partition(".")[0], Words("同じ名前のツールが二つあります。", "There are two tools of that name."))
    if not set(names or ()) <= set(there) or (required and not made):
        raise invalid("tool_choice", Words("そのツールは tools にありません。", "There is no such tool in tools."))
    _check_strict([(place, tool) for place, tool in made if strict(tool)])
    kept = tuple(tool for _, tool in made if names is None or tool["function"]["name"] in names)
    return Choice(kept, (int(required), 1 if one else None))


def _check_strict(made: Sequence[Placed]) -> None:
    """Together they have a bound, which is looked at first: checking takes time."""
    room = CALLS
    for place, tool in made:
        room -= len(dumps(tool["function"].get("parameters", {})))
        if room < 0:
            raise invalid(
                place, Words(f"strict なツールの型は合わせて {CALLS:,} バイトまでです。", f"Schemas of strict tools have {CALLS:,} bytes.")
            )
    for place, tool in made:
        try:
            schema_of(tool)
        except ConfigError as error:
            raise Refusal(400, sentence(error), param=place, code="invalid_value") from error


def only(value: JSON, known: Sequence[str], place: str) -> None:
    extra = next((name for name in value if name not in known), None)
    if extra is not None:
        raise invalid(f"{place}.{extra[:80]}", Words("そのような項目はありません。", "There is no such field."), code="unknown_parameter")


def _tool(tool: JSON, place: str) -> JSON:
    if tool.get("type") != "function":
        raise invalid(f"{place}.type", Words("function だけです。", "Only function."), code="unsupported_content")
    only(tool, ("type", "function"), place)
    function = mapping(tool.get("function"), f"{place}.function")
    only(function, ("name", "description", "parameters", "strict"), f"{place}.function")
    return tool_form(
        needed(function, "name", most=64, place=f"{place}.function."),
        string(function, "description", most=1 << 16, place=f"{place}.function."),
        function.get("parameters"),
        f"{place}.function",
        strict=fields.boolean(function, "strict", place=f"{place}.function."),
    )


def tool_form(
    name: str, description: str | None, parameters: object, place: str, *, strict: bool = False, field: str = "parameters"
) -> JSON:
    """One tool in the one form that we keep."""
    if not NAME.fullmatch(name):
        raise invalid(f"{place}.name", Words("英数字、_、- を 64 文字までです。", "At most 64 letters, digits, _ and -."))
    made: dict[str, object] = {"name": name}
    if description is not None:
        made["description"] = description
    if parameters is not None:
        made["parameters"] = mapping(parameters, f"{place}.{field}")
    return {"type": "function", "function": made | ({"strict": True} if strict else {})}
