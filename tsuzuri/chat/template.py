"""Messages as text and as tokens, by one Jinja text that other software reads too (`chat_template.jinja`): ChatML, or a
directory's own.

In: messages, and the tools that may be called. Out: segments of text, of which each is a special token or plain, trained or not; or their
ids. Whether a template can show tools, and how it writes a call, is found by trying it (`probe.py`).
A special token written in a person's message stays text: before rendering it is replaced by a mark that no tokenizer knows.
Templates of other models are untrusted: they run in Jinja's sandbox, with bounds on what they may make. It knows no model.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeAlias

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tsuzuri.chat.parse import Form
from tsuzuri.chat.probe import form_of
from tsuzuri.chat.reading import name_of
from tsuzuri.errors import ConfigError, FormatError, InputError, MissingError, Words
from tsuzuri.types import Message, ToolCall

FILE = "chat_template.jinja"
CONFIG = "tokenizer_config.json"  # where older directories keep it
START, END = "<|im_start|>", "<|im_end|>"
MAX_TEMPLATE = 1 << 20  # characters; the longest public template is about 20,000
MAX_OUTPUT = 1 << 20  # characters a template may add to those of the messages
DEEPEST = 32  # levels of the arguments of a call, as of the bodies of requests
ENCODING = Words("会話をトークンにしようとしました。", "Encoding a conversation.")

# `generation` marks what an assistant says, for training; transformers knows the same block and ignores it otherwise. A call is written
# as Hermes and Qwen write it, so that other software finds it in what a model says.
CHATML = """\
{%- if tools -%}
{{- '<|im_start|>system\\n' -}}
{%- if messages[0]['role'] == 'system' -%}{{- messages[0]['content'] + '\\n\\n' -}}{%- endif -%}
{{- '次の道具を使えます。\\n' -}}
{%- for tool in tools -%}{{- tool['function'] | tojson + '\\n' -}}{%- endfor -%}
{{- '使うときは、名前と引数をこの形で書きます。\\n<tool_call>\\n{"name": "名前", "arguments": {"引数": "値"}}\\n</tool_call><|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if not (tools and loop.first and message['role'] == 'system') -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}
{{- message['content'] or '' -}}
{%- for call in message['tool_calls'] or [] -%}
{{- '\\n' if message['content'] or not loop.first else '' -}}
{{- '<tool_call>\\n{"name": ' + call['function']['name'] | tojson -}}
{{- ', "arguments": ' + call['function']['arguments'] | tojson + '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>' -}}
{%- endgeneration -%}
{%- else -%}
{{- message['content'] + '<|im_end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
Tool: TypeAlias = Mapping[str, Any]


class Encoder(Protocol):
    """What is asked of a tokenizer here."""

    @property
    def special(self) -> Mapping[str, int]: ...
    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Segment:
    text: str
    special: bool  # one special token, made by the template
    trained: bool  # said by the assistant, its end of turn included


@dataclass(frozen=True, slots=True)
class Template:
    """One Jinja text and the words it may use (`bos_token`, `eos_token`)."""

    text: str = CHATML
    words: Mapping[str, str] = field(default_factory=dict)

    def segments(
        self, messages: Sequence[Message], add_generation_prompt: bool, special: Collection[str], tools: Sequence[Tool] = ()
    ) -> list[Segment]:
        """The conversation in order, cut at `special` tokens and at the borders of what is trained; joined it is the text that
        the reference library renders. Raises InputError, ConfigError (what it cannot show) and FormatError (it fails)."""
        _check(messages)
        called = any(message.tool_calls or message.tool_call_id for message in messages)
        form = self.form(special) if tools or called else None
        if called or tools:
            _check_calls(form, messages)
        return self._cut(_in_order(messages) if called else messages, add_generation_prompt, special, tools)

    def form(self, special: Collection[str]) -> Form | None:
        """How it writes calls; None where it cannot show tools."""
        return _form(self.text, tuple(sorted(self.words.items())), frozenset(special))

    def _cut(
        self, messages: Sequence[Message], add_generation_prompt: bool, special: Collection[str], tools: Sequence[Tool]
    ) -> list[Segment]:
        turns, shown = _turns(messages), [_shown(tool) for tool in tools]
        said = _json([turns, shown])
        marks = _Marks(said, self.text, special)
        room = MAX_OUTPUT + 8 * len(said)
        values = {**self.words, "_opening": marks.opening, "_closing": marks.closing, "tools": marks.hidden(shown) or None}
        values |= {
            "messages": [marks.hidden(turn) | {"role": turn["role"]} for turn in turns],
            "add_generation_prompt": add_generation_prompt,
        }
        return marks.segments(_bounded(self.text, values, room))

    def encode(
        self, tokenizer: Encoder, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: Sequence[Tool] = ()
    ) -> list[int]:
        """Ids of a conversation; special tokens come from the template alone."""
        return [id for _, ids in self.pieces(tokenizer, messages, add_generation_prompt, tools) for id in ids]

    def pieces(
        self, tokenizer: Encoder, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[Tool] = ()
    ) -> list[tuple[Segment, list[int]]]:
        """Each segment with its ids. Raises MissingError when the tokenizer lacks what ChatML needs."""
        missing = sorted({START, END} - set(tokenizer.special)) if self.text == CHATML else []
        if missing:
            raise MissingError(
                ENCODING,
                found=Words(f"トークナイザに {'、'.join(missing)} がありません。", f"The tokenizer has no {', '.join(missing)}."),
                todo=Words(
                    "会話用のモデルを使うか、続きを書かせるなら tsuzuri generate を使ってください。",
                    "Use a model made for chat, or tsuzuri generate to continue a text.",
                ),
            )
        segments = self.segments(messages, add_generation_prompt, tokenizer.special, tools)
        return [(s, [tokenizer.special[s.text]] if s.special else tokenizer.encode(s.text)) for s in segments]


def render(messages: Sequence[Message], add_generation_prompt: bool = False, tools: Sequence[Tool] = ()) -> list[Segment]:
    """A conversation in ChatML, as segments."""
    return Template().segments(messages, add_generation_prompt, (START, END), tools)


def encode(tokenizer: Encoder, messages: Sequence[Message], add_generation_prompt: bool = True, tools: Sequence[Tool] = ()) -> list[int]:
    """Ids of a conversation in ChatML, ready to be answered."""
    return Template().encode(tokenizer, messages, add_generation_prompt=add_generation_prompt, tools=tools)


def encode_training(tokenizer: Encoder, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[list[int], list[bool]]:
    """(ids, whether each is trained): trained is what the assistant says, its calls included, and the `<|im_end|>` that ends it,
    nothing else.

    Up to each answer the ids are those that `encode` gives for the question: what is learned is what will be asked.
    """
    found = Template().pieces(tokenizer, messages, False, tools)
    return [id for _, ids in found for id in ids], [segment.trained for segment, ids in found for _ in ids]


def save(directory: Path) -> None:
    """ChatML as chat_template.jinja into an existing directory."""
    (directory / FILE).write_text(CHATML, encoding="utf-8")


def load(directory: Path) -> Template:
    """The template of a model directory: its chat_template.jinja, else the one in tokenizer_config.json, else ChatML.
    Raises FormatError for one that cannot be used, MissingError for a file that cannot be opened."""
    config = _config(directory / CONFIG)
    file = FILE if (directory / FILE).is_file() else CONFIG
    text = _read(directory / FILE) if file == FILE else config.get("chat_template", CHATML)
    if not isinstance(text, str) or len(text) > MAX_TEMPLATE:
        raise _broken(file, Words("文字列でないか、長すぎます。", "It is no string, or too long."))
    try:
        _compiled(text)
    except (jinja2.TemplateError, RecursionError) as error:
        raise _broken(file, Words(f"Jinja として読めません（{error}）。", f"It is not Jinja ({error}).")) from error
    return Template(text, {name: _token(config.get(name)) for name in ("bos_token", "eos_token")})


class _Marks:
    """Strings that occur in no message and no template: they stand for special tokens that a person wrote, and for the
    borders of what is trained. U+E000 is a private character; the number makes them unlike any that a person sends."""

    def __init__(self, said: str, source: str, special: Collection[str]) -> None:
        """`said`: all of it in one text, be it as JSON: that leaves the signs of a mark as they are."""
        number = next(n for n in itertools.count() if not any(f"\ue000{n}:" in text for text in (said, source)))
        self.opening, self.closing = f"\ue000{number}:(\ue001", f"\ue000{number}:)\ue001"
        longest_first = sorted((text for text in special if text), key=lambda text: (-len(text), text))
        self._hidden = {text: f"\ue000{number}:{i}\ue001" for i, text in enumerate(longest_first)}
        self._shown = {mark: text for text, mark in self._hidden.items()}
        self._written, self._mark = _any_of(longest_first), _any_of(list(self._shown))
        self._cut = _any_of([self.opening, self.closing, *longest_first])

    def hide(self, content: str) -> str:
        return self._written.sub(lambda match: self._hidden[match[0]], content)

    def hidden(self, value: Any) -> Any:
        """Every text of a JSON value."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, Mapping):
            return {self.hide(str(key)): self.hidden(each) for key, each in value.items()}
        return [self.hidden(each) for each in value] if isinstance(value, list | tuple) else value

    def segments(self, text: str) -> list[Segment]:
        """A rendered text, cut at the special tokens that the template made and at the borders of what is trained."""
        found: list[Segment] = []
        trained, start = False, 0
        for match in [*self._cut.finditer(text), None]:
            plain = text[start : match.start() if match else None]
            if plain:
                found.append(Segment(self._mark.sub(lambda mark: self._shown[mark[0]], plain), False, trained))
            if match is None:
                break
            if match[0] in (self.opening, self.closing):
                trained = match[0] == self.opening
            else:
                found.append(Segment(match[0], True, trained))
            start = match.end()
        return found


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    """Matches any of the texts, the first that fits; nothing when there is none."""
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")


class _Generation(Extension):
    """{% generation %} … {% endgeneration %}: what the assistant says. Here it puts marks around it."""

    tags = {"generation"}  # noqa: RUF012  Jinja's own interface

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_marked", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, context: Any, caller: Callable[[], str]) -> str:
        return f"{context['_opening']}{caller()}{context['_closing']}"


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox; besides, `*` and `%` are for small numbers only and `**` for none: each could make memory of nothing."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        small = all(isinstance(x, int | float) and abs(x) < 1 << 31 for x in (left, right))
        if not small or operator == "**":
            raise SecurityError(f"{operator} is for small numbers")
        return super().call_binop(context, operator, left, right)


@functools.lru_cache(maxsize=8)
def _compiled(text: str) -> jinja2.Template:
    """Set up as the reference library does, so that a template means the same here and there."""
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(text)


def _raise(message: object) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _bounded(text: str, values: Mapping[str, Any], room: int) -> str:
    parts: list[str] = []
    try:
        for part in _compiled(text).generate(values):
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise jinja2.TemplateError("too long")
    except Exception as error:  # a template of another's may fail in any way
        detail = str(error)[:200] or type(error).__name__
        raise _broken(f"{FILE} / {CONFIG}", Words(f"実行できません（{detail}）。", f"It cannot be run ({detail}).")) from error
    return "".join(parts)


def _check(messages: Sequence[Message]) -> None:
    """Nothing is left out in silence: what a template cannot show is refused."""
    asked = ENCODING
    if not messages:
        raise InputError(
            asked, found=Words("発言が一つもありません。", "There are no messages."), todo=Words("一つ以上渡してください。", "Give one.")
        )
    wrong = [message.role for message in messages if message.role not in ("system", "user", "assistant", "tool")]
    if wrong:
        raise ConfigError(
            asked,
            found=Words(f"「{wrong[0]}」という役割はありません。", f"There is no role '{wrong[0]}'."),
            todo=Words("system、user、assistant、tool のどれかにしてください。", "Use system, user, assistant or tool."),
        )


# ── tools


@functools.lru_cache(maxsize=16)
def _form(text: str, words: tuple[tuple[str, str], ...], special: frozenset[str]) -> Form | None:
    template = Template(text, dict(words))

    def render(messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[Tool]) -> str:
        return "".join(segment.text for segment in template._cut(messages, add_generation_prompt, (), tools))

    return form_of(render, special)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            ENCODING,
            found=Words(f"ツールを JSON にできません（{error}）。", f"A tool is no JSON ({error})."),
            todo=Words("JSON にできる値だけで書いてください。", "Write it with values that JSON has."),
        ) from error


def _shown(tool: Tool) -> Tool:
    """What a model reads of a tool; whether its arguments are held to their schema is not for it to know."""
    name_of(tool)
    function = tool["function"]
    return {"type": "function", "function": {key: function[key] for key in ("name", "description", "parameters") if key in function}}


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as templates expect them: arguments as a mapping, and with the answer of a tool the tool's name."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    made: list[dict[str, Any]] = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            turn["tool_calls"] = [_call(call) for call in message.tool_calls]
        if message.tool_call_id is not None:
            turn |= {"tool_call_id": message.tool_call_id, "name": names[message.tool_call_id]}
        made.append(turn)
    return made


def _call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = json.loads(call.arguments or "{}", parse_constant=_raise)
        json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError, jinja2.TemplateError):
        arguments = None
    if not isinstance(arguments, dict):
        name = call.name[:80]
        raise ConfigError(
            ENCODING,
            found=Words(f"ツール {name} の引数が JSON のオブジェクトではありません。", f"The arguments of {name} are no JSON object."),
            todo=Words("{…} の形の JSON を渡してください。", "Give a JSON object."),
        )
    if _deeper(arguments, DEEPEST):
        name = call.name[:80]
        raise ConfigError(
            ENCODING,
            found=Words(
                f"ツール {name} の引数が {DEEPEST} 段より深く入れ子です。", f"The arguments of {name} are nested deeper than {DEEPEST}."
            ),
            todo=Words("浅い JSON を渡してください。", "Give a flatter JSON."),
        )
    return {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": arguments}}


def _deeper(value: Any, most: int) -> bool:
    """Whether JSON is nested more than `most` levels deep; level by level, so that depth costs no stack."""
    level = [value]
    for _ in range(most):
        level = [each for one in level for each in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)


def _check_calls(form: Form | None, messages: Sequence[Message]) -> None:
    """Raises ConfigError for calls that the template would lose."""
    found = None
    if form is None:
        found = Words("この書式では、ツールやその呼び出しを表せません。", "This template cannot show tools and their calls.")
    elif form.between is None and any(len(message.tool_calls) > 1 for message in messages):
        found = Words(
            "この書式では、一つの発言にツールの呼び出しを一つしか書けません。", "This template shows one tool call a message at most."
        )
    elif not form.speaks and any(message.tool_calls and message.content.strip() for message in messages):
        found = Words(
            "この書式では、ツールの呼び出しと文章を一つの発言に並べられません。", "This template shows no words beside a tool call."
        )
    if found is not None:
        raise ConfigError(ENCODING, found=found, todo=Words("ツールの呼び出しを除いてください。", "Leave the tool calls out."))


def _in_order(messages: Sequence[Message]) -> list[Message]:
    """The answers of tools in the order of the calls: most templates show no ids, and the order says what answers what.
    Raises ConfigError for an answer without its call."""
    found: list[Message] = []
    open_calls: list[str] = []
    for message in messages:
        if message.role != "tool":
            open_calls = [call.id for call in message.tool_calls]
        elif message.tool_call_id is not None and message.tool_call_id not in open_calls:
            raise ConfigError(
                ENCODING,
                found=Words(
                    f"ツールの答え「{message.tool_call_id[:80]}」に当たる呼び出しが、直前にありません。",
                    f"No call just before is answered by '{message.tool_call_id[:80]}'.",
                ),
                todo=Words("呼び出した発言のすぐ後に、その答えを並べてください。", "Put the answers right after the message that called."),
            )
        found.append(message)
    for start in [at for at, message in enumerate(found) if message.tool_calls]:
        calls = [call.id for call in found[start].tool_calls]
        stop = next((at for at in range(start + 1, len(found)) if found[at].role != "tool"), len(found))
        found[start + 1 : stop] = sorted(found[start + 1 : stop], key=lambda message: _place(calls, message))
    return found


def _place(calls: Sequence[str], message: Message) -> int:
    return calls.index(message.tool_call_id) if message.tool_call_id in calls else len(calls)


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > 4 * MAX_TEMPLATE:
            raise ValueError("too large")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise MissingError(
            Words(f"{file.name} を読もうとしました。", f"Reading {file.name}."),
            found=Words(f"開けません（{error.strerror}）。", f"It cannot be opened ({error.strerror})."),
            todo=Words("パスと権限を確かめてください。", "Check the path and the permissions."),
        ) from error
    except ValueError as error:
        raise _broken(file.name, Words("UTF-8 として読めないか、大きすぎます。", "It is not UTF-8, or too large.")) from error


def _config(file: Path) -> dict[str, Any]:
    """tokenizer_config.json as a mapping; empty where there is none."""
    if not file.is_file():
        return {}
    try:
        value = json.loads(_read(file))
        if not isinstance(value, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise _broken(file.name, Words("{…} の形の JSON ではありません。", "It is not a JSON object.")) from error
    return value


def _token(value: object) -> str:
    """A special token in tokenizer_config.json: a string, or an object with `content`."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _broken(file: str, found: Words) -> FormatError:
    return FormatError(
        Words("モデルの会話の書式を使おうとしました。", "Using the model's chat template."),
        found=found,
        todo=Words(f"{file} を確かめてください。", f"Check {file}."),
    )
