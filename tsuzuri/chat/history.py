"""What of a long conversation a model still reads: the oldest turns go first, whole, and whoever asks is told which.

In: messages, a way to count tokens, a limit. Out: what fits and what was left out. It prints nothing and drops nothing in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tsuzuri.errors import Words
from tsuzuri.types import Message, Notice


def fit(messages: Sequence[Message], count: Callable[[Sequence[Message]], int], limit: int) -> tuple[list[Message], list[Message]]:
    """(kept, dropped). A turn is a person's message and all up to the next one. What stands before the first turn (the
    system's words) and the last turn always stay, even above the limit: then the model refuses with both counts."""
    starts = [i for i, message in enumerate(messages) if message.role == "user"]
    head = list(messages[: starts[0]]) if starts else list(messages)
    for start in starts[:-1]:
        kept = head + list(messages[start:])
        if count(kept) <= limit:
            return kept, list(messages[len(head) : start])
    last = starts[-1] if starts else len(messages)
    return head + list(messages[last:]), list(messages[len(head) : last])


def notice(dropped: Sequence[Message]) -> Notice:
    """What to tell the person about the turns that were left out."""
    asked = [message.content for message in dropped if message.role == "user"]
    first = asked[0][:20] + ("…" if len(asked[0]) > 20 else "")
    words = Words(
        f"会話が長くなったため、古いやり取り {len(asked)} 回分を忘れました（いちばん古いものは「{first}」）。",
        f"The conversation has grown too long: the oldest {len(asked)} turns are forgotten, from '{first}' on.",
    )
    return Notice(str(words))
