"""Whether the server takes requests: the one question that needs no key, and the one answer that tells nothing else."""

from __future__ import annotations

from tsuzuri.serve.access import OPEN
from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer

METHOD, PATHS, POLICY = "GET", ("/health",), OPEN


async def answer(call: Call) -> Answer:
    return Answer({"status": "stopping"}, 503) if call.service.draining else Answer({"status": "ok"})
