"""While much is imported nothing is collected; afterwards the collector is what it was."""

from __future__ import annotations

import gc
import weakref

import pytest

from tsuzuri.imports import uncollected


class Loop:
    def __init__(self) -> None:
        self.me = self


def test_nothing_is_collected_meanwhile_and_everything_afterwards() -> None:
    with uncollected():
        assert not gc.isenabled()
        made = Loop()
        gone = weakref.ref(made)
        del made
    assert gc.isenabled() and gone() is not None
    gc.collect()
    assert gone() is None, "what was made meanwhile can be collected"


def test_also_after_an_error() -> None:
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()


def test_what_others_have_set_stays() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    gc.freeze()
    count = gc.get_freeze_count()
    try:
        with uncollected():
            pass
        assert 0 < gc.get_freeze_count() <= count
    finally:
        gc.unfreeze()
