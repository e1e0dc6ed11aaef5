"""利用者の役割やパスワードを変え、停止する。 / Changing a user's role or password, and deactivating them."""

from __future__ import annotations

import asyncio

from tsuzuri.errors import Words
from tsuzuri.serve.access import ADMIN
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import check_grant, given, user_of, user_row
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import fields
from tsuzuri.store import users

METHOD, PATHS, POLICY = "PATCH", ("/api/users/{user}",), ("admin", ADMIN)


async def answer(call: Call) -> Answer:
    """All of it or, where a part is refused, nothing. Whoever gives a password could sign in with it: so it is for those who are no more."""
    assert call.who is not None
    db, who = call.service.db, call.who
    found = await asyncio.to_thread(user_of, db, call.request.path_params["user"])
    body = given(who, "user", call.body)
    role, password = fields.string(body, "role", most=20), fields.string(body, "password", most=users.LONGEST)
    if body.get("active") not in (None, False):
        raise fields.invalid(
            "active", Words("false だけを受け付けます。停止は取り消せません。", "It takes false alone: it cannot be undone.")
        )
    check_grant(who, role or "")
    if password is not None:
        check_grant(who, found.role)
    made = await asyncio.to_thread(users.change, db, found.id, role, password, body.get("active") is not False, by=who.id)
    return Answer(user_row(made))
