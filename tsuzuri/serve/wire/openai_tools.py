"""Messages and tools in OpenAI's chat form, as ours.

In: `messages`, `tools`, `tool_choice` of a request. Out: `Message`s and tool definitions; a `Refusal` names the very part.
Tools are kept in one form, OpenAI's: {"type": "function", "function": {"name", "description", "parameters"}}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.serve.wire.fields import JSON, Field, hint, invalid, mapping, needed, refused, several, string, used
from tsuzuri.types import Message, Role, ToolCall

MOST_MESSAGES, MOST_TOOLS, MOST_CALLS = 2048, 128, 128
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
    answers = string(one, "tool_call_id", most=256, place=f"{place}.", required=role == "tool")
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
    function = mapping(call.get("function"), f"{place}.function")
    name = needed(function, "name", most=256, place=f"{place}.function.")
    return ToolCall(needed(call, "id", most=256, place=f"{place}."), name, needed(function, "arguments", place=f"{place}.function."))


def tools(request: JSON) -> tuple[JSON, ...]:
    """The tools that the model may call: none where `tool_choice` is "none". Raises Refusal."""
    value = request.get("tools")
    found = [] if value is None else several(value, "tools", most=MOST_TOOLS)
    made = tuple(_tool(mapping(one, f"tools[{i}]"), f"tools[{i}]") for i, one in enumerate(found))
    choice = request.get("tool_choice")
    if choice is not None and choice not in ("none", "auto"):
        words = Words("none か auto だけです。呼び出しを強いることはできません。", "Only none or auto: a call cannot be forced.")
        raise invalid("tool_choice", words, code="unsupported_parameter")
    return () if choice == "none" else made


def _tool(tool: JSON, place: str) -> JSON:
    if tool.get("type") != "function":
        raise invalid(f"{place}.type", Words("function だけです。", "Only function."), code="unsupported_content")
    function = mapping(tool.get("function"), f"{place}.function")
    extra = next((name for name in function if name not in ("name", "description", "parameters", "strict")), None)
    if extra is not None:
        raise invalid(f"{place}.function.{extra[:80]}", Words("そのような項目はありません。", "There is no such field."))
    if function.get("strict") not in (None, False):
        words = Words("引数を型どおりに強いることはできません。", "Arguments cannot be held to the schema.")
        raise invalid(f"{place}.function.strict", words, code="unsupported_parameter")
    return tool_form(
        needed(function, "name", most=64, place=f"{place}.function."),
        string(function, "description", most=1 << 16, place=f"{place}.function."),
        function.get("parameters"),
        f"{place}.function",
    )


def tool_form(name: str, description: str | None, parameters: object, place: str) -> JSON:
    """One tool in the one form that we keep."""
    if not NAME.fullmatch(name):
        raise invalid(f"{place}.name", Words("英数字、_、- を 64 文字までです。", "At most 64 letters, digits, _ and -."))
    made: dict[str, object] = {"name": name}
    if description is not None:
        made["description"] = description
    if parameters is not None:
        made["parameters"] = mapping(parameters, f"{place}.parameters")
    return {"type": "function", "function": made}
