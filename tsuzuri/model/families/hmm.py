"""The hidden Markov model (Baum & Petrie 1966; Rabiner 1989): a chain of states that nobody sees, each of which utters tokens.

    p(x_1 … x_T) = Σ over z_1 … z_T of  π(z_1) B(z_1, x_1) Π_t A(z_{t−1}, z_t) B(z_t, x_t)

The sum over all paths is the forward algorithm (Rabiner 1989, section III-A), one step a token: what is kept is how probable each
state is. It is trained by the one loop, by gradients; `_baum_welch.py` is the classical way to the same place. In: ids and a past.
Out: log-probabilities of the next id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsuzuri.errors import Words
from tsuzuri.model.families._fields import Fields
from tsuzuri.model.transformer import LONGEST, UNLIMITED, impossible
from tsuzuri.types import Past

MODEL_TYPE = "hmm"
SPECIAL = Words(
    "見えない状態が次々に移り変わり、状態ごとに決まった確率でトークンを出す。文脈は「いまどの状態らしいか」だけになる。",
    "States that nobody sees follow each other and utter tokens; all that is kept of a text is how probable each state is.",
)
EQUATION = "p(x) = Σ_z π(z₁)·B(z₁,x₁)·Π A(z_{t−1},z_t)·B(z_t,x_t)"
PAPER = "Baum & Petrie 1966; Rabiner 1989, A Tutorial on Hidden Markov Models"
PUBLIC: dict[str, str] = {}
MOST_STATES = 1 << 14  # the table of transitions has the square of it


@dataclass(frozen=True, slots=True, kw_only=True)
class HmmShape:
    vocab_size: int
    num_states: int

    @property
    def kept(self) -> int:
        """Numbers that training keeps of a token: its emissions, and what the forward step makes of them."""
        return 8 * self.num_states

    @property
    def max_position_embeddings(self) -> int:
        return UNLIMITED

    def __post_init__(self) -> None:
        for name, most in (("vocab_size", LONGEST), ("num_states", MOST_STATES)):
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise impossible(name, Words(f"{value} ですが、1 から {most} までです。", f"It is {value}; it lies in 1 … {most}."))


SHAPE = HmmShape
USUAL: dict[str, Any] = {"num_states": 128}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The `model:` section of a recipe."""

    family: str = MODEL_TYPE
    num_states: int = 128

    def shape(self, vocab_size: int, length: int) -> HmmShape:
        return HmmShape(vocab_size=vocab_size, num_states=self.num_states)


class Hmm(nn.Module):
    """Three tables of logits: their softmax are π, A and B. S states, V tokens."""

    context_length = UNLIMITED

    def __init__(self, shape: HmmShape, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        with torch.device(device):
            self.start_table = nn.Parameter(torch.empty(shape.num_states))
            self.transition_table = nn.Parameter(torch.empty(shape.num_states, shape.num_states))  # from each state (row) to each
            self.emission_table = nn.Parameter(torch.empty(shape.num_states, shape.vocab_size))
        self.to(dtype)

    @property
    def vocab_size(self) -> int:
        return self.shape.vocab_size

    @torch.no_grad()
    def initialise(self, seed: int) -> Hmm:
        """Random rows: states that start alike would stay alike."""
        generator = torch.Generator().manual_seed(seed)
        for weight in (self.start_table, self.transition_table, self.emission_table):
            weight.copy_(torch.randn(weight.shape, generator=generator))
        return self

    def forward(self, tokens: Tensor, past: Past) -> Tensor:
        """(...) int64 -> log-probabilities of the next id (..., V)"""
        emissions = F.embedding(tokens, F.log_softmax(_wide(self.emission_table), -1).t())  # (..., S)
        states = past.recur(0, emissions, self.scan)  # (..., S)
        return self._uttered(states.exp() @ F.softmax(_wide(self.transition_table), -1))

    def first(self) -> Tensor:
        """(V,) log-probabilities of the first id of a text."""
        return self._uttered(F.softmax(_wide(self.start_table), -1))

    def _uttered(self, states: Tensor) -> Tensor:
        """How probable each state is (..., S) -> log-probability of what it utters (..., V)"""
        return _log(states @ F.softmax(_wide(self.emission_table), -1))

    def scan(self, inputs: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """A Scan, the forward algorithm: log B(·, x_t) (..., T, S) and log p(z_1) (..., S) -> log p(z_t | x_1 … x_t) (..., T, S) and
        log p(z_{T+1} | x_1 … x_T) (..., S)"""
        moves = F.softmax(_wide(self.transition_table), -1)
        ahead = F.log_softmax(_wide(self.start_table), -1) if state is None else state
        found = []
        for emission in inputs.unbind(-2):
            here = F.log_softmax(ahead + emission, -1)  # Bayes: what was expected, times what was uttered, over its sum
            found.append(here)
            ahead = _log(here.exp() @ moves)
        return torch.stack(found, -2), ahead


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _log(x: Tensor) -> Tensor:
    """Of a probability, which may have become too small for its number type."""
    return x.clamp_min(torch.finfo(x.dtype).tiny).log()


MODEL = Hmm


def shape(config: Mapping[str, Any]) -> HmmShape:
    fields = Fields(config)
    found = HmmShape(vocab_size=fields.whole("vocab_size"), num_states=fields.whole("num_states"))
    fields.done()
    return found


def config(shape: HmmShape) -> dict[str, Any]:
    return {"model_type": MODEL_TYPE, "vocab_size": shape.vocab_size, "num_states": shape.num_states}


def names(shape: HmmShape) -> dict[str, str]:
    return {name: name for name in ("start_table", "transition_table", "emission_table")}
