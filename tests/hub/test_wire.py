"""The token goes to the hub's own origin and nowhere else; redirects end; refusals are told for what they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest
from hub_server import Extra, Hub, Status, To

from tsuzuri.errors import ConfigError, MissingError, RemoteError, Words
from tsuzuri.hub import wire as wires
from tsuzuri.hub.listing import Repository
from tsuzuri.hub.pull import look
from tsuzuri.hub.wire import Again, Patience, Tries, Wire

ASKED = Words("頼み", "asked")
TOKEN = "hf_ThisIsSecret"
NAME, FILES = "owner/name", {"model.safetensors": b"weights", "config.json": b"{}"}


def get(wire: Wire, path: str, start: int = 0) -> bytes:
    with wire.get(path, ASKED, start=start) as answer:
        return b"".join(answer.chunks)


# ── the token


def test_the_token_goes_to_the_hub_alone(hub: Hub) -> None:
    commit = hub.add(NAME, FILES)
    hub.token = TOKEN
    with Wire(hub.address, f" {TOKEN}\n", Patience(tries=1)) as wire:
        assert look(wire, Repository("owner", "name")).listing.commit == commit
        assert get(wire, f"/{NAME}/resolve/{commit}/model.safetensors") == b"weights"
        assert get(wire, f"/{NAME}/resolve/{commit}/config.json") == b"{}"  # by way of a redirect to the hub itself
    told = [(role, headers.get("authorization")) for role, _, headers in hub.requests]
    assert told == [("hub", f"Bearer {TOKEN}")] * 2 + [("elsewhere", None)] + [("hub", f"Bearer {TOKEN}")] * 2


def test_the_token_does_not_follow_a_redirect_of_a_small_file(hub: Hub) -> None:
    hub.add(NAME, FILES)
    hub.token = TOKEN
    hub.fault("config.json", To(f"{hub.elsewhere}/nothing?token={TOKEN}"))
    with Wire(hub.address, TOKEN, Patience(tries=1)) as wire, pytest.raises(Again):
        get(wire, f"/{NAME}/resolve/main/config.json")
    assert [headers.get("authorization") for role, _, headers in hub.requests if role == "elsewhere"] == [None]


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "とーくん", "x" * 2000])
def test_a_token_that_is_none_is_refused_without_being_shown(hub: Hub, token: str) -> None:
    with pytest.raises(ConfigError, match="トークンにない文字") as caught:
        Wire(hub.address, token)
    assert token not in str(caught.value)


def test_a_token_does_not_travel_in_the_clear() -> None:
    with pytest.raises(ConfigError, match="平文") as caught:
        Wire("http://hub.example", TOKEN)
    assert TOKEN not in str(caught.value)
    for address in ("http://localhost:1", "http://127.0.0.1", "http://[::1]:80", "https://hub.example"):
        Wire(address, TOKEN)
    Wire("http://hub.example", "  ")


# ── addresses and redirects


@pytest.mark.parametrize(
    "address",
    [
        "",
        "hub.example",
        "ftp://hub.example",
        "https://",
        "https://a:b@hub.example",
        "https://h/?x=1",
        "file:///etc",
        "https://h:x",
        "https://h/#a",
    ],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="接続先"):
        Wire(address, None)


def test_an_address_may_have_a_path() -> None:
    assert Wire("https://company.example/artifacts/hub/", None).address == "https://company.example/artifacts/hub"


def test_redirects_end(hub: Hub, wire: Wire) -> None:
    hub.add(NAME, FILES)
    hub.fault("config.json", *[To(f"/{NAME}/resolve/main/config.json")] * 50)
    with pytest.raises(RemoteError, match="転送が終わりません"):
        get(wire, f"/{NAME}/resolve/main/config.json")
    assert len(hub.requests) == wires.MAX_HOPS


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "http://h:x/"])
def test_a_redirect_to_something_else_is_refused(hub: Hub, wire: Wire, location: str) -> None:
    hub.add(NAME, FILES)
    hub.fault("config.json", To(location))
    with pytest.raises(RemoteError, match="転送先が安全なアドレスではありません"):
        get(wire, f"/{NAME}/resolve/main/config.json")


def test_a_redirect_does_not_lead_from_https_to_http() -> None:
    secure = httpx2.URL("https://hub.example/x")
    assert str(wires._next(secure, "/y", ASKED)) == "https://hub.example/y"
    assert str(wires._next(secure, "https://other.example/y", ASKED)) == "https://other.example/y"
    assert str(wires._next(httpx2.URL("http://hub.example/x"), "https://hub.example/y", ASKED)) == "https://hub.example/y"
    with pytest.raises(RemoteError):
        wires._next(secure, "http://hub.example/y", ASKED)


# ── answers


@pytest.mark.parametrize(
    ("status", "code", "token", "kind", "words"),
    [
        (401, "RepoNotFound", None, MissingError, "リポジトリがないか、非公開"),
        (401, "", TOKEN, RemoteError, "受け付けられません"),
        (401, "GatedRepo", None, RemoteError, "持ち主の許可"),
        (403, "GatedRepo", TOKEN, RemoteError, "持ち主の許可"),
        (404, "RepoNotFound", TOKEN, MissingError, "リポジトリがないか"),
        (404, "RevisionNotFound", None, MissingError, "その版"),
        (404, "EntryNotFound", None, MissingError, "そのファイルがありません"),
        (418, "", None, RemoteError, "418"),
        (416, "", None, RemoteError, "416"),
        (304, "", None, RemoteError, "304"),
    ],
)
def test_a_refusal_is_told_for_what_it_is(hub: Hub, status: int, code: str, token: str | None, kind: type, words: str) -> None:
    hub.add(NAME, FILES)
    hub.fault("listing", Status(status, (("X-Error-Code", code),)))
    with Wire(hub.address, token, Patience(tries=1)) as wire, pytest.raises(kind, match=words) as caught:
        look(wire, Repository("owner", "name"))
    assert TOKEN not in str(caught.value)
    assert len(hub.requests) == 1, "asked once: it would not change"


def test_another_hosts_refusal_may_pass(hub: Hub, wire: Wire) -> None:
    """The address of a large file is made for a short time; the hub makes a new one when it is asked again."""
    hub.add(NAME, FILES)
    hub.fault("model.safetensors", Status(403))
    with pytest.raises(Again):
        get(wire, f"/{NAME}/resolve/main/model.safetensors")
    assert get(wire, f"/{NAME}/resolve/main/model.safetensors") == b"weights"


def test_a_compressed_answer_is_refused(hub: Hub, wire: Wire) -> None:
    hub.add(NAME, FILES)
    hub.fault("config.json", Extra((("Content-Encoding", "gzip"),), last=True))
    with pytest.raises(RemoteError, match="圧縮"):
        get(wire, f"/{NAME}/resolve/main/config.json")
    assert {headers["accept-encoding"] for _, _, headers in hub.requests} == {"identity"}


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "9" * 12, "Wed, 21 Oct 2015", "", "٣"])
def test_a_retry_after_that_is_none_is_not_obeyed(value: str) -> None:
    found = wires._after(value)
    assert found is None or found == 0  # a day that is long past


def test_a_retry_after_is_seconds_or_a_date() -> None:
    assert wires._after(None) is None
    assert wires._after("120") == 120
    found = wires._after(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))
    assert found is not None and 80 < found <= 90
    assert wires._after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_waits_double_up_to_a_limit_and_never_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(wires.time, "sleep", slept.append)
    for _ in range(2):
        tries = Tries(Patience(tries=7, first=1, most=8), ASKED, lambda words: None)
        for _ in range(6):
            tries.again(Again(ASKED))
    for wait, longest in zip(slept, [1, 2, 4, 8, 8, 8] * 2, strict=True):
        assert longest / 2 <= wait <= longest
    assert slept[:6] != slept[6:]
    tries.again(Again(ASKED), moved=True)
    with pytest.raises(RemoteError, match="7 回"):
        for _ in range(6):
            tries.again(Again(ASKED))
