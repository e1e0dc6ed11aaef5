"""Threads for the kernels' own tests."""

from __future__ import annotations

import pytest

from tsuzuri.native.library import Library
from tsuzuri.native.program import Pool


@pytest.fixture(scope="session")
def pool(native: Library) -> Pool:
    return Pool(native, 2)
