"""利用者を加える。 / Adding a user."""

from __future__ import annotations

import asyncio

from tsuzuri.serve.access import ADMIN
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import check_grant, given, user_row
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import fields
from tsuzuri.store import users

METHOD, PATHS, POLICY = "POST", ("/api/users",), ("admin", ADMIN)


async def answer(call: Call) -> Answer:
    assert call.who is not None
    body = given(call.who, "new user", call.body)
    name, role = fields.needed(body, "name", most=200), fields.string(body, "role", most=20) or "member"
    password = fields.string(body, "password", most=users.LONGEST)
    check_grant(call.who, role)
    made = await asyncio.to_thread(users.add, call.service.db, name, role, password, by=call.who.id)
    return Answer(user_row(made), 201)
