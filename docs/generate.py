"""The generated parts of the pages: the map of the house, the verbs, the measured table.

In: docstrings, the verbs' help lines, benchmarks/results/*.json. Out: the same pages with the text between
`<!-- generated: NAME -->` and `<!-- end -->` made anew. `--check` changes nothing and fails if a page is out of date.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.folder import find, names
from tsuzuri.guard.encodings import ENCODINGS
from tsuzuri.recipe.report import rival

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# pages in both languages that have a generated part
GENERATED = (
    "history",
    "families",
    "encoders",
    "models",
    "native",
    "tasks",
    "guard",
    "guard-secrets",
    "service",
    "service-fields",
    "measured",
)
PAGES = {"README.md": "en", "README.ja.md": "ja"} | {f"docs/{lang}/{name}.md": lang for name in GENERATED for lang in ("en", "ja")}
MARKED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
# from the top; a room calls those below
HOUSE = ("commands", "serve", "recipe", "guard", "train", "evals", "chat", "engine", "text", "model", "store", "native", "hub")
BASE = ("types", "errors", "config", "folder", "device", "directory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    stale = [page for page, language in PAGES.items() if made_anew(ROOT / page, language, write=not parser.parse_args().check)]
    if stale and parser.parse_args().check:
        sys.exit(f"out of date: {', '.join(stale)}; run make docs")


def made_anew(page: Path, language: str, *, write: bool) -> bool:
    """Whether the page was out of date; writes it if asked."""
    os.environ["TSUZURI_LANG"] = language  # names come in the reader's language
    before = page.read_text(encoding="utf-8")
    after = MARKED.sub(lambda match: f"{match[1]}{PARTS[match[2]](language)}\n{match[3]}", before)
    if write and after != before:
        page.write_text(after, encoding="utf-8")
    return after != before


def house(language: str) -> str:
    """The map: one line a room, from the top down."""
    rows = [(f"{room}/", half(ROOT / "tsuzuri" / room / "__init__.py", language)) for room in HOUSE]
    width = max(len(name) for name, _ in rows)
    base = "  ".join(f"{name}.py" for name in BASE)
    return "\n".join(["```", *(f"{name:<{width}}  {line}" for name, line in rows), base, "```"])


def verbs(language: str) -> str:
    """The verbs and what each does."""
    lines = [f"| `tsuzuri {name}` | {half(ROOT / 'tsuzuri' / 'commands' / f'{name}.py', language)} |" for name in names("tsuzuri.commands")]
    return "\n".join(["| | |", "|---|---|", *lines])


def half(path: Path, language: str) -> str:
    """The reader's half of the first docstring line, 「日本語。 / English.」"""
    line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    ja, _, en = line.partition(" / ")
    return ja if language == "ja" else en


def measured(language: str) -> str:
    """One row a claim, from the files in benchmarks/results; a file that is not there makes no row."""
    return claims(language, most=None)


def headlines(language: str) -> str:
    """Of each file the first, and of those that hold several things the first two; a page in front has no room for all."""
    return claims(language, most=1)


def claims(language: str, most: int | None) -> str:
    found = {name: read(name) for name in TELL if (RESULTS / name).is_file() and not (most and name in BEHIND)}
    rows = [
        (machine(record, language), *row)
        for name, record in found.items()
        for row in TELL[name](record, language)[: most and most + (name in SEVERAL)]
    ]
    head = ["| 測定項目 | 結果 | 計算機 |", "|---|---|---|"] if language == "ja" else ["| measured | result | machine |", "|---|---|---|"]
    return "\n".join(head + [f"| {what} | {result} | {where} |" for where, what, result in rows])


def machine(found: dict[str, Any], language: str) -> str:
    """What matters of the machine: cores, and whether it computes in bfloat16."""
    known = found["machine"]
    narrow = "bf16" if {"avx512_bf16", "amx_bf16"} & set(known["flags"]) else "fp32"
    return f"{known['cores']} コア、{narrow}" if language == "ja" else f"{known['cores']} cores, {narrow}"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


