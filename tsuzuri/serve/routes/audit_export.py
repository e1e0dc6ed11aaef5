"""監査の記録を、確かめられる形で書き出す（JSON Lines）。 / The audit records as they can be verified, in JSON Lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from tsuzuri.serve.access import ADMIN, AUDITOR
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import numbers
from tsuzuri.serve.sending import Answer
from tsuzuri.store import audit

METHOD, PATHS, POLICY = "GET", ("/api/audit/export",), ("audit", AUDITOR, ADMIN)
BATCH = 1000  # records that are read at once: nobody holds the database while a client takes its time


async def answer(call: Call) -> Answer:
    start = numbers(call.request.query_params, {"start": (1, 1, 1 << 53)})["start"]
    return Answer(frames=_lines(call, start), headers={"content-type": "application/x-ndjson"}, ping=b"")


async def _lines(call: Call, start: int) -> AsyncIterator[bytes]:
    def read(first: int) -> list[str]:
        return list(audit.export(call.service.db, first, BATCH))

    while lines := await asyncio.to_thread(read, start):
        yield "".join(f"{line}\n" for line in lines).encode()
        last = json.loads(lines[-1])
        if "seq" not in last:  # the head, or nothing at all: the end
            return
        start = int(last["seq"]) + 1
