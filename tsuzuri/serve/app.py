"""The service on one screen: the routes, and the one pipeline that nothing goes around.

In: a pool of models, a way to judge keys. Out: an ASGI application. Every file in `routes/` is one way in and says who may use it;
one that does not say so is refused when the service is built. A request is matched to its route first (404 before its body is read),
and what is allowed is decided by that route, never by a path or a header. It knows no format.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from tsuzuri.errors import Words
from tsuzuri.folder import find, names
from tsuzuri.serve import bounds
from tsuzuri.serve.access import OPEN, WORDS, Access, Policy
from tsuzuri.serve.books import Books
from tsuzuri.serve.call import Call
from tsuzuri.serve.energy import Energy
from tsuzuri.serve.keeping import Keeping
from tsuzuri.serve.metrics import Metrics
from tsuzuri.serve.models import Pool
from tsuzuri.serve.refusal import Refusal, openai_shape, refused, where
from tsuzuri.serve.running import Gone, Late, Stopping, while_wanted
from tsuzuri.serve.sending import Answer, Sender
from tsuzuri.serve.signing import Signing
from tsuzuri.serve.terms import Terms
from tsuzuri.serve.turns import Shared
from tsuzuri.serve.watch.watching import Watching
from tsuzuri.store.database import Database
from tsuzuri.store.keys import Key, Refused

ROUTES = "tsuzuri.serve.routes"
WITHOUT_KEY = ("first_administrator", "health", "session_begin")  # the only routes that may be OPEN
WITH_BODY = ("PATCH", "POST", "PUT")
HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")
MAX_HEAD = 64 << 10  # bytes of all headers
LOG = logging.getLogger("tsuzuri.serve")
USUAL = Terms()


@dataclass(frozen=True, slots=True)
class Door:
    """One route of the table."""

    name: str
    method: str
    routes: tuple[Route, ...]
    policy: Policy
    answer: Callable[[Call], Awaitable[Answer]]
    shape: Callable[[Refusal, str], Mapping[str, Any]]


class Service:
    """The ASGI application. What comes in and what goes out passes `guard`."""

    def __init__(self, pool: Pool, db: Database, terms: Terms = USUAL) -> None:
        """Raises MissingError, ConfigError and FormatError for a `watch` that cannot be followed."""
        self.pool, self.terms, self.guard, self.proxies = pool, terms, terms.guard, terms.proxies
        self.db, self.access = db, Access(db, terms.at_once, Shared(db) if terms.shared_limits else None)
        self.energy = Energy(terms.watts)
        self.books, self.metrics = Books(db, terms.cost), Metrics()
        self.watching = Watching(terms.watch, db, self.metrics.registry, lambda: self.books.broken)
        self.signing, self.keeping = Signing(db), Keeping(db, terms.keep)
        self.doors = doors([find(ROUTES, name) for name in names(ROUTES)])
        self.draining = False
        self.stopping = asyncio.Event()
        self._hosts = frozenset(host.lower() for host in terms.hosts)

    async def pipeline(self, door: Door, call: Call, receive: Receive, out: Sender) -> None:
        """authenticate → authorise on the matched route → a turn → bounds → (route → reserve → guard in → model → guard out → settle) → audit

        What stands in brackets is `Call.conversation` and `Call.continuations`, which every answer of every model goes through; the
        audit is in `_http`, which no request leaves otherwise.
        """
        if door.policy == OPEN:
            call.body = await self._body(door, call)
            await out.answer(await door.answer(call))
            return
        with call.steps("authenticate"):
            call.sent = await self.access.authenticate(call.headers, call.address, door.method, call.secure)
            call.who = self.access.authorise(call.sent, door.policy)
        waiting = call.steps.begin("turn")
        async with self.access.turn(call.who, call.used) as left:
            call.steps.end(waiting)
            out.headers |= left
            if self.draining:
                raise stopping()
            with call.steps("body"):
                await self.books.ready()
                call.body = await self._body(door, call)
            await while_wanted(self._answer(door, call, out), receive, self.stopping, self.terms.deadline)

    async def _body(self, door: Door, call: Call) -> Mapping[str, Any]:
        return await bounds.body(call.request.stream(), call.headers) if door.method in WITH_BODY else {}

    async def _answer(self, door: Door, call: Call, out: Sender) -> None:
        await out.answer(await door.answer(call))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await self._lifespan(receive, send)
            case _:
                await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request to its end, whatever happens: the funnel through which every error leaves."""
        call = Call(self, Request(scope, receive))
        out, door, begun = Sender(send, call.id), None, asyncio.get_running_loop().time()
        call.tell = out.tell
        out.heard = bytearray() if self.terms.keep_content else None
        try:
            self._check_head(call.request)
            door = self._door(scope)
            await self.pipeline(door, call, receive, out)
        except (Gone, ClientDisconnect):
            pass
        except Exception as error:
            found = ENDED[type(error)]() if type(error) in ENDED else refused(error)
            if found.status == 500:
                LOG.error("%s: %s", call.id, where(error))
            with suppress(Gone, OSError):
                await out.refuse(found, door.shape if door else openai_shape)
        finally:
            self._count(door, call, out, begun)
            self._record(door, call, out, begun)

    def _door(self, scope: Scope) -> Door:
        """The route of the table that matches. Raises Refusal with 404 or 405."""
        allowed = set()
        for door in self.doors:
            for route in door.routes:
                found, more = route.matches(scope)
                if found is not Match.NONE and scope["method"] == door.method:
                    scope.update(more)
                    return door
                if found is not Match.NONE:
                    allowed.add(door.method)
        if allowed:
            words = Words(f"ここで使えるのは {'、'.join(sorted(allowed))} です。", f"The method here is {', '.join(sorted(allowed))}.")
            raise Refusal(405, words, code="method_not_allowed", headers={"allow": ", ".join(sorted(allowed))})
        raise Refusal(404, Words("その入口はありません。", "There is no such route."), code="unknown_route")

    def _check_head(self, request: Request) -> None:
        """Headers have a size; and a page elsewhere whose name was made to point here is not let in. Raises Refusal."""
        if sum(len(name) + len(value) for name, value in request.headers.raw) > MAX_HEAD:
            words = Words(f"ヘッダーが {MAX_HEAD >> 10} KiB を超えています。", f"The headers are larger than {MAX_HEAD >> 10} KiB.")
            raise Refusal(431, words, code="headers_too_large")
        found = request.headers.getlist("host")
        match = HOST.fullmatch(found[0]) if len(found) == 1 else None
        if match is None or not ("*" in self._hosts or match["name"].lower() in self._hosts):
            words = Words(
                "Host が、このサーバーの名前ではありません。管理者は、起動時の --name で名前を加えられます。",
                "The Host header does not name this server. Whoever runs it can add a name with --name.",
            )
            raise Refusal(400, words, code="invalid_host")

    def _count(self, door: Door | None, call: Call, out: Sender, begun: float) -> None:
        call.meter.close()
        route, status = door.name if door else "none", str(out.status) if out.status else "gone"
        seconds, first = asyncio.get_running_loop().time() - begun, None if call.meter.first is None else call.meter.first - begun
        self.metrics.requests.labels(route, status).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        self.watching.ended(
            call.steps,
            call.noted,
            request=call.id,
            method=door.method if door else "",
            route=door.routes[0].path if door else "none",
            model=call.model.name if call.model else None,
            status=out.status,
            tokens=(call.meter.prompt_tokens, call.meter.completion_tokens),
            seconds=seconds,
            first=first,
        )
        if call.model is not None:
            if first is not None:
                self.metrics.first.labels(call.model.name).observe(first)
            for kind in ("prompt_tokens", "completion_tokens", "cached_tokens"):
                self.metrics.tokens.labels(call.model.name, kind).inc(getattr(call.meter, kind))
            if call.meter.drawn:
                self.metrics.joules.labels(call.model.name, call.meter.drawn.how).inc(call.meter.drawn.millijoules / 1000)
            for kind, count in zip(("offered", "accepted"), call.meter.guesses, strict=True):
                if count:
                    self.metrics.guesses.labels(call.model.name, kind).inc(count)

    def _record(self, door: Door | None, call: Call, out: Sender, begun: float) -> None:
        """Who asked what of which model, and what it used; what was said only where that is kept. What nobody signed is not written down."""
        if door is None or door.policy == OPEN or call.sent is None or (isinstance(call.sent, Refused) and call.sent.key_id is None):
            return
        meter, known = call.meter, call.sent
        body = {
            "request": call.id,
            "key": known.key_id if isinstance(known, Refused) else known.id if isinstance(known, Key) else None,
            "refused": known.reason if isinstance(known, Refused) else None,
            "user": None if isinstance(known, Refused) else known.user_id,
            "address": call.address,
            "route": door.name,
            "model": call.model.name if call.model else None,
            "status": out.status,
            "prompt_tokens": meter.prompt_tokens,
            "completion_tokens": meter.completion_tokens,
            "cached_tokens": meter.cached_tokens,
            **({"millijoules": meter.drawn.millijoules, "energy": meter.drawn.how} if meter.drawn else {}),
            "milliseconds": round(1000 * (asyncio.get_running_loop().time() - begun)),
            "marks": dict(call.marks),
        }
        if meter.drawn and call.who is not None:
            self.books.draw(call.who, meter.drawn)
        self.books.record("request", body, said(call, out) if call.model is not None else None)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """At the end everything is on the disk, and no connection is left."""
        works = [
            self.books.recovering(),
            self.energy.ticking(),
            self.access.turns.keeping(),
            self.keeping.pruning(),
            *self.watching.works(),
        ]
        if self.terms.keep_ms is not None:
            works.append(self.books.pruning(self.terms.keep_ms))
        beside = [asyncio.create_task(work) for work in works]
        async with self.pool.connected():
            assert (await receive())["type"] == "lifespan.startup"
            await self.guard.ready()
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
            for task in beside:
                task.cancel()
            await self.books.flush()
            await self.watching.flush()
            await asyncio.to_thread(self.pool.close)
            await self.books.flush()  # what was cut off has been recorded meanwhile
            self.guard.close()
        await send({"type": "lifespan.shutdown.complete"})

    def now(self) -> int:
        """Seconds since 1970."""
        return int(time.time())


