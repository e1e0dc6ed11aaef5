"""The guard stands on every way in and out: personal data never reach a model, secrets never leave, whichever the format.

And many who ask a model of our own at once: each gets what it would get alone, and no tenant begins with another's computation.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import jsonschema
import openai
import pytest
from served import Running, until

from tsuzuri.folder import find, names
from tsuzuri.guard.guarded import Checks
from tsuzuri.guard.secrets import Secrets
from tsuzuri.serve.app import ROUTES
from tsuzuri.serve.guarding import Guard
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.store import audit
from tsuzuri.store.database import Database
from tsuzuri.types import Done, Event, Message, Options, Text, Usage

PLANTED = "090-1234-5678"
SECRET = "藍色の鍵は8841番"


class Heard:
    """A Chat that repeats what it was sent, and lets out a secret."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.options: list[Options] = []

    async def __call__(self, messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
        self.sent += [part for message in messages for part in (message.content, repr(message.tool_calls))]
        self.options.append(options)
        yield Text(messages[-1].content)
        yield Text(f"\n{SECRET[:4]}")
        yield Text(SECRET[4:])
        yield Usage(1, 1)
        yield Done("stop")


@pytest.fixture(scope="module")
def heard() -> Heard:
    return Heard()


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], tiny: Path, heard: Heard) -> Iterator[Running]:
    guard = Guard(Checks(secrets=Secrets({"鍵": SECRET}), refuse=("weapons",)))
    with serving(Served("heard", heard, tools=True, forms=True), from_directory(tiny), guard=guard) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as found:
        yield found


def chat(running: Running, client: openai.OpenAI, text: str) -> str:
    return client.chat.completions.create(model="heard", messages=[{"role": "user", "content": text}]).choices[0].message.content or ""


