"""サーバーの画面に出た使い切りのトークンで、最初の管理者になる。 / Becoming the first administrator, with the one-time token on the console."""

from __future__ import annotations

from tsuzuri.serve import cookies
from tsuzuri.serve.access import OPEN
from tsuzuri.serve.call import Call
from tsuzuri.serve.managing import user_row
from tsuzuri.serve.sending import Answer
from tsuzuri.serve.wire import fields
from tsuzuri.serve.wire.fields import used
from tsuzuri.store import users

METHOD, PATHS, POLICY = "POST", ("/api/first-administrator",), OPEN
FIELDS = (
    used("token", "使い切りのトークン", "the one-time token"),
    used("name", "名前", "the name"),
    used("password", "パスワード", "the password"),
)


async def answer(call: Call) -> Answer:
    cookies.check_origin(call.headers, call.secure)
    fields.check(call.body, FIELDS)
    token, name = (fields.needed(call.body, field, most=200) for field in ("token", "name"))
    made = await call.service.signing.first(token, name, fields.needed(call.body, "password", most=users.LONGEST))
    return Answer(user_row(made))
