"""`tsuzuri serve` and `tsuzuri chat --url` as a person runs them: a real process, a real port, an orderly end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from served import Repeated

from tsuzuri.commands._greeting import program
from tsuzuri.serve.models import Served
from tsuzuri.store import audit, database, keys
from tsuzuri.types import Done, Text, Usage

START = """
import pathlib, re, sys, time
begun = time.monotonic()
from tsuzuri.serve import server
run = server.run
def told(service, address, at, grace):
    heavy = [name for name in ("torch", "tokenizers", "numpy", "pyarrow", "transformers") if name in sys.modules]
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
    print("started", round(time.monotonic() - begun, 2), round(time.process_time(), 2), round(peak), heavy, flush=True)
    run(service, address, at, grace)
server.run = told
sys.argv = ["tsuzuri", *sys.argv[1:]]
from tsuzuri.commands import main
main()
"""


@contextmanager
def process(place: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    given = {**os.environ, "TSUZURI_LANG": "en", "TSUZURI_DATA_DIR": str(place / "data"), **environment}
    line = [sys.executable, "-c", START, "serve", "--port", "0", *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=given, cwd=place) as found:
        try:
            yield found
        finally:
            found.kill()


def address(server: subprocess.Popen[str]) -> tuple[str, str | None]:
    """What it prints: where it is, and its first key if it made one. It serves soon after."""
    return printed(server)[:2]


def printed(server: subprocess.Popen[str]) -> tuple[str, str | None, str]:
    assert server.stdout
    shown = ""
    while "Ctrl-C" not in shown:
        line = server.stdout.readline()
        assert line, server.stderr.read() if server.stderr else ""
        shown += line
    url = re.search(r"Serving at (\S+)\.", shown)
    key = re.search(r"shown only now: (tsz_\S+)", shown)
    assert url
    return url[1], key[1] if key else None, shown


def until_up(url: str) -> None:
    for _ in range(100):
        try:
            httpx2.get(f"{url}/health")
        except httpx2.HTTPError:
            time.sleep(0.02)
        else:
            return


@pytest.fixture(scope="module")
def upstream(serving: Callable[..., Any]) -> Iterator[Any]:
    chat = Repeated(Text("こん"), Text("にちは"), Usage(3, 2), Done("stop"))
    slow = Repeated(*[part for _ in range(300) for part in (0.05, Text("あ"))], Done("stop"))
    with serving(Served("far", chat), Served("slow", slow)) as running:
        yield running


def test_a_server_with_remote_models_only_starts_at_once_without_torch(tmp_path: Path, upstream: Any) -> None:
    with process(tmp_path, "--remote", f"far={upstream.url}/v1", TSUZURI_REMOTE_KEY=upstream.key) as server:
        url, key = address(server)
        assert key and server.stdout
        seconds, computed, megabytes, heavy = re.fullmatch(r"started (\S+) (\S+) (\d+) (.*)\n", server.stdout.readline()).groups()  # type: ignore[union-attr]
        print(f"started in {seconds} s, {computed} s of them computing, with {megabytes} MB")
        assert heavy == "[]"
        assert float(computed) < 3 and float(seconds) < 10 and int(megabytes) < 200  # whatever else the machine does meanwhile
        until_up(url)
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            found = client.chat.completions.create(model="far", messages=[{"role": "user", "content": "あ"}])
            assert (found.choices[0].message.content, found.usage.total_tokens) == ("こんにちは", 5)
            with pytest.raises(openai.BadRequestError) as caught:
                client.completions.create(model="far", prompt="あ")
            assert caught.value.param == "model"
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 0
        assert server.stderr and server.stderr.read() == ""
        assert not list((tmp_path / "data").glob("*-wal")) or (tmp_path / "data" / "tsuzuri.sqlite3").is_file()
    with process(tmp_path, "--remote", f"far={upstream.url}/v1") as server:
        assert address(server)[1] is None, "the key is shown once"


def test_a_server_of_every_provider_and_a_route_is_small_and_tells_no_key(tmp_path: Path, upstream: Any) -> None:
    """The key of the one that answers is in a file, that of another in the environment; the first of the route is not there."""
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        f"""
remotes:
  gone: {{provider: gemini, model: m, address: "http://127.0.0.1:9", key_env: GEMINI_API_KEY}}
  far: {{provider: anthropic, model: far, address: {upstream.url}, key_file: key}}
  openai: {{provider: openai, model: m, key_env: GEMINI_API_KEY}}
  azure: {{provider: azure_openai, model: m, address: "https://x.openai.azure.com/openai/v1", key_env: GEMINI_API_KEY}}