def chat_streamed(running: Running, client: openai.OpenAI, text: str) -> str:
    chunks = client.chat.completions.create(model="heard", messages=[{"role": "user", "content": text}], stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def responses(running: Running, client: openai.OpenAI, text: str) -> str:
    return client.responses.create(model="heard", input=text, store=False).output_text


def responses_stored(running: Running, client: openai.OpenAI, text: str) -> str:
    """What is stored is gone on from: a model reads it a second time."""
    first = client.responses.create(model="heard", input=text, store=True)
    client.responses.create(model="heard", input="続けて", previous_response_id=first.id)
    return client.responses.retrieve(first.id).output_text


def messages(running: Running, client: openai.OpenAI, text: str) -> str:
    with anthropic.Anthropic(base_url=running.url, api_key=running.key, max_retries=0) as other:
        found = other.messages.create(model="heard", max_tokens=9, messages=[{"role": "user", "content": text}])
    return "".join(block.text for block in found.content if block.type == "text")


def ollama_chat(running: Running, client: openai.OpenAI, text: str) -> str:
    with running.client() as raw:
        found = raw.post("/api/chat", json={"model": "heard", "messages": [{"role": "user", "content": text}]})
    return "".join(json.loads(line)["message"]["content"] for line in found.text.splitlines())


def ollama_generate(running: Running, client: openai.OpenAI, text: str) -> str:
    with running.client() as raw:
        return str(raw.post("/api/generate", json={"model": "heard", "prompt": text, "stream": False}).json()["response"])


ENTRIES = {
    "chat_completions": chat,
    "chat_completions, streamed": chat_streamed,
    "responses": responses,
    "responses, stored": responses_stored,
    "messages": messages,
    "ollama_chat": ollama_chat,
    "ollama_generate": ollama_generate,
}
TEXTS = [f"電話は{PLANTED}です。", "ふつうの文章"]
OWN: dict[str, tuple[str, dict[str, Any]]] = {  # what only a model of our own is asked: where, and what
    "completions": ("/v1/completions", {"prompt": TEXTS, "max_tokens": 2}),
    "embeddings": ("/v1/embeddings", {"input": TEXTS}),
    "rerank": ("/v1/rerank", {"query": TEXTS[0], "documents": TEXTS}),
    "ollama_embed": ("/api/embed", {"input": TEXTS}),
    "ollama_generate, raw": ("/api/generate", {"prompt": TEXTS[0], "raw": True, "stream": False, "options": {"num_predict": 2}}),
}
TO_NO_MODEL = (
    "detokenize",
    "messages_count_tokens",
    "moderations",
    "ollama_show",
    "responses_input_tokens",
    "tokenize",
)  # a text is read, and given to no model


def test_no_route_that_reads_a_text_is_forgotten_here() -> None:
    """Routes that manage are told apart by their place."""
    routes = {name: find(ROUTES, name) for name in names(ROUTES)}
    posts = {name for name, module in routes.items() if module.METHOD == "POST" and (set(module.POLICY) & {"chat", "embeddings"})}
    assert posts == {*(entry.partition(",")[0] for entry in (*ENTRIES, *OWN)), *TO_NO_MODEL}


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_planted_reaches_no_model_and_no_secret_leaves(entry: str, running: Running, client: openai.OpenAI, heard: Heard) -> None:
    heard.sent.clear()
    said = ENTRIES[entry](running, client, f"電話は{PLANTED}です。")
    assert heard.sent and not any(PLANTED in text for text in heard.sent)
    assert PLANTED in said  # whoever wrote it reads it again
    assert SECRET not in said and SECRET[4:] not in said


WRITTEN = f"電話は{PLANTED}です。"
FORM = {"type": "object", "properties": {"to": {"type": "string", "enum": [PLANTED, "受付"], "description": WRITTEN}}}
USER = {"role": "user", "content": "はい"}
CALLING = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"to": PLANTED})}}
PLACES: dict[str, tuple[str, dict[str, Any]]] = {  # where in a request somebody may write: which way in, and what is asked there
    "system": ("/v1/chat/completions", {"messages": [{"role": "system", "content": WRITTEN}, USER]}),
    "developer": ("/v1/chat/completions", {"messages": [{"role": "developer", "content": WRITTEN}, USER]}),
    "a part": ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": WRITTEN}]}]}),
    "an answer before": ("/v1/chat/completions", {"messages": [USER, {"role": "assistant", "content": WRITTEN}, USER]}),
    "a refusal before": ("/v1/chat/completions", {"messages": [USER, {"role": "assistant", "content": None, "refusal": WRITTEN}, USER]}),
    "a call before": ("/v1/chat/completions", {"messages": [USER, {"role": "assistant", "tool_calls": [CALLING]}, {"role": "tool", "tool_call_id": "c", "content": "はい"}]}),
    "a result": ("/v1/chat/completions", {"messages": [USER, {"role": "assistant", "tool_calls": [CALLING]}, {"role": "tool", "tool_call_id": "c", "content": WRITTEN}]}),
    "what a tool is for": ("/v1/chat/completions", {"messages": [USER], "tools": [{"type": "function", "function": {"name": "f", "description": WRITTEN}}]}),
    "what a tool takes": ("/v1/chat/completions", {"messages": [USER], "tools": [{"type": "function", "function": {"name": "f", "parameters": FORM}}]}),
    "a form": ("/v1/chat/completions", {"messages": [USER], "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": FORM}}}),
    "a choice": ("/v1/chat/completions", {"messages": [USER], "structured_outputs": {"choice": [PLANTED, "受付"]}}),
    "an end": ("/v1/chat/completions", {"messages": [USER], "stop": [PLANTED]}),
    "instructions": ("/v1/responses", {"input": "はい", "instructions": WRITTEN}),
    "a tool of responses": ("/v1/responses", {"input": "はい", "tools": [{"type": "function", "name": "f", "parameters": FORM, "strict": False}]}),
    "a form of responses": ("/v1/responses", {"input": "はい", "text": {"format": {"type": "json_schema", "name": "n", "schema": FORM}}}),
    "system of messages": ("/v1/messages", {"messages": [USER], "max_tokens": 9, "system": WRITTEN}),
    "a tool of messages": ("/v1/messages", {"messages": [USER], "max_tokens": 9, "tools": [{"name": "f", "description": WRITTEN, "input_schema": FORM}]}),
    "a form of ollama": ("/api/chat", {"messages": [USER], "format": FORM}),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_wherever_in_a_request_it_is_planted_the_model_reads_a_token(place: str, running: Running, heard: Heard) -> None:
    heard.sent.clear()
    heard.options.clear()
    path, asked = PLACES[place]
    with running.client() as raw:
        found = raw.post(path, json={"model": "heard", **asked})
    assert found.status_code == 200, found.text
    read = json.dumps([heard.sent, [repr(options) for options in heard.options]], ensure_ascii=False)
    assert heard.sent and PLANTED not in read and "【電話番号1】" in read


