"""The library for these tests: that of the installation, or built once where it is missing or older than the sources."""

from __future__ import annotations

import pytest

from tsuzuri.native import build, library
from tsuzuri.native.program import Pool


@pytest.fixture(scope="session")
def compiler() -> list[str]:
    try:
        return build.find_compiler()
    except build.BuildError:
        pytest.skip("no C++ compiler")


@pytest.fixture(scope="session")
def native(compiler: list[str]) -> library.Library:
    if not isinstance(library.load(), library.Library):
        build.build()
        library._open.cache_clear()
        library._load.cache_clear()
    found = library.load()
    assert isinstance(found, library.Library), found
    return found


@pytest.fixture(scope="session")
def pool(native: library.Library) -> Pool:
    return Pool(native, 2)
