"""Where a computation runs: device, dtype, threads, seeds and ranks.

In: names from a recipe or a flag. Out: torch's values, checked. The OpenMP wait policy is set in `tsuzuri/__init__.py`,
before anything can load torch.
"""

from __future__ import annotations

import os
import random

import numpy
import torch

from tsuzuri.errors import ConfigError, Words

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}

MAX_THREADS = 1024  # past what the system allows, the OpenMP runtime ends the process without a word


def dtype(name: str) -> torch.dtype:
    """'float32', 'bfloat16' or 'float64'. float16 is refused: on a CPU it is slow and overflows."""
    if name not in DTYPES:
        raise ConfigError(
            Words(f"数値の型「{name}」が指定されました。", f"The number type '{name}' was asked for."),
            found=Words(f"使えるのは {'、'.join(DTYPES)} です。", f"There is {', '.join(DTYPES)}."),
            todo=Words("そのどれかを指定してください。", "Name one of these."),
        )
    return DTYPES[name]


def choose(name: str = "auto") -> torch.device:
    """'auto' takes an accelerator where there is one, else the CPU. Raises ConfigError for a device that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name in ("cpu", *accelerators()):
        return torch.device(name)
    raise ConfigError(
        Words(f"装置「{name}」が指定されました。", f"The device '{name}' was asked for."),
        found=Words("この計算機では使えません。", "It is not available on this machine."),
        todo=Words("auto か cpu を指定してください。", "Use auto or cpu."),
    )


def accelerators() -> list[str]:
    """The names `choose` takes besides 'cpu': 'cuda', 'cuda:0' … as many as there are."""
    return ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))] if torch.cuda.is_available() else []


def threads(count: int | None = None) -> int:
    """Set the number of computing threads (None: as many as cores this process may use); the number in force."""
    if count is not None and not 1 <= count <= MAX_THREADS:
        raise ConfigError(
            Words(f"スレッド数 {count} が指定されました。", f"{count} threads were asked for."),
            found=Words(f"1 から {MAX_THREADS} までです。", f"It lies in 1 … {MAX_THREADS}."),
            todo=Words("threads を直してください。", "Correct threads."),
        )
    torch.set_num_threads(count or cores())
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
