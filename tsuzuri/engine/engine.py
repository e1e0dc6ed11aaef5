"""The engine of one machine and one model: ids in, tokens out, one at a time.

In: a model behind the `past` seam, ids, `Sampling`. Out: `types.Engine`: a stream of tokens, scores, an embedding.
A prompt is read in blocks of BLOCK tokens and the blocks are kept for the next call. Blocks always lie at the same
places, so what is reused is bit for bit what would be computed again: same seed, same text, reused or not.
An encoder-decoder reads its prompt as the source, whole and once, and writes a target from its start token on.
It knows no text, and it computes one sequence at a time.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from tsuzuri.engine.cache import Cached
from tsuzuri.engine.choosing import Choosing, best
from tsuzuri.engine.constrain import Matcher, Vocabulary
from tsuzuri.engine.lookup import MOST
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, ContextError, InputError, Words
from tsuzuri.model.parts.rotary import Scaling, regime
from tsuzuri.model.past import Bidirectional
from tsuzuri.types import Model, Past, Token

BLOCK = 128  # tokens read in one call: bounds the memory of a prompt, and is the grain of reuse


@runtime_checkable
class Decoder(Protocol):
    """A model whose head can be left out where its logits are not needed, and that can embed."""

    def hidden(self, tokens: Tensor, past: Past) -> Tensor: ...  # (N,) -> (N, D)
    def logits(self, hidden: Tensor) -> Tensor: ...  # (N, D) -> (N, V)


@runtime_checkable
class Reader(Protocol):
    """An encoder-decoder: what it is given is a source, what it writes another text."""

    @property
    def source_vocab_size(self) -> int: ...
    @property
    def source_length(self) -> int: ...  # tokens of the longest source
    def encode(self, tokens: Tensor, past: Past) -> Tensor: ...  # (S,) -> states (S, D)


@runtime_checkable
class Direct(Protocol):
    """A model that has a shorter way to the logits of the last token."""

    def read(self, tokens: Tensor, past: Past) -> Tensor: ...  # (N,) -> (V,)


class LocalEngine:
    """`types.Engine`. Safe to call from several threads; each call then has a cache of its own."""

    def __init__(
        self,
        model: Model,
        eos_ids: Collection[int],
        context_length: int,
        device: torch.device | str = "cpu",
        *,
        vocabulary: Vocabulary | None = None,
        lookup: int = 0,
    ) -> None:
        """`vocabulary`: what the ids say, for constraints of the output. `lookup`: the most tokens that are guessed from what stands
        there already and read in one call; the output is the same."""
        self.vocabulary, self.lookup = vocabulary, _guesses(lookup)
        self.model, self.eos_ids, self.context_length, self.device = model, frozenset(eos_ids), context_length, device
        self.vocab_size = model.vocab_size
        self.scaling: Scaling | None = getattr(getattr(model, "shape", None), "rope_scaling", None)
        self._kept: tuple[Cached, list[int]] | None = None
        self._reader: Reader | None = model if isinstance(model, Reader) else None
        self._direct: Direct | None = model if isinstance(model, Direct) else None  # asked once: it takes as long as a matrix
        self._lock = threading.Lock()

    def stream(self, ids: Sequence[int], sampling: Sampling) -> Generation:
        """Tokens that follow `ids`, computed as they are asked for. The last one has `finish`: 'stop' at an end-of-text id
        or one of `stop_token_ids`, 'length' at max_tokens or where the context is full.

        Of an encoder-decoder `ids` are the source and the tokens its target. Raises ContextError (no room for a token),
        InputError (no ids, unknown ids) and ConfigError (unknown ids in the sampling).
        """
        self.check(ids, room=1)
        self.check_sampling(sampling)
        return Generation(self, list(ids), sampling)

    def matcher(self, sampling: Sampling, tenant: str = "") -> Matcher | None:
        """The way through the constraint of a request. Raises ConfigError where it cannot be followed, MissingError without llguidance,
        and BusyError where the tenant has too many prepared at once."""
        if sampling.constraint is None:
            return None
        asked = Words("出力の形を決めようとしました。", "Constraining the output.")
        if self.vocabulary is None:
            raise ConfigError(
                asked,
                found=Words("このエンジンは、番号がどの文字を表すのかを知りません。", "This engine does not know what its ids say."),
                todo=Words("vocabulary を渡してください。", "Give it a vocabulary."),
            )
        if not self.eos_ids and not sampling.stop_token_ids:
            raise ConfigError(
                asked,
                found=Words("このモデルには、文章の終わりを示すトークンがありません。", "This model has no token that ends a text."),
                todo=Words("stop_token_ids で指定してください。", "Name one with stop_token_ids."),
            )
        return self.vocabulary.matcher(sampling.constraint, tenant)

    def choosing(self, first: Sequence[int], sampling: Sampling, tenant: str = "") -> Choosing:
        """What chooses the tokens of one request that begins with `first`. Raises what `matcher` raises."""
        matcher = self.matcher(sampling, tenant)
        return Choosing(first, sampling, self.eos_ids, self.context_length, matcher, self.lookup, self.known_ids)

    @property
    def known_ids(self) -> int | None:
        """How many ids say something; None where that is not known. A model may have more, that fill up its vocabulary."""
        return None if self.vocabulary is None else self.vocabulary.size

    @property
    def reads_source(self) -> bool:
        """Whether what it is given is the source of another text."""
        return self._reader is not None

    @torch.inference_mode()
    def score(self, ids: Sequence[int]) -> list[float]:
        """Natural-log probabilities of ids[1:], each given all before it. Raises ContextError, InputError, and ConfigError of an
        encoder-decoder."""
        self.no_source(Words("文章の確率を求めようとしました。", "Scoring a text."))
        self.check(ids, room=0)
        return [token.logprob for token in self._read_through(Cached(self.device, len(ids)), ids, 0)]

    @torch.inference_mode()
    def read_through(self, ids: Sequence[int], top: int = 0) -> list[Token]:
        """What the model thought of ids[1:], each given all before it, with the `top` most probable in its place. Raises what `score`
        raises."""
        self.no_source(Words("文章の確率を求めようとしました。", "Scoring a text."))
        self.check(ids, room=0)
        return self._read_through(Cached(self.device, len(ids)), ids, top)

    @torch.inference_mode()
    def score_target(self, source: Sequence[int], target: Sequence[int]) -> list[float]:
        """Natural-log probabilities of every id of the target of an encoder-decoder, each given the source and all before it.
        Raises ContextError, InputError, and ConfigError where nothing reads a source."""
        if self._reader is None:
            raise ConfigError(
                Words("訳文の確率を求めようとしました。", "Scoring a target against its source."),
                found=Words("このモデルはエンコーダ・デコーダではありません。", "This model is no encoder-decoder."),
                todo=Words("文章を一つにつなげて score に渡してください。", "Join the texts and give them to score."),
            )
        self.check(source, room=0)
        self._check_ids(target, self.vocab_size, self.context_length - 1, room=0)
        return [token.logprob for token in self._read_through(self.take(source, None), [*self.first(source), *target], 0)]

    def _read_through(self, past: Cached, ids: Sequence[int], top: int) -> list[Token]:
        found: list[Token] = []
        wanted = torch.tensor(ids[1:], device=self.device, dtype=torch.long)
        for start in range(0, len(ids) - 1, BLOCK):
            targets = wanted[start : start + BLOCK]
            past.begin(len(targets))
            logits = self.model(self._tensor(ids[start : start + len(targets)]), past).float()  # (N, V)
            logprobs = (-F.cross_entropy(logits, targets, reduction="none")).tolist()
            best = [()] * len(targets) if top == 0 else _best(logits.log_softmax(-1), top)
            found += [Token(*each) for each in zip(targets.tolist(), logprobs, best, strict=True)]
        return found

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> list[float]:
        """The mean of the last hidden states, of an encoder-decoder those of its encoder, of length 1. Raises ContextError, InputError,
        and ConfigError without hidden states."""
        self.check(ids, room=0)
        if self._reader is not None:
            return [float(x) for x in F.normalize(self._encoded(self._reader, ids).float().mean(0), dim=0)]
        if not isinstance(self.model, Decoder):
            raise ConfigError(
                Words("文章をベクトルにしようとしました。", "Embedding a text."),
                found=Words("このモデルには隠れ状態がありません。", "This model has no hidden states."),
                todo=Words("ニューラルネットワークのモデルを使ってください。", "Use a neural model."),
            )
        past, total = Cached(self.device, len(ids)), torch.zeros((), device=self.device)
        for block in _blocks(ids, 0):
            past.begin(len(block))
            total = total + self.model.hidden(self._tensor(block), past).float().sum(0)  # (D,)
        return [float(x) for x in F.normalize(total, dim=0)]

    @torch.inference_mode()
    def read(self, past: Cached, ids: Sequence[int]) -> Tensor:
        """Reads `ids` after `past`; float32 logits (V,) on the CPU of what comes next."""
        past.begin(len(ids))
        tokens = self._tensor(ids)
        if self._direct is not None:
            return self._direct.read(tokens, past).float().cpu()
        if isinstance(self.model, Decoder):
            last = self.model.logits(self.model.hidden(tokens, past)[-1:])[0]
        else:
            last = self.model(tokens, past)[-1]
        return last.float().cpu()

    @torch.inference_mode()
    def read_each(self, past: Cached, ids: Sequence[int]) -> Tensor:
        """Reads `ids` after `past`; float32 logits (N, V) on the CPU of what comes after each."""
        past.begin(len(ids))
        return self.model(self._tensor(ids), past).float().cpu()

    @torch.inference_mode()
    def after(self, ids: Sequence[int]) -> Tensor:
        """float32 logits (V,) on the CPU of the first token that follows `ids`. They are checked by whoever calls."""
        past = Cached(self.device) if self._reader is None else self.take(ids, None)
        return self.read(past, self.first(ids))

    def first(self, ids: Sequence[int]) -> list[int]:
        """What the decoder reads before it writes: the ids themselves, or the start of a target."""
        return list(ids) if self._reader is None else [self.model.shape.decoder_start_token_id]  # type: ignore[attr-defined]

    @torch.inference_mode()
    def memory(self, ids: Sequence[int]) -> Tensor | None:
        """What an encoder-decoder made of its source, states (S, D); None of any other model."""
        return None if self._reader is None else self._encoded(self._reader, ids)

    def _encoded(self, reader: Reader, ids: Sequence[int]) -> Tensor:
        return reader.encode(self._tensor(ids), Bidirectional(torch.arange(len(ids), device=self.device)))

    def take(self, ids: Sequence[int], max_tokens: int | None) -> Cached:
        """A past holding as many whole blocks of `ids` as the last call left, but never the last id: its logits are needed.
        Of an encoder-decoder an empty one, which remembers the source."""
        if self._reader is not None:
            past = Cached(self.device, self.context_length if max_tokens is None else min(self.context_length, 1 + max_tokens))
            with torch.inference_mode():
                past.remember(self._encoded(self._reader, ids))
            return past
        bound = self.context_length if max_tokens is None else min(self.context_length, len(ids) + max_tokens)
        with self._lock:
            (past, known), self._kept = self._kept or (Cached(self.device, bound), []), None
        if regime(self.scaling, past.bound or 0) != regime(self.scaling, bound):
            return Cached(self.device, bound)
        past.bound = bound
        common = _common(known, ids[:-1]) // BLOCK * BLOCK
        past.truncate(common)
        return past

    def keep(self, past: Cached, ids: Sequence[int]) -> None:
        """Keep the whole blocks of `ids`, that were read, for the next call; tokens read one by one are let go."""
        if self._reader is not None:
            return
        whole = past.truncate(min(past.length, len(ids) // BLOCK * BLOCK) // BLOCK * BLOCK)
        with self._lock:
            self._kept = past, list(ids[:whole])

    def _tensor(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor(ids, dtype=torch.long, device=self.device)

    def check(self, ids: Sequence[int], room: int) -> None:
        """Raises InputError (none, or unknown ones) and ContextError (no place for these and `room` more)."""
        if self._reader is None:
            self._check_ids(ids, self.vocab_size, self.context_length, room)
        else:  # a source takes no room from what is written
            self._check_ids(ids, self._reader.source_vocab_size, self._reader.source_length, 0)

    def no_source(self, asked: Words) -> None:
        """Raises ConfigError of an encoder-decoder: it gives no probability to a text alone."""
        if self._reader is not None:
            raise ConfigError(
                asked,
                found=Words(
                    "エンコーダ・デコーダは、元の文章に対する文章の確率だけを持ちます。",
                    "An encoder-decoder scores a text given its source only.",
                ),
                todo=Words("score_target に元の文章と一緒に渡してください。", "Give it to score_target together with its source."),
            )

    @staticmethod
    def _check_ids(ids: Sequence[int], vocabulary: int, limit: int, room: int) -> None:
        asked = Words(f"{len(ids)} トークンをモデルに渡そうとしました。", f"Giving the model {len(ids)} tokens.")
        if not ids:
            raise InputError(
                asked, found=Words("空です。", "There are none."), todo=Words("一つ以上渡してください。", "Give at least one.")
            )
        if len(ids) + room > limit:
            raise ContextError(
                asked,
                found=Words(
                    f"一度に扱えるのは{'出力を含めて' if room else ''} {limit} トークンまでです。",
                    f"The context is {limit} tokens{', the answer included' if room else ''}.",
                ),
                todo=Words("文章を短くしてください。", "Shorten the text."),
            )
        wrong = [id for id in ids if isinstance(id, bool) or id < 0 or id >= vocabulary]
        if wrong:
            raise InputError(
                asked,
                found=Words(
                    f"番号 {wrong[0]} は語彙（{vocabulary}）にありません。", f"Id {wrong[0]} is not in the vocabulary of {vocabulary}."
                ),
                todo=Words("このモデルのトークナイザで作った番号を渡してください。", "Give ids made by this model's tokenizer."),
            )

    def check_sampling(self, sampling: Sampling) -> None:
        """Raises ConfigError for ids that the vocabulary has not."""
        self.known("stop_token_ids", sampling.stop_token_ids)
        self.known("logit_bias", [*dict(sampling.logit_bias)])

    def known(self, name: str, ids: Sequence[int]) -> None:
        """Raises ConfigError where a setting names an id that the vocabulary has not."""
        unknown = [id for id in ids if id >= self.vocab_size]
        if unknown:
            raise ConfigError(
                Words(f"{name} に {unknown[0]} が指定されました。", f"{name} was given {unknown[0]}."),
                found=Words(
                    f"語彙は {self.vocab_size} トークンで、その番号は現れません。", f"The vocabulary is {self.vocab_size}: it cannot occur."
                ),
                todo=Words(f"{name} を直してください。", f"Correct {name}."),
            )


class Generation(Iterator[Token]):
    """The tokens of one call and what they cost so far. Letting go of it, `close` or `cancel` ends the work."""

    def __init__(self, engine: LocalEngine, ids: list[int], sampling: Sampling) -> None:
        self.prompt_tokens, self.cached_tokens, self.completion_tokens = len(ids), 0, 0
        self._engine, self._sampling = engine, sampling
        self._first = engine.first(ids)
        self._choosing = engine.choosing(self._first, sampling)
        self._greedy = self._choosing.is_greedy(engine.vocab_size)
        self._cancelled = False
        self._tokens = self._run(ids)

    def __next__(self) -> Token:
        return next(self._tokens)

    @property
    def logprob(self) -> float:
        """Of all its tokens so far."""
        return self._choosing.logprob

    @property
    def offered(self) -> int:
        """Tokens that were guessed."""
        return self._choosing.offered

    @property
    def accepted(self) -> int:
        """Guesses that were right."""
        return self._choosing.accepted

    def cancel(self) -> None:
        """From any thread: no further block is read and no further token made."""
        self._cancelled = True

    def close(self) -> None:
        self._tokens.close()

    def _run(self, ids: list[int]) -> Generator[Token, None, None]:
        past = self._engine.take(ids, self._sampling.max_tokens)
        self.cached_tokens = past.length
        sound = True  # False while a call of the model is under way: an exception leaves the cache half written
        try:
            fresh = _blocks(self._first, past.length)
            while not self._cancelled:
                block = next(fresh, [])
                guesses = [] if block or past.recurs else self._choosing.guesses(MOST)  # a state cannot be taken back
                sound = False
                if guesses:
                    rows = self._engine.read_each(past, [*self._choosing.history.output[-1:], *guesses])
                else:
                    rows = self._engine.read(past, block or self._choosing.history.output[-1:])[None]
                sound = True
                if past.length < len(self._first):
                    continue
                sure = past.length - len(guesses) - 1
                for token in self._choosing.follow(best(rows) if self._greedy else rows, guesses):
                    self.completion_tokens, sure = self.completion_tokens + 1, sure + 1
                    yield token
                    if token.finish:
                        return
                past.truncate(sure)  # wrong guesses
        finally:
            if sound:
                self._engine.keep(past, ids)


def _guesses(count: int) -> int:
    """Raises ConfigError."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST:
        raise ConfigError(
            Words(f"lookup に {str(count)[:40]} が指定されました。", f"lookup was given {str(count)[:40]}."),
            found=Words(f"0 から {MOST} までの整数が要ります。", f"It takes a whole number from 0 to {MOST}."),
            todo=Words("lookup を直してください。", "Correct lookup."),
        )
    return count


def _best(logprobs: Tensor, top: int) -> list[tuple[tuple[int, float], ...]]:
    """(N, V) -> of each row the most probable ids and their logprobs"""
    values, ids = logprobs.topk(min(top, logprobs.shape[-1]))
    return [tuple(zip(*row, strict=True)) for row in zip(ids.tolist(), values.tolist(), strict=True)]


def _blocks(ids: Sequence[int], start: int) -> Iterator[Sequence[int]]:
    for place in range(start, len(ids), BLOCK):
        yield ids[place : place + BLOCK]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
