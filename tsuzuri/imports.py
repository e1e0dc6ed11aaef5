"""Imports that bring a hundred thousand objects, of which none is garbage: the collector stands still meanwhile.

In: nothing. Out: a context for the import of what brings torch. Without it the collector looks through everything again and again while it
grows: a sixth of the time to the first token. Afterwards the process collects as it did before, and what was imported counts as old.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Leaves a collector alone that is off already; and what others have frozen (`gc.freeze`) stays so."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()  # into the oldest generation, without a look at any of it
        gc.enable()
