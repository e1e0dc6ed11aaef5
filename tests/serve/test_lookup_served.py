"""With guesses ahead = without, over the wire: the same text, usage and log-probabilities for many who ask at once, and it is counted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serve import readers
from serve.test_serve_command import process
from served import Running

from tsuzuri.serve.models import from_directory

REPEATING = "食材を切ったり熱を加えたりすること。" * 4
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"prompt": REPEATING, "max_tokens": 60, "temperature": 0}),
    ("/v1/completions", {"prompt": REPEATING, "max_tokens": 60, "temperature": 0.3, "seed": 4, "n": 2, "logprobs": 2}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": REPEATING}], "max_tokens": 60, "seed": 5, "logprobs": True}),
    ("/v1/messages", {"messages": [{"role": "user", "content": REPEATING}], "max_tokens": 60, "temperature": 0}),
]


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], tiny: Path) -> Iterator[Running]:
    plain, guessing = (replace(from_directory(tiny, lookup=count), name=name) for count, name in ((0, "plain"), (8, "guessing")))
    with serving(plain, guessing) as found:
        yield found


def told(value: Any) -> Any:
    """An answer without what differs between any two, and log-probabilities to what the kernels of PyTorch differ by."""
    if isinstance(value, dict):
        if "cache_read_input_tokens" in value:  # Anthropic counts what is known already apart
            value = {**value, "input_tokens": value["input_tokens"] + value["cache_read_input_tokens"], "cache_read_input_tokens": 0}
        return {key: told(one) for key, one in value.items() if key not in ("id", "created", "model", "cached_tokens")}
    if isinstance(value, list):
        return [told(one) for one in value]
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value


def test_answers_are_the_same_and_guesses_are_counted(running: Running) -> None:
    def ask(name: str, path: str, body: dict[str, Any]) -> Any:
        with running.client() as client:
            found = client.post(path, json={"model": name, **body})
        assert found.status_code == 200, found.text
        return found.json()

    with ThreadPoolExecutor(8) as pool:  # all of them at once
        plain = [pool.submit(ask, "plain", *one) for one in BODIES]
        guessing = [pool.submit(ask, "guessing", *one) for one in BODIES]
    for one, other in zip(plain, guessing, strict=True):
        assert told(other.result()) == told(one.result())
    with running.client() as client:
        text = client.get("/metrics").text
    counted = {kind: float(number) for kind, number in re.findall(r'tsuzuri_guesses_total{kind="(\w+)",model="guessing"} (\S+)', text)}
    assert 0 < counted["accepted"] <= counted["offered"]
    assert 'model="plain"' not in "".join(re.findall(r"tsuzuri_guesses_total.*", text))


def test_a_stream_is_the_whole_answer(running: Running) -> None:
    path, body = BODIES[0]
    with running.client() as client:
        whole = client.post(path, json={"model": "guessing", **body}).json()["choices"][0]["text"]
        lines = client.post(path, json={"model": "guessing", **body, "stream": True}).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == whole


def test_where_nothing_is_written_it_is_refused(tmp_path: Path) -> None:
    readers.encoder(tmp_path / "modern")
    with process(tmp_path, "--model", "modern", "--lookup", "8") as server:
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 2 and "'lookup'" in errors and "No model on this machine writes" in errors
