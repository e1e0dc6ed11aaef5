"""tsuzuri (綴り): a large language model from mechanism to use, Japanese first, on one's own machine.

Open `tsuzuri/types.py` first. From Python:

    import tsuzuri
    m = tsuzuri.load("runs/tiny/model")
    m.generate("今日の天気は", max_tokens=20)
    tsuzuri.load_encoder("runs/embed/model").embed("今日の天気")

The one thing that happens at import: the OpenMP wait policy is set before torch can load, because the
runtime reads it once. With the default (spinning) barrier one busy neighbour takes three quarters of the speed
of training, and far more of short steps (docs/decisions/0001).
"""

from __future__ import annotations

import os as _os
from typing import TYPE_CHECKING, Any

_os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tsuzuri.imports import uncollected as _uncollected

if TYPE_CHECKING:
    from tsuzuri.chat.labels import load as load_encoder
    from tsuzuri.chat.local import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load", "load_encoder"]


def __getattr__(name: str) -> Any:
    if name == "load":
        with _uncollected():
            from tsuzuri.chat.local import load  # noqa: PLC0415  torch loads here, not at import

        return load
    if name == "load_encoder":
        with _uncollected():
            from tsuzuri.chat.labels import load as load_encoder  # noqa: PLC0415

        return load_encoder
    raise AttributeError(f"module 'tsuzuri' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # `load` too, before it is first asked for
