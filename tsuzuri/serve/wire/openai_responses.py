"""OpenAI's responses: each request holds its whole conversation, or goes on from an answer that is kept.

In: the JSON of POST /v1/responses (and …/input_tokens) -> `Asked`; with what is kept of the conversation, `after`. In: events -> the named events of the stream (`Chunks`); the whole answer is what the last
of them holds (`whole`). Items become our messages: calls join the assistant's words before them, their outputs are messages of their own.
Tools that only OpenAI's servers have are left out, and `notices` says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.serve.wire import fields, forms
from tsuzuri.serve.wire.asked import Asked, Head, finish_reason, kept
from tsuzuri.serve.wire.fields import JSON, Field, hint, invalid, mapping, needed, recorded, refused, several, string, used
from tsuzuri.serve.wire.openai_tools import MOST_ID, MOST_MESSAGES, MOST_TOOLS, ROLES, Choice, Placed, chosen, tool_form
from tsuzuri.types import Done, Event, Message, Notice, Options, Source, Text, Thought, ToolCall, Usage

LONGEST_ID = 64  # characters
FIELDS: tuple[Field, ...] = (
    used("model", "モデルの名前", "the name of a model"),
    used("input", "文章か、会話の項目の並び", "a text, or the items of a conversation"),
    used("instructions", "最初の指示", "instructions that come first"),
    *fields.sampling_fields("logprobs", "max_tokens"),
    used("max_output_tokens", "長さの上限", "the limit of the length"),
    used("stop", "答えを終える文字列、4 個まで", "up to 4 strings that end the answer"),
    used("stream", "できた分から送る", "send it as it comes"),
    used("text", "format：答えの形（文章、JSON、スキーマに従う JSON）", "format: text, JSON, or JSON of a schema"),
    used("tools", "呼び出せる関数（使えるモデルだけ）", "functions that may be called, where the model can"),
    used("tool_choice", "none、auto、required、関数の名前、allowed_tools", "none, auto, required, a function by name, or allowed_tools"),
    used("parallel_tool_calls", "false：ツールの呼び出しを一つに限る", "false: one tool call at most"),
    recorded("user", "利用者の印", "who it is for"),
    recorded("safety_identifier", "利用者の印", "who it is for"),
    recorded("metadata", "記録に添え、答えにも返す値", "values for the record, given back"),
    hint("prompt_cache_key", "同じ始まりを持つ依頼の印", "which requests begin alike"),
    hint("prompt_cache_options", "入力の使い回し", "how prompts are kept"),
    hint("prompt_cache_retention", "入力を使い回す期間", "how long prompts are kept"),
    hint("client_metadata", "クライアントの覚え書き", "notes of the client"),
    hint("include", "添えられるものがあれば添える", "what to add where there is any"),
    refused("reasoning", "考える深さは選べません。", "The effort cannot be chosen.", {}, {"effort": "none"}),
    used("previous_response_id", "保存した答えの続きにする", "it goes on from a stored answer"),
    used("store", "true：答えを保存する（なければ保存しない）", "true: the answer is stored; unless given it is not"),
    refused("conversation", "会話は保存しません。", "Conversations are not stored."),
    refused("background", "あとで取りに来ることはできません。", "Answers cannot be fetched later.", False),
    refused("background_options", "あとで取りに来ることはできません。", "Answers cannot be fetched later."),
    refused("truncation", "会話は切り詰めません。", "Conversations are not cut.", "disabled"),
    refused("context_management", "会話は書き換えません。", "Conversations are not edited."),
    refused("stream_options", "長さを隠す詰め物はできません。", "Padding is not supported.", {}, {"include_obfuscation": False}),
    refused("top_logprobs", "ここでは出せません。", "Not here.", 0),
    refused("max_tool_calls", "サーバー側のツールはありません。", "There are no tools on the server's side."),
    refused("prompt", "保存した指示はありません。", "There are no stored prompts."),
    refused("service_tier", "扱いに段階はありません。", "There are no tiers.", "auto", "default"),
    refused("moderation", "この項目では選べません。", "It cannot be chosen here."),
    refused("access_programs", "ありません。", "There are none."),
    refused("image", "画像は作れません。", "Images are not made."),
)
COUNTED = ("model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "previous_response_id", "conversation", "text", "reasoning", "truncation")  # fmt: skip
COUNT: tuple[Field, ...] = (  # of …/input_tokens
    *(field for field in FIELDS if field.name in COUNTED),
    refused("personality", "性格は選べません。", "It cannot be chosen."),
)
ROLE_PARTS = ("input_text", "output_text", "text", "refusal")
KNOWN: Mapping[str, Sequence[str]] = {  # what an item may say, by its kind; ids and states of answers that come back mean nothing here
    "message": ("type", "role", "content", "id", "status", "phase"),
    "function_call": ("type", "call_id", "name", "arguments", "id", "status"),
    "function_call_output": ("type", "call_id", "output", "id", "status"),
    "reasoning": ("type", "id", "summary", "content", "encrypted_content", "status"),
}
TOOL = ("type", "name", "description", "parameters", "strict")


def read(request: JSON) -> Asked:
    """Raises Refusal."""
    fields.check(request, FIELDS)
    choice, left_out = _tools(request)
    length = fields.whole(request, "max_output_tokens", 1, 2**31 - 1)
    names = ("instructions", "max_output_tokens", "metadata", "temperature", "top_p", "user", "previous_response_id", "store")
    said_back = {name: request.get(name) for name in names}
    _flags(request)
    return Asked(
        model=needed(request, "model", most=256),
        messages=_messages(request),
        options=Options(
            fields.sampling(request, FIELDS, max_tokens=length, constraint=forms.of_text(request)),
            fields.stops(request, "stop", most=4),
            choice.tools,
            choice.calls,
        ),
        stream=fields.boolean(request, "stream"),
        marks=fields.marks(request, FIELDS),
        extras={
            **said_back,
            "tools": request.get("tools") or [],
            "tool_choice": request.get("tool_choice") or "auto",
            "parallel_tool_calls": fields.boolean(request, "parallel_tool_calls", default=True),
            "text": {"format": {"type": "text"}, **(request.get("text") or {})},
            "left_out": left_out,
        },
    )


def read_count(request: JSON) -> Asked:
    """What is to be counted: a request without an answer. Raises Refusal."""
    fields.check(request, COUNT)
    choice, _ = _tools(request)
    _flags(request)
    extras = {name: request.get(name) for name in ("instructions", "previous_response_id")}
    model, messages = needed(request, "model", most=256), _messages(request)
    return Asked(model=model, messages=messages, options=Options(fields.sampling({}, ()), (), choice.tools), extras=extras)


def _flags(request: JSON) -> None:
    fields.boolean(request, "store")
    fields.boolean(request, "parallel_tool_calls")
    string(request, "previous_response_id", most=LONGEST_ID)


def after(asked: Asked, kept: Sequence[JSON]) -> Asked:
    """The request after what is kept of its conversation, each as `keepable` gave it. Instructions are not carried over: those of the
    request come first. Raises Refusal."""
    found: list[Message] = []
    for each in kept:
        for item in (*each["input"], *each["response"]["output"]):
            _item(item, "previous_response_id", found)
    first = asked.messages[:1] if asked.extras.get("instructions") is not None else ()
    messages = (*first, *found, *asked.messages[len(first) :])
    if len(messages) > MOST_MESSAGES:
        raise invalid(
            "previous_response_id", Words(f"会話が {MOST_MESSAGES} 件を超えます。", f"It comes to more than {MOST_MESSAGES} items.")
        )
    return replace(asked, messages=messages)


def keepable(request: JSON, response: JSON) -> dict[str, Any]:
    """What is kept of a request and its answer, so that `after` and the list of its items can be made of it."""
    value = request["input"]
    given = [{"role": "user", "content": value}] if isinstance(value, str) else value
    number = str(response["id"]).rpartition("_")[2]
    items = [_kept(item, f"{number}i{i:03d}") for i, item in enumerate(given) if item.get("type", "message") != "reasoning"]
    return {"input": items, "response": response, "previous": request.get("previous_response_id")}


def _kept(item: JSON, number: str) -> dict[str, Any]:
    match item.get("type", "message"):
        case "message":
            content = item["content"]
            parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
            said = item["role"] == "assistant"
            return {
                "id": f"msg_{number}",
                "type": "message",
                "status": "completed",
                "role": item["role"],
                "content": [_part(p, said) for p in parts],
            }
        case "function_call":
            names = ("call_id", "name", "arguments")
            return {"id": f"fc_{number}", "type": "function_call", "status": "completed", **{name: item[name] for name in names}}
        case _:
            output = _text(item["output"], "output")
            return {
                "id": f"fco_{number}",
                "type": "function_call_output",
                "status": "completed",
                "call_id": item["call_id"],
                "output": output,
            }


def _part(part: JSON, said: bool) -> dict[str, Any]:
    if part["type"] == "refusal":
        return {"type": "refusal", "refusal": part["refusal"]}
    return {"type": "output_text", "text": part["text"], "annotations": []} if said else {"type": "input_text", "text": part["text"]}


ITEMS: tuple[Field, ...] = (  # of GET …/input_items, in the address
    used("limit", "何件返すか（1〜100、なければ 20）", "how many, 1 to 100; 20 unless given"),
    used("order", "desc（なければこれ）か asc", "desc (unless given) or asc"),
    used("after", "この項目より後から", "those after this item"),
    hint("include", "添えられるものがあれば添える", "what to add where there is any"),
)
FETCH: tuple[Field, ...] = (  # of GET …/{id}, in the address
    hint("include", "添えられるものがあれば添える", "what to add where there is any"),
    refused("stream", "保存した答えは、まとめて返します。", "A stored answer comes whole.", "false"),
    refused("starting_after", "保存した答えは、まとめて返します。", "A stored answer comes whole."),
    refused("include_obfuscation", "長さを隠す詰め物はできません。", "Padding is not supported.", "false"),
)


def check_query(pairs: Sequence[tuple[str, str]], table: Sequence[Field]) -> dict[str, str]:
    """The fields in an address; `include` may stand there several times, as `include[]` too. Raises Refusal."""
    named = [(name.removesuffix("[]"), value) for name, value in pairs]
    once = dict(named)
    twice = next((name for i, (name, _) in enumerate(named) if name != "include" and name in dict(named[:i])), None)
    fields.check(once, table)
    if twice is not None:
        raise invalid(twice, Words("二度書かれています。", "It stands twice."))
    return once


def items(kept: JSON, query: Mapping[str, str]) -> dict[str, Any]:
    """A page of what a request held. Raises Refusal."""
    order, limit, last = query.get("order", "desc"), query.get("limit", "20"), query.get("after")
    if order not in ("asc", "desc"):
        raise invalid("order", Words("asc か desc です。", "It is asc or desc."))
    if not (limit.isascii() and limit.isdecimal() and len(limit) <= 3 and 1 <= int(limit) <= 100):
        raise invalid("limit", Words("1 以上 100 以下の整数が要ります。", "It takes a whole number from 1 to 100."))
    found = kept["input"] if order == "asc" else kept["input"][::-1]
    if last is not None:
        place = next((i for i, item in enumerate(found) if item["id"] == last), None)
        if place is None:
            raise invalid("after", Words("その項目はありません。", "There is no such item."))
        found = found[place + 1 :]
    page = found[: int(limit)]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, **ends, "has_more": len(found) > len(page)}


def _messages(request: JSON) -> tuple[Message, ...]:
    instructions = string(request, "instructions", most=1 << 24)
    found = [] if instructions is None else [Message("system", instructions)]
    value = request.get("input")
    if isinstance(value, str):
        return (*found, Message("user", value))
    for i, item in enumerate(several(value, "input", least=1, most=MOST_MESSAGES)):
        _item(mapping(item, f"input[{i}]"), f"input[{i}]", found)
    return tuple(found)


def _item(item: JSON, place: str, found: list[Message]) -> None:
    """One more item of the conversation."""
    kind = item.get("type", "message")
    _known(item, KNOWN.get(kind, item) if isinstance(kind, str) else item, place)
    match kind:
        case "message":
            role = needed(item, "role", most=20, place=f"{place}.")
            if role not in ROLES or role == "tool":
                raise invalid(
                    f"{place}.role",
                    Words("system、developer、user、assistant のどれかです。", "It is system, developer, user or assistant."),
                )
            found.append(Message(ROLES[role], _text(item.get("content"), f"{place}.content")))
        case "function_call":
            call = ToolCall(*(needed(item, name, place=f"{place}.") for name in ("call_id", "name", "arguments")))
            if found and found[-1].role == "assistant":
                before = found.pop()
                found.append(Message("assistant", before.content, (*before.tool_calls, call)))
            else:
                found.append(Message("assistant", "", (call,)))
        case "function_call_output":
            call_id = needed(item, "call_id", most=MOST_ID, place=f"{place}.")
            found.append(Message("tool", _text(item.get("output"), f"{place}.output"), tool_call_id=call_id))
        case "reasoning":
            pass  # no model reads its earlier thoughts again
        case _:
            words = Words("この種類の項目は読めません。", "An item of this kind cannot be read.")
            raise invalid(f"{place}.type", words, code="unsupported_content")


def _text(value: object, place: str) -> str:
    if isinstance(value, str):
        return value
    texts = []
    for i, part in enumerate(several(value, place, most=MOST_MESSAGES)):
        each = mapping(part, f"{place}[{i}]")
        kind = needed(each, "type", most=40, place=f"{place}[{i}].")
        if kind not in ROLE_PARTS:
            words = Words("このモデルが読めるのは文章だけです。", "The models here read text only.")
            raise invalid(f"{place}[{i}].type", words, code="unsupported_content")
        _known(each, ("type", "refusal" if kind == "refusal" else "text", "annotations", "logprobs"), f"{place}[{i}]")
        texts.append(needed(each, "refusal" if kind == "refusal" else "text", place=f"{place}[{i}]."))
    return "\n".join(texts)


def _known(value: JSON, names: Collection[str], place: str) -> None:
    """Raises Refusal for what nobody here knows, unless it asks for nothing (null, false, nothing in it): clients say all that there is."""
    extra = next((name for name, given in value.items() if name not in names and given), None)
    if extra is not None:
        raise invalid(f"{place}.{extra[:80]}", Words("そのような項目はありません。", "There is no such field."), code="unknown_parameter")


def _name_in(choice: JSON, place: str) -> str:
    _known(choice, ("type", "name"), place)
    return needed(choice, "name", most=64, place=f"{place}.")


def _tools(request: JSON) -> tuple[Choice, list[str]]:
    """Functions and which of them may be called, and the kinds of tools that are left out."""
    value = request.get("tools")
    made: list[Placed] = []
    others: list[str] = []
    for i, one in enumerate([] if value is None else several(value, "tools", most=MOST_TOOLS)):
        tool, place = mapping(one, f"tools[{i}]"), f"tools[{i}]"
        if tool.get("type") != "function":
            others.append(needed(tool, "type", most=60, place=f"{place}."))
            continue
        _known(tool, TOOL, place)
        description = string(tool, "description", most=1 << 16, place=f"{place}.")
        strict = fields.boolean(tool, "strict", place=f"{place}.")
        form = tool_form(needed(tool, "name", most=64, place=f"{place}."), description, tool.get("parameters"), place, strict=strict)
        made.append((f"{place}.parameters", form))
    return chosen(request, made, _name_in), sorted(set(others))


# ── the answer


def whole(head: Head, asked: Asked, events: Sequence[Event]) -> dict[str, Any]:
    """What the last event of the stream holds. Raises Refusal for an answer that was stopped halfway."""
    chunks = Chunks(head, asked)
    for event in events:
        chunks.event(0, event)
    found: dict[str, Any] = chunks.end()[-1]["response"]
    return found


class Chunks:
    """Feed it events; what it gives are the named events of the stream, in order and numbered."""

    def __init__(self, head: Head, asked: Asked) -> None:
        self._head, self._asked = head, asked
        self._number = self._calls = 0
        self._begun = False
        self._items: list[dict[str, Any]] = []  # the output so far; the last one may be under way
        self._open: str | None = None  # the kind of the item under way: "message" or "reasoning"
        self._usage: Usage | None = None
        self._done = Done("cancelled")
        left_out = asked.extras.get("left_out") or []
        words = f"使えないツールを除きました（{'、'.join(left_out)}）。", f"Tools that are not there were left out ({', '.join(left_out)})."
        self._notices = [str(Words(*words))] if left_out else []
        self._sources: list[dict[str, Any]] = []

    def event(self, index: int, event: Event) -> list[dict[str, Any]]:
        """Raises Refusal for an end that is none."""
        made = [] if self._begun else [self._of("created"), self._of("in_progress")]
        self._begun = True
        match event:
            case Text(text) if text:
                made += self._words(text)
            case Thought(text) if text:
                made += self._thoughts(text)
            case ToolCall() if kept(event, self._calls, self._asked):
                made += self._call(event)
            case Notice(text):
                self._notices.append(text)
            case Source():
                self._sources.append(asdict(event))
            case Usage():
                self._usage = event
            case Done(finish):
                finish_reason(finish, self._calls)
                self._done = event
        return made

    def end(self) -> list[dict[str, Any]]:
        """Raises Refusal for an answer without an end."""
        reason = finish_reason(self._done.finish, self._calls)
        cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(reason)
        made = self._close()
        return [*made, self._of("incomplete" if cut else "completed", cut)]

    def _words(self, text: str) -> list[dict[str, Any]]:
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        made = []
        if self._open != "message":
            made = [*self._close(), *self._begin({"type": "message", "status": "in_progress", "role": "assistant", "content": []}, "msg")]
            self._open = "message"
            self._items[-1]["content"].append(dict(part))
            made.append(self._in("response.content_part.added", content_index=0, part=part))
        self._items[-1]["content"][0]["text"] += text
        return [*made, self._in("response.output_text.delta", content_index=0, delta=text, logprobs=[])]

    def _thoughts(self, text: str) -> list[dict[str, Any]]:
        part = {"type": "summary_text", "text": ""}
        made = []
        if self._open != "reasoning":
            made = [*self._close(), *self._begin({"type": "reasoning", "summary": []}, "rs")]
            self._open = "reasoning"
            self._items[-1]["summary"].append(dict(part))
            made.append(self._in("response.reasoning_summary_part.added", summary_index=0, part=part))
        self._items[-1]["summary"][0]["text"] += text
        return [*made, self._in("response.reasoning_summary_text.delta", summary_index=0, delta=text)]

    def _call(self, call: ToolCall) -> list[dict[str, Any]]:
        self._calls += 1
        item = {"type": "function_call", "status": "in_progress", "call_id": call.id, "name": call.name, "arguments": ""}
        made = [*self._close(), *self._begin(item, "fc")]
        self._items[-1] |= {"arguments": call.arguments, "status": "completed"}
        made.append(self._in("response.function_call_arguments.delta", delta=call.arguments))
        made.append(self._in("response.function_call_arguments.done", arguments=call.arguments, name=call.name))
        return [*made, self._out("response.output_item.done", item=dict(self._items[-1]))]

    def _begin(self, item: dict[str, Any], kind: str) -> list[dict[str, Any]]:
        made = {"id": f"{kind}_{self._head.id.rpartition('_')[2]}{len(self._items):02d}", **item}
        self._items.append(made)
        return [self._out("response.output_item.added", item=_copy(made))]

    def _close(self) -> list[dict[str, Any]]:
        """The item under way is whole."""
        made: list[dict[str, Any]] = []
        if self._open == "message":
            part = self._items[-1]["content"][0]
            self._items[-1]["status"] = "completed"
            made.append(self._in("response.output_text.done", content_index=0, text=part["text"], logprobs=[]))
            made.append(self._in("response.content_part.done", content_index=0, part=dict(part)))
        elif self._open == "reasoning":
            part = self._items[-1]["summary"][0]
            made.append(self._in("response.reasoning_summary_text.done", summary_index=0, text=part["text"]))
            made.append(self._in("response.reasoning_summary_part.done", summary_index=0, part=dict(part)))
        if self._open is not None:
            made.append(self._out("response.output_item.done", item=_copy(self._items[-1])))
        self._open = None
        return made

    def _of(self, status: str, cut: str | None = None) -> dict[str, Any]:
        """An event that holds the whole response as it stands."""
        return self._numbered(f"response.{status}", response=self._response("in_progress" if status == "created" else status, cut))

    def _in(self, kind: str, **more: Any) -> dict[str, Any]:
        return self._out(kind, item_id=self._items[-1]["id"], **more)

    def _out(self, kind: str, **more: Any) -> dict[str, Any]:
        return self._numbered(kind, output_index=len(self._items) - 1, **more)

    def _numbered(self, kind: str, **more: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **more}

    def _response(self, status: str, cut: str | None) -> dict[str, Any]:
        extras = self._asked.extras
        made: dict[str, Any] = {
            "id": self._head.id, "object": "response", "created_at": self._head.created, "status": status, "error": None,
            "incomplete_details": {"reason": cut} if cut else None, "instructions": extras.get("instructions"),
            "max_output_tokens": extras.get("max_output_tokens"), "model": self._head.model, "output": [_copy(item) for item in self._items],
            "parallel_tool_calls": extras.get("parallel_tool_calls", True), "previous_response_id": extras.get("previous_response_id"),
            "reasoning": {"effort": None, "summary": None}, "store": extras.get("store") is True, "temperature": self._asked.options.sampling.temperature,
            "text": extras.get("text", {"format": {"type": "text"}}),
            "tool_choice": extras.get("tool_choice", "auto"), "tools": extras.get("tools", []), "top_p": self._asked.options.sampling.top_p,
            "truncation": "disabled", "usage": _usage(self._usage), "user": extras.get("user"), "metadata": extras.get("metadata") or {},
        }  # fmt: skip
        return made | {name: value for name, value in {"notices": self._notices, "sources": self._sources}.items() if value}


def _usage(found: Usage | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "input_tokens": found.prompt_tokens,
        "input_tokens_details": {"cached_tokens": found.cached_tokens},
        "output_tokens": found.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": found.reasoning_tokens},
        "total_tokens": found.prompt_tokens + found.completion_tokens,
    }


def _copy(item: Mapping[str, Any]) -> dict[str, Any]:
    """As it is now: what an event holds does not change later."""
    return {name: [dict(part) for part in value] if isinstance(value, list) else value for name, value in item.items()}
