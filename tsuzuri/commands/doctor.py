"""この計算機で何が使え、何が使えないかを調べます。 / See what this machine has and what it lacks."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON で / as JSON")
def command(as_json: bool) -> None:
    """Python・PyTorch・プロセッサ・ネイティブの計算・メモリ・空き容量・任意のパッケージを調べて表示します。何も変えません。
    / Shows Python, PyTorch, the processor, the native computation, memory, free disk and optional packages. Nothing is changed."""
    found = examined()
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=1))
        return
    width = 24
    for name, value in found.items():
        lines = value.items() if isinstance(value, dict) else [("", value)]
        for inner, one in lines:
            label = f"{name}.{inner}" if inner else name
            click.echo(f"{label:<{width}}  {_shown(one)}")


def examined() -> dict[str, Any]:
    """What `--json` prints. Names of keys are the same in every language."""
    import os  # noqa: PLC0415
    import platform  # noqa: PLC0415
    import shutil  # noqa: PLC0415
    from importlib import metadata, util  # noqa: PLC0415

    import torch  # noqa: PLC0415

    from tsuzuri import __version__, device  # noqa: PLC0415
    from tsuzuri.native import library  # noqa: PLC0415

    found = library.load()
    native: dict[str, Any] = (
        {"used": found.variant, "runnable": list(found.variants)}
        if isinstance(found, library.Library)
        else {"used": None, "why": str(found)}
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    optional = {name: _version(metadata, name) if util.find_spec(module) else None for name, module in OPTIONAL.items()}
    return {
        "tsuzuri": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": {"name": _processor(), "features": _features(), "cores": device.cores(), "threads": torch.get_num_threads()},
        "bfloat16": device.dtype("auto") == torch.bfloat16,
        "accelerators": device.accelerators(),
        "native": native,
        "bytes": {"memory": pages, "free_disk": shutil.disk_usage(".").free},
        "optional": optional,
    }


OPTIONAL = {
    "llguidance": "llguidance",
    "gguf": "gguf",
    "peft": "peft",
    "psycopg": "psycopg",
    "sudachipy": "sudachipy",
    "usearch": "usearch",
}
FEATURES = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


def _cpuinfo() -> dict[str, str]:
    """Of the first processor; nothing where the system keeps no such file."""
    from contextlib import suppress  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _processor() -> str:
    import platform  # noqa: PLC0415

    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _features() -> list[str]:
    """Those that matter here; empty where the system does not say."""
    known = _cpuinfo()
    flags = known.get("flags", known.get("Features", "")).split()
    return [name for name in FEATURES if name in flags]


def _version(metadata: Any, name: str) -> str:
    try:
        return str(metadata.version(name))
    except metadata.PackageNotFoundError:
        return "?"


def _shown(value: Any) -> str:
    from tsuzuri.errors import Words  # noqa: PLC0415

    if value is None or value == []:
        return str(Words("なし", "none"))
    if isinstance(value, bool):
        return str(Words("はい", "yes") if value else Words("いいえ", "no"))
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value / 1e9:.1f} GB" if isinstance(value, int) and value > 1 << 24 else str(value)
