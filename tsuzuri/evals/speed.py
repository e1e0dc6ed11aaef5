"""How fast an engine answers: one text, many at once, a long prompt, the first token; and what a token costs at least.

In: a `LocalEngine` whose model continues texts. Out: one number for each call of a measure, so that whoever asks decides how many rounds
there are and in which order; `Spread` of several; and the bytes and products of a token, by which a number is compared with what
the machine can do. Prompts are random ids, new each time: nothing of an earlier prompt is known.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tsuzuri.engine.batch import BatchEngine
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.running import SIZE
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, Words
from tsuzuri.model.adapt.quantize import Quantised
from tsuzuri.model.compiled import Compiled
from tsuzuri.model.transformer import Transformer

LEAST = 0.2  # seconds of a sample: what takes less is done again
MOST = 1.5  # seconds after which no further token is asked for
ENOUGH = 8  # tokens that are made in any case
SHORTEST = 32  # tokens of context that can be measured in


@dataclass(frozen=True, slots=True)
class Spread:
    """Several samples of one number."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.samples) < 2:
            return self.samples[0], self.samples[0]
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return low, high

    @property
    def width(self) -> float:
        """Between the quartiles, as a share of the median."""
        low, high = self.quartiles
        return (high - low) / self.median

    def as_json(self) -> dict[str, Any]:
        low, high = self.quartiles
        return {"median": self.median, "low": low, "high": high, "samples": list(self.samples)}


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of what is measured."""

    prompt: int = 64  # before the tokens that are made
    made: int = 128
    long: int = 256  # of the prompt whose reading is measured
    streams: int = 16  # texts at once

    def within(self, context_length: int) -> Lengths:
        """Shorter, where the context is. Raises ConfigError where it is too short to measure in."""
        if context_length < SHORTEST:
            raise ConfigError(
                Words("モデルの速さを測ろうとしました。", "Measuring the speed of a model."),
                found=Words(f"文脈が {context_length} トークンしかありません。", f"Its context is {context_length} tokens."),
                todo=Words(f"{SHORTEST} トークン以上のモデルを使ってください。", f"Use a model of {SHORTEST} tokens or more."),
            )
        prompt = min(self.prompt, context_length // 4)
        return Lengths(prompt, min(self.made, context_length - prompt), min(self.long, context_length - 1), self.streams)


class Measures:
    """Every method does the work once, or as often as fills LEAST seconds, and returns one sample."""

    def __init__(self, engine: LocalEngine, lengths: Lengths, seed: int = 1) -> None:
        """Raises ConfigError for a model that does not continue a text by reading weights."""
        model = _weighed(engine.model)
        if model is None:
            raise _not_measured()
        self.engine, self.lengths, self.model = engine, lengths.within(engine.context_length), model
        self._draw = torch.Generator().manual_seed(seed)
        each = self.lengths.prompt + self.lengths.made
        self._many = BatchEngine(engine, self.lengths.streams * -(-each // SIZE))

    def decode(self) -> float:
        """Tokens a second of one text, after the first."""
        return self._rate(self._one)

    def batch(self) -> float:
        """Tokens a second of all streams together, while all are written."""
        return self._rate(self._together)

    def prefill(self) -> float:
        """Tokens a second of reading a long prompt."""
        return self._rate(lambda: (self.lengths.long, self._first(self.lengths.long)))

    def first(self) -> float:
        """Seconds from a prompt to the first token."""
        return 1 / self._rate(lambda: (1, self._first(self.lengths.prompt)))

    def _rate(self, once: Callable[[], tuple[int, float]]) -> float:
        tokens, seconds = once()
        while seconds < LEAST:
            more, longer = once()
            tokens, seconds = tokens + more, seconds + longer
        return tokens / seconds

    def _one(self) -> tuple[int, float]:
        stream = self.engine.stream(self._ids(self.lengths.prompt), self._greedy(self.lengths.made))
        try:
            next(stream)
            begun, count, seconds = time.perf_counter(), 0, 0.0
            for _ in stream:
                count, seconds = count + 1, time.perf_counter() - begun
                if seconds > MOST and count >= ENOUGH:
                    break
        finally:
            stream.close()
        return count, seconds

    def _first(self, length: int) -> float:
        ids = self._ids(length)
        begun = time.perf_counter()
        stream = self.engine.stream(ids, self._greedy(1))
        next(stream)
        seconds = time.perf_counter() - begun
        stream.close()
        assert stream.cached_tokens == 0, "the prompt was known"
        return seconds

    def _together(self) -> tuple[int, float]:
        sampling = self._greedy(self.lengths.made)
        streams = [self._many.stream(self._ids(self.lengths.prompt), sampling) for _ in range(self.lengths.streams)]
        try:
            while min(stream.completion_tokens for stream in streams) < 1:
                self._many.step()
            before, begun, steps, seconds = sum(stream.completion_tokens for stream in streams), time.perf_counter(), 0, 0.0
            while max(stream.completion_tokens for stream in streams) < self.lengths.made and (seconds < MOST or steps < ENOUGH):
                self._many.step()
                steps, seconds = steps + 1, time.perf_counter() - begun
            return sum(stream.completion_tokens for stream in streams) - before, seconds
        finally:
            for stream in streams:
                stream.cancel()
            while self._many.step():
                pass

    def _ids(self, count: int) -> list[int]:
        return torch.randint(self.engine.vocab_size, (count,), generator=self._draw).tolist()

    @staticmethod
    def _greedy(count: int) -> Sampling:
        return Sampling(temperature=0.0, max_tokens=count, ignore_eos=True)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one token costs at least, however it is computed."""

    bytes: int  # of weights that are read
    products: int  # multiplications of weights when a text goes on, the head's included
    prompt_products: int  # the same of a token of a prompt, whose logits nobody asks for

    @classmethod
    def of(cls, model: Any) -> Cost:
        """Of a `Transformer`, or of one that is compiled; attention and what else has no weights is not counted."""
        plain = _weighed(model)
        assert plain is not None
        head = plain.shape.vocab_size * plain.shape.hidden_size
        blocks = sum(_share(plain, name) * layer.in_features * layer.out_features for name, layer in _linears(plain))
        read = model.bytes_read if isinstance(model, Compiled) else _bytes_read(plain)
        return cls(int(read), int(blocks) + head, int(blocks))


