"""A model directory as something to talk to: `tsuzuri.load(directory)`, from Python and behind every command.

In: text, ids or messages. Out: text, whole or as it comes; log-probabilities; events, as a `Chat`.
Everything that answers goes through `told`: `generate`, `stream` and `chat` run it in place, `chat_events` in a thread
of its own, so that an event loop lives on. Which model it is, is the directory's business; how it is opened, that of `loading.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import torch
from torch import Tensor

from tsuzuri import config
from tsuzuri.chat import calling
from tsuzuri.chat.labels import Candidate
from tsuzuri.chat.loading import BOUNDARY as BOUNDARY
from tsuzuri.chat.loading import opened, whole_number
from tsuzuri.chat.loading import source_end as source_end
from tsuzuri.chat.reading import Reading
from tsuzuri.chat.settings import Distribution, Settings, Stop, known, options
from tsuzuri.chat.telling import Telling
from tsuzuri.chat.together import Answer, Together, cannot_call, no_tools
from tsuzuri.engine.batch import Stream
from tsuzuri.engine.beam import Beams, search
from tsuzuri.engine.choosing import sayable
from tsuzuri.engine.disk import fingerprint
from tsuzuri.engine.engine import Generation
from tsuzuri.engine.running import page_size
from tsuzuri.engine.sampling import History, Sampling, copies, distribution
from tsuzuri.errors import ConfigError, FormatError, InputError, Words
from tsuzuri.model import compiled
from tsuzuri.model.adapt import quantize as quantisation
from tsuzuri.model.past import Causal
from tsuzuri.text.bytelevel import utf8
from tsuzuri.types import Event, Message, Options, Text, Token

TOGETHER = 64  # prompts that have room at once in `generate_all`; more take turns
CONVERSATION: Settings = {"temperature": 0.7, "top_p": 0.95}  # of `chat`, where nothing else is asked for
Ids: TypeAlias = Sequence[int] | Tensor
Messages: TypeAlias = str | Sequence[Message | Mapping[str, Any]]
MESSAGES = Words(
    '文章一つか、[{"role": "user", "content": "…"}, …] の形で渡してください。',
    'Give one text, or [{"role": "user", "content": "…"}, …].',
)


def load(
    directory: str | Path,
    *,
    dtype: str | None = None,
    quantize: str | None = None,
    threads: int | None = None,
    device: str = "auto",
    lookup: int = 0,
) -> LocalModel:
    """The model of a directory, ready to talk to.

    dtype: "float32", "bfloat16" or None: as it is stored, or float32 where this machine has no arithmetic for that.
    quantize: "q8_0", "q4_0" or None: as it is stored. threads: computing threads of the process; None leaves them.
    lookup: the most tokens guessed from the text so far and read in one call, 0 to 64; the answers are the same.
    Raises MissingError, FormatError and ConfigError.
    """
    return LocalModel(directory, dtype=dtype, quantize=quantize, threads=threads, device=device, lookup=lookup)


class LocalModel:
    """One model and its tokenizer. Every method may be called from any thread; `chat_events` is a `Chat`."""

    def __init__(
        self,
        directory: str | Path,
        *,
        dtype: str | None = None,
        quantize: str | None = None,
        threads: int | None = None,
        device: str = "auto",
        lookup: int = 0,
    ) -> None:
        found = opened(directory, dtype=dtype, quantize=quantize, threads=threads, device=device, lookup=lookup)
        self.name, self.model, self.engine = found.name, found.model, found.engine
        self.tokenizer, self.template, self.context_length = found.tokenizer, found.template, found.model.context_length
        self.calls = self.template.form(self.tokenizer.special)  # how it writes calls of tools; None: it cannot
        self._special = frozenset(self.tokenizer.special.values())
        self._source_end = found.source_end
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"tsuzuri-{self.name}")

    def __repr__(self) -> str:
        if not self._weights:
            return f"<LocalModel {self.name}: counted, context {self.context_length}>"
        count = quantisation.count(self.model)
        kind = quantisation.form_of(self.model) or str(self._weights[0].dtype).removeprefix("torch.")
        return f"<LocalModel {self.name}: {count:,} parameters, {kind}, context {self.context_length}>"

    def fingerprint(self, *notes: object) -> str:
        """Of everything that its keys and values are computed from, and what else is noted."""
        native = self.engine.model if isinstance(self.engine.model, compiled.Compiled) else None
        how = (torch.__version__,) if native is None else (native.pool.library.variant, native.kept)
        return fingerprint([*self.model.parameters(), *self.model.buffers()], getattr(self.model, "shape", None), *how, *notes)

    @property
    def _weights(self) -> list[Tensor]:
        """None for a model of counts."""
        return list(self.model.parameters())

    def generate(self, prompt: str | Ids, *, stop: Stop = None, **settings: Unpack[Settings]) -> str:
        """The text that follows a text or ids, or of an encoder-decoder what it makes of them. Special tokens are not shown; an empty
        text stands for the start of a document.

        Settings are the fields of `Sampling` and those of `Forms`; an unknown one is refused with the nearest names. Raises ContextError.
        """
        return "".join(self.stream(prompt, stop=stop, **settings))

    def generate_all(self, prompts: Sequence[str | Ids], *, stop: Stop = None, **settings: Unpack[Settings]) -> list[str]:
        """`generate` of each, computed together: the same texts, sooner. Raises what `generate` raises, before anything is computed."""
        asked = _text_options(stop, settings)
        if isinstance(prompts, str):
            raise InputError(
                Words("まとめて続きを書かせようとしました。", "Continuing several texts."),
                found=Words("文章が一つ渡されました。", "It was given one text."),
                todo=Words('文章を並べて（["…", "…"]）渡すか、generate を使ってください。', "Give a list of texts, or use generate."),
            )
        if not prompts:
            return []
        return [answer.text for answer in self._together([(self.ids_of(prompt), asked) for prompt in prompts])]

    def several(
        self, prompt: str | Ids, n: int = 2, *, best_of: int | None = None, stop: Stop = None, **settings: Unpack[Settings]
    ) -> list[Answer]:
        """`n` outputs for one prompt, computed together; with `best_of`, the `n` of so many whose log-probability a token is highest,
        the best first. The first has the seed that was given, the others seeds that follow from it. Raises what `generate` raises."""
        asked = _text_options(stop, settings)
        count = n if best_of is None else best_of
        for name, value, least in (("n", n, 1), ("best_of", count, n)):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= TOGETHER:
                raise ConfigError(
                    Words(f"{name} に {str(value)[:40]} が指定されました。", f"{name} was given {str(value)[:40]}."),
                    found=Words(f"{least} 以上 {TOGETHER} 以下の整数が要ります。", f"It takes a whole number from {least} to {TOGETHER}."),
                    todo=Words(f"{name} を直してください。", f"Correct {name}."),
                )
        ids = self.ids_of(prompt)
        found = self._together([(ids, Options(sampling, asked.stop)) for sampling in copies(asked.sampling, count)])
        return found if best_of is None else sorted(found, key=lambda answer: -answer.score)[:n]

    def beams(self, prompt: str | Ids, settings: Beams | None = None) -> list[Answer]:
        """What a beam search finds after a prompt, the best first; `score` is the one it ranks by. Raises what `generate` raises."""
        found = []
        for beam in search(self.engine, self.ids_of(prompt), settings or Beams()):
            ids = beam.ids[:-1] if beam.finish == "stop" else beam.ids
            text = self.tokenizer.decode([id for id in ids if id not in self._special])
            found.append(Answer(text, ids, beam.logprob, beam.finish, beam.score))
        return found

    def read_through(self, prompt: str | Ids, top: int = 0) -> list[Token]:
        """What the model thought of each token of a prompt but the first, with the `top` most probable in its place."""
        return self.engine.read_through(self.ids_of(prompt), top)

    def _together(self, asked: Sequence[tuple[Sequence[int], Options]]) -> list[Answer]:
        """Of each, with room for as many as TOGETHER at once."""
        longest = sorted((self._room(ids, options) for ids, options in asked), reverse=True)
        size = page_size(self.engine)
        tokens = sum(-(-room // size) * size for room in longest[:TOGETHER])
        with Together(self, tokens=tokens, waiting=len(asked), readers=min(len(asked), TOGETHER)) as together:
            return together.answers(asked)

    def _room(self, ids: Sequence[int], options: Options) -> int:
        """Tokens that a request can come to."""
        most = self.context_length if options.sampling.max_tokens is None else options.sampling.max_tokens
        return int(min(len(ids) + most, self.context_length))

    def stream(self, prompt: str | Ids, *, stop: Stop = None, **settings: Unpack[Settings]) -> Generator[str, None, None]:
        """`generate`, piece by piece: never half a character, never a piece of a stop string. Closing it ends the work."""
        return _texts(self.events(prompt, _text_options(stop, settings)))

    def events(self, prompt: str | Ids, options: Options) -> Generator[Event, None, None]:
        """`generate` as events, with tokens, usage and the reason for the end."""
        no_tools(options)
        return self.told(self.engine.stream(self.ids_of(prompt), options.sampling), Reading(options))

    def chat(self, messages: Messages, *, stop: Stop = None, **settings: Unpack[Settings]) -> str:
        """The answer to a conversation, or to one question. Settings not given are those of `CONVERSATION`."""
        asked = _text_options(stop, {**CONVERSATION, **settings})
        return "".join(_texts(self.told(*self._prepared(as_messages(messages), asked))))

    async def chat_events(self, messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
        """A `Chat`. Whoever stops listening ends the work within one token, or one block of the prompt."""
        loop = asyncio.get_running_loop()
        generation, reading = await loop.run_in_executor(self._worker, self._prepared, messages, options)
        events = self.told(generation, reading)
        try:
            while (event := await loop.run_in_executor(self._worker, next, events, None)) is not None:
                yield event
        finally:
            generation.cancel()
            self._worker.submit(events.close)  # in the one thread that runs it, after the step under way

    def count(self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] = ()) -> int:
        """How many tokens the model reads before it answers."""
        return len(self.conversation(messages, tools))

    def logits(self, ids: Ids) -> Tensor:
        """(T,) ids -> float32 (T, V) on the CPU: row t scores what follows ids[: t + 1]. Raises ContextError, InputError, and ConfigError
        of an encoder-decoder."""
        self.engine.no_source(Words("文章の各位置のロジットを求めようとしました。", "Asking for the logits of a text."))
        found = self.ids_of(ids)
        self.engine.check(found, room=0)
        with torch.inference_mode():
            tokens = torch.tensor(found, device=self.engine.device)
            logits: Tensor = self.engine.model(tokens, Causal(torch.arange(len(found), device=tokens.device)))
        return logits.float().cpu().clone()  # out of inference mode: a tensor one can go on computing with

    def score(self, text: str) -> tuple[float, int]:
        """(nats, UTF-8 bytes) of a document: minus its log-probability, its first token included, its end not.

        Raises ContextError when it is longer than the context, ConfigError without a token that begins a document and of an
        encoder-decoder (`score_target`).
        """
        self.engine.no_source(Words("文章の確率を求めようとしました。", "Scoring a text."))
        ids = self.tokenizer.encode(text)
        nats = -sum(self.engine.score([self._boundary(), *ids])) if ids else 0.0
        return nats, len(text.encode())

    def score_target(self, source: str, target: str) -> tuple[float, int]:
        """(nats, UTF-8 bytes) of a text given its source, by an encoder-decoder: minus its log-probability, its end not included.
        Raises ContextError, and ConfigError where nothing reads a source."""
        ids = self.tokenizer.encode(target)
        nats = -sum(self.engine.score_target(self.ids_of(source), ids)) if ids else 0.0
        return nats, len(target.encode())

    def next(self, prompt: str | Ids, k: int = 10, sampling: Sampling | None = None, **settings: Unpack[Distribution]) -> list[Candidate]:
        """The k most probable next tokens, the most probable first, with their probability under the sampling too: a
        `Sampling`, or its fields by name."""
        given = known(settings, tuple(Distribution.__annotations__))
        if sampling is not None and given:
            raise ConfigError(
                Words(f"sampling と一緒に {'、'.join(given)} が指定されました。", f"{', '.join(given)} was given together with sampling."),
                found=Words("どちらに従うのか決められません。", "They could contradict each other."),
                todo=Words("Sampling の中に書くか、sampling を外してください。", "Write it in the Sampling, or leave sampling out."),
            )
        sampling = sampling or Sampling(**given)
        ids = self.ids_of(prompt)
        self.engine.check(ids, room=0)
        most = self.tokenizer.vocab_size
        if not 1 <= k <= most:
            raise ConfigError(
                Words(f"次のトークンの候補を {k} 個求められました。", f"Asked for {k} next tokens."),
                found=Words(f"1 から {most} までです。", f"There are 1 to {most}."),
                todo=Words("個数を直してください。", "Correct the number."),
            )
        logits = self.engine.after(ids)
        matcher = self.engine.matcher(sampling)
        ends = {*self.engine.eos_ids, *sampling.stop_token_ids}
        ruled_out = None if matcher is None else matcher.ruled_out(len(logits), ends)
        kept = sayable(logits, self.engine.known_ids, ends)
        sampled = distribution(kept, sampling, History(self.engine.first(ids), ruled_out=ruled_out))
        order = kept.topk(k).indices
        own = logits.softmax(-1)[order]
        return [Candidate(int(id), self.show(int(id)), float(p), float(sampled[id])) for p, id in zip(own, order, strict=True)]

    def show(self, id: int) -> str:
        """One token for a person to read; bytes that are no whole character as <0xE3>."""
        return self.tokenizer.shown(id)

    def told(self, generation: Generation | Stream, reading: Reading) -> Generator[Event, None, None]:
        """The events of an answer."""
        telling = self.telling(reading)
        try:
            for token in generation:
                yield from telling(token)
                if telling.over:
                    break
            yield from telling.rest()
        finally:
            generation.close()
        yield from telling.last(generation)

    def telling(self, reading: Reading) -> Telling:
        return Telling(self.tokenizer.stream(), self._special, reading, guesses=bool(self.engine.lookup))

    def _prepared(self, messages: Sequence[Message], options: Options) -> tuple[Generation, Reading]:
        reading, sampling = self.reading(options)
        return self.engine.stream(self.conversation(messages, options.tools), sampling), reading

    def reading(self, options: Options) -> tuple[Reading, Sampling]:
        """How the answer is to be read, and what it is held to. Raises ConfigError for calls that cannot be made."""
        if not options.tools:
            return Reading(options), options.sampling
        if self.calls is None:
            raise cannot_call()
        return Reading(options, self.calls), calling.held(self.calls, options)

    def conversation(self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] = ()) -> list[int]:
        for message in messages:
            utf8(message.content)  # before the template moves its characters
        try:
            ids = self.template.encode(self.tokenizer, messages, tools=tools)
        except FormatError as error:  # it could be read when it was loaded: what it refuses is this conversation
            raise ConfigError(
                error.asked,
                found=error.found,
                todo=Words(
                    "役割の順序とツールの書き方を、このモデルの書式に合わせてください。",
                    "Follow the template of this model in the order of roles and in what tools say.",
                ),
            ) from error
        return ids if ids[-1:] == self._source_end else [*ids, *self._source_end]

    def ids_of(self, prompt: str | Ids) -> list[int]:
        if isinstance(prompt, str):
            return [*self.tokenizer.encode(prompt), *self._source_end] or [self._boundary()]
        row = prompt.tolist() if isinstance(prompt, Tensor) else prompt
        if not isinstance(row, Iterable) or isinstance(row, bytes | bytearray | memoryview | Mapping | Set):
            raise _no_ids(Words(f"{type(prompt).__name__} が渡されました。", f"It was given {type(prompt).__name__}."))
        return _whole_ids(list(row))

    def _boundary(self) -> int:
        if BOUNDARY not in self.tokenizer.special:
            raise ConfigError(
                Words("文書の始まりから読ませようとしました。", "Starting at the beginning of a document."),
                found=Words(f"このトークナイザには {BOUNDARY} がありません。", f"This tokenizer has no {BOUNDARY}."),
                todo=Words("書き出しの文章を渡してください。", "Give it a text to start from."),
            )
        return self.tokenizer.special[BOUNDARY]


def _text_options(stop: Stop, settings: Mapping[str, Any]) -> Options:
    """`options` of a call that gives text alone."""
    found = options(stop, settings)
    if found.sampling.logprobs is not None:
        raise ConfigError(
            Words("設定 logprobs が指定されました。", "The setting logprobs was given."),
            found=Words(
                "返すのは文章だけで、対数確率を添える場所がありません。", "What comes back is text, with no place for log-probabilities."
            ),
            todo=Words(
                "events（会話なら chat_events）に Options(Sampling(logprobs=…)) を渡すか、logprobs を外してください。",
                "Give Options(Sampling(logprobs=…)) to events (for a conversation, chat_events), or leave logprobs out.",
            ),
        )
    return found


def as_messages(messages: Messages) -> list[Message]:
    """A question, messages, or mappings of `role` and `content`, as messages. Raises ConfigError for anything else."""
    if isinstance(messages, str):
        return [Message("user", messages)]
    if not isinstance(messages, Sequence) or isinstance(messages, bytes | bytearray):
        kind = type(messages).__name__
        raise _no_messages(Words(f"発言の並びではなく、{kind} が渡されました。", f"It was given {kind}, not a list of messages."))
    return [_message(i, message) for i, message in enumerate(messages)]


def _message(i: int, message: object) -> Message:
    if isinstance(message, Message):
        return message
    if not isinstance(message, Mapping):
        shown = repr(message)[:40]
        raise _no_messages(Words(f"{i + 1} 番目が発言ではありません（{shown}）。", f"Number {i + 1} is no message ({shown})."))
    return config.build(Message, message, f"messages[{i}]", todo=MESSAGES)


def _no_messages(found: Words) -> ConfigError:
    return ConfigError(Words("会話を読もうとしました。", "Reading a conversation."), found=found, todo=MESSAGES)


def _whole_ids(row: Sequence[object]) -> list[int]:
    found: list[int] = []
    for place, value in enumerate(row, 1):
        id = whole_number(value)
        if id is None:
            shown = repr(value)[:40]
            raise _no_ids(Words(f"{place} 番目が整数ではありません（{shown}）。", f"Number {place} is no whole number ({shown})."))
        found.append(id)
    return found


def _no_ids(found: Words) -> InputError:
    return InputError(
        Words("トークン番号をモデルに渡そうとしました。", "Giving the model token ids."),
        found=found,
        todo=Words("文章か、整数を一列に並べたものを渡してください。", "Give a text, or one row of whole numbers."),
    )


def _texts(events: Generator[Event, None, None]) -> Generator[str, None, None]:
    try:
        for event in events:
            if isinstance(event, Text) and event.text:
                yield event.text
    finally:
        events.close()
