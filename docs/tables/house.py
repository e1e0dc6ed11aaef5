"""The map of the house, and its verbs."""

from __future__ import annotations

from tables._shared import ROOT, Parts, half
from tsuzuri.folder import names

# from the top; a room calls those below
HOUSE = ("commands", "serve", "recipe", "guard", "train", "evals", "chat", "engine", "text", "model", "store", "native", "hub")
BASE = ("types", "errors", "config", "folder", "device", "directory", "beside")


def house(language: str) -> str:
    """The map: one line a room, from the top down."""
    rows = [(f"{room}/", half(ROOT / "tsuzuri" / room / "__init__.py", language)) for room in HOUSE]
    width = max(len(name) for name, _ in rows)
    base = "  ".join(f"{name}.py" for name in BASE)
    return "\n".join(["```", *(f"{name:<{width}}  {line}" for name, line in rows), base, "```"])


def verbs(language: str) -> str:
    """The verbs and what each does."""
    lines = [f"| `tsuzuri {name}` | {half(ROOT / 'tsuzuri' / 'commands' / f'{name}.py', language)} |" for name in names("tsuzuri.commands")]
    return "\n".join(["| | |", "|---|---|", *lines])


PARTS: Parts = {"house": house, "verbs": verbs}
