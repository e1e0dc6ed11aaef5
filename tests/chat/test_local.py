"""A model directory from Python: one answer, whole or streamed, in a thread or in place, and every refusal by name."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest
import torch

import tsuzuri
from tsuzuri.chat import local, settings
from tsuzuri.chat.labels import Candidate
from tsuzuri.chat.local import CONVERSATION, LocalModel, as_messages
from tsuzuri.chat.settings import Settings, options
from tsuzuri.chat.together import Together
from tsuzuri.commands import chat as chat_command
from tsuzuri.engine import engine as engine_module
from tsuzuri.engine.beam import Beams
from tsuzuri.engine.constraint import Constraint
from tsuzuri.engine.sampling import History, Sampling, distribution
from tsuzuri.errors import ConfigError, ContextError, FormatError, InputError, MissingError
from tsuzuri.model import weights
from tsuzuri.model.transformer import Transformer
from tsuzuri.types import Done, Event, Message, Options, Text, Token, Usage

PROMPT = "二人の若い紳士が"
QUESTION = [Message("user", "注文はありますか")]


@pytest.fixture(scope="module")
def model(directory: Path) -> LocalModel:
    return tsuzuri.load(directory)


async def collected(model: LocalModel, options: Options, messages: Sequence[Message] = QUESTION) -> list[Event]:
    return [event async for event in model.chat_events(messages, options)]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def test_streamed_is_complete_and_the_seed_decides(model: LocalModel) -> None:
    whole = model.generate(PROMPT, max_tokens=30, seed=1)
    assert (
        "".join(model.stream(PROMPT, max_tokens=30, seed=1))
        == whole
        == model.generate(model.tokenizer.encode(PROMPT), max_tokens=30, seed=1)
    )
    assert whole != model.generate(PROMPT, max_tokens=30, seed=2)


def test_greedy_text_is_that_of_transformers(model: LocalModel, directory: Path) -> None:
    import transformers

    reference = transformers.AutoModelForCausalLM.from_pretrained(directory)
    ids = torch.tensor([model.tokenizer.encode(PROMPT)])
    found = reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False, eos_token_id=None, pad_token_id=3
    )
    own = [t.id for t in model.engine.stream(ids[0].tolist(), Sampling(temperature=0, max_tokens=32, ignore_eos=True))]
    assert own == found[0, ids.shape[1] :].tolist()
    torch.testing.assert_close(model.logits(ids[0]), reference(ids).logits[0].detach(), rtol=1e-5, atol=1e-5)


def test_logits_are_float32_whatever_the_weights(model: LocalModel, directory: Path) -> None:
    ids = model.tokenizer.encode(PROMPT)
    wide, narrow = model.logits(ids), tsuzuri.load(directory, dtype="bfloat16").logits(torch.tensor(ids))
    assert wide.dtype == narrow.dtype == torch.float32 and wide.shape == (len(ids), 600)
    assert not torch.equal(wide, narrow)
    torch.testing.assert_close(wide, narrow, rtol=0.1, atol=0.15)
    wide.mul_(2)  # an ordinary tensor


@pytest.mark.parametrize("place", [0, 3, 7])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_stop_string_ends_the_answer_before_it(model: LocalModel, place: int, length: int) -> None:
    whole = model.generate(PROMPT, max_tokens=30, seed=1)
    stop = whole[place : place + length]
    expected = whole[: whole.index(stop)]
    assert model.generate(PROMPT, max_tokens=30, seed=1, stop=stop) == expected
    assert "".join(model.stream(PROMPT, max_tokens=30, seed=1, stop=[stop, "決して現れない"])) == expected
    events = list(model.events(PROMPT, Options(Sampling(max_tokens=30, seed=1), (stop,))))
    assert events[-1] == Done("stop", {"stop": stop})


# ── what becomes text, with tokens given by hand


class Given(engine_module.Generation):
    """A generation that was decided beforehand."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.prompt_tokens, self.cached_tokens, self.completion_tokens = 1, 0, len(tokens)
        self._tokens = (token for token in tokens)
        self._cancelled = False


