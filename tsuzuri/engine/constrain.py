"""Which tokens may come next, so that the output is what its `Constraint` says.

In: the bytes of every id, once; a `Constraint`. Out: a `Matcher` for one request: what is ruled out now, and `accept` of what was
chosen. The work is done by llguidance, an optional package, within `LIMITS`; what it compiled is kept for the next request.
It knows no text and chooses nothing.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tsuzuri.engine.constraint import Constraint
from tsuzuri.errors import ConfigError, InputError, MissingError, Words

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from numpy.typing import NDArray

KEPT = 256 * 1024  # bytes of compiled constraints, each counted as its text and
EACH = 16 * 1024  # this
LIMITS = {
    "max_lexer_states": 20_000,  # about 2 kB each
    "max_grammar_size": 100_000,  # symbols
    "initial_lexer_fuel": 1_000_000,  # about 20 ms
    "step_lexer_fuel": 200_000,  # about 15 ms
    "step_max_items": 50_000,  # about 3 ms
    "verbose_errors": False,  # what a message shows comes from the request alone
}
SPACE = r"[ \n]{1,20}"  # between the signs of JSON: models indent, but one that says spaces for ever must not be let to
WHOLE = '\n%llguidance {"no_forcing": true}\n'  # every way to cut the text into tokens stays open


class Vocabulary:
    """What each id says. Safe to call from several threads."""

    def __init__(self, token_bytes: Callable[[int], bytes], size: int, never: Collection[int] = ()) -> None:
        """Ids 0 … size - 1; `never`: those that no text says, the special ones."""
        self._bytes, self.size, self._never = token_bytes, size, frozenset(never)
        self._lock = threading.Lock()
        self._tokens: LLTokenizer | None = None
        self._kept: OrderedDict[Constraint, LLMatcher] = OrderedDict()

    def matcher(self, constraint: Constraint) -> Matcher:
        """Raises ConfigError for what cannot be compiled, and MissingError without llguidance."""
        with self._lock:
            found = self._kept.pop(constraint, None) or self._compiled(constraint)
            self._kept[constraint] = found  # the last one used
            while sum(EACH + len(each.text.encode()) for each in self._kept) > KEPT:
                self._kept.popitem(last=False)
            return Matcher(found.deep_copy(), self.size)

    def _compiled(self, constraint: Constraint) -> LLMatcher:
        guidance = _llguidance()
        if self._tokens is None:
            self._tokens = self._read(guidance)
        limits = guidance.LLParserLimits(**LIMITS)
        found: LLMatcher = guidance.LLMatcher(
            self._tokens, guidance.LLMatcher.grammar_from_lark(program(constraint) + WHOLE), log_level=0, limits=limits
        )
        if found.is_error():
            raise ConfigError(
                Words(
                    f"出力の制約（{constraint.kind}）を準備しようとしました。", f"Preparing a constraint of the output ({constraint.kind})."
                ),
                found=Words(f"使えません：{_reason(found)}", f"It cannot be used: {_reason(found)}"),
                todo=Words("制約を直してください。", "Correct the constraint."),
            )
        return found

    def _read(self, guidance: Any) -> LLTokenizer:
        """Behind the ids stands one of our own, which means that the output is whole: llguidance has to have one. What says nothing is
        never allowed."""
        said = [b"" if id in self._never else self._bytes(id) for id in range(self.size)]
        said = [b"" if token.startswith(b"\xff") else token for token in said]  # its own mark; no byte of UTF-8
        return guidance.LLTokenizer(_Tokens([*said, b"<end>"]))  # type: ignore[no-any-return]


class _Tokens:
    """What llguidance asks of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.tokens, self.eos_token_id, self.special_token_ids = tokens, len(tokens) - 1, [len(tokens) - 1]

    def __call__(self, text: bytes | str) -> list[int]:
        return []  # asked only for what is forced, and `WHOLE` forces nothing


class Matcher:
    """The way of one request through its constraint."""

    def __init__(self, inner: LLMatcher, size: int) -> None:
        """`size`: of the vocabulary."""
        self._inner, self._size = inner, size

    def ruled_out(self, size: int, ends: Collection[int]) -> NDArray[np.bool_]:
        """(size,): which ids of the model must not come next. The `ends` may where the output is whole, and then alone if nothing may
        follow. Raises InputError where a limit was met, or nothing is left."""
        bits = np.unpackbits(np.frombuffer(self._inner.compute_bitmask(), np.uint8), bitorder="little").astype(bool)
        self._check()
        found = np.ones(size, dtype=bool)  # the model may have more ids than anything says
        found[: self._size] = ~bits[: self._size]
        found[list(ends)] = not bits[self._size]
        if found.all():
            raise InputError(
                Words("制約に従って次のトークンを選ぼうとしました。", "Choosing the next token under the constraint."),
                found=Words("制約に合うトークンが、このモデルの語彙に一つもありません。", "No token of this model's vocabulary fits it."),
                todo=Words(
                    "制約か、出力を終えるトークン（stop_token_ids）を見直してください。",
                    "Look again at the constraint, or at the tokens that end the output (stop_token_ids).",
                ),
            )
        return found

    def accept(self, id: int) -> None:
        """What was chosen, unless it ends the output."""
        self._inner.consume_token(id)
        self._check()

    def fitting(self, ids: Sequence[int]) -> int:
        """How many of these, from the first on, could be accepted one after another."""
        return int(self._inner.validate_tokens([*ids]))

    def _check(self) -> None:
        if self._inner.is_error():
            raise InputError(
                Words("制約に従って次のトークンを選ぼうとしました。", "Choosing the next token under the constraint."),
                found=Words(f"制約が複雑すぎます：{_reason(self._inner)}", f"It is too complex: {_reason(self._inner)}"),
                todo=Words("制約を簡単にしてください。", "Make it simpler."),
            )


def program(constraint: Constraint) -> str:
    """The constraint in the language of llguidance."""
    if constraint.kind == "grammar":
        return constraint.text
    if constraint.kind == "regex":
        written = re.sub(r"\\.|[/\n\r]", lambda found: {"/": r"\/", "\n": r"\n", "\r": r"\r"}.get(found[0], found[0]), constraint.text, flags=re.DOTALL)  # fmt: skip
        return f"start: /{written}/"
    if constraint.kind == "choice":
        return "start: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in json.loads(constraint.text))
    schema = json.loads(constraint.text or '{"type": "object"}')
    options = {"whitespace_pattern": SPACE}
    return "start: %json " + json.dumps({"x-guidance": options, **({} if schema is True else schema)}, ensure_ascii=False)


def _reason(matcher: LLMatcher) -> str:
    """The first line of what llguidance says."""
    return matcher.get_error().strip().partition("\n")[0]


def _llguidance() -> Any:
    try:
        import llguidance  # noqa: PLC0415  an optional package
    except ImportError as error:
        raise MissingError(
            Words("出力の形を決めようとしました。", "Constraining the output."),
            found=Words("パッケージ llguidance が入っていません。", "The package llguidance is not installed."),
            todo=Words("pip install 'tsuzuri[constrain]' で入れてください。", "Install it with pip install 'tsuzuri[constrain]'."),
        ) from error
    return llguidance
