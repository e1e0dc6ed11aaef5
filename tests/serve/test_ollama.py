"""Ollama's way in: lines that put together are the whole, sampling by other names, calls without ids, errors of one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import Repeated, Running

from tsuzuri import __version__
from tsuzuri.engine.constraint import Constraint
from tsuzuri.engine.sampling import Sampling
from tsuzuri.serve import sending
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.wire import ollama as wire
from tsuzuri.serve.wire.asked import Asked, Head
from tsuzuri.types import Done, Event, Message, Notice, Options, Text, Thought, ToolCall, Usage

SAID = [{"role": "user", "content": "こんにちは"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TIMES = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration", "created_at")


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], tiny: Path) -> Iterator[Running]:
    script = Repeated(Thought("ええと"), Text("こん"), Text("にちは。"), Notice("氏名を隠しました。"), Usage(7, 3, 2), Done("stop"))
    calls = Repeated(Text("調べます。"), ToolCall("c1", "weather", '{"place": "東京"}'), Usage(9, 8), Done("tool_calls"))
    late = Repeated(Text("あ"), ValueError("inside"))
    models = [Served("script", script), Served("caller", calls, tools=True), Served("late", late), from_directory(tiny)]
    with serving(*models, Served("slow", Repeated(0.2, Text("あ"), Done("stop")))) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[httpx2.Client]:
    with running.client() as found:
        yield found


def lines(found: httpx2.Response) -> list[dict[str, Any]]:
    assert found.status_code == 200 and found.headers["content-type"] == "application/x-ndjson"
    assert found.text.endswith("\n")
    return [json.loads(line) for line in found.text.splitlines()]


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in TIMES}


def test_a_chat_whole_and_line_by_line(client: httpx2.Client) -> None:
    body = {"model": "script:latest", "messages": SAID}
    whole = client.post("/api/chat", json={**body, "stream": False}).json()
    assert timeless(whole) == {
        "model": "script",
        "message": {"role": "assistant", "content": "こんにちは。", "thinking": "ええと", "notices": ["氏名を隠しました。"]},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 7,
        "eval_count": 3,
    }
    assert whole["total_duration"] >= whole["eval_duration"] >= 0
    found = lines(client.post("/api/chat", json=body))
    assert [line["done"] for line in found] == [False] * (len(found) - 1) + [True]
    assert all(line["message"]["role"] == "assistant" for line in found)
    assert timeless(wire.joined(found, chat=True)) == timeless(whole)


def test_calls_and_their_answers(client: httpx2.Client, running: Running) -> None:
    body = {"model": "caller", "messages": SAID, "tools": [TOOL]}
    for found in (
        client.post("/api/chat", json={**body, "stream": False}).json(),
        wire.joined(lines(client.post("/api/chat", json=body)), chat=True),
    ):
        assert found["message"]["tool_calls"] == [{"id": "c1", "function": {"name": "weather", "arguments": {"place": "東京"}}}]
        assert found["done_reason"] == "stop"
    without = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": n, "arguments": {"x": 1}}} for n in ("a", "b")]}
    answers = [{"role": "tool", "tool_name": "a", "content": "A"}, {"role": "tool", "content": "B"}]
    client.post("/api/chat", json={**body, "messages": [*SAID, without, *answers], "stream": False})
    messages, _ = running.service.pool.get("caller").chat.calls[-1]
    assert messages[1].tool_calls == (ToolCall("call_1_0", "a", '{"x": 1}'), ToolCall("call_1_1", "b", '{"x": 1}'))
    assert messages[2:] == (Message("tool", "A", tool_call_id="call_1_0"), Message("tool", "B", tool_call_id="call_1_1"))


def test_generate_asks_or_continues(client: httpx2.Client, running: Running) -> None:
    options = {"num_predict": 8, "seed": 3, "temperature": 0.9}
    body = {"model": "tiny", "prompt": "料理とは", "options": options}
    chat = client.post(
        "/api/chat", json={"model": "tiny", "messages": [{"role": "user", "content": "料理とは"}], "options": options, "stream": False}
    ).json()
    found = client.post("/api/generate", json={**body, "stream": False}).json()
    assert (found["response"], found["prompt_eval_count"], found["eval_count"]) == (
        chat["message"]["content"],
        chat["prompt_eval_count"],
        8,
    )
    assert timeless(wire.joined(lines(client.post("/api/generate", json=body)), chat=False)) == timeless(found)
    assert found["done_reason"] == "length"
    raw = client.post("/api/generate", json={**body, "raw": True, "stream": False}).json()
    plain = client.post(
        "/v1/completions", json={"model": "tiny", "prompt": "料理とは", "max_tokens": 8, "seed": 3, "temperature": 0.9}
    ).json()
    assert (raw["response"], raw["prompt_eval_count"]) == (plain["choices"][0]["text"], plain["usage"]["prompt_tokens"])
    asked = wire.read_generate({"model": "m", "prompt": "あ", "system": "短く"})
    assert asked.messages == (Message("system", "短く"), Message("user", "あ"))


def test_vectors_are_those_of_the_other_way_in(client: httpx2.Client) -> None:
    texts = ["今日の天気", "料理店"]
    theirs = client.post("/v1/embeddings", json={"model": "tiny", "input": texts, "encoding_format": "float"}).json()
    found = client.post("/api/embed", json={"model": "tiny", "input": texts}).json()
    assert found["embeddings"] == [one["embedding"] for one in theirs["data"]]
    assert found["prompt_eval_count"] == theirs["usage"]["prompt_tokens"]
    assert client.post("/api/embed", json={"model": "tiny", "input": texts[0]}).json()["embeddings"] == found["embeddings"][:1]
    assert client.post("/api/embed", json={"model": "tiny", "input": "a", "dimensions": 3}).status_code == 400


def test_models_are_listed_and_shown(client: httpx2.Client, make_key: Callable[..., Any]) -> None:
    assert client.get("/api/version").json() == {"version": __version__}
    assert [one["name"] for one in client.get("/api/tags").json()["models"]] == ["script", "caller", "late", "tiny", "slow"]
    only = {"authorization": f"Bearer {make_key('chat', models=['tiny'])[1]}"}
    assert [one["name"] for one in client.get("/api/tags", headers=only).json()["models"]] == ["tiny"]
    shown = client.post("/api/show", json={"model": "tiny:latest"}).json()
    assert shown["capabilities"] == ["completion", "embedding", "tools"] and shown["model_info"]["tsuzuri.context_length"] == 256
    assert client.post("/api/show", json={"model": "caller"}).json()["capabilities"] == ["completion", "tools"]
    there, nowhere = (client.post("/api/show", json={"model": name}, headers=only) for name in ("caller", "nobody"))
    assert there.status_code == nowhere.status_code == 404 and there.text.replace("caller", "nobody") == nowhere.text


def test_errors_are_one_sentence_that_names_the_field(client: httpx2.Client) -> None:
    found = client.post("/api/chat", json={"model": "tiny", "messages": SAID, "options": {"temprature": 1}})
    assert found.status_code == 400 and set(found.json()) == {"error"} and "options.temprature" in found.json()["error"]
    found = client.post("/api/chat", json={"model": "late", "messages": SAID})
    assert found.status_code == 200
    last = json.loads(found.text.splitlines()[-1])
    assert set(last) == {"error"} and "req_" in last["error"] and "inside" not in found.text
    assert client.post("/api/chat", json={"model": "tiny", "messages": [{"role": "user", "content": "料理" * 400}]}).status_code == 400


def test_silence_is_not_broken_by_what_is_no_json(client: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PING", 0.02)
    assert client.post("/api/chat", json={"model": "slow", "messages": SAID}).text.count("\n") == 2
    events = client.post("/v1/chat/completions", json={"model": "slow", "messages": SAID, "stream": True}).text
    assert ": ping" in events, "as others have it"


GOOD: dict[str, tuple[Any, Callable[[Sampling], bool]]] = {
    "temperature": (0.5, lambda s: s.temperature == 0.5),
    "top_k": (5, lambda s: s.top_k == 5),
    "top_p": (0.5, lambda s: s.top_p == 0.5),
    "min_p": (0.5, lambda s: s.min_p == 0.5),
    "typical_p": (0.5, lambda s: s.typical_p == 0.5),
    "presence_penalty": (1.5, lambda s: s.presence_penalty == 1.5),
    "frequency_penalty": (1.5, lambda s: s.frequency_penalty == 1.5),
    "seed": (5, lambda s: s.seed == 5),
    "num_predict": (5, lambda s: s.max_tokens == 5),
    "repeat_penalty": (1.5, lambda s: s.repetition_penalty == 1.5),
}


@pytest.mark.parametrize("name", [field.name for field in wire.OPTIONS if field.use == "used" and field.name != "stop"])
def test_each_option_arrives(name: str) -> None:
    value, holds = GOOD[name]
    plain, asked = (wire.read_chat({"model": "m", "messages": SAID, "options": options}) for options in ({}, {name: value}))
    assert holds(asked.options.sampling) and not holds(plain.options.sampling)
    with pytest.raises(Refusal) as caught:
        wire.read_chat({"model": "m", "messages": SAID, "options": {name: "x"}})
    assert caught.value.param == f"options.{name}"


def test_other_fields_arrive() -> None:
    read = lambda **more: wire.read_chat({"model": "m", "messages": SAID, **more})  # noqa: E731
    assert read().stream and not read(stream=False).stream
    assert read(format="json").options.sampling.constraint == Constraint("json_object")
    assert read(format={"type": "string"}).options.sampling.constraint == Constraint("json_schema", '{"type": "string"}')
    assert read(format="").options.sampling.constraint is None
    assert read(options={"stop": ["。"], "num_predict": -1}).options == Options(Sampling(), ("。",))
    assert read(tools=[TOOL]).options.tools == (TOOL,)
    assert read(keep_alive="5m", options={"num_ctx": 4096, "num_thread": 8}) == read()


@pytest.mark.parametrize(
    ("read", "field"),
    [
        (r, f)
        for r, t in (
            (wire.read_chat, wire.CHAT),
            (wire.read_generate, wire.GENERATE),
            (wire.read_embed, wire.EMBED),
            (wire.read_show, wire.SHOW),
        )
        for f in t
        if f.use == "refused"
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", "")),
)
def test_what_is_refused_is_refused_by_name(read: Any, field: Any) -> None:
    base = {
        wire.read_chat: {"model": "m", "messages": SAID},
        wire.read_generate: {"model": "m", "prompt": "あ"},
        wire.read_embed: {"model": "m", "input": "あ"},
        wire.read_show: {"model": "m"},
    }[read]
    with pytest.raises(Refusal) as caught:
        read({**base, field.name: "something else"})
    assert (caught.value.param, caught.value.code) == (field.name, "unsupported_parameter")
    for value in (None, *field.neutral):
        read({**base, field.name: value})


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a", "images": ["aGk="]}]}, "messages[0].images"),
        ({"messages": [{"role": "user", "content": "a", "name": "x"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": "a", "tool_name": "x"}]}, "messages[0].tool_name"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "a", "tool_name": "x"}]}, "messages[0].tool_name"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": [{"function": {"name": "f"}}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]}, "messages[0].tool_calls[0].function.arguments"),
        ({"format": "yaml"}, "format"),
        ({"format": {"uniqueItems": True}}, "format"),
        ({"options": []}, "options"),
        ({"options": {"num_predict": 0}}, "options.num_predict"),
        ({"options": {"num_predict": -2}}, "options.num_predict"),
        ({"options": {"repeat_penalty": 0}}, "options.repeat_penalty"),
        ({"options": {"mirostat": 1}}, "options.mirostat"),
        ({"options": {"stop": [""]}}, "options.stop"),
        ({"stream": "no"}, "stream"),
        ({"modle": "x"}, "modle"),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_what_is_wrong_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as caught:
        wire.read_chat({"model": "m", "messages": SAID, **more})
    assert (caught.value.status, caught.value.param) == (400, param)


def test_raw_has_no_system_and_no_prompt_is_no_question() -> None:
    for more, param in (({"raw": True, "system": "x"}, "system"), ({"prompt": ""}, "prompt"), ({"prompt": None}, "prompt")):
        with pytest.raises(Refusal) as caught:
            wire.read_generate({"model": "m", "prompt": "あ", **more})
        assert caught.value.param == param


event = st.one_of(
    st.builds(Text, st.sampled_from(["", "あ", "い\n"])), st.builds(Thought, st.sampled_from(["う", ""])), st.just(ToolCall("c", "f", "{}")),
    st.just(Notice("え")),
)  # fmt: skip


@given(st.lists(event, max_size=8), st.booleans())
def test_the_lines_put_together_are_the_whole(events: list[Event], chat: bool) -> None:
    head, asked = Head("", 1, "m"), Asked("m", Options(Sampling()))
    script = [*events, Usage(1, 2), Done("stop")]
    chunks = wire.Chunks(head, asked, chat=chat)
    made = [line for each in script for line in chunks.event(0, each)] + chunks.end()
    together = timeless(wire.joined([json.loads(json.dumps(line)) for line in made], chat=chat))
    assert together == timeless(wire.whole(head, asked, script, chat=chat))
    text = together["message"]["content"] if chat else together["response"]
    assert text == "".join(each.text for each in events if isinstance(each, Text))


def test_half_an_answer_and_half_a_call_are_none() -> None:
    head, asked = Head("", 1, "m"), Asked("m", Options(Sampling()))
    for script, status in (([Text("あ")], 503), ([ToolCall("c", "f", '{"a": '), Done("tool_calls")], 502)):
        with pytest.raises(Refusal) as caught:
            wire.whole(head, asked, script, chat=True)
        assert caught.value.status == status
