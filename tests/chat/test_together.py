"""Many at once are each what they would be alone: texts, conversations, several answers to one question, beams."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import tsuzuri
from tsuzuri.chat.local import LocalModel
from tsuzuri.chat.together import Together
from tsuzuri.engine.beam import Beams
from tsuzuri.engine.sampling import Sampling, copies
from tsuzuri.errors import BusyError, ConfigError, InputError
from tsuzuri.types import Chat, Done, Event, Message, Options, Text, Usage

QUESTIONS = ["料理とは何ですか。", "今日の天気は", "吾輩は猫である。名前はまだ無い。", "東京タワーの高さ", "料理とは何ですか。"]


@pytest.fixture(scope="module")
def model(directory: Path) -> LocalModel:
    return tsuzuri.load(directory, dtype="float32")


def options(seed: int, **more: int) -> Options:
    return Options(Sampling(seed=seed, temperature=0.9, max_tokens=12, **more))


async def heard(chat: Chat, question: str, seed: int) -> list[Event]:
    return [event async for event in chat([Message("user", question)], options(seed))]


def told(events: list[Event]) -> tuple[str, int, str]:
    text = "".join(event.text for event in events if isinstance(event, Text))
    usage = next(event for event in events if isinstance(event, Usage))
    return text, usage.completion_tokens, next(event.finish for event in events if isinstance(event, Done))


def test_conversations_at_once_are_those_one_by_one(model: LocalModel) -> None:
    wanted = [told(asyncio.run(heard(model.chat_events, question, seed))) for seed, question in enumerate(QUESTIONS)]

    async def together() -> list[list[Event]]:
        with Together(model) as many:
            return await asyncio.gather(*(heard(many.chat("甲"), question, seed) for seed, question in enumerate(QUESTIONS)))

    assert [told(events) for events in asyncio.run(together())] == wanted
    assert len({text for text, _, _ in wanted}) > 1


def test_whoever_stops_listening_ends_its_own_work_only(model: LocalModel) -> None:
    async def together() -> tuple[int, str]:
        with Together(model) as many:
            long = Options(Sampling(seed=1, max_tokens=200, ignore_eos=True))
            first = many.chat()([Message("user", "あ")], long)
            other = asyncio.create_task(heard(many.chat(), QUESTIONS[0], 0))
            async for _ in first:
                break
            await first.aclose()
            text = told(await other)[0]
            while many.engine.pages.free < many.engine.pages.count:
                await asyncio.sleep(0.01)
            return many.engine.pages.count, text

    count, text = asyncio.run(asyncio.wait_for(together(), 60))
    assert count > 0
    assert text == told(asyncio.run(heard(model.chat_events, QUESTIONS[0], 0)))[0]


def test_only_the_same_tenant_begins_with_what_was_computed(model: LocalModel) -> None:
    prompt = "料理とは、食材を切ったり熱を加えたりして食べられるようにすることです。" * 4
    with Together(model) as many:
        cached = []
        for tenant in ("甲", "乙", "甲"):
            events = list(many.events(prompt, options(1), tenant))
            cached.append(next(event.cached_tokens for event in events if isinstance(event, Usage)))
    assert cached[0] == cached[1] == 0 < cached[2]


def test_pages_on_a_disk_outlive_it(model: LocalModel, directory: Path, tmp_path: Path) -> None:
    prompt = "料理とは、食材を切ったり熱を加えたりして食べられるようにすることです。" * 4
    found = []
    for each in (model, tsuzuri.load(directory, dtype="float32")):
        with Together(each, disk=tmp_path) as many:
            events = list(many.events(prompt, options(1)))
            found.append((told(events), next(event.cached_tokens for event in events if isinstance(event, Usage))))
    assert found[0][0] == found[1][0]
    assert found[0][1] == 0 < found[1][1]


def test_too_many_are_refused_and_so_is_whoever_comes_after_the_end(model: LocalModel) -> None:
    many = Together(model, waiting=1)
    many.engine.stream([1], Sampling(max_tokens=2))
    with pytest.raises(BusyError):
        many.events("あ", options(1))
    with many:
        pass
    with pytest.raises(BusyError):
        list(many.events("あ", options(1)))


def test_tools_are_refused(model: LocalModel) -> None:
    with Together(model) as many, pytest.raises(ConfigError):
        many.events("あ", Options(Sampling(), tools=({"type": "function"},)))


def test_several_answers(model: LocalModel) -> None:
    """The first is the one that would come alone; the others have seeds of their own; the best of more come first."""
    settings = {"temperature": 0.9, "max_tokens": 8, "ignore_eos": True}
    found = model.several("今日の天気は", 4, seed=3, **settings)
    assert [answer.text for answer in found] == [
        model.generate("今日の天気は", **settings, seed=each.seed) for each in copies(Sampling(seed=3), 4)
    ]
    assert len({answer.text for answer in found}) > 1
    assert found[0].logprob == pytest.approx(found[0].score * 8)
    best = model.several("今日の天気は", 2, best_of=4, seed=3, **settings)
    assert best == sorted(found, key=lambda answer: -answer.score)[:2]


@pytest.mark.parametrize(
    ("n", "best_of", "name"), [(0, None, "n"), (65, None, "n"), (3, 2, "best_of"), (1, 65, "best_of"), (True, None, "n")]
)
def test_counts_that_cannot_be_are_refused_by_name(model: LocalModel, n: int, best_of: int | None, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        model.several("あ", n, best_of=best_of)


def test_one_text_is_no_list_of_characters(model: LocalModel) -> None:
    with pytest.raises(InputError):
        model.generate_all("今日の天気は")


def test_beams_as_text(model: LocalModel) -> None:
    found = model.beams("今日の天気は", Beams(width=3, max_tokens=6))
    assert [answer.score for answer in found] == sorted((answer.score for answer in found), reverse=True)
    greedy = model.generate("今日の天気は", temperature=0, max_tokens=6, ignore_eos=True)
    assert [answer.text for answer in model.beams("今日の天気は", Beams(width=1, max_tokens=6, ignore_eos=True))] == [greedy]
    assert found[0].logprob >= model.beams("今日の天気は", Beams(width=1, max_tokens=6))[0].logprob - 1e-6


def test_what_it_thought_of_a_prompt(model: LocalModel) -> None:
    ids = model.tokenizer.encode("今日の天気は晴れ")
    found = model.read_through("今日の天気は晴れ", top=2)
    assert [token.id for token in found] == ids[1:]
    assert [token.logprob for token in found] == model.engine.score(ids)
    assert all(len(token.top) == 2 for token in found)
