"""キーを取り替える。新しいキーを返すのはこの一度だけ。 / Rotating a key; the new one is told this once."""

from __future__ import annotations

import asyncio

from tsuzuri.serve.access import EVERYONE
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import given, key_of, key_row
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import fields
from tsuzuri.store import keys

METHOD, PATHS, POLICY = "POST", ("/api/keys/{key}/rotate",), ("admin", *EVERYONE)


async def answer(call: Call) -> Answer:
    """Whoever gets a key's successor can do what it does: so it must be no more than they may."""
    assert call.who is not None
    db, who = call.service.db, call.who
    found = await asyncio.to_thread(key_of, db, who, call.request.path_params["key"])
    seconds = fields.whole(given(who, "rotation", call.body), "overlap_seconds", 0, 366 * 86400)
    overlap = keys.DAY if seconds is None else seconds * 1000
    new, secret = await asyncio.to_thread(lambda: keys.rotate(db, found.id, overlap_ms=overlap, within=who, by=who.id))
    return Answer({**key_row(new), "key": secret}, 201)
