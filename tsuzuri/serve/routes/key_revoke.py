"""キーを失効させる。次の依頼から使えない。 / Revoking a key, from the next request on."""

from __future__ import annotations

import asyncio

from tsuzuri.serve.access import EVERYONE
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import key_of, key_row
from tsuzuri.serve.sending import Answer
from tsuzuri.store import keys

METHOD, PATHS, POLICY = "DELETE", ("/api/keys/{key}",), ("admin", *EVERYONE)


async def answer(call: Call) -> Answer:
    assert call.who is not None
    db, who = call.service.db, call.who
    found = await asyncio.to_thread(key_of, db, who, call.request.path_params["key"])
    return Answer(key_row(await asyncio.to_thread(lambda: keys.revoke(db, found.id, by=who.id))))
