"""What narrowing and zeroing weights costs: rows of benchmarks/quantization.py."""

from __future__ import annotations

from typing import Any

from tables._shared import RESULTS, Parts, machine, read

CHANGED = {
    "bfloat16": ("bfloat16 で計算", "computed in bfloat16"),
    "q4_0 calibrated": ("q4_0、較正（AWQ）", "q4_0, calibrated (AWQ)"),
    "30 %": ("30 %、行列ごと", "30 % of each matrix"),
    "50 %": ("50 %、行列ごと", "50 % of each matrix"),
    "50 % by row": ("50 %、行ごと", "50 % of each row"),
    "50 % of all": ("50 %、全体で", "50 % of all together"),
    "50 % calibrated": ("50 %、行ごと、較正（Wanda）", "50 % of each row, calibrated (Wanda)"),
    "2:4 calibrated": ("2:4、較正（Wanda）", "2:4, calibrated (Wanda)"),
}
TARGET = {"agreement": ("一致", "agreement"), "perplexity": ("パープレキシティ", "perplexity")}


def quantised(language: str) -> str:
    """Rows of benchmarks/quantization.py that narrow the weights, and whether the targets are met."""
    ja = language == "ja"
    if not (RESULTS / "quantization.json").is_file():
        return "まだ測っていません。" if ja else "Not measured yet."
    found = read("quantization.json")
    rows = [name for name in found["rows"] if name != "as stored" and name not in found["pruned"]]
    lines = [*_changed(found, rows, ja), "", _measured_on(found, ja), ""]
    for name, met in found["met"].items():
        for what, is_met in met.items():
            bound = found["targets"][name][what]
            values = {how: found["rows"][name][how][what] for how in ("plain", "native") if found["rows"][name].get(how)}
            form = "+.2%" if what == "perplexity" else ".2%"
            limit = f"≥ {bound:.0%}" if what == "agreement" else f"≤ {bound:+.1%}"
            title, word, each = CHANGED.get(name, (name, name)), ("達成", "met") if is_met else ("**未達**", "**missed**"), TARGET[what]
            if ja:
                told = "、".join(f"{_how(how, ja)} {value:{form}}" for how, value in values.items())
                lines.append(f"- {title[0]}：{each[0]} {limit} は{word[0]}（{told}）")
            else:
                told = ", ".join(f"{_how(how, ja)} {value:{form}}" for how, value in values.items())
                lines.append(f"- {title[1]}: {each[1]} {limit} {word[1]} ({told})")
    return "\n".join(lines)


def pruned(language: str) -> str:
    """Rows of benchmarks/quantization.py that zero weights."""
    ja = language == "ja"
    if not (RESULTS / "quantization.json").is_file():
        return "まだ測っていません。" if ja else "Not measured yet."
    found = read("quantization.json")
    share = found["rows"][found["pruned"][-1]]["share_of_all"]
    told = f"半分を 0 にすると、重み全体の {share:.0%} が 0 です。" if ja else f"With half of them zero, {share:.0%} of all weights are."
    return "\n".join([*_changed(found, found["pruned"], ja), "", _measured_on(found, ja) + ("" if ja else " ") + told])


def _changed(found: dict[str, Any], names: list[str], ja: bool) -> list[str]:
    margin = found["margin"]
    heads = ["変え方", "MB", "パープレキシティ", "KL（ナット）", "一致", f"一致（差 > {margin} ナット）", "ネイティブ"] if ja else ["change", "MB", "perplexity", "KL (nats)", "agreement", f"where ahead by > {margin} nats", "native"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|---|---|"]
    for name in names:
        row = found["rows"][name]
        plain, native = row["plain"], row.get("native")
        size = f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else "—"
        cells = [CHANGED.get(name, (name, name))[0 if ja else 1], size, f"{plain['perplexity']:+.2%} ± {plain['perplexity_error']:.2%}"]
        cells += [f"{plain['kl']:.4f}", f"{plain['agreement']:.1%}", f"{plain['agreement_decided']:.1%}"]
        cells.append(f"{native['perplexity']:+.2%}, {native['agreement']:.1%}" if native else "—")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _measured_on(found: dict[str, Any], ja: bool) -> str:
    whole, size, tokens = found["rows"]["as stored"]["plain"]["bits_per_byte"], found["parameters"] / 1e6, found["tokens"]
    where = machine(found, "ja" if ja else "en")
    if ja:
        return (
            f"`make tiny` のモデル（{size:.1f} M、会話を学ぶ前）、検証用 {tokens:,} トークン、そのままで {whole:.3f} ビット／バイト、{where}。"
            f"一位と二位の差が {found['margin']} ナット以下の位置は {found['undecided']:.0%} です。"
        )
    return (
        f"The model of `make tiny` ({size:.1f} M, before conversations), {tokens:,} held-out tokens, {whole:.3f} bits per byte as it is, "
        f"{where}. At {found['undecided']:.0%} of positions the first is ahead of the second by no more than {found['margin']} nats."
    )


def _how(how: str, ja: bool) -> str:
    return {"plain": ("PyTorch", "PyTorch"), "native": ("ネイティブ", "native")}[how][0 if ja else 1]


PARTS: Parts = {"quantised": quantised, "pruned": pruned}
