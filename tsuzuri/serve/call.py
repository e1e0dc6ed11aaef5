"""One request on its way through the service: who asks, for what, and what it used.

In: a route's question to a model. Out: its events, guarded, metered and checked against what the model can do. Every answer of every
model leaves through `Call.conversation`, `Call.continuations` or `Call.vectors`, whatever the format. It writes no JSON.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, ContextError, InputError, TsuzuriError, Words
from tsuzuri.serve import routing
from tsuzuri.serve.books import Account, yen
from tsuzuri.serve.energy import Share
from tsuzuri.serve.models import Embedded, Prepared, Served, Tokens, unknown
from tsuzuri.serve.refusal import Refusal, openai_shape, refused
from tsuzuri.serve.running import Meter, closing, collected, side_by_side
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.watch.steps import Span
from tsuzuri.serve.watch.watching import Noted
from tsuzuri.serve.wire.asked import Asked, Head, dumps, for_choice
from tsuzuri.store.keys import Refused
from tsuzuri.store.users import Who
from tsuzuri.types import Chat, Event, Message, Options

if TYPE_CHECKING:
    from tsuzuri.serve.app import Service

DONE = b"data: [DONE]\n\n"
MOST = "x-tsuzuri-most-yen"  # header: what is set aside for an answer, so what it costs at most
INPUT = "x-tsuzuri-input-yen"  # header: what it costs to read what was counted


class Call:
    def __init__(self, service: Service, request: Request) -> None:
        self.service, self.request = service, request
        self.id = f"req_{secrets.token_hex(12)}"
        self.sent: Who | Refused | None = None  # what came of the key or session that was sent, for the audit
        self.who: Who | None = None
        self.body: Mapping[str, Any] = {}
        self.model: Served | None = None
        self.marks: Mapping[str, str] = {}
        self.meter = Meter()
        self.steps = service.watching.steps(request.headers.getlist("traceparent"))
        self.noted: Noted | None = None  # of a conversation, where it is compared with others
        self.tell: Callable[[Mapping[str, str]], bool] = lambda _: False  # more headers; False when they have been sent

    @property
    def headers(self) -> Mapping[str, str]:
        return self.request.headers

    @property
    def address(self) -> str | None:
        """Of whoever holds the connection; what a header says of it is believed of a trusted proxy alone."""
        return self.service.proxies.address(self._peer, self.request.headers)

    @property
    def _peer(self) -> str | None:
        return self.request.client.host if self.request.client else None

    @property
    def secure(self) -> bool:
        """Whether the client's connection is encrypted."""
        return self.service.proxies.secure(self._peer, self.request.scope["scheme"], self.request.headers)

    @property
    def tenant(self) -> str:
        """Who shares what was computed: the keys of one person, or a key that is nobody's."""
        assert self.who is not None
        return f"user {self.who.user_id}" if self.who.user_id else f"key {self.who.id}"

    def used(self) -> int:
        """Tokens that were read and written, once it is over."""
        self.meter.close()
        return self.meter.prompt_tokens + self.meter.completion_tokens

    def served(self, name: str) -> Served:
        """The model, if it is there and the key may use it; otherwise the same Refusal for both."""
        found = self.service.pool.get(name)
        if self.who is None or (self.who.models is not None and found.name not in self.who.models):
            raise unknown(name)
        self.model = found
        return found

    def allowed(self) -> list[Served]:
        """The models that the key may use."""
        assert self.who is not None
        only = self.who.models
        return [model for model in self.service.pool.all() if only is None or model.name in only]

    def head(self, kind: str, model: Served) -> Head:
        return Head(f"{kind}{secrets.token_hex(12)}", self.service.now(), model.name, model.tokens.spell if model.tokens else None)

    async def conversation(self, model: Served, asked: Asked) -> AsyncIterator[tuple[int, Event]]:
        """The events of each choice. Raises Refusal for what the model cannot do."""
        self.marks, self.noted = asked.marks, self.service.watching.noted()
        if self.noted is not None:
            self.noted.messages(asked.messages)
        with self.steps("route"):
            tried = await routing.models(self, model, asked)  # the model itself, or those of its route
        with self.steps("count"):
            prompts = {one.name: await self._length(model, one, asked) for one in tried}
        events = routing.answered(self, model, tried, lambda one: self._asking(one, asked, prompts[one.name]))
        async with self._reserved(tried, asked, prompts) as account, closing(events):
            async for found in events:
                self._passing(found[1])
                if account is not None:
                    await account.before()
                yield found

    def _passing(self, event: Event) -> None:
        self.steps.passing(event)
        if self.noted is not None:
            self.noted.passing(event)

    def _asking(self, model: Served, asked: Asked, prompt: int) -> AsyncIterator[tuple[int, Event]]:
        """One model, behind the guard. Raises Refusal for what it cannot do."""
        able(model, asked)
        chat, streams = model.chat_of(self.tenant), list[AsyncIterator[Event]]()
        for index in range(asked.choices):
            self.meter.begin(index, prompt, again=index > 0)
            guarded = self.service.guard.chat(self.steps.timed(chat, model.name))
            streams.append(guarded(asked.messages, for_choice(asked.options, index)))
        return self._drawing(model, side_by_side(streams, self.meter))

    async def _drawing(self, model: Served, events: AsyncIterator[tuple[int, Event]]) -> AsyncIterator[tuple[int, Event]]:
        """The same, and what it draws is known at its end where the model is ours."""
        with self._drawn(model):
            async with closing(events):
                async for found in events:
                    yield found

    @contextmanager
    def _drawn(self, model: Served) -> Iterator[None]:
        if model.mine is None:
            yield
            return
        share = Share(None)
        try:
            with self.service.energy.share() as share:
                yield
        finally:
            self.meter.draw(share.drawn)

    def price(self, model: Served) -> dict[str, str] | None:
        """What it costs; of a route, what each of its models does is asked of these."""
        return None if model.route is not None else self.service.books.price(model)

    async def reads(self, model: Served, asked: Asked) -> int:
        """Tokens of a conversation; 0 where they are not known, and for what the model cannot read, which it says in its turn. Raises
        ContextError, soon, where they are far too many."""
        if model.tokens is None:
            return 0
        try:
            able(model, asked)
        except Refusal:
            return 0
        await model.tokens.fits(asked.messages)
        return await model.tokens.length(asked.messages, asked.options.tools)

    async def counted(self, model: Served, asked: Asked) -> int:
        """Tokens of a conversation as the model would read it: masked. Raises Refusal for what it cannot do, and ContextError for what
        never fits, before megabytes of it are masked and cut."""
        able(model, asked)
        tokens = model.ours(Words("トークンの数", "a number of tokens"))
        await tokens.fits(asked.messages)
        messages, options = await self.service.guard.read(asked.messages, asked.options)
        count = await tokens.length(messages, options.tools)
        cost = self.service.books.reading(model, count)
        if cost is not None:
            self.tell({INPUT: cost})
        return count

    async def _length(self, model: Served, one: Served, asked: Asked) -> int:
        """What `one` of a route reads: another one may have the room that it lacks."""
        try:
            return await self.reads(one, asked)
        except ContextError:
            if model.route is None:
                raise
            return 0

    async def continuations(self, model: Served, asked: Asked) -> AsyncIterator[tuple[int, Event]]:
        """The same of texts to be continued: n choices of the first prompt, n of the second …"""
        tokens = model.ours(Words("文章の続き", "the continuation of a text"))
        self.marks, self.noted = asked.marks, self.service.watching.noted()
        if self.noted is not None:
            self.noted.messages([Message("user", each) for each in asked.prompts if isinstance(each, str)])
        streams: list[AsyncIterator[Event]] = []
        reading = 0
        for prompt in asked.prompts:
            if isinstance(prompt, str):
                await tokens.fits(prompt)
            count = await tokens.length(prompt) if isinstance(prompt, str) else len(prompt)
            reading += count
            for index in range(asked.choices):
                self.meter.begin(len(streams), count, again=index > 0)
                text = prompt if isinstance(prompt, str) else await tokens.decode(prompt)
                chat = self.service.guard.chat(self.steps.timed(_continued(tokens, prompt, text, self.tenant), model.name))
                streams.append(chat([Message("user", text)], for_choice(asked.options, index)))
        events = self._drawing(model, side_by_side(streams, self.meter))
        self.tell({routing.MODEL: model.name})
        async with self._reserved([model], asked, {model.name: reading}) as account, closing(events):
            async for found in events:
                self._passing(found[1])
                if account is not None:
                    await account.before()
                yield found

    async def vectors(
        self, model: Served, inputs: Sequence[tuple[str, str | Sequence[int]]], marks: Mapping[str, str]
    ) -> AsyncIterator[Embedded]:
        """A vector for each text or row of ids, given with the place in the request that a refusal names; in their order, once all are there.
        The model reads several at once: a client that goes away ends it between two calls."""
        reader = model.reads(Words("ベクトル", "vectors"))
        self.marks = marks
        read: list[Prepared] = []
        told: list[list[str]] = []
        for place, each in inputs:
            with self.steps("guard"), _at(place, ConfigError):
                if isinstance(each, str) and model.tokens is not None:
                    await model.tokens.fits(each)
                text, notices = await self.service.guard.text(each if isinstance(each, str) else await reader.decode(each))
                # ids stay ids unless something is masked
                read.append(await reader.prepare(text if notices or isinstance(each, str) else each))
            told.append(notices)
        asked = Asked(model.name, Options(Sampling(max_tokens=1)), prompts=tuple("" for _ in read), marks=marks)
        found: dict[int, Embedded] = {}
        async with self._reserved([model], asked, {model.name: sum(each.tokens for each in read)}) as account:
            vectors = reader.embed(read)
            with self.steps("model"), self._drawn(model):
                async with closing(vectors):
                    async for number, one in vectors:
                        found[number] = one
                        self.meter.prompt_tokens += one.tokens
            if account is not None:
                await account.before()
            for number, notices in enumerate(told):
                yield Embedded(found[number].vector, found[number].tokens, (*notices, *found[number].told))

    @asynccontextmanager
    async def _reserved(self, models: Sequence[Served], asked: Asked, prompts: Mapping[str, int]) -> AsyncIterator[Account | None]:
        """What the dearest of them may cost; settled by the one that answers."""
        assert self.who is not None
        books, stopping, answering = self.service.books, self.service.stopping.is_set, lambda: self.model or models[0]
        reserving = self.steps.begin("reserve")
        settling: Span | None = None
        try:
            async with books.reserved(self.who, self.id, models, asked, self.meter, prompts, answering, stopping) as account:
                self.steps.end(reserving)
                if account is not None:
                    self.tell({MOST: yen(account.most)})
                try:
                    yield account
                finally:
                    settling = self.steps.begin("settle")
        finally:
            if settling is not None:
                self.steps.end(settling)


