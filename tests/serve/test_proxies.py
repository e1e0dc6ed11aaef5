"""Behind a proxy: what a header says of a client is believed of a trusted proxy alone, and only what that one wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from served import Repeated
from starlette.datastructures import Headers

from tsuzuri.errors import ConfigError
from tsuzuri.serve.models import Served
from tsuzuri.serve.proxies import Proxies

TRUSTED = Proxies(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])


def headers(*lines: str, name: str = "x-forwarded-for") -> Headers:
    return Headers(raw=[(name.encode(), line.encode()) for line in lines])


@pytest.mark.parametrize(
    ("peer", "lines", "found"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # the client wrote the first itself
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.9.9.9, 192.0.2.7"], "203.0.113.9"),  # two of ours in a row
        ("10.0.0.1", ["203.0.113.9, nonsense, 10.9.9.9"], None),  # what ours was told cannot be told
        ("10.0.0.1", ["nonsense"], None),
        ("10.0.0.1", ["127.0.0.1, unknown"], None),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db9::1]:4711"], "2001:db9::1"),
        ("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("2001:db8::5", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),  # one of ours itself asks
        ("203.0.113.1", ["10.0.0.1"], "203.0.113.1"),  # not trusted: not read
        ("192.0.2.8", ["127.0.0.1"], "192.0.2.8"),
        (None, ["127.0.0.1"], None),
        ("10.0.0.1", ["1.1.1.1," * 5000 + "203.0.113.9"], "203.0.113.9"),
    ],
)
def test_the_client_is_the_last_that_no_proxy_of_ours_is(peer: str | None, lines: list[str], found: str | None) -> None:
    assert TRUSTED.address(peer, headers(*lines)) == found
    assert Proxies().address(peer, headers(*lines)) == peer


@pytest.mark.parametrize(
    ("peer", "scheme", "lines", "secure"),
    [
        ("10.0.0.1", "http", ["https"], True),
        ("10.0.0.1", "http", ["http"], False),
        ("10.0.0.1", "http", ["https", "http"], False),
        ("10.0.0.1", "http", ["https, http"], False),
        ("10.0.0.1", "http", [], False),
        ("203.0.113.1", "http", ["https"], False),
        ("203.0.113.1", "https", ["http"], True),
    ],
)
def test_whether_it_is_encrypted(peer: str, scheme: str, lines: list[str], secure: bool) -> None:
    assert TRUSTED.secure(peer, scheme, headers(*lines, name="x-forwarded-proto")) is secure


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "example", "", "*"])
def test_what_is_no_range_is_told(wrong: str) -> None:
    with pytest.raises(ConfigError, match="trusted-proxy"):
        Proxies([wrong])


def test_the_range_of_a_key_is_that_of_the_client(serving: Callable[..., Any], make_key: Callable[..., Any]) -> None:
    _, secret = make_key("chat", addresses=["203.0.113.0/24"])
    said = {"authorization": f"Bearer {secret}", "x-forwarded-for": "203.0.113.9"}
    for proxies, status in ((Proxies(["127.0.0.1"]), 200), (Proxies(["10.0.0.0/8"]), 401), (Proxies(), 401)):
        with serving(Served("script", Repeated(text="は")), proxies=proxies) as running:
            assert httpx2.get(f"{running.url}/v1/models", headers=said).status_code == status
            assert httpx2.get(f"{running.url}/v1/models", headers={**said, "x-forwarded-for": "203.0.113.9, 1.1.1.1"}).status_code == 401


def test_behind_tls_that_ends_at_the_proxy_the_cookie_is_the_hosts_alone(serving: Callable[..., Any], db: Any) -> None:
    from tsuzuri.store import users

    users.add(db, "中継の人", password="朝の散歩と味噌汁と新聞紙")
    body = {"name": "中継の人", "password": "朝の散歩と味噌汁と新聞紙"}
    with serving(Served("script", Repeated(text="は")), proxies=Proxies(["127.0.0.1"])) as running:
        found = httpx2.post(f"{running.url}/api/session", json=body, headers={"x-forwarded-proto": "https"})
        cookie = found.headers["set-cookie"]
        assert cookie.startswith("__Host-tsuzuri=") and cookie.endswith("; Secure")
        sent = {"cookie": cookie.partition(";")[0], "x-forwarded-proto": "https"}
        assert httpx2.get(f"{running.url}/api/session", headers=sent).status_code == 200
        host = running.url.removeprefix("http://")
        token = {"x-csrf-token": found.json()["csrf_token"]}
        assert httpx2.delete(f"{running.url}/api/session", headers={**sent, **token, "origin": f"http://{host}"}).status_code == 403
        assert httpx2.delete(f"{running.url}/api/session", headers={**sent, **token, "origin": f"https://{host}"}).status_code == 200
