"""Filling spans that were taken out of a text: what was said beside what stood there, and an n-gram model that fills them too.

In: stretches of ids, and which of their tokens are out. Out: the share of tokens that stand right. The rival sees what the network sees,
both sides of a span, and how long the span is, which the network has to find out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tsuzuri.evals import encoders
from tsuzuri.model.families.ngram import NgramModel

Ids = NDArray[np.int64]
Out = NDArray[np.bool_]


def spans(out: Out) -> list[tuple[int, int]]:
    """(start, stop) of each span."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], out, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def share(right: Sequence[Sequence[Sequence[int]]], said: Sequence[Sequence[Sequence[int]]]) -> encoders.Score:
    """Of spans by stretch: tokens that stand right in their span over all that were taken out, or said too many. Stretches are drawn."""
    counts = np.array([_counts(one, other) for one, other in zip(right, said, strict=True)])

    def value(drawn: NDArray[np.int64]) -> float:
        found, there = counts[drawn].sum(0)
        return float(found / max(1, there))

    score = encoders.interval(value, len(counts))
    return encoders.Score(score.value, score.interval, int(sum(len(span) for one in right for span in one)))


def _counts(right: Sequence[Sequence[int]], said: Sequence[Sequence[int]]) -> tuple[int, int]:
    pairs = list(zip(right, said, strict=True))
    return sum(a == b for one, other in pairs for a, b in zip(one, other, strict=False)), sum(max(map(len, pair)) for pair in pairs)


def counted(model: NgramModel, ids: Ids, out: Out, *, width: int, both: bool) -> list[list[int]]:
    """The spans as an n-gram model fills them, from the left on: the best of `width` beams; `both`: best together with what follows."""
    room, filled, found = model.order - 1, ids.copy(), []
    for start, stop in spans(out):
        before = np.concatenate((np.full(room, -1), [model.boundary or 0], filled[:start]))[-room:].tolist()
        beams: list[tuple[float, list[int]]] = [(0.0, before)]
        for _ in range(stop - start):
            logs = np.log(model.distribution(np.array([beam[-room:] for _, beam in beams])))
            best = np.argpartition(-logs, width, 1)[:, :width]
            grown = [(nats + row[id], [*beam, int(id)]) for (nats, beam), row, top in zip(beams, logs, best, strict=True) for id in top]
            beams = sorted(grown, key=lambda one: -one[0])[:width]
        if both:
            after = [int(id) for id, gone in zip(ids[stop : stop + room], out[stop : stop + room], strict=True) if not gone]
            beams = [(nats + _following(model, beam, after, room), beam) for nats, beam in beams]
        found.append(max(beams, key=lambda one: one[0])[1][room:])
        filled[start:stop] = found[-1]
    return found


def _following(model: NgramModel, beam: list[int], after: list[int], room: int) -> float:
    """Nats of what stands behind the span, given that it is filled so."""
    line = [*beam, *after]
    contexts = [line[at - room : at] for at in range(len(beam), len(line))]
    if not contexts:
        return 0.0
    return float(np.log(model.distribution(np.array(contexts))[np.arange(len(after)), after]).sum())