def test_an_answer_in_a_form_with_tokens_is_given_back_as_it_was_written(serving: Callable[..., Any], tiny: Path) -> None:
    """A model of our own, held to a choice of which it sees the token alone."""
    asked = {"model": "tiny", "messages": [USER], "structured_outputs": {"choice": [PLANTED]}, "max_tokens": 60}
    with serving(from_directory(tiny), guard=Guard(Checks())) as found, found.client() as raw:
        said = raw.post("/v1/chat/completions", json=asked).json()["choices"][0]
        counted = raw.post("/v1/responses/input_tokens", json={"model": "tiny", "input": WRITTEN, "instructions": WRITTEN})
    assert (said["message"]["content"], said["finish_reason"]) == (PLANTED, "stop")
    assert counted.status_code == 200


@pytest.mark.parametrize("entry", OWN)
def test_what_is_planted_reaches_no_model_of_our_own(entry: str, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = running.service.pool.get("tiny").tokens
    read: list[Any] = []
    path, asked = OWN[entry]
    name = "complete" if entry.startswith(("completions", "ollama_generate")) else "embed"
    inner = getattr(tokens, name)
    spell = tokens.model.tokenizer.decode

    def seen(prompt: Any, *more: Any) -> Any:
        read.extend([spell(each.ids) for each in prompt] if name == "embed" else [prompt])
        return inner(prompt, *more)

    monkeypatch.setattr(tokens, name, seen)
    with running.client() as raw:
        found = raw.post(path, json={"model": "tiny", **asked})
    assert found.status_code == 200
    assert len(read) == {"rerank": 3, "ollama_generate, raw": 1}.get(entry, 2) and not any(PLANTED in str(text) for text in read)
    assert "ふつうの文章" in read or len(read) == 1
    assert name == "complete" or len(found.json()["notices"]) == 1


def test_what_is_planted_is_in_no_record_and_no_answer_that_judges_it(running: Running, client: openai.OpenAI, db: Database) -> None:
    found = client.moderations.create(input=f"電話は{PLANTED}です。")
    assert PLANTED not in found.to_json()
    assert until(lambda: any(one.body.get("route") == "moderations" for one in audit.records(db)))
    assert not any(PLANTED in json.dumps(one.body) for one in audit.records(db))


def test_vectors_of_ids_pass_the_guard_too_and_it_is_said(running: Running, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = running.service.pool.get("tiny").tokens
    read: list[Any] = []
    inner = tokens.embed
    monkeypatch.setattr(tokens, "embed", lambda prepared: (read.extend(each.ids for each in prepared), inner(prepared))[1])
    plain, hidden = (tokens.model.tokenizer.encode(text) for text in ("料理とは", f"電話は{PLANTED}です。"))
    with running.client() as raw:
        found = raw.post("/v1/embeddings", json={"model": "tiny", "input": [plain, hidden]}).json()
        quiet = raw.post("/v1/embeddings", json={"model": "tiny", "input": [plain]}).json()
    assert list(read[0]) == plain
    assert list(read[1]) != hidden and PLANTED not in tokens.model.tokenizer.decode(read[1])
    assert len(found["notices"]) == 1 and "notices" not in quiet


def test_ids_that_hide_nothing_stay_ids(running: Running, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = running.service.pool.get("tiny").tokens
    read: list[Any] = []
    inner = tokens.complete
    monkeypatch.setattr(tokens, "complete", lambda prompt, *more: (read.append(prompt), inner(prompt, *more))[1])
    ids = tokens.model.tokenizer.encode("料理とは")
    client.completions.create(model="tiny", prompt=ids, max_tokens=2)
    hidden = tokens.model.tokenizer.encode(f"電話は{PLANTED}です。")
    client.completions.create(model="tiny", prompt=hidden, max_tokens=2)
    assert tuple(read[0]) == tuple(ids)
    assert isinstance(read[1], str) and PLANTED not in read[1]


def test_refused_content_is_said_to_be(running: Running, client: openai.OpenAI, heard: Heard) -> None:
    heard.sent.clear()
    found = client.chat.completions.create(model="heard", messages=[{"role": "user", "content": "爆弾の作り方を教えてください。"}])
    assert found.choices[0].finish_reason == "content_filter"
    assert heard.sent == []


SCHEMA = {
    "type": "object",
    "properties": {"名前": {"type": "string", "maxLength": 5}, "数": {"enum": [1, 2]}},
    "required": ["名前", "数"],
    "additionalProperties": False,
}


def test_an_answer_in_the_form_that_was_asked_for(client: openai.OpenAI) -> None:
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "あ"}], "max_tokens": 60, "seed": 2}
    form = {"type": "json_schema", "json_schema": {"name": "thing", "strict": True, "schema": SCHEMA}}
    found = client.chat.completions.create(**asked, response_format=form).choices[0]
    assert found.finish_reason == "stop"
    jsonschema.validate(json.loads(found.message.content or ""), SCHEMA)
    streamed = client.chat.completions.create(**asked, response_format=form, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == found.message.content
    chosen = client.chat.completions.create(**asked, extra_body={"structured_outputs": {"choice": ["晴れ", "雨"]}})
    assert chosen.choices[0].message.content in ("晴れ", "雨")


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("response_format", {"type": "yaml"}, "response_format.type"),
        ("response_format", {"type": "json_schema"}, "response_format.json_schema"),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}, "response_format.json_schema.name"),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {"uniqueItems": True}}},
            "response_format.json_schema.schema",
        ),
        ("response_format", {"type": "json_object", "schema": {}}, "response_format.schema"),
        ("structured_outputs", {"regex": "a", "choice": ["a"]}, "structured_outputs"),
        ("structured_outputs", {"regexp": "a"}, "structured_outputs.regexp"),
        ("structured_outputs", {"regex": "("}, None),
        ("constraint", {"kind": "regex"}, "constraint"),
    ],
)
def test_a_form_that_cannot_be_is_refused_by_name(client: openai.OpenAI, field: str, value: Any, param: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "あ"}], max_tokens=2, extra_body={field: value})
    assert param is None or caught.value.param == param


def test_many_at_once_get_what_each_gets_alone(client: openai.OpenAI) -> None:
    def ask(number: int) -> str:
        question = [{"role": "user", "content": f"質問その{number}：料理とは何ですか。"}]
        return client.chat.completions.create(model="tiny", messages=question, seed=number, max_tokens=10).choices[0].message.content or ""

    alone = [ask(number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == alone
    assert len(set(alone)) > 1


def test_what_one_key_had_read_is_found_by_the_same_only(running: Running, client: openai.OpenAI, make_key: Callable[..., Any]) -> None:
    prompt = "料理とは、食材を切ったり熱を加えたりして食べられるようにすることです。" * 4

    def cached(asking: openai.OpenAI) -> int:
        found = asking.completions.create(model="tiny", prompt=prompt, max_tokens=2)
        return int(found.usage.prompt_tokens_details.cached_tokens)

    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=make_key()[1], max_retries=0) as other:
        assert cached(client) == 0
        assert cached(other) == 0
        assert cached(client) > 0
