"""Which tokens may come next, so that the output is what its `Constraint` says.

In: the bytes of every id, once; a `Constraint`. Out: a `Matcher` for one request: what is ruled out now, and `accept` of what was
chosen. The work is done by llguidance, an optional package, within `LIMITS`; what it compiled is kept for the next request of the same tenant. A
service has it tried in another process first (`apart.py`).
It knows no text and chooses nothing.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from tsuzuri.engine.constraint import SEVERAL, Constraint
from tsuzuri.engine.shares import Shares
from tsuzuri.errors import BusyError, ConfigError, InputError, MissingError, Words

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from numpy.typing import NDArray

    from tsuzuri.engine.apart import Apart

KEPT = 256 * 1024  # bytes of compiled constraints, each counted as its text and
EACH = 16 * 1024  # this
WAITING = 5.0  # seconds for what the same tenant has compiled before
LIMITS = {
    "max_lexer_states": 20_000,  # about 2 kB each
    "max_grammar_size": 100_000,  # symbols
    "initial_lexer_fuel": 1_000_000,  # about 20 ms
    "step_lexer_fuel": 200_000,  # about 15 ms
    "step_max_items": 50_000,  # about 3 ms
    "verbose_errors": False,  # what a message shows comes from the request alone
}
GIVES_WAY = 10  # steps of niceness, as in compiling.py
SPACE = r"[ \n]{1,20}"  # between the signs of JSON: models indent, but one that says spaces for ever must not be let to
WHOLE = '\n%llguidance {"no_forcing": true}\n'  # every way to cut the text into tokens stays open


class Vocabulary:
    """What each id says. Safe to call from several threads. `apart`: where what strangers ask for is tried first, or None."""

    def __init__(self, token_bytes: Callable[[int], bytes], size: int, never: Collection[int] = ()) -> None:
        """Ids 0 … size - 1; `never`: those that no text says, the special ones."""
        self._bytes, self.size, self._never = token_bytes, size, frozenset(never)
        self.apart: Apart | None = None
        self._compiling = ThreadPoolExecutor(1, thread_name_prefix="tsuzuri-compiling", initializer=_gives_way)
        self._tokens: LLTokenizer | None = None
        self._kept: Shares[Constraint, LLMatcher] = Shares(KEPT)

    def matcher(self, constraint: Constraint, tenant: str = "") -> Matcher:
        """Raises ConfigError for what cannot be compiled, MissingError without llguidance, and BusyError where strangers ask for more
        than can be compiled. While one is compiled, others that are known go on; one tenant has one compiled at a time."""
        found = self._kept.get(tenant, constraint)
        if found is None:
            with self._kept.turn(tenant, WAITING if self.apart is not None else None) as mine:
                if not mine:
                    raise _busy()
                found = self._kept.get(tenant, constraint)  # another request may have asked for the same
                if found is None:
                    found = self._compiled(constraint)
                    self._kept.put(tenant, constraint, found, EACH + len(constraint.text.encode()))
        return Matcher(found.deep_copy(), self.size)

    def _compiled(self, constraint: Constraint) -> LLMatcher:
        guidance, written = _llguidance(), program(constraint) + WHOLE
        wrong = self.apart.wrong(written, LIMITS) if self.apart is not None else None
        if wrong is not None:
            raise _unusable(constraint, wrong)
        found = self._compiling.submit(self._made, guidance, written).result()
        if found.is_error():
            raise _unusable(constraint, Words(found.get_error(), found.get_error()))
        return found

    def _made(self, guidance: Any, written: str) -> LLMatcher:
        if self._tokens is None:
            self._tokens = self._read(guidance)
        limits = guidance.LLParserLimits(**LIMITS)
        made: LLMatcher = guidance.LLMatcher(self._tokens, guidance.LLMatcher.grammar_from_lark(written), log_level=0, limits=limits)
        return made

    def _read(self, guidance: Any) -> LLTokenizer:
        """Behind the ids stands one of our own, which means that the output is whole: llguidance has to have one. What says nothing is
        never allowed."""
        said = [b"" if id in self._never else self._bytes(id) for id in range(self.size)]
        said = [b"" if token.startswith(b"\xff") else token for token in said]  # its own mark; no byte of UTF-8
        return guidance.LLTokenizer(_Tokens([*said, b"<end>"]))  # type: ignore[no-any-return]


def _gives_way() -> None:
    """For a thread that compiles: answers come before it. On Linux alone a thread has a priority of its own."""
    if sys.platform == "linux":
        os.nice(GIVES_WAY)


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
        self._inner, self.size = inner, size

    def ruled_out(self, size: int, ends: Collection[int]) -> NDArray[np.bool_]:
        """(size,): which ids of the model must not come next. The `ends` may where the output is whole, and then alone if nothing may
        follow. Raises InputError where a limit was met, or nothing is left."""
        bits = np.unpackbits(np.frombuffer(self._inner.compute_bitmask(), np.uint8), bitorder="little").astype(bool)
        self._check()
        found = np.ones(size, dtype=bool)  # the model may have more ids than anything says
        found[: self.size] = ~bits[: self.size]
        found[list(ends)] = not bits[self.size]
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
                found=Words(
                    f"制約が複雑すぎます：{_reason(self._inner.get_error())}", f"It is too complex: {_reason(self._inner.get_error())}"
                ),
                todo=Words("制約を簡単にしてください。", "Make it simpler."),
            )


def program(constraint: Constraint) -> str:
    """The constraint in the language of llguidance."""
    if constraint.kind == "grammar":
        return constraint.text
    if constraint.kind == "calls":
        return "\n".join(_calls(json.loads(constraint.text)))
    return f"start: {_answer(constraint.kind, constraint.text)}"


def _answer(kind: str, text: str) -> str:
    """What a whole output is, as one expression."""
    if kind == "regex":
        written = re.sub(
            r"\\.|[/\n\r]", lambda found: {"/": r"\/", "\n": r"\n", "\r": r"\r"}.get(found[0], found[0]), text, flags=re.DOTALL
        )
        return f"/{written}/"
    if kind == "choice":
        return " | ".join(_literal(each) for each in json.loads(text))
    return _json(json.loads(text or '{"type": "object"}'))


def _json(schema: Any) -> str:
    return "%json " + json.dumps({"x-guidance": {"whitespace_pattern": SPACE}, **({} if schema is True else schema)}, ensure_ascii=False)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _calls(made: Any) -> Iterator[str]:
    """Rules. Text that goes on to a call ends with the first mark that it meets (`lazy`), and other text meets none."""
    (head, middle, tail, between, name_first), (least, most) = made["around"], made["calls"]
    mark = head[: head.rindex("{")].strip()
    for number, (name, schema) in enumerate(made["arguments"].items()):
        yield f"arguments_{number}: {_json(schema)}"
        named, others = _literal(name + middle), _literal(middle + name + tail)
        yield f"one_{number}: " + (f"{named} arguments_{number} {_literal(tail)}" if name_first else f"arguments_{number} {others}")
    yield "any: " + " | ".join(f"one_{number}" for number in range(len(made["arguments"])))
    yield f"call: {_literal(head)} any"
    more = (SEVERAL if most is None else most) - 1
    yield "calls: call" + (f" ({_literal(between)} call){{0,{more}}}" if between is not None and more > 0 else "")
    if least:
        yield "start: calls"
    elif made["answer"]:
        yield f"answer: {_answer(*made['answer'])}"
        yield "start: answer | calls"
    elif not mark:
        yield r"start: calls | /([ \t\r\n]*[^{ \t\r\n](?s:.*))?/"
    else:
        escaped = re.sub(r"[^0-9A-Za-z_]", lambda sign: f"\\x{{{ord(sign[0]):x}}}", mark)
        yield f"mark[lazy]: /(?s:.*)/ {_literal(mark)}"
        yield f"told: mark {_literal(head[head.index(mark) + len(mark) :])} any"
        yield f"start: told{{0,{SEVERAL if most is None else most}}} REST"
        yield f"REST: /(?s:.*)/ & ~/(?s:.*){escaped}(?s:.*)/"


def _busy() -> BusyError:
    return BusyError(
        Words("出力の制約を準備しようとしました。", "Preparing a constraint of the output."),
        found=Words("同じ依頼元のほかの制約を準備しています。", "Other constraints that you asked for are being prepared."),
        todo=Words("少し待ってから、もう一度頼んでください。", "Wait a moment and ask again."),
    )


def _reason(said: str) -> str:
    """The first line of what llguidance says."""
    return said.strip().partition("\n")[0]


def _unusable(constraint: Constraint, why: Words) -> ConfigError:
    kind = constraint.kind
    return ConfigError(
        Words(f"出力の制約（{kind}）を準備しようとしました。", f"Preparing a constraint of the output ({kind})."),
        found=Words(f"使えません：{_reason(why.ja)}", f"It cannot be used: {_reason(why.en)}"),
        todo=Words("制約を直してください。", "Correct the constraint."),
    )


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
