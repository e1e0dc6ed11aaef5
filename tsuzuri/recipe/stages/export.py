"""他のソフトウェアでも読めるモデルとして書き出し、読み直して確かめます。 / Write the model for others and check what was written."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tsuzuri import device
from tsuzuri import directory as directories
from tsuzuri.chat.labels import is_encoder
from tsuzuri.errors import ConfigError, FormatError, Words
from tsuzuri.model import weights
from tsuzuri.model.past import Bidirectional, Causal
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages.sft import newest_model, write_extras
from tsuzuri.text import fast
from tsuzuri.train import loop

NEEDS = ("corpus", "tokenizer")
TRAINED = ("pretrain", "sft", "masked", "classify", "tag", "extract", "embed")  # the last of them in the recipe is what is written
DEFECT = Words(
    "tsuzuri の不具合です。この表示を添えて報告してください。学習したモデルは残っています。",
    "This is a defect of tsuzuri: please report it with this message. The trained model is still there.",
)
ROUNDED = Words(
    "dtype に丸めた分です。それでよければ export.tolerance をこの値より大きくしてください。学習したモデルは残っています。",
    "It comes from rounding to dtype. If that is meant, raise export.tolerance above it. The trained model is still there.",
)
LEAVES = ("model",)  # outside its own folder, in that of the run


@dataclass(frozen=True, slots=True)
class Settings:
    dtype: str | None = None  # None: that of training
    tolerance: float = 0.0  # largest |difference| of logits between what was trained and what was read back: rounding counts

    def __post_init__(self) -> None:
        if self.dtype is not None:
            device.dtype(self.dtype)
        if not 0 <= self.tolerance < math.inf:
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


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    last = [name for name in context.results if name in TRAINED][-1]
    source = newest_model(context.before(last))
    tokenizer = fast.load(context.before("tokenizer") / "files")
    trained = weights.load(source)
    written = trained if settings.dtype is None else weights.load(source, dtype=device.dtype(settings.dtype))
    target = context.recipe.out / "model"
    with directories.whole(target) as temporary:
        weights.save(written, temporary, weights.family_of(source).MODEL_TYPE)
        if is_encoder(written):
            tokenizer.save(temporary)
        else:
            write_extras(temporary, tokenizer)
        shutil.copy(context.before("corpus") / "text" / "manifest.json", temporary / "data_manifest.json")
        (temporary / "README.md").write_text(card(context), encoding="utf-8")
        difference = _difference(trained, temporary)
        if not difference <= settings.tolerance:
            raise FormatError(
                Words("書き出したモデルに問題があります。", "Reading back the exported model."),
                found=Words(f"ロジットが {difference:.2e} ずれています。", f"Logits differ by {difference:.2e}."),
                todo=DEFECT if settings.dtype is None else ROUNDED,
            )
    size = sum(path.stat().st_size for path in target.iterdir())
    stored = str(next(written.parameters()).dtype).removeprefix("torch.")
    return {"directory": str(target), "bytes": size, "logits_difference": difference, "dtype": stored}


@torch.inference_mode()
def _difference(trained: torch.nn.Module, written: Path) -> float:
    """Largest |Δ logit| on random ids, between the model as it was trained and the one that was read back."""
    again = weights.load(written)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(again.shape.vocab_size, (64,), generator=generator)
    ids = ids[: again.shape.max_position_embeddings]
    past = (Bidirectional if is_encoder(again) else Causal)(torch.arange(len(ids)))
    return float((trained(ids, past).float() - again(ids, past).float()).abs().max())


def card(context: Context) -> str:
    """The model card: what it is, what it was made from, how well it does, what it cannot do."""
    corpus, head = context.results["corpus"], context.recipe.head
    manifest = json.loads((context.before("corpus") / "text" / "manifest.json").read_text(encoding="utf-8"))
    body = context.results.get("pretrain") or context.results["masked"]
    seed = context.recipe.sections["pretrain" if "pretrain" in context.results else "masked"].seed
    lines = [
        "---",
        "language: ja",
        f"pipeline_tag: {_pipeline(context)}",
        "---",
        f"# {head.name}",
        "",
        *(_writes(body) if "pretrain" in context.results else _reads(body, context)),
        f"- 学習したトークン / trained tokens: {body['tokens']:,}（種 / seed {seed}）",
        f"- 文章 / text: {corpus.get('train_documents', '?')} documents, {body['read_bytes']:,} bytes read",
        "",
        "| 出典 / source | 利用条件 / licence |",
        "|---|---|",
    ]
    rows = sorted({(str(s.get("source", "")), str(s.get("licence", ""))) for s in manifest.get("sources", [])})
    return "\n".join([*lines, *(f"| {source} | {licence} |" for source, licence in rows), ""])


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


def _reads(masked: dict[str, Any], context: Context) -> list[str]:
    """Of an encoder: its scores, each beside its rivals'."""
    lines = [
        f"日本語の文章を読む小さなエンコーダです（{masked['parameters'] / 1e6:.1f} M パラメータ）。tsuzuri の設定ファイルから作られました。",
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
