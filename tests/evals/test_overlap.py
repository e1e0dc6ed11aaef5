"""chrF and BLEU against examples worked by hand, and the baseline that looks up."""

from __future__ import annotations

import numpy as np
import pytest

from tsuzuri.evals import overlap


def chrf(hypothesis: str, reference: str) -> float:
    return overlap.chrf(overlap.chrf_counts([hypothesis], [reference]).sum(0))


def bleu(hypothesis: str, reference: str) -> float:
    return overlap.bleu(overlap.bleu_counts([hypothesis], [reference]).sum(0))


def test_chrf_is_that_worked_by_hand() -> None:
    """abc / abd: 2 of 3 characters, 1 of 2 pairs, 0 of 1 triple; precision and recall are (2/3 + 1/2 + 0) / 3 = 7/18."""
    assert chrf("abc", "abd") == pytest.approx(100 * 7 / 18)
    # ab / abcd: precision (1 + 1) / 2; recall (2/4 + 1/3) / 2 = 5/12; F with β = 2: 5 · 1 · 5/12 / (4 + 5/12) = 25/53
    assert chrf("ab", "abcd") == pytest.approx(100 * 25 / 53)
    assert chrf("a b", "ab") == chrf("ab", "ab") == pytest.approx(100)
    assert chrf("", "ab") == chrf("xy", "ab") == 0


def test_bleu_clips_and_is_brief() -> None:
    """Papineni et al. 2002, example 2: of seven 'the' two count. Then a case by hand: 4 of 5 words, 3 of 4, 2 of 3, 1 of 2."""
    counts = overlap.bleu_counts(["the the the the the the the"], ["the cat is on the mat"])[0]
    assert counts[:4].tolist() == [7, 6, 7, 2]
    assert bleu("a b c d x", "a b c d e") == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert bleu("a b c d", "a b c d e") == pytest.approx(100 * np.exp(1 - 5 / 4))
    assert bleu("彼は本を読む", "彼は本を読む") == pytest.approx(100)


def test_the_difference_is_drawn_on_the_same_sentences() -> None:
    references = [f"sentence number {n} of many" for n in range(40)]
    good, bad = overlap.chrf_counts(references, references), overlap.chrf_counts(["nothing"] * 40, references)
    found = overlap.difference(overlap.chrf, good, bad)
    assert found.interval[0] <= found.score <= found.interval[1]
    assert found.score == pytest.approx(overlap.score(overlap.chrf, good).score - overlap.score(overlap.chrf, bad).score)
    same = overlap.difference(overlap.chrf, bad, bad)
    assert same.score == 0 and same.interval == (0, 0)


def test_the_nearest_source_gives_its_target() -> None:
    nearest = overlap.Nearest([("京都の寺である。", "a temple"), ("日本の作曲家。", "a composer"), ("京都", "Kyoto")])
    assert nearest("日本の作曲家である。") == "a composer"
    assert nearest("京都の駅である。") == "a temple"
    assert nearest("xyz") == "a temple", "where nothing is shared, the first"
