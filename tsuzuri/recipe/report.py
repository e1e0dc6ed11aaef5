"""What a run has to show: tables, curves, samples, and planned against actual, for a person and for a program.

In: the results of the stages and the plan. Out: `report.md`, `report.json`, `loss.svg` in the run directory.
"""

from __future__ import annotations

import json
from typing import Any

from tsuzuri.directory import write_text
from tsuzuri.recipe.chart import line_chart, smoothed
from tsuzuri.recipe.plan import Plan
from tsuzuri.recipe.recipe import Recipe
from tsuzuri.train.watch import Journal, clock

SCRIPTS = {"kanji": "漢字", "hiragana": "ひらがな", "katakana": "カタカナ", "latin": "ラテン文字", "digits": "数字", "other": "その他"}


def write(recipe: Recipe, results: dict[str, dict[str, Any]], plan: Plan | None) -> str:
    """Writes the three files; returns the text of `report.md`."""
    out = recipe.out
    journal = Journal(out / "pretrain" / "metrics.jsonl", resumed_at=1 << 62).read() if "pretrain" in results else []
    parts = [f"# {recipe.head.name}：作成の記録 / report", ""]
    for name, section in SECTIONS.items():
        if name in results:
            parts += [*section(results[name]), ""]
    parts += planned_against_actual(plan, results)
    if journal:
        write_text(out / "loss.svg", loss_chart(journal, results))
        parts += ["", "![損失の曲線](loss.svg)", ""]
    text = "\n".join(parts) + "\n"
    write_text(out / "report.md", text)
    record = {"recipe": recipe.values, "plan": plan.as_json() if plan else None, "results": results}
    write_text(out / "report.json", json.dumps(record, ensure_ascii=False, indent=1, default=str))
    return text


def tokenizer_section(found: dict[str, Any]) -> list[str]:
    fertility = found["fertility"]
    heads = [SCRIPTS.get(name, name) for name in fertility]
    return [
        "## トークナイザ（検証用の文章で）",
        "",
        f"| 種類 | 語彙 | 文字／トークン | バイト／トークン | {' | '.join(f'{h}のトークン／文字' for h in heads)} |",
        "|" + "---|" * (4 + len(heads)),
        f"| {found['kind']} | {found['vocab_size']:,} | {found['characters_per_token']:.2f} | {found['bytes_per_token']:.2f} | "
        + " | ".join(f"{value:.2f}" for value in fertility.values())
        + " |",
    ]


def evaluate_section(found: dict[str, Any]) -> list[str]:
    rows = [("**このモデル / this model**", found["network"]), *found["baselines"].items()]
    lines = ["## 検証用文章のビット毎バイト（小さいほどよい）", "", "| モデル | ビット／バイト | 95 % 区間 |", "|---|---|---|"]
    for name, row in rows:
        interval = "–" if row.get("interval") is None else f"{row['interval'][0]:.3f} – {row['interval'][1]:.3f}"
        lines.append(f"| {name} | {row['bits_per_byte']:.4f} | {interval} |")
    verdict = "すべてに勝っています。" if found["beats_all"] else "勝てていない相手があります。"
    lines += ["", f"n-gram と xz は、ネットワークが読んだのと同じ文章から作りました。{verdict}", "", "## 文章の続き", ""]
    lines += [f"- {s['prompt']}**{' '.join(s['text'].split())}**" for s in found["samples"]]
    if found["answers"]:
        lines += ["", "## 会話", ""]
        lines += [f"- 「{s['prompt']}」→ {' '.join(s['text'].split())}" for s in found["answers"]]
    return lines


def corpus_section(found: dict[str, Any]) -> list[str]:
    lines = ["## 文章", ""]
    for key, label in (("train", "学習用"), ("validation", "検証用")):
        documents, size = found.get(f"{key}_documents"), found.get(f"{key}_bytes")
        if documents is not None and size is not None:
            lines.append(f"- {label}：{documents:,} 文書、{size / 1e6:.1f} MB")
    dropped = {k: v for k, v in (found.get("dropped") or {}).items() if v}
    lines += [f"- 除いた文書（{reason}）：{count}" for reason, count in dropped.items()]
    return lines


