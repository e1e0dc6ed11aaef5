"""What every table here uses: where things lie, the results of the measurements, the machine they come from, a table in Markdown."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
Parts = Mapping[str, Callable[[str], str]]  # what a page calls a generated part, and how it is made for a language


def half(path: Path, language: str) -> str:
    """The reader's half of the first docstring line, 「日本語。 / English.」"""
    line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    ja, _, en = line.partition(" / ")
    return ja if language == "ja" else en


def machine(found: dict[str, Any], language: str) -> str:
    """What matters of the machine: the accelerator; without one cores, and whether it computes in bfloat16."""
    known = found["machine"]
    if known["accelerator"]:
        return str(known["accelerator"])
    narrow = "bf16" if {"avx512_bf16", "amx_bf16"} & set(known["flags"]) else "fp32"
    return f"{known['cores']} コア、{narrow}" if language == "ja" else f"{known['cores']} cores, {narrow}"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def said(ratio: dict[str, float]) -> str:
    """Median and quartiles of a ratio."""
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} – {ratio['high']:.2f})"
