"""Routes: the rules choose, the next one answers where one fails before its first event, and the answer says which it was."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import replay
from served import Repeated, Running

from tsuzuri import config
from tsuzuri.chat.providers import _wire
from tsuzuri.errors import ConfigError, ContextError, MissingError, RemoteError, Words
from tsuzuri.folder import find, names
from tsuzuri.serve import remotes, sending, settings
from tsuzuri.serve.models import Pool, Served, from_directory, routed
from tsuzuri.serve.routing import Reason, Route, When, place
from tsuzuri.store import audit, keys, ledger, prices, users
from tsuzuri.store.database import Database
from tsuzuri.types import Done, Notice, Text, Usage

PROVIDERS = "tsuzuri.chat.providers"
ASKED = "こんにちは"
PERSONAL = "連絡先は taro.yamada@example.co.jp です。"
TOOL = {"type": "function", "function": {"name": "f"}}
WORDS = {"asked": Words("あ", "a"), "found": Words("だめ", "no"), "todo": Words("う", "c")}


def route(*models: Any, **more: Any) -> Route:
    """As it stands in a file: names of models, or pairs of a name and its conditions."""
    listed = [{"model": one} if isinstance(one, str) else {"model": one[0], "when": one[1]} for one in models]
    return config.build(Route, {"models": listed, **more})


def says(text: str, *before: Any) -> Repeated:
    return Repeated(*before, Text(text), Usage(3, 2), Done("stop"))


@pytest.fixture
def routing(serving: Callable[..., Any]) -> Callable[..., Any]:
    @contextmanager
    def start(made: Route, *others: Served, **how: Any) -> Iterator[Running]:
        plain = [Served(name, says(name), tools=name != "b", forms=True) for name in ("a", "b", "c")]
        given = {one.name for one in others}
        with serving(*[one for one in plain if one.name not in given], *others, routed("r", made), **how) as running:
            yield running

    return start


def ask(running: Running, text: str = ASKED, key: str | None = None, **more: Any) -> Any:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {"model": "r", "messages": [{"role": "user", "content": text}], **more}
    with running.client() as client:
        return client.post("/v1/chat/completions", json=body, headers=headers)


def answered(found: Any) -> tuple[str, str | None]:
    """The text, and which model the headers name."""
    assert found.status_code == 200, found.text
    return found.json()["choices"][0]["message"]["content"], found.headers.get("x-tsuzuri-model")


# ── which


def test_personal_data_stays_where_the_rule_says_and_the_answer_names_the_model(routing: Callable[..., Any]) -> None:
    with routing(route(("a", {"personal": False}), "b")) as running:
        assert answered(ask(running)) == ("a", "a")
        assert answered(ask(running, PERSONAL)) == ("b", "b")
        earlier = [{"role": "user", "content": PERSONAL}, {"role": "assistant", "content": "はい"}, {"role": "user", "content": ASKED}]
        assert answered(ask(running, messages=earlier)) == ("b", "b"), "anywhere in the conversation"
        assert len(running.service.pool.get("a").chat.calls) == 1, "not asked beside the other"


def test_a_rule_against_personal_data_holds_for_fallback_too(routing: Callable[..., Any]) -> None:
    local = Served("b", Repeated(RemoteError(**WORDS)))
    with routing(route("b", ("a", {"personal": False})), local) as running:
        assert answered(ask(running))[0] == "a"
        found = ask(running, PERSONAL)
        assert found.status_code == 502 and len(running.service.pool.get("a").chat.calls) == 1


def test_long_prompts_and_tools_go_where_the_rules_say(routing: Callable[..., Any]) -> None:
    with routing(route(("a", {"tokens_over": 10}), ("c", {"tools": True}), ("b", {"tokens_up_to": 10}))) as running:
        assert answered(ask(running, "あ" * 11))[0] == "a"
        assert answered(ask(running, "あ" * 10))[0] == "b"
        assert answered(ask(running, tools=[TOOL]))[0] == "c"


def test_where_a_model_of_our_own_is_among_them_its_tokens_are_counted(routing: Callable[..., Any], tiny: Path) -> None:
    model = from_directory(tiny)
    made = route(("a", {"tokens_over": 30}), ("c", {"tools": True}), ("b", {"tokens_up_to": 30}), ("tiny", {"tokens_over": 10_000}))
    with routing(made, model) as running:
        with running.client() as client:
            sizes = {}
            for text in ("あ" * count for count in range(1, 30)):
                counted = client.post("/tokenize", json={"model": "tiny", "messages": [{"role": "user", "content": text}]}).json()["count"]
                sizes[text] = counted
        under = max((text for text in sizes if sizes[text] <= 30), key=len)
        over = min((text for text in sizes if sizes[text] > 30), key=len)
        assert answered(ask(running, under))[0] == "b"
        assert answered(ask(running, over))[0] == "a"
        assert answered(ask(running, "あ", tools=[TOOL]))[0] in ("a", "c"), "its template may have no place for tools"


def test_a_rule_for_some_keys_and_users_is_for_these_alone(routing: Callable[..., Any], make_key: Callable[..., Any], db: Database) -> None:
    user = users.add(db, "経理の人")
    of_user = make_key("chat", user_id=user.id)[1]
    key, secret = make_key("chat")
    plan = config.build(
        remotes.Plan,
        {
            "routes": {
                "r": {
                    "models": [
                        {"model": "a", "when": {"users": ["経理の人"]}},
                        {"model": "b", "when": {"keys": [key.prefix]}},
                        {"model": "c"},
                    ]
                }
            }
        },
    )
    (made,) = remotes.routes(plan, db)
    assert made.route
    with routing(made.route) as running:
        assert answered(ask(running, key=of_user))[0] == "a"
        assert answered(ask(running, key=secret))[0] == "b"
        assert answered(ask(running))[0] == "c"
        _, new = keys.rotate(db, key.id, overlap_ms=60_000)
        assert answered(ask(running, key=new))[0] == "b", "the key that took its place"


def test_a_rule_that_names_nobody_is_refused(db: Database) -> None:
    for when in ({"users": ["だれもいない"]}, {"keys": ["key_none"]}):
        plan = config.build(remotes.Plan, {"routes": {"r": {"models": [{"model": "a", "when": when}]}}})
        with pytest.raises(MissingError):
            remotes.routes(plan, db)


def test_a_share_is_the_same_people_each_time_and_as_many_as_it_says(routing: Callable[..., Any], make_key: Callable[..., Any]) -> None:
    places = [place("r", f"key {number}") for number in range(4000)]
    assert places == [place("r", f"key {number}") for number in range(4000)]
    assert abs(sum(one < 0.25 for one in places) / 4000 - 0.25) < 0.03
    assert abs(sum(one < 0.25 and place("s", f"key {number}") < 0.25 for number, one in enumerate(places)) / 4000 - 0.0625) < 0.02
    with routing(route(("a", {"share": 0.5}), "b")) as running:
        for _ in range(6):
            key, secret = make_key("chat")
            expected = "a" if place("r", f"key {key.id}") < 0.5 else "b"
            assert {answered(ask(running, key=secret))[0] for _ in range(2)} == {expected}


def test_when_no_rule_holds_the_request_is_refused(routing: Callable[..., Any]) -> None:
    with routing(route(("a", {"tools": True}))) as running:
        found = ask(running)
        assert (found.status_code, found.json()["error"]["code"]) == (400, "no_route")


def test_a_key_must_be_allowed_the_model_that_answers_too(routing: Callable[..., Any], make_key: Callable[..., Any]) -> None:
    with routing(route("a", "b")) as running:
        some, none, other = (make_key("chat", models=list(models))[1] for models in (["r", "b"], ["r"], ["a", "b"]))
        assert answered(ask(running, key=some))[0] == "b"
        for secret in (none, other):
            found = ask(running, key=secret)
            assert (found.status_code, found.json()["error"]["code"]) == (404, "model_not_found")
        assert running.service.pool.get("a").chat.calls == []


def test_what_only_a_known_model_can_do_is_refused(routing: Callable[..., Any]) -> None:
    with routing(route("a")) as running, running.client() as client:
        assert ask(running, logprobs=True).json()["error"]["param"] == "logprobs"
        assert client.post("/v1/completions", json={"model": "r", "prompt": "あ"}).json()["error"]["param"] == "model"
        assert (
            client.post("/v1/messages/count_tokens", json={"model": "r", "messages": [{"role": "user", "content": "あ"}]}).status_code
            == 400
        )


# ── the next one


def test_before_the_first_event_the_next_one_answers_and_that_is_said(routing: Callable[..., Any], db: Database) -> None:
    before = max((record.seq for record in audit.records(db)), default=0)
    failing = Served("a", Repeated(Notice("やり直します"), RemoteError(**WORDS, code="limited")))
    with routing(route("a", "b", "c"), failing, Served("b", Repeated(ContextError(**WORDS)))) as running:
        for stream in (False, True):
            found = ask(running, stream=stream)
            assert found.status_code == 200
            assert found.headers["x-tsuzuri-model"] == "c"
            assert found.headers["x-tsuzuri-fallback"] == "a (limited), b (context)"
            assert "やり直します" in found.text and "a (limited), b (context)" in found.text
            assert "途中" not in found.text
        with running.client() as client:
            assert 'tsuzuri_fallbacks_total{model="a",reason="limited"} 2.0' in client.get("/metrics").text
        running.stop()
    rows = [record.body for record in audit.records(db, before + 1) if record.kind == "request"]
    found = [row for row in rows if row["route"] == "chat_completions"]
    assert [one["model"] for one in found] == ["c", "c"]
    assert found[0]["marks"] == {"tsuzuri.route": "r", "tsuzuri.fallback": "a (limited), b (context)"}
    assert (found[0]["prompt_tokens"], found[0]["completion_tokens"]) == (3, 2)


def test_a_model_that_does_not_begin_in_its_time_is_passed_over_and_its_work_ends(routing: Callable[..., Any]) -> None:
    slow = Served("a", says("遅い", Notice("待っています"), 5.0))
    with routing(route("a", "b", wait=0.3), slow) as running:
        found = ask(running)
        assert answered(found)[0] == "b" and found.headers["x-tsuzuri-fallback"] == "a (timeout)"
        assert slow.chat.closed == 1  # type: ignore[union-attr]
    with routing(route("a", wait=0.3), slow) as running:
        assert ask(running).status_code == 502
    with routing(route("a", "b", wait=0.3), Served("a", Repeated(Text("は"), 0.6, Text("い"), Done("stop")))) as running:
        assert answered(ask(running))[0] == "はい", "once it has begun it may take its time"


def test_after_the_first_event_nobody_else_is_asked(routing: Callable[..., Any]) -> None:
    with routing(route("a", "b"), Served("a", Repeated(Text("途中"), RemoteError(**WORDS)))) as running:
        found = ask(running, stream=True)
        assert found.headers["x-tsuzuri-model"] == "a" and "x-tsuzuri-fallback" not in found.headers
        assert "途中" in found.text and "だめ" in found.text
        assert running.service.pool.get("b").chat.calls == []


def test_only_for_the_reasons_that_the_route_names(routing: Callable[..., Any]) -> None:
    wrong = Served("a", Repeated(ConfigError(**WORDS, code="refused")))
    with routing(route("a", "b"), wrong) as running:
        found = ask(running)
        assert found.status_code == 400 and found.headers["x-tsuzuri-fallback"] == "a (refused)"
    with routing(route("a", "b", fallback=["refused"]), wrong) as running:
        assert answered(ask(running))[0] == "b"
    with routing(route("a", "b", fallback=[]), Served("a", Repeated(RemoteError(**WORDS)))) as running:
        assert ask(running).status_code == 502


def test_what_one_cannot_do_the_next_one_does(routing: Callable[..., Any]) -> None:
    with routing(route("b", "c")) as running:
        found = ask(running, tools=[TOOL])
        assert answered(found)[0] == "c" and found.headers["x-tsuzuri-fallback"] == "b (unsupported)"
    with routing(route("b")) as running:
        assert ask(running, tools=[TOOL]).json()["error"]["param"] == "tools"


def test_when_all_fail_the_last_one_is_told_with_all_their_reasons(routing: Callable[..., Any]) -> None:
    failing = [Served(name, Repeated(RemoteError(**WORDS, code=code))) for name, code in (("a", "timeout"), ("b", "denied"))]
    with routing(route("a", "b"), *failing) as running:
        found = ask(running)
        assert found.status_code == 502 and found.headers["x-tsuzuri-fallback"] == "a (timeout), b (denied)"


def test_a_header_that_would_come_too_late_is_a_notice(routing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent stream begins with a comment line; which model answers is not known by then."""
    monkeypatch.setattr(sending, "PING", 0.05)
    with routing(route("a"), Served("a", says("遅い", 0.5))) as running:
        found = ask(running, stream=True)
        assert ": ping" in found.text and "x-tsuzuri-model" not in found.headers
        assert "答えたモデル：a" in found.text


