"""Spans on their way out: lines of OTLP's JSON in a file, and the same to a collector where one is named.

In: the spans of calls that are over. Out: one line for those that ended together, as OpenTelemetry's file exporter writes them. Nobody waits for it: what
cannot be written soon enough is dropped and counted. The file is its owner's alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tsuzuri import __version__
from tsuzuri.serve.watch.posting import post
from tsuzuri.serve.watch.settings import Traces
from tsuzuri.serve.watch.steps import Span, Steps, Value

WAITING = 512  # calls whose spans may wait
TOGETHER = 64  # calls in one line
LOG = logging.getLogger("tsuzuri.serve")


class Spans:
    """`dropped` hears how many calls were lost."""

    def __init__(self, settings: Traces, dropped: Callable[[int], None]) -> None:
        self._settings, self._dropped = settings, dropped
        self._waiting: asyncio.Queue[Sequence[dict[str, Any]]] = asyncio.Queue(WAITING)
        self._failing = False
        self._now: asyncio.Task[None] | None = None

    def add(self, steps: Steps) -> None:
        """Those of a call that is over, if it is recorded."""
        if steps.trace is None or not steps.trace.recorded:
            return
        made = [encoded(steps, steps.root), *(encoded(steps, span) for span in steps.spans)]
        try:
            self._waiting.put_nowait(made)
        except asyncio.QueueFull:
            self._dropped(1)

    async def writing(self) -> None:
        """Ends when it is cancelled; what is being written then is written."""
        while True:
            first = await self._waiting.get()
            self._now = asyncio.create_task(self._write([first]))
            await asyncio.shield(self._now)

    async def flush(self) -> None:
        if self._now is not None:
            await self._now
        while not self._waiting.empty():
            await self._write([])

    async def _write(self, calls: list[Sequence[dict[str, Any]]]) -> None:
        while len(calls) < TOGETHER and not self._waiting.empty():
            calls.append(self._waiting.get_nowait())
        body = json.dumps(request([span for call in calls for span in call]), ensure_ascii=False, separators=(",", ":")).encode()
        kept = True
        if self._settings.file is not None:
            kept = await asyncio.to_thread(_append, self._settings.file, body + b"\n", self._settings.most_mib << 20)
        if self._settings.endpoint is not None:
            kept = await post(self._settings.endpoint, body) and kept
        if not kept:
            self._dropped(len(calls))
        if self._failing == kept:  # said once, not with every call
            self._failing = not kept
            LOG.error("spans cannot be written") if not kept else LOG.warning("spans are written again")


def request(spans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """OTLP's ExportTraceServiceRequest, in its JSON form."""
    resource = _attributes({"service.name": "tsuzuri", "service.version": __version__})
    scope = {"name": "tsuzuri.serve", "version": __version__}
    return {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [{"scope": scope, "spans": list(spans)}]}]}


def encoded(steps: Steps, span: Span) -> dict[str, Any]:
    """One span in OTLP's JSON: ids in hexadecimal, 64-bit numbers as strings."""
    assert steps.trace is not None
    parent = steps.trace.parent if span is steps.root else steps.root.id
    return {
        "traceId": steps.trace.id,
        "spanId": span.id,
        **({"parentSpanId": parent} if parent else {}),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.begun),
        "endTimeUnixNano": str(span.ended),
        "attributes": _attributes({**span.notes, **({"error.type": span.failed} if span.failed else {})}),
        "status": {"code": 2} if span.failed else {},
    }


def _attributes(notes: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in notes.items()]


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    return {"doubleValue": value} if isinstance(value, float) else {"intValue": str(value)}


def _append(path: Path, line: bytes, most: int) -> bool:
    try:
        if path.exists() and path.stat().st_size + len(line) > most:
            path.replace(path.with_name(f"{path.name}.1"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.write(line)
    except OSError:
        return False
    return True
