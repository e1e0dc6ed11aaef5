"""Watching it run, over the real server: steps and traces, drift against a baseline, alerts; nothing goes anywhere unasked, and nothing said is in it."""

from __future__ import annotations

import json
import logging
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from place import ROOT
from served import Repeated, until
from sqlalchemy import text

from tsuzuri.chat.providers import openai_compatible
from tsuzuri.errors import ConfigError, FormatError, MissingError
from tsuzuri.guard.guarded import Checks
from tsuzuri.serve.app import Service
from tsuzuri.serve.guarding import Guard
from tsuzuri.serve.models import Pool, Served, from_directory
from tsuzuri.serve.watch import drift, settings, steps
from tsuzuri.serve.watch.alerts import p99
from tsuzuri.serve.watch.settings import Alerts, Drift, Rule, Traces, Watch
from tsuzuri.store import audit, database, ledger
from tsuzuri.store.database import Database
from tsuzuri.types import Done, Text, Usage

ASKED = {"model": "script", "messages": [{"role": "user", "content": "電話は 090-1234-5678、ひみつの話"}]}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, SPAN = PARENT.split("-")[1:3]
ALL = ["authenticate", "turn", "body", "route", "count", "reserve", "guard", "model", "settle"]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Database]:
    with database.open(tmp_path / "data", tmp_path / "secrets") as found:
        yield found


def script(*events: Any) -> Served:
    return Served("script", Repeated(*(events or (Text("こたえ"), Usage(3, 2), Done("stop")))))


