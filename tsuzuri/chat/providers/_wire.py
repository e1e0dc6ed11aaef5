"""What all providers do alike: one POST to one address, its stream in lines, patience before the first byte, errors in bounded words.

In: an address and a key, how a conversation becomes a request and how lines become events. Out: a `Chat`. Only that address is contacted:
no redirects, no proxies of the environment, the key nowhere else and never unencrypted to another machine. A request is sent again only
while nothing of an answer has come, a few times, when the server says so or seems busy; each time a Notice says it. It knows no format.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Protocol

import httpx2

from tsuzuri import __version__
from tsuzuri.chat.providers._connections import Connections, made
from tsuzuri.engine.constraint import Constraint
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, ContextError, RemoteError, TsuzuriError, Words
from tsuzuri.types import Done, Event, Finish, Message, Notice, Options, ToolCall

MAX_LINE = 4 << 20  # bytes of one event
MAX_ANSWER = 64 << 20  # bytes of one answer
MAX_REFUSAL = 1 << 16  # bytes of an error that are read
MAX_TOLD = 500  # characters of what a server says of an error
TRIES = 3
WAIT = 0.5  # seconds before the second try, twice as many before the third
LONGEST_WAIT = 20.0  # seconds that a server may ask for: somebody is waiting for the answer
AGAIN = (408, 409, 429, 500, 502, 503, 504, 529)  # statuses that another try may better
WRONG = (400, 404, 413, 422)  # statuses that say the request is at fault
LARGEST = 1 << 53  # a number of tokens that can be one
SIGNED = "~"  # between the id of a call and what is to come back with it
ASKED = Words("モデルのサーバーに尋ねました。", "Asking the server of the model.")
OTHER_FORM = Words("届いたものの形が違います。", "What came has another form.")
NO_SETTING = Words("このモデルのサーバーには、その設定がありません。", "The server of this model has no such setting.")


class Reading(Protocol):
    """Lines of a stream in, events out. Raises RemoteError for what is no event, and at the end of a stream that had none."""

    def __call__(self, line: str) -> list[Event]: ...
    def end(self) -> list[Event]: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests go. `key`: what is never to be shown, should a server repeat it."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    key: str | None = field(default=None, repr=False)


class RemoteChat:
    """A `Chat`. Within `async with` its connections are kept from one request to the next; outside of it each request has its own."""

    def __init__(
        self, place: Place, request: Callable[[Sequence[Message], Options], Mapping[str, Any]], reading: Callable[[], Reading]
    ) -> None:
        self._place, self._request, self._reading = place, request, reading
        self._connections = Connections()

    async def __aenter__(self) -> RemoteChat:
        await self._connections.hold()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.let_go()

    async def __call__(self, messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
        """Whoever stops listening closes the connection, which ends the work over there."""
        place, body = self._place, self._request(messages, options)
        for tried in range(1, TRIES + 1):
            begun, came = False, self._reading()
            failed: _Failed | httpx2.HTTPError
            try:
                async with (
                    self._connections.client() as client,
                    client.stream("POST", place.url, json=body, headers=_headers(place, options.trace)) as response,
                ):
                    if response.status_code == 200:
                        begun = True
                        async for line in _lines(response):
                            for event in _surely(partial(came, line), place.key):
                                yield event
                        for event in _at_most(options.calls[1], _surely(came.end, place.key)):
                            yield event
                        return
                    failed = _Failed(response.status_code, await _start(response), response.headers)
            except httpx2.HTTPError as error:
                if begun:
                    raise _unreachable(error) from error
                failed = error
            wait = _patience(failed, tried)
            if wait is None:
                if isinstance(failed, _Failed) and failed.filtered:
                    yield Notice(str(told_filtered()))
                    yield Done("content_filter")
                    return
                raise _error(failed, place.key)
            yield Notice(str(_told_again(failed, wait)))
            await asyncio.sleep(wait)


async def got(place: Place) -> dict[str, Any]:
    """The JSON object at an address. Raises ConfigError, RemoteError."""
    try:
        async with made() as client, client.stream("GET", place.url, headers=_headers(place)) as response:
            text = await _start(response)
    except httpx2.HTTPError as error:
        raise _unreachable(error) from error
    if response.status_code != 200:
        raise _error(_Failed(response.status_code, text, response.headers), place.key)
    return as_object(text)


def _headers(place: Place, trace: str | None = None) -> dict[str, str]:
    """Uncompressed: each piece is shown as soon as it comes."""
    along = {"traceparent": trace} if trace else {}
    return {"user-agent": f"tsuzuri/{__version__}", "accept-encoding": "identity", **along, **place.headers}


def checked(address: str, key: str | None) -> str:
    """The address without a slash at its end. Raises ConfigError for what is none, and for a key that would travel in the clear."""
    url = address.rstrip("/")
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        parsed = httpx2.URL("")
    if parsed.userinfo or "@" in address.partition("://")[2].partition("/")[0]:  # it is not shown
        raise ConfigError(
            ASKED,
            found=Words("アドレスに名前かパスワードが入っています。", "The address holds a name or a password."),
            todo=Words(
                "アドレスからは除き、キーは環境変数かファイルに入れてください。", "Leave it out; a key goes into the environment or a file."
            ),
        )
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise ConfigError(
            ASKED,
            found=Words(f"「{address[:80]}」はアドレスではありません。", f"'{address[:80]}' is no address."),
            todo=Words("http://127.0.0.1:8000/v1 のように指定してください。", "Give one like http://127.0.0.1:8000/v1."),
        )
    if key and parsed.scheme == "http" and parsed.host not in ("localhost", "127.0.0.1", "::1"):
        raise ConfigError(
            ASKED,
            found=Words("キーが暗号化されずに、ほかの計算機へ送られます。", "The key would travel to another machine in the clear."),
            todo=Words("https のアドレスを使ってください。", "Use an address with https."),
        )
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            ASKED,
            found=Words("キーに、使えない文字が混じっています。", "The key has characters that no key has."),
            todo=Words("キーを写し直してください。", "Copy the key again."),
        )
    return url


# ── there


def settings(sampling: Sampling, names: Mapping[str, str]) -> dict[str, Any]:
    """The settings that were asked for, by their names over there; the form of the output is the caller's business. Those that were not
    asked for are not sent. Raises ConfigError naming the one that there is no name for."""
    made: dict[str, Any] = {}
    for each in fields(Sampling):
        value = getattr(sampling, each.name)
        if each.name == "constraint" or value == each.default:
            continue
        if each.name == "logprobs":
            raise unsupported("logprobs", Words("よそのモデルのトークンはわかりません。", "The tokens of a model elsewhere are not known."))
        if each.name not in names:
            raise unsupported(each.name)
        made[names[each.name]] = {str(id): number for id, number in value} if each.name == "logit_bias" else value
    return made


def unsupported(name: str, found: Words = NO_SETTING) -> ConfigError:
    return ConfigError(
        Words(f"設定 {name} が指定されました。", f"The setting {name} was given."),
        found=found,
        todo=Words(f"{name} を外してください。", f"Leave {name} out."),
        code="unsupported",
    )


def no_form(constraint: Constraint) -> ConfigError:
    return ConfigError(
        Words(f"出力の形（{constraint.kind}）が指定されました。", f"A form of the output, {constraint.kind}, was given."),
        found=Words("このモデルのサーバーには、その形を頼めません。", "The server of this model cannot be asked for that form."),
        todo=Words("JSON スキーマを使うか、形の指定を外してください。", "Use a JSON schema, or leave the form out."),
        code="unsupported",
    )


def functions(tools: Sequence[Mapping[str, Any]], known: Sequence[str]) -> list[dict[str, Any]]:
    """What stands in `function` of each tool. Raises ConfigError for any other kind, and for a field that there is no place for."""
    found = []
    for place, tool in enumerate(tools):
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, Mapping):
            raise unsupported(f"tools[{place}]")
        for name, value in function.items():
            if name not in known and value not in (None, False):  # strict: false asks for nothing
                raise unsupported(f"tools[{place}].function.{name}")
        found.append({name: value for name, value in function.items() if name in known and value is not None})
    return found


def apart(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """The instructions that come first, and the conversation, for services that take them apart. Raises ConfigError for later ones."""
    first = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    rest = list(messages[first:])
    if any(message.role == "system" for message in rest):
        raise unsupported(
            "messages", Words("このサービスでは、会話の途中に指示（system）を置けません。", "This service takes no system message halfway.")
        )
    return "\n\n".join(message.content for message in messages[:first]), rest


def arguments(call: ToolCall) -> dict[str, Any]:
    """Of a call as an object. Raises ConfigError."""
    with suppress(ValueError, RecursionError):
        found = json.loads(call.arguments or "{}")
        if isinstance(found, dict):
            return found
    raise ConfigError(
        Words(f"ツール {call.name} の呼び出しを渡そうとしました。", f"Sending the call of {call.name}."),
        found=Words("引数が JSON のオブジェクトではありません。", "Its arguments are no JSON object."),
        todo=Words("引数を直してください。", "Correct them."),
    )


# ── and back


def bare(message: Message) -> Message:
    """The ids of calls without what another service's model wants back in them (`gemini.py`)."""
    calls = tuple(replace(call, id=call.id.partition(SIGNED)[0]) for call in message.tool_calls)
    return replace(message, tool_calls=calls, tool_call_id=message.tool_call_id and message.tool_call_id.partition(SIGNED)[0])


