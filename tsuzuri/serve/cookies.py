"""The cookie of a session: how it is set and read, and how a change that another site's page asks for is told from one of ours.

In: headers. Out: a token, a Set-Cookie line, or a `Refusal`. With TLS the cookie is `__Host-…` and Secure, so that nothing but this very host can
have set it; no script reads it, and no other site's page has it sent along. It knows neither users nor the database.
"""

from __future__ import annotations

from collections.abc import Mapping

from tsuzuri.errors import Words
from tsuzuri.serve.refusal import Refusal

NAME, PLAIN = "__Host-tsuzuri", "tsuzuri"
CSRF = "x-csrf-token"


def session(headers: Mapping[str, str], secure: bool) -> str | None:
    """The token; None where there is none, or more than one: somebody else may have set the second."""
    wanted = NAME if secure else PLAIN
    pairs = [part.strip().partition("=") for part in headers.get("cookie", "").split(";")]
    found = [value for name, _, value in pairs if name == wanted]
    return found[0] if len(found) == 1 else None


def made(token: str, seconds: int, secure: bool) -> dict[str, str]:
    """As a header. An empty token takes the cookie away."""
    more = "; Secure" if secure else ""
    name = NAME if secure else PLAIN
    return {"set-cookie": f"{name}={token}; Path=/; Max-Age={seconds if token else 0}; HttpOnly; SameSite=Strict{more}"}


def check_origin(headers: Mapping[str, str], secure: bool) -> None:
    """A browser says whose page it is. Raises Refusal where it is not one of this very address; a program need not say anything."""
    origin = headers.get("origin")
    ours = f"{'https' if secure else 'http'}://{headers.get('host', '')}"
    if origin is not None and origin.lower() != ours.lower():
        raise elsewhere()
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise elsewhere()


def elsewhere() -> Refusal:
    words = Words(
        "このサイトのページからの操作ではありません（Origin と X-CSRF-Token を確かめてください）。",
        "It was not asked for by a page of this site (see Origin and X-CSRF-Token).",
    )
    return Refusal(403, words, code="cross_site_request")
