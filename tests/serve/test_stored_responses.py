"""Responses that are stored: by the official client, gone on from, listed, erased; and not there for anybody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types.responses import input_token_count_params
from served import Running, until

from tsuzuri.guard.guarded import Checks
from tsuzuri.serve import keeping
from tsuzuri.serve.guarding import Guard
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.wire import openai_responses as wire
from tsuzuri.store import audit, database, keys, responses, users
from tsuzuri.store.database import Database
from tsuzuri.types import Done, Event, Message, Options, Text, ToolCall, Usage

CALL = ToolCall("c1", "weather", '{"place": "東京"}')
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
PLANTED = "090-1234-5678"


class Counting:
    """A Chat that says how many messages it was sent, and calls a tool where it has one and was not answered yet."""

    def __init__(self) -> None:
        self.sent: list[Sequence[Message]] = []

    async def __call__(self, messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
        self.sent.append(messages)
        yield Text(f"{len(messages)} 件目。")
        if options.tools and messages[-1].role != "tool":
            yield CALL
        yield Usage(len(messages), 1)
        yield Done("tool_calls" if options.tools and messages[-1].role != "tool" else "stop")


@pytest.fixture(scope="module")
def chat() -> Counting:
    return Counting()


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], chat: Counting, tiny: Path) -> Iterator[Running]:
    with serving(Served("counting", chat, tools=True), from_directory(tiny), guard=Guard(Checks())) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as found:
        yield found


def asked(client: openai.OpenAI, text: Any, **more: Any) -> Any:
    return client.responses.create(model="counting", input=text, **more)


def test_nothing_is_stored_unless_it_is_asked_for(client: openai.OpenAI) -> None:
    for more in ({}, {"store": False}):
        found = asked(client, "こんにちは", **more)
        assert found.store is False
        with pytest.raises(openai.NotFoundError) as caught:
            client.responses.retrieve(found.id)
        assert (caught.value.param, caught.value.code) == ("response_id", "response_not_found")
        with pytest.raises(openai.NotFoundError) as caught:
            asked(client, "続き", previous_response_id=found.id)
        assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_stored_is_found_as_it_was_and_gone_on_from(stream: bool, client: openai.OpenAI, chat: Counting) -> None:
    if stream:
        with client.responses.stream(model="counting", input="一つ目", store=True, instructions="短く") as events:
            list(events)
            first = events.get_final_response()
    else:
        first = asked(client, "一つ目", store=True, instructions="短く")
    assert first.store is True
    again = client.responses.retrieve(first.id)
    assert (again.id, again.output_text, again.usage, again.store) == (first.id, first.output_text, first.usage, True)
    second = asked(client, "二つ目", store=True, previous_response_id=first.id, instructions="丁寧に")
    assert second.previous_response_id == first.id
    asked(client, "三つ目", previous_response_id=second.id)
    assert [(m.role, m.content) for m in chat.sent[-2]] == [
        ("system", "丁寧に"),
        ("user", "一つ目"),
        ("assistant", "2 件目。"),
        ("user", "二つ目"),
    ], "instructions are not carried over"
    assert [m.content for m in chat.sent[-1]] == ["一つ目", "2 件目。", "二つ目", "4 件目。", "三つ目"]


def test_tool_calls_are_gone_on_from(client: openai.OpenAI, chat: Counting) -> None:
    first = asked(client, "天気は", tools=[TOOL], store=True)
    assert first.output[1].call_id == "c1"
    asked(client, [{"type": "function_call_output", "call_id": "c1", "output": "晴れ"}], tools=[TOOL], previous_response_id=first.id)
    assert chat.sent[-1] == [
        Message("user", "天気は"),
        Message("assistant", "1 件目。", (CALL,)),
        Message("tool", "晴れ", tool_call_id="c1"),
    ]


def test_the_items_of_a_request_come_in_pages(client: openai.OpenAI) -> None:
    given: list[Any] = [
        {"role": "user", "content": "一"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "二"}]},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "三"},
        {"role": "user", "content": [{"type": "input_text", "text": "四"}]},
    ]
    found = client.responses.create(model="counting", input=given, tools=[TOOL], store=True)
    kinds = ["message", "function_call_output", "function_call", "message", "message"]
    page = client.responses.input_items.list(found.id, limit=2)
    assert [item.type for item in page.data] == kinds[:2] and page.has_more
    everything = list(page)
    assert [item.type for item in everything] == kinds and len({item.id for item in everything}) == 5
    ascending = client.responses.input_items.list(found.id, order="asc")
    assert [item.id for item in ascending] == [item.id for item in everything][::-1]
    texts = [item.content[0].text for item in ascending if item.type == "message"]
    assert texts == ["一", "二", "四"]
    assert ascending.data[3].output == "三"
    assert [item.type for item in client.responses.input_items.list(asked(client, "あ", store=True).id)] == ["message"]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("?stream=true", "stream"),
        ("?starting_after=1", "starting_after"),
        ("?include_obfuscation=true", "include_obfuscation"),
        ("?strem=true", "strem"),
        ("/input_items?limit=0", "limit"),
        ("/input_items?limit=101", "limit"),
        ("/input_items?limit=%EF%BC%91", "limit"),
        ("/input_items?limit=1&limit=2", "limit"),
        ("/input_items?order=random", "order"),
        ("/input_items?after=msg_none", "after"),
        ("/input_items?before=x", "before"),
    ],
)
def test_what_an_address_asks_for_is_done_or_refused_by_name(path: str, param: str, client: openai.OpenAI, running: Running) -> None:
    id = asked(client, "あ", store=True).id
    with running.client() as raw:
        found = raw.get(f"/v1/responses/{id}{path}")
    assert (found.status_code, found.json()["error"]["param"]) == (400, param)
    with running.client() as raw:
        assert raw.get(f"/v1/responses/{id}?include[]=a&include[]=b&stream=false").status_code == 200


def test_erased_it_is_gone_with_what_went_on_from_it(client: openai.OpenAI, running: Running, db: Database) -> None:
    first = asked(client, "一つ目", store=True)
    second = asked(client, "二つ目", store=True, previous_response_id=first.id)
    with running.client() as raw:
        found = raw.delete(f"/v1/responses/{first.id}")
        assert (found.status_code, found.json()) == (200, {"id": first.id, "object": "response", "deleted": True})
        assert raw.delete(f"/v1/responses/{first.id}").status_code == 404
    assert client.responses.retrieve(second.id).id == second.id
    with pytest.raises(openai.NotFoundError) as caught:
        asked(client, "三つ目", previous_response_id=second.id)
    assert caught.value.param == "previous_response_id"
    client.responses.delete(second.id)
    assert until(
        lambda: [r.body["marks"] for r in audit.records(db) if r.body.get("route") == "response_delete"][-1] == {"erased": second.id}
    )


def test_for_anybody_else_it_is_not_there(running: Running, client: openai.OpenAI, db: Database, make_key: Callable[..., Any]) -> None:
    """The same answer, byte for byte, as for an id that never was; another key of the same person finds it."""
    person = users.add(db, "山田")
    _, mine = keys.create(db, "one", scopes=("chat",), user_id=person.id)
    _, also_mine = keys.create(db, "two", scopes=("chat",), user_id=person.id)
    _, foreign = make_key("chat")

    def told(found: httpx2.Response) -> tuple[int, str]:
        return found.status_code, found.text

    def all_ways(raw: httpx2.Client, secret: str, id: str, *, delete: bool) -> list[tuple[int, str]]:
        headers = {"authorization": f"Bearer {secret}"}
        more = {"model": "counting", "input": "続き", "previous_response_id": id}
        found = [raw.get(f"/v1/responses/{id}{tail}", headers=headers) for tail in ("", "/input_items")]
        found += [raw.post("/v1/responses", json={**more, "stream": stream}, headers=headers) for stream in (False, True)]
        found.append(raw.post("/v1/responses/input_tokens", json={**more, "model": "tiny"}, headers=headers))
        return [told(one) for one in [*found, *([raw.delete(f"/v1/responses/{id}", headers=headers)] if delete else [])]]

    with running.client() as raw:
        body = {"model": "counting", "input": "ひみつ", "store": True}
        id = raw.post("/v1/responses", json=body, headers={"authorization": f"Bearer {mine}"}).json()["id"]
        for secret, right in ((mine, True), (also_mine, True), (foreign, False), (running.key, False)):
            there, nowhere = all_ways(raw, secret, id, delete=not right), all_ways(raw, secret, "resp_" + "0" * 24, delete=not right)
            assert {status for status, _ in nowhere} == {404}
            assert {status for status, _ in there} == ({200} if right else {404})
            assert right or there == nowhere
        assert raw.delete(f"/v1/responses/{id}", headers={"authorization": f"Bearer {also_mine}"}).status_code == 200


def test_what_is_stored_is_masked_before_a_model_reads_it_again(client: openai.OpenAI, chat: Counting) -> None:
    first = asked(client, f"電話は{PLANTED}です。", store=True)
    asked(client, "何番でしたか。", previous_response_id=first.id)
    assert not any(PLANTED in message.content for messages in chat.sent for message in messages)
    (item,) = client.responses.input_items.list(first.id)
    assert PLANTED in item.content[0].text, "whoever wrote it reads it again"


@pytest.mark.parametrize("more", [{}, {"instructions": "短く"}, {"text": PLANTED}, {"previous": True}], ids=str)
def test_tokens_are_counted_as_the_model_reads_them(more: dict[str, Any], client: openai.OpenAI) -> None:
    given = {"model": "tiny", "input": f"電話は{more.get('text', 'ない')}です。"}
    if more.get("instructions"):
        given["instructions"] = more["instructions"]
    if more.get("previous"):
        given["previous_response_id"] = client.responses.create(model="tiny", input="一つ目", max_output_tokens=4, store=True).id
    counted = client.responses.input_tokens.count(**given)
    used = client.responses.create(**given, max_output_tokens=1)
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", used.usage.input_tokens)


def test_anthropics_count_is_of_what_the_model_reads_too(running: Running) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": f"電話は{PLANTED}です。"}]}
    with running.client() as raw:
        counted = raw.post("/v1/messages/count_tokens", json=body).json()
        used = raw.post("/v1/messages", json={**body, "max_tokens": 1}).json()["usage"]
    assert counted["input_tokens"] == used["input_tokens"]


def test_every_field_of_the_official_client_has_its_place() -> None:
    assert set(input_token_count_params.InputTokenCountParams.__annotations__) == {field.name for field in wire.COUNT}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"store": "yes"}, "store"),
        ({"store": 1}, "store"),
        ({"previous_response_id": 1}, "previous_response_id"),
        ({"previous_response_id": "x" * 65}, "previous_response_id"),
    ],
)
def test_what_is_wrong_is_named(more: dict[str, Any], param: str) -> None:
    for read in (wire.read, *([] if "store" in more else [wire.read_count])):
        with pytest.raises(Refusal) as caught:
            read({"model": "m", "input": "あ", **more})
        assert (caught.value.status, caught.value.param) == (400, param)


def test_a_conversation_of_too_many_items_is_refused() -> None:
    many = wire.keepable({"input": [{"role": "user", "content": "a"}] * 2047}, {"id": "resp_1", "output": []})
    wire.after(wire.read({"model": "m", "input": "あ"}), [many])
    with pytest.raises(Refusal) as caught:
        wire.after(wire.read({"model": "m", "input": "あ"}), [many, {**many, "input": many["input"][:1]}])
    assert caught.value.param == "previous_response_id"


def test_a_server_that_stores_nothing_says_so_before_it_computes(serving: Callable[..., Any]) -> None:
    chat = Counting()
    with serving(Served("counting", chat), keep=0) as running, running.client() as raw:
        found = raw.post("/v1/responses", json={"model": "counting", "input": "あ", "store": True})
        assert (found.status_code, found.json()["error"]["param"]) == (400, "store")
        assert raw.post("/v1/responses", json={"model": "counting", "input": "あ"}).status_code == 200
    assert len(chat.sent) == 1


def test_half_an_answer_is_not_stored(serving: Callable[..., Any], db: Database) -> None:
    async def broken(messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
        yield Text("はん")
        raise ValueError("inside")

    stored: list[str] = []
    with serving(Served("broken", broken)) as running, running.client() as raw, pytest.MonkeyPatch.context() as patched:
        patched.setattr(responses, "keep", lambda db, owner, id, value, **how: stored.append(id))
        for stream in (False, True):
            raw.post("/v1/responses", json={"model": "broken", "input": "あ", "store": True, "stream": stream})
    assert stored == []


def test_what_has_had_its_time_is_erased_by_the_server(serving: Callable[..., Any], db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "PRUNE", 0.02)
    responses.keep(db, "user x", "resp_old", {"input": [], "response": {}, "previous": None}, days=1, now=0)
    with serving(Served("counting", Counting())):
        assert until(lambda: responses.find(db, "user x", "resp_old", now=1) is None)


def test_in_the_data_of_a_running_server_nothing_stored_is_found(tmp_path: Path, serving: Callable[..., Any]) -> None:
    """Neither what was asked nor what was answered; and once it is erased, not the sealed bytes either, WAL included."""
    from sqlalchemy import select

    from tsuzuri.store.tables import responses as table

    place = tmp_path / "data"
    with database.open(place, tmp_path / "secrets") as own:
        _, secret = keys.create(own, "x", scopes=("chat",))
        with serving(Served("counting", Counting()), on=own) as running, running.client() as raw:
            raw.headers["authorization"] = f"Bearer {secret}"
            found = raw.post("/v1/responses", json={"model": "counting", "input": "合言葉は朝焼けの灯台" * 50, "store": True}).json()
            with own.read() as connection:
                kept = bytes(connection.execute(select(table.c.sealed)).scalar_one())
            everything = b"".join(file.read_bytes() for file in place.iterdir())
            assert kept[20:36] in everything, "the search itself works"
            assert "灯台".encode() not in everything and "1 件目".encode() not in everything
            assert raw.delete(f"/v1/responses/{found['id']}").status_code == 200
            everything = b"".join(file.read_bytes() for file in place.iterdir())
            assert not any(kept[i : i + 16] in everything for i in range(13, len(kept) - 16, 16))
