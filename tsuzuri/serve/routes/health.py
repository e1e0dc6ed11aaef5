"""依頼を受け付けるかどうか。キーの要らない唯一の入口。 / Whether it takes requests; the only way in without a key."""

from __future__ import annotations

from tsuzuri.serve.access import OPEN
from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer

METHOD, PATHS, POLICY = "GET", ("/health",), OPEN


async def answer(call: Call) -> Answer:
    return Answer({"status": "stopping"}, 503) if call.service.draining else Answer({"status": "ok"})
