"""1 か月の予算を決める（key:ID、user:ID、all）。 / Setting the budget of a month, of key:ID, user:ID or all."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from tsuzuri.errors import Words
from tsuzuri.serve.access import ADMIN
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import LARGEST, given, key_of, missing, user_of
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import fields
from tsuzuri.store import ledger
from tsuzuri.store.keys import Key

METHOD, PATHS, POLICY = "PUT", ("/api/budgets/{owner}",), ("admin", ADMIN)


async def answer(call: Call) -> Answer:
    """A key does not set the budget that it spends; a person who is an administrator does, and that is written down."""
    assert call.who is not None
    db, who = call.service.db, call.who
    body = given(who, "budget", call.body)
    if "amount" not in body:
        raise fields.invalid("amount", Words("必ず要ります。", "It is required."), code="missing_required_parameter")
    amount = fields.whole(body, "amount", 0, LARGEST)
    kind, _, name = call.request.path_params["owner"].partition(":")
    if kind == "key":
        owner = f"key:{(await asyncio.to_thread(key_of, db, who, name)).id}"
    elif kind == "user":
        owner = f"user:{(await asyncio.to_thread(user_of, db, name)).id}"
    elif (kind, name) == (ledger.ALL, ""):
        owner = ledger.ALL
    else:
        raise missing(Words("key:ID、user:ID、all のどれかです。", "It is one of key:ID, user:ID and all."))
    if isinstance(who, Key) and owner in ledger.owners(who):
        raise Refusal(403, Words("自分の使う予算は決められません。", "It is the budget that this key spends."), code="beyond_your_own")
    await asyncio.to_thread(lambda: ledger.set_limit(db, owner, amount, by=who.id))
    return Answer({"object": "budget", **asdict(await asyncio.to_thread(ledger.balance, db, owner))})
