"""What a model says while it is still learning: a few greedy tokens, so that a person sees it come to be.

In: the model in training, ids to go on from. Out: one line of text. The weights and the random state are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tsuzuri import device
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.text.fast import FastTokenizer

TOKENS = 24


def sample(model: Any, tokenizer: FastTokenizer, ids: Sequence[int], ends: Sequence[str]) -> dict[str, str]:
    """`{"sample": text}` for the journal. Empty under torchrun, where every process would have to say the same, and
    where the context has no room for one token after `ids`: a sample is no reason to stop a run.
    """
    if device.rank()[1] > 1 or len(ids) >= model.context_length:
        return {}
    engine = LocalEngine(model, [tokenizer.special[end] for end in ends], model.context_length, device.of(model))
    said = [token.id for token in engine.stream(ids, Sampling(temperature=0.0, max_tokens=TOKENS)) if token.finish != "stop"]
    return {"sample": " ".join(tokenizer.decode(said).split())}