def test_a_route_of_one_is_that_model(routing: Callable[..., Any], tiny: Path) -> None:
    """Streamed and whole: the same answer, apart from what names the model and the moment."""
    settings = {"temperature": 0.8, "seed": 3, "max_tokens": 12}
    with routing(route("tiny"), from_directory(tiny)) as running:
        for stream in (False, True):
            one, other = (ask(running, model=name, stream=stream, n=1 if stream else 2, **settings).text for name in ("r", "tiny"))
            changing = r'"(id|created|model)":("[^"]*"|\d+)|"cached_tokens":\d+'
            assert re.sub(changing, "", one) == re.sub(changing, "", other) and len(one) > 300


def test_any_answer_names_its_model(routing: Callable[..., Any]) -> None:
    with routing(route("a")) as running:
        assert ask(running, model="b").headers["x-tsuzuri-model"] == "b"


def test_a_model_elsewhere_that_is_not_there_is_replaced_over_real_http(
    routing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_wire, "WAIT", 0.01)
    exchange = replay.read("gemini", "busy")
    with replay.replaying(exchange.responses[-1:]) as gemini:
        given = {
            "a": remotes.Remote("m", "anthropic", "http://127.0.0.1:9"),
            "b": remotes.Remote("m", "gemini", f"{gemini.url}/v1beta"),
        }
        with routing(route("a", "b"), *remotes.served(given, {})) as running:
            found = ask(running)
            assert answered(found) == ("東京です。𠮷", "b")
            assert found.headers["x-tsuzuri-fallback"] == "a (unreachable)"
            assert any("やり直します" in one for one in found.json()["choices"][0]["message"]["notices"])


