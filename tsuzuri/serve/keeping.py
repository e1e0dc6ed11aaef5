"""Answers that clients ask to have kept, and conversations that go on from them. The database is never waited for in the event loop.

In: who asks (`Call.tenant`), an id. Out: what was kept, or a `Refusal`: the same 404 for what is not there, is another's, or has had its
time. It knows no format.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import BusyError, ConfigError, InputError, TsuzuriError, Words
from tsuzuri.serve.refusal import Refusal, sentence
from tsuzuri.store import responses, sealed
from tsuzuri.store.database import Database

DAYS = 30
PRUNE = 300.0  # seconds between two looks for what has had its time
LOG = logging.getLogger("tsuzuri.serve")


class Keeping:
    def __init__(self, db: Database, days: int = DAYS) -> None:
        """`days`: how long an answer is kept; 0: none is."""
        self._db, self._days = db, days
        self._traces = False  # something was erased while its old state was still being read

    async def check(self, owner: str) -> None:
        """Raises Refusal where no answer of this owner would be kept: before it is computed."""
        if not self._days:
            words = Words("このサーバーは答えを保存しません。", "This server stores no answers.")
            raise Refusal(400, words, param="store", code="unsupported_parameter")
        try:
            await asyncio.to_thread(responses.check_room, self._db, owner)
        except ConfigError as error:
            raise Refusal(400, sentence(error), param="store", code="storage_full") from error

    async def keep(self, owner: str, id: str, value: Mapping[str, Any]) -> None:
        await asyncio.to_thread(responses.keep, self._db, owner, id, value, days=self._days)

    async def find(self, owner: str, id: str) -> dict[str, Any]:
        found = await asyncio.to_thread(responses.find, self._db, owner, id)
        if found is None:
            raise _not_there("response_id", "response_not_found")
        return found

    async def conversation(self, owner: str, id: str) -> list[dict[str, Any]]:
        """What leads to an answer, the first first."""
        try:
            found = await asyncio.to_thread(responses.conversation, self._db, owner, id)
        except InputError as error:
            raise Refusal(400, sentence(error), param="previous_response_id", code="context_length_exceeded") from error
        if found is None:
            raise _not_there("previous_response_id", "previous_response_not_found")
        return found

    async def erase(self, owner: str, id: str) -> None:
        """It is unreadable when this returns; no byte is left, unless somebody was reading: then soon."""
        if not await asyncio.to_thread(responses.erase, self._db, owner, id):
            raise _not_there("response_id", "response_not_found")
        await self._wipe()

    async def _wipe(self) -> None:
        try:
            await asyncio.to_thread(sealed.wipe, self._db)
            self._traces = False
        except BusyError:
            self._traces = True

    async def pruning(self) -> None:
        """Erases what has had its time, now and then; it ends when it is cancelled."""
        while True:
            try:
                if await asyncio.to_thread(responses.prune, self._db) or self._traces:
                    await self._wipe()
            except (TsuzuriError, OSError) as error:
                LOG.error("what has had its time cannot be erased: %s", type(error).__name__)
            await asyncio.sleep(PRUNE)


def _not_there(param: str, code: str) -> Refusal:
    words = Words("その答えは保存されていません。", "No such response is stored.")
    return Refusal(404, words, param=param, code=code)
