"""Connections to one server: kept while somebody holds them open, else one for each request. No redirects, no proxies of the
environment, no cookies: what one request brings back goes along with no other.

In: an event loop that runs. Out: an HTTP client of that loop. It knows no address and no key.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

TIMEOUT = httpx2.Timeout(600, connect=15)  # seconds without a byte, seconds to connect
IDLE = 60.0  # seconds that a connection is kept without use; one that the server has closed meanwhile is noticed and not used
KEPT = 32  # idle connections at most; as many as there are requests may be in use


class Connections:
    """Of one place. What is kept belongs to the event loop that holds it: other loops have their own, or none."""

    def __init__(self) -> None:
        self._kept: dict[asyncio.AbstractEventLoop, tuple[httpx2.AsyncClient, int]] = {}

    async def hold(self) -> None:
        """From now on connections are kept in this loop, until `let_go` was called as often."""
        loop = asyncio.get_running_loop()
        client, holders = self._kept.get(loop) or (made(), 0)
        self._kept[loop] = client, holders + 1

    async def let_go(self) -> None:
        """Closes what is kept once nobody holds it; whoever is still answered is cut off."""
        loop = asyncio.get_running_loop()
        client, holders = self._kept.pop(loop)
        if holders > 1:
            self._kept[loop] = client, holders - 1
            return
        await client.aclose()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        kept = self._kept.get(asyncio.get_running_loop())
        if kept is not None:
            yield kept[0]
            return
        async with made() as own:
            yield own


def made() -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=KEPT, keepalive_expiry=IDLE)
    nothing = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx2.AsyncClient(timeout=TIMEOUT, limits=limits, cookies=nothing, follow_redirects=False, trust_env=False, verify=_trusted())


@cache
def _trusted() -> ssl.SSLContext:
    """Whose certificates are believed; reading them takes as long as a short answer, so it is done once."""
    return httpx2.create_ssl_context(trust_env=False)
