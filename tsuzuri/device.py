"""Where a computation runs: device, dtype, threads, seeds and ranks.

In: names from a recipe or a flag. Out: torch's values, checked. The OpenMP wait policy is set in `tsuzuri/__init__.py`,
before anything can load torch.
"""

from __future__ import annotations

import os
import platform
import random
from typing import Any

import numpy
import torch

from tsuzuri.errors import ConfigError, Words

CPU = torch.device("cpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}

MAX_THREADS = 1024  # past what the system allows, the OpenMP runtime ends the process without a word


def dtype(name: str, where: torch.device = CPU) -> torch.dtype:
    """'float32', 'bfloat16', 'float64', or 'auto': the narrowest that `where` computes in. float16 is refused: on a CPU it is
    slow and overflows."""
    if name == "auto":
        return fit(torch.bfloat16, where)
    if name not in DTYPES:
        names = ["auto", *DTYPES]
        raise ConfigError(
            Words(f"数値の型「{name}」が指定されました。", f"The number type '{name}' was asked for."),
            found=Words(f"使えるのは {'、'.join(names)} です。", f"There is {', '.join(names)}."),
            todo=Words("そのどれかを指定してください。", "Name one of these."),
        )
    return DTYPES[name]


def fit(wanted: torch.dtype, where: torch.device) -> torch.dtype:
    """`wanted`, or float32 where `where` has no arithmetic for it: emulated, a product takes a hundred times as long
    (2 cores of Zen 3, 1024³: bfloat16 0.8 GFLOP/s, float32 116)."""
    if wanted == torch.float16:
        return wanted if where.type == "cuda" else torch.float32
    return wanted if wanted != torch.bfloat16 or _multiplies_bfloat16(where) else torch.float32


def _multiplies_bfloat16(where: torch.device) -> bool:
    """By what the processor says, not by timing it: the same machine always computes alike."""
    if where.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if where.type != "cpu":
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    mkldnn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # Arm


def choose(name: str = "auto") -> torch.device:
    """'auto' takes an accelerator where there is one (under torchrun each process its own), else the CPU. Raises ConfigError for a device that is not here."""
    if name == "auto":
        one_of_several = f":{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else ""
        name = f"cuda{one_of_several}" if torch.cuda.is_available() else "cpu"
    if name in ("cpu", *accelerators()):
        return torch.device(name)
    raise ConfigError(
        Words(f"装置「{name}」が指定されました。", f"The device '{name}' was asked for."),
        found=Words("この計算機では使えません。", "It is not available on this machine."),
        todo=Words("auto か cpu を指定してください。", "Use auto or cpu."),
    )


def of(model: Any) -> torch.device:
    """Where a model's weights lie; the CPU for one that has none."""
    weight = next(iter(model.parameters()), None)
    return CPU if weight is None else weight.device


def accelerators() -> list[str]:
    """The names `choose` takes besides 'cpu': 'cuda', 'cuda:0' … as many as there are."""
    return ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))] if torch.cuda.is_available() else []


def threads(count: int | None = None) -> int:
    """Set the number of computing threads (None: a core each, shared among the processes of torchrun); the number in force."""
    if count is not None and not 1 <= count <= MAX_THREADS:
        raise ConfigError(
            Words(f"スレッド数 {count} が指定されました。", f"{count} threads were asked for."),
            found=Words(f"1 から {MAX_THREADS} までです。", f"It lies in 1 … {MAX_THREADS}."),
            todo=Words("threads を直してください。", "Correct threads."),
        )
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes of torchrun on this machine
    torch.set_num_threads(count or max(1, cores() // beside))
    return torch.get_num_threads()


def cores() -> int:
    """As many as this process may use; where the system does not say, as many as there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seed_all(seed: int) -> None:
    """Seed every generator a library might draw from. Our own draws take their generator as an argument."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rank() -> tuple[int, int]:
    """(this process, number of processes) as torchrun says; (0, 1) alone."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
