"""Sending JSON to an address that the operator named, and only there: no redirects, no proxies of the environment.

In: an address and bytes. Out: whether they were taken. What is wrong over there is never told further: an address may be a secret.
"""

from __future__ import annotations

import httpx2

SECONDS = 10.0


async def post(address: str, body: bytes) -> bool:
    try:
        async with (
            httpx2.AsyncClient(timeout=SECONDS, follow_redirects=False, trust_env=False) as client,
            client.stream("POST", address, content=body, headers={"content-type": "application/json"}) as response,
        ):
            return response.status_code < 300
    except httpx2.HTTPError:
        return False
