"""Money and memory of the service: what a request may cost is set aside before it runs, and what happened is written down after.

In: a request at its beginning and at its end. Out: rows of the ledger and of the audit. What nobody has a price for costs nothing on a
machine of our own, and is refused to a key with a budget elsewhere. When the audit cannot be written, nothing new is taken on.
The database is never waited for in the event loop; records of requests that end together are one transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from functools import partial
from typing import Any, Protocol, TypeVar

from tsuzuri.errors import TsuzuriError, Words
from tsuzuri.serve.energy import Drawn
from tsuzuri.serve.models import Served
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.running import Meter
from tsuzuri.serve.wire.asked import Asked, dumps
from tsuzuri.store import audit, energy, ledger
from tsuzuri.store.database import Database
from tsuzuri.store.tables import now_ms
from tsuzuri.store.users import Who as Key  # both are charged

GATHER = 0.02  # seconds in which records gather, to be written together
RENEW = 5.0  # seconds between two words to the ledger that a long answer is still under way
PRUNE = 3600.0  # seconds between two looks for records that are too old
RECOVER = 300.0  # seconds between two looks for what other processes left behind
MILLION = 1_000_000  # tokens, or micro-yen of a yen
PROBE = 100_000  # tokens that a price is asked for: fewer than any price has a step at
TURN = 16  # tokens that a template adds to a message, at most
LOG = logging.getLogger("tsuzuri.serve")
T = TypeVar("T")


class Cost(Protocol):
    """`store.prices.Prices.cost`: micro-yen, or None where there is no price."""

    def __call__(self, model: str, *, input: int, output: int, cached: int = 0, at: int) -> int | None: ...


class Books:
    def __init__(self, db: Database, cost: Cost | None = None) -> None:
        self._db, self._cost = db, cost
        self._pending: list[audit.New] = []
        self._drawn: list[energy.Used] = []
        self._writing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._deliveries = Deliveries(db)
        self._moving: set[asyncio.Task[Any]] = set()  # money that is being set aside or settled
        self.broken = False  # the audit could not be written; the next try mends it

    # ── before and after a model answers

    @asynccontextmanager
    async def reserved(
        self,
        who: Key,
        request_id: str,
        models: Sequence[Served],
        asked: Asked,
        meter: Meter,
        prompts: Mapping[str, int],
        answering: Callable[[], Served],
        ours: Callable[[], bool],
    ) -> AsyncIterator[Account | None]:
        """reserve → the block → settle, however it ends: for all that passed, or, where it is our fault that it ends (an error, or
        `ours`), for no more than went out. Set aside is what the dearest of those that may answer costs, settled what the one that does.
        `prompts`: how much each reads, 0 where that is not known. Raises Refusal when the money does not suffice; None where it costs
        nothing."""
        begun = now_ms()
        most = max(
            [found for one in models if (found := await self._most(who, one, asked, prompts[one.name], begun)) is not None], default=None
        )
        if most is None:
            yield None
            return
        held = await self._reserve(who, request_id, most)
        account = Account(
            self._deliveries, held, meter, lambda *used: self._price(answering(), used[0], used[1], used[2], begun), asked.stream
        )
        renewing = asyncio.create_task(account.renew())
        fault = False
        try:
            yield account
        except Exception:
            fault = True
            raise
        except BaseException:  # the client is gone, or we are going
            fault = ours()
            raise
        finally:
            renewing.cancel()
            meter.close()
            end = partial(ledger.release, self._db, held) if fault else partial(ledger.settle, self._db, held, account.so_far())
            await asyncio.shield(self._surely(asyncio.to_thread(end)))

    async def _reserve(self, who: Key, request_id: str, most: int) -> ledger.Reservation:
        """Nothing stays set aside for a client that went away in this very moment."""
        reserving = self._surely(asyncio.to_thread(ledger.reserve, self._db, who, request_id, most))
        try:
            held = await asyncio.shield(reserving)
        except asyncio.CancelledError:
            self._surely(self._given_back(reserving))
            raise
        if isinstance(held, ledger.Refusal):
            raise _spent(held, most)
        return held

    async def _given_back(self, reserving: asyncio.Task[ledger.Reservation | ledger.Refusal]) -> None:
        held = await reserving
        if isinstance(held, ledger.Reservation):
            await asyncio.to_thread(ledger.release, self._db, held)

    def _surely(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """It comes to its end whoever stops waiting, the whole server too."""
        task = asyncio.create_task(work)
        self._moving.add(task)
        task.add_done_callback(self._moving.discard)
        return task

    async def _most(self, who: Key, model: Served, asked: Asked, prompt: int, at: int) -> int | None:
        """What it may cost at most, in micro-yen; None where it costs nothing. Raises Refusal for what has no bound or no price."""
        if self._price(model, 1 << 20, 1 << 20, 0, at) == 0:
            return None
        budgeted = await asyncio.to_thread(ledger.budgeted, self._db, who)
        length = asked.options.sampling.max_tokens
        if length is None and model.tokens is not None:
            length = model.tokens.context_length
        if length is None and budgeted:
            words = Words("予算のあるキーでは必ず要ります。", "A key with a budget must give it.")
            raise Refusal(400, words, param="max_tokens", code="missing_required_parameter")
        reading = prompt or _bytes(asked)  # a token has at least one byte
        found = self._price(model, reading, (length or 0) * asked.choices * max(1, len(asked.prompts)), 0, at)
        if found is None and budgeted:
            words = Words(f"モデル {model.name} の料金が決まっていません。", f"The model {model.name} has no price.")
            raise Refusal(403, words, param="model", code="price_unknown")
        return found if length is not None else None

    def _price(self, model: Served, reading: int, giving: int, cached: int, at: int) -> int | None:
        """By its own name, else by the one that it has for all."""
        for name in (model.name, model.priced):
            found = self._cost(name, input=reading, output=giving, cached=cached, at=at) if self._cost and name else None
            if found is not None:
                return found
        return 0 if model.mine is not None else None

    def price(self, model: Served) -> dict[str, str] | None:
        """What a million tokens cost today, in yen, as exact decimals; None where that is not known."""
        at = now_ms()
        kinds = {"input": (PROBE, 0, 0), "cached": (PROBE, 0, PROBE), "output": (0, PROBE, 0)}
        found = {kind: self._price(model, *tokens, at) for kind, tokens in kinds.items()}
        made = {kind: yen(cost * (MILLION // PROBE)) for kind, cost in found.items() if cost is not None}
        return {"currency": "JPY", "per_tokens": str(MILLION), **made} if len(made) == len(kinds) else None

    def reading(self, model: Served, tokens: int) -> str | None:
        """What it costs to read so many, in yen."""
        cost = self._price(model, tokens, 0, 0, now_ms())
        return None if cost is None else yen(cost)

    async def recovering(self) -> None:
        """Settles what processes that died had set aside, now and then; it ends when it is cancelled."""
        while True:
            try:
                await asyncio.to_thread(ledger.recover, self._db)
            except (TsuzuriError, OSError) as error:
                LOG.error("what was left behind cannot be settled: %s", type(error).__name__)
            await asyncio.sleep(RECOVER)

    # ── what happened

    def record(self, kind: str, body: Mapping[str, Any], said: str | None = None) -> None:
        """Soon on the disk, `said` sealed; `flush` waits for it."""
        self._pending.append((kind, body, said))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._gathered())

    def draw(self, who: Key, drawn: Drawn) -> None:
        """What a request drew, to be written with its record."""
        both = energy.Energy(**{drawn.how: drawn.millijoules})
        self._drawn.append(energy.Used(who, both, now_ms()))

    async def flush(self) -> None:
        """Everything is on the disk, or `broken` says that it is not."""
        while self._moving:
            await asyncio.gather(*self._moving, return_exceptions=True)
        await self._write()

    async def _gathered(self) -> None:
        while self._pending:
            await asyncio.sleep(GATHER)
            await self._write()
            if self.broken:
                return

    async def _write(self) -> None:
        """What is pending, one after the other who asks: none is written twice, nor by halves where whoever asks leaves."""
        await asyncio.shield(self._surely(self._append()))

    async def _append(self) -> None:
        async with self._turn:
            rows = self._pending[:]
            try:
                if rows:
                    await asyncio.to_thread(audit.append_many, self._db, rows)
            except (TsuzuriError, OSError, ValueError, TypeError) as error:
                self.broken = True
                LOG.error("the audit cannot be written: %s", type(error).__name__)
                return
            del self._pending[: len(rows)]
            self.broken = False
            await self._write_drawn()

    async def _write_drawn(self) -> None:
        drawn, self._drawn = self._drawn, []
        try:
            if drawn:
                await asyncio.to_thread(energy.add, self._db, drawn)
        except (TsuzuriError, OSError) as error:
            self._drawn = [*drawn, *self._drawn]  # with the next record
            LOG.error("what was drawn cannot be written: %s", type(error).__name__)

    async def pruning(self, older_ms: int) -> None:
        """Takes away records that are older than that, now and then; it ends when it is cancelled."""
        while True:
            try:
                await asyncio.to_thread(audit.prune, self._db, now_ms() - older_ms)
            except (TsuzuriError, OSError) as error:
                LOG.error("old records cannot be taken away: %s", type(error).__name__)
            await asyncio.sleep(PRUNE)

    async def ready(self) -> None:
        """Raises Refusal while what has happened cannot be written down; it tries again first."""
        if self.broken:
            with suppress(Exception):
                await self.flush()
        if self.broken:
            words = Words("記録を書けないため、受け付けられません。", "Nothing is taken on while the record cannot be written.")
            raise Refusal(503, words, code="audit_unavailable", retry=10)


class Deliveries:
    """Pieces that are about to go out. Those that wait together are one transaction: many streams share the wait for the disk."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._next: dict[str, tuple[ledger.Reservation, int]] = {}
        self._batch: asyncio.Future[frozenset[str]] | None = None
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, held: ledger.Reservation, so_far: int) -> None:
        """Returns once it is on the disk. Raises Refusal where the reservation no longer covers it: it must not go out."""
        if self._batch is None:
            self._batch = asyncio.get_running_loop().create_future()
        batch = self._batch
        self._next[held.id] = held, so_far
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        if held.id in await asyncio.shield(batch):
            words = Words("取り置いた予算が期限切れになりました。", "What had been set aside for this answer has lapsed.")
            raise Refusal(503, words, code="reservation_lapsed", retry=1)

    async def _write(self) -> None:
        while self._batch is not None:
            batch, rows = self._batch, list(self._next.values())
            self._batch, self._next = None, {}
            try:
                found = await asyncio.to_thread(ledger.delivering_all, self._db, rows)
            except Exception as error:
                batch.set_exception(error)
                batch.exception()  # where nobody waits any more, nobody is to be told
            else:
                batch.set_result(found)


