"""Compiles the kernels into one shared library: at installation (setup.py), or by `python -m tsuzuri.native.build`.

In: `source/`, and a C++17 compiler (GCC or Clang). Out: `libtsuzuri.so` beside this file. Each variant is a file compiled with its
own flags, so that one library serves every processor of its kind; a variant that the compiler does not know is left out.
It imports nothing but the standard library: it runs before anything is installed. Without a compiler there is no library,
and the package computes with PyTorch alone.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE = Path(__file__).parent / "source"
LIBRARY = Path(__file__).parent / "libtsuzuri.so"
COMPILERS = ("g++", "c++", "clang++")
COMMON = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra", "-pthread")
WIDE = (
    "-mavx2",
    "-mfma",
    "-mf16c",
    "-mavx512f",
    "-mavx512bw",
    "-mavx512vl",
    "-mavx512dq",
    "-Wno-maybe-uninitialized",
)  # GCC 12's header warns of itself
VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx2": ("-mavx2", "-mfma", "-mf16c"),
        "avx512": WIDE,
        "avx512vnni": (*WIDE, "-mavx512vnni"),
    },
    "aarch64": {"neon": ("-march=armv8.2-a+dotprod+fp16",)},
}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
SANITIZERS = {
    "address": ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
    "thread": ("-g", "-O1", "-fsanitize=thread"),
}


class BuildError(Exception):
    """No library could be made; the message says why."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=LIBRARY)
    parser.add_argument("--sanitize", choices=sorted(SANITIZERS))
    options = parser.parse_args()
    try:
        print(build(options.out, sanitize=options.sanitize))
    except BuildError as error:
        sys.exit(str(error))


def fingerprint() -> str:
    """Of the sources and of this file: what a library was built from."""
    digest = hashlib.sha256()
    for path in (*sorted(SOURCE.iterdir()), Path(__file__)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def build(out: Path = LIBRARY, *, sanitize: str | None = None) -> Path:
    """The library at `out`, whole or not at all. Raises BuildError."""
    compiler = find_compiler()
    optimised = SANITIZERS[sanitize] if sanitize else ("-O3",)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        machine = platform.machine().lower()
        wanted = VARIANTS.get(MACHINES.get(machine, machine), {})
        jobs = {variant: [*optimised, *flags] for variant, flags in wanted.items()}
        with ThreadPoolExecutor(os.cpu_count() or 1) as workers:
            done = dict(zip(jobs, workers.map(lambda job: _compile(compiler, job[0], job[1], place), jobs.items()), strict=True))
            found = [variant for variant, error in done.items() if error is None]
            defined = [f"-DTSUZURI_{variant.upper()}" for variant in found] + [f'-DTSUZURI_BUILD="{fingerprint()}"']
            plain = ("scalar", "pool", "program", "abi")
            errors = [e for e in workers.map(lambda part: _compile(compiler, part, [*optimised, *defined], place), plain) if e]
        if errors:
            raise BuildError(errors[0])
        _link(compiler, [place / f"{part}.o" for part in (*plain, *found)], list(optimised), out)
    return out


def find_compiler() -> list[str]:
    """CXX, or the first that is there. Raises BuildError."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise BuildError("no C++ compiler (g++ or clang++) was found")


def _compile(compiler: Sequence[str], part: str, flags: Sequence[str], place: Path) -> str | None:
    """The compiler's message if it fails."""
    command = [*compiler, *COMMON, *flags, "-c", str(SOURCE / f"{part}.cpp"), "-o", str(place / f"{part}.o")]
    return _run(command)


def _link(compiler: Sequence[str], objects: Sequence[Path], flags: Sequence[str], out: Path) -> None:
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    command = [*compiler, "-shared", "-pthread", *flags, *map(str, objects), "-o", str(temporary)]
    # the library carries its C++ runtime, so that another one in the process (conda's, say) does not matter
    alone = [] if any("sanitize" in flag for flag in flags) else ["-static-libgcc", "-static-libstdc++"]
    alone += ["-Wl,--exclude-libs,ALL"] if alone and sys.platform == "linux" else []  # and shows nothing of it
    try:
        error = _run([*command, *alone])
        if error and alone:
            error = _run(command)
        if error:
            raise BuildError(error)
        temporary.replace(out)
    except OSError as error:
        raise BuildError(str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _run(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)  # noqa: S603  the compiler, on our own files
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else f"{' '.join(command[:1])} ended with {done.returncode}\n{done.stderr[-2000:]}"


if __name__ == "__main__":
    main()
