"""Where a computation runs: names become torch's values, or are refused; the wait policy is set before torch loads."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy
import pytest
import torch

from tsuzuri import device
from tsuzuri.errors import ConfigError

WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"))
sys.meta_path.insert(0, Watch())
import tsuzuri.device
"""


@pytest.mark.parametrize(("given", "expected"), [(None, "passive"), ("active", "active")])
def test_threads_wait_passively_unless_the_person_says_otherwise(given: str | None, expected: str) -> None:
    """What is printed is the policy at the very moment torch is about to load."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given:
        environment["OMP_WAIT_POLICY"] = given
    found = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, timeout=120, check=True, env=environment)
    assert found.stdout == f"{expected}\n"


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float64"])
def test_number_types(name: str) -> None:
    assert device.dtype(name) is getattr(torch, name)


@pytest.mark.parametrize("name", ["float16", "int8", "", "Float32"])
def test_another_number_type_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="float32、bfloat16、float64"):
        device.dtype(name)


def test_the_number_type_of_this_machine_is_not_an_emulated_one() -> None:
    """A product of 'auto' takes no longer than twice one in float32; emulated, bfloat16 takes a hundred times as long."""
    a = torch.randn(512, 512)

    def seconds(dtype: torch.dtype) -> float:
        x, found = a.to(dtype), []
        for _ in range(5):
            start = time.perf_counter()
            x @ x
            found.append(time.perf_counter() - start)
        return min(found)

    assert device.dtype("auto") in (torch.bfloat16, torch.float32)
    assert seconds(device.dtype("auto")) < 2 * seconds(torch.float32)


def test_what_a_machine_cannot_compute_in_becomes_float32() -> None:
    cpu = torch.device("cpu")
    assert device.fit(torch.float16, cpu) == torch.float32
    assert device.fit(torch.bfloat16, cpu) == device.dtype("auto")
    assert device.fit(torch.bfloat16, torch.device("meta")) == torch.float32
    for dtype in (torch.float32, torch.float64):
        assert device.fit(dtype, cpu) == dtype


def test_devices() -> None:
    assert device.choose("cpu") == torch.device("cpu")
    assert device.choose().type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in device.accelerators():
        assert device.choose(name).type == "cuda"


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cuda:x", "cudaa", "cpu:0"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="使えません"):
        device.choose(name)


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads_as_before")
def test_threads() -> None:
    assert device.threads(1) == torch.get_num_threads() == 1
    assert device.threads() == torch.get_num_threads() == len(os.sched_getaffinity(0))
    for count in (0, -1, 100_000):
        with pytest.raises(ConfigError, match=f"スレッド数 {count} "):
            device.threads(count)
    assert torch.get_num_threads() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("seed", [0, 7, -1, 2**40])
def test_one_seed_starts_every_generator(seed: int) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(numpy.random.rand()), float(torch.rand(()))

    device.seed_all(seed)
    one = draws()
    device.seed_all(seed)
    assert draws() == one
    device.seed_all(seed + 1)
    assert all(new != old for new, old in zip(draws(), one, strict=True))


def test_ranks_are_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert device.rank() == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert device.rank() == (3, 8)
