"""Signing in: how often it may be tried, how many passwords are looked at at once, and what a browser is given.

In: a name, a password and an address. Out: a `User` and the headers of a session, or a `Refusal` that is the same for everything that is not quite
right. Whoever guesses waits, per name and per address, in all servers together. It decides nothing about what a person may do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tsuzuri.errors import Words
from tsuzuri.serve.refusal import Refusal
from tsuzuri.store import attempts, users
from tsuzuri.store.database import Database
from tsuzuri.store.users import User

LOOKED_AT = 2  # passwords at once: each takes 64 MiB
WAITING = 16  # more than that are sent away


class Signing:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._turn = asyncio.Semaphore(LOOKED_AT)
        self._waiting = 0

    async def sign_in(self, name: str, password: str, address: str | None, instead: str | None) -> tuple[User, str]:
        """The user and the token of a new session. Raises Refusal with 401, 429 or 503."""
        await self._may_try(name, address)
        async with self._place():
            found = await asyncio.to_thread(users.sign_in, self._db, name, password, address=address, instead=instead)
        if found is None:
            words = Words("名前かパスワードが違います。", "The name or the password is wrong.")
            raise Refusal(401, words, code="invalid_credentials")
        await asyncio.to_thread(attempts.right, self._db, name, address)
        return found

    async def change(self, user: User, current: str, password: str, address: str | None) -> None:
        """A new password; every session ends. Raises Refusal, ConfigError."""
        await self._may_try(user.name, address)
        async with self._place():
            if not await asyncio.to_thread(users.knows, self._db, user.id, current):
                words = Words("今のパスワードが違います。", "The present password is wrong.")
                raise Refusal(403, words, param="current", code="invalid_credentials")
            await asyncio.to_thread(users.set_password, self._db, user.id, password, by=user.id)
        await asyncio.to_thread(attempts.right, self._db, user.name, address)

    async def first(self, token: str, name: str, password: str) -> User:
        """Nobody guesses the token, so nobody waits; but no work is done for one that is wrong. Raises Refusal, ConfigError."""
        if not await asyncio.to_thread(users.invited, self._db, token):
            words = Words("トークンが違うか、使用済みか、期限切れです。", "The token is wrong, used or expired.")
            raise Refusal(401, words, param="token", code="invalid_token")
        async with self._place():
            return await asyncio.to_thread(users.first_administrator, self._db, token, name, password)

    async def _may_try(self, name: str, address: str | None) -> None:
        wait = await asyncio.to_thread(attempts.attempt, self._db, users.spelled(name), address)
        if wait is not None:
            words = Words("何度も違ったので、しばらく待ってください。", "It was wrong too often: wait a while.")
            raise Refusal(429, words, code="too_many_attempts", retry=wait / 1000)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING:
            raise Refusal(503, Words("混み合っています。", "The server is busy."), code="busy", retry=1)
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1
