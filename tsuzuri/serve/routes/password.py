"""自分のパスワードを変える。開いているセッションはすべて終わる。 / Changing one's own password; every session of theirs ends."""

from __future__ import annotations

from tsuzuri.serve import cookies
from tsuzuri.serve.access import EVERYONE
from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import fields
from tsuzuri.serve.wire.fields import used
from tsuzuri.store import users
from tsuzuri.store.users import Person

METHOD, PATHS, POLICY = "POST", ("/api/password",), EVERYONE
FIELDS = (used("current", "今のパスワード", "the present one"), used("password", "新しいパスワード", "the new one"))


async def answer(call: Call) -> Answer:
    assert isinstance(call.who, Person)
    fields.check(call.body, FIELDS)
    current, new = (fields.needed(call.body, name, most=users.LONGEST) for name in ("current", "password"))
    await call.service.signing.change(call.who.user, current, new, call.address)
    return Answer({"object": "session", "user": None}, headers=cookies.made("", 0, call.secure))