class Account:
    """One call's money. What goes out is written down before it does, so that a process may die at any moment: the ledger then knows of
    one piece at most that did not arrive, and of all that did."""

    def __init__(
        self, deliveries: Deliveries, held: ledger.Reservation, meter: Meter, price: Callable[[int, int, int], int | None], stream: bool
    ) -> None:
        self._deliveries, self._held, self._meter, self._price, self._stream = deliveries, held, meter, price, stream
        self._written = 0

    @property
    def most(self) -> int:
        """Micro-yen that are set aside."""
        return self._held.most

    def so_far(self) -> int:
        """Micro-yen for what has passed. Never less than before: a prompt is charged as if it had been known until the model says what
        of it was, and pieces that turn out to be fewer tokens were pieces all the same."""
        return min(self._held.most, max(self._written, self._price(*self._meter.so_far()) or 0))

    async def before(self) -> None:
        """To be awaited before what has passed goes out; an answer that goes out whole is settled before it does."""
        cost = self.so_far()
        if self._stream and cost > self._written:
            self._written = cost
            await self._deliveries(self._held, cost)

    async def renew(self) -> None:
        """Tells the ledger now and then that a silent answer is still under way."""
        while True:
            await asyncio.sleep(RENEW)
            with suppress(Refusal, TsuzuriError, OSError):  # the next piece tells
                await self._deliveries(self._held, self._written)


