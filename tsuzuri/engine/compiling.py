"""A process of its own that tries whether a constraint compiles: started by `apart.py`, and killed when it takes too much.

In: lines of JSON on standard input, each with the grammar, the limits of llguidance, and seconds of computing time. Out: a line when it
is ready, and for each a line with what is wrong, or null. What it compiles is for a vocabulary of single bytes, and thrown away. It imports nothing of this package.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

STACK = 4 << 20  # bytes: less than a thread of the serving process has


class Bytes:
    """What llguidance asks of a tokenizer: a token for each byte, and one for the end."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self) -> None:
        self.tokens = [*(bytes([value]) for value in range(256)), b"<end>"]
        self.eos_token_id, self.special_token_ids = 256, [256]

    def __call__(self, text: bytes | str) -> list[int]:
        return []


def main(memory: int) -> None:
    """`memory`: bytes of address space; nothing of it on systems that cannot bound it."""
    import llguidance  # noqa: PLC0415

    if hasattr(os, "nice"):
        os.nice(10)  # answers come before what is only tried
    _bound(memory)
    tokens = llguidance.LLTokenizer(Bytes())  # type: ignore[arg-type]
    _say("ready")
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        _timer(asked["seconds"])
        found = {"wrong": _wrong(llguidance, tokens, asked)}
        _timer(0)
        _say(found)


def _say(value: object) -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")
    sys.stdout.buffer.flush()


def _wrong(guidance: Any, tokens: Any, asked: Any) -> str | None:
    grammar, limits = guidance.LLMatcher.grammar_from_lark(asked["program"]), guidance.LLParserLimits(**asked["limits"])
    matcher = guidance.LLMatcher(tokens, grammar, log_level=0, limits=limits)
    if not matcher.is_error():
        matcher.compute_bitmask()  # the first step, too
    return matcher.get_error() if matcher.is_error() else None


def _bound(memory: int) -> None:
    try:
        import resource  # noqa: PLC0415  not on every system
    except ImportError:
        return
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_STACK, STACK), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
        except (ValueError, OSError):
            continue  # lower already


def _timer(seconds: float) -> None:
    """After so much computing the process is ended by the system."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]))
