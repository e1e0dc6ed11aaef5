"""Bring what recipes/encoder.yaml made into the form that travels with the code: `sample/encoder/`, in 8 bits, with where it comes from.

    python sample/make_encoder.py --model DIR --log metrics.jsonl [--out DIR]    DIR: the folder `model` of the run

What 8 bits cost is measured on hidden characters of the sample's text, and written into the card.
"""

from __future__ import annotations

import argparse
import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsuzuri import directory
from tsuzuri.evals.encoders import guessed
from tsuzuri.model import weights
from tsuzuri.model.adapt import quantize
from tsuzuri.recipe import hand_over
from tsuzuri.recipe.stages.masked import hidden, said, scripts_of
from tsuzuri.text import fast, framing
from tsuzuri.text.corpus.read import files, read
from tsuzuri.train.objectives import masked

HERE = Path(__file__).parent
DOCUMENTS, ROWS = 400, 64  # of the sample
MOST = 3  # names in a row of the card
LICENCE = "cc-by-sa-4.0"  # what the share-alike parts of its text (CC BY-SA 3.0 or later) ask of what is made of them


class Some:
    """The ids of the first documents of the sample."""

    def __init__(self, tokenizer: fast.FastTokenizer) -> None:
        texts = islice(read(files([HERE / "pretrain"])), DOCUMENTS)
        self.ids = [np.array(tokenizer.encode(document.text)) for document in texts]
        self.lengths = np.array([len(ids) for ids in self.ids])

    def document(self, index: int) -> Any:
        return self.ids[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE / "encoder")
    given = parser.parse_args()
    tokenizer, model = fast.load(given.model), weights.load(given.model, dtype=torch.float32)
    choices = masked.Settings(model.context_length, 0.3, whole_words=True)
    objective = masked.Objective(choices, Some(tokenizer), framing.frame(tokenizer), tokenizer.vocab_size, scripts_of(tokenizer))
    batch = hidden(objective, ROWS)
    before = said(model, batch)
    record = quantize.quantize(model, "q8_0")
    after, there = said(model, batch), batch.targets.numpy() >= 0
    scores = [guessed(batch.targets.numpy(), each).value for each in (before, after)]
    lines = [
        f"- 重み / weights: {record.form}, {record.bytes_after / 1e6:.1f} MB（{record.bytes_before / 1e6:.1f} MB の float32 から / from float32）",
        f"- 見本の文章で隠した {there.sum():,} 文字 / hidden characters of the sample's text: 縮める前 / before {scores[0]:.4f}, "
        f"8 ビット / in 8 bits {scores[1]:.4f}, 同じ答え / the same guess {float((before == after)[there].mean()):.2%}",
    ]
    with directory.whole(given.out) as temporary:
        weights.save(model, temporary, weights.family_of(given.model).MODEL_TYPE)
        for name in (*hand_over.EXTRAS, "recipe.yaml"):
            if (given.model / name).is_file():
                shutil.copy(given.model / name, temporary / name)
        (temporary / "metrics.jsonl").write_text(thinned(given.log), encoding="utf-8")
        (temporary / "README.md").write_text(card(given.model, lines), encoding="utf-8")


def thinned(log: Path) -> str:
    """Every twentieth step, and those that were measured."""
    steps = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line]
    kept = [step for step in steps if step["step"] % 20 == 0 or "validation_loss" in step or step["step"] == 1]
    return "".join(json.dumps(step) + "\n" for step in kept)


def card(model: Path, lines: list[str]) -> str:
    """The run's own card, what was done to it here, and whom its text is from."""
    own = (model / "README.md").read_text(encoding="utf-8").split(hand_over.MARK, 1)[0].rstrip("\n")
    listed = json.loads((model / "data_manifest.json").read_text(encoding="utf-8"))["sources"]
    rows = [
        f"| {linked(one['source'])} | {one['licence']} | {one['documents']:,} | {one['bytes'] / 1e6:.1f} | {credited(one)} |"
        for one in listed
    ]
    return "\n".join(
        [
            own.replace("language: ja", f"language: ja\nlicense: {LICENCE}", 1),
            "",
            "## 8 ビット / in 8 bits",
            "",
            *lines,
            "",
            "`python sample/make_encoder.py` が作りました。学習の記録は metrics.jsonl です。 / Made by that script; metrics.jsonl is the log.",
            "",
            "## 出典と利用条件 / attribution",
            "",
            "学習に使った文章には CC BY-SA のものが含まれます。この重みを配るときは、下の表を添え、CC BY-SA 4.0 で配ってください。文章そのものは"
            "含みません。",
            "",
            "Some of the text it learned from is under CC BY-SA. Pass these weights on under CC BY-SA 4.0, with the table below. They do not",
            "contain the text itself.",
            "",
            "| 出典 / source | 利用条件 / licence | 文書 / documents | MB | 著作者の表示 / credit |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def linked(source: str) -> str:
    before, at, name = source.partition("github:")
    return f"{before}[{name}](https://github.com/{name})" if at else source


def credited(source: dict[str, Any]) -> str:
    """A few by name; of many, where they are. The public domain asks for none."""
    names = [] if source["licence"].startswith("PD") else source["credit"]
    return "、".join(names) or "–" if len(names) <= MOST else f"{len(names)} 件 / works: data_manifest.json"


if __name__ == "__main__":
    main()
