"""The pictures of the guide, drawn from the code they speak of: `python docs/pictures.py` writes docs/pictures/*.svg.

In: `OptimSettings.factor`, `sampling.distribution`, the position parts, the record of benchmarks/long_context.py, and
docs/pictures/tokenizers.jsonl, which is what `tsuzuri tokenizer compare sample/pretrain --json` printed. Out: each picture in Japanese and in English, the same bytes
every time. It trains nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch

from tsuzuri.engine.sampling import Sampling, distribution
from tsuzuri.errors import Words
from tsuzuri.model.parts import alibi, rotary
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape
from tsuzuri.recipe.chart import line_chart
from tsuzuri.train.optim import OptimSettings

PLACE = Path(__file__).parent / "pictures"
MEASURED = PLACE / "tokenizers.jsonl"
LONG = Path(__file__).parents[1] / "benchmarks" / "results" / "long_context.json"
LOGITS = (4.0, 3.4, 3.1, 2.6, 2.4, 1.9, 1.5, 1.2, 0.6, 0.1, -0.4, -1.0)  # twelve candidates, the best first

READ = Words("読んだトークン（千）", "tokens read (thousands)")
GONE_FAR = {  # of benchmarks/long_context.py: the lines that differ; those of the rotary scalings lie on that of full attention
    "full": Words("すべてを見る", "sees everything"),
    "yarn": Words("すべてを見る（yarn）", "sees everything (yarn)"),
    "window and full": Words("窓とすべてを一層ずつ", "one layer of each"),
    "window": Words("窓 1,024", "window of 1,024"),
    "mamba2": Words("mamba2（状態）", "mamba2 (a state)"),
}

Point = tuple[float, float]
Drawing = tuple[Words, Words, Words, dict[Words, list[Point]]]  # title, x, y, the lines


def main() -> None:
    PLACE.mkdir(exist_ok=True)
    for name, text in drawn().items():
        (PLACE / name).write_text(text, encoding="utf-8")


def drawn() -> dict[str, str]:
    """File name -> SVG."""
    found = {}
    for name, draw in PICTURES.items():
        title, x, y, lines = draw()
        for code in Words._fields:
            series = {getattr(words, code): line for words, line in lines.items()}
            found[f"{name}-{code}.svg"] = line_chart(getattr(title, code), getattr(x, code), getattr(y, code), series)
    return found


def schedules() -> Drawing:
    """What the learning rate is multiplied by at each step."""
    steps = 780
    lines: dict[Words, list[Point]] = {}
    for schedule, ja in (("wsd", "wsd（既定）"), ("cosine", "cosine"), ("constant", "constant")):
        settings = OptimSettings(schedule=schedule)  # type: ignore[arg-type]
        lines[Words(ja, ja.replace("（既定）", " (default)"))] = [(step, settings.factor(step, steps)) for step in range(0, steps, 3)]
    return (
        Words("学習率にかける係数（780 ステップの場合）", "What the learning rate is multiplied by (780 steps)"),
        Words("ステップ", "step"),
        Words("係数", "factor"),
        lines,
    )


def temperature() -> Drawing:
    """Twelve logits under five temperatures."""
    logits = torch.tensor(LOGITS)
    lines: dict[Words, list[Point]] = {}
    for degree in (0.3, 0.7, 1.0, 1.5, 2.0):
        found = distribution(logits, Sampling(temperature=degree)).tolist()
        name = f"temperature {degree:g}"
        lines[Words(name, name)] = [(rank, share) for rank, share in enumerate(found, 1)]
    return (
        Words(
            "同じ 12 候補の確率。温度が低いほど一位に集まる",
            "The same twelve candidates: the lower the temperature, the more the first one gets",
        ),
        Words("順位", "rank"),
        Words("確率", "probability"),
        lines,
    )


def bytes_per_token() -> Drawing:
    """The four kinds over the size of the vocabulary, as measured; what the text supports at one size alone is a level."""
    rows = [json.loads(line) for line in MEASURED.read_text(encoding="utf-8").splitlines()]
    sizes = sorted({row["vocab_size"] / 1000 for row in rows})
    found: dict[str, list[Point]] = {}
    for row in rows:
        if "bytes_per_token" in row:
            found.setdefault(row["kind"], []).append((row["vocab_size"] / 1000, row["bytes_per_token"]))
    lines: dict[Words, list[Point]] = {}
    for kind, points in found.items():
        if len(points) > 1:
            lines[Words(kind, kind)] = points
        else:
            (size, value), *_ = points
            lines[Words(f"{kind}（語彙 {size * 1000:,.0f}）", f"{kind} (vocabulary {size * 1000:,.0f})")] = [
                (each, value) for each in sizes
            ]
    return (
        Words("1 トークンが運ぶバイト数（学習に使っていない文章で）", "Bytes that one token carries (text not trained on)"),
        Words("語彙（千）", "vocabulary (thousands)"),
        Words("バイト／トークン", "bytes/token"),
        lines,
    )


def long_memory() -> Drawing:
    """What is kept of a long text, as measured."""
    title = Words("10 万トークンを読む間に残しているもの", "What is kept while 100,000 tokens are read")
    return title, READ, Words("MiB", "MiB"), _long("bytes", 2**20)


def long_time() -> Drawing:
    """How long the next token takes after a long text, as measured."""
    title = Words("次の一語にかかる時間", "Time of the next token")
    return title, READ, Words("ミリ秒", "ms"), _long("decode_ms", 1)


def _long(field: str, unit: float) -> dict[Words, list[Point]]:
    rows = {row["model"]: row["marks"] for row in json.loads(LONG.read_text(encoding="utf-8"))["rows"]}
    return {words: [(mark["tokens"] / 1000, mark[field] / unit) for mark in rows[name]] for name, words in GONE_FAR.items()}


def distance() -> Drawing:
    """How much of a score is left at a distance: rotary for a query equal to its key, ALiBi as the factor exp(-slope · distance)."""
    apart = range(129)
    shape = Shape(
        vocab_size=8, hidden_size=256, num_hidden_layers=1, num_attention_heads=4, intermediate_size=8, max_position_embeddings=len(apart)
    )
    place = rotary.Part(shape)(Causal(torch.arange(len(apart))))
    assert place.cos is not None and place.sin is not None
    turned = rotary.rotate(torch.ones(len(apart), 1, shape.head_size), place.cos, place.sin).squeeze(1)  # (T, E)
    similar = (turned.double() @ turned[0].double() / shape.head_size).tolist()  # a sum in another order draws the same picture
    lines = {Words("rotary：q · k（同じ向き）", "rotary: q · k (same content)"): list(zip(map(float, apart), similar, strict=True))}
    for head, slope in enumerate(alibi.slopes(4, torch.device("cpu")).tolist(), 1):
        name = Words(f"alibi：ヘッド {head}（傾き 1/{round(1 / slope)}）", f"alibi: head {head} (slope 1/{round(1 / slope)})")
        lines[name] = [(far, math.exp(-slope * far)) for far in apart]
    return (
        Words("離れるほど効きが弱まる：距離 0 を 1 とした大きさ", "The further away, the weaker: size relative to distance 0"),
        Words("トークンの距離", "distance in tokens"),
        Words("大きさ", "size"),
        lines,
    )


PICTURES: dict[str, Callable[[], Drawing]] = {
    "schedules": schedules,
    "temperature": temperature,
    "bytes-per-token": bytes_per_token,
    "distance": distance,
    "long-memory": long_memory,
    "long-time": long_time,
}

if __name__ == "__main__":
    main()
