"""What all tests share: two threads, so that two tests at once do not stall each other, messages in Japanese, data of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import postgresql
import pytest
from hypothesis import HealthCheck, settings
from place import ROOT, SMALL, SMALL_TASKS, SMALL_VECTORS

if TYPE_CHECKING:
    from tsuzuri.native.library import Library

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["TSUZURI_LANG"] = "ja"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TSUZURI_DATA_DIR"] = "runs/service"  # of wherever a test is: never that of the person who runs it
os.environ.pop("TSUZURI_DATABASE_URL", None)
os.environ.pop("TSUZURI_SECRETS_DIR", None)
# How long an example takes to make or to run is a matter of who else is on the machine; what has a bound of time measures it itself.
settings.register_profile("tsuzuri", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tsuzuri")


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    import torch

    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def compiler() -> list[str]:
    from tsuzuri.native import build

    try:
        return build.find_compiler()
    except build.BuildError:
        pytest.skip("no C++ compiler")


@pytest.fixture(scope="session")
def native(compiler: list[str]) -> Library:
    """The kernels of the installation, or built once where they are missing or older than the sources: a test that is about them is never
    left out because it ran too early."""
    from tsuzuri.native import build, library

    if not isinstance(library.load(), library.Library):
        build.build()
        library._open.cache_clear()
        library._load.cache_clear()
    found = library.load()
    assert isinstance(found, library.Library), found
    return found


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Address of the server, without the name of a database."""
    if postgresql.programs() is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg")
    with postgresql.cluster() as found:
        yield found


@pytest.fixture(scope="session")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place like a fresh checkout in which `tsuzuri run recipes/tiny.yaml` has run, with a small model and few steps.

    The text, the conversations, the recipe and the command are the real ones; the result is in runs/tiny.
    """
    place = tmp_path_factory.mktemp("life")
    for name in ("recipes", "sample", "docs"):
        (place / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "tsuzuri", "run", "recipes/tiny.yaml", *SMALL]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (place / "printed.txt").write_text(done.stdout, encoding="utf-8")
    (place / "progress.txt").write_text(done.stderr, encoding="utf-8")
    return place


@pytest.fixture(scope="session")
def word_vectors(life: Path) -> Path:
    """The same place, where `tsuzuri run recipes/vectors.yaml` has run, too: small vectors of a few epochs in runs/vectors."""
    command = [sys.executable, "-m", "tsuzuri", "run", "recipes/vectors.yaml", *SMALL_VECTORS]
    done = subprocess.run(command, cwd=life, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return life


@pytest.fixture(scope="session")
def classifier(life: Path) -> Path:
    """The same place, where `tsuzuri run recipes/classify.yaml` has run, too, small: an encoder in runs/classify."""
    command = [sys.executable, "-m", "tsuzuri", "run", "recipes/classify.yaml", *SMALL_TASKS["classify"]]
    done = subprocess.run(command, cwd=life, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return life