def spoken(model: LocalModel, monkeypatch: pytest.MonkeyPatch, ids: Sequence[int], finish: str, **choices: object) -> list[Event]:
    tokens = [Token(id, -1.0, (), finish if i == len(ids) - 1 else None) for i, id in enumerate(ids)]  # type: ignore[arg-type]
    monkeypatch.setattr(model.engine, "stream", lambda *_: Given(tokens))
    return list(model.events("x", options((), choices)))


def byte_ids(model: LocalModel, text: str) -> list[int]:
    """A text spelled byte by byte."""
    single = {model.tokenizer.token_bytes(id): id for id in reversed(range(model.tokenizer.vocab_size))}
    return [single[bytes([byte])] for byte in text.encode()]


@pytest.mark.parametrize("count", range(1, 16))
def test_half_a_character_is_held_back(model: LocalModel, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    text = "日本🗾é"
    events = spoken(model, monkeypatch, byte_ids(model, text)[:count], "length")
    assert text_of(events) == text.encode()[:count].decode(errors="ignore")
    assert sum(len(event.tokens) for event in events if isinstance(event, Text)) == min(count, len(text.encode()))


def test_special_tokens_are_not_text(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    special = model.tokenizer.special
    ids = [*byte_ids(model, "a"), special["<|im_start|>"], *byte_ids(model, "b"), special["<|im_end|>"]]
    events = spoken(model, monkeypatch, ids, "stop")
    assert text_of(events) == "ab"
    assert events[-1] == Done("stop")


def test_the_token_that_ended_the_text_is_not_part_of_it(model: LocalModel) -> None:
    free = [t.id for t in model.engine.stream(model.tokenizer.encode(PROMPT), Sampling(temperature=0, max_tokens=9))]
    last = next(id for i, id in enumerate(free) if i > 2 and id not in free[:i])
    found = model.generate(PROMPT, temperature=0, max_tokens=9, stop_token_ids=[last])
    decode = model.tokenizer.stream()
    assert found == "".join(map(decode, free[: free.index(last)]))


def test_an_end_of_text_ends_it_unless_it_is_ignored(directory: Path) -> None:
    model = LocalModel(directory)
    first = next(model.engine.stream(model.tokenizer.encode(PROMPT), Sampling(temperature=0))).id
    model.engine.eos_ids = frozenset([first])
    assert model.generate(PROMPT, temperature=0, max_tokens=5) == ""
    assert model.generate(PROMPT, temperature=0, max_tokens=5, ignore_eos=True) != ""


# ── conversations


def test_chat_is_the_same_as_its_events(model: LocalModel) -> None:
    said = model.chat("注文はありますか", max_tokens=12, seed=5)
    assert said == model.chat([{"role": "user", "content": "注文はありますか"}], max_tokens=12, seed=5)
    events = asyncio.run(collected(model, options((), {**CONVERSATION, "max_tokens": 12, "seed": 5})))
    assert text_of(events) == said
    usage, done = events[-2:]
    assert usage == Usage(model.count(QUESTION), 12, usage.cached_tokens if isinstance(usage, Usage) else -1)
    assert done == Done("length")


def test_chat_works_inside_a_running_loop(model: LocalModel) -> None:
    async def notebook() -> str:
        return model.chat("こんにちは", max_tokens=5, seed=1)

    assert asyncio.run(notebook()) == model.chat("こんにちは", max_tokens=5, seed=1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_shared_beginning_is_not_read_again_and_changes_no_bit(directory: Path, dtype: str) -> None:
    model, question = LocalModel(directory, dtype=dtype), [Message("user", "注文の多い料理店です。" * 14)]
    assert model.count(question) > engine_module.BLOCK
    first, second = (asyncio.run(collected(model, options((), {"max_tokens": 6, "seed": 3}), question)) for _ in range(2))
    assert first[:-2] == second[:-2]  # the tokens and their log-probabilities, to the last bit
    cached = [event.cached_tokens for events in (first, second) for event in events if isinstance(event, Usage)]
    assert cached == [0, engine_module.BLOCK]


def test_a_prompt_of_whole_blocks_is_asked_twice(directory: Path) -> None:
    model, ids = LocalModel(directory), [5 + i % 50 for i in range(engine_module.BLOCK)]
    assert model.generate(ids, max_tokens=5, seed=1) == model.generate(ids, max_tokens=5, seed=1)


@pytest.fixture
def slow(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LocalModel, list[str]]]:
    """A model of which every step takes 30 ms, and the threads its steps ran in."""
    model, threads = LocalModel(directory), []
    read = model.engine.read

    def slowly(*arguments: object) -> object:
        threads.append(threading.current_thread().name)
        time.sleep(0.03)
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(model.engine, "read", slowly)
    yield model, threads


def test_the_event_loop_lives_while_the_model_works(slow: tuple[LocalModel, list[str]]) -> None:
    model, threads = slow

    async def run() -> int:
        task = asyncio.create_task(collected(model, options((), {"max_tokens": 10, "seed": 1, "ignore_eos": True})))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.005)
            ticks += 1
        return ticks

    assert asyncio.run(run()) > 20
    assert set(threads) == {"tsuzuri-toy_0"}


def test_leaving_early_stops_within_a_token(slow: tuple[LocalModel, list[str]]) -> None:
    model, steps = slow

    async def run() -> int:
        stream = model.chat_events(QUESTION, options((), {"seed": 1, "ignore_eos": True}))
        async for _ in stream:
            break
        seen = len(steps)
        await stream.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)
        return len(steps) - seen

    assert asyncio.run(run()) <= 1


