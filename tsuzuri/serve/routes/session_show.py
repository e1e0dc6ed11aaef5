"""サインインしているのが誰か。 / Who is signed in."""

from __future__ import annotations

from tsuzuri.serve import cookies
from tsuzuri.serve.access import EVERYONE
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import user_row
from tsuzuri.serve.sending import Answer
from tsuzuri.store import users
from tsuzuri.store.users import Person

METHOD, PATHS, POLICY = "GET", ("/api/session",), EVERYONE


async def answer(call: Call) -> Answer:
    assert isinstance(call.who, Person)
    token = cookies.session(call.headers, call.secure) or ""
    return Answer({"object": "session", "user": user_row(call.who.user), "csrf_token": users.csrf(call.service.db, token)})
