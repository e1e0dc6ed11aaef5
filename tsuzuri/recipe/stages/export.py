"""他のソフトウェアでも読めるモデルとして書き出し、読み直して確かめます。 / Write the model for others and check what was written."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tsuzuri import device
from tsuzuri.errors import Words
from tsuzuri.recipe import hand_over
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages.sft import newest_model, write_extras
from tsuzuri.text import fast
from tsuzuri.train import loop

NEEDS = ("corpus", "tokenizer", "pretrain")
LEAVES = ("model",)  # outside its own folder, in that of the run


@dataclass(frozen=True, slots=True)
class Settings:
    dtype: str | None = None  # None: that of training
    tolerance: float | None = None  # largest mean divergence (nats) between what was trained and what was read back; None: by dtype

    def __post_init__(self) -> None:
        if self.dtype is not None:
            device.dtype(self.dtype)
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise loop.wrong(
                Words(
                    f"tolerance が {self.tolerance} です。0 以上の数が要ります。", f"tolerance is {self.tolerance}; it must be at least 0."
                )
            )


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    last = "sft" if "sft" in context.results else "pretrain"
    source = newest_model(context.before(last))
    extras = context.directory / "extras"
    extras.mkdir(exist_ok=True)
    write_extras(extras, fast.load(context.before("tokenizer") / "files"))
    beside = {name: extras / name for name in hand_over.EXTRAS}
    beside["data_manifest.json"] = context.before("corpus") / "text" / "manifest.json"
    target = context.recipe.out / "model"
    handed = hand_over.write(source, target, stored=settings.dtype, tolerance=settings.tolerance, card=card(context), extras=beside)
    found = handed.difference
    return {
        "directory": handed.directory,
        "bytes": handed.bytes,
        "logits_difference": found.logits,
        "difference": asdict(found),
        "dtype": handed.stored,
    }


def card(context: Context) -> str:
    """The model card: what it is, what it was made from, how well it does, what it cannot do."""
    pretrain, corpus = context.results["pretrain"], context.results["corpus"]
    listed = (context.before("corpus") / "text" / "manifest.json").read_bytes()
    manifest = json.loads(listed)
    head = context.recipe.head
    lines = [
        "---",
        "language: ja",
        "pipeline_tag: text-generation",
        "---",
        f"# {head.name}",
        "",
        f"日本語の小さな言語モデルです（{pretrain['parameters'] / 1e6:.1f} M パラメータ）。tsuzuri の設定ファイルから作られました。",
        "答えには誤りが含まれます。事実の確認や判断には使えません。",
        "",
        "A small Japanese language model, made from a recipe of tsuzuri. Its answers contain errors: do not rely on it for facts or decisions.",
        "",
        f"- 検証用文章でのビット毎バイト / bits per byte: {pretrain['bits']['bits_per_byte']:.4f}",
        f"- 学習したトークン / trained tokens: {pretrain['tokens']:,}（種 / seed {context.recipe.sections['pretrain'].seed}）",
        f"- 文章 / text: {corpus.get('train_documents', '?')} documents, {pretrain['read_bytes']:,} bytes read",
        f"- data_manifest.json: SHA-256 {hashlib.sha256(listed).hexdigest()}",
        f"- 計算機 / hardware: {hand_over.hardware()}, {pretrain['train_seconds']:,.0f} s",
        *_evaluated(context),
        "",
        "| 出典 / source | 利用条件 / licence |",
        "|---|---|",
    ]
    rows = sorted({(str(s.get("source", "")), str(s.get("licence", ""))) for s in manifest.get("sources", [])})
    return "\n".join([*lines, *(f"| {source} | {licence} |" for source, licence in rows), ""])


def _evaluated(context: Context) -> list[str]:
    """What the evaluation found, where there was one."""
    if "evaluate" not in context.results:
        return []
    found = context.results["evaluate"]
    closest = found["difference"]
    return [
        f"- 最も強い比較相手 / strongest rival: {found['best_baseline']:.4f} bits per byte; "
        f"差 / difference to {closest['to']}: {closest['bits_per_byte']:+.4f}" + _interval(closest["interval"])
    ]


def _interval(found: list[float] | None) -> str:
    return "" if found is None else f" (95 % {found[0]:+.4f} … {found[1]:+.4f})"
