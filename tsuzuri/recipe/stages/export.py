"""他のソフトウェアでも読めるモデルとして書き出し、読み直して確かめます。 / Write the model for others and check what was written."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tsuzuri import device
from tsuzuri import directory as directories
from tsuzuri.errors import FormatError, Words
from tsuzuri.model import weights
from tsuzuri.model.past import Causal
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages.sft import newest_model, write_extras
from tsuzuri.text import fast

NEEDS = ("corpus", "tokenizer", "pretrain")


@dataclass(frozen=True, slots=True)
class Settings:
    dtype: str = "bfloat16"
    tolerance: float = 0.0  # largest |difference| of logits between what was trained and what was read back


def inputs(settings: Settings) -> list[Path]:
    return []


def run(settings: Settings, context: Context) -> dict[str, Any]:
    last = "sft" if "sft" in context.results else "pretrain"
    source = newest_model(context.before(last))
    tokenizer = fast.load(context.before("tokenizer") / "files")
    trained = weights.load(source, dtype=device.dtype(settings.dtype))
    target = context.recipe.out / "model"
    with directories.whole(target) as temporary:
        weights.save(trained, temporary, context.recipe.sections["pretrain"].model.family)
        write_extras(temporary, tokenizer)
        shutil.copy(context.before("corpus") / "text" / "manifest.json", temporary / "data_manifest.json")
        (temporary / "README.md").write_text(card(context), encoding="utf-8")
        difference = _difference(trained, temporary, context.recipe.head.seed)
        if not difference <= settings.tolerance:
            raise FormatError(
                Words("書き出したモデルを読み直しました。", "Reading back the exported model."),
                found=Words(f"ロジットが {difference:.2e} ずれています。", f"Logits differ by {difference:.2e}."),
                todo=Words("不具合です。学習したモデルは残っています。", "This is a defect; the trained model is still there."),
            )
    size = sum(path.stat().st_size for path in target.iterdir())
    return {"directory": str(target), "bytes": size, "logits_difference": difference, "dtype": settings.dtype}


@torch.inference_mode()
def _difference(trained: torch.nn.Module, written: Path, seed: int) -> float:
    """Largest |Δ logit| on random ids, in the stored precision."""
    again = weights.load(written)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(again.shape.vocab_size, (64,), generator=generator)
    past = Causal(torch.arange(64))
    return float((trained(ids, past).float() - again(ids, past).float()).abs().max())


def card(context: Context) -> str:
    """The model card: what it is, what it was made from, how well it does, what it cannot do."""
    pretrain, corpus = context.results["pretrain"], context.results["corpus"]
    manifest = json.loads((context.before("corpus") / "text" / "manifest.json").read_text(encoding="utf-8"))
    head = context.recipe.head
    lines = [
        "---",
        "language: ja",
        "pipeline_tag: text-generation",
        "---",
        f"# {head.name}",
        "",
        f"日本語の小さな言語モデルです（{pretrain['parameters'] / 1e6:.1f} M パラメータ）。tsuzuri の recipe から作られました。",
        "誤りを含む答えをします。事実の確認や判断には使えません。",
        "",
        f"- 検証用文章でのビット毎バイト / bits per byte: {pretrain['bits']['bits_per_byte']:.4f}",
        f"- 学習したトークン / trained tokens: {pretrain['tokens']:,}（種 / seed {head.seed}）",
        f"- 文章 / text: {corpus.get('train_documents', '?')} documents, {pretrain['read_bytes']:,} bytes read",
        "",
        "| 出典 / source | 利用条件 / licence |",
        "|---|---|",
    ]
    rows = sorted({(str(s.get("source", "")), str(s.get("licence", ""))) for s in manifest.get("sources", [])})
    return "\n".join([*lines, *(f"| {source} | {licence} |" for source, licence in rows), ""])
