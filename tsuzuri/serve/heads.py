"""A connection on which no whole request comes is not kept: without a key nobody may hold what others need to get in.

In: bytes of a connection. Out: what uvicorn makes of them; or its end, `SECONDS` after the first of them, or after it was opened, if
by then there is no head of a request. Bodies have their time in `bounds.py`; between two requests uvicorn has its own.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 10.0


class Protocol(H11Protocol):
    """One connection."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait()
        else:
            self._arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """Drips do not make it longer."""
        if self._late is None:
            self._late = self.loop.call_later(SECONDS, self.transport.close)

    def _arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
