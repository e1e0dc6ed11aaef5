"""The C++ by itself (drive.cpp): random sizes under the sanitizers, and every variant for processors that are not here.

AVX-512 runs on `emulated.h`, an instruction at a time; Arm under qemu, where that and a cross compiler are installed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tsuzuri.native.build import SOURCE, VARIANTS

HERE = Path(__file__).parent
COMMON = ["-std=c++17", "-O0", "-w", "-pthread", f"-I{SOURCE}", f"-I{HERE}"]
ADDRESS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
AVX2 = list(VARIANTS["x86_64"]["avx2"])


def driven(
    compiler: list[str], place: Path, parts: dict[str, list[str]], flags: list[str], *, link: Sequence[str] = (), run: Sequence[str] = ()
) -> str:
    """Compiles the driver and `parts` (file: its flags), links, runs; what it printed."""
    with ThreadPoolExecutor(2) as workers:
        objects = list(workers.map(lambda part: compiled(compiler, place, part[0], [*flags, *part[1]]), {"drive": [], **parts}.items()))
    out = place / "drive"
    execute([*compiler, "-pthread", *flags, *link, *objects, "-o", str(out)])
    return execute([*run, str(out), "4"])


def compiled(compiler: list[str], place: Path, name: str, flags: list[str]) -> str:
    source = HERE / "drive.cpp" if name == "drive" else SOURCE / f"{name}.cpp"
    out = place / f"{name}.o"
    execute([*compiler, *COMMON, *flags, "-c", str(source), "-o", str(out)])
    return str(out)


def execute(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def tables(*names: str) -> str:
    return "-DTABLES=" + ", ".join(f"kernels_{name}()" for name in names)


def is_x86(compiler: list[str]) -> bool:
    return execute([*compiler, "-dumpmachine"]).startswith("x86_64")


def test_the_pool_has_no_race(compiler: list[str], tmp_path: Path) -> None:
    assert "done" in driven(compiler, tmp_path, {"pool": []}, ["-fsanitize=thread", "-DONLY_POOL"])


def test_nothing_is_read_or_written_beside_what_is_given(compiler: list[str], tmp_path: Path) -> None:
    parts = {"scalar": [], "pool": [], "program": []}
    names = ["scalar"]
    if is_x86(compiler):
        parts, names = {**parts, "avx2": AVX2}, [*names, "avx2"]
    assert driven(compiler, tmp_path, parts, [*ADDRESS, tables(*names)]).split() == [*names, "done"]


def test_avx512_computes_what_the_scalar_kernels_do(compiler: list[str], tmp_path: Path) -> None:
    if not is_x86(compiler):
        pytest.skip("the emulation stands on AVX2")
    names = ["avx512", "avx512vnni"]
    parts = {"scalar": [], "pool": [], "program": [], **{name: [*AVX2, "-DTSUZURI_EMULATED"] for name in names}}
    assert driven(compiler, tmp_path, parts, [tables(*names)]).split() == [*names, "done"]


def test_arm_computes_what_the_scalar_kernels_do(tmp_path: Path) -> None:
    cross, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if not cross or not emulator:
        pytest.skip("no cross compiler or no emulator for Arm")
    parts = {"scalar": [], "pool": [], "program": [], "neon": list(VARIANTS["aarch64"]["neon"])}
    run = [emulator, "-cpu", "max"]
    assert driven([cross], tmp_path, parts, [tables("neon")], link=["-static"], run=run).split() == ["neon", "done"]
