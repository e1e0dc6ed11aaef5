"""What the service does to everything said: personal data masked on the way in, secrets and refused content stopped on the way out.

In: a Chat, or a text that is only read. Out: the same, guarded. What is found and how is the business of the guard room.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tsuzuri.guard.guarded import Checks, guarded, told_masked
from tsuzuri.guard.mask import Vault
from tsuzuri.guard.stream import mask
from tsuzuri.types import Chat


@dataclass(frozen=True, slots=True)
class Guard:
    """`checks` None: nothing is done, and everything passes as it is."""

    checks: Checks | None = None

    def chat(self, chat: Chat) -> Chat:
        return guarded(chat, self.checks) if self.checks else chat

    async def text(self, text: str) -> tuple[str, list[str]]:
        """What a model reads that gives no text back: masked, away from the event loop, and what is to be told of it."""
        if not (self.checks and self.checks.mask):
            return text, []
        masked, found = await asyncio.to_thread(mask, text, Vault(), self.checks.mask)
        return masked, [str(told_masked(found))] if found else []


NOTHING = Guard()
