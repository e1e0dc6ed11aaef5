"""Pages on a disk: after a restart a text begins with what was computed before it, with the same tokens; nothing else finds them."""

from __future__ import annotations

import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tsuzuri.engine.batch import BatchEngine
from tsuzuri.engine.disk import Disk, fingerprint
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import SpaceError
from tsuzuri.model import compiled
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.types import Token

SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 200,
}  # fmt: skip
PROMPT = [int(id) for id in torch.randint(40, (70,), generator=torch.Generator().manual_seed(2))]


def transformer(seed: int = 3) -> Transformer:
    model, generator = Transformer(Shape(**SIZES)), torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model.requires_grad_(False).eval()


def served(model: Any, disk: Disk | None, tenant: str = "") -> tuple[list[Token], int]:
    """A whole life of an engine: tokens, and how many of the prompt were found."""
    batch, stop, size = BatchEngine(LocalEngine(model, (), 200), 12, disk=disk), threading.Event(), 32
    worker = threading.Thread(target=batch.run, args=(stop,))
    worker.start()
    stream = batch.stream(PROMPT, Sampling(temperature=0.8, seed=4, max_tokens=30), tenant)
    found = list(stream)
    stop.set()
    worker.join()
    assert batch.pages.size == size
    return found, stream.cached_tokens


@pytest.mark.parametrize("kind", ["plain", "compiled"])
def test_found_again_after_a_restart(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "compiled":
        request.getfixturevalue("native")

    def model() -> Any:
        return transformer() if kind == "plain" else compiled.made(transformer(), 1)

    first = served(model(), Disk(tmp_path, "f"))
    again = served(model(), Disk(tmp_path, "f"))
    assert (first[1], again[1]) == (0, 64)
    assert again[0] == first[0] == served(model(), None)[0]  # to the bit: log-probabilities too


def test_neither_another_tenant_nor_another_model_finds_them(tmp_path: Path) -> None:
    served(transformer(), Disk(tmp_path, "f"), "甲")
    assert served(transformer(), Disk(tmp_path, "f"), "乙")[1] == 0
    assert served(transformer(), Disk(tmp_path, "g"), "甲")[1] == 0
    assert served(transformer(), Disk(tmp_path, "f"), "甲")[1] == 64


def test_a_fingerprint_is_of_every_weight_and_note() -> None:
    model = transformer()
    found = {
        fingerprint(model.parameters(), "avx2"),
        fingerprint(model.parameters(), "scalar"),
        fingerprint(transformer(4).parameters(), "avx2"),
    }
    changed = transformer()
    changed.norm.weight[0] += 1e-3
    assert len(found | {fingerprint(changed.parameters(), "avx2")}) == 4
    assert fingerprint(transformer().parameters(), "avx2") in found


def test_what_is_damaged_is_computed_again(tmp_path: Path) -> None:
    wanted = served(transformer(), Disk(tmp_path, "f"))[0]
    files = sorted((tmp_path / "f").iterdir())
    assert len(files) == 3  # two pages of the prompt, one of prompt and answer
    for number, file in enumerate(files):
        data = bytearray(file.read_bytes())
        if number == 0:
            data = data[: len(data) // 2]
        else:
            data[-100] ^= 1
        file.write_bytes(data)
    again = served(transformer(), Disk(tmp_path, "f"))
    assert again == (wanted, 0)
    assert served(transformer(), Disk(tmp_path, "f")) == (wanted, 32)  # the first is whole again, the second is met now
    assert served(transformer(), Disk(tmp_path, "f")) == (wanted, 64)


def test_without_its_place_the_engine_goes_on(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "pages", "f")
    shutil.rmtree(tmp_path / "pages")
    batch, stop = BatchEngine(LocalEngine(transformer(), (), 200), 12, disk=disk), threading.Event()
    worker = threading.Thread(target=batch.run, args=(stop,))
    worker.start()
    for _ in range(2):
        assert len(list(batch.stream(PROMPT, Sampling(seed=4, max_tokens=30)))) == 30
    stop.set()
    worker.join()
    assert isinstance(batch.disk_lost, SpaceError)


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    contents = {"keys.0": torch.zeros(100)}
    disk = Disk(tmp_path, "f", most=1500)
    for number in range(2):
        disk.keep(bytes([number] * 16), contents)
    assert disk.find(bytes([0] * 16)) is not None
    disk.keep(bytes([2] * 16), contents)
    assert [bytes([number] * 16) in disk for number in range(3)] == [True, False, True]
    assert len(list((tmp_path / "f").iterdir())) == 2
    reopened = Disk(tmp_path, "f", most=1500)
    assert [bytes([number] * 16) in reopened for number in range(3)] == [True, False, True]
    disk.keep(bytes([9] * 16), {"keys.0": torch.zeros(1000)})  # more than all the room
    assert bytes([9] * 16) not in disk


def test_nobody_else_may_read_them(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "pages", "f")
    disk.keep(bytes(16), {"keys.0": torch.zeros(4)})
    place = tmp_path / "pages" / "f"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in place.iterdir()] == [0o600]
