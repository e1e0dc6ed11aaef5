"""One row a task of benchmarks/tasks.py: what it is beside, and what it came to."""

from __future__ import annotations

from typing import Any

from tables._shared import RESULTS, Parts, machine, read

TASKS = {
    "masked": ("隠した文字を当てる", "guess hidden characters"),
    "classify": ("分類：京都に関する記事の話題", "labels: what an article on Kyoto is about"),
    "intent": ("分類：宿への問い合わせの話題", "labels: what a question to a hotel is about"),
    "tag": ("区間の抽出：法令名・日付・条文", "stretches: names of laws, dates, articles"),
    "extract": ("答えの抽出：JaQuAD、答えのある一文から", "answers: JaQuAD, in the sentence that has the answer"),
    "embed": ("意味の近さ：JSTS", "closeness of meaning: JSTS"),
    "span": ("抜いた区間を書く", "write spans that were taken out"),
    "translate": ("日英翻訳：京都関連文書", "Japanese to English: articles on Kyoto"),
}
MEASURES = {
    "guessed": ("正解率", "accuracy"), "accuracy": ("正解率", "accuracy"), "entity F1": ("区間の F1", "F1 of stretches"),
    "character F1": ("文字の F1", "F1 of characters"), "Spearman": ("順位相関", "rank correlation"), "chrF": ("chrF", "chrF"),
    "filled": ("当てた割合", "said right"),
}  # fmt: skip
BESIDE = {
    "the commonest token": "最多の文字",
    "a table counted from both neighbours": "両隣から数えた表",
    "the commonest label": "最多の分類",
    "naive Bayes of character n-grams": "文字 n-gram の単純ベイズ",
    "logistic regression of character n-grams": "文字 n-gram のロジスティック回帰",
    "a dictionary of the examples": "学習例の辞書",
    "the sentence that shares most": "質問と最も重なる文",
    "the stretch nearest to the question's words": "質問の語に近い区間",
    "cosine of characters": "文字の余弦",
    "cosine of character bigrams": "文字二つ組の余弦",
    "cosine of characters weighted by rarity": "珍しさで重みを付けた文字の余弦",
    "a rule by the question's word": "疑問詞で選ぶ規則",
    "a 5-gram from the left that knows the length": "左から埋める 5-gram（長さは知っている）",
    "a 5-gram from both sides that knows the length": "両側を見て埋める 5-gram（長さは知っている）",
    "before it learned this": "この課題を学ぶ前",
    "nearest": "最も似た文の訳の引き写し",
    "copy": "元の文の写し",
}
PLAINLY = {"nearest": "the translation of the most similar sentence", "copy": "the source, copied"}  # where a name is not told in words


def tasks(language: str) -> str:
    """One row a task of benchmarks/tasks.py; what hides characters is told once, of the first encoder there is."""
    ja = language == "ja"
    heads = ("課題", "データ", "大きさ", "分", "比較相手", "このモデル（95 % 区間）", "種") if ja else ("task", "data", "size", "minutes", "beside it", "this model (95 %)", "seed")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|---|---|"]
    if not (RESULTS / "tasks.json").is_file():
        return "\n".join(lines)
    found = read("tasks.json")
    first = next((row for row in found["rows"] if "masked" in row["results"] and not row.get("start")), None)
    rows = [*found["rows"]]
    if first:
        begun = first["results"]["masked"]
        spent = {"task": "masked", "seconds": sum(first["stages"][name] for name in ("corpus", "tokenizer", "masked")), "data": "sample"}
        same = {key: begun[key] for key in ("metric", "score", "rivals", "seed", "parameters")}
        rows.insert(0, {**spent, **same, "learned_from": begun["rows"]})
    where = dict.fromkeys(machine(row if "machine" in row else found, language) for row in found["rows"])
    return "\n".join([*lines, *(_task(row, ja) for row in rows), "", ("、または " if ja else ", or ").join(where) + ("。" if ja else ".")])


def _task(row: dict[str, Any], ja: bool) -> str:
    score = row["score"]
    data = {"sample": ("見本", "sample"), "more": ("大きいほう", "larger")}[row["data"]][0 if ja else 1]
    count = f"{row['learned_from']:,} / {score['items']:,}"
    form = ".1f" if row["metric"] == "chrF" else ".3f"
    beside = [f"{BESIDE[name] if ja else PLAINLY.get(name, name)} {_valued(one, form)}" for name, one in row["rivals"].items()]
    own = f"{MEASURES[row['metric']][0 if ja else 1]} **{format(score['value'], form)}** {_within(score, form)}"
    named = TASKS[row["task"]][0 if ja else 1] + (("、エンコーダから" if ja else ", from the encoder") if row.get("start") else "")
    cells = [named, f"{data}, {count}", f"{row['parameters'] / 1e6:.1f} M", f"{row['seconds'] / 60:.0f}"]
    return f"| {' | '.join([*cells, '; '.join(beside), own, str(row['seed'])])} |"


def _valued(score: dict[str, Any], form: str) -> str:
    return f"{format(score['value'], form)} {_within(score, form)}"


def _within(score: dict[str, Any], form: str) -> str:
    low, high = score["interval"]
    return f"({format(low, form)} – {format(high, form)})"


PARTS: Parts = {"tasks": tasks}
