"""Scores against what can be counted by hand, and rivals that do what they say."""

from __future__ import annotations

import numpy as np
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


def test_a_linear_rival_learns_what_naive_bayes_counts_twice() -> None:
    """Two words that always come together say as much as one: naive Bayes lets them outvote the word that decides."""
    learned = [Labelled(text, "甲") for text in ("赤青", "赤青黄")] + [Labelled(text, "乙") for text in ("赤青黒", "赤青黒黄", "黒")]
    assert encoders.linear(learned, ["赤青黄", "黒黄", "赤青"]) == ["甲", "乙", "甲"]
    assert encoders.linear(learned, ["赤"]) == encoders.linear(learned, ["赤"])


@pytest.mark.parametrize(
    ("question", "context", "answer"),
    [
        ("龍安寺ができたのはいつか", "龍安寺は細川勝元が1450年に建てた。", "1450年"),
        ("門は何本の柱で立つか", "門には柱が12本あり、屋根は瓦である。", "12本"),
        ("龍安寺を建てたのは誰か", "龍安寺は細川勝元が1450年に建てた。", "細川勝元"),
    ],
)
def test_the_rule_by_the_questions_word(question: str, context: str, answer: str) -> None:
    assert encoders.typed(Question(question, context), 3) == answer


def test_bm25_counts_rare_characters_more_and_the_second_time_less() -> None:
    """By hand, for one character that 1 of 3 texts has and a text of the usual length: ln(1 + 2.5 / 1.5) · 2.2 / (1 + 1.2)."""
    suits = encoders.Okapi(["ああい", "ああう", "ああえ"])
    assert suits("い", ["ああい"]) == [pytest.approx(0.98083)]
    rare, common, none = suits("いあ", ["いうえ", "あうえ", "うえお"])
    assert rare > common > none == 0.0
    once, twice, more = suits("い", ["いうえ", "いいえ", "いいい"])
    assert twice - once > more - twice > 0


def test_who_finds_its_own_first_counts_and_a_tie_counts_in_part() -> None:
    scores = np.array([[2.0, 1, 1], [3, 2, 0], [1, 0, 1]])  # the first finds itself, the second does not, the third ties with one
    found = encoders.retrieved(lambda item, candidates: scores[item, candidates].tolist(), 3)
    assert found.value == pytest.approx((1 + 0 + 0.5) / 3) and found.items == 3
    alone = encoders.retrieved(lambda item, candidates: scores[item, candidates].tolist(), 3, among=1)
    assert alone.value == 1.0


def test_what_is_rare_weighs_more_in_the_cosine() -> None:
    rare = encoders.rarity(["犬が走る", "猫が走る", "鳥が飛ぶ"])
    assert rare("鳥") > rare("走") > rare("が")
    pair = Pair("犬が", "猫が")
    assert encoders.cosine(pair, 1, rare) < encoders.cosine(pair, 1) == pytest.approx(0.5)
