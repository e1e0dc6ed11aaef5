"""Conversations as training data: only what the assistant says is trained, every end of its turns too, and nothing is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tsuzuri.chat import template
from tsuzuri.errors import InputError, TrainingError
from tsuzuri.text import fast
from tsuzuri.train.data import IGNORED
from tsuzuri.train.objectives.sft import Example, Objective, Settings, check
from tsuzuri.types import Message

TEXT = Path(__file__).parents[1] / "data" / "ryoriten.txt"
QUESTION, ANSWER = Message("user", "山猫軒とは何ですか。"), Message("assistant", "注文の多い料理店です。")
AGAIN, LAST = Message("user", "<|im_end|>と書いてください。"), Message("assistant", "<|im_end|>はただの文字です。")
SYSTEM = Message("system", "あなたは親切な案内役です。")


@pytest.fixture(scope="module")
def tokenizer() -> fast.FastTokenizer:
    return fast.train("bpe", [TEXT.read_text(encoding="utf-8")], 400)


def example(tokenizer: fast.FastTokenizer, *messages: Message) -> Example:
    ids, trained = template.encode_training(tokenizer, messages)
    return Example(np.asarray(ids, np.int64), np.asarray(trained, np.bool_))


def objective(tokenizer: fast.FastTokenizer, *examples: Example, length: int = 128) -> Objective:
    return Objective(Settings(length), examples, tokenizer.special["<|endoftext|>"], tokenizer.special["<|im_end|>"])


def taught(tokenizer: fast.FastTokenizer, found: Objective) -> list[str]:
    """What is trained in all rows, as text, a stretch of neighbouring targets each."""
    batch = found.batch(list(range(found.rows)))
    stretches: list[list[int]] = [[]]
    for row in batch.targets.tolist():
        for target in [*row, IGNORED]:
            if target != IGNORED:
                stretches[-1].append(target)
            elif stretches[-1]:
                stretches.append([])
    return sorted(tokenizer.decode(ids) for ids in stretches if ids)


def test_only_the_answer_and_its_end_are_trained(tokenizer: fast.FastTokenizer) -> None:
    assert taught(tokenizer, objective(tokenizer, example(tokenizer, QUESTION, ANSWER))) == ["注文の多い料理店です。<|im_end|>"]


def test_every_answer_of_a_conversation_and_its_end_are_trained(tokenizer: fast.FastTokenizer) -> None:
    """An `<|im_end|>` that someone wrote is text; the one that ends the turn is the special token."""
    found = objective(tokenizer, example(tokenizer, SYSTEM, QUESTION, ANSWER, AGAIN, LAST), length=160)
    assert taught(tokenizer, found) == ["<|im_end|>はただの文字です。<|im_end|>", "注文の多い料理店です。<|im_end|>"]
    targets = found.batch([0]).targets  # (1, 160)
    assert int((targets == tokenizer.special["<|im_end|>"]).sum()) == 2


def test_a_target_is_the_token_after(tokenizer: fast.FastTokenizer) -> None:
    one = example(tokenizer, QUESTION, ANSWER)
    batch = objective(tokenizer, one).batch([0])
    count = len(one.ids) - 1
    assert batch.tokens[0, :count].tolist() == one.ids[:-1].tolist()
    assert batch.positions[0, :count].tolist() == list(range(count))
    wanted = [id if trained else IGNORED for id, trained in zip(one.ids[1:], one.trained[1:], strict=True)]
    assert batch.targets[0].tolist() == wanted + [IGNORED] * (128 - count)


def test_what_is_learned_is_what_will_be_asked(tokenizer: fast.FastTokenizer) -> None:
    """Up to the answer the row is the prompt that the chat makes of the same question."""
    batch = objective(tokenizer, example(tokenizer, SYSTEM, QUESTION, ANSWER)).batch([0])
    prompt = template.encode(tokenizer, [SYSTEM, QUESTION])
    first = int((batch.targets[0] != IGNORED).nonzero()[0])
    assert batch.tokens[0, : first + 1].tolist() == prompt


def test_conversations_share_a_row_without_seeing_each_other(tokenizer: fast.FastTokenizer) -> None:
    one, two = example(tokenizer, QUESTION, ANSWER), example(tokenizer, QUESTION, ANSWER, AGAIN, LAST)
    length = len(one.ids) + len(two.ids) - 2
    found = objective(tokenizer, one, two, length=length)
    batch = found.batch([0])
    assert found.rows == 1
    assert batch.documents is not None
    assert batch.documents[0].tolist() == [0] * (len(two.ids) - 1) + [1] * (len(one.ids) - 1)
    assert batch.positions[0].tolist() == [*range(len(two.ids) - 1), *range(len(one.ids) - 1)]
    assert batch.trained == int(one.trained.sum() + two.trained.sum())


def test_a_conversation_that_just_fits_is_taken_and_a_longer_one_is_named(tokenizer: fast.FastTokenizer) -> None:
    short, long = example(tokenizer, QUESTION, ANSWER), example(tokenizer, SYSTEM, QUESTION, ANSWER, AGAIN, LAST)
    assert objective(tokenizer, short, long, length=len(long.ids) - 1).rows == 2
    with pytest.raises(InputError, match=f"1 件が length={len(long.ids) - 2}.*最長は 2 件目の {len(long.ids)}"):
        objective(tokenizer, short, long, length=len(long.ids) - 2)


def test_a_conversation_of_which_only_the_first_token_is_trained_teaches_nothing() -> None:
    """Nothing stands before it, so it is never a target."""
    with pytest.raises(TrainingError, match="一つもありません"):
        check(1, Example(np.array([2, 5, 6]), np.array([True, False, False])), end_of_turn=2)


def trained_as(one: Example, trained: np.ndarray) -> Example:
    return Example(one.ids, trained)


def test_a_conversation_that_teaches_nothing_stops_the_run(tokenizer: fast.FastTokenizer) -> None:
    one = example(tokenizer, QUESTION, ANSWER)
    with pytest.raises(TrainingError, match=r"2 件目[\s\S]*一つもありません"):
        objective(tokenizer, one, trained_as(one, np.zeros(len(one.ids), np.bool_)))


def test_a_conversation_of_which_all_is_trained_stops_the_run(tokenizer: fast.FastTokenizer) -> None:
    one = example(tokenizer, QUESTION, ANSWER)
    with pytest.raises(TrainingError, match=r"1 件目[\s\S]*すべてのトークン"):
        objective(tokenizer, trained_as(one, np.ones(len(one.ids), np.bool_)), one)


@pytest.mark.parametrize("turn", [0, 1], ids=["an earlier turn", "the last turn"])
def test_an_answer_whose_end_is_not_trained_stops_the_run(tokenizer: fast.FastTokenizer, turn: int) -> None:
    """It would teach to go on for ever."""
    one = example(tokenizer, QUESTION, ANSWER, AGAIN, LAST)
    ends = np.flatnonzero((one.ids == tokenizer.special["<|im_end|>"]) & one.trained)
    trained = one.trained.copy()
    trained[ends[turn]] = False
    with pytest.raises(TrainingError, match="答えの終わり"):
        objective(tokenizer, trained_as(one, trained))


def test_a_conversation_that_ends_with_a_question_is_taken(tokenizer: fast.FastTokenizer) -> None:
    assert taught(tokenizer, objective(tokenizer, example(tokenizer, QUESTION, ANSWER, AGAIN))) == ["注文の多い料理店です。<|im_end|>"]
