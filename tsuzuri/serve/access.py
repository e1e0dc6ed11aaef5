"""Who is asking, what they may do, and how much of it at once.

In: the headers of a request and the policy of the route that matched. Out: a `Key` or a `Person`, or a `Refusal`: 401 without a key or a
session that holds, 403 where it is not for them or the page is another's, 429 beyond their limits. Both come from the database each
time, so a revoked key, a deactivated user and a changed role end with the next request. It sees no body and counts no money.
"""

from __future__ import annotations

import asyncio
import hmac
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias

from tsuzuri.errors import Words
from tsuzuri.serve import cookies, turns
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.turns import Turns
from tsuzuri.store import keys, users
from tsuzuri.store.database import Database
from tsuzuri.store.keys import SCOPES, Key, Refused
from tsuzuri.store.turns import Limits, Turn
from tsuzuri.store.users import ROLES, Person, Who

OPEN = "open"  # the policy of a route that asks for no key
MEMBER, AUDITOR, ADMIN = EVERYONE = tuple(
    f"role:{role}" for role in ROLES
)  # words of a policy that let sessions in; none does unless it says so
WORDS = frozenset((*SCOPES, *EVERYONE))
Policy: TypeAlias = tuple[str, ...] | str  # scopes of keys and roles of people of which one is enough, or OPEN
MOST_AT_ONCE = 64  # requests under way in the whole server
AT_ONCE = 8  # of one key or person that says nothing else
LONGEST_KEY = 512  # characters
SAFE = ("GET", "HEAD")  # methods that change nothing


class Access:
    def __init__(self, db: Database, most_at_once: int = MOST_AT_ONCE, counted: Turns | None = None) -> None:
        self._db, self._most = db, most_at_once
        self.turns = counted or turns.of(db)
        self.under_way = 0

    async def authenticate(self, headers: Mapping[str, str], address: str | None, method: str, secure: bool) -> Who | Refused:
        """Whoever it is, or why nobody: for the audit, a client is not told. A key that was sent is what counts, and a session only
        without one. Raises Refusal for two keys that differ, and for a change that another site's page asks for."""
        sent = {key for key in (_bearer(headers), headers.get("x-api-key")) if key}
        if len(sent) > 1:
            raise unauthorised()
        if not sent and (token := cookies.session(headers, secure)):
            return await self._person(token, headers, method, secure)
        if not sent or len(secret := sent.pop()) > LONGEST_KEY:
            return Refused("malformed")
        found = keys.judge(self._db, secret, address) if self._db.near else await asyncio.to_thread(keys.judge, self._db, secret, address)
        if isinstance(found, Key) and keys.due(found):
            await asyncio.to_thread(keys.note, self._db, found)
        return found

    async def _person(self, token: str, headers: Mapping[str, str], method: str, secure: bool) -> Person | Refused:
        if len(token) > LONGEST_KEY:
            return Refused("malformed")
        found = await asyncio.to_thread(users.session, self._db, token)
        if found is not None and method not in SAFE:
            cookies.check_origin(headers, secure)
            if not hmac.compare_digest(users.csrf(self._db, token).encode(), headers.get(cookies.CSRF, "").encode()):
                raise cookies.elsewhere()
        return found or Refused("unknown")

    def authorise(self, who: Who | Refused, policy: Policy) -> Who:
        """Raises Refusal: whoever could not be told satisfies no policy."""
        match who:
            case Key():
                if any(word in who.scopes for word in policy):
                    return who
                wanted = [word for word in policy if word in SCOPES]
                raise _lacks(wanted) if wanted else _not_for(Words("キーでは使えません。", "It is not for keys."))
            case Person():
                if f"role:{who.user.role}" in policy:
                    return who
                raise _not_for(Words("あなたの役割では使えません。", "It is not for your role."))
        raise unauthorised()

    @asynccontextmanager
    async def turn(self, who: Who, used: Callable[[], int]) -> AsyncIterator[dict[str, str]]:
        """A place for one request, until the block ends; what there is left, as headers. `used`: the tokens it came to, in the end.
        Raises Refusal with 429 or 503."""
        if self.under_way >= self._most:
            raise Refusal(503, Words("混み合っています。", "The server is busy."), code="busy", retry=1)
        self.under_way += 1
        try:
            found = await self.turns.take(Limits(who.id, who.concurrent or AT_ONCE, who.requests_per_minute, who.tokens_per_minute))
            headers = _told(found)
            if found.refused is not None:
                raise _beyond(found, headers)
            try:
                yield headers
            finally:
                await self.turns.end(found, used())
        finally:
            self.under_way -= 1


def _told(turn: Turn) -> dict[str, str]:
    """What is left, for whoever has a limit. A request that begins while tokens are left may go beyond them: how long an answer becomes is
    known at its end."""
    headers = {}
    for name, limit, left, wait in (
        ("requests", turn.limits.requests, turn.requests_left, turn.requests_wait),
        ("tokens", turn.limits.tokens, turn.tokens_left, turn.tokens_wait),
    ):
        if limit is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(left)
            headers[f"x-ratelimit-reset-{name}"] = f"{math.ceil(wait / 1000)}s"
    return headers


def _beyond(turn: Turn, headers: Mapping[str, str]) -> Refusal:
    if turn.refused == "at once":
        most = turn.limits.at_once
        words = Words(f"同時に頼めるのは {most} 件までです。", f"At most {most} requests may be under way at once.")
        return Refusal(429, words, code="concurrency_limit_exceeded", retry=1)
    if turn.refused == "requests":
        wait = turn.requests_wait
        words = Words(f"1 分間に {turn.limits.requests} 件までです。", f"At most {turn.limits.requests} requests a minute.")
    else:
        wait = turn.tokens_wait
        words = Words(f"1 分間に {turn.limits.tokens} トークンまでです。", f"At most {turn.limits.tokens} tokens a minute.")
    return Refusal(429, words, code="rate_limit_exceeded", retry=max(wait / 1000, 0.05), headers=headers)


def unauthorised() -> Refusal:
    """The same for no key, a wrong one, and one that no longer holds; and for sessions."""
    words = Words(
        "有効な API キーが要ります（Authorization: Bearer … か x-api-key）。",
        "A valid API key is needed (Authorization: Bearer … or x-api-key).",
    )
    return Refusal(401, words, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def _lacks(wanted: list[str]) -> Refusal:
    words = Words(f"このキーには {'、'.join(wanted)} の権限がありません。", f"This key lacks the scope {' or '.join(wanted)}.")
    return Refusal(403, words, code="insufficient_scope")


def _not_for(words: Words) -> Refusal:
    return Refusal(403, words, code="insufficient_role")


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
