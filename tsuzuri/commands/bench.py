"""この計算機の上限と、モデルがどこまで迫るかを測ります。 / Measure this machine's bounds and how near a model comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.commands._model import model_options, named, open_model
from tsuzuri.errors import Words

if TYPE_CHECKING:
    from tsuzuri.chat.local import LocalModel
    from tsuzuri.evals.speed import Measures, Spread

BUSY = 0.1  # cores of others, as a share of all, above which the numbers are doubtful
LOADED = 0.5  # load average before the start, as a share of the cores
WIDE = 0.1  # between the quartiles of the rounds, as a share of the median


@click.command()
@model_options
@click.option("--rounds", type=click.IntRange(2, 1000), default=5, show_default=True, help="測る回数 / how often each is measured")
@click.option(
    "--watts",
    type=click.FloatRange(0, 1e6, min_open=True),
    help="負荷時の電力（W）。省くと、計算機が教えるときだけ測る / watts under load; measured where the machine tells, unless given",
)
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で / the result as JSON")
def command(
    directory: Path | None, dtype: str | None, quantize: str | None, threads: int | None, rounds: int, watts: float | None, as_json: bool
) -> None:
    """計算機の上限（メモリの読み出し、行列の積）と、モデルの速さ（一つの生成、16 の同時生成、入力の読み込み、最初の一語まで）を交互に測り、
    上限の何割に達したかを示します。小さなモデルなら一分かかりません。 / Measures in turns what the machine can do at most (reading memory,
    products of matrices) and how fast a model is (one text, 16 at once, reading a prompt, the first token), and shows what share of
    the bound is reached. Less than a minute for a small model.

    例：tsuzuri bench --quantize q8_0 / For example: tsuzuri bench --quantize q8_0"""
    from tsuzuri.evals.speed import Lengths, Measures, Spread  # noqa: PLC0415
    from tsuzuri.recipe import measure  # noqa: PLC0415

    model = open_model(directory, dtype, quantize, threads)
    measures = Measures(model.engine, Lengths())
    load, begun = _load(), measure.clock()
    works = _works(measures)
    samples: dict[str, list[float]] = {name: [] for name in works}
    with _progress(len(works) * (rounds + 1)) as advance:
        for turn in range(rounds + 1):
            for name, work in works.items():
                advance(name)
                found = work()
                if turn:  # the first is for warming up
                    samples[name].append(found)
    taken = measure.others(begun, measure.clock())
    spreads = {name: Spread(tuple(each)) for name, each in samples.items()}
    result = _result(model, measures, spreads, rounds, load, taken)
    result["energy"] = _energy(result, watts, named(directory))
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
    else:
        _show(result)


def _works(measures: Measures) -> dict[str, Callable[[], float]]:
    """By the name they have in the result, in the order of a round."""
    import torch  # noqa: PLC0415

    from tsuzuri.recipe.measure import matrix_rate, read_rate  # noqa: PLC0415

    place = torch.device(measures.engine.device)
    return {
        "read_bytes_per_second": lambda: read_rate(place, rounds=2),
        "float32_flops": lambda: matrix_rate(place, "float32", rounds=2),
        "bfloat16_flops": lambda: matrix_rate(place, "bfloat16", rounds=2),
        "decode_tokens_per_second": measures.decode,
        "batch_tokens_per_second": measures.batch,
        "prefill_tokens_per_second": measures.prefill,
        "first_token_seconds": measures.first,
    }


BOUNDS = ("read_bytes_per_second", "float32_flops", "bfloat16_flops")
NAMES = {
    "read_bytes_per_second": Words("メモリの読み出し", "memory read"),
    "float32_flops": Words("行列の積、float32", "matrix product, float32"),
    "bfloat16_flops": Words("行列の積、bfloat16", "matrix product, bfloat16"),
    "decode_tokens_per_second": Words("一つの生成", "one text"),
    "batch_tokens_per_second": Words("同時生成", "several at once"),
    "prefill_tokens_per_second": Words("入力の読み込み", "reading a prompt"),
    "first_token_seconds": Words("最初の一語まで", "to the first token"),
}


def _result(
    model: LocalModel, measures: Measures, spreads: dict[str, Spread], rounds: int, load: float | None, taken: float | None
) -> dict[str, Any]:
    """What `--json` prints. A bound is the best of its rounds: what disturbs can only lower it; a speed is the median."""
    from dataclasses import asdict  # noqa: PLC0415

    import torch  # noqa: PLC0415

    from tsuzuri.commands.doctor import examined  # noqa: PLC0415
    from tsuzuri.evals.speed import Cost  # noqa: PLC0415
    from tsuzuri.model.adapt import quantize  # noqa: PLC0415
    from tsuzuri.model.compiled import Compiled  # noqa: PLC0415
    from tsuzuri.recipe.measure import cache  # noqa: PLC0415

    machine = {name: value for name, value in examined().items() if name not in ("optional", "bytes")}
    cost, lengths = Cost.of(model.engine.model), measures.lengths
    bounds = {name: max(spreads[name].samples) for name in BOUNDS}
    speeds = {name: spread.median for name, spread in spreads.items() if name not in BOUNDS}
    read, products = bounds["read_bytes_per_second"], max(bounds["float32_flops"], bounds["bfloat16_flops"])
    decode, batch, prefill = (speeds[f"{name}_tokens_per_second"] for name in ("decode", "batch", "prefill"))
    cached = cache() if torch.device(measures.engine.device).type == "cpu" else None
    result: dict[str, Any] = {
        "machine": machine,
        "threads": torch.get_num_threads(),
        "device": str(measures.engine.device),
        "model": {
            "name": model.name,
            "parameters": quantize.count(model.model),
            "form": quantize.form_of(model.model) or str(next(model.model.parameters()).dtype).removeprefix("torch."),
            "native": isinstance(model.engine.model, Compiled),
            "token_bytes": cost.bytes,
            "token_flops": 2 * cost.products,
            "prompt_token_flops": 2 * cost.prompt_products,
        },
        "lengths": asdict(lengths),
        "rounds": rounds,
        "bounds": bounds | {"cache_bytes": cached},
        "speeds": {name: spread.as_json() for name, spread in spreads.items()},
        "reached": {
            "decode_mbu": decode * cost.bytes / read,
            "batch_mbu": batch / lengths.streams * cost.bytes / read,
            "batch_mfu": batch * 2 * cost.products / products,
            "prefill_mfu": prefill * 2 * cost.prompt_products / products,
        },
        "others": {"load_before": load, "cores": taken},
    }
    return result | {"warnings": [str(words) for words in _warnings(result, spreads)]}


def _energy(result: dict[str, Any], given: float | None, directory: Path) -> dict[str, Any] | None:
    """What tokens draw: kWh for a million, as a table of prices takes them, by the name under which the model is served. One text alone,
    the dearest way. None where the power is neither given nor told by the machine: nobody is charged for a guess."""
    from tsuzuri.recipe import measure  # noqa: PLC0415
    from tsuzuri.serve.models import name_of  # noqa: PLC0415

    found = measure.power(given)
    if not found.known:
        return None
    kwh = {
        name: found.watts / result["speeds"][f"{name}_tokens_per_second"]["median"] / 3.6  # 10^6 tokens, 3.6 × 10^6 J
        for name in ("prefill", "decode")
    }
    name = name_of(directory)
    return {"served": name, "watts": found.watts, "how": str(found.how), "input_kwh": kwh["prefill"], "output_kwh": kwh["decode"]}


def _warnings(result: dict[str, Any], spreads: dict[str, Spread]) -> Iterator[Words]:
    """What makes the numbers doubtful."""
    cores, others, cached = result["machine"]["cpu"]["cores"], result["others"], result["bounds"]["cache_bytes"]
    if others["load_before"] is not None and others["load_before"] > LOADED * cores:
        load = others["load_before"]
        yield Words(
            f"始める前から計算機が忙しく（負荷 {load:.1f}、{cores} コア）、数字は本来より低く出ます。",
            f"The machine was busy before the start (load {load:.1f}, {cores} cores): the numbers are lower than they could be.",
        )
    if others["cores"] is not None and others["cores"] > BUSY * cores:
        yield Words(
            f"測っている間、ほかのプログラムが平均 {others['cores']:.1f} コアを使っていました（全 {cores} コア）。",
            f"Meanwhile other programs used {others['cores']:.1f} of {cores} cores on average.",
        )
    wide = [str(NAMES[name]) for name, spread in spreads.items() if name not in BOUNDS and spread.width > WIDE]
    if wide:
        yield Words(
            f"測るたびに {WIDE:.0%} より大きくばらつきました：{'、'.join(wide)}。",
            f"The rounds differ by more than {WIDE:.0%}: {', '.join(wide)}.",
        )
    if cached is not None and result["model"]["token_bytes"] < cached:
        size = result["model"]["token_bytes"] / 1e6
        yield Words(
            f"重み {size:.1f} MB は {cached / 1e6:.0f} MB のキャッシュに収まるので、メモリの読み出しは上限になりません。",
            f"The weights, {size:.1f} MB, fit into a cache of {cached / 1e6:.0f} MB: reading memory is not their bound.",
        )


def _show(result: dict[str, Any]) -> None:
    """Tables that say the same with and without colour."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console, cpu, model = Console(), result["machine"]["cpu"], result["model"]
    console.print(f"{cpu['name']}, {Words('スレッド', 'threads')} {result['threads']}, {result['device']}", markup=False, highlight=False)
    bounds = Table(str(Words("上限", "bound")), str(Words("値", "value")))
    bounds.columns[1].justify = "right"
    for name in BOUNDS:
        unit = "GB/s" if name.startswith("read") else "GFLOP/s"
        bounds.add_row(str(NAMES[name]), f"{result['bounds'][name] / 1e9:,.0f} {unit}")
    console.print(bounds)
    kind = "native" if model["native"] else "PyTorch"
    told = f"{model['name']}: {model['parameters'] / 1e6:.1f} M, {model['form']}, {model['token_bytes'] / 1e6:.1f} MB, {kind}"
    console.print(told, markup=False, highlight=False)
    table = Table(*(str(words) for words in (Words("速さ", "speed"), Words("中央値", "median"), Words("四分位", "quartiles"))), str(Words("上限に対して", "of the bound")))  # fmt: skip
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    for name, shown, spread, reached in _rows(result):
        table.add_row(name, shown, spread, reached)
    console.print(table)
    console.print(_told_energy(result), markup=False, highlight=False, soft_wrap=True)
    for warning in result["warnings"]:
        console.print(f"{Words('注意', 'note')}: {warning}", markup=False, highlight=False, soft_wrap=True)


