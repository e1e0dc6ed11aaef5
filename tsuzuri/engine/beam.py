"""Beam search: the continuations of highest probability that a search of some width finds.

    read the prompt once → again and again: one step for all beams → the best continuations become the beams, the ended ones are kept

In: an engine, ids and `Beams`, its settings. Out: the best `Beam`s, the best first. Nothing is drawn: the same ids, the same beams.
A beam that splits shares its whole pages; only the page that is being written is copied. With groups, a token that an earlier group
has just taken costs a later one something (Vijayakumar et al. 2018, Diverse Beam Search). It knows no text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from tsuzuri.engine.choosing import sayable, total_of
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.paged import Part, Place
from tsuzuri.engine.pages import Pages
from tsuzuri.engine.running import page_size, runner
from tsuzuri.engine.sampling import Limits, check, rule
from tsuzuri.errors import ConfigError, Words
from tsuzuri.types import Finish

WIDEST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Beams:
    """Settings of a search. Raises ConfigError naming the field for a value that cannot be."""

    width: int = rule(4, int, "同時に追う候補の数（ビーム幅）", "continuations followed at once", Limits(1, WIDEST))
    length_penalty: float = rule(
        1.0,
        float,
        "対数確率の合計を長さの何乗で割るか（0 は割らない、大きいほど長い文章が有利）",
        "the sum of log-probabilities is divided by the length to this power; 0: not at all, more: longer texts win",
        Limits(0, 10),
    )
    groups: int = rule(
        1, int, "候補をいくつの組に分けるか（組どうしは違う語を選ぶ）", "groups that avoid each other's tokens", Limits(1, WIDEST)
    )
    diversity: float = rule(
        0.0, float, "前の組が選んだ語を選ぶときに引く点数", "subtracted for a token that an earlier group has just taken", Limits(0, 100)
    )
    max_tokens: int | None = rule(None, int, "出力するトークン数の上限", "the most tokens to give", Limits(1, 2**31 - 1), optional=True)
    min_tokens: int = rule(0, int, "これより少ないトークンでは終わらない", "it does not end with fewer tokens", Limits(0, 2**31 - 1))
    ignore_eos: bool = rule(False, bool, "文章の終わりの印が出ても続ける", "go on after the end of the text")
    stop_token_ids: tuple[int, ...] = rule(
        (), int, "出力を終えるトークンの番号", "ids that end the output", Limits(0, 2**31 - 1), several=True
    )

    def __post_init__(self) -> None:
        check(self)
        if self.width % self.groups:
            raise _refused("groups", self.groups, Words(f"width（{self.width}）の約数が要ります。", f"It divides width, {self.width}."))
        if self.groups > 1 and not self.diversity:
            raise _refused(
                "groups", self.groups, Words("diversity が 0 では組は同じ候補になります。", "Without diversity they are the same.")
            )
        if self.diversity and self.groups == 1:
            raise _refused("diversity", self.diversity, Words("groups が 1 では働きません。", "It does nothing with one group."))


class Beam(NamedTuple):
    """One continuation. The last id of one that ended by itself is what ended it."""

    ids: tuple[int, ...]
    logprob: float  # natural log, of all of it
    score: float  # logprob / length ** length_penalty
    finish: Finish


@dataclass(eq=False, slots=True)
class _Live:
    place: Place
    ids: tuple[int, ...] = ()
    logprob: float = 0.0


@dataclass(eq=False, slots=True)
class _Group:
    width: int
    live: list[_Live]
    ended: list[Beam] = field(default_factory=list)


@torch.inference_mode()
def search(one: LocalEngine, ids: Sequence[int], settings: Beams) -> list[Beam]:
    """The `width` best continuations that the search meets, best first. Raises what `LocalEngine.stream` raises."""
    return _Search(one, ids, settings).run()


class _Search:
    def __init__(self, one: LocalEngine, ids: Sequence[int], settings: Beams) -> None:
        one.check(ids, room=1)
        one.known("stop_token_ids", settings.stop_token_ids)
        self.settings, self.first = settings, one.first(ids)
        room = one.context_length - len(self.first)
        self.most = room if settings.max_tokens is None else min(room, settings.max_tokens)
        self.ends = sorted({*settings.stop_token_ids, *(() if settings.ignore_eos else one.eos_ids)})
        self.known, size = one.known_ids, page_size(one)
        count = -(-len(self.first) // size) + 2 * settings.width * (-(-self.most // size) + 1)  # parents and children side by side
        self.runner, self.pages = runner(one, count), Pages(count, size)
        self.start = Place(len(self.first) + self.most, memory=one.memory(ids))

    def run(self) -> list[Beam]:
        logits = self._prompt()
        groups = [_Group(self.settings.width // self.settings.groups, []) for _ in range(self.settings.groups)]
        for group, beam in zip(groups, self._forks(_Live(self.start), len(groups)), strict=True):
            group.live = [beam]
        rows = [logits] * len(groups)
        for length in range(1, self.most + 1):
            taken: list[int] = []
            for group in groups:
                count = len(group.live)
                self._go_on(group, rows[:count], length, taken)
                rows = rows[count:]
            live = [beam for group in groups for beam in group.live]
            if not live or length == self.most:
                break
            rows = list(self._step(live))
        found = [beam for group in groups for beam in group.ended]
        found += [self._beam(beam.ids, beam.logprob, "length") for group in groups for beam in group.live]
        for beam in (beam for group in groups for beam in group.live):
            self.pages.release(beam.place.pages)
        return sorted(found, key=lambda beam: -beam.score)[: self.settings.width]

    def _prompt(self) -> Tensor:
        """Logits (V,) of what follows it."""
        logits = torch.empty(0)
        for at in range(0, len(self.first), self.runner.most):
            part = self.first[at : at + self.runner.most]
            self._room(self.start, at + len(part))
            logits = self.runner([Part(self.start, at, len(part))], part, [len(part) - 1])
        return logits[0]

    def _step(self, live: Sequence[_Live]) -> Iterator[Tensor]:
        """Logits (V,) of what follows each, as many at once as the runner takes."""
        for at in range(0, len(live), self.runner.most):
            some = live[at : at + self.runner.most]
            lengths = [len(self.first) + len(beam.ids) for beam in some]
            for beam, length in zip(some, lengths, strict=True):
                self._room(beam.place, length)
            parts = [Part(beam.place, length - 1, 1) for beam, length in zip(some, lengths, strict=True)]
            yield from self.runner(parts, [beam.ids[-1] for beam in some], range(len(some)))

    def _go_on(self, group: _Group, rows: Sequence[Tensor], length: int, taken: list[int]) -> None:
        """The best tokens after the group's beams: those that end go aside, the others are its beams. `taken` at this length so far."""
        if not group.live:
            return
        for row in rows:
            total_of(row)
        logprobs = torch.stack(list(rows)).double().log_softmax(-1).cpu()  # (beams, V)
        sums = logprobs + torch.tensor([beam.logprob for beam in group.live], dtype=torch.double)[:, None]
        sums = sayable(sums, self.known, self.ends)
        if length < self.settings.min_tokens and self.ends:
            sums[:, self.ends] = -math.inf
        ranked = sums
        if taken:
            ranked = sums.index_add(1, torch.tensor(taken), sums.new_full((len(sums), len(taken)), -self.settings.diversity))
        # of `width` beams at most `width × ends` best tokens end, so as many more hold every beam that goes on
        count = min(group.width * (1 + len(self.ends)), ranked.numel())
        chosen: list[tuple[int, int, float]] = []
        for place in ranked.flatten().topk(count).indices.tolist():
            parent, id = divmod(place, sums.shape[1])
            total = float(sums[parent, id])
            if math.isinf(total) or len(chosen) == group.width:
                continue
            if id in self.ends:
                group.ended.append(self._beam((*group.live[parent].ids, id), total, "stop"))
            else:
                chosen.append((parent, id, total))
        group.ended = sorted(group.ended, key=lambda beam: -beam.score)[: group.width]
        fresh = self._children(group.live, chosen)
        if len(group.ended) == group.width and fresh:
            hope = max(self._best(beam.logprob, length) for beam in fresh)
            if hope <= group.ended[-1].score:  # none of them can come to stand among the best any more
                for beam in fresh:
                    self.pages.release(beam.place.pages)
                fresh = []
        group.live = fresh
        taken += [id for _, id, _ in chosen]

    def _children(self, live: Sequence[_Live], chosen: Sequence[tuple[int, int, float]]) -> list[_Live]:
        heirs = {number: iter(self._forks(beam, [parent for parent, _, _ in chosen].count(number))) for number, beam in enumerate(live)}
        fresh = []
        for parent, id, total in chosen:
            child = next(heirs[parent])
            child.ids, child.logprob = (*live[parent].ids, id), total
            fresh.append(child)
        return fresh

    def _forks(self, beam: _Live, count: int) -> list[_Live]:
        """As many that go on from here; the first keeps the pages, the others share the whole ones and copy the one being written."""
        if count == 0:
            self.pages.release(beam.place.pages)
            return []
        found = [_Live(beam.place)]
        whole = (len(self.first) + len(beam.ids)) // self.pages.size
        for _ in range(count - 1):
            place = Place(beam.place.bound, [*beam.place.pages[:whole]], dict(beam.place.states), beam.place.memory, beam.place.looked)
            self.pages.hold(place.pages)
            for page in beam.place.pages[whole:]:
                copy = self._taken(1)
                self.runner.fill(copy[0], self.runner.contents(page))
                place.pages += copy
            found.append(_Live(place))
        return found

    def _room(self, place: Place, length: int) -> None:
        place.pages += self._taken(max(0, -(-length // self.pages.size) - len(place.pages)))

    def _taken(self, count: int) -> list[int]:
        pages = self.pages.take(count)
        assert pages is not None, "there are pages for twice the beams in their full length"
        return pages

    def _best(self, logprob: float, length: int) -> float:
        """The highest score that a beam of this sum can still come to: probabilities only fall, a length only grows."""
        return self._score(logprob, self.most if self.settings.length_penalty > 0 else length)

    def _score(self, logprob: float, length: int) -> float:
        return float(logprob / length**self.settings.length_penalty)

    def _beam(self, ids: tuple[int, ...], logprob: float, finish: Finish) -> Beam:
        return Beam(ids, logprob, self._score(logprob, len(ids)), finish)


def _refused(name: str, value: object, found: Words) -> ConfigError:
    return ConfigError(
        Words(f"ビームサーチの設定 {name} に {value} が指定されました。", f"The beam search setting {name} was given {value}."),
        found=found,
        todo=Words(f"{name} を直してください。", f"Correct {name}."),
    )
