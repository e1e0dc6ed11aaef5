"""キーの名前や上限を変える。 / Changing a key's name or limits."""

from __future__ import annotations

import asyncio

from tsuzuri.serve.access import EVERYONE
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import given, key_of, key_row, key_values, role
from tsuzuri.serve.sending import Answer
from tsuzuri.store import keys

METHOD, PATHS, POLICY = "PATCH", ("/api/keys/{key}",), ("admin", *EVERYONE)


async def answer(call: Call) -> Answer:
    """An administrator's key does not lift its own limits: what it changes stays within what it may do itself."""
    assert call.who is not None
    db, who = call.service.db, call.who
    found = await asyncio.to_thread(key_of, db, who, call.request.path_params["key"])
    values = key_values(given(who, "key", call.body))
    within = who if role(who) == "admin" else None  # others change the name alone
    return Answer(key_row(await asyncio.to_thread(lambda: keys.change(db, found.id, values, within=within, by=who.id))))