def test_cancelling_while_the_prompt_is_read_stops_within_a_block(
    slow: tuple[LocalModel, list[str]], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, steps = slow
    monkeypatch.setattr(engine_module, "BLOCK", 2)
    read, under_way, go_on = model.engine.read, threading.Event(), threading.Event()

    def held(*arguments: object) -> object:
        """The third step ends only when somebody has left."""
        found = read(*arguments)  # type: ignore[arg-type]
        if len(steps) == 3:
            under_way.set()
            assert go_on.wait(60)
        return found

    monkeypatch.setattr(model.engine, "read", held)

    async def run() -> None:
        task = asyncio.create_task(collected(model, Options(Sampling())))
        assert await asyncio.to_thread(under_way.wait, 60)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)  # after the task has heard of it
        with pytest.raises(asyncio.CancelledError):
            await task

    assert model.count(QUESTION) > 20
    asyncio.run(run())
    seen = len(steps)
    assert 0 < seen < 8
    time.sleep(0.2)
    assert len(steps) <= seen + 1
    assert model.generate(PROMPT, max_tokens=3, seed=1) == LocalModel(directory).generate(PROMPT, max_tokens=3, seed=1)


def test_closing_the_stream_ends_the_work(slow: tuple[LocalModel, list[str]]) -> None:
    model, steps = slow
    stream = model.stream(PROMPT, seed=1, ignore_eos=True)
    next(stream)
    seen = len(steps)
    stream.close()
    assert next(stream, None) is None and len(steps) == seen


def test_two_conversations_at_once_do_not_mix(model: LocalModel) -> None:
    alone = [model.chat(text, max_tokens=15, seed=2) for text in ("注文", "料理")]

    async def both() -> list[str]:
        asked = options((), {**CONVERSATION, "max_tokens": 15, "seed": 2})
        found = await asyncio.gather(*(collected(model, asked, [Message("user", text)]) for text in ("注文", "料理")))
        return [text_of(events) for events in found]

    assert asyncio.run(both()) == alone


# ── numbers


def test_score_is_the_log_probability_of_every_token(model: LocalModel) -> None:
    ids = [model.tokenizer.special["<|endoftext|>"], *model.tokenizer.encode(PROMPT)]
    rows = model.logits(ids).log_softmax(-1)
    expected = -sum(float(rows[i, id]) for i, id in enumerate(ids[1:]))
    nats, count = model.score(PROMPT)
    assert nats == pytest.approx(expected, rel=1e-5) and count == len(PROMPT.encode())
    assert model.score("") == (0, 0)