def called(calls: Sequence[ToolCall], finish: Finish) -> list[Event]:
    """Calls once they are whole. One that the limit of length cut in two is not made, and that is told."""
    found: list[Event] = []
    for call in calls:
        if not all(isinstance(part, str) for part in (call.id, call.name, call.arguments)):
            raise broken(OTHER_FORM)
        whole = ToolCall(call.id, call.name, call.arguments or "{}")
        if finish == "length" and not _is_json(whole.arguments):
            found.append(Notice(str(Words(f"ツール {call.name} の呼び出しが途中で切れました。", f"The call of {call.name} was cut off."))))
        else:
            found.append(whole)
    return found


def count(value: Any) -> int:
    """A number of tokens; nothing is none. Raises RemoteError for what is no number."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST:
        raise broken(Words("トークンの数が、数になっていません。", "Its number of tokens is no number."))
    return value


def as_object(data: str) -> dict[str, Any]:
    """Raises RemoteError."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise broken(Words("JSON ではないものが届きました。", "What came is no JSON."))
    return found


TODO = {  # by the code; of others, LATER
    "denied": Words("キーと、そのキーでできることを確かめてください。", "Check the key, and what it may do."),
    "limited": Words("しばらく待つか、そのキーの上限と予算を確かめてください。", "Wait, or look at the limits and the budget of that key."),
    "unreachable": Words("アドレスと、サーバーが動いていることを確かめてください。", "Check the address, and that the server runs."),
}
LATER = Words("アドレスとキーを確かめ、時間をおいてもう一度試してください。", "Check its address and the key, and try again later.")