@contextmanager
def listening(status: int = 200) -> Iterator[tuple[str, list[tuple[str, dict[str, str], Any]]]]:
    """A server that keeps what it is sent: its address, and (path, headers, JSON) of each POST."""
    heard: list[tuple[str, dict[str, str], Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append((self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(body)))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", heard
        server.shutdown()


def spans(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [span for line in lines for each in line["resourceSpans"] for scope in each["scopeSpans"] for span in scope["spans"]]


def notes(span: dict[str, Any]) -> dict[str, Any]:
    return {each["key"]: next(iter(each["value"].values())) for each in span["attributes"]}


# ── traces


def test_every_step_of_a_call_is_a_span_and_nothing_said_is_in_them(serving: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "new" / "spans.jsonl"
    watch = Watch(traces=Traces(file))
    how = {"cost": lambda *_, **__: 1, "guard": Guard(Checks()), "watch": watch}
    with serving(script(0.05, Text("秘密のこたえ"), Usage(3, 2), Done("stop")), **how) as running, running.client() as client:
        answer = client.post("/v1/chat/completions", json={**ASKED, "max_tokens": 5}, headers={"traceparent": PARENT})
        assert answer.status_code == 200
        assert until(lambda: bool(spans(file)), 30)
        found = {span["name"]: span for span in spans(file)}
        assert list(found) == ["POST /v1/chat/completions", *ALL]
        root = found.pop("POST /v1/chat/completions")
        assert (root["traceId"], root["parentSpanId"], root["kind"], root["status"]) == (TRACE, SPAN, 2, {})
        assert notes(root)["tsuzuri.request"] == answer.headers["x-request-id"] and notes(root)["http.response.status_code"] == "200"
        for span in found.values():
            assert (span["traceId"], span["parentSpanId"], span["status"]) == (TRACE, root["spanId"], {})
            assert int(root["startTimeUnixNano"]) <= int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
            assert int(span["endTimeUnixNano"]) <= int(root["endTimeUnixNano"])
        model = found["model"]
        assert int(model["endTimeUnixNano"]) - int(model["startTimeUnixNano"]) >= 50_000_000
        told = notes(model)
        assert told.pop("tsuzuri.first_event_ms") >= "5"
        assert told == {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "script",
            "gen_ai.usage.input_tokens": "3",
            "gen_ai.usage.output_tokens": "2",
            "gen_ai.response.finish_reasons": "stop",
        }
        written = file.read_bytes()
        for secret in ("ひみつ", "秘密", "090-", running.key, "127.0.0.1"):
            assert secret.encode() not in written
        assert file.stat().st_mode & 0o077 == 0
        text = client.get("/metrics").text
        assert all(f'tsuzuri_step_seconds_count{{step="{name}"}}' in text for name in ALL)


def test_a_step_that_fails_and_a_stream_that_is_left_have_spans_too(serving: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    broken = Served("broken", Repeated(RuntimeError("ひみつ")))
    endless = Served("endless", Repeated(*[part for _ in range(2000) for part in (0.02, Text("あ"))]))
    with serving(broken, endless, watch=Watch(traces=Traces(file))) as running, running.client() as client:
        assert client.post("/v1/chat/completions", json={**ASKED, "model": "broken"}).status_code == 500
        assert client.post("/v1/chat/completions", json=ASKED, headers={"authorization": "Bearer no"}).status_code == 401
        with client.stream("POST", "/v1/chat/completions", json={**ASKED, "model": "endless", "stream": True}) as response:
            next(response.iter_lines())
        assert until(lambda: sum(span["kind"] == 2 for span in spans(file)) == 3, 30)
    first, second, third = (
        [span for span in spans(file) if span["traceId"] == root["traceId"]] for root in spans(file) if root["kind"] == 2
    )
    assert first[0]["status"] == {"code": 2} and first[0]["attributes"][-1]["key"] == "error.type"
    assert notes(next(span for span in first if span["name"] == "model"))["error.type"] == "RuntimeError"
    assert [span["name"] for span in second[1:]] == ["authenticate"] and notes(second[1])["error.type"] == "Refusal"
    assert notes(third[0])["http.response.status_code"] == "200" and all(span["endTimeUnixNano"] != "0" for span in third)


def test_a_call_of_many_steps_has_a_bound_and_says_so(serving: Callable[..., Any], tmp_path: Path, tiny: Path) -> None:
    file = tmp_path / "spans.jsonl"
    with serving(from_directory(tiny), watch=Watch(traces=Traces(file))) as running, running.client() as client:
        assert client.post("/v1/embeddings", json={"model": "tiny", "input": ["あ"] * 200}).status_code == 200
        assert until(lambda: bool(spans(file)), 30)
        text = client.get("/metrics").text
    found = spans(file)
    assert len([span for span in found if span["traceId"] == found[0]["traceId"]]) == 1 + steps.MOST
    left = 3 + 200 + 1 + 1 + 1 - steps.MOST  # authenticate, turn and body; guard; reserve; model; settle
    assert notes(found[0])["tsuzuri.spans_left_out"] == str(left)
    assert 'tsuzuri_step_seconds_count{step="guard"} 200.0' in text, "the time of all is known"


@pytest.mark.parametrize(
    "headers",
    [[], ["nonsense"], ["ff-" + PARENT[3:]], [PARENT + "-more"], [PARENT.upper()], [f"00-{'0' * 32}-{SPAN}-01"], [PARENT, PARENT]],
    ids=str,
)
def test_what_is_no_trace_begins_a_new_one(headers: list[str]) -> None:
    assert steps.received(headers) is None
    assert steps.begun(headers, 1).recorded and not steps.begun(headers, 0).recorded


def test_a_later_version_may_say_more() -> None:
    assert steps.received([f"cc-{TRACE}-{SPAN}-01-what-else"]) == steps.Trace(TRACE, SPAN, True)


def test_a_share_is_a_share() -> None:
    assert 400 < sum(steps.begun([], 0.25).recorded for _ in range(2000)) < 600


def test_a_provider_is_told_the_trace_only_where_traces_are_set_up(serving: Callable[..., Any], tmp_path: Path) -> None:
    heard: list[str | None] = []
    file = tmp_path / "spans.jsonl"
    with serving(script()) as there:
        plain = there.service.watching.steps

        def listened(headers: list[str]) -> Any:
            heard.append(headers[0] if headers else None)
            return plain(headers)

        there.service.watching.steps = listened
        remote = Served("script", openai_compatible.chat(f"{there.url}/v1", "script", there.key))
        for watch in (Watch(), Watch(traces=Traces(file))):
            with serving(remote, watch=watch) as running, running.client() as client:
                for sent in ({"traceparent": PARENT}, {"traceparent": PARENT[:-1] + "0"}):
                    assert client.post("/v1/chat/completions", json=ASKED, headers=sent).status_code == 200
                until(lambda: len(spans(file)) > 0)
    asking = next(span for span in spans(file) if span["name"] == "model")
    assert heard[:2] == [None, None]
    assert heard[2] == f"00-{TRACE}-{asking['spanId']}-01"
    assert heard[3] is not None and heard[3].startswith(f"00-{TRACE}-") and heard[3].endswith("-00")
    assert {span["traceId"] for span in spans(file)} == {TRACE} and sum(span["kind"] == 2 for span in spans(file)) == 1, (
        "00: not to be kept"
    )


def test_spans_go_to_a_collector_where_one_is_named_and_a_lost_one_is_counted(serving: Callable[..., Any], tmp_path: Path) -> None:
    with listening() as (url, heard), serving(script(), watch=Watch(traces=Traces(endpoint=f"{url}/v1/traces"))) as running:
        with running.client() as client:
            client.post("/v1/chat/completions", json=ASKED)
        assert until(lambda: bool(heard), 30)
        path, headers, body = heard[0]
        assert (path, headers["content-type"]) == ("/v1/traces", "application/json") and "authorization" not in headers
        assert body["resourceSpans"][0]["resource"]["attributes"][0] == {"key": "service.name", "value": {"stringValue": "tsuzuri"}}
    with listening(503) as (url, heard), serving(script(), watch=Watch(traces=Traces(endpoint=url))) as running, running.client() as client:
        assert client.post("/v1/chat/completions", json=ASKED).status_code == 200
        assert until(lambda: re.search(r"tsuzuri_spans_dropped_total [1-9]", client.get("/metrics").text) is not None, 30)


def test_what_waits_at_the_end_goes_out_and_a_deaf_collector_does_not_hold_it_up(
    serving: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tsuzuri.serve.watch import watching

    monkeypatch.setattr(watching, "LAST", 0.2)
    file = tmp_path / "spans.jsonl"
    with serving(script(), watch=Watch(traces=Traces(file))) as running, running.client() as client:
        for _ in range(20):
            client.post("/v1/chat/completions", json=ASKED)
    assert sum(span["kind"] == 2 for span in spans(file)) == 20
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with serving(script(), watch=Watch(traces=Traces(endpoint=address))) as running, running.client() as client:
            client.post("/v1/chat/completions", json=ASKED)
            begun = time.monotonic()
            running.stop()
            assert time.monotonic() - begun < 8, "10 seconds is what a collector has"


def test_a_file_of_spans_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tsuzuri.serve.watch import spans as module

    path = tmp_path / "spans.jsonl"
    for number in range(5):
        assert module._append(path, f"{number:09d}\n".encode(), 25)
    assert path.read_text() == "000000004\n" and (tmp_path / "spans.jsonl.1").read_text() == "000000002\n000000003\n"


# ── drift


def requests(random: random.Random, longer: float = 1.0, english: float = 0.1) -> list[drift.Seen]:
    return [
        {"length": round(random.lognormvariate(4, 1) * longer), "language": "latin" if random.random() < english else "ja"}
        for _ in range(500)
    ]


def looked(place: Path, *windows: list[drift.Seen], over: float = 0.25) -> drift.Drift:
    found = drift.Drift(place, 500, over)
    for window in windows:
        for seen in window:
            if found.add(seen):
                found.look()
    return found


def test_what_stays_the_same_is_no_drift_and_what_changes_is_named(tmp_path: Path) -> None:
    numbers = random.Random(1)
    path = tmp_path / "baseline.json"
    same = looked(path, requests(numbers), requests(numbers))
    assert [(one.quantity, one.drifted) for one in same.findings] == [("length", False), ("language", False)]
    longer = looked(path, requests(numbers, longer=2))  # the baseline is read from the disk
    assert [(one.quantity, one.drifted) for one in longer.findings] == [("length", True), ("language", False)]
    english = looked(path, requests(numbers, english=0.6))
    assert [(one.quantity, one.drifted) for one in english.findings] == [("length", False), ("language", True)]
    assert not looked(path, requests(numbers, longer=2)[:499]).findings, "a window that is not full says nothing"


def test_false_alarms_are_as_rare_as_is_said() -> None:
    """Of a thousand windows of a distribution that does not change, at most one or two pass what chance passes (the bound alone, no `over`)."""
    numbers, alarms, windows = random.Random(7), 0, 1000
    for _ in range(windows):
        base = drift.bins([numbers.lognormvariate(0, 1) for _ in range(500)])
        alarms += drift.compare("x", base, [numbers.lognormvariate(0, 1) for _ in range(500)], 0.0).drifted
    assert alarms <= 5, "binomial(1000, 0.001) is above 5 once in 2000"


@pytest.mark.parametrize(("freedom", "value"), [(1, 10.828), (2, 13.816), (9, 27.877), (30, 59.703)])  # tables of χ², 0.001
def test_chi_squared_is_that_of_the_tables(freedom: int, value: float) -> None:
    assert drift.chi_squared(freedom, 0.001) == pytest.approx(value, rel=0.04 if freedom < 3 else 0.01)


def test_a_value_that_is_new_and_one_that_never_changed_are_seen() -> None:
    base = drift.bins(["ja"] * 500)
    assert not drift.compare("language", base, ["ja"] * 500, 0.25).drifted
    assert drift.compare("language", base, ["ja"] * 400 + ["latin"] * 100, 0.25).drifted
    constant = drift.bins([16] * 500)
    assert drift.compare("length", constant, [17] * 500, 0.25).drifted and drift.compare("length", constant, [3] * 500, 0.25).drifted


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("今日は晴れです", "ja"),
        ("Hello there", "latin"),
        ("안녕하세요", "ko"),
        ("人工知能", "han"),
        ("привет", "other"),
        ("123 !?", "none"),
        ("API を使う", "ja"),
    ],
)
def test_a_language_by_its_script(text: str, name: str) -> None:
    assert drift.language(text) == name


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 2, "quantities": {}}', '{"version": 1, "quantities": {"a": {"alone": [], "edges": [2, 1], "counts": {"#0": 1}}}}', '{"version": 1, "quantities": {"a": 1}}'])  # fmt: skip
def test_a_baseline_that_is_none_is_refused(tmp_path: Path, text: str, own: Database) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(FormatError):
        drift.Drift(tmp_path / "b.json", 500, 0.25)


def test_drift_over_the_server_is_measured_and_told(serving: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "baseline.json"
    watch = Watch(drift=Drift(path, window=100), alerts=Alerts((Rule("drift"),), every=0.05))
    with serving(script(), guard=Guard(Checks()), watch=watch) as running, running.client() as client:
        say = lambda text: client.post("/v1/chat/completions", json={**ASKED, "messages": [{"role": "user", "content": text}]})  # noqa: E731
        for _ in range(100):
            assert say("こんにちは").status_code == 200
        assert until(path.exists, 30) and "こんにちは" not in path.read_text(encoding="utf-8")
        assert "tsuzuri_drift_psi{" not in client.get("/metrics").text, "nothing has been compared"
        for _ in range(100):
            assert say("my number is 090-1234-5678").status_code == 200
        assert until(lambda: 'tsuzuri_drifted{quantity="asked_language"} 1.0' in client.get("/metrics").text, 30)
        text = client.get("/metrics").text
        assert 'tsuzuri_drifted{quantity="guard"} 1.0' in text, "the guard finds something now"
        psi = re.search(r'tsuzuri_drift_psi{quantity="asked_language"} (\S+)', text)
        assert psi and float(psi[1]) > 0.25
        assert 'tsuzuri_drifted{quantity="answered_language"} 0.0' in text and 'tsuzuri_drifted{quantity="outcome"} 0.0' in text
        assert until(lambda: any("asked_language" in record.getMessage() for record in caplog.records), 30)


# ── alerts


def test_a_budget_that_is_nearly_gone_is_told_once_and_its_end_too(serving: Callable[..., Any], own: Database) -> None:
    from tsuzuri.store import keys

    key, secret = keys.create(own, "k", scopes=keys.SCOPES)
    ledger.set_limit(own, f"key:{key.id}", 10)
    with listening() as (url, heard):
        watch = Watch(alerts=Alerts((Rule("budget", over=0.5),), every=0.05, webhook=f"{url}/hook"))
        with serving(script(), on=own, cost=lambda *_, output, **__: 3 * output, watch=watch) as running, running.client() as client:
            ask = lambda: client.post(  # noqa: E731
                "/v1/chat/completions", json={**ASKED, "max_tokens": 2}, headers={"authorization": f"Bearer {secret}"}
            )
            assert ask().status_code == 200
            assert until(lambda: len(heard) == 1, 30)
            path, _, body = heard[0]
            assert (path, body["alert"], body["state"], body["subject"], body["value"]) == (
                "/hook",
                "budget",
                "firing",
                f"key:{key.id}",
                0.6,
            )
            assert 'tsuzuri_alert{alert="budget"} 1.0' in client.get("/metrics", headers={"authorization": f"Bearer {secret}"}).text
            ledger.set_limit(own, f"key:{key.id}", 1000)
            assert until(lambda: len(heard) == 2, 30)
            assert heard[1][2]["state"] == "resolved" and secret not in json.dumps(heard)
            assert 'tsuzuri_alert{alert="budget"} 0.0' in client.get("/metrics", headers={"authorization": f"Bearer {secret}"}).text


def test_faults_and_slow_answers_are_told(serving: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    rules = (Rule("errors", over=0.5, least=5), Rule("p99", over=0.1, least=3), Rule("first_p99", over=0.1, least=3))
    slow, broken = Served("slow", Repeated(0.2, Text("あ"), Done("stop"))), Served("broken", Repeated(RuntimeError("ひみつ")))
    with serving(slow, broken, watch=Watch(alerts=Alerts(rules, every=0.05))) as running, running.client() as client:
        firing = lambda name: f'tsuzuri_alert{{alert="{name}"}} 1.0' in client.get("/metrics").text  # noqa: E731
        for _ in range(2):
            client.post("/v1/chat/completions", json={**ASKED, "model": "slow"})
        assert until(lambda: 'tsuzuri_alert{alert="p99"} 0.0' in client.get("/metrics").text, 30), "too few to say"
        client.post("/v1/chat/completions", json={**ASKED, "model": "slow"})
        assert until(lambda: firing("p99") and firing("first_p99"), 30)
        for _ in range(200):
            if firing("errors"):
                break
            client.post("/v1/chat/completions", json={**ASKED, "model": "broken"})
        assert firing("errors")
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(line.startswith("alert p99: 発生 (all ") for line in said) and "ひみつ" not in "".join(said)


def test_an_audit_that_was_tampered_with_is_told(serving: Callable[..., Any], own: Database, tmp_path: Path) -> None:
    for number in range(5):
        audit.append(own, "test", {"number": number})
    with listening() as (url, heard):
        watch = Watch(alerts=Alerts((Rule("audit"),), every=0.05, audit_minutes=0.001, webhook=url))
        with serving(script(), on=own, watch=watch):
            assert not until(lambda: bool(heard), 0.5)
            with own.write() as connection:
                for name in ("audit_unchanged", "audit_undeleted"):
                    connection.execute(text(f"DROP TRIGGER {name}"))
                connection.execute(
                    text("UPDATE audit SET record = replace(record, :old, :new)"), {"old": '"number":3', "new": '"number":4'}
                )
            assert until(lambda: bool(heard), 30)
        assert (heard[0][2]["when"], heard[0][2]["state"], heard[0][2]["subject"]) == ("audit", "firing", "changed")


def test_a_webhook_that_does_not_answer_is_counted_and_never_shown(
    serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tsuzuri.serve.watch import alerts

    monkeypatch.setattr(alerts, "WAIT", 0.01)
    with listening(500) as (url, heard):
        monkeypatch.setenv("HOOK", f"{url}/planted-secret?token=planted")
        watch = Watch(alerts=Alerts((Rule("p99", over=0, least=1),), every=0.05, webhook_env="HOOK"))
        with serving(script(), watch=watch) as running, running.client() as client:
            assert client.post("/v1/chat/completions", json=ASKED).status_code == 200
            assert until(lambda: "tsuzuri_alerts_lost_total 1.0" in client.get("/metrics").text, 30)
        assert len(heard) == 3
    assert "planted" not in caplog.text


def test_p99_is_the_one_that_99_of_100_do_not_pass() -> None:
    assert p99([float(number) for number in range(1, 101)], 1) == 99.0
    assert p99([1.0], 1) == 1.0 and p99([], 1) is None and p99([1.0], 2) is None


# ── settings


def test_the_file_of_settings(tmp_path: Path) -> None:
    shown = re.search(r"\n\n(    traces: .*?)\n\nIn:", settings.__doc__ or "", re.DOTALL)
    assert shown
    (tmp_path / "watch.yaml").write_text("\n".join(line[4:] for line in shown[1].splitlines()), encoding="utf-8")
    found = settings.read(tmp_path / "watch.yaml")
    assert found.traces == Traces(Path("runs/spans.jsonl"), "http://127.0.0.1:4318/v1/traces", 0.1)
    assert found.alerts is not None and [rule.bound for rule in found.alerts.rules] == [0.9, 0.05, 30, None, None]
    with pytest.raises(MissingError, match="TSUZURI_WEBHOOK"):
        found.alerts.address({})
    assert found.alerts.address({"TSUZURI_WEBHOOK": "https://hooks.example/a?b=c"}) == "https://hooks.example/a?b=c"


@pytest.mark.parametrize("language", ["ja", "en"])
def test_the_page_shows_the_same_file_and_names_every_setting_metric_and_step(language: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / language / "watching.md").read_text(encoding="utf-8")
    shown = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert shown
    (tmp_path / "watch.yaml").write_text(shown[1], encoding="utf-8")
    assert settings.read(tmp_path / "watch.yaml").alerts is not None
    names = {field.name for kind in (Traces, Drift, Rule, Alerts) for field in fields(kind)} - {"name", "rules"}
    metrics = re.findall(r'"(tsuzuri_[a-z_]+)"', "".join(path.read_text() for path in (ROOT / "tsuzuri" / "serve").rglob("*.py")))
    assert [
        name for name in (*names, *ALL, *metrics, *settings.USUAL) if f"`{name}`" not in page.replace(" → ", "` → `").replace("\n", "`\n`")
    ] == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("traces: {}", "traces"),
        ("traces: {file: a, share: 2}", "traces.share"),
        ("traces: {endpoint: 'ftp://planted@b'}", "traces.endpoint"),
        ("trases: {}", "trases"),
        ("drift: {}", "drift.baseline"),
        ("drift: {baseline: a, window: 5}", "drift.window"),
        ("alerts: {rules: []}", "alerts.rules"),
        ("alerts: {rules: [{when: sometimes}]}", "when"),
        ("alerts: {rules: [{when: drift}]}", "alerts.rules"),
        ("alerts: {rules: [{when: audit, over: 1}]}", "over"),
        ("alerts: {rules: [{when: budget, minutes: 5}]}", "alerts.rules"),
        ("alerts: {rules: [{when: budget, over: 90}]}", "alerts.rules.over"),
        ("alerts: {rules: [{when: p99}, {when: p99, over: 3}]}", "alerts.rules"),
        ("alerts: {rules: [{when: p99}], webhook: 'https://a.example', webhook_env: B}", "alerts.webhook"),
        ("alerts: {rules: [{when: p99}], every: 0}", "alerts.every"),
    ],
)
def test_what_cannot_be_followed_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "watch.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(named)) as caught:
        settings.read(tmp_path / "watch.yaml")
    assert "planted" not in str(caught.value)


def test_without_settings_nothing_runs_beside_the_requests(own: Database) -> None:
    service = Service(Pool([script()]), own)
    assert service.watching.works() == []
    assert service.watching.noted() is None and service.watching.steps([PARENT]).trace is None
