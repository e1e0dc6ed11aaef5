"""Finding the same text again: exactly, by hash; nearly, by MinHash and locality-sensitive hashing.

In: cleaned texts, one after another. Out: for each, the earlier text it repeats, or None. The first one stays.
It keeps about 3 KB a text (signature and band keys), never the text. The plain twin is `jaccard`, on the sets themselves.
Broder 1997 (resemblance); Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, ch. 3 (banding).
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Signature: TypeAlias = NDArray[np.uint32]

WIDTH = 6  # characters of a shingle: about three Japanese words; shorter ones are shared by any two texts of a kind
HASHES = 128  # standard error of the estimate at 0.8: sqrt(0.8 × 0.2 / 128) = 0.035
BLOCK = 4096  # shingles at a time, so that the 128 rows stay in the cache
GROUP = 16  # hash functions at a time, for the same reason


def digest(text: str, seed: int = 0) -> bytes:
    """16 bytes that stand for a text; they also give it its place in the corpus."""
    return hashlib.blake2b(text.encode(), digest_size=16, salt=seed.to_bytes(16, "little", signed=True)).digest()


def shingles(text: str) -> NDArray[np.uint32]:
    """Hashes of all distinct stretches of WIDTH characters, white space left out; of the whole text where it is shorter."""
    squeezed = "".join(text.split())
    points = np.frombuffer(squeezed.encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    width = min(WIDTH, len(points))
    codes = np.zeros(len(points) - width + 1, dtype=np.uint64)
    for offset in range(width):  # a polynomial in an odd number, modulo 2**64
        codes = codes * np.uint64(0x9E3779B97F4A7C15) + points[offset : offset + len(codes)]
    return np.unique(_mix(codes))


def jaccard(one: str, other: str) -> float:
    """Exact share of common shingles: what the signatures estimate."""
    first, second = shingles(one), shingles(other)
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)


def estimate(one: Signature, other: Signature) -> float:
    """Share of equal places of two signatures."""
    return float(np.mean(one == other))


class MinHash:
    """Signatures: for each of HASHES hash functions, the least value over all shingles of a text."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self._factors = random.integers(0, 1 << 31, HASHES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        self._terms = random.integers(0, 1 << 32, HASHES, dtype=np.uint32)

    def __call__(self, text: str) -> Signature:
        """(HASHES,) uint32. Linear functions modulo 2**32 (SIMD has these, not those of 64 bits), of shingles well mixed before."""
        codes = shingles(text)
        least = np.full(HASHES, 0xFFFFFFFF, dtype=np.uint32)
        for start in range(0, len(codes), BLOCK):
            block = codes[start : start + BLOCK]
            for group in range(0, HASHES, GROUP):
                part = slice(group, group + GROUP)
                values = block * self._factors[part, None] + self._terms[part, None]  # (GROUP, BLOCK)
                np.minimum(least[part], values.min(axis=1), out=least[part])
        return least


class Near:
    """Remembers texts and finds, for a new one, the most similar earlier one of at least `threshold` resemblance."""

    def __init__(self, threshold: float, seed: int = 0) -> None:
        assert 0 < threshold <= 1
        self._threshold, self._minhash = threshold, MinHash(seed)
        self._rows = rows(threshold)
        self._signatures: list[Signature] = []
        self._names: list[int] = []
        self._bands = [Band() for _ in range(HASHES // self._rows)]

    def seen(self, text: str, name: int) -> int | None:
        """The name of the earlier text that this one nearly repeats; or None, and this one is remembered as `name`."""
        signature = self._minhash(text)
        keys = [signature[i * self._rows : (i + 1) * self._rows].tobytes() for i in range(len(self._bands))]
        candidates = sorted({other for band, key in zip(self._bands, keys, strict=True) for other in band.find(key)})
        if candidates:
            shares = np.mean(np.stack([self._signatures[other] for other in candidates]) == signature, axis=1)
            best = int(np.argmax(shares))
            if shares[best] >= self._threshold:
                return self._names[candidates[best]]
        for band, key in zip(self._bands, keys, strict=True):
            band.add(key, len(self._signatures))
        self._signatures.append(signature)
        self._names.append(name)
        return None


class Band:
    """Texts by one part of their signature. Nearly all keys have one text, so only the others pay for a list."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}
        self._more: dict[bytes, list[int]] = {}

    def find(self, key: bytes) -> tuple[int, ...]:
        first = self._first.get(key)
        return () if first is None else (first, *self._more.get(key, ()))

    def add(self, key: bytes, number: int) -> None:
        if self._first.setdefault(key, number) != number:
            self._more.setdefault(key, []).append(number)


def rows(threshold: float) -> int:
    """Rows of a band: as many as still find 98 % of the pairs at the threshold (more rows: fewer candidates, more misses)."""
    for count in range(HASHES // 4, 1, -1):
        if 1 - (1 - threshold**count) ** (HASHES // count) >= 0.98:
            return count
    return 1


def _mix(codes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014), upper half: every input bit reaches every output bit."""
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((codes ^ (codes >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)
