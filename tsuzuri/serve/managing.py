"""What is managed through the service: who may write which field of what, what is shown of it, and whose it is.

In: whoever asks, and a body. Out: values to hand to the store, or a `Refusal`: 400 for a field nobody knows, 403 for one that is not theirs, 404
for what is not there and for what they may not know of alike. Every field that can be written stands in WRITABLE; what is not there cannot.
The store does what is asked, and writes its audit record in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, TypeVar

from tsuzuri.errors import MissingError, Words
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.wire import fields
from tsuzuri.serve.wire.fields import JSON, Field, used
from tsuzuri.store.database import Database
from tsuzuri.store.keys import Key
from tsuzuri.store.keys import one as one_key
from tsuzuri.store.users import SCOPES_OF, Person, User, Who
from tsuzuri.store.users import one as one_user

Role: TypeAlias = Literal["member", "auditor", "admin"]
T = TypeVar("T")
LARGEST = (1 << 53) - 1
NEW_USER = (
    used("name", "名前", "the name"),
    used("role", "役割（省くと member）", "the role; member unless given"),
    used("password", "パスワード（省くとサインインできない）", "the password; without one nobody signs in"),
)
USER = (
    used("role", "役割", "the role"),
    used("active", "false で停止する", "false deactivates"),
    used("password", "新しいパスワード", "a new password"),
)
KEY = (
    used("name", "名前", "the name"),
    used("models", "使えるモデル（null ならすべて）", "the models it may use; null: all"),
    used("addresses", "接続元の範囲", "where it may come from"),
    used("requests_per_minute", "1 分あたりの依頼", "requests a minute"),
    used("tokens_per_minute", "1 分あたりのトークン", "tokens a minute"),
    used("concurrent", "同時に頼める数", "requests at once"),
    used("expires_at", "期限（1970 年からのミリ秒）", "until when, in ms since 1970"),
)
NEW_KEY = (*KEY, used("scopes", "できること", "what it may do"), used("user", "持ち主の名前か ID", "whose it is: a name or an id"))
ROTATION = (used("overlap_seconds", "古いキーも使える秒数（省くと 1 日）", "how long the old one still works; a day unless given"),)
BUDGET = (used("amount", "1 か月の額（百万分の 1 円。null でなくす）", "of a month, in millionths of a yen; null: none"),)
TABLES: Mapping[str, tuple[Field, ...]] = {
    "new user": NEW_USER, "user": USER, "new key": NEW_KEY, "key": KEY, "rotation": ROTATION, "budget": BUDGET,
}  # fmt: skip
ALL = {name: frozenset(field.name for field in table) for name, table in TABLES.items()}
WRITABLE: Mapping[Role, Mapping[str, frozenset[str]]] = {
    "admin": ALL,
    "auditor": {"key": frozenset({"name"}), "rotation": ALL["rotation"]},  # of keys that are their own
    "member": {"key": frozenset({"name"}), "rotation": ALL["rotation"]},
}


def role(who: Who) -> Role:
    """What whoever asks counts as: a key with the scope `admin` is an administrator's, one with `audit` an auditor's."""
    if isinstance(who, Person):
        return who.user.role  # type: ignore[return-value]
    return "admin" if "admin" in who.scopes else "auditor" if "audit" in who.scopes else "member"


def given(who: Who, what: str, body: JSON) -> JSON:
    """The body, once every field in it is known and theirs to write. Raises Refusal."""
    fields.check(body, TABLES[what])
    allowed = WRITABLE[role(who)].get(what, frozenset())
    for name in body:
        if name not in allowed:
            words = Words(f"{name}：あなたには変えられません。", f"{name}: it is not yours to change.")
            raise Refusal(403, words, param=name, code="field_not_allowed")
    return body


def key_values(body: JSON) -> dict[str, Any]:
    """Those of KEY that are given, null included, with their types checked. Raises Refusal."""
    found: dict[str, Any] = {}
    for name in [field.name for field in KEY if field.name in body]:
        if name == "name":
            found[name] = fields.needed(body, name, most=200)
        elif name in ("models", "addresses"):
            found[name] = None if body[name] is None and name == "models" else tuple(texts(body, name))
        else:
            found[name] = fields.whole(body, name, 1, LARGEST)
    return found


def texts(body: JSON, name: str) -> list[str]:
    found = fields.several(body[name], name, most=256)
    for index in range(len(found)):
        fields.needed({str(i): each for i, each in enumerate(found)}, str(index), most=256, place=f"{name}.")
    return found


def check_grant(who: Who, wanted: str) -> None:
    """Nobody makes anyone more than they are: a role is given by whoever has all that it may do. Raises Refusal."""
    if wanted in SCOPES_OF and not (SCOPES_OF[wanted] <= who.scopes and who.models is None and not who.addresses):
        words = Words("あなたにできないことを、ほかの人に許すことになります。", "It would let somebody do what you may not.")
        raise Refusal(403, words, param="role", code="beyond_your_own")


def numbers(query: Mapping[str, str], known: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
    """Whole numbers of a query: by name (what it is unless given, least, most). Raises Refusal."""
    for name in query:
        if name not in known:
            raise fields.invalid(name[:80], Words("そのような項目はありません。", "There is no such field."), code="unknown_parameter")
    found = {name: query.get(name, str(usual)) for name, (usual, _, _) in known.items()}
    for name, text in found.items():
        if not (text.isascii() and text.isdecimal() and len(text) <= 16 and known[name][1] <= int(text) <= known[name][2]):
            _, low, high = known[name]
            raise fields.invalid(name, Words(f"{low} 以上 {high} 以下の整数が要ります。", f"It takes a whole number from {low} to {high}."))
    return {name: int(text) for name, text in found.items()}


# ── whose it is


def key_of(db: Database, who: Who, key_id: str) -> Key:
    """An administrator's are all; anybody else's their own. Raises Refusal."""
    found = _found(lambda: one_key(db, key_id), Words("そのキーはありません。", "There is no such key."))
    if role(who) != "admin" and (who.user_id is None or found.user_id != who.user_id):
        raise missing(Words("そのキーはありません。", "There is no such key."))
    return found


def user_of(db: Database, name: str) -> User:
    """Raises Refusal."""
    return _found(lambda: one_user(db, name), Words("その利用者はいません。", "There is no such user."))


def _found(look: Callable[[], T], words: Words) -> T:
    try:
        return look()
    except MissingError as error:
        raise missing(words) from error


def missing(words: Words) -> Refusal:
    return Refusal(404, words, code="not_found")


# ── what is shown


def key_row(key: Key) -> dict[str, Any]:
    shown = ("id", "prefix", "name", "user_id", "requests_per_minute", "tokens_per_minute", "concurrent", "created_at", "expires_at",
             "last_used_at", "revoked_at", "replaces")  # fmt: skip
    lists = {"scopes": sorted(key.scopes), "models": None if key.models is None else list(key.models), "addresses": list(key.addresses)}
    return {"object": "key", **{name: getattr(key, name) for name in shown}, **lists}


def user_row(user: User) -> dict[str, Any]:
    return {"object": "user", **{name: getattr(user, name) for name in ("id", "name", "role", "active", "created_at")}}


def listed(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"object": "list", "data": rows, **more}