def test_next_gives_both_probabilities(model: LocalModel) -> None:
    ids = model.tokenizer.encode(PROMPT)
    logits = model.logits(ids)[-1]
    choices = {"temperature": 0.5, "repetition_penalty": 1.5, "top_k": 400}
    rows = model.next(PROMPT, 600, **choices)  # type: ignore[arg-type]
    sampled = distribution(logits, Sampling(**choices), History(ids))  # type: ignore[arg-type]
    assert [row.id for row in rows[:9]] == logits.topk(9).indices.tolist()
    assert [row.probability for row in rows] == pytest.approx([float(logits.softmax(-1)[row.id]) for row in rows], rel=1e-4)
    assert [row.sampled for row in rows] == pytest.approx([float(sampled[row.id]) for row in rows], rel=1e-3)
    assert isinstance(rows[0], Candidate)


def test_bytes_that_are_no_character_are_shown_as_bytes(model: LocalModel) -> None:
    assert model.show(byte_ids(model, "日")[0]) == "<0xE6>"
    assert model.show(byte_ids(model, "a")[0]) == "a"


# ── refusals


def test_an_unknown_setting_is_refused_with_the_nearest_names(model: LocalModel) -> None:
    for call in (model.generate, model.stream, model.chat):
        with pytest.raises(ConfigError, match=r"temprature[\s\S]*「temperature」"):
            call("a", temprature=0.5)  # type: ignore[operator]
    with pytest.raises(ConfigError, match="max_tokens"):
        model.next("a", max_tokens=3)  # type: ignore[call-arg]  it would have no effect


def test_log_probabilities_that_a_text_cannot_carry_are_refused(model: LocalModel) -> None:
    for call in (model.generate, model.stream, model.chat):
        with pytest.raises(ConfigError, match=r"logprobs[\s\S]*events"):
            call("a", logprobs=3)  # type: ignore[operator]
    assert model.generate("a", max_tokens=2, seed=1, logprobs=None) == model.generate("a", max_tokens=2, seed=1)  # type: ignore[call-arg]
    found = list(model.events("a", Options(Sampling(max_tokens=2, logprobs=3))))
    assert {len(token.top) for event in found if isinstance(event, Text) for token in event.tokens} == {3}


def test_two_ways_of_saying_the_sampling_are_refused_together(model: LocalModel) -> None:
    with pytest.raises(ConfigError, match=r"sampling[\s\S]*temperature"):
        model.next("a", 5, Sampling(top_k=3), temperature=0.5)
    assert model.next("a", 5, Sampling(temperature=0.5)) == model.next("a", 5, temperature=0.5)


@pytest.mark.parametrize(
    "ids",
    [
        [5, True], [5.0], [5, "6"], ["5"], b"\x05\x06", bytearray(b"\x05"), [None], [[5, 6]], 5, None, {5: 6}, {5},
        torch.tensor([[5, 6]]), torch.tensor([5.0, 6.0]), torch.tensor([True]), torch.tensor(5),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_row_of_ids_is_refused(model: LocalModel, ids: object) -> None:
    for call in (model.generate, model.logits, model.next):
        with pytest.raises(InputError, match="番号"):
            call(ids)  # type: ignore[operator]


def test_whole_numbers_of_others_are_ids(model: LocalModel) -> None:
    wanted = model.logits([5, 6])
    for ids in ((5, 6), torch.tensor([5, 6], dtype=torch.int32), numpy.array([5, 6]), [numpy.int16(5), torch.tensor(6)]):
        assert torch.equal(model.logits(ids), wanted)  # type: ignore[arg-type]


def test_no_stop_string_is_none_and_what_cannot_be_one_is_refused(model: LocalModel) -> None:
    assert model.generate("a", max_tokens=5, seed=1, stop=None) == model.generate("a", max_tokens=5, seed=1)
    for stop in (3, 0, False, b"a", b"", {"a": 1}, ["a", 3], [b"a"], ""):
        with pytest.raises(ConfigError, match="stop"):
            model.generate("a", max_tokens=5, stop=stop)  # type: ignore[arg-type]


def test_wrong_messages_are_refused(model: LocalModel) -> None:
    with pytest.raises(ConfigError, match="name"):
        as_messages([{"role": "user", "content": "a", "name": "b"}])
    with pytest.raises(ConfigError, match="role"):
        as_messages([{"role": "root", "content": "a"}])
    with pytest.raises(ConfigError, match="ツール"):
        asyncio.run(collected(model, Options(Sampling(), tools=({"type": "function"},))))
    with pytest.raises(ConfigError, match="ツール"):
        model.events("a", Options(Sampling(), tools=({"type": "function"},)))
    with pytest.raises(InputError):
        model.chat([])


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ({"role": "user", "content": "a"}, ["並び"]),
        (Message("user", "a"), ["並び"]),
        (None, ["並び"]),
        (b"a", ["並び"]),
        (["a"], ["1 番目", "'a'"]),
        ([Message("user", "a"), None], ["2 番目", "None"]),
        ([{"role": "user"}], ["messages[0].content"]),
        ([{"role": "user", "content": None}], ["messages[0].content", "None"]),
        ([{"role": "user", "content": "a", "tool_calls": [{"id": 3}]}], ["messages[0].tool_calls[0].id"]),
    ],
    ids=str,
)
def test_what_is_no_conversation_is_told_how_to_write_one(model: LocalModel, messages: object, named: list[str]) -> None:
    with pytest.raises(ConfigError, match='"role": "user"') as caught:
        model.chat(messages)  # type: ignore[arg-type]
    assert "設定ファイル" not in str(caught.value)
    for words in named:
        assert words in str(caught.value)


