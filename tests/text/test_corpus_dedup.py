"""MinHash estimates the exact resemblance; banding misses next to nothing; the first of two stays."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tsuzuri.text.corpus.dedup import HASHES, Band, MinHash, Near, digest, estimate, jaccard, rows, shingles

STORY = (Path(__file__).parents[1] / "data" / "ryoriten.txt").read_text(encoding="utf-8")


def altered(share: float, seed: int) -> str:
    """The story with a share of its characters replaced."""
    chance = random.Random(seed)
    return "".join(chr(chance.randrange(0x4E00, 0x9FFF)) if chance.random() < share else c for c in STORY)


def test_resemblance_by_hand() -> None:
    assert jaccard("あいうえおかき", "あいうえおかき") == 1
    assert jaccard("あいうえおかき", "あいうえ おか\nく") == pytest.approx(1 / 3)  # あいうえおか is common, いうえおかき and …く are not
    assert len(shingles("あい")) == 1


def test_the_estimate_is_the_exact_resemblance_within_its_error() -> None:
    minhash = MinHash()
    whole = minhash(STORY)
    for number, share in enumerate([0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4, 1.0] * 3):
        other = altered(share, number)
        exact = jaccard(STORY, other)
        error = (exact * (1 - exact) / HASHES) ** 0.5
        assert abs(estimate(whole, minhash(other)) - exact) <= 4 * error + 1e-9


def test_the_estimate_has_no_bias() -> None:
    other = altered(0.03, 1)
    found = [estimate(MinHash(seed)(STORY), MinHash(seed)(other)) for seed in range(30)]
    assert sum(found) / len(found) == pytest.approx(jaccard(STORY, other), abs=0.03)


def test_near_finds_what_is_near_and_keeps_the_first() -> None:
    near = Near(0.8)
    assert near.seen(STORY, 7) is None
    for number in range(20):
        close = altered(0.005, number)
        assert jaccard(STORY, close) > 0.9
        assert near.seen(close, 100 + number) == 7
        assert near.seen(altered(0.2, number), 200 + number) is None
    assert near.seen(STORY[:30], 300) is None


def test_banding_decides_as_comparing_with_every_earlier_text() -> None:
    """The plain twin: each text against all that were kept. Banding may miss two in a hundred, and never drops one too many."""
    threshold, minhash = 0.5, MinHash()
    chance = random.Random(3)
    texts = []
    for _ in range(220):  # families: stretches of the story that overlap, a little altered
        start, noise = chance.randrange(0, 4500, 150), chance.choice((0.005, 0.03, 0.06))
        texts.append("".join(c if chance.random() > noise else "〓" for c in STORY[start : start + 500]))
    signatures = [minhash(text) for text in texts]
    near = Near(threshold)
    kept: list[int] = []
    missed = 0
    for number, text in enumerate(texts):
        shares = {other: estimate(signatures[number], signatures[other]) for other in kept}
        best = max(shares.values(), default=0.0)
        found = near.seen(text, number)
        if found is None:
            missed += best >= threshold
            kept.append(number)
        else:
            assert shares[found] >= threshold
            missed += shares[found] < best
    assert 50 < len(kept) < len(texts) - 50
    assert missed <= 0.02 * (len(texts) - len(kept))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_banding_misses_at_most_two_in_a_hundred(threshold: float) -> None:
    assert rows(0.8) == 7  # not fewer than need be: each band costs memory
    assert 1 - (1 - threshold ** rows(threshold)) ** (HASHES // rows(threshold)) >= 0.98 or rows(threshold) == 1


def test_a_band_forgets_nobody() -> None:
    band = Band()
    for number, key in enumerate((b"a", b"b", b"a", b"a")):
        band.add(key, number)
    assert [band.find(key) for key in (b"a", b"b", b"c")] == [(0, 2, 3), (1,), ()]


def test_digest_is_stable_and_seeded() -> None:
    assert digest("綴り").hex() == digest("綴り", 0).hex() != digest("綴り", 1).hex()
    assert digest("綴り", -5) != digest("綴り", 5)
