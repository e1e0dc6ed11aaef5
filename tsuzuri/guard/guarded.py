"""A Chat that masks what goes in, and lets no secret and nothing refused come out: `guarded(chat, checks) -> Chat`.

In: messages. On the way in, personal data become tokens, in every message, tool and form of an answer alike; what a person or a tool says is looked at for injection
and for refused content. On the way out, secrets are hidden, refused content ends the answer, and tokens become what they stand for, in
text, thoughts, sources and the arguments of tools. A Notice says what was done; a refusal is Done("content_filter"). The vault lives for one call:
the history comes whole each time, so the same words get the same tokens. It is no boundary for tools: see `score.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar

from tsuzuri.engine.constraint import Constraint
from tsuzuri.errors import ConfigError, Words
from tsuzuri.folder import suggestion
from tsuzuri.guard.checks.content import CATEGORIES
from tsuzuri.guard.finding import Finding, label, personal
from tsuzuri.guard.mask import LITERAL, Unmasking, Vault, tokens
from tsuzuri.guard.reader import SHORT, Reader
from tsuzuri.guard.readings import FINDINGS, REFUSED, SCORE, Read, refused
from tsuzuri.guard.score import Score, load
from tsuzuri.guard.secrets import Secrets, Watch
from tsuzuri.types import Chat, Done, Event, Message, Notice, Options, Source, Text, Thought, ToolCall

READ = ("description", "title", "enum", "const", "default", "examples")  # keywords of a schema in which people write
SENTENCE = 400  # characters of an answer that are held back for its content at most
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Checks:
    """What a guarded chat does. `mask`: kinds of personal data that the model does not see. `secrets`: what must not come out.
    `refuse`: categories of content that end a question or an answer. `injection`: whether a suspicion is told, or refused."""

    mask: tuple[str, ...] = field(default_factory=personal)
    secrets: Secrets | None = None
    refuse: tuple[str, ...] = ()
    injection: Literal["ignore", "tell", "refuse"] = "tell"

    def __post_init__(self) -> None:
        """Raises ConfigError for what there is not."""
        for asked, known in ((self.mask, [*personal()]), (self.refuse, [*CATEGORIES]), ((self.injection,), ["ignore", "tell", "refuse"])):
            for name in asked:
                if name not in known:
                    raise _unknown(name, known)


def guarded(chat: Chat, checks: Checks, reader: Reader | None = None) -> Chat:
    """The same chat behind the checks. `reader`: where long messages are read; in this process, where none is given."""
    read = reader or Reader()

    async def answer(messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
        vault = Vault()
        looked = await read(size(messages, options), partial(_looked, messages, options, checks, vault))
        for event in looked.told:
            yield event
        if looked.sent is None:
            return
        async for event in _Out(checks, vault)(chat(*looked.sent)):
            yield event

    return answer


@dataclass(frozen=True, slots=True)
class _Looked:
    """What became of the messages: what is told, and what the model is sent; None: nothing."""

    told: tuple[Event, ...]
    sent: tuple[Sequence[Message], Options] | None


def _looked(messages: Sequence[Message], options: Options, checks: Checks, vault: Vault, read: Read) -> _Looked:
    told: list[Event] = []
    new = [message.content for message in _new(messages)]
    suspected = None if checks.injection == "ignore" else _suspected(new, read)
    if suspected:
        told.append(Notice(str(_told_injection(suspected, refused=checks.injection == "refuse"))))
        if checks.injection == "refuse":
            return _Looked((*told, Done("content_filter", {"guard": "injection", "score": round(suspected.value, 3)})), None)
    category = next(filter(None, read(REFUSED, new, checks.refuse)), None) if checks.refuse else None
    if category:
        told.append(Notice(str(_told_content(category, answered=False))))
        return _Looked((*told, Done("content_filter", {"guard": "content", "category": category})), None)
    sent, found = masked_messages(messages, checks.mask, vault, read)
    among, more = masked_options(options, checks.mask, vault, read)
    if found or more:
        told.append(Notice(str(told_masked([*found, *more]))))
    return _Looked(tuple(told), (sent, among))


class _Out:
    """One answer on its way out."""

    def __init__(self, checks: Checks, vault: Vault) -> None:
        self._checks, self._vault = checks, vault
        self._text, self._thought = _Way(checks, vault), _Way(checks, vault)

    async def __call__(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        done: Done | None = None
        try:
            async for event in events:
                if isinstance(event, Done):
                    done = event
                    break
                for out in self._passed(event):
                    yield out
                    if isinstance(out, Done):
                        return
            for out in [*self._thought.end(Thought), *self._text.end(Text)]:
                yield out
                if isinstance(out, Done):
                    return
            hidden = self._text.hidden + self._thought.hidden
            if hidden:
                yield Notice(str(_told_hidden(hidden)))
            if done:
                yield done
        finally:
            close = getattr(events, "aclose", None)
            if close:
                await close()

    def _passed(self, event: Event) -> list[Event]:
        same = self._checks.secrets is None  # a token may be a part of a secret that is held back
        match event:
            case Text():
                said = self._text(event.text, lambda text: event if same and text == event.text else Text(text))
                return said if event.text else [event if same else Text("")]  # that something was written is counted
            case Thought():
                return self._thought(event.text, Thought)
            case ToolCall():
                return self._called(event)
            case Source():
                return [Source(*(self._vault.unmask(self._hide(part)) for part in (event.title, event.quote, event.address)))]
            case Notice():
                return [Notice(self._vault.unmask(self._hide(event.text)))]
        return [event]

    def _hide(self, text: str) -> str:
        return self._checks.secrets.hide(text)[0] if self._checks.secrets else text

    def _called(self, call: ToolCall) -> list[Event]:
        """A call that carries a secret is not made at all: half a call may do harm."""
        if any(self._hide(part) != part for part in (call.id, call.name, call.arguments)):
            told = Words(
                f"ツール {self._hide(call.name)} の引数に登録された秘密が含まれていたため、呼び出しを止めました。",
                f"The arguments of {self._hide(call.name)} held a registered secret; the call was stopped.",
            )
            return [Notice(str(told)), Done("content_filter", {"guard": "secrets"})]
        category = refused(call.arguments, self._checks.refuse)
        if category:
            return _ended(category)
        return [replace(call, arguments=self._vault.unmask(call.arguments, _inside_json))]


class _Way:
    """Text on its way out: secrets hidden, whole sentences looked at where content may be refused, tokens given back."""

    def __init__(self, checks: Checks, vault: Vault) -> None:
        self.hidden = 0
        self._watch: Watch | None = checks.secrets.watch() if checks.secrets else None
        self._refuse = checks.refuse
        self._unmasking = Unmasking(vault)
        self._before, self._held = "", ""

    def __call__(self, piece: str, made: Callable[[str], Event]) -> list[Event]:
        return self._given(self._watch(piece) if self._watch else piece, made, last=False)

    def end(self, made: Callable[[str], Event]) -> list[Event]:
        """The answer is over."""
        given = self._given(self._watch.flush() if self._watch else "", made, last=True)
        self.hidden = len(self._watch.leaks) if self._watch else 0
        return given

    def _given(self, text: str, made: Callable[[str], Event], *, last: bool) -> list[Event]:
        if self._refuse:
            text = self._sentences(text, last=last)
            category = refused(self._before + text, self._refuse)
            if category:
                return _ended(category)
            self._before = (self._before + text)[-SENTENCE:]
        text = self._unmasking(text) + (self._unmasking.flush() if last else "")
        return [made(text)] if text else []

    def _sentences(self, text: str, *, last: bool) -> str:
        """What is whole sentences by now; a very long one in parts."""
        self._held += text
        end = max(self._held.rfind(mark) for mark in "。！？!?\n") + 1
        end = len(self._held) if last or (not end and len(self._held) >= SENTENCE) else end
        given, self._held = self._held[:end], self._held[end:]
        return given


def _new(messages: Sequence[Message]) -> list[Message]:
    """What people and tools have said since the last answer."""
    last = max((at for at, message in enumerate(messages) if message.role == "assistant" and not message.tool_calls), default=-1)
    return [message for message in messages[last + 1 :] if message.role in ("user", "tool")]


def _suspected(texts: Sequence[str], read: Read) -> Score | None:
    return max((one for one in read(SCORE, texts) if one.value >= load().threshold), key=lambda one: one.value, default=None)


def _ended(category: str) -> list[Event]:
    """Of an answer that comes to refused content."""
    return [Notice(str(_told_content(category, answered=True))), Done("content_filter", {"guard": "content", "category": category})]


def size(messages: Sequence[Message], options: Options) -> int:
    """Characters of what is read of them; what stands in tools and forms is not counted, but taken for more than short."""
    said = sum(1 + len(message.content) + sum(len(call.arguments) for call in message.tool_calls) for message in messages)
    return said + sum(map(len, options.stop)) + (SHORT if options.tools or options.sampling.constraint else 0)


def masked_messages(messages: Sequence[Message], kinds: Sequence[str], vault: Vault, read: Read) -> tuple[list[Message], list[Finding]]:
    """Every message with tokens. What was found, once for each place."""

    def changed(masked: Callable[[str], str]) -> list[Message]:
        sent = []
        for message in messages:
            calls = tuple(replace(call, arguments=_in_json(call.arguments, masked)) for call in message.tool_calls)
            sent.append(replace(message, content=masked(message.content), tool_calls=calls))
        return sent

    return _masked(changed, kinds, vault, read)


def masked_options(options: Options, kinds: Sequence[str], vault: Vault, read: Read) -> tuple[Options, list[Finding]]:
    """What a model reads of tools and of the form of an answer, and where it is to stop, with tokens; and what was found. Names, types and
    patterns stay: what is written in a form comes back with the answer, unmasked like that."""

    def changed(masked: Callable[[str], str]) -> Options:
        tools = tuple(_shown(tool, masked) for tool in options.tools)
        form = options.sampling.constraint
        if form is not None and form.kind in ("json_schema", "choice"):
            shown = _shown(json.loads(form.text), masked, form.kind == "choice")
            form = Constraint.checked(form.kind, json.dumps(shown, ensure_ascii=False))
        stop = tuple(masked(text) for text in options.stop)
        return replace(options, tools=tools, stop=stop, sampling=replace(options.sampling, constraint=form))

    masked, found = _masked(changed, kinds, vault, read)
    return masked if found else options, found


def _masked(changed: Callable[[Callable[[str], str]], T], kinds: Sequence[str], vault: Vault, read: Read) -> tuple[T, list[Finding]]:
    """`changed` gives something with each of its texts changed, always in the same order: once to learn which they are, once to change them."""
    texts: list[str] = []
    changed(lambda text: texts.append(text) or text)  # type: ignore[func-returns-value]
    every = [*read(FINDINGS, texts, kinds)]
    found = iter(every)
    return changed(lambda text: tokens(text, next(found), vault)), [one for those in every for one in those]


def _shown(value: Any, change: Callable[[str], str], read: bool = False) -> Any:
    """A JSON Schema, or a tool around it, whose words (`READ`, and all within) are changed."""
    match value:
        case str():
            return change(value) if read else value
        case list():
            return [_shown(one, change, read) for one in value]
        case Mapping():
            return {key: _shown(one, change, read or (key in READ and not isinstance(one, Mapping))) for key, one in value.items()}
    return value


def _in_json(arguments: str, change: Callable[[str], str]) -> str:
    """The strings of a JSON text changed; of what is no JSON, the text itself."""

    def walk(value: Any) -> Any:
        match value:
            case str():
                return change(value)
            case list():
                return [walk(one) for one in value]
            case dict():
                return {change(key): walk(one) for key, one in value.items()}
        return value

    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return change(arguments)
    return json.dumps(walk(value), ensure_ascii=False)


def _inside_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def told_masked(found: Sequence[Finding]) -> Words:
    counts = Counter(one.kind.partition(".")[0] for one in found if one.kind != LITERAL)
    ja = "、".join(f"{label(kind).ja} {count} か所" for kind, count in sorted(counts.items()))
    en = ", ".join(f"{label(kind).en} {count}×" for kind, count in sorted(counts.items()))
    if not counts:
        return Words("記号と紛らわしい文字列を置き換えました。", "What looked like a token was replaced.")
    return Words(f"モデルに渡す前に伏せました：{ja}。", f"Masked before the model reads it: {en}.")


def _told_hidden(count: int) -> Words:
    return Words(f"登録された秘密が答えに {count} か所あり、伏せました。", f"Registered secrets in the answer were hidden: {count}.")


def _told_content(category: str, *, answered: bool) -> Words:
    called = CATEGORIES[category]
    if category == "self_harm" and not answered:
        return Words(
            "つらい気持ちの中で書いてくださったのかもしれません。ここではお答えできません。一人で抱えず、身近な人や公的な相談窓口、医療機関に話してください。",
            "You may be in pain. This cannot be answered here; please talk to someone close to you, a helpline or a doctor.",
        )
    if answered:
        return Words(
            f"答えに「{called.ja}」に当たる内容が見つかったため、途中で止めました。", f"The answer was stopped: it held {called.en}."
        )
    return Words(f"「{called.ja}」に当たる内容のため、お答えしません。", f"This is not answered: it asks for {called.en}.")


def _told_injection(one: Score, *, refused: bool) -> Words:
    why = "、".join(one.reasons()[:2])
    if refused:
        return Words(
            f"モデルへの不正な指示の疑いがあるため、お答えしません（{why}）。", f"Not answered: this looks like an injection ({why})."
        )
    return Words(
        f"モデルへの不正な指示に似た文があります。答えをそのまま信じないでください（{why}）。",
        f"Some of this looks like an injection; do not trust the answer as it is ({why}).",
    )


def _unknown(name: str, known: list[str]) -> ConfigError:
    return ConfigError(
        Words(f"検査に「{name}」を指定しようとしました。", f"Asked the guard for '{name}'."),
        found=Words(f"あるのは {'、'.join(known)} です。", f"There is {', '.join(known)}."),
        todo=suggestion(name, known),
    )
