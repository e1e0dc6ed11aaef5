"""READ FIRST: the four seams of tsuzuri and the values that cross them. Nothing here imports torch.
    text ↔ tokens      Tokenizer          people on one side, the model on the other
    tokens ↔ logits    Model and Past     only `attend` and `recur` know that more than one sequence exists
    tokens ↔ tokens    Engine             knows no text
    messages ↔ events  Chat               a local model, a remote provider, a script: all the same
Shapes: B batch, T time, N tokens of a step, D hidden, H heads, K key/value heads, E head size, V vocabulary, X experts, S memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypedDict, Unpack

if TYPE_CHECKING:
    from torch import Tensor

    from tsuzuri.engine.sampling import Sampling


# ── text ↔ tokens
class Tokenizer(Protocol):
    """Text to ids and back without loss. Special tokens written in a person's text stay text."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def special(self) -> Mapping[str, int]: ...  # "<|im_end|>" -> id; only `encode_special` makes them
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def stream(self) -> Callable[[int], str]: ...  # id -> the text that is certain so far, never half a character


# ── tokens ↔ logits
Scan: TypeAlias = "Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]"  # inputs (..., T, D), state -> outputs, state after
Bias: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"  # positions of queries (..., Q) and keys (..., S) -> (..., H, Q, S)
Project: TypeAlias = "Callable[[Tensor], tuple[Tensor, Tensor]]"  # memory (..., S, D) -> its keys and values (..., S, K, E)


class Scoring(TypedDict, total=False):
    scale: float | None  # None: 1 / sqrt(E)
    window: int | None  # a token sees itself and the window - 1 before it
    softcap: float | None  # scores become softcap × tanh(scores / softcap)
    bias: Bias | None  # added to the scores, after the cap


class Past(Protocol):
    """What came before, for every sequence in the call: the only place that knows of batch, cache, page and mask."""

    positions: Tensor  # (...) int64: where each token stands in its own sequence
    segments: Tensor | None  # (...) int64: which of several texts in one sequence it belongs to; None: the first

    @property
    def extent(self) -> Tensor: ...  # (...) int64: how long its sequence is to become; some rotary scalings depend on it
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, **how: Unpack[Scoring]) -> Tensor: ...  # (..., H|K, E) -> (..., H, E)
    def cross(self, layer: int, q: Tensor, project: Project, *, scale: float | None = None) -> Tensor: ...  # looks at another text
    def recur(self, layer: int, inputs: Tensor, scan: Scan) -> Tensor: ...  # (..., D) -> (..., D)


class Model(Protocol):
    @property
    def vocab_size(self) -> int: ...
    def __call__(self, tokens: Tensor, past: Past) -> Tensor: ...  # (...) ids -> (..., V) logits: (B, T) in training, (N,) in serving


# ── tokens ↔ tokens
Finish: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "cancelled"]


@dataclass(frozen=True, slots=True)
class Token:
    id: int
    logprob: float  # natural log, of the model's own distribution, before temperature and filters
    top: tuple[tuple[int, float], ...] = ()  # most probable (id, logprob), as many as were asked for
    finish: Finish | None = None  # set on the last token


class Engine(Protocol):
    def stream(self, ids: Sequence[int], sampling: Sampling) -> Iterator[Token]: ...
    def score(self, ids: Sequence[int]) -> list[float]: ...  # logprob of ids[1:], each given all before it
    def embed(self, ids: Sequence[int]) -> list[float]: ...  # D numbers of length 1


# ── messages ↔ events
Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str  # JSON


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    sampling: Sampling
    stop: tuple[str, ...] = ()  # the answer ends before the first of these; they are not shown
    tools: tuple[Mapping[str, object], ...] = ()
    calls: tuple[int, int | None] = (0, None)  # of these: how many the answer has at least (0 or 1) and at most
    trace: str | None = None  # W3C's traceparent, for whoever answers elsewhere; it changes no answer


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    tokens: tuple[Token, ...] = ()  # what this text came from, where the model is ours


@dataclass(frozen=True, slots=True)
class Thought:
    text: str


@dataclass(frozen=True, slots=True)
class Source:
    title: str
    quote: str
    address: str


@dataclass(frozen=True, slots=True)
class Notice:
    text: str  # something a person should know: masked, cut, unverified


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # a part of prompt_tokens
    reasoning_tokens: int = 0  # a part of completion_tokens: thought, not said


@dataclass(frozen=True, slots=True)
class Done:
    finish: Finish
    detail: Mapping[str, object] = field(default_factory=dict)


Event: TypeAlias = Text | Thought | ToolCall | Source | Notice | Usage | Done
Chat: TypeAlias = Callable[[Sequence[Message], Options], AsyncIterator[Event]]
