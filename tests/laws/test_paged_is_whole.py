"""Logits of several sequences in pages = of each read whole, in float32: whatever the schedule, wherever the pages lie, with pages of
another's beginning; for every kind of attention, recurrent state and a decoder that looks at a source."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from laws.test_batched_is_one_by_one import MODELS, VOCABULARY
from torch import Tensor

from tsuzuri.engine.paged import Paged, Part, Place
from tsuzuri.model.encoder_decoder import EncoderDecoder
from tsuzuri.model.past import Bidirectional, Causal, Memory

SIZE, SEQUENCES, SHARED = 4, 5, 8  # tokens of a page; sequences; tokens of a common beginning, whole pages
NEURAL = [name for name in MODELS if name != "ngram"]  # counted: no logits of float32
TOLERANCE = 2e-6  # of the largest logit


def memory(model: Any, number: int) -> Tensor | None:
    if not isinstance(model, EncoderDecoder):
        return None
    source = torch.arange(3 + number) % VOCABULARY
    return model.encode(source, Bidirectional(torch.arange(len(source))))


def taken(numbers: random.Random, free: list[int], count: int) -> list[int]:
    return [free.pop(numbers.randrange(len(free))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NEURAL)
def test_logits_of_a_schedule_are_those_of_the_whole(name: str, seed: int) -> None:
    model, numbers = copy.deepcopy(MODELS[name]).float(), random.Random(seed)  # type: ignore[attr-defined]
    beginning = [numbers.randrange(VOCABULARY) for _ in range(SHARED)]
    length = numbers.randrange(20, 60)  # of all: a rotary scaling may depend on it, and then pages go only to as long a text
    texts = [beginning + [numbers.randrange(VOCABULARY) for _ in range(length - SHARED)] for _ in range(SEQUENCES)]
    free, past = list(range(100)), Paged(100, SIZE)
    places = [Place(length, taken(numbers, free, -(-len(text) // SIZE)), memory=memory(model, n)) for n, text in enumerate(texts)]
    read, found = [0] * SEQUENCES, [torch.zeros(0, VOCABULARY) for _ in texts]
    while any(at < len(text) for at, text in zip(read, texts, strict=True)):
        some = [n for n in range(SEQUENCES) if read[n] < len(texts[n]) and numbers.random() < 0.7]
        numbers.shuffle(some)
        for n in some:  # whose beginning another has read takes over its pages
            known = next((m for m in range(SEQUENCES) if read[m] >= SHARED and not past.recurs and places[n].memory is None), None)
            if read[n] == 0 and known is not None:
                places[n].pages[: SHARED // SIZE], read[n] = places[known].pages[: SHARED // SIZE], SHARED
                found[n] = found[known][:SHARED]
        parts = [Part(places[n], read[n], min(numbers.choice((1, 1, 3, 17)), len(texts[n]) - read[n])) for n in some]
        if not parts:
            continue
        past.begin(parts)
        logits = model(torch.tensor([id for n, p in zip(some, parts, strict=True) for id in texts[n][p.start : p.start + p.count]]), past)
        for n, part, rows in zip(some, parts, logits.split([part.count for part in parts]), strict=True):
            found[n], read[n] = torch.cat((found[n], rows)), read[n] + part.count
    for n, text in enumerate(texts):
        source = places[n].memory
        whole = model(torch.tensor(text), Causal(torch.arange(length), memory=None if source is None else Memory(source)))
        assert found[n].dtype == torch.float32 and whole.std() > 0.1, "logits that differ"
        assert (found[n] - whole).abs().max() < TOLERANCE * whole.abs().max(), n