def pretrain_section(found: dict[str, Any]) -> list[str]:
    epochs = found["tokens"] / max(1, found["read_tokens"])
    return [
        "## 事前学習",
        "",
        f"- {found['parameters'] / 1e6:.2f} M パラメータ、{found['steps']:,} ステップ、{found['tokens'] / 1e6:.2f} M トークン",
        f"- 読んだ文章：{found['read_bytes'] / 1e6:.1f} MB を {epochs:.2f} 回",
        f"- 学習だけの時間：{clock(found['train_seconds'])}（{found['tokens'] / max(1e-9, found['train_seconds']):,.0f} トークン／秒）",
    ]


def sft_section(found: dict[str, Any]) -> list[str]:
    return [
        "## 指示学習",
        "",
        f"- {found['conversations']:,} 件（検証用 {found['held_out']}、長すぎて除いたもの {found['skipped']}）、{found['steps']} ステップ",
        f"- 検証用の損失：{found['validation_loss']:.3f}",
    ]


def export_section(found: dict[str, Any]) -> list[str]:
    return [
        "## 書き出し",
        "",
        f"- `{found['directory']}`（{found['bytes'] / 1e6:.1f} MB）。読み直したロジットの差：{found['logits_difference']:g}",
    ]


SECTIONS = {
    "corpus": corpus_section,
    "tokenizer": tokenizer_section,
    "pretrain": pretrain_section,
    "sft": sft_section,
    "evaluate": evaluate_section,
    "export": export_section,
}


def planned_against_actual(plan: Plan | None, results: dict[str, dict[str, Any]]) -> list[str]:
    """The table a plan is judged by. Energy counts all stages at the planned power."""
    lines = ["## 計画と実際", "", "| 項目 | 計画 | 実際 |", "|---|---|---|"]
    total = sum(float(found["seconds"]) for found in results.values())
    if plan:
        planned = {stage.stage: stage for stage in plan.stages}
        if "pretrain" in results:
            lines.append(f"| パラメータ | {plan.parameters:,} | {results['pretrain']['parameters']:,} |")
        for name, stage in planned.items():
            if name in results:
                guess = "–" if stage.seconds is None else clock(stage.seconds)
                lines.append(f"| {name} の学習時間 | {guess} | {clock(results[name]['train_seconds'])} |")
        kwh = plan.watts * total / 3.6e6
        lines.append(f"| 電力量 kWh（{plan.watts:.0f} W、{plan.watts_how}） | {plan.kwh:.5f} | {kwh:.5f} |")
        lines.append(f"| 電気代 円 | {plan.yen:.3f} | {kwh * (plan.yen / plan.kwh if plan.kwh else 0):.3f} |")
    lines += [f"| {name} 全体 | – | {clock(float(found['seconds']))} |" for name, found in results.items()]
    lines.append(f"| 合計 | – | {clock(total)} |")
    return lines


def loss_chart(journal: list[dict[str, Any]], results: dict[str, dict[str, Any]]) -> str:
    """Training loss in bits per token, and the held-out bits per byte on the way where it was measured."""
    loss = [(float(r["tokens"]) / 1e6, float(r["loss"]) / 0.6931471805599453) for r in journal if "loss" in r]
    series: dict[str, list[tuple[float, float]]] = {"学習損失（ビット／トークン、平滑化）": smoothed(loss)}
    held = [(float(r["tokens"]) / 1e6, float(r["bits_per_byte"])) for r in journal if "bits_per_byte" in r]
    if held:
        final = results["pretrain"]
        series["検証（ビット／バイト）"] = [*held, (final["tokens"] / 1e6, final["bits"]["bits_per_byte"])]
    return line_chart("事前学習の損失", "学習したトークン（百万）", "ビット", series)
