"""May this directory be written? Asked before any work is done.

In: where the result shall go, and what it is made from. Out: nothing, or an error that says what stands in the way.
A result replaces an earlier result, never a person's own files and never its own input. It writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tsuzuri import directory
from tsuzuri.errors import ConfigError, Words


def check(out: Path, inputs: Sequence[Path] = ()) -> None:
    """Raises ConfigError when `out` is a file, lies below one, holds files that are not ours, or holds an input."""
    for path in inputs:
        if out.resolve() in path.resolve().parents:
            raise ConfigError(
                Words(f"{out} に書き込もうとしました。", f"Writing {out}."),
                found=Words(f"入力の {path} がその中にあります。", f"It holds {path}, which is to be read."),
                todo=Words("別の出力先を指定してください。", "Name another place."),
            )
    directory.check(out)