def _told_energy(result: dict[str, Any]) -> str:
    """A line for a table of prices."""
    energy = result["energy"]
    if energy is None:
        return str(
            Words(
                "電力：この計算機は教えません。--watts で指定すると、料金表に書ける形で出します。",
                "power: this machine does not tell; with --watts it is shown as a table of prices takes it",
            )
        )
    amounts = f"input: {energy['input_kwh']:.4g}, cached: 0, output: {energy['output_kwh']:.4g}"
    line = f"{energy['served']}: [{{from: {date.today()}, currency: kWh, {amounts}}}]"
    return f"{Words('電力', 'power')} {energy['watts']:.0f} W ({energy['how']})  {line}"


def _rows(result: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    lengths, reached = result["lengths"], result["reached"]
    memory, matrix = Words("読み出しの", "of reading"), Words("行列の積の", "of the product")
    detail = {
        "decode_tokens_per_second": ("", f"{memory} {reached['decode_mbu']:.0%}"),
        "batch_tokens_per_second": (
            f" ({lengths['streams']})",
            f"{memory} {reached['batch_mbu']:.0%}, {matrix} {reached['batch_mfu']:.0%}",
        ),
        "prefill_tokens_per_second": (f" ({lengths['long']})", f"{matrix} {reached['prefill_mfu']:.0%}"),
        "first_token_seconds": (f" ({lengths['prompt']})", "—"),
    }
    for name, (more, share) in detail.items():
        found = result["speeds"][name]
        factor, unit, form = (1e3, "ms", ",.1f") if name.endswith("seconds") and name.startswith("first") else (1.0, "tok/s", ",.0f")
        value, low, high = (format(found[key] * factor, form) for key in ("median", "low", "high"))
        yield f"{NAMES[name]}{more}", f"{value} {unit}", f"{low} – {high}", share


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """On a terminal a bar on standard error; elsewhere a line each time all were measured once."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task, done = progress.add_task("", total=total), 0

    def advance(name: str) -> None:
        nonlocal done
        done += 1
        progress.update(task, description=str(NAMES[name]), completed=done - 1)
        if not console.is_terminal and name == BOUNDS[0]:
            turn, rounds = done // len(NAMES), total // len(NAMES) - 1
            told = Words(f"{rounds} 回のうち {turn} 回目", f"round {turn} of {rounds}") if turn else Words("慣らし", "warming up")
            console.print(str(told), markup=False, highlight=False)

    with progress:
        yield advance


def _load() -> float | None:
    """Of the last minute; None where the system does not say."""
    import os  # noqa: PLC0415

    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