routes:
  company: {{models: [{{model: gone, when: {{personal: false}}}}, {{model: far}}]}}
""",
        encoding="utf-8",
    )
    (tmp_path / "key").write_text(upstream.key, encoding="utf-8")
    with process(tmp_path, "--routes", str(routes), "--remote", "more=openai:m", "--free", "far", GEMINI_API_KEY="planted-key") as server:
        url, key, told = printed(server)
        assert "No price is known for gone, openai, azure, more:" in told
        assert key and server.stdout
        seconds, computed, megabytes, heavy = re.fullmatch(r"started (\S+) (\S+) (\d+) (.*)\n", server.stdout.readline()).groups()  # type: ignore[union-attr]
        assert heavy == "[]"
        assert float(computed) < 3 and float(seconds) < 10 and int(megabytes) < 200  # whatever else the machine does meanwhile
        until_up(url)
        body = {"model": "company", "messages": [{"role": "user", "content": "あ"}]}
        found = httpx2.post(f"{url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=30)
        assert found.status_code == 200, found.text
        assert found.json()["choices"][0]["message"]["content"] == "こんにちは"
        assert (found.headers["x-tsuzuri-model"], found.headers["x-tsuzuri-fallback"]) == ("far", "gone (unreachable)")
        server.send_signal(signal.SIGINT)
        shown, errors = server.communicate(timeout=20)
    for place in (shown, errors, found.text, str(found.headers)):
        assert "planted-key" not in place and upstream.key not in place


def test_ctrl_c_ends_a_stream_with_a_terminator(tmp_path: Path, upstream: Any) -> None:
    with process(tmp_path, "--grace", "0.5", "--remote", f"slow={upstream.url}/v1", TSUZURI_REMOTE_KEY=upstream.key) as server:
        url, key = address(server)
        until_up(url)
        body = {"model": "slow", "messages": [{"role": "user", "content": "あ"}], "stream": True}
        headers = {"authorization": f"Bearer {key}"}
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=20) as response:
            lines = response.iter_lines()
            while "あ" not in next(lines):
                pass
            server.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert "shutting_down" in rest[-2] and rest[-1] == "data: [DONE]"
        assert server.wait(10) == 0


def test_the_second_ctrl_c_ends_at_once_and_still_with_terminators_and_records(tmp_path: Path, upstream: Any) -> None:
    with process(tmp_path, "--remote", f"slow={upstream.url}/v1", TSUZURI_REMOTE_KEY=upstream.key) as server:
        url, key = address(server)
        until_up(url)
        body = {"model": "slow", "messages": [{"role": "user", "content": "あ"}], "stream": True}
        headers = {"authorization": f"Bearer {key}"}
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=20) as response:
            lines = response.iter_lines()
            while "あ" not in next(lines):
                pass
            server.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert server.poll() is None, "it waits for the answer"
            begun = time.monotonic()
            server.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert server.wait(10) == 0
        assert time.monotonic() - begun < 3
        assert "shutting_down" in rest[-2] and rest[-1] == "data: [DONE]"
        assert server.stderr and server.stderr.read() == ""
    with database.open(tmp_path / "data") as db:
        written = [record.body for record in audit.records(db) if record.kind == "request"]
        assert [(one["request"], one["status"]) for one in written] == [(response.headers["x-request-id"], 200)]


def test_behind_the_guard_a_model_sees_no_personal_data_and_refused_content_ends_the_answer(tmp_path: Path, upstream: Any) -> None:
    said = "連絡先は taro.yamada@example.co.jp です。"
    with process(tmp_path, "--remote", f"far={upstream.url}/v1", "--refuse", "weapons", TSUZURI_REMOTE_KEY=upstream.key) as server:
        url, key = address(server)
        until_up(url)
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            client.chat.completions.create(model="far", messages=[{"role": "user", "content": said}])
            seen = upstream.service.pool.get("far").chat.calls[-1][0][-1].content
            refused = client.chat.completions.create(
                model="far", messages=[{"role": "user", "content": "手製の爆弾の作り方を教えてください。"}]
            )
    assert seen.startswith("連絡先は ") and "taro" not in seen and "example" not in seen
    assert refused.choices[0].finish_reason == "content_filter"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0", "--remote", "a=http://127.0.0.1:9/v1"], "--tls-cert"),
        (["--host", "192.0.2.1", "--remote", "a=http://127.0.0.1:9/v1"], "--tls-cert"),
        (["--tls-cert", "x.pem", "--remote", "a=http://127.0.0.1:9/v1"], "--tls-key"),
        (["--remote", "a"], "NAME=VALUE"),
        (["--remote", "a=ftp://x"], "address"),
        (["--remote", "a=http://127.0.0.1:9/v1", "--free", "b"], "There is a."),
        (["--remote", "a=gemini"], "provider:model@address"),
        (["--remote", "a=nobody:m"], "anthropic"),
        (["--remote", "a=azure_openai:m"], "address"),
        (["--remote", "a=http://127.0.0.1:9/v1", "--routes", "none.yaml"], "none.yaml"),
        (["--remote", "a b=http://127.0.0.1:9/v1"], "letters"),
        (["--remote", "a=http://127.0.0.1:9/v1", "--remote", "a=http://127.0.0.1:9/v1"], "two models"),
        (["--remote", "a=http://127.0.0.1:9/v1", "--alias", "b=c"], "There is a."),
        (["--remote", "a=http://127.0.0.1:9/v1", "--refuse", "weather"], "weapons"),
        (["--remote", "a=http://127.0.0.1:9/v1", "--prices", "none.yaml"], "none.yaml"),
        (["--model", "nowhere"], "no such directory"),
        ([], "make tiny"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_refused_before_anything_listens(arguments: list[str], told: str, tmp_path: Path) -> None:
    with process(tmp_path, *arguments) as server:
        _, errors = server.communicate(timeout=30)
        assert server.returncode == 2
    assert told in errors and "Traceback" not in errors


@pytest.mark.parametrize("known", [True, False])
def test_what_is_printed_to_be_typed_can_be_typed_here(known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed where the shell does not look, the program is called as it was called to start the server."""
    beside = tmp_path / "tsuzuri"
    beside.write_text("#!/bin/sh\n")
    beside.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path if known else tmp_path / "elsewhere"))
    monkeypatch.setattr(sys, "argv", [".venv/bin/tsuzuri", "serve"])
    assert program() == ("tsuzuri" if known else ".venv/bin/tsuzuri")
    monkeypatch.setattr(sys, "argv", ["/somewhere/tsuzuri/__main__.py", "serve"])
    monkeypatch.setattr(sys, "executable", str(tmp_path.resolve() / ".venv" / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    assert program() == ("tsuzuri" if known else ".venv/bin/python -m tsuzuri")


@pytest.mark.parametrize("first", [True, False])
def test_each_of_the_three_things_to_try_works_as_it_is_printed(first: bool, tmp_path: Path, upstream: Any) -> None:
    """With the key that is shown once, and later with one of one's own in the environment."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if not first:
        with database.open(tmp_path / "data") as db:
            _, secret = keys.create(db, "mine", scopes=("chat",))
    with process(tmp_path, "--remote", f"far={upstream.url}/v1", TSUZURI_REMOTE_KEY=upstream.key, PATH=path) as server:
        url, _, shown = printed(server)
        until_up(url)
        lines = [line.strip() for line in shown.splitlines() if line.startswith("  ") and "first-administrator" not in line]
        assert len(lines) == 3
        environment = {**os.environ, "PATH": path, "TSUZURI_LANG": "en", **({} if first else {"TSUZURI_KEY": secret})}
        for line in lines:
            done = subprocess.run(line, shell=True, input="あ", capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path)
            assert "こんにちは" in done.stdout, (line, done.stderr)


def test_keys_for_two_places_are_not_sent_anywhere(tmp_path: Path) -> None:
    two = ["--remote", "a=http://127.0.0.1:9/v1", "--remote", "b=http://127.0.0.1:10/v1"]
    with process(tmp_path, *two, TSUZURI_REMOTE_KEY="secret") as server:
        _, errors = server.communicate(timeout=30)
    assert "several servers" in errors and "secret" not in errors


def chat(upstream: Any, *arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tsuzuri", "chat", "--url", f"{upstream.url}/v1", *arguments]
    environment = {**os.environ, "TSUZURI_LANG": "en", "TSUZURI_KEY": key or upstream.key}
    return subprocess.run(line, capture_output=True, text=True, timeout=30, env=environment, input="")


def test_chat_talks_with_a_server(upstream: Any) -> None:
    assert chat(upstream, "-m", "あ").stdout == "こんにちは\n"
    found = chat(upstream, "-m", "あ", "--json", "--model", "far", "--temperature", "0.1", "--stop", "ん").stdout
    assert '"finish": "stop"' in found and '"completion_tokens": 2' in found
    _, options = upstream.service.pool.get("far").chat.calls[-1]
    assert (options.sampling.temperature, options.stop) == (0.1, ("ん",))


def test_chat_talks_in_the_form_of_a_provider_and_sends_only_what_was_given(upstream: Any) -> None:
    assert chat(upstream, "-m", "あ", "--provider", "anthropic", "--model", "far", "--top-k", "3").stdout == "こんにちは\n"
    _, options = upstream.service.pool.get("far").chat.calls[-1]
    assert (options.sampling.temperature, options.sampling.top_p, options.sampling.top_k) == (1.0, 1.0, 3)
    for arguments, told in (
        (["--provider", "anthropic"], "--model"),
        (["--provider", "anthropc", "--model", "far"], "anthropic"),
        (["--provider", "anthropic", "--model", "far", "--min-p", "0.1"], "min_p"),
    ):
        done = chat(upstream, "-m", "あ", *arguments)
        assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_chat_tells_what_a_server_refuses(upstream: Any) -> None:
    for arguments, key, told in [
        (["-m", "あ", "--model", "none"], None, "There is no model 'none'"),
        (["-m", "あ"], "tsz_wrong", "401"),
        (["-m", "あ", "--threads", "1"], None, "Not with --url"),
    ]:
        done = chat(upstream, *arguments, key=key)
        assert done.returncode == 2 and told in done.stderr.replace("モデル「none」はありません", "There is no model 'none'"), done.stderr
        assert "Traceback" not in done.stderr


def test_it_is_watched_as_a_file_says_and_a_wrong_one_ends_the_start(tmp_path: Path, upstream: Any) -> None:
    far = ("--remote", f"far={upstream.url}/v1", "--watch", str(tmp_path / "watch.yaml"))
    (tmp_path / "watch.yaml").write_text("traces: {file: spans.jsonl}\nalerts: {rules: [{when: p99, over: 0, least: 1}], every: 0.05}")
    with process(tmp_path, *far, TSUZURI_REMOTE_KEY=upstream.key) as server:
        url, key = address(server)
        until_up(url)
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            client.chat.completions.create(model="far", messages=[{"role": "user", "content": "ひみつ"}])
        assert server.stderr and server.stderr.readline().startswith("alert p99: firing (all ")
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    written = (tmp_path / "spans.jsonl").read_text(encoding="utf-8")
    assert '"name":"model"' in written and "ひみつ" not in written and upstream.key not in written
    for text, told in (
        ("traces: {share: 1}", "traces"),
        ("drift: {baseline: watch.yaml}", "baseline"),
        ("alerts: {rules: [{when: x}]}", "when"),
    ):
        (tmp_path / "watch.yaml").write_text(text)
        with process(tmp_path, *far, TSUZURI_REMOTE_KEY=upstream.key) as server:
            _, errors = server.communicate(timeout=60)
            assert server.returncode == 2 and told in errors and "Traceback" not in errors, errors
