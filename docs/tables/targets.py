"""What the engine was to reach, beside what the files in benchmarks/results say; and where the time of a token goes.

A row is met where the worst of its medians is. A file or a comparison that is not there is told as not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tables._shared import RESULTS, Parts, machine, read, table

Values = dict[str, float]  # by what was measured
NAMES = {"20m": "20 M", "110m": "110 M", "0.5b": "547 M"}


@dataclass(frozen=True)
class Target:
    ja: str
    en: str
    bound: float
    beyond: float | None  # the moonshot
    files: tuple[str, ...]
    found: Callable[[dict[str, Any]], Values]
    form: str = ".2f"
    below: bool = False  # the bound is the most, not the least

    def missed(self, values: Values) -> tuple[str, float] | None:
        """The worst value and by what share of the bound it falls short."""
        name, value = (max if self.below else min)(values.items(), key=lambda each: each[1])
        short = value - self.bound if self.below else self.bound - value
        return (name, short / self.bound) if short > 0 else None


def ratio(peer: str, what: str = "decode") -> Callable[[dict[str, Any]], Values]:
    def found(record: dict[str, Any]) -> Values:
        size = NAMES[record["size"]]
        pairs = {name.partition(" against ")[0]: pair for name, pair in record["pairs"].items() if name.endswith(peer)}
        return {f"{size} {form}": pair[what]["ratio"]["median"] for form, pair in pairs.items()}

    return found


def share_of_reading(record: dict[str, Any]) -> Values:
    return {f"{NAMES[record['size']]} {name.split()[0]}": pair["decode"]["mbu"] for name, pair in record["pairs"].items()}


def served(*path: str, less: float = 0) -> Callable[[dict[str, Any]], Values]:
    def found(record: dict[str, Any]) -> Values:
        values = {}
        for name, row in record["rows"].items():
            size, form = name.split()
            for key in path:
                row = row[key]
            values[f"{NAMES[size]} {form}"] = row["ratio"]["median"] - less
        return values

    return found


def narrowed(form: str, what: str) -> Callable[[dict[str, Any]], Values]:
    return lambda record: {form: record["rows"][form]["native"][what]}


def started(record: dict[str, Any]) -> Values:
    return {f"{NAMES[name.split()[0]]} {name.split()[1]}": row["first token"]["median"] for name, row in record["rows"].items()}


def trained(record: dict[str, Any]) -> Values:
    return {f"{record['parameters'] / 1e6:.0f} M": record["rows"]["compiled"]["mfu"]}


def together(record: dict[str, Any]) -> Values:
    pair = record["pairs"].get("recorded against generate_batch", {"failed": ""})
    return {} if "failed" in pair else {NAMES[record["size"]]: pair["ratio"]["median"]}


BOTH = ("bf16", "fp32")
SMALL = tuple(f"decode-{size}-{kind}.json" for kind in BOTH for size in ("20m", "110m"))
HALF = tuple(f"decode-0.5b-{kind}.json" for kind in BOTH)
SERVING = tuple(f"serving-{kind}.json" for kind in BOTH)

TARGETS = (
    Target("生成の速さ、同じビット数の llama.cpp 比", "speed of generation, against llama.cpp at equal bits", 1.3, 2, SMALL, ratio("llama.cpp")),
    Target("生成の速さ、transformers（bfloat16）比", "speed of generation, against transformers in bfloat16", 8, 20, SMALL, ratio("transformers bfloat16")),
    Target("生成の速さ、llama.cpp 比", "speed of generation, against llama.cpp", 1, 1.2, HALF, ratio("llama.cpp")),
    Target("そのとき、メモリの読み出し速度に対して", "the same, as a share of the rate at which memory is read", 0.8, 0.9, HALF, share_of_reading, ".0%"),
    Target("入力を読む速さ、llama.cpp 比", "speed of reading a prompt, against llama.cpp", 1, 2, (*SMALL, *HALF), ratio("llama.cpp", "prefill")),
    Target("16 件を一緒に、一件ずつの llama.cpp 比", "16 texts at once, against llama.cpp one by one", 3, 8, SERVING, served("streams")),
    Target("最初の一語、入力の 9 割が既知のとき", "first token, 90 % of the prompt known", 5, 8, SERVING, served("prefix")),
    Target("使い回しの備えの費用、何も既知でないとき", "cost of being able to reuse, nothing known", 0.01, None, SERVING, served("prefix_cost", less=1), "+.1%", below=True),
    Target("ほかのプログラムが 1 コアを使うときに残る速さ", "speed left beside a busy program", 0.4, None, SERVING, served("neighbour"), ".0%"),
    Target("起動から最初の一語まで（秒）", "from nothing to the first token, seconds", 1.5, None, ("start.json",), started, below=True),
    Target("8 ビットで最有力の語が同じ割合", "the same most probable token in 8 bits", 0.99, None, ("quantization.json",), narrowed("q8_0", "agreement"), ".1%"),
    Target("8 ビットのパープレキシティの増加", "perplexity in 8 bits", 0.005, None, ("quantization.json",), narrowed("q8_0", "perplexity"), "+.2%", below=True),
    Target("4 ビットのパープレキシティの増加", "perplexity in 4 bits", 0.03, None, ("quantization.json",), narrowed("q4_0", "perplexity"), "+.2%", below=True),
    Target("64 件を一緒に、transformers の generate_batch 比", "64 texts at once, against transformers' generate_batch", 2, 4, ("accelerator-serving.json",), together),
    Target("学習、行列の積の速さに対して（MFU）", "training, as a share of the matrix rate (MFU)", 0.45, 0.55, ("accelerator-training.json",), trained, ".0%"),
)  # fmt: skip


def targets(language: str) -> str:
    ja = language == "ja"
    heads = ("目標", "下限・上限（野心）", "測定", "計算機", "") if ja else ("aim", "bound (moonshot)", "measured", "machine", "")
    return table(heads, [row for target in TARGETS for row in rows_of(target, ja)])


def rows_of(target: Target, ja: bool) -> list[tuple[str, ...]]:
    """One for each machine on which it was measured."""
    by_machine: dict[str, Values] = {}
    for record in (read(name) for name in target.files if (RESULTS / name).is_file()):
        by_machine.setdefault(machine(record, "ja" if ja else "en"), {}).update(target.found(record))
    aim = target.ja if ja else target.en
    bound = f"{'≤' if target.below else '≥'} {target.bound:{target.form.strip('+').replace('.2f', 'g')}}"
    bound += "" if target.beyond is None else f" ({target.beyond:{target.form.replace('.2f', 'g')}})"
    measured = {where: values for where, values in by_machine.items() if values}
    if not measured:
        return [(aim, bound, "—", "、".join(by_machine) or "—", "**測れていません**" if ja else "**not measured**")]
    return [
        (aim, bound, "; ".join(f"{name} {value:{target.form}}" for name, value in values.items()), where, judged(target, values, ja))
        for where, values in measured.items()
    ]


def judged(target: Target, values: Values, ja: bool) -> str:
    missed = target.missed(values)
    if missed is not None:
        name, short = missed
        return f"**{name} が {short:.0%} 届きません**" if ja else f"**{name} misses it by {short:.0%}**"
    if target.beyond is not None and min(values.values()) >= target.beyond:
        return "達成（野心も）" if ja else "met, the moonshot too"
    return "達成" if ja else "met"


# ── where the time goes

PARTS_OF_A_TOKEN = {
    "queries, keys, values": "問い・鍵・値",
    "attention": "注意",
    "output": "注意の出力",
    "gate, up": "ゲートと上り",
    "down": "下り",
    "head": "ヘッド",
    "whole": "一語全体",
    "reading": "同じ量を読むだけ",
}
IN_ENGLISH = {"whole": "the whole token", "reading": "only reading as many bytes"}


def profile(language: str) -> str:
    """Microseconds of a token and the rate at which its weights come, operation by operation."""
    ja, record = language == "ja", read("step.json")
    rows = record["rows"]
    heads = ["演算" if ja else "operation"]
    for name in rows:
        size, form = name.split()
        heads += [f"{NAMES[size]} {form}, µs", "GB/s"]
    found = []
    for part, in_ja in PARTS_OF_A_TOKEN.items():
        line = [in_ja if ja else IN_ENGLISH.get(part, part)]
        for row in rows.values():
            seconds, size = row["median"][part], row["bytes"][part]
            line += [f"{1e6 * seconds:,.0f}", f"{size / seconds / 1e9:.1f}" if size else ""]
        found.append(line)
    return f"{table(heads, found)}\n\n{machine(record, language)}"


PARTS: Parts = {"targets": targets, "profile": profile}