def yen(micro: int) -> str:
    """Micro-yen as an exact decimal."""
    return f"{Decimal(micro) / MILLION:f}"


def _bytes(asked: Asked) -> int:
    """At least as many as the tokens of the prompt."""
    texts = [message.content + "".join(call.name + call.arguments for call in message.tool_calls) for message in asked.messages]
    tools = sum(len(dumps(tool).encode()) for tool in asked.options.tools)
    return tools + sum(len(text.encode()) + TURN for text in texts)


def _spent(refusal: ledger.Refusal, most: int) -> Refusal:
    """What everybody together has left is for nobody to know but those who look after it."""
    whose = refusal.owner.partition(":")[0]
    names = {"key": Words("このキー", "this key"), "user": Words("この利用者", "this user")}
    name = names.get(whose, Words("全体", "everybody together"))
    needed, left = yen(most), yen(refusal.left)
    words = Words(f"{name.ja}の今月の予算が足りません", f"The budget of {name.en} for this month does not suffice")
    shown = (
        Words(f"（最大 {needed} 円かかるところ、残りは {left} 円）", f" (it may cost {needed} yen, and {left} yen are left)")
        if whose in names
        else Words("", "")
    )
    words = Words(
        f"{words.ja}{shown.ja}。max_tokens を小さくするか、管理者に相談してください。",
        f"{words.en}{shown.en}. Ask for fewer max_tokens, or ask an administrator.",
    )
    return Refusal(429, words, code="insufficient_quota")  # not worth another try: x-should-retry is false
