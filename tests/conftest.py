"""What all tests share: two threads, so that two tests at once do not stall each other, and messages in Japanese."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["TSUZURI_LANG"] = "ja"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    import torch

    torch.set_num_threads(2)
