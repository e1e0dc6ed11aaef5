"""Who is asking, what they may do, and how much of it at once.

In: the headers of a request and the policy of the route that matched. Out: a `Key`, or a `Refusal`: 401 without a key that holds, 403
where it lacks the scope, 429 beyond its limits. Keys come from the database each time, so a revoked one ends with the next request.
It sees no body and counts no money.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from tsuzuri.errors import Words
from tsuzuri.serve.refusal import Refusal
from tsuzuri.store.keys import Key, Refused

OPEN = "open"  # the policy of a route that asks for no key
Policy: TypeAlias = tuple[str, ...] | str  # scopes of which one is enough, or OPEN
Judge: TypeAlias = Callable[[str, str | None], Key | Refused]
MOST_AT_ONCE = 64  # requests under way in the whole server
AT_ONCE = 8  # of one key that says nothing else
LONGEST_KEY = 512  # characters


class Access:
    def __init__(self, judge: Judge, most_at_once: int = MOST_AT_ONCE) -> None:
        self._judge, self._most = judge, most_at_once
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._tokens = FixedWindowRateLimiter(MemoryStorage())  # one number a key, however many tokens there are
        self._under_way: Counter[str] = Counter()

    async def authenticate(self, headers: Mapping[str, str], address: str | None) -> Key | Refused:
        """The key that was sent, or why there is none: for the audit, a client is not told. Raises Refusal for two keys that differ."""
        sent = {key for key in (_bearer(headers), headers.get("x-api-key")) if key}
        if len(sent) > 1:
            raise unauthorised()
        if not sent or len(secret := sent.pop()) > LONGEST_KEY:
            return Refused("malformed")
        return await asyncio.to_thread(self._judge, secret, address)  # the database is never waited for in the event loop

    def authorise(self, who: Key | Refused, policy: Policy) -> Key:
        """Raises Refusal: whoever could not be told satisfies no policy."""
        if not isinstance(who, Key):
            raise unauthorised()
        if not any(who.allows(scope) for scope in policy):
            wanted = "、".join(policy), " or ".join(policy)
            words = Words(f"このキーには {wanted[0]} の権限がありません。", f"This key lacks the scope {wanted[1]}.")
            raise Refusal(403, words, code="insufficient_scope")
        return who

    @contextmanager
    def turn(self, who: Key, used: Callable[[], int]) -> Iterator[dict[str, str]]:
        """A place for one request, until the block ends; what there is left, as headers. `used`: the tokens it came to, in the end.
        Raises Refusal with 429 or 503."""
        if self._under_way.total() >= self._most:
            raise Refusal(503, Words("混み合っています。", "The server is busy."), code="busy", retry=1)
        most = who.concurrent or AT_ONCE
        if self._under_way[who.id] >= most:
            words = Words(f"このキーで同時に頼めるのは {most} 件までです。", f"This key may have {most} requests under way at once.")
            raise Refusal(429, words, code="concurrency_limit_exceeded", retry=1)
        headers = self._rate(who) | self._tokens_left(who)
        self._under_way[who.id] += 1
        try:
            yield headers
        finally:
            self._use(who, used())
            self._under_way[who.id] -= 1
            if not self._under_way[who.id]:
                del self._under_way[who.id]

    @property
    def under_way(self) -> int:
        return self._under_way.total()

    def _use(self, who: Key, tokens: int) -> None:
        """What a request came to: it counts against the minute in which it ended."""
        if who.tokens_per_minute is not None and tokens:
            self._tokens.hit(RateLimitItemPerMinute(who.tokens_per_minute), who.id, cost=tokens)

    def _tokens_left(self, who: Key) -> dict[str, str]:
        """A request that begins while something is left may go beyond it: how long an answer becomes is known at its end."""
        if who.tokens_per_minute is None:
            return {}
        window = self._tokens.get_window_stats(RateLimitItemPerMinute(who.tokens_per_minute), who.id)
        wait = max(0.0, window.reset_time - time.time())
        headers = {
            "x-ratelimit-limit-tokens": str(who.tokens_per_minute),
            "x-ratelimit-remaining-tokens": str(max(0, window.remaining)),
            "x-ratelimit-reset-tokens": f"{math.ceil(wait)}s",
        }
        if window.remaining <= 0:
            words = Words(f"1 分間に {who.tokens_per_minute} トークンまでです。", f"At most {who.tokens_per_minute} tokens a minute.")
            raise Refusal(429, words, code="rate_limit_exceeded", retry=max(wait, 0.05), headers=headers)
        return headers

    def _rate(self, who: Key) -> dict[str, str]:
        if who.requests_per_minute is None:
            return {}
        item = RateLimitItemPerMinute(who.requests_per_minute)
        taken = self._limiter.hit(item, who.id)
        window = self._limiter.get_window_stats(item, who.id)
        wait = max(0.0, window.reset_time - time.time())
        headers = {
            "x-ratelimit-limit-requests": str(who.requests_per_minute),
            "x-ratelimit-remaining-requests": str(window.remaining),
            "x-ratelimit-reset-requests": f"{math.ceil(wait)}s",
        }
        if not taken:
            words = Words(f"1 分間に {who.requests_per_minute} 件までです。", f"At most {who.requests_per_minute} requests a minute.")
            raise Refusal(429, words, code="rate_limit_exceeded", retry=max(wait, 0.05), headers=headers)
        return headers


def unauthorised() -> Refusal:
    """The same for no key, a wrong one, and one that no longer holds."""
    words = Words(
        "有効な API キーが要ります（Authorization: Bearer … か x-api-key）。",
        "A valid API key is needed (Authorization: Bearer … or x-api-key).",
    )
    return Refusal(401, words, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