HISTORY = {
    "ngram": ("5-gram", "5-gram"),
    "hmm": ("隠れマルコフモデル", "hidden Markov model"),
    "rnn": ("RNN", "RNN"),
    "gru": ("GRU", "GRU"),
    "lstm": ("LSTM", "LSTM"),
    "transformer": ("Transformer（llama）", "Transformer (llama)"),
    "mamba2": ("Mamba-2", "Mamba-2"),
    "bamba": ("Mamba-2 と注意（bamba）", "Mamba-2 and attention (bamba)"),
}


def history(language: str) -> str:
    """One row a model of benchmarks/history.py."""
    ja = language == "ja"
    heads = ("モデル", "大きさ", "学習", "読んだトークン", "ビット／バイト", "95 % 区間") if ja else ("model", "size", "trained", "tokens read", "bits per byte", "95 %")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|---|"]
    if not (RESULTS / "history.json").is_file():
        return "まだ測っていません。" if ja else "Not measured yet."
    found = read("history.json")
    for row in found["rows"]:
        low, high = row["bits"]["interval"]
        seconds = f"{row['seconds']:.0f} 秒" if ja else f"{row['seconds']:.0f} s"
        cells = [HISTORY[row["name"]][0 if ja else 1], f"{row['parameters'] / 1e6:.1f} M", seconds, f"{row['tokens'] / 1e6:.2f} M"]
        cells += [f"{row['bits']['bits_per_byte']:.3f}", f"{low:.2f} – {high:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    seconds, where = float(found["options"]["seconds"]), machine(found, language)
    told = f"一つにつき学習 {seconds:.0f} 秒、種 1 つ、{where}。" if ja else f"{seconds:.0f} seconds of training each, one seed, {where}."
    return "\n".join([*lines, "", told])


ENCODERS = ("bert", "marian", "modernbert", "mt5", "roberta", "t5")  # families that read a text both ways
CHECKED_IN = {"gru": "recurrent", "lstm": "recurrent", "rnn": "recurrent"}  # where not in a test of its own name
CHECKED = {
    "hmm": Words(
        "すべての状態列の和との一致、どの一歩でも尤度が下がらないこと、落ち着いた所で勾配が 0 になること",
        "against the sum over all paths; no step lowers the likelihood; where it rests the gradient is zero",
    ),
    "ngram": Words("式のとおりの計算との一致、確率の和が 1 になること", "against a direct computation; probabilities sum to one"),
}
AGAINST = {
    **{name: Words("torch.nn", "torch.nn") for name in CHECKED_IN},
    "palm": Words("NumPy で式のとおりに書いた計算", "a direct computation in NumPy"),
}
EARLIER = ("gru", "hmm", "lstm", "ngram", "rnn")  # families from before attention


def families(language: str) -> str:
    """A section a family of decoders, from its file and from the cases of its test."""
    rest = [name for name in names("tsuzuri.model.families") if name not in (*ENCODERS, *EARLIER)]
    return "\n\n".join(_family(name, language) for name in rest)


def encoders(language: str) -> str:
    return "\n\n".join(_family(name, language) for name in ENCODERS)


def earlier(language: str) -> str:
    return "\n\n".join(_family(name, language) for name in EARLIER)


def _family(name: str, language: str) -> str:
    module, ja = find("tsuzuri.model.families", name), language == "ja"
    lines = [f"### [{name}](../../tsuzuri/model/families/{name}.py)", "", str(module.SPECIAL), "", f"    {module.EQUATION}", ""]
    lines.append(f"- {'出典' if ja else 'source'}: {module.PAPER}")
    if module.PUBLIC:
        shapes = ", ".join(f"{model} ({shape})" for model, shape in module.PUBLIC.items())
        lines.append(f"- {'公開されているモデル' if ja else 'public models'}: {shapes}")
    checked = _cases(ROOT / "tests" / "model" / "families" / f"test_{CHECKED_IN.get(name, name)}.py")
    if checked:
        against = AGAINST.get(name, Words("transformers", "transformers"))
        told = f"{against.ja}との一致を確かめた形" if ja else f"shapes compared with {against.en}"
        lines.append(f"- {told}: {', '.join(checked)}")
    if name in CHECKED:
        lines.append(f"- 確かめたこと: {CHECKED[name].ja}" if ja else f"- checked: {CHECKED[name].en}")
    return "\n".join(lines)


def _cases(path: Path) -> list[str]:
    """The keys of CASES in a test file."""
    given = _given(path) if path.is_file() else {}
    return _keys(given["CASES"], given) if "CASES" in given else []


def _given(path: Path) -> dict[str, ast.expr]:
    """What the names of a test file stand for, those it has from the test beside it included."""
    found: dict[str, ast.expr] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("test_"):
            found |= _given(path.with_name(f"{node.module}.py"))
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and value is not None:
            found[target.id] = value
    return found


def _keys(value: ast.expr, given: Mapping[str, ast.expr]) -> list[str]:
    """Of a dict written down, of two joined by |, or of one made over the keys of another."""
    match value:
        case ast.Dict():
            return [str(key.value) for key in value.keys if isinstance(key, ast.Constant)]
        case ast.BinOp(op=ast.BitOr()):
            return _keys(value.left, given) + _keys(value.right, given)
        case ast.DictComp(generators=[ast.comprehension(iter=ast.Name(id=name))]):
            return _keys(given[name], given)
    return []


def parts(language: str) -> str:
    """One row a part: its kind, its name, the first line of its file."""
    found = [(find("tsuzuri.model.parts", name).KIND, name) for name in names("tsuzuri.model.parts")]
    head = (
        ["| 種類 | 名前 | 説明（ファイルの一行目） |", "|---|---|---|"]
        if language == "ja"
        else ["| kind | name | what it is |", "|---|---|---|"]
    )
    order = ("block", "mixer", "feedforward", "norm", "position", "head")
    rows = sorted(found, key=lambda row: (order.index(row[0]), row[1]))
    return "\n".join([*head, *(f"| `{kind}` | [{name}](../../tsuzuri/model/parts/{name}.py) | {_line(name)} |" for kind, name in rows)])


def _line(name: str) -> str:
    source = (ROOT / "tsuzuri" / "model" / "parts" / f"{name}.py").read_text(encoding="utf-8")
    text = " ".join((ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].split())
    return text.replace("|", "\\|")


TASKS = {
    "masked": ("隠した文字を当てる", "guess hidden characters"),
    "classify": ("分類：宿への問い合わせの話題", "labels: what a question to a hotel is about"),
    "tag": ("区間の抽出：法令名・日付・条文", "stretches: names of laws, dates, articles"),
    "extract": ("答えの抽出：JaQuAD", "answers in a context: JaQuAD"),
    "embed": ("意味の近さ：JSTS", "closeness of meaning: JSTS"),
    "translate": ("日英翻訳：京都関連文書", "Japanese to English: articles on Kyoto"),
}
MEASURES = {
    "guessed": ("正解率", "accuracy"), "accuracy": ("正解率", "accuracy"), "entity F1": ("区間の F1", "F1 of stretches"),
    "character F1": ("文字の F1", "F1 of characters"), "Spearman": ("順位相関", "rank correlation"), "chrF": ("chrF", "chrF"),
}  # fmt: skip
BESIDE = {
    "the commonest token": "最多の文字",
    "a table counted from both neighbours": "両隣から数えた表",
    "the commonest label": "最多の分類",
    "naive Bayes of character n-grams": "文字 n-gram の単純ベイズ",
    "a dictionary of the examples": "学習例の辞書",
    "the sentence that shares most": "質問と最も重なる文",
    "the stretch nearest to the question's words": "質問の語に近い区間",
    "cosine of characters": "文字の余弦",
    "cosine of character bigrams": "文字二つ組の余弦",
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
    first = next((row for row in found["rows"] if "masked" in row["results"]), None)
    rows = [*found["rows"]]
    if first:
        begun = first["results"]["masked"]
        spent = {"recipe": "masked", "seconds": sum(first["stages"][name] for name in ("corpus", "tokenizer", "masked")), "data": "sample"}
        same = {key: begun[key] for key in ("metric", "score", "rivals", "seed", "parameters")}
        rows.insert(0, {**spent, **same, "learned_from": begun["rows"]})
    return "\n".join([*lines, *(_task(row, ja) for row in rows), "", machine(found, language) + ("。" if ja else ".")])


def _task(row: dict[str, Any], ja: bool) -> str:
    score = row["score"]
    data = {"sample": ("見本", "sample"), "more": ("大きいほう", "larger")}[row["data"]][0 if ja else 1]
    count = f"{row['learned_from']:,} / {score['items']:,}"
    form = ".1f" if row["metric"] == "chrF" else ".3f"
    beside = [f"{BESIDE[name] if ja else PLAINLY.get(name, name)} {_valued(one, form)}" for name, one in row["rivals"].items()]
    own = f"{MEASURES[row['metric']][0 if ja else 1]} **{format(score['value'], form)}** {_within(score, form)}"
    cells = [TASKS[row["recipe"]][0 if ja else 1], f"{data}, {count}", f"{row['parameters'] / 1e6:.1f} M", f"{row['seconds'] / 60:.0f}"]
    return f"| {' | '.join([*cells, '; '.join(beside), own, str(row['seed'])])} |"


def _valued(score: dict[str, Any], form: str) -> str:
    return f"{format(score['value'], form)} {_within(score, form)}"


def _within(score: dict[str, Any], form: str) -> str:
    low, high = score["interval"]
    return f"({format(low, form)} – {format(high, form)})"


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


def share(found: dict[str, Any] | None) -> str:
    """A share with its interval, in per cent: 99.8 (99.0 – 100.0)."""
    if not found or not found["of"]:
        return "–"
    low, high = found["interval"]
    return f"{100 * found['value']:.1f} ({100 * low:.1f} – {100 * high:.1f})"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def guarded(name: str) -> dict[str, Any]:
    """A part of benchmarks/results/guard.json."""
    part: dict[str, Any] = read("guard.json")[name]
    return part


def guard_personal(language: str) -> str:
    """One row a kind of personal data."""
    ja, found = language == "ja", guarded("personal")
    heads = ("検査", "名前", "適合率", "再現率", "あとから書いた文：適合率", "再現率") if ja else ("check", "name", "precision", "recall", "written later: precision", "recall")  # fmt: skip
    called = {name: find("tsuzuri.guard.checks", name).LABEL for name in names("tsuzuri.guard.checks")}
    rows = []
    for kind, one in found["beside"]["kinds"].items():
        file = "name" if kind == "full_name" else kind
        words = Words("敬称のない姓名", "full name alone") if kind == "full_name" else called[file]
        later = found["fresh"]["kinds"].get(kind, {"precision": None, "recall": None})
        cells = [f"[{kind}](../../tsuzuri/guard/checks/{file}.py)", words.ja if ja else words.en]
        rows.append([*cells, *(share(part[key]) for part in (one, later) for key in ("precision", "recall"))])
    whole = [share(found[part]["structured"][key]) for part in ("beside", "fresh") for key in ("precision", "recall")]
    rows.append(["", "形の決まったもの全体" if ja else "all that have a form", *whole])
    return table(heads, rows)


GUARD_PARTS = {
    "training": ("学習した雛形", "templates it learned from"),
    "held out": ("学習に使わなかった雛形", "templates held out"),
    "phrasings": ("言い回し集のうち学習に使わなかったもの", "phrasings held out"),
    "fresh": ("雛形のあと、言い回し集の前に書いたもの", "written after the templates, before the phrasings"),
    "fresh 2": ("最後に書いたもの", "written last"),
}


def guard_injection(language: str) -> str:
    ja, found = language == "ja", guarded("injection")
    heads = ("文", "攻撃の雛形／文", "再現率", "無害な雛形／文", "誤検出") if ja else ("texts", "attack templates / texts", "recall", "harmless templates / texts", "false alarms")  # fmt: skip
    rows = []
    for part, words in GUARD_PARTS.items():
        hits, alarms = found[part]["recall"], found[part]["false alarms"]
        counts = [f"{one['templates']} / {one['of']:,}" for one in (hits, alarms)]
        rows.append([words[0 if ja else 1], counts[0], share(hits), counts[1], share(alarms)])
    one = found["in a document"]
    words = "無害な 20 文の中に一つ" if ja else "one among twenty harmless sentences"
    rows.append([words, f"{one['recall']['of']}", share(one["recall"]), f"{one['false alarms']['of']}", share(one["false alarms"])])
    others = ", ".join(f"{name} {share(one)}" for name, one in found["others' texts"].items())
    alarms = (
        f"ほかの人が書いた無害な文章（`sample/`）での誤検出：{others}。"
        if ja
        else f"False alarms on harmless texts by others (`sample/`): {others}."
    )
    threshold = f"しきい値は一つで、{found['threshold']:.3f}。" if ja else f"One threshold: {found['threshold']:.3f}."
    return f"{table(heads, rows)}\n\n{threshold}{'' if ja else ' '}{alarms}"


def guard_kinds(language: str) -> str:
    """Attacks by kind and by how they are written, all of them held out."""
    ja, found = language == "ja", guarded("injection")
    kinds = table(("種類", "再現率") if ja else ("kind", "recall"), [(f"`{kind}`", share(one)) for kind, one in found["kinds"].items()])
    heads = ("書き換え", "元のまま", "書き換えたもの", "誤検出") if ja else ("transform", "as it is", "transformed", "false alarms")
    changed = [
        (f"`{name}`", *(share(one[key]) for key in ("plain", "changed", "false alarms"))) for name, one in found["transforms"].items()
    ]
    return f"{kinds}\n\n{table(heads, changed)}"


def guard_outside(language: str) -> str:
    """Public sets of others."""
    ja, found = language == "ja", guarded("outside")
    told = [(f"{name}（{one['of']}）" if ja else f"{name} ({one['of']})", share(one)) for name, one in found["injection"].items()]
    rows = [(f"AISI {name}（{one['of']}）" if ja else f"AISI {name} ({one['of']})", share(one)) for name, one in found["content"].items()]
    heads = (("公開の文例（数）", "注入とみなした割合"), ("公開の文例（数）", "危うい内容とみなした割合")) if ja else (("public set (texts)", "taken for injection"), ("public set (texts)", "content flagged"))  # fmt: skip
    return f"{table(heads[0], told)}\n\n{table(heads[1], rows)}"


def guard_content(language: str) -> str:
    ja, found = language == "ja", guarded("content")
    called = find("tsuzuri.guard.checks", "content").CATEGORIES
    rows = [(called[kind].ja if ja else called[kind].en, share(one)) for kind, one in found["recall"].items()]
    calm = [
        ("言葉の似た無害な文" if ja else "harmless, in like words", "false alarms"),
        ("仕事の文" if ja else "business", "false alarms in business"),
    ]
    alarms = [(what, share(found[key])) for what, key in calm]
    return "\n\n".join(table(heads, part) for heads, part in (((("分類", "再現率") if ja else ("category", "recall")), rows), ((("文", "誤検出") if ja else ("texts", "false alarms")), alarms)))  # fmt: skip


def guard_secrets(language: str) -> str:
    """Every way of writing that is looked for, and what of it came through."""
    ja, found = language == "ja", guarded("secrets")
    how = {"letters": Words("文字と数字だけを見る", "by letters and digits alone"), "raw": Words("見える文字をそのまま", "by visible characters"), "decoded": Words("エスケープを読み解いて", "after reading escapes"), "packed": Words("解凍・復号して", "after unpacking")}  # fmt: skip
    rows = []
    for name, one in ENCODINGS.items():
        words, way, tried = one.called, how[one.how], found["encodings"][name]
        rows.append((words.ja if ja else words.en, way.ja if ja else way.en, f"{tried['leaked']} / {tried['tried']}"))
    told = (
        f"合計 {found['tried']:,} 回のうち漏れ {found['leaked']} 回（漏れがなければ、率の 95 % 上限は {100 * found['bound']:.3f} %）。切り方で結果が変わったもの {found['cut differently']} 回。"
        if ja
        else f"{found['leaked']} leaked of {found['tried']:,} (with none, the rate is below {100 * found['bound']:.3f} % at 95 %). {found['cut differently']} came out differently when cut."
    )
    return f"{table(('書き方', '探し方', '漏れ／試行') if ja else ('way of writing', 'how it is found', 'leaked / tried'), rows)}\n\n{told}"


def guard_speed(language: str) -> str:
    ja, found = language == "ja", read("guard.json")
    called = {
        "score ms per 1000 characters": ("注入の点数、1,000 字あたり", "injection score, per 1,000 characters", "{:.1f} ms"),
        "mask MB/s, business": ("伏せる、仕事の文", "masking, business text", "{:.1f} MB/s"),
        "mask MB/s, personal data in every line": ("伏せる、毎行に個人情報のある文", "masking, personal data in every line", "{:.1f} MB/s"),
        "look MB/s, business": ("探すだけ、仕事の文", "finding alone, business text", "{:.1f} MB/s"),
        "secrets MB/s": ("秘密を見張る、一つ登録", "watching for one secret", "{:.1f} MB/s"),
    }
    rows = [(words[0 if ja else 1], words[2].format(found["speed"][key])) for key, words in called.items()]
    where = machine(found, language) + ("のうち 1 コア。" if ja else ", one of them used.")
    return f"{table(('測定項目', '結果') if ja else ('measured', 'result'), rows)}\n\n{where}"


USES = {"used": ("使う", "used"), "recorded": ("記録に残す", "recorded"), "hint": ("目安", "a hint"), "refused": ("断る", "refused")}


def routes(language: str) -> str:
    """One row a way in: its path, which scopes open it, the first line of its file."""
    head = "| 入口 | 要る権限 | |" if language == "ja" else "| way in | scope | |"
    lines = [head, "|---|---|---|"]
    for name in names("tsuzuri.serve.routes"):
        module = find("tsuzuri.serve.routes", name)
        scopes = ("なし" if language == "ja" else "none") if module.POLICY == "open" else ", ".join(f"`{scope}`" for scope in module.POLICY)
        paths = ", ".join(f"`{path}`" for path in module.PATHS)
        told = half(ROOT / "tsuzuri" / "serve" / "routes" / f"{name}.py", language)
        lines.append(f"| {module.METHOD} {paths} | {scopes} | [{told}](../../tsuzuri/serve/routes/{name}.py) |")
    return "\n".join(lines)


def wire(format: str) -> Callable[[str], str]:
    """One row a field of a wire format, those that are refused last."""

    def table(language: str) -> str:
        fields = sorted(find("tsuzuri.serve.wire", format).FIELDS, key=lambda field: list(USES).index(field.use))
        lines = ["| 項目 | | |" if language == "ja" else "| field | | |", "|---|---|---|"]
        for field in fields:
            told = str(field.words.ja if language == "ja" else field.words.en).replace("|", "\\|")
            neutral = ", ".join(json.dumps(value, ensure_ascii=False) for value in field.neutral)
            taken = (f" `{neutral}` は受け付ける" if language == "ja" else f" `{neutral}` is taken") if neutral else ""
            lines.append(f"| `{field.name}` | {USES[field.use][language != 'ja']} | {told}{taken} |")
        return "\n".join(lines)

    return table


Rows = list[tuple[str, str]]


def tell_tiny(found: dict[str, Any], language: str) -> Rows:
    minutes = f"{found['seconds'] / 60:.1f}"
    rivals = ", ".join(f"{rival(name)} {value:.3f}" for name, value in found["rivals"].items())
    own, low, high = found["bits_per_byte"], *found["interval"]
    bits = f"**{own:.3f}** ({low:.2f} – {high:.2f}); {rivals}"
    if language == "ja":
        return [("`make tiny`、2 コア、導入の後", f"{minutes} 分"), ("検証用文章のビット毎バイト（95 % 区間）", bits)]
    return [("`make tiny`, 2 cores, after installation", f"{minutes} minutes"), ("bits per byte of held-out text (95 %)", bits)]


def tell_training(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    size = f"{found['parameters'] / 1e6:.0f} M"
    for name, pair in found["pairs"].items():
        what = f"学習の速さ、{size}、{name}：transformers 比" if ja else f"training speed, {size}, {name}: against transformers"
        speed = f"{pair['ours']['tokens_per_second']:,.0f} tok/s, MFU {pair['ours']['mfu']:.0%}"
        rows.append((what, f"× {said(pair['ratio'])}; {speed}"))
    return rows


def tell_time(found: dict[str, Any], language: str) -> Rows:
    ratio, ja = found["summary"]["ratio"], language == "ja"
    count = len(found["seeds"])
    seeds = f"種 {count} つ" if ja else f"{count} seed" + "s" * (count > 1)
    what = "同じビット毎バイトに達するまでの速さ：AdamW の基準比" if ja else "speed to the same bits per byte: against an AdamW baseline"
    reached = "未到達" if ja else "not reached"
    return [(what, f"× {said(ratio) if count > 1 else format(ratio['median'], '.2f')} ({seeds})" if ratio else reached)]


def tell_neighbour(found: dict[str, Any], language: str) -> Rows:
    ours, default = found["kept"]["passive"], found["kept"]["default"]
    if language == "ja":
        return [
            (
                "ほかのプログラムが 1 コアを使うときに残る学習の速さ（全 2 コア）",
                f"× {said(ours)}; PyTorch の初期設定では × {said(default)}",
            )
        ]
    what = "training speed left while another program keeps one of two cores busy"
    return [(what, f"× {said(ours)}; as PyTorch comes × {said(default)}")]


def tell_tokenizer(found: dict[str, Any], language: str) -> Rows:
    rows = []
    for row in [*found["encode"], *found["train"]]:
        memory = f"; {'メモリ' if language == 'ja' else 'memory'} × {1 / row['memory']['median']:.2f}" if "memory" in row else ""
        name = in_japanese(row) if language == "ja" else f"{row['ours']}, {row['work']}: against {row['peer']}"
        rows.append((name, f"× {said(row['speed'])}{memory}"))
    return rows


WORK = {"encode": "トークンへの変換", "train": "作成", "one text at a time": "一件ずつ", "all texts at once": "まとめて"}
CUT = {"same cut": "（同じ切り方）", "its own cut": "（独自の切り方）"}


def in_japanese(row: dict[str, Any]) -> str:
    """A row of the tokenizers: the work and how it is given, our kind, whom it is compared with."""
    what, *how = row["work"].split(", ")
    peer, *cut = row["peer"].split(", ")
    kind = row["ours"].removeprefix("tsuzuri ")
    return f"{'、'.join([WORK[what], kind, *(WORK[part] for part in how)])}：{peer}{''.join(CUT[part] for part in cut) or ' '}比"


def said(ratio: dict[str, float]) -> str:
    """Median and quartiles of a ratio."""
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} – {ratio['high']:.2f})"


def tell_decode(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    size = f"{found['parameters'] / 1e6:.0f} M"
    for name, pair in found["pairs"].items():
        form, _, peer = name.partition(" against ")
        for what, word in (("decode", "生成" if ja else "generation"), ("prefill", "入力の読み込み" if ja else "reading the prompt")):
            title = f"{word}の速さ、{size}、{form}：{peer} 比" if ja else f"speed of {word}, {size}, {form}: against {peer}"
            share = f", MBU {pair[what]['mbu']:.0%}" if "mbu" in pair[what] else ""
            rows.append((title, f"× {said(pair[what]['ratio'])}; {pair[what]['tokens_per_second'][0]:,.0f} tok/s{share}"))
    return rows


def tell_serving(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    for name, row in found["rows"].items():
        size, form = name.split()
        streams, prefix = row["streams"], row["prefix"]
        title = (
            f"16 件を一緒に、{size}、{form}：一件ずつの llama.cpp 比" if ja else f"16 streams, {size}, {form}: against llama.cpp one by one"
        )
        rows.append((title, f"× {said(streams['ratio'])}; {streams['tokens_per_second'][0]:,.0f} tok/s"))
        title = (
            f"9 割が既知の入力の最初の一語、{size}、{form}：未知の入力比"
            if ja
            else f"first token, 90 % known, {size}, {form}: against none known"
        )
        rows.append((title, f"× {said(prefix['ratio'])}"))
        title = (
            f"使い回しの備えの費用（何も既知でないとき）、{size}、{form}"
            if ja
            else f"cost of the prefix cache where nothing is known, {size}, {form}"
        )
        rows.append((title, f"× {said(row['prefix_cost']['ratio'])}"))
        title = f"起動から最初の一語まで、{size}、{form}" if ja else f"from nothing to the first token, {size}, {form}"
        rows.append((title, f"{row['start']['median']:.2f} {'秒' if ja else 's'}"))
        title = (
            f"ほかのプログラムが 1 コアを使うときに残る生成の速さ、{size}、{form}"
            if ja
            else f"generation speed left beside a busy process, {size}, {form}"
        )
        rows.append((title, f"× {said(row['neighbour']['ratio'])}"))
    return rows


def tell_audit(found: dict[str, Any], language: str) -> Rows:
    seconds = found["verify_seconds_per_million"]
    title = "監査の記録 100 万件の検証" if language == "ja" else "verifying a million audit records"
    told = f"{seconds:.1f} {'秒' if language == 'ja' else 's'}"
    return [(title, f"{told} ({found['records']:,} {'件から' if language == 'ja' else 'measured'})")]


def tell_quantization(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    for form, bits in (("q8_0", 8), ("q4_0", 4)):
        row = found["rows"][form]
        lost = row.get("native") or row["plain"]
        title = f"{bits} ビット（{form}）で失われるもの" if ja else f"what {bits} bits ({form}) cost"
        names = ("パープレキシティ", "最有力の語の一致") if ja else ("perplexity", "same most probable token")
        rows.append((title, f"{names[0]} {lost['perplexity']:+.2%}; {names[1]} {lost['agreement']:.1%}"))
    return rows


SEVERAL = ("tiny.json", "serving.json", "quantization.json")
BEHIND = ("training-110m.json", "audit.json")  # on the page of all numbers alone
TELL: dict[str, Callable[[dict[str, Any], str], Rows]] = {
    "tiny.json": tell_tiny,
    "time_to_bits.json": tell_time,
    "training-20m.json": tell_training,
    "training-110m.json": tell_training,
    "neighbour.json": tell_neighbour,
    "tokenizer.json": tell_tokenizer,
    "decode-20m.json": tell_decode,
    "decode-110m.json": tell_decode,
    "decode-0.5b.json": tell_decode,
    "serving.json": tell_serving,
    "quantization.json": tell_quantization,
    "audit.json": tell_audit,
}
PARTS: dict[str, Callable[[str], str]] = {
    "house": house, "verbs": verbs, "measured": measured, "headlines": headlines, "history": history, "families": families, "encoders": encoders,
    "earlier": earlier, "parts": parts, "tasks": tasks, "quantised": quantised, "pruned": pruned, "guard_personal": guard_personal, "guard_injection": guard_injection, "guard_outside": guard_outside,
    "guard_kinds": guard_kinds, "guard_content": guard_content, "guard_secrets": guard_secrets, "guard_speed": guard_speed,
    "routes": routes, "chat_fields": wire("openai_chat"), "completions_fields": wire("openai_completions"),
    "messages_fields": wire("anthropic_messages"), "embeddings_fields": wire("openai_embeddings"),
    "responses_fields": wire("openai_responses"),
}  # fmt: skip

if __name__ == "__main__":
    main()
