"""利用者の一覧。 / All users."""

from __future__ import annotations

import asyncio

from tsuzuri.serve.access import ADMIN
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import listed, user_row
from tsuzuri.serve.sending import Answer
from tsuzuri.store import users

METHOD, PATHS, POLICY = "GET", ("/api/users",), ("admin", ADMIN)


async def answer(call: Call) -> Answer:
    return Answer(listed([user_row(user) for user in await asyncio.to_thread(users.listed, call.service.db)]))