@contextmanager
def _at(place: str, *more: type[TsuzuriError]) -> Iterator[None]:
    """What a model says of a text is said of the field that it stood in; `more` kinds of errors that mean the text."""
    kinds: tuple[type[TsuzuriError], ...] = (ContextError, InputError, *more)
    try:
        yield
    except kinds as error:
        found = refused(error)
        raise Refusal(found.status, found.words, param=place, code=found.code or "invalid_value") from error


def _continued(tokens: Tokens, prompt: str | Sequence[int], said: str, tenant: str) -> Chat:
    """A text that is continued, as a Chat of one message: so it passes the same guard. Ids stay ids unless the guard changed the text."""

    async def chat(messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
        text = messages[0].content
        events = tokens.complete(prompt if text == said else text, options, tenant)
        async with closing(events):
            async for event in events:
                yield event

    return chat


def able(model: Served, asked: Asked) -> None:
    """Nothing is left out in silence: what this model cannot do is refused by name."""
    if asked.options.sampling.logprobs is not None and model.tokens is None:
        words = Words(f"モデル {model.name} は対数確率を出せません。", f"The model {model.name} gives no log-probabilities.")
        raise Refusal(400, words, param="logprobs", code="unsupported_parameter")
    if asked.options.sampling.constraint is not None and not (model.tokens or model.forms):
        words = Words(f"モデル {model.name} に答えの形は決められません。", f"The form of what {model.name} says cannot be held.")
        raise Refusal(400, words, param="response_format", code="unsupported_parameter")
    if asked.options.tools and not model.tools:
        words = Words(f"モデル {model.name} はツールを使えません。", f"The model {model.name} cannot use tools.")
        raise Refusal(400, words, param="tools", code="unsupported_parameter")
    place = next((i for i, message in enumerate(asked.messages) if message.tool_calls or message.role == "tool"), None)
    if place is not None and not model.tools:
        words = Words(f"モデル {model.name} はツールの呼び出しを読めません。", f"The model {model.name} cannot read tool calls.")
        raise Refusal(400, words, param=f"messages[{place}]", code="unsupported_content")


# ── the two shapes of an answer

Maker = Callable[[int, Event], Sequence[Mapping[str, Any]]]


async def whole(events: AsyncIterator[tuple[int, Event]], count: int, made: Callable[[list[list[Event]]], Mapping[str, Any]]) -> Answer:
    async with closing(events):
        return Answer(made(await collected(events, count)))


def streamed(
    events: AsyncIterator[tuple[int, Event]],
    each: Maker,
    end: Callable[[], Sequence[Mapping[str, Any]]],
    frame: Callable[[Mapping[str, Any]], bytes],
    last: bytes = b"",
    failed: Callable[[Refusal, str], bytes] | None = None,
    before_end: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None,
) -> Answer:
    """Each event becomes frames as soon as it comes. `before_end`: what has to be done with the last chunk before a client sees it."""

    async def frames() -> AsyncIterator[bytes]:
        async with closing(events):
            async for index, event in events:
                for chunk in each(index, event):
                    yield frame(chunk)
        ending = end()
        for chunk in ending:
            if before_end is not None and chunk is ending[-1]:
                await before_end(chunk)
            yield frame(chunk)
        if last:
            yield last

    return Answer(frames=frames(), failed=failed)


def line_by_line(
    events: AsyncIterator[tuple[int, Event]],
    each: Maker,
    end: Callable[[], Sequence[Mapping[str, Any]]],
    shape: Callable[[Refusal, str], Mapping[str, Any]],
) -> Answer:
    """`streamed`, as lines of JSON: Ollama's way. No other line may stand among them, so silence is not broken."""
    made = streamed(events, each, end, _line, failed=lambda refusal, request_id: _line(shape(refusal, request_id)))
    return replace(made, headers={"content-type": "application/x-ndjson"}, ping=b"")


def _line(chunk: Mapping[str, Any]) -> bytes:
    return f"{dumps(chunk)}\n".encode()


def data_frame(chunk: Mapping[str, Any]) -> bytes:
    """OpenAI's: nameless."""
    return f"data: {dumps(chunk)}\n\n".encode()


def named_frame(chunk: Mapping[str, Any]) -> bytes:
    """Anthropic's and those of OpenAI's responses: named by their type."""
    return f"event: {chunk['type']}\ndata: {dumps(chunk)}\n\n".encode()


def openai_failed(refusal: Refusal, request_id: str) -> bytes:
    """The error is the last frame but one: a client that knows no errors finds the end all the same."""
    return data_frame(openai_shape(refusal, request_id)) + DONE
