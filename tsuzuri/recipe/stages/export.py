"""他のソフトウェアでも読めるモデルとして書き出し、読み直して確かめます。 / Write the model for others and check what was written."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tsuzuri import device
from tsuzuri.chat.labels import is_encoder
from tsuzuri.errors import ConfigError, Words
from tsuzuri.model import weights
from tsuzuri.recipe import hand_over
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages import _task
from tsuzuri.recipe.stages.sft import newest_model, write_extras
from tsuzuri.text import examples, fast
from tsuzuri.train import loop

NEEDS = ()
TRAINED = ("pretrain", "sft", "masked", "classify", "tag", "extract", "embed")  # the last of them in the recipe is what is written
MANIFEST = "data_manifest.json"
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


def check(settings: Settings, before: Mapping[str, Any]) -> None:
    """Something was trained."""
    if not {*TRAINED} & {*before}:
        raise ConfigError(
            Words("段階「export」があります。", "There is the stage 'export'."),
            found=Words("その前に、学習する段階がありません。", "No stage before it trains a model."),
            todo=Words("pretrain か masked を stages に加えてください。", "Add pretrain or masked to stages."),
        )
    absent = [name for name in ("corpus", "tokenizer") if name not in before]
    if absent and started_from(before) is None:
        raise loop.wrong(
            Words(f"段階「export」の前に「{absent[0]}」が要ります。", f"The stage 'export' needs '{absent[0]}' before it in stages.")
        )


def started_from(sections: Mapping[str, Any]) -> Path | None:
    """The finished encoder that the last task began with, if it began so."""
    last = [section for name, section in sections.items() if name in TRAINED][-1]
    return Path(last.start) if isinstance(last, _task.Settings) and last.start is not None else None


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    last = [name for name in context.results if name in TRAINED][-1]
    source = newest_model(context.before(last))
    extras = context.directory / "extras"
    extras.mkdir(exist_ok=True)
    begin = started_from(context.recipe.sections)
    tokenizer = fast.load(begin or context.before("tokenizer") / "files")
    if is_encoder(weights.load(source)):
        tokenizer.save(extras)
    else:
        write_extras(extras, tokenizer)
    beside = {name: extras / name for name in hand_over.EXTRAS}
    beside[MANIFEST] = _manifest(context)
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


def _manifest(context: Context) -> Path:
    """What the text is made of: the run's own corpus, or what the encoder it began with says."""
    begin = started_from(context.recipe.sections)
    return context.before("corpus") / "text" / "manifest.json" if begin is None else begin / MANIFEST


def card(context: Context) -> str:
    """The model card: what it is, what it was made from, how well it does, what it cannot do."""
    begin = started_from(context.recipe.sections)
    lines = [
        "---",
        "language: ja",
        f"pipeline_tag: {_pipeline(context)}",
        "---",
        f"# {context.recipe.head.name}",
        "",
        *(_made(context) if begin is None else _taught(context, begin)),
        *_evaluated(context),
        "",
        "| 出典 / source | 利用条件 / licence |",
        "|---|---|",
    ]
    return "\n".join([*lines, *(f"| {source} | {licence} |" for source, licence in _sources(context)), ""])


def _sources(context: Context) -> list[tuple[str, str]]:
    """(source, licence) of the text, and of the examples of the task."""
    path = _manifest(context)
    manifest = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {(str(s.get("source", "")), str(s.get("licence", ""))) for s in manifest.get("sources", [])}
    for section in (
        section for name, section in context.recipe.sections.items() if name in TRAINED and isinstance(section, _task.Settings)
    ):
        found |= examples.origins(_task.read(section.inputs))
    return sorted(found)


def _made(context: Context) -> list[str]:
    """Of a model whose training began here."""
    corpus, generates = context.results["corpus"], "pretrain" in context.results
    listed = _manifest(context).read_bytes()
    body = context.results["pretrain" if generates else "masked"]
    seed = context.recipe.sections["pretrain" if generates else "masked"].seed
    return [
        *(_writes(body) if generates else _reads(body["parameters"], context)),
        f"- 学習したトークン / trained tokens: {body['tokens']:,}（種 / seed {seed}）",
        f"- 文章 / text: {corpus.get('train_documents', '?')} documents, {body['read_bytes']:,} bytes read",
        f"- data_manifest.json: SHA-256 {hashlib.sha256(listed).hexdigest()}",
        f"- 計算機 / hardware: {hand_over.hardware()}, {body['train_seconds']:,.0f} s",
    ]


def _taught(context: Context, begin: Path) -> list[str]:
    """Of a task that was taught to a finished encoder."""
    last = [name for name in context.results if name in TRAINED][-1]
    found, weight = context.results[last], (begin / weights.WEIGHTS).read_bytes()
    return [
        *_reads(found["parameters"], context),
        f"- 元のエンコーダ / began with: {begin.resolve().name}, {weights.WEIGHTS} SHA-256 {hashlib.sha256(weight).hexdigest()}",
        f"- 学習した行 / rows learned from: {found['rows']:,}, {found['steps']:,} steps（種 / seed {found['seed']}）",
        f"- 計算機 / hardware: {hand_over.hardware()}, {found['train_seconds']:,.0f} s",
    ]


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


def _pipeline(context: Context) -> str:
    kinds = {
        "classify": "text-classification",
        "tag": "token-classification",
        "extract": "question-answering",
        "embed": "sentence-similarity",
    }
    last = [name for name in context.results if name in TRAINED][-1]
    return kinds.get(last, "fill-mask" if last == "masked" else "text-generation")


def _writes(pretrain: dict[str, Any]) -> list[str]:
    return [
        f"日本語の小さな言語モデルです（{pretrain['parameters'] / 1e6:.1f} M パラメータ）。tsuzuri の設定ファイルから作られました。",
        "答えには誤りが含まれます。事実の確認や判断には使えません。",
        "",
        "A small Japanese language model, made from a recipe of tsuzuri. Its answers contain errors: do not rely on it for facts or decisions.",
        "",
        f"- 検証用文章でのビット毎バイト / bits per byte: {pretrain['bits']['bits_per_byte']:.4f}",
    ]


def _reads(parameters: int, context: Context) -> list[str]:
    """Of an encoder: its scores, each beside its rivals'."""
    lines = [
        f"日本語の文章を読む小さなエンコーダです（{parameters / 1e6:.1f} M パラメータ）。tsuzuri の設定ファイルから作られました。",
        "誤りがあります。人についての判断には使えません。",
        "",
        "A small Japanese encoder, made from a recipe of tsuzuri. It makes errors: do not use it for decisions about people.",
        "",
    ]
    for found in (found for name, found in context.results.items() if name in TRAINED and "score" in found):
        rows = {"このモデル / this model": found["score"], **found["rivals"]}
        lines += [
            f"- {found['metric']}（{name}）: {r['value']:.3f} ({r['interval'][0]:.3f}–{r['interval'][1]:.3f})" for name, r in rows.items()
        ]
    return lines