# ── money


def cost(model: str, *, input: int, output: int, cached: int = 0, at: int) -> int | None:
    return {"a": 100, "b": 1}.get(model, 10) * output


def test_money_is_set_aside_for_the_dearest_and_taken_by_the_one_that_answers(
    routing: Callable[..., Any], make_key: Callable[..., Any], db: Database
) -> None:
    key, secret = make_key("chat")
    ledger.set_limit(db, f"key:{key.id}", 199)
    with routing(route("a", "b"), Served("a", Repeated(RemoteError(**WORDS))), cost=cost) as running:
        found = ask(running, key=secret, max_tokens=2)
        assert found.status_code == 429, "the dearest of them might cost 200"
        ledger.set_limit(db, f"key:{key.id}", 200)
        assert answered(ask(running, key=secret, max_tokens=2))[0] == "b"
        now = ledger.balance(db, f"key:{key.id}")
        assert (now.spent, now.held) == (2, 0)
    assert ledger.verify(db) == []


# ── the file


def plan(path: Path) -> remotes.Plan:
    found = settings.read(None, {}, path)
    return remotes.plan(found.remotes, found.routes)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("routes: {r: {models: []}}", "一つもありません"),
        ("routes: {r: {models: [{model: a, wen: {}}]}}", "wen"),
        ("routes: {r: {models: [{model: a, when: {share: 0}}]}}", "share"),
        ("routes: {r: {models: [{model: a, when: {tokens_over: 5, tokens_up_to: 5}}]}}", "tokens_over"),
        ("routes: {r: {models: [{model: a}], fallback: [rain]}}", "limited"),
        ("routes: {r: {models: [{model: a}], wait: 0}}", "wait"),
        ("remotes: {a: {model: m, provider: nobody}}", "anthropic"),
        ("remotes: {a: {model: m}}", "address"),
        ("remotes: {a: {model: m, provider: azure_openai}}", "address"),
        ("remotes: {a: {model: m, provider: gemini, key_env: A, key_file: b}}", "key_file"),
        ("remotes: {a: {model: m, provider: gemini, key: secret}}", "key_env"),
        ("models: {}", "remotes"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_name(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        plan(path)


def test_a_route_leads_to_models_that_are_there() -> None:
    models = [Served("a", says("a"))]
    for made in (route("a", "none"), route("r")):
        with pytest.raises(ConfigError, match="あるのは a"):
            Pool([*models, routed("r", made)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:1/v1", remotes.Remote("n", address="http://127.0.0.1:1/v1")),
        ("anthropic:claude-x", remotes.Remote("claude-x", "anthropic")),
        ("openai_compatible:qwen3:8b@http://127.0.0.1:1/v1", remotes.Remote("qwen3:8b", address="http://127.0.0.1:1/v1")),
        (
            "azure-openai:d@https://x.openai.azure.com/openai/v1",
            remotes.Remote("d", "azure-openai", "https://x.openai.azure.com/openai/v1"),
        ),
    ],
)
def test_a_model_elsewhere_is_named_in_one_word(text: str, expected: remotes.Remote) -> None:
    assert remotes.named("n", text) == expected


def test_each_key_goes_to_the_address_of_its_model_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("FILE-KEY\n", encoding="utf-8")
    text = json.dumps(replay.read("anthropic", "text").responses[0].body.decode())
    response = replay.Response(200, {}, json.loads(text).encode())
    environment = {"ANTHROPIC_API_KEY": "ENV-KEY", "TSUZURI_REMOTE_KEY_THREE_B": "OWN-KEY", "TSUZURI_REMOTE_KEY": "COMMON-KEY"}
    with replay.replaying([response] * 9) as one, replay.replaying([response] * 9) as other:
        given = {
            "one": remotes.Remote("m", "anthropic", one.url, key_env="ANTHROPIC_API_KEY"),
            "two": remotes.Remote("m", "anthropic", other.url, key_file=tmp_path / "key"),
            "three-b": remotes.Remote("m", "anthropic", one.url),
            "four": remotes.Remote("m", "anthropic", other.url),
        }
        served = remotes.served(given, environment)
        for each in served:
            _drained(each)
            assert "KEY" not in repr(each)
        assert [headers.get("x-api-key") for _, headers, _ in one.seen] == ["ENV-KEY", "OWN-KEY"]
        assert [headers.get("x-api-key") for _, headers, _ in other.seen] == ["FILE-KEY", "COMMON-KEY"]
        with pytest.raises(ConfigError, match="どこへ送るのか"):
            remotes.served({**given, "five": remotes.Remote("m", "anthropic", one.url)}, environment)


def _drained(model: Served) -> None:
    import asyncio

    from tsuzuri.engine.sampling import Sampling
    from tsuzuri.types import Message, Options

    async def all_of() -> None:
        async for _ in model.chat([Message("user", "あ")], Options(Sampling())):
            pass

    asyncio.run(all_of())


def test_a_key_that_is_not_where_it_should_be_is_told_without_it(tmp_path: Path) -> None:
    (tmp_path / "two").write_text("SECRET1 SECRET2\n", encoding="utf-8")
    (tmp_path / "none").write_text("\n", encoding="utf-8")
    for remote in (
        remotes.Remote("m", "gemini", key_env="NOT_SET"),
        remotes.Remote("m", "gemini", key_file=tmp_path / "absent"),
        remotes.Remote("m", "gemini", key_file=tmp_path / "two"),
        remotes.Remote("m", "gemini", key_file=tmp_path / "none"),
    ):
        with pytest.raises((MissingError, ConfigError)) as caught:
            remotes.served({"a": remote}, {})
        assert "SECRET" not in str(caught.value)


# ── the page

PAGES = [Path(__file__).parents[2] / "docs" / language / "providers.md" for language in ("en", "ja")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_files_on_the_page_are_taken_and_every_reason_and_condition_stands_there(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    written, table = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for name, content in (("routes", written), ("prices", table)):
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert set(plan(tmp_path / "routes").routes) == {"company"}
    assert prices.load(tmp_path / "prices").models
    cells = {word for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)}
    assert cells == {*get_args(Reason), *(one.name for one in dataclasses.fields(When)), *names(PROVIDERS)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_page_names_the_settings_and_the_address_of_every_provider(page: Path) -> None:
    rows = {row.split("`")[1]: row for row in page.read_text(encoding="utf-8").splitlines() if row.startswith("| `")}
    for name in names(PROVIDERS):
        module = find(PROVIDERS, name)
        cells = rows[name].split(" | ")
        assert module.ADDRESS is None or f"`{module.ADDRESS}`" == cells[1]
        if name != "openai_compatible":
            assert re.findall(r"`(\w+)`", cells[3]) == sorted(module.NAMES)
