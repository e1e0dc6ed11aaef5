"""What every benchmark here shares: alternating rounds, ratios, the machine, and the record with its raw samples.

In: two callables that each do the same work once and return one number (seconds, or a rate). Out: samples taken in the
order A B B A, their ratio round by round, and `results/NAME.json` with CPU, flags, versions, commit and every sample.
It decides nothing about what is compared: equality is checked by each script before it times anything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tsuzuri.directory import write_text

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("tsuzuri", "torch", "numpy", "tokenizers", "transformers", "sentencepiece", "llama-cpp-python")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimddp", "i8mm", "sve")
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM")
ROUNDS = 7  # the fewest a published number rests on


def rounds(a: Callable[[], float], b: Callable[[], float], count: int = ROUNDS) -> tuple[list[float], list[float]]:
    """`count` samples of each, in the order A B, B A, A B …: a slow drift of the machine falls on both alike.

    Warm up before, where the work has a first time. For the wall time of a call, wrap it in `timed`.
    """
    samples: tuple[list[float], list[float]] = ([], [])
    for turn in range(count):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            samples[which].append((a, b)[which]())
    return samples


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """The wall seconds of one call."""

    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return once


def ratio(samples_a: Sequence[float], samples_b: Sequence[float]) -> dict[str, float]:
    """A / B of each round: the median, the quartiles `low` and `high`, and the smallest.

    To read it as "ours is so many times faster", give rates as (ours, peer) and seconds as (peer, ours).
    """
    each = [a / b for a, b in zip(samples_a, samples_b, strict=True)]
    low, median, high = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
    return {"median": median, "low": low, "high": high, "minimum": min(each)}


def said(found: dict[str, float]) -> str:
    """A ratio in one line: 1.52 (1.49 - 1.55, minimum 1.47)."""
    return "{median:.2f} ({low:.2f} - {high:.2f}, minimum {minimum:.2f})".format(**found)


# Linux counts what a parent held at the time of exec into its child's peak: between the two stands a process that holds little.
LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs this Python on `arguments` in a process of its own: wall seconds, peak resident bytes, and the JSON it printed last."""
    start = time.perf_counter()
    command = [sys.executable, "-S", "-c", LAUNCHER, sys.executable, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}")
    *printed, resident = done.stdout.strip().splitlines()
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, kilobytes on Linux
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_bytes": int(resident) * unit, "printed": json.loads(printed[-1]) if printed else None}


def machine() -> dict[str, Any]:
    """What the numbers depend on, and nothing that names the machine or its owner."""
    model, flags = _cpu()
    return {
        "cpu": model,
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": list(os.getloadavg()),  # 1, 5, 15 minutes: a busy neighbour shows here
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "accelerator": _accelerator(),
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--", ":!benchmarks/results")),  # the working tree is not that commit
    }


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags every script has: `--rounds`, and `--out` for a trial that must not replace a published record."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"fewer than {ROUNDS} is a trial and is marked as one")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the record")
    return parser


def write(name: str, record: dict[str, Any], out: Path = RESULTS) -> Path:
    """`out/NAME.json`, whole or not at all: the record, the machine and the time. Returns the path."""
    out.mkdir(parents=True, exist_ok=True)
    whole = {"benchmark": name, "when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), **record}
    path = out / f"{name}.json"
    write_text(path, json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
    return path


def _cpu() -> tuple[str, set[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines) if value}
    model = found.get("model name") or found.get("Processor") or platform.machine()
    return model, set(found.get("flags", found.get("Features", "")).split())


def _accelerator() -> str | None:
    """The first GPU's name, if torch is already loaded and sees one."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name(0)) if torch and torch.cuda.is_available() else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    try:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def processes(first: int) -> list[int]:
    """Ids of a process and of those that it, or one of these, has begun and that are still there. Reads /proc, so on Linux."""
    try:
        tasks = [*Path(f"/proc/{first}/task").iterdir()]
        begun = [int(one) for task in tasks for one in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []
    return [first, *(each for one in begun for each in processes(one))]


def memory(first: int) -> int:
    """Resident bytes of `processes`."""
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") for one in processes(first))
