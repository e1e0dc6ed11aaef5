"""監査の記録を読む（?start=番号&limit=件数）。 / Reading the audit records: ?start=NUMBER&limit=COUNT."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from tsuzuri.serve.access import ADMIN, AUDITOR
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import listed, numbers
from tsuzuri.serve.sending import Answer
from tsuzuri.store import audit

METHOD, PATHS, POLICY = "GET", ("/api/audit",), ("audit", AUDITOR, ADMIN)


async def answer(call: Call) -> Answer:
    asked = numbers(call.request.query_params, {"start": (1, 1, 1 << 53), "limit": (100, 1, 1000)})
    found = await asyncio.to_thread(lambda: list(audit.records(call.service.db, asked["start"], asked["limit"])))
    return Answer(listed([{"object": "audit_record", **asdict(record)} for record in found], has_more=len(found) == asked["limit"]))
