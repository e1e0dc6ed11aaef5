"""サインアウトする。 / Signing out."""

from __future__ import annotations

import asyncio

from tsuzuri.serve import cookies
from tsuzuri.serve.access import EVERYONE
from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.store import users

METHOD, PATHS, POLICY = "DELETE", ("/api/session",), EVERYONE


async def answer(call: Call) -> Answer:
    await asyncio.to_thread(users.sign_out, call.service.db, cookies.session(call.headers, call.secure) or "")
    return Answer({"object": "session", "user": None}, headers=cookies.made("", 0, call.secure))
