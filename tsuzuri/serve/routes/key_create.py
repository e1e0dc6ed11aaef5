"""キーを作る。キーそのものを返すのはこの一度だけ。 / Making a key; the key itself is told this once."""

from __future__ import annotations

import asyncio

from tsuzuri.serve.access import ADMIN
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import given, key_row, key_values, texts, user_of
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import fields
from tsuzuri.store import keys

METHOD, PATHS, POLICY = "POST", ("/api/keys",), ("admin", ADMIN)


async def answer(call: Call) -> Answer:
    """It may do no more than whoever makes it, and is theirs unless it is said whose."""
    assert call.who is not None
    db, body = call.service.db, given(call.who, "new key", call.body)
    values = key_values(body)
    name = fields.needed(body, "name", most=200)
    owner = fields.string(body, "user", most=200)
    user_id = call.who.user_id if owner is None else (await asyncio.to_thread(user_of, db, owner)).id
    scopes = texts(body, "scopes") if body.get("scopes") is not None else ["chat"]
    more = {**values, "scopes": scopes, "user_id": user_id}
    more.pop("name")
    key, secret = await asyncio.to_thread(lambda: keys.create(db, name, within=call.who, by=call.who.id, **more))  # type: ignore[union-attr]
    return Answer({**key_row(key), "key": secret}, 201)
