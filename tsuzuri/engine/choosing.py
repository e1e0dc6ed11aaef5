"""The tokens of one request: chosen by its own rules and its own numbers, with what is said of each.

In: logits (V,), one position after another. Out: a `Token` each, the last with its reason. With `lookup` it also offers guesses at what
it may choose next: whoever computes reads them in the same call, and `follow` takes of the answers what is true. It knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tsuzuri.engine.lookup import Lookup
from tsuzuri.engine.sampling import History, Sampling, choose, generator
from tsuzuri.errors import FormatError, InputError, Words
from tsuzuri.types import Finish, Token

if TYPE_CHECKING:
    from torch import Tensor

    from tsuzuri.engine.constrain import Matcher


class Best(NamedTuple):
    """The most probable token at a place: all that a greedy request needs of its logits."""

    id: int
    logprob: float


def best(logits: Tensor) -> list[Best]:
    """float32 (N, V) on any device -> of each row its `Best`; of a row that is no numbers one that `Choosing` refuses."""
    values, ids = logits.max(-1)  # of equal ones the first
    alone = logits.device.type == "cpu"  # row by row: the same bits as of a request alone, whose sum is one of a row
    totals = [_total(row) for row in logits] if alone else logits.logsumexp(-1).tolist()
    return [Best(id, value - total) for id, value, total in zip(ids.tolist(), values.tolist(), totals, strict=True)]


class Choosing:
    """`history.output` is what was chosen so far, `logprob` the sum of its log-probabilities; `offered` counts the tokens that were
    guessed, `accepted` those of them that were chosen."""

    def __init__(
        self,
        first: Sequence[int],
        sampling: Sampling,
        eos_ids: Collection[int],
        context_length: int,
        matcher: Matcher | None = None,
        lookup: int = 0,
        known: int | None = None,
    ) -> None:
        """`first`: what the model read before; `eos_ids` end the output unless the sampling ignores them; `matcher` of its constraint;
        `lookup`: the most guesses at once; `known`: ids from here on say nothing (None: all do) and never come."""
        ends = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else eos_ids)}
        self.history, self.logprob = History(first, ends=ends), 0.0
        self._sampling, self._generator, self._room = sampling, generator(sampling.seed), context_length - len(first)
        self._matcher, self._known = matcher, known
        self._most, self._lookup = lookup, Lookup(first) if lookup else None
        self.offered = self.accepted = 0

    def is_greedy(self, vocab_size: int) -> bool:
        """Whether it takes the most probable token whatever was said, and tells of no other."""
        rules = self._sampling
        penalised = (rules.repetition_penalty, rules.presence_penalty, rules.frequency_penalty) != (1, 0, 0)
        told = rules.logit_bias or rules.constraint or rules.logprobs or rules.min_tokens
        return rules.temperature == 0 and not penalised and not told and (self._known is None or self._known >= vocab_size)

    @property
    def left(self) -> int:
        """The most tokens that can still come."""
        return min(self._room, self._sampling.max_tokens or self._room) - len(self.history.output)

    def guesses(self, room: int) -> list[int]:
        """At most `room` ids that may come next, out of what stands there already; they are to be read before `follow`."""
        if self._lookup is None:
            return []
        ids = self._lookup.guess(min(self._most, room, self.left - 1))  # something is chosen after the last of them
        ids = ids if self._matcher is None else ids[: self._matcher.fitting(ids)]
        self.offered += len(ids)
        return ids

    def follow(self, rows: Iterable[Tensor | Best], guesses: Sequence[int]) -> Iterator[Token]:
        """float32 logits (V,) on the CPU of what comes after the last sure token, and after each guess -> the tokens, up to the last
        one or the first that was guessed wrong: what was read after that does not count."""
        for number, logits in enumerate(rows):
            token = self(logits)
            right = guesses[number : number + 1] == [token.id]
            self.accepted += right
            yield token
            if token.finish or not right:
                return

    def __call__(self, logits: Tensor | Best) -> Token:
        """float32 (V,) on the CPU, or where it `is_greedy` the best of them -> the next token. Raises FormatError where they are no
        numbers."""
        if isinstance(logits, Best):
            return self._taken(logits.id, finite(logits.logprob), ())
        total = total_of(logits)
        logits = sayable(logits, self._known, self.history.ends)
        if self._matcher is not None:
            self.history.ruled_out = self._matcher.ruled_out(len(logits), self.history.ends)
        id = choose(logits, self._sampling, self.history, self._generator)
        if self._matcher is not None:
            self._follow(self._matcher, id)
        values, ids = logits.topk(min(self._sampling.logprobs or 0, len(logits)))
        top = tuple((other, value - total) for other, value in zip(ids.tolist(), values.tolist(), strict=True))
        return self._taken(id, float(logits[id]) - total, top)

    def _taken(self, id: int, logprob: float, top: tuple[tuple[int, float], ...]) -> Token:
        self.history.output.append(id)
        if self._lookup is not None:
            self._lookup.add(id)
        self.logprob += logprob
        return Token(id, logprob, top, self._finish(id))

    def _follow(self, matcher: Matcher, id: int) -> None:
        assert self.history.ruled_out is not None
        if self.history.ruled_out[id]:
            raise InputError(
                Words("制約に従って次のトークンを選ぼうとしました。", "Choosing the next token under the constraint."),
                found=Words(
                    "制約に合うどのトークンの確率も、モデルでは 0 です。", "The model gives no probability to anything that fits it."
                ),
                todo=Words("制約か logit_bias を見直してください。", "Look again at the constraint, or at logit_bias."),
            )
        if id not in self.history.ends:
            matcher.accept(id)

    def _finish(self, id: int) -> Finish | None:
        if id in self.history.ends:
            return "stop"
        count = len(self.history.output)
        return "length" if count == self._room or count == self._sampling.max_tokens else None


def sayable(logits: Tensor, known: int | None, ends: Collection[int]) -> Tensor:
    """(..., V) with what says nothing ruled out: ids from `known` on, that fill up a vocabulary to a round number, but for those that
    end the output."""
    if known is None or known >= logits.shape[-1]:
        return logits
    kept = [id for id in ends if id >= known]
    found = logits.clone()
    found[..., known:] = -math.inf
    found[..., kept] = logits[..., kept]
    return found


def total_of(logits: Tensor) -> float:
    """The logarithm of the sum of exponentials of (V,). Raises FormatError where they are no numbers."""
    return finite(_total(logits))


def _total(logits: Tensor) -> float:
    """From the largest of (V,) and its log-probability: one pass of PyTorch, where `logsumexp` is five and takes three times as long."""
    return float(logits.max()) - float(logits.log_softmax(-1).max())


def finite(value: float) -> float:
    """What was computed from logits, where that is a number. Raises FormatError."""
    if not math.isfinite(value):
        raise FormatError(
            Words("次のトークンを選ぼうとしました。", "Choosing the next token."),
            found=Words("モデルの出力が数になっていません（NaN か無限大）。", "The model gives NaN or infinity."),
            todo=Words(
                "重みが壊れているか、学習が発散しています。別の途中保存か、入手し直したモデルを使ってください。",
                "The weights are damaged, or training diverged. Use another checkpoint, or a model fetched again.",
            ),
        )
    return value
