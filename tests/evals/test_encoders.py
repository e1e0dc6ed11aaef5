"""Scores against what can be counted by hand, and rivals that do what they say."""

from __future__ import annotations

import pytest

from tsuzuri.evals import encoders
from tsuzuri.text.examples import Labelled, Pair, Question, Tagged
from tsuzuri.text.spans import Span


def test_entities_count_only_where_all_of_them_is_right() -> None:
    right = [[Span(0, 2, "a"), Span(3, 5, "b")], [Span(1, 2, "a")]]
    said = [[Span(0, 2, "a"), Span(3, 4, "b")], []]
    assert encoders.entity_f1(right, said).value == pytest.approx(2 * 1 / (3 + 2))
    assert encoders.entity_f1(right, right).value == 1.0


@pytest.mark.parametrize(
    ("right", "said", "f1"),
    [("東京都", "東京", 0.8), ("東京", "大阪", 0.0), (None, None, 1.0), (None, "東京", 0.0), ("東京", None, 0.0), ("ああ", "あ", 2 / 3)],
)
def test_an_answers_f1_is_by_characters(right: str | None, said: str | None, f1: float) -> None:
    assert encoders.character_f1(right, said) == pytest.approx(f1)


def test_spearman_is_of_ranks_and_ties_share_theirs() -> None:
    assert encoders.spearman([1, 2, 3, 4], [10, 100, 1000, 10000]).value == pytest.approx(1)
    assert encoders.spearman([1, 2, 3, 4], [4, 3, 2, 1]).value == pytest.approx(-1)
    assert encoders.spearman([1, 2, 2, 4], [1, 2, 3, 4]).value == pytest.approx(0.9486833)  # scipy.stats.spearmanr


def test_an_interval_holds_the_value_and_shrinks_with_the_items() -> None:
    few, many = encoders.mean([0.0, 1.0] * 10), encoders.mean([0.0, 1.0] * 1000)
    for found in (few, many):
        assert found.interval[0] < found.value == 0.5 < found.interval[1]
    assert many.interval[1] - many.interval[0] < 0.3 * (few.interval[1] - few.interval[0])


def test_the_rivals() -> None:
    learned = [Labelled("風呂が広い", "風呂"), Labelled("お風呂に入りたい", "風呂"), Labelled("朝食が付く", "食事")]
    assert encoders.majority(learned, ["x", "y"]) == ["風呂", "風呂"]
    assert encoders.naive_bayes(learned, ["夕食は何か", "風呂はあるか"]) == ["食事", "風呂"]
    tagged = [Tagged("民法による", [Span(0, 2, "法令名")]), Tagged("民法施行法による", [Span(0, 5, "法令名")])]
    assert encoders.dictionary(tagged, ["民法施行法と民法"]) == [[Span(0, 5, "法令名"), Span(6, 8, "法令名")]]
    assert encoders.dictionary([], ["民法"]) == [[]]
    question = Question("猫の名前は何か", "犬が走る。猫の名前はまだ無い。")
    assert encoders.overlap(question) == "猫の名前はまだ無い。"
    assert encoders.sliding(question, 2) in question.context
    assert encoders.cosine(Pair("猫が走る", "猫が走る"), 2) == pytest.approx(1)
    assert encoders.cosine(Pair("猫", "犬"), 2) == 0.0
    assert encoders.cosine(Pair("猫", "犬"), 1) == 0.0 and encoders.cosine(Pair("犬猫", "猫犬"), 1) == pytest.approx(1)
