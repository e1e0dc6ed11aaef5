"""名前とパスワードでサインインする。 / Signing in, with a name and a password."""

from __future__ import annotations

from tsuzuri.serve import cookies
from tsuzuri.serve.access import OPEN
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import user_row
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import fields
from tsuzuri.serve.wire.fields import used
from tsuzuri.store import users

METHOD, PATHS, POLICY = "POST", ("/api/session",), OPEN
FIELDS = (used("name", "名前", "the name"), used("password", "パスワード", "the password"))


async def answer(call: Call) -> Answer:
    """A session that the browser brings along ends, and a new one begins: none that somebody else chose is ever taken over."""
    cookies.check_origin(call.headers, call.secure)
    fields.check(call.body, FIELDS)
    name, password = fields.needed(call.body, "name", most=200), fields.needed(call.body, "password", most=users.LONGEST)
    instead = cookies.session(call.headers, call.secure)
    user, token = await call.service.signing.sign_in(name, password, call.address, instead)
    said = {"object": "session", "user": user_row(user), "csrf_token": users.csrf(call.service.db, token)}
    return Answer(said, headers=cookies.made(token, users.SESSION_MS // 1000, call.secure))
