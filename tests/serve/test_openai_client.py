"""The door, by the official OpenAI client: whole and streamed, a scripted model and a tiny one with random weights."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from served import Repeated, Running

from tsuzuri.serve.models import Served, from_directory
from tsuzuri.types import Done, Notice, Text, Thought, ToolCall, Usage

HELLO = [{"role": "user", "content": "こんにちは"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}}
CALL = ToolCall("call_1", "weather", '{"place": "東京"}')


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], tiny: Path) -> Iterator[Running]:
    script = Repeated(Thought("ええと"), Text("こん"), Text("にちは。"), Notice("氏名を隠しました。"), Usage(7, 3, 2), Done("stop"))
    calls = Repeated(Text("調べます。"), CALL, ToolCall("call_2", "weather", "{}"), Usage(9, 8), Done("tool_calls"))
    models = [Served("script", script, aliases=("gpt-*",)), Served("caller", calls, tools=True), from_directory(tiny)]
    with serving(*models) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as found:
        yield found


def test_the_models_are_listed_and_found_by_name_and_alias(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["script", "caller", "tiny"]
    assert client.models.retrieve("tiny").max_model_len == 256
    assert client.models.retrieve("gpt-5").id == "script"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("org/none")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_an_answer_whole(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(model="script", messages=HELLO)
    choice = found.choices[0]
    assert (choice.message.content, choice.message.role, choice.finish_reason) == ("こんにちは。", "assistant", "stop")
    assert choice.message.reasoning_content == "ええと"
    assert choice.message.notices == ["氏名を隠しました。"]
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (7, 3, 10)
    assert found.usage.prompt_tokens_details.cached_tokens == 2
    raw = found.model_dump()["choices"][0]
    assert raw["logprobs"] is None and raw["message"]["refusal"] is None


def test_an_answer_streamed_begins_with_its_role_and_ends_with_its_usage_only_when_asked(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="script", messages=HELLO, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "こんにちは。"
    assert [chunk.usage.total_tokens if chunk.usage else None for chunk in chunks] == [None] * (len(chunks) - 1) + [10]
    assert chunks[-1].choices == [] and chunks[-2].choices[0].finish_reason == "stop"
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    plain = list(client.chat.completions.create(model="script", messages=HELLO, stream=True))
    assert all(chunk.choices for chunk in plain)
    assert all("usage" not in chunk.model_fields_set for chunk in plain)


def test_tool_calls_whole_and_streamed(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(model="caller", messages=HELLO, tools=[TOOL]).choices[0]
    assert found.finish_reason == "tool_calls"
    assert [(c.id, c.function.name, c.function.arguments) for c in found.message.tool_calls] == [
        ("call_1", "weather", CALL.arguments),
        ("call_2", "weather", "{}"),
    ]
    with client.chat.completions.stream(model="caller", messages=HELLO, tools=[TOOL]) as stream:
        last = stream.get_final_completion().choices[0]
    assert [(c.id, c.function.arguments) for c in last.message.tool_calls] == [("call_1", CALL.arguments), ("call_2", "{}")]
    assert last.message.content == "調べます。" and last.finish_reason == "tool_calls"
    alone = client.chat.completions.create(model="caller", messages=HELLO, tools=[TOOL], parallel_tool_calls=False).choices[0]
    assert [c.id for c in alone.message.tool_calls] == ["call_1"]


def test_a_conversation_with_tools_comes_to_the_model_as_it_was(client: openai.OpenAI, running: Running) -> None:
    said = client.chat.completions.create(model="caller", messages=HELLO, tools=[TOOL]).choices[0].message
    answers = [{"role": "tool", "tool_call_id": call.id, "content": "晴れ"} for call in said.tool_calls]
    client.chat.completions.create(model="caller", messages=[*HELLO, said, *answers], tools=[TOOL])
    chat = running.service.pool.get("caller").chat
    messages, options = chat.calls[-1]
    assert messages[1].tool_calls == (CALL, ToolCall("call_2", "weather", "{}"))
    assert [(m.role, m.tool_call_id, m.content) for m in messages[2:]] == [("tool", "call_1", "晴れ"), ("tool", "call_2", "晴れ")]
    assert options.tools == (TOOL,)


def test_tools_are_refused_where_the_model_has_no_use_for_them(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="script", messages=HELLO, tools=[TOOL])
    assert caught.value.param == "tools"


# ── a model of our own


def test_streamed_is_whole_and_the_seed_decides(client: openai.OpenAI) -> None:
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 24, "seed": 3, "n": 2}
    whole = client.chat.completions.create(**asked)
    texts = ["", ""]
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert texts[0] != texts[1]
    assert whole.usage.completion_tokens == 48
    assert client.chat.completions.create(**{**asked, "seed": 4}).choices[0].message.content != texts[0]


def test_usage_is_right_to_the_token_and_log_probabilities_are_those_of_the_text(client: openai.OpenAI, running: Running) -> None:
    found = client.chat.completions.create(
        model="tiny", messages=HELLO, max_completion_tokens=12, temperature=0, logprobs=True, top_logprobs=2
    )
    tokens = found.choices[0].logprobs.content
    assert len(tokens) == found.usage.completion_tokens == 12
    spelled = b"".join(bytes(token.bytes) for token in tokens)
    certain = codecs.getincrementaldecoder("utf-8")("replace").decode(spelled)  # half a character at the end is held back
    assert certain == found.choices[0].message.content
    assert all(token.logprob == token.top_logprobs[0].logprob <= 0 for token in tokens), "the coldest choice is the most probable"
    with running.client() as raw:
        read = raw.post("/tokenize", json={"model": "tiny", "messages": HELLO}).json()
    assert read["count"] == found.usage.prompt_tokens


def test_each_sampling_field_reaches_the_model(client: openai.OpenAI) -> None:
    def said(**more: Any) -> str:
        found = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=16, **{"seed": 1, "extra_body": {}, **more})
        return found.choices[0].message.content or ""

    plain = said()
    first = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1, seed=1, logprobs=True).choices[0]
    with_bias = said(logit_bias={"300": 100})
    assert with_bias != plain and len(set(with_bias)) < len(set(plain)), first
    assert said(temperature=0) != plain
    assert said(top_p=0.05) != plain
    assert said(extra_body={"top_k": 1}) == said(temperature=0)
    assert said(extra_body={"top_k": -1}) == plain
    assert said(presence_penalty=2) != plain
    assert said(frequency_penalty=2) != plain
    assert plain.startswith(said(stop=[plain[3:5]])) and plain[3:5] not in said(stop=[plain[3:5]])
    assert len(said(extra_body={"min_tokens": 16})) > 0


def test_completions_whole_streamed_and_by_ids(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": ["二人の", "若い紳士が"], "max_tokens": 8, "seed": 1, "echo": True}
    whole = client.completions.create(**asked)
    texts = ["", ""]
    for chunk in client.completions.create(**asked, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]
    assert texts[1].startswith("若い紳士が") and len(texts[1]) > 5
    assert [choice.finish_reason for choice in whole.choices] == ["length", "length"]
    ids = client.completions.create(model="tiny", prompt=[300, 301], max_tokens=4, logprobs=2, temperature=0)
    assert ids.usage.prompt_tokens == 2
    found = ids.choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == 4 and found.text_offset[0] == 0
    assert all(len(top) == 2 for top in found.top_logprobs)


def test_embeddings_as_numbers_and_as_bytes_are_the_same_and_of_length_one(client: openai.OpenAI) -> None:
    in_bytes = client.embeddings.create(model="tiny", input=["今日の天気", "料理店"])
    in_numbers = client.embeddings.create(model="tiny", input=["今日の天気", "料理店"], encoding_format="float")
    for one, other in zip(in_bytes.data, in_numbers.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-7)
        assert sum(x * x for x in one.embedding) == pytest.approx(1, abs=1e-5)
    assert [one.index for one in in_bytes.data] == [0, 1]
    assert in_bytes.usage.prompt_tokens > 0
    ids = client.embeddings.create(model="tiny", input=[[300, 301], [302]])
    assert (len(ids.data), ids.usage.total_tokens) == (2, 3)
    assert client.embeddings.create(model="tiny", input=[300, 301]).data[0].embedding == ids.data[0].embedding


def test_a_conversation_that_is_too_long_is_refused_with_both_counts(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "料理" * 400}], stream=stream)
        assert caught.value.code == "context_length_exceeded"
        assert re.search(r"[0-9,]{3,} トークン", caught.value.message) and "256" in caught.value.message