def broken(found: Words, code: str = "broken") -> RemoteError:
    return RemoteError(ASKED, found=found, todo=TODO.get(code, LATER), code=code)


def broke_off() -> RemoteError:
    return broken(Words("答えが途中で切れました。", "The answer broke off."))


def gave_up(body: Mapping[str, Any]) -> RemoteError:
    """An error that is told in the stream itself."""
    words = told(body)
    return broken(Words(f"途中で断られました（{words}）。", f"It gave up halfway ({words})."), "failing")


def told(body: Mapping[str, Any], key: str | None = None) -> str:
    """What a server says of its error, on one line; should it repeat the key, that is left out."""
    error = body.get("error")
    text = error.get("message") if isinstance(error, dict) else error
    line = " ".join(str(text or body.get("message") or body.get("detail") or "").split())
    return (line.replace(key, "…") if key else line)[:MAX_TOLD]


def _at_most(most: int | None, events: Sequence[Event]) -> Iterator[Event]:
    """Calls beyond those that were asked for are left out, and that is told: not every service can be asked for few."""
    calls = sum(isinstance(event, ToolCall) for event in events)
    over = 0 if most is None else max(0, calls - most)
    if over:
        yield Notice(str(Words(f"余分なツール呼び出し {over} 件を除きました。", f"Calls beyond those asked for were left out: {over}.")))
    given = 0
    for event in events:
        given += isinstance(event, ToolCall)
        if not (isinstance(event, ToolCall) and most is not None and given > most):
            yield event


def _surely(read: Callable[[], list[Event]], key: str | None) -> list[Event]:
    """What was read. Whatever a server sends, what is wrong with it is its error and never ours."""
    try:
        return read()
    except RemoteError as error:
        raise _without(key, error) from error
    except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError) as error:
        raise broken(OTHER_FORM) from error


def _without(key: str | None, error: RemoteError) -> RemoteError:
    """An error told in the stream, should the server have repeated the key."""
    found = Words(*(words.replace(key, "…") if key else words for words in error.found))
    return RemoteError(error.asked, found=found, todo=error.todo, code=error.code)


async def _lines(response: httpx2.Response) -> AsyncIterator[str]:
    """Lines of the body, cut at line feeds alone: a line end that only Unicode knows is part of a text."""
    held, left = bytearray(), MAX_ANSWER
    async for piece in response.aiter_bytes():
        held += piece
        left -= len(piece)
        *whole, rest = held.split(b"\n")
        held = bytearray(rest)
        if len(held) > MAX_LINE or left < 0:
            raise broken(Words("送られる量が多すぎます。", "It sends too much."))
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    yield held.decode(errors="replace")


async def _start(response: httpx2.Response) -> str:
    """The first bytes of a refusal."""
    found = bytearray()
    async for piece in response.aiter_bytes():
        found += piece
        if len(found) > MAX_REFUSAL:
            break
    return found.decode(errors="replace")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


# ── what goes wrong


