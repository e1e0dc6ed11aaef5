"""キーの一覧。管理者にはすべて、ほかの人には自分のもの。 / Keys: all for an administrator, their own for anybody else."""

from __future__ import annotations

import asyncio

from tsuzuri.serve.access import EVERYONE
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import key_row, listed, role
from tsuzuri.serve.sending import Answer
from tsuzuri.store import keys

METHOD, PATHS, POLICY = "GET", ("/api/keys",), ("admin", *EVERYONE)


async def answer(call: Call) -> Answer:
    assert call.who is not None
    whose = None if role(call.who) == "admin" else call.who.user_id or ""
    return Answer(listed([key_row(key) for key in await asyncio.to_thread(keys.listed, call.service.db, whose)]))