def _weighed(model: Any) -> Transformer | None:
    """The model whose weights are read; None where there is none, or where it does not continue a text."""
    plain = model.model if isinstance(model, Compiled) else model
    return plain if isinstance(plain, Transformer) and plain.shape.causal and plain.shape.head == "next_token" else None


def _linears(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear) and "blocks." in name]


def _share(model: Transformer, name: str) -> float:
    """How many of the tokens go through a module: of experts each token has a few."""
    return model.shape.num_experts_per_tok / model.shape.num_experts if ".experts." in name else 1.0


def _bytes_read(model: Transformer) -> float:
    """Every weight, but of tables the one row that is looked up; a table that is the head too is read whole."""
    total = 0.0
    for name, module in model.named_modules():
        table = isinstance(module, nn.Embedding) and not (module is model.embedding and model.shape.tie_word_embeddings)
        if not table:
            own = list(module._parameters.values()) + ([module.values, module.scale_bits] if isinstance(module, Quantised) else [])
            total += _share(model, f"{name}.") * sum(each.numel() * each.element_size() for each in own if each is not None)
    return total


def _not_measured() -> ConfigError:
    return ConfigError(
        Words("モデルの速さを測ろうとしました。", "Measuring the speed of a model."),
        found=Words("文章の続きを、重みを読んで書くモデルではありません。", "It is none that continues a text by reading weights."),
        todo=Words("続きを書くニューラルネットワークのモデルを指定してください。", "Name a neural model that continues texts."),
    )