@dataclass(frozen=True, slots=True)
class _Failed:
    """An answer that is none."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def body(self) -> dict[str, Any]:
        with suppress(ValueError, RecursionError):
            found = json.loads(self.text)
            if isinstance(found, list) and found:
                found = found[0]  # as Gemini does
            if isinstance(found, dict):
                return found
        return {}

    @property
    def error(self) -> Mapping[str, Any]:
        found = self.body.get("error")
        return found if isinstance(found, dict) else {}

    @property
    def filtered(self) -> bool:
        """What was asked, not what was said, is refused for its content."""
        return self.status == 400 and self.error.get("code") == "content_filter"

    @property
    def spent(self) -> bool:
        return "insufficient_quota" in (self.error.get("code"), self.error.get("type"))


def _patience(failed: _Failed | httpx2.HTTPError, tried: int) -> float | None:
    """Seconds until the next try; None where there is to be none. What the server says of it goes before what its status means."""
    if tried >= TRIES:
        return None
    usual: float = WAIT * 2 ** (tried - 1) * random.uniform(0.75, 1)  # noqa: S311  so that those who were refused together do not return together
    if isinstance(failed, httpx2.HTTPError):
        unsent = isinstance(failed, httpx2.ConnectError | httpx2.ConnectTimeout)
        return usual if unsent or isinstance(failed, httpx2.RemoteProtocolError | httpx2.ReadError | httpx2.WriteError) else None
    says = failed.headers.get("x-should-retry", "").lower()
    if says == "false" or (says != "true" and (failed.status not in AGAIN or failed.spent)):
        return None
    wanted = _wanted(failed)
    if wanted is None:
        return usual
    return wanted if wanted <= LONGEST_WAIT else None


def _wanted(failed: _Failed) -> float | None:
    """How many seconds the server asks for: in thousandths, in seconds, as a date; Gemini in the body."""
    in_body = next((d.get("retryDelay") for d in failed.error.get("details") or [] if isinstance(d, dict) and "retryDelay" in d), None)
    given = failed.headers.get("retry-after")
    readings: list[Callable[[], float]] = [
        lambda: float(failed.headers["retry-after-ms"]) / 1000,
        lambda: float(str(given)),
        lambda: parsedate_to_datetime(str(given)).timestamp() - time.time(),
        lambda: float(str(in_body).removesuffix("s")),
    ]
    for reading in readings:
        with suppress(ValueError, TypeError, KeyError, OverflowError):
            seconds = reading()
            if seconds == seconds:  # not a number is none
                return max(0.0, seconds)
    return None


def _error(failed: _Failed | httpx2.HTTPError, key: str | None) -> TsuzuriError:
    if isinstance(failed, httpx2.HTTPError):
        return _unreachable(failed)
    words, status = told(failed.body, key), failed.status
    if status in WRONG and _too_long(failed, words):
        return ContextError(
            ASKED,
            found=Words(f"会話が長すぎます。{words}", f"The conversation is too long. {words}"),
            todo=Words("会話を短くしてください。", "Make it shorter."),
            code="context",
        )
    if status in WRONG:
        return ConfigError(
            ASKED,
            found=Words(f"{status}：{words}", f"{status}: {words}"),
            todo=Words("モデルの名前と設定を確かめてください。", "Check the name of the model and the settings."),
            code="refused",
        )
    if status == 401:  # some servers repeat a part of the key
        return broken(Words("キーが受け付けられません（401）。", "It does not take the key (401)."), "denied")
    code = {403: "denied", 429: "limited"}.get(status, "failing")
    return broken(Words(f"{status} が返りました。{words}", f"It answered {status}. {words}"), code)


def _too_long(failed: _Failed, words: str) -> bool:
    """OpenAI has a code for it, the others a sentence."""
    sentences = ("prompt is too long", "exceeds the maximum number of tokens")
    return failed.error.get("code") == "context_length_exceeded" or any(sentence in words for sentence in sentences)


def _unreachable(error: httpx2.HTTPError) -> RemoteError:
    kind = type(error).__name__
    code = "timeout" if isinstance(error, httpx2.TimeoutException) else "unreachable"
    return broken(Words(f"接続できないか、途中で切れました（{kind}）。", f"It cannot be reached, or broke off ({kind})."), code)


def _told_again(failed: _Failed | httpx2.HTTPError, wait: float) -> Words:
    why = str(failed.status) if isinstance(failed, _Failed) else type(failed).__name__
    return Words(
        f"モデルのサーバーが答えられないため（{why}）、{wait:.1f} 秒待ってやり直します。",
        f"The server of the model cannot answer ({why}); trying again in {wait:.1f} s.",
    )


def told_filtered() -> Words:
    return Words("モデルのサーバーが、内容を理由に断りました。", "The server of the model refused this for its content.")
