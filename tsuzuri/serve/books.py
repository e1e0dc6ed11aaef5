"""Money and memory of the service: what a request may cost is set aside before it runs, and what happened is written down after.

In: a request at its beginning and at its end. Out: rows of the ledger and of the audit. What nobody has a price for costs nothing on a
machine of our own, and is refused to a key with a budget elsewhere. When the audit cannot be written, nothing new is taken on.
The database is never waited for in the event loop; records of requests that end together are one transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from tsuzuri.errors import TsuzuriError, Words
from tsuzuri.serve.models import Served
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.running import Meter
from tsuzuri.serve.wire.asked import Asked, dumps
from tsuzuri.store import audit, ledger
from tsuzuri.store.database import Database
from tsuzuri.store.tables import now_ms
from tsuzuri.store.users import Who as Key  # both are charged

RENEW = 5.0  # seconds between two words to the ledger that a long answer is still under way, and how far it is
PRUNE = 3600.0  # seconds between two looks for records that are too old
RECOVER = 300.0  # seconds between two looks for what other processes left behind
TURN = 16  # tokens that a template adds to a message, at most
LOG = logging.getLogger("tsuzuri.serve")


class Cost(Protocol):
    """`store.prices.Prices.cost`: micro-yen, or None where there is no price."""

    def __call__(self, model: str, *, input: int, output: int, cached: int = 0, at: int) -> int | None: ...


class Books:
    def __init__(self, db: Database, cost: Cost | None = None) -> None:
        self._db, self._cost = db, cost
        self._pending: list[audit.New] = []
        self._writing: asyncio.Task[None] | None = None
        self.broken = False  # the audit could not be written; the next try mends it

    # ── before and after a model answers

    @asynccontextmanager
    async def reserved(self, who: Key, request_id: str, model: Served, asked: Asked, meter: Meter, prompt: int) -> AsyncIterator[None]:
        """reserve → the block → settle for what passed, however it ends. Raises Refusal when the money does not suffice."""
        begun = now_ms()
        most = await self._most(who, model, asked, prompt, begun)
        if most is None:
            yield
            return
        held = await asyncio.to_thread(ledger.reserve, self._db, who, request_id, most)
        if isinstance(held, ledger.Refusal):
            raise _spent(held)
        renewing = asyncio.create_task(self._renew(held, model, meter, begun))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            meter.close()
            await asyncio.to_thread(ledger.settle, self._db, held, self._so_far(held, model, meter, begun))

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
        found = self._cost(model.name, input=reading, output=giving, cached=cached, at=at) if self._cost else None
        return 0 if found is None and model.tokens is not None else found

    def _so_far(self, held: ledger.Reservation, model: Served, meter: Meter, at: int) -> int:
        cached = min(meter.cached_tokens, meter.prompt_tokens)
        return min(held.most, self._price(model, meter.prompt_tokens, meter.completion_tokens, cached, at) or 0)

    async def _renew(self, held: ledger.Reservation, model: Served, meter: Meter, at: int) -> None:
        while True:
            await asyncio.sleep(RENEW)
            await asyncio.to_thread(ledger.delivering, self._db, held, self._so_far(held, model, meter, at))

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
            self._writing = asyncio.create_task(self._write())

    async def flush(self) -> None:
        """Everything is on the disk, or `broken` says that it is not."""
        if self._writing is not None:
            await self._writing
        if self._pending:
            await self._write()

    async def _write(self) -> None:
        while self._pending:
            rows = self._pending[:]
            try:
                await asyncio.to_thread(audit.append_many, self._db, rows)
            except (TsuzuriError, OSError, ValueError, TypeError) as error:
                self.broken = True
                LOG.error("the audit cannot be written: %s", type(error).__name__)
                return
            del self._pending[: len(rows)]
            self.broken = False

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


def _bytes(asked: Asked) -> int:
    """At least as many as the tokens of the prompt."""
    texts = [message.content + "".join(call.name + call.arguments for call in message.tool_calls) for message in asked.messages]
    tools = sum(len(dumps(tool).encode()) for tool in asked.options.tools)
    return tools + sum(len(text.encode()) + TURN for text in texts)


def _spent(refusal: ledger.Refusal) -> Refusal:
    whose = refusal.owner.partition(":")[0]
    names = {"key": Words("このキー", "this key"), "user": Words("この利用者", "this user")}
    name = names.get(whose, Words("全体", "everybody together"))
    words = Words(f"{name.ja}の今月の予算が足りません。", f"The budget of {name.en} for this month does not suffice.")
    return Refusal(429, words, code="insufficient_quota")  # not worth another try: x-should-retry is false
