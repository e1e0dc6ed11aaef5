"""What a run has to show: tables, curves, samples, and planned against actual, for a person and for a program.

In: the results of the stages and the plan. Out: `report.md`, `report.json`, `loss.svg` in the run directory.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tsuzuri.directory import write_text
from tsuzuri.errors import Words
from tsuzuri.recipe.chart import line_chart, smoothed
from tsuzuri.recipe.plan import Plan
from tsuzuri.recipe.recipe import Recipe
from tsuzuri.text.corpus.clean import REASONS
from tsuzuri.train.watch import Journal, clock

SCRIPTS = {
    "kanji": Words("漢字", "kanji"),
    "hiragana": Words("ひらがな", "hiragana"),
    "katakana": Words("カタカナ", "katakana"),
    "latin": Words("英字", "Latin"),
    "digits": Words("数字", "digits"),
    "punctuation": Words("記号", "punctuation"),
    "spaces": Words("空白", "spaces"),
}


ROWS, WIDTH = 9, 32  # of the loss curve in text


RIVALS = {
    "gram token": Words("gram（トークン）", "gram (tokens)"),
    "gram character": Words("gram（文字）", "gram (characters)"),
    "gram byte": Words("gram（バイト）", "gram (bytes)"),
    ", having read the training text": Words("（学習用の文章を読ませた後）", " after the training text"),
}


def write(recipe: Recipe, results: dict[str, dict[str, Any]], plan: Plan | None, *, save: bool = True) -> str:
    """The text of `report.md`; writes the three files, unless the run was only of the first stages: an earlier whole report stays."""
    out = recipe.out
    journal = Journal(out / "pretrain" / "metrics.jsonl", resumed_at=1 << 62).read() if "pretrain" in results else []
    parts = [f"# {recipe.head.name}{Words('：報告', ': report')}", ""]
    for name, section in SECTIONS.items():
        if name in results:
            parts += [*section(results[name]), ""]
    parts += planned_against_actual(plan, results, out)
    if journal:
        parts += ["", *loss_table(journal, results), "", f"![{Words('損失の曲線', 'loss curve')}](loss.svg)"]
    text = "\n".join(parts) + "\n"
    if not save:
        return text
    if journal:
        write_text(out / "loss.svg", loss_chart(journal, results))
    write_text(out / "report.md", text)
    record = {"recipe": recipe.values, "plan": plan.as_json() if plan else None, "results": results}
    write_text(out / "report.json", json.dumps(record, ensure_ascii=False, indent=1))
    return text


def corpus_section(found: dict[str, Any]) -> list[str]:
    lines = [f"## {Words('文章', 'Text')}", ""]
    for key, label in (("train", Words("学習用", "training")), ("validation", Words("検証用", "held out"))):
        documents, size = found[f"{key}_documents"], found[f"{key}_bytes"]
        lines.append(f"- {label}{Words('：', ': ')}{documents:,} {Words('文書', 'documents')}, {size / 1e6:.1f} MB")
    dropped = "、".join(f"{REASONS[reason]} {count:,}" for reason, count in found["dropped"].items())
    return [*lines, f"- {Words('除いた文書', 'left out')}{Words('：', ': ')}{dropped or Words('なし', 'none')}"]


def tokenizer_section(found: dict[str, Any]) -> list[str]:
    fertility = found["fertility"]
    heads = [Words("種類", "kind"), Words("語彙", "vocabulary"), Words("文字／トークン", "characters/token")]
    heads += [Words("バイト／トークン", "bytes/token"), *(SCRIPTS[name] for name in fertility)]
    cells = [found["kind"], f"{found['vocab_size']:,}", f"{found['characters_per_token']:.2f}", f"{found['bytes_per_token']:.2f}"]
    cells += [f"{value:.2f}" for value in fertility.values()]
    title = Words(
        "トークナイザ（検証用の文章で。文字種の列は 1 片あたりのトークン数）", "Tokenizer (held-out text; by script: tokens a piece)"
    )
    return [f"## {title}", "", *table(heads, [cells])]


def pretrain_section(found: dict[str, Any]) -> list[str]:
    epochs = found["tokens"] / max(1, found["read_tokens"])
    speed = found["tokens"] / max(1e-9, found["train_seconds"])
    size, steps, tokens = f"{found['parameters'] / 1e6:.2f} M", f"{found['steps']:,}", f"{found['tokens'] / 1e6:.2f} M"
    read, spent = f"{found['read_bytes'] / 1e6:.1f} MB", clock(found["train_seconds"])
    return [
        f"## {Words('事前学習', 'Pre-training')}",
        "",
        str(Words(f"- {size} パラメータ、{steps} ステップ、{tokens} トークン", f"- {size} parameters, {steps} steps, {tokens} tokens")),
        str(Words(f"- 読んだ文章：{read} を {epochs:.2f} 回", f"- read: {read}, {epochs:.2f} times")),
        str(Words(f"- 学習だけの時間：{spent}（{speed:,.0f} トークン／秒）", f"- training alone: {spent} ({speed:,.0f} tokens/s)")),
    ]


def sft_section(found: dict[str, Any]) -> list[str]:
    loss = found["validation_loss"]
    count, held, skipped, steps = f"{found['conversations']:,}", found["held_out"], found["skipped"], found["steps"]
    return [
        f"## {Words('指示学習', 'Fine-tuning on conversations')}",
        "",
        str(
            Words(
                f"- {count} 件（ほかに検証用 {held} 件。長すぎて除いたもの {skipped} 件）、{steps} ステップ",
                f"- {count} conversations ({held} more held out, {skipped} too long and left out), {steps} steps",
            )
        ),
        f"- {Words('検証用の損失：', 'held-out loss: ')}{'–' if loss is None else format(loss, '.3f')}",
    ]


def evaluate_section(found: dict[str, Any]) -> list[str]:
    rows = [(f"**{Words('このモデル', 'this model')}**", found["network"]), *found["baselines"].items()]
    cells = []
    for name, row in rows:
        interval = "–" if row["interval"] is None else f"{row['interval'][0]:.3f} – {row['interval'][1]:.3f}"
        cells.append([rival(name), f"{row['bits_per_byte']:.4f}", interval])
    title = Words("検証用文章のビット毎バイト（小さいほどよい）", "Bits per byte of held-out text (less is better)")
    lines = [f"## {title}", "", *table([Words("モデル", "model"), Words("ビット／バイト", "bits/byte"), Words("95 % 区間", "95 %")], cells)]
    same = Words("n-gram と xz に読ませたのも、ネットワークが読んだのと同じ文章です。", "n-grams and xz had the text the network has read.")
    won = Words("すべてに勝っています。", "It beats all of them.")
    lost = Words("勝てていない相手があります。", "It does not beat all of them.")
    less = found["difference"]
    low, high = less["interval"] or (math.nan, math.nan)
    paired = Words(
        f"{rival(less['to'])} との差は {less['bits_per_byte']:+.4f}（負なら、このモデルのほうがよい。同じ文書どうしで比べた 95 % 区間 {low:+.4f} – {high:+.4f}）。",
        f"Against {rival(less['to'])}: {less['bits_per_byte']:+.4f} (negative: this model is better; 95 %, the same documents compared: {low:+.4f} – {high:+.4f}).",
    )
    lines += ["", f"{same} {won if found['beats_all'] else lost} {paired}", "", f"## {Words('文章の続き', 'Continuations')}", ""]
    lines += [f"- {s['prompt']}**{' '.join(s['text'].split())}**" for s in found["samples"]]
    if found["answers"]:
        lines += ["", f"## {Words('会話', 'Conversation')}", ""]
        lines += [f"- 「{s['prompt']}」→ {' '.join(s['text'].split())}" for s in found["answers"]]
    return lines


def rival(name: str) -> str:
    """The name of a baseline as the reader says it."""
    for word, said in RIVALS.items():
        name = name.replace(word, str(said))
    return name


def export_section(found: dict[str, Any]) -> list[str]:
    size, difference = f"{found['bytes'] / 1e6:.1f} MB", f"{found['logits_difference']:g}"
    told = Words(f"読み直したロジットの差：{difference}", f"logits read back differ by {difference}")
    return [f"## {Words('書き出し', 'Export')}", "", f"- `{found['directory']}` ({size}) {told}"]


def seq2seq_section(found: dict[str, Any]) -> list[str]:
    count, skipped, size, steps = f"{found['pairs']:,}", found["skipped"], f"{found['parameters'] / 1e6:.2f} M", f"{found['steps']:,}"
    own, other = f"{found['validation_loss']:.3f}", f"{found['shuffled_loss']:.3f}"
    return [
        f"## {Words('文章の組からの学習', 'Learning from pairs')}",
        "",
        str(
            Words(
                f"- {count} 組（長すぎて除いたもの {skipped} 組）、{size} パラメータ、{steps} ステップ",
                f"- {count} pairs ({skipped} too long and left out), {size} parameters, {steps} steps",
            )
        ),
        str(
            Words(
                f"- 検証用の損失：{own}。元の文を入れ替えると {other}",
                f"- held-out loss: {own}; with the sources exchanged: {other}",
            )
        ),
    ]


SYSTEMS = {
    "model": Words("このモデル", "this model"),
    "nearest": Words("最も似た文の訳の引き写し", "the translation of the most similar sentence"),
    "copy": Words("元の文の写し", "the source, copied"),
}


def translation_section(found: dict[str, Any]) -> list[str]:
    title = Words(
        f"翻訳（学習していない {found['sentences']} 文。大きいほどよい）",
        f"Translation ({found['sentences']} held-out sentences; more is better)",
    )
    cells, told = [], []
    for system, name in SYSTEMS.items():
        scores = [found[metric][system] for metric in ("chrF", "BLEU")]
        cells.append([name, *(f"{s['score']:.1f} ({s['interval'][0]:.1f} – {s['interval'][1]:.1f})" for s in scores)])
    for metric in ("chrF", "BLEU"):
        less = found[metric]["difference"]
        low, high = less["interval"]
        told.append(
            str(
                Words(
                    f"- {metric}：「{SYSTEMS[less['to']].ja}」との差 {less['score']:+.1f}（95 % 区間 {low:+.1f} – {high:+.1f}）",
                    f"- {metric}: against '{SYSTEMS[less['to']].en}' {less['score']:+.1f} (95 %: {low:+.1f} – {high:+.1f})",
                )
            )
        )
    shown = [f"- {t['source']} → **{' '.join(t['text'].split())}** ({t['reference']})" for t in found["translations"]]
    return [f"## {title}", "", *table([Words("訳", "system"), "chrF (95 %)", "BLEU (95 %)"], cells), "", *told, "", *shown]


METRICS = {
    "guessed": Words("隠したトークンの正解率", "hidden tokens guessed right"),
    "accuracy": Words("正解率", "accuracy"),
    "entity F1": Words("区間の F1", "F1 of stretches"),
    "character F1": Words("文字の F1", "F1 of characters"),
    "Spearman": Words("順位相関（Spearman）", "rank correlation (Spearman)"),
    "found first": Words("100 件の中から正しい相手を選べた割合", "own partner found among 100"),
    "filled": Words("抜いた文字を当てた割合", "taken-out tokens said right"),
}
TASKS = {
    "masked": Words("隠した語を当てる学習", "Guessing hidden tokens"),
    "span": Words("抜いた区間を書く学習", "Writing spans that were taken out"),
    "classify": Words("課題：分類", "Task: labels of texts"),
    "tag": Words("課題：区間の抽出", "Task: stretches in texts"),
    "extract": Words("課題：答えの抽出", "Task: answers in a context"),
    "embed": Words("課題：文章の近さ", "Task: closeness of texts"),
}


def encoder_section(name: str, found: dict[str, Any]) -> list[str]:
    """What was learned from, then the score beside those of rivals, each with its interval."""
    score = found["score"]
    rows, steps, spent = f"{found['rows']:,}", f"{found['steps']:,}", clock(found["train_seconds"])
    learned = Words(
        f"- 学習：{rows} 行、{steps} ステップ、{spent}、種 {found['seed']}",
        f"- learned from {rows} rows in {steps} steps, {spent}, seed {found['seed']}",
    )
    measured = Words(
        f"- 測定：{METRICS[found['metric']].ja}、学習に使っていない {score['items']:,} 件（大きいほどよい）",
        f"- measured: {METRICS[found['metric']].en}, {score['items']:,} items that it did not learn from (more is better)",
    )
    heads = [Words("だれが", "who"), METRICS[found["metric"]], Words("95 % 区間", "95 %")]
    each = {f"**{Words('このモデル', 'this model')}**": score, **found["rivals"]}
    cells = [[who, f"{one['value']:.3f}", f"{one['interval'][0]:.3f} – {one['interval'][1]:.3f}"] for who, one in each.items()]
    best = max(one["interval"][1] for one in found["rivals"].values())
    apart = Words("区間はどの比較相手とも重なりません。", "Its interval is above all others.")
    close = Words("区間が比較相手と重なるか、下回っています。", "Its interval is not above all others.")
    lines = [f"## {TASKS[name]}", "", str(learned), str(measured), "", *table(heads, cells), ""]
    lines.append(str(apart if score["interval"][0] > best else close))
    if "by_kind" in found:
        lines.append("- " + "、".join(f"{kind} {value:.3f}" for kind, value in found["by_kind"].items()))
    lines += [f"- {one['source']} → **{one['text']}** ({one['reference']})" for one in found.get("filled", [])]
    if "exact" in found:
        lines.append(f"- {Words('全部一致', 'the very answer')}: {found['exact']:.3f}")
    return lines


def vectors_section(found: dict[str, Any]) -> list[str]:
    words, vocabulary, left_out = f"{found['words']:,}", f"{found['vocab_size']:,}", f"{found['left_out']:,}"
    spent, speed, loss = clock(found["train_seconds"]), f"{found['words_per_second']:,.0f}", f"{found['losses'][-1]:.3f}"
    size, method = found["vector_size"], found["method"]
    lines = [
        f"## {Words('単語ベクトル', 'Word vectors')}",
        "",
        f"- {method}, {found['units']}{Words('：', ': ')}`{found['directory']}`",
        str(
            Words(
                f"- 語彙 {vocabulary}、{size} 次元。読んだ語 {words}（ほかに、まれなので除いた語 {left_out}）",
                f"- a vocabulary of {vocabulary}, {size} numbers each; read {words} words ({left_out} more were too rare)",
            )
        ),
        str(
            Words(f"- 学習だけの時間：{spent}（{speed} 語／秒）、損失 {loss}", f"- training alone: {spent} ({speed} words/s), loss {loss}")
        ),
    ]
    if found["partners"]:
        half = f"{statistics.median(found['partners'].values()):g}"
        told = Words(
            f"- 関連する語の組 {len(found['partners'])} 組：相手は、語彙のうち中央値で {half} 番目に近い（でたらめなら {found['vocab_size'] // 2:,} 番目）",
            f"- {len(found['partners'])} pairs of related words: the partner is the {half}th nearest, in the median (by chance: the {found['vocab_size'] // 2:,}th)",
        )
        lines.append(str(told))
    near = [[word, "、".join(other for other, _ in row)] for word, row in found["neighbours"].items()]
    return [*lines, "", *table([Words("語", "word"), Words("近い語", "nearest")], near)] if near else lines


SECTIONS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "corpus": corpus_section,
    "tokenizer": tokenizer_section,
    "seq2seq": seq2seq_section,
    "translation": translation_section,
    "pretrain": pretrain_section,
    "sft": sft_section,
    **{name: partial(encoder_section, name) for name in TASKS},
    "evaluate": evaluate_section,
    "export": export_section,
    "vectors": vectors_section,
}


def table(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(map(str, row))} |" for row in (heads, ["---"] * len(heads), *rows)]


def planned_against_actual(plan: Plan | None, results: dict[str, dict[str, Any]], out: Path) -> list[str]:
    """The table a plan is judged by. Energy counts all stages at the planned power."""
    heads = [Words("項目", "item"), Words("計画", "planned"), Words("実際", "actual")]
    total = sum(float(found["seconds"]) for found in results.values())
    rows: list[list[str]] = []
    if plan:
        made = next((found for found in results.values() if "parameters" in found), None)
        if made:
            rows.append([str(Words("パラメータ", "parameters")), f"{plan.parameters:,}", f"{made['parameters']:,}"])
            peak = Words("（計画は学習の分、実際は全体の最大）", " (planned: of training; actual: peak of the whole process)")
            planned, found = sum(plan.memory.values()), made["peak_bytes"]
            rows.append([f"{Words('メモリ', 'memory')}{peak}", f"{planned / 1e6:,.0f} MB", f"{found / 1e6:,.0f} MB"])
            parts = [*(f"{stage.stage}/checkpoints" for stage in plan.stages), "model"]
            kept = sum(file.stat().st_size for part in parts for file in out.glob(f"{part}/**/*") if file.is_file())
            rows.append([str(Words("途中保存とモデル", "checkpoints and model")), f"{plan.disk / 1e6:,.0f} MB", f"{kept / 1e6:,.0f} MB"])
        for stage in plan.stages:
            if stage.stage in results:
                guess = "–" if stage.seconds is None else clock(stage.seconds)
                rows.append([f"{stage.stage} {Words('の学習', 'steps')}", guess, clock(results[stage.stage]["train_seconds"])])
        kwh = plan.watts * total / 3.6e6
        yen = kwh * (plan.yen / plan.kwh if plan.kwh else 0)
        rows.append([f"{Words('電力量', 'energy')} kWh ({plan.watts:.0f} W, {plan.watts_how})", f"{plan.kwh:.5f}", f"{kwh:.5f}"])
        rows.append([str(Words("電気代（円）", "electricity (yen)")), f"{plan.yen:.3f}", f"{yen:.3f}"])
    rows += [[f"{name} {Words('全体', 'in all')}", "–", clock(float(found["seconds"]))] for name, found in results.items()]
    rows.append([str(Words("合計", "total")), "–", clock(total)])
    return [f"## {Words('計画と実際', 'Planned and actual')}", "", *table(heads, rows)]


def loss_table(journal: list[dict[str, Any]], results: dict[str, dict[str, Any]]) -> list[str]:
    """The curve as a person reads it in a terminal: the smoothed loss at ROWS places, from its least on the left to its most
    on the right, and what was scored there."""
    line = smoothed([(float(record["step"]), float(record["loss"])) for record in journal])
    places = sorted({round((len(line) - 1) * part / (ROWS - 1)) for part in range(ROWS)})
    scored = [(int(record["step"]), float(record["bits_per_byte"])) for record in journal if "bits_per_byte" in record]
    scored.append((int(journal[-1]["step"]), results["pretrain"]["scored_on_the_way"]["bits_per_byte"]))
    finite = [line[place][1] for place in places if math.isfinite(line[place][1])] or [0.0]
    least, spread = min(finite), max(finite) - min(finite) or 1.0
    cells = []
    before = 0
    for place in places:
        step, loss = int(line[place][0]), line[place][1]
        bits = [value for at, value in scored if before < at <= step]
        bar = "·" * round((WIDTH - 1) * (loss - least) / spread) + "●" if math.isfinite(loss) else ""
        cells.append([f"{step:,}", f"{loss:.3f}", bar, f"{bits[-1]:.3f}" if bits else "–"])
        before = step
    heads = [Words("ステップ", "step"), Words("損失（平滑化）", "loss (smoothed)"), "", Words("ビット毎バイト", "bits per byte")]
    return [f"## {Words('損失の曲線', 'Loss curve')}", "", *table(heads, cells)]


def loss_chart(journal: list[dict[str, Any]], results: dict[str, dict[str, Any]]) -> str:
    """Bits per byte over millions of trained tokens: the training loss, held-out text on the way, and the rivals across."""
    final = results["pretrain"]
    per_byte = final["read_tokens"] / final["read_bytes"] / math.log(2)  # nats a token -> bits a byte of the text read
    loss = [(float(r["tokens"]) / 1e6, float(r["loss"]) * per_byte) for r in journal]
    held = [(float(r["tokens"]) / 1e6, float(r["bits_per_byte"])) for r in journal if "bits_per_byte" in r]
    end, partial = final["tokens"] / 1e6, final["scored_on_the_way"]
    size = f"{partial['bytes'] / 1e6:.2f} MB"
    series: dict[str, list[tuple[float, float]]] = {
        str(Words("学習（平滑化）", "training (smoothed)")): smoothed(loss),
        str(Words(f"検証用文章のうち {size}", f"{size} of the held-out text")): [*held, (end, partial["bits_per_byte"])],
    }
    levels = {str(Words("検証用文章の全部、学習の後", "all held-out text, at the end")): final["bits"]["bits_per_byte"]}
    if "evaluate" in results:
        rivals = results["evaluate"]["baselines"]
        closest = [min(group, key=lambda name: rivals[name]["bits_per_byte"]) for group in _kinds(rivals)]
        levels |= {rival(name): rivals[name]["bits_per_byte"] for name in closest}
    series |= {name: [(0.0, level), (end, level)] for name, level in levels.items()}
    across = Words("学習したトークン（百万）", "tokens trained (millions)")
    title = Words("事前学習：1 バイトを当てるのに要るビット数", "Pre-training: bits per byte")
    return line_chart(str(title), str(across), str(Words("ビット／バイト", "bits/byte")), series)


def _kinds(rivals: Mapping[str, Any]) -> list[list[str]]:
    """The n-grams, and xz with and without what was read."""
    groups = [[name for name in rivals if "gram" in name], [name for name in rivals if "xz" in name]]
    return [group for group in groups if group]
