"""The way out: one answer, whole or in frames, over ASGI.

In: bytes and headers. Out: ASGI messages. A stream that is silent for long gets comment lines, so that nothing between server and
client gives up; what fails after the first byte becomes a last frame, what fails before it a status of its own. It knows no format.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from h11 import LocalProtocolError
from starlette.types import Message, Send

from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.running import Gone, closing

KEEP = 1 << 20  # bytes of an answer that are kept, where any are
PING = 10.0  # seconds of silence until a comment line
PING_FRAME = b": ping\n\n"
STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
ALWAYS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` at once, or `frames` as they come; then `failed` makes the last frame of an error. `ping` breaks a long silence."""

    body: Mapping[str, Any] | bytes = b""
    status: int = 200
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    frames: AsyncIterator[bytes] | None = None
    failed: Callable[[Refusal, str], bytes] | None = None
    ping: bytes = PING_FRAME  # what breaks a long silence; b"": nothing may


class Sender:
    """The one response of one request."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self.request_id = send, request_id
        self.headers: dict[str, str] = {"x-request-id": request_id}
        self.status: int | None = None  # once the first byte is out
        self.heard: bytearray | None = None  # what goes out, where it is to be kept
        self.cut = False  # whether more went out than is kept
        self._answer: Answer | None = None
        self._begun = time.perf_counter()
        self._last = time.monotonic()

    def tell(self, headers: Mapping[str, str]) -> bool:
        """More headers; False when they have been sent."""
        if self.status is not None:
            return False
        self.headers |= headers
        return True

    async def answer(self, answer: Answer) -> None:
        self._answer = answer
        if answer.frames is None:
            await self._whole(answer)
            return
        pinging = asyncio.create_task(self._ping(answer)) if answer.ping else None
        try:
            async with closing(answer.frames):
                async for frame in answer.frames:
                    await self._start(answer.status, {**STREAM, **answer.headers})
                    await self._bytes(frame)
        finally:
            if pinging is not None:
                pinging.cancel()
                await asyncio.gather(pinging, return_exceptions=True)
        await self._end()

    async def refuse(self, refusal: Refusal, shape: Callable[[Refusal, str], Mapping[str, Any]]) -> None:
        if self.status is None:
            await self._whole(Answer(shape(refusal, self.request_id), refusal.status, headers=refusal.headers))
        elif self._answer is not None and self._answer.failed is not None:
            await self._bytes(self._answer.failed(refusal, self.request_id))
            await self._end()

    async def _whole(self, answer: Answer) -> None:
        if isinstance(answer.body, bytes):
            data = answer.body
        else:
            data = json.dumps(answer.body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        await self._start(answer.status, {"content-type": answer.media, "content-length": str(len(data)), **ALWAYS, **answer.headers})
        await self._out({"type": "http.response.body", "body": data})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        if self.status is not None:
            return
        self.status = status
        took = {"openai-processing-ms": str(round(1000 * (time.perf_counter() - self._begun)))}
        pairs = [(name.encode("ascii"), value.encode("ascii")) for name, value in {**headers, **self.headers, **took}.items()]
        await self._out({"type": "http.response.start", "status": status, "headers": pairs})

    async def _bytes(self, data: bytes) -> None:
        self._last = time.monotonic()
        await self._out({"type": "http.response.body", "body": data, "more_body": True})

    async def _end(self) -> None:
        await self._out({"type": "http.response.body", "body": b""})

    async def _out(self, message: Message) -> None:
        """What followed the request was no HTTP, and has been answered as that: then nobody listens to this answer. Raises Gone."""
        if self.heard is not None and (data := message.get("body", b"")):
            self.cut = self.cut or len(data) > KEEP - len(self.heard)
            self.heard += data[: KEEP - len(self.heard)]
        try:
            await self._send(message)
        except LocalProtocolError as error:
            raise Gone from error

    async def _ping(self, answer: Answer) -> None:
        while True:
            silent = time.monotonic() - self._last
            if silent >= PING:
                await self._start(answer.status, {**STREAM, **answer.headers})
                await self._bytes(answer.ping)
            await asyncio.sleep(max(0.01, PING - silent) if silent < PING else PING)
