"""What was said is nowhere afterwards: not in the data, not in its write-ahead log, not in what the server logged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serve.test_leaving import OF_ALL, WIRES, left
from served import Repeated

from tsuzuri.serve.models import Served
from tsuzuri.store import database, keys, ledger
from tsuzuri.types import Done, Text, Usage

ASKED, ANSWERED, FAILED = "金糸雀の問い7f3a", "金糸雀の答え9c21", "金糸雀の不具合e5d0"


def bytes_of(place: Path) -> dict[str, bytes]:
    return {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()}


def found(text: str, place: Path) -> list[str]:
    """The files that hold the text, in either of the ways in which it may be written down."""
    ways = [text.encode(), text.encode("utf-16-le"), text.encode("unicode_escape"), text.encode().hex().encode()]
    return [name for name, data in bytes_of(place).items() if any(way in data for way in ways)]


def cost(model: str, *, input: int, output: int, cached: int = 0, at: int) -> int | None:
    return output


def body(path: str, **more: Any) -> dict[str, Any]:
    said = {
        name: [{"role": "user", "content": ASKED}] if name == "messages" else ASKED for name in ("messages", "input") if name in WIRES[path]
    }
    return {**WIRES[path], **said, **more}


def test_what_was_said_is_nowhere_while_it_runs_and_afterwards(
    serving: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    models = [
        Served("good", Repeated(Text(ANSWERED), Usage(3, 1), Done("stop"))),
        Served("slow", Repeated(Text(ANSWERED), 5.0, Done("stop"))),
        Served("broken", Repeated(Text(ANSWERED), 0.05, RuntimeError(FAILED))),
    ]
    with database.open(tmp_path / "data", tmp_path / "secrets") as db:
        key, secret = keys.create(db, "canary", scopes=keys.SCOPES)
        ledger.set_limit(db, f"key:{key.id}", 10_000)
        with serving(*models, cost=cost, on=db) as running:
            running.key = secret
            with running.client() as client:
                for path in OF_ALL:
                    length = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
                    for stream in (False, True):
                        ask = lambda model: body(path, **{length: 50}, model=model, stream=stream)  # noqa: E731, B023
                        assert ANSWERED in client.post(path, json=ask("good")).text
                        assert client.post(path, json=ask("broken")).status_code in (200, 500)
                        assert client.post(path, json=ask("none")).status_code == 404
                        half = f'{{"messages": "{ASKED}'.encode()
                        assert client.post(path, content=half, headers={"content-type": "application/json"}).status_code == 400
                        left(running, path, ask("slow"), lambda connection: connection.settimeout(0.05))
            assert "chat_completions" in str(bytes_of(tmp_path / "data")), "something is written down"
            for text in (ASKED, ANSWERED, FAILED):
                assert found(text, tmp_path) == []
    for text in (ASKED, ANSWERED, FAILED):
        assert found(text, tmp_path) == []
        assert text not in caplog.text and text.encode("unicode_escape").decode() not in caplog.text


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(ASKED, encoding="utf-8")
    (tmp_path / "b").write_bytes(b"x" + ASKED.encode("unicode_escape"))
    assert sorted(found(ASKED, tmp_path)) == ["a", "b"]