def doors(modules: Sequence[ModuleType]) -> list[Door]:
    """The table of routes. TypeError for a route that does not say who may use it, or that is open and may not be."""
    found = []
    for module in modules:
        name = module.__name__.rpartition(".")[2]
        policy: Any = getattr(module, "POLICY", None)
        known = policy == OPEN if name in WITHOUT_KEY else isinstance(policy, tuple) and policy and set(policy) <= WORDS
        if not known:
            raise TypeError(f"the route {name} declares no policy")
        routes = tuple(Route(path, _never, methods=[module.METHOD]) for path in module.PATHS)
        found.append(Door(name, module.METHOD, routes, policy, module.answer, getattr(module, "SHAPE", openai_shape)))
    return found


def said(call: Call, out: Sender) -> str | None:
    """A request to a model and its answer as they stood on the wire, personal data and all, where they are to be kept. Never a password:
    what is asked of no model is not among them."""
    if out.heard is None:
        return None
    kept = {"request": call.body, "response": out.heard.decode("utf-8", "replace"), "cut": out.cut}
    return json.dumps(kept, ensure_ascii=False)


async def _never(request: Request) -> None:
    """Starlette's routes match for us; what they would call is never called."""
    raise AssertionError


def stopping() -> Refusal:
    return Refusal(503, Words("サーバーを止めています。", "The server is going down."), code="shutting_down", retry=5)


def late() -> Refusal:
    words = Words("答えに、許された時間より長くかかりました。", "The answer took longer than it may.")
    return Refusal(504, words, code="deadline_exceeded")


ENDED: Mapping[type[Exception], Callable[[], Refusal]] = {Stopping: stopping, Late: late}
