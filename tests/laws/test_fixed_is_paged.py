"""Steps of fixed shape = steps as they come: filled up, in buckets, and (on CUDA) recorded, each request has the same tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from laws.test_batched_is_one_by_one import CONTEXT, MODELS, alone, asked, drained, engine, same

from tsuzuri.engine.batch import BatchEngine
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.graphs import Fixed, Graphs
from tsuzuri.engine.paged import Paged, Part, Place
from tsuzuri.engine.running import Plain
from tsuzuri.errors import ConfigError

ATTENDING = [name for name in MODELS if name not in ("lstm", "mamba2", "marian", "ngram")]


def recorded(one: LocalEngine, pages: int, size: int, budget: int) -> tuple[BatchEngine, list[int]]:
    """A batch whose steps of new tokens have fixed shapes, and how many parts each of those had."""
    batch = BatchEngine(one, pages, size=size, budget=budget)
    runner = Plain(one, pages, size, budget, recorded=True)
    batch._runner = runner
    steps: list[int] = []
    assert runner._graphs is not None
    inner = runner._graphs.__call__
    runner._graphs = _Counted(runner._graphs, inner, steps)  # type: ignore[assignment]
    return batch, steps


class _Counted:
    def __init__(self, graphs: Graphs, inner: Any, steps: list[int]) -> None:
        self.takes, self._inner, self._steps = graphs.takes, inner, steps

    def __call__(self, parts: Any, ids: Any) -> torch.Tensor:
        self._steps.append(len(parts))
        found: torch.Tensor = self._inner(parts, ids)
        return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("pages", "size", "budget"), [(400, 4, 128), (45, 4, 16)])
def test_the_same_tokens_for_each(name: str, pages: int, size: int, budget: int) -> None:
    """Few pages, too, so that some are preempted. What keeps a state or looks at a source never takes these steps."""
    one = engine(MODELS[name], eos=(7,))
    batch, steps = recorded(one, pages, size, budget)
    requests = asked(5)
    for _ in ("nothing known", "known pages"):
        streams = [batch.stream(prompt, sampling, tenant=f"{number % 2}") for number, (prompt, sampling) in enumerate(requests)]
        for found, (prompt, sampling) in zip(drained(batch, streams), requests, strict=True):
            same(found, alone(one, prompt, sampling))
    assert bool(steps) is (name in ATTENDING)
    assert name not in ATTENDING or len(set(steps)) > 2, "sizes that are filled up"


@pytest.mark.parametrize("name", ATTENDING)
def test_a_step_is_one_graph(name: str) -> None:
    """Nothing in it needs Python in between: torch traces it without a break."""
    one, size = engine(MODELS[name]), 4
    past = Paged(9, size)
    place = Place(CONTEXT, [2, 5])
    past.begin([Part(place, 0, 6)])
    one.model(torch.arange(6), past)
    fixed = Fixed(past, 2, 2, 8)
    fixed.begin([Part(place, 6, 1)])
    ids = torch.tensor([3, 0])
    plain = one.model(ids, fixed)
    traced = torch.compile(lambda tokens: one.model(tokens, fixed), fullgraph=True, backend="eager")
    assert torch.allclose(traced(ids)[0], plain[0], atol=1e-12, rtol=0)


def test_what_fills_a_step_up_touches_nothing_of_anybody() -> None:
    one, size = engine(MODELS["grouped"]), 4
    past = Paged(7, size)
    place = Place(CONTEXT, [1, 3])
    past.begin([Part(place, 0, 5)])
    one.model(torch.arange(5), past)
    before = [past.contents(page) for page in range(6)]
    fixed = Fixed(past, 8, 4, 6)
    fixed.begin([Part(place, 5, 1)])
    one.model(torch.zeros(8, dtype=torch.long), fixed)
    after = [past.contents(page) for page in range(6)]
    changed = {page for page in range(6) if any(not torch.equal(before[page][key], after[page][key]) for key in before[page])}
    assert changed == {3}


def test_steps_are_compiled_on_cuda_alone() -> None:
    with pytest.raises(ConfigError, match="CUDA"):
        BatchEngine(engine(MODELS["rotary"]), 40, size=4, compiled=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs are recorded on an accelerator of NVIDIA alone; none is here")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ATTENDING)
def test_recorded_on_cuda(name: str, compiled: bool) -> None:
    model = MODELS[name].to("cuda")  # type: ignore[attr-defined]
    try:
        one = LocalEngine(model, (7,), CONTEXT, torch.device("cuda"))
        batch = BatchEngine(one, 400, size=4, compiled=compiled)
        requests = asked(5)
        streams = [batch.stream(prompt, sampling) for prompt, sampling in requests]
        for found, (prompt, sampling) in zip(drained(batch, streams), requests, strict=True):
            same(found, alone(one, prompt, sampling))
    finally:
        model.to("cpu")
