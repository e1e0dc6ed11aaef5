"""今月の予算と使った額。管理者と監査人にはすべて、ほかの人には自分のもの。 / Budgets and what is spent this month: all, or their own."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from tsuzuri.serve.access import EVERYONE
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import listed, role
from tsuzuri.serve.sending import Answer
from tsuzuri.store import energy, keys, ledger

METHOD, PATHS, POLICY = "GET", ("/api/budgets",), ("admin", "audit", *EVERYONE)


async def answer(call: Call) -> Answer:
    assert call.who is not None
    db = call.service.db
    found = await asyncio.to_thread(ledger.listed, db)
    if role(call.who) == "member":
        own = await asyncio.to_thread(keys.listed, db, call.who.user_id or "")
        mine = {f"user:{call.who.user_id}", *(f"key:{key.id}" for key in own)}
        found = [one for one in found if one.owner in mine]
    drawn, nothing = await asyncio.to_thread(energy.listed, db), energy.Energy()
    return Answer(listed([{"object": "budget", **asdict(one), "millijoules": asdict(drawn.get(one.owner, nothing))} for one in found]))