def test_too_much_and_nothing_are_refused_with_the_counts(model: LocalModel) -> None:
    with pytest.raises(ContextError, match=r"300[\s\S]*256"):
        model.generate([5] * 300)
    with pytest.raises(ContextError, match="256"):
        model.generate([5] * 256)  # no room for a single token
    with pytest.raises(InputError):
        model.generate([])
    with pytest.raises(InputError, match="600"):
        model.logits([5, 600])
    for call in (model.generate, model.chat, model.score, model.next):
        with pytest.raises(InputError, match="2 文字目"):
            call("あ\ud83d")  # type: ignore[operator]
    assert model.generate("", max_tokens=3, seed=1) == model.generate([model.tokenizer.special["<|endoftext|>"]], max_tokens=3, seed=1)


@contextmanager
def nobody() -> Iterator[None]:
    """Root is refused nothing, so that a test of permissions has to be someone else."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_what_may_not_be_read_is_named_and_not_called_damaged(model: LocalModel, directory: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        place, copy = Path(name), Path(name) / "model"
        place.chmod(0o755)
        shutil.copytree(directory, copy)
        for each in copy.iterdir():
            each.chmod(0o644)
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"):
            (copy / file).chmod(0)
            with nobody(), pytest.raises(MissingError, match=rf"{re.escape(file)}[\s\S]*Permission denied[\s\S]*権限"):
                tsuzuri.load(copy)
            (copy / file).chmod(0o644)
        place.chmod(0)
        with nobody(), pytest.raises(MissingError, match=r"開けません（権限がありません）[\s\S]*権限を確かめて"):
            tsuzuri.load(copy)
        place.chmod(0o755)


def test_what_cannot_be_loaded_says_why(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="make tiny"):
        tsuzuri.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="float8"):
        tsuzuri.load(directory, dtype="float8")
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(MissingError, match="tokenizer"):
        tsuzuri.load(copy)


@pytest.mark.parametrize(("lang", "words"), [("ja", "片方だけのサロゲート（U+D83D）"), ("en", "only half of a surrogate pair (U+D83D)")])
def test_half_a_surrogate_pair_is_said_in_both_languages(model: LocalModel, monkeypatch: pytest.MonkeyPatch, lang: str, words: str) -> None:
    for call in (model.generate, model.chat, model.score):
        with pytest.raises(InputError) as caught:
            call("あ\ud83d")  # type: ignore[operator]
        monkeypatch.setenv("TSUZURI_LANG", lang)
        assert words in str(caught.value)


def test_a_tokenizer_of_another_model_is_refused(directory: Path, tmp_path: Path) -> None:
    from tsuzuri.text import fast

    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    text = (Path(__file__).parents[1] / "data" / "ryoriten.txt").read_text(encoding="utf-8")
    fast.train("bpe", [text] * 2, 700).save(copy)
    with pytest.raises(FormatError, match="700"):
        tsuzuri.load(copy)


def test_threads_are_set_when_asked_for(directory: Path) -> None:
    before = torch.get_num_threads()
    try:
        tsuzuri.load(directory, threads=1)
        assert torch.get_num_threads() == 1
        for threads in (0, "1", 1.0, True, [1]):
            with pytest.raises(ConfigError, match="スレッド"):
                tsuzuri.load(directory, threads=threads)  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)


def test_no_field_was_forgotten_in_the_second_place() -> None:
    named = [field.name for field in dataclasses.fields(Sampling) if field.name != "logprobs"]  # a text has no place for them
    assert named == [name for name in Settings.__annotations__ if name not in settings.FORMS]
    assert list(settings.Forms.__annotations__) == list(settings.FORMS)
    assert dict(CONVERSATION) == chat_command.CONVERSATION
    assert set(local.Distribution.__annotations__) <= set(Settings.__annotations__)


def test_many_together_are_what_each_is_alone(model: tsuzuri.LocalModel) -> None:
    prompts = ["今日は", "料理の", "", "今日は天気が", "水"] * 3
    for how in ({"temperature": 0}, {"seed": 3, "top_k": 20}, {"seed": 4, "stop": ["の", "た"]}):
        wanted = [model.generate(prompt, max_tokens=12, **how) for prompt in prompts]
        assert model.generate_all(prompts, max_tokens=12, **how) == wanted
    assert model.generate_all([]) == []


def test_one_that_cannot_be_stops_all_before_anything_is_computed(model: tsuzuri.LocalModel) -> None:
    with pytest.raises(ContextError):
        model.generate_all(["水", "水" * 5000], max_tokens=3)


SCHEMA = {"type": "object", "properties": {"名": {"enum": ["犬", "猫"]}}, "required": ["名"], "additionalProperties": False}


def test_a_text_has_the_form_that_was_asked_for(model: LocalModel) -> None:
    for found in (
        model.generate(PROMPT, json_schema=SCHEMA, seed=1, max_tokens=100),
        model.chat("どちら", json_schema=json.dumps(SCHEMA), seed=2, max_tokens=100),
    ):
        assert json.loads(found) in ({"名": "犬"}, {"名": "猫"})
    assert re.fullmatch("[ぁ-ん]{3}", model.generate(PROMPT, regex="[ぁ-ん]{3}", seed=1))
    assert "".join(model.stream(PROMPT, choice=["東", "西"], seed=1)) in ("東", "西")
    assert model.generate(PROMPT, grammar='start: "東" "西"') == "東西"
    prompts = ["今日は", "料理の", "水"] * 3
    settings: Settings = {"json_schema": SCHEMA, "seed": 3, "max_tokens": 60}
    assert model.generate_all(prompts, **settings) == [model.generate(prompt, **settings) for prompt in prompts]
    asked = Options(Sampling(constraint=Constraint("regex", "[0-9]{2}"), seed=1))
    events = asyncio.run(collected(model, asked))
    assert re.fullmatch("[0-9]{2}", text_of(events)) and events[-1] == Done("stop")


def test_next_tokens_are_shown_with_and_without_the_form(model: LocalModel) -> None:
    rows = model.next(PROMPT, 600, Sampling(constraint=Constraint("choice", '["東京"]')))
    assert sum(row.sampled for row in rows) == pytest.approx(1)
    assert all(row.sampled == 0 or "東".encode().startswith(model.tokenizer.token_bytes(row.id)[:3]) for row in rows)
    assert sum(row.probability for row in rows) == pytest.approx(1, abs=1e-4)


def test_a_form_that_cannot_be_is_refused(model: LocalModel) -> None:
    for forms, words in (
        ({"regex": "a", "choice": ["a"]}, "regex、choice が一緒に"),
        ({"regex": "a", "constraint": Constraint("json_object")}, "regex、constraint が一緒に"),
        ({"json_schema": {"uniqueItems": True}}, "「uniqueItems」"),
        ({"choice": []}, "一つ以上"),
        ({"choice": "東"}, "文字列の並び"),
        ({"regexp": "a"}, "regex"),
    ):
        with pytest.raises(ConfigError, match=words):
            model.generate(PROMPT, **forms)


def test_guesses_change_nothing(model: LocalModel, directory: Path) -> None:
    guessing = tsuzuri.load(directory, lookup=6)
    for how in ({"temperature": 0}, {"seed": 1, "temperature": 0.3}):
        assert guessing.generate(PROMPT * 4, max_tokens=80, **how) == model.generate(PROMPT * 4, max_tokens=80, **how)
    *_, done = guessing.events(PROMPT * 4, Options(Sampling(temperature=0, max_tokens=80)))
    assert isinstance(done, Done)
    counts = done.detail["lookup"]
    with Together(guessing) as together:
        *_, other = together.events(PROMPT * 4, Options(Sampling(temperature=0, max_tokens=80)))
    assert isinstance(other, Done) and other.detail["lookup"] == counts
    prompts = [PROMPT * 4, PROMPT, PROMPT * 2]
    assert guessing.generate_all(prompts, seed=1, max_tokens=60) == model.generate_all(prompts, seed=1, max_tokens=60)
    assert isinstance(counts, dict) and 0 <= counts["accepted"] <= counts["offered"]
    with pytest.raises(ConfigError, match="lookup"):
        tsuzuri.load(directory, lookup=65)


@pytest.fixture(scope="module")
def padded(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """Twelve ids more than its tokenizer has, and those by far the most probable."""
    place = tmp_path_factory.mktemp("padded") / "model"
    shutil.copytree(directory, place)
    found = weights.load(directory, dtype=torch.float32)
    wide = Transformer(dataclasses.replace(found.shape, vocab_size=612, tie_word_embeddings=False))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in wide.state_dict().items():
            torch.nn.init.normal_(weight, std=0.2, generator=generator) if weight.dim() > 1 else weight.fill_(1)
            if "head" in name:
                weight[600:] *= 40
    weights.save(wide, place)
    return tsuzuri.load(place)


def test_an_id_that_says_nothing_never_comes(padded: LocalModel) -> None:
    """A vocabulary that was filled up to a round number: alone, in a batch, by beams, as a candidate, and in what `--logprobs` shows."""
    ids = padded.tokenizer.encode(PROMPT)
    assert int(padded.logits(ids)[-1].argmax()) >= 600
    for how in ({"temperature": 0}, {"temperature": 1.5, "seed": 2}):
        assert padded.generate(PROMPT, max_tokens=20, **how) == padded.generate_all([PROMPT], max_tokens=20, **how)[0]
    tokens = list(padded.engine.stream(ids, Sampling(seed=1, max_tokens=20, logprobs=3)))
    assert all(token.id < 600 and all(id < 600 for id, _ in token.top) for token in tokens)
    assert sum(token.logprob for token in tokens) < -20  # the model's own: it would have said something else
    assert all(id < 600 for answer in padded.beams(PROMPT, Beams(width=3, max_tokens=6)) for id in answer.ids)
    candidates = padded.next(PROMPT, 600)
    assert sorted(each.id for each in candidates) == [*range(600)]
    assert sum(each.probability for each in candidates) < 0.9 < 0.999 < sum(each.sampled for each in candidates)
    with pytest.raises(ConfigError, match="600"):
        padded.next(PROMPT, 601)


def test_one_that_ends_the_output_may_say_nothing(padded: LocalModel) -> None:
    *_, last = padded.engine.stream(
        padded.tokenizer.encode(PROMPT), Sampling(temperature=0, max_tokens=30, stop_token_ids=tuple(range(600, 612)))
    )
    assert last.finish == "stop" and last.id >= 600


def test_the_first_token_waits_for_no_compiler(directory: Path) -> None:
    """What PyTorch compiles with, and the algebra it brings, would double the time of a start."""
    script = (
        "import sys, tsuzuri\n"
        "tsuzuri.load(sys.argv[1]).generate('今日', max_tokens=1)\n"
        "print(sorted({'sympy', 'torch._dynamo', 'torch._inductor', 'transformers', 'llguidance'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(directory)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
