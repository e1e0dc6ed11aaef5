"""What the guard finds and misses: rows of benchmarks/guard.py."""

from __future__ import annotations

from typing import Any

from tables._shared import Parts, machine, read, table
from tsuzuri.errors import Words
from tsuzuri.folder import find, names
from tsuzuri.guard.encodings import ENCODINGS


def share(found: dict[str, Any] | None) -> str:
    """A share with its interval, in per cent: 99.8 (99.0 – 100.0)."""
    if not found or not found["of"]:
        return "–"
    low, high = found["interval"]
    return f"{100 * found['value']:.1f} ({100 * low:.1f} – {100 * high:.1f})"


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
    "phrasings 2": ("二つ目の言い回し集のうち学習に使わなかったもの", "second phrasings held out"),
    "phrasings 3": ("三つ目の言い回し集のうち学習に使わなかったもの", "third phrasings held out"),
    "fresh": (
        "雛形のあと、言い回し集の前に書いたもの（のちに見た）",
        "written after the templates, before the phrasings (looked at since)",
    ),
    "fresh 2": ("言い回し集のあとに書いたもの（のちに見た）", "written after the phrasings (looked at since)"),
    "fresh 3": ("二つ目の言い回し集のあとに書いたもの（のちに見た）", "written after the second phrasings (looked at since)"),
    "fresh 4": ("三つ目の言い回し集の途中で書いたもの", "written halfway through the third phrasings"),
    "fresh 5": ("最後に書いたもの", "written last"),
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
    calm, known = found["hard negatives"], found["adaptive"]
    rows.append(["言い回し集と、のちに書いた無害な文のすべて" if ja else "all harmless phrasings and what was written later", "–", "–", f"{calm['templates']} / {calm['of']:,}", share(calm)])  # fmt: skip
    after = ", ".join(share(one) for one in known["after each clause"])
    told = (
        f"点を見ながら、無害な語句を文に一つ、二つ、三つとつなげる相手（1 回に 30 通り試し、最も低いものを残す。攻撃 {known['before']['of']}）：はじめ {share(known['before'])}、そのあと {after}。"
        if ja
        else f"Against who sees the score and joins one, two, three harmless clauses to the sentence (30 tries each, the lowest kept; {known['before']['of']} attacks): {share(known['before'])} at first, then {after}."
    )
    others = ", ".join(f"{name} {share(one)}" for name, one in found["others' texts"].items())
    alarms = (
        f"ほかの人が書いた無害な文章（`sample/`）での誤検出：{others}。"
        if ja
        else f"False alarms on harmless texts by others (`sample/`): {others}."
    )
    threshold = f"しきい値は一つで、{found['threshold']:.3f}。" if ja else f"One threshold: {found['threshold']:.3f}."
    return f"{table(heads, rows)}\n\n{threshold}{'' if ja else ' '}{alarms}\n\n{told}"


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


CONTENT_PARTS = {
    "beside": ("語の表と並べて書いた文", "written beside the lists"),
    "held out": ("学習に使わなかった文", "held out of what was learned"),
    "fresh": ("学習の前に書き、学習していない文", "written before, not learned from"),
    "fresh 2": ("最後に書いた文", "written last"),
}


def guard_content(language: str) -> str:
    """Requests by category, and what only sounds like one."""
    ja, found = language == "ja", guarded("content")
    called = find("tsuzuri.guard.checks", "content").CATEGORIES
    parts = [words[0 if ja else 1] for words in CONTENT_PARTS.values()]
    rows = [
        (called[kind].ja if ja else called[kind].en, *(share(found[part]["recall"][kind]) for part in CONTENT_PARTS)) for kind in called
    ]
    for key, words in {
        "all": ("全体", "all"),
        "by the right name": ("見つけたうち分類も正しい", "of those found, the category is right"),
        "false alarms": ("言葉の似た無害な文での誤検出", "false alarms, harmless in like words"),
    }.items():
        rows.append((words[0 if ja else 1], *(share(found[part][key]) for part in CONTENT_PARTS)))
    others = {("仕事の文" if ja else "business"): found["false alarms in business"], **found["others' texts"]}
    alarms = table(("文", "誤検出") if ja else ("texts", "false alarms"), [(name, share(one)) for name, one in others.items()])
    return f"{table(('分類' if ja else 'category', *parts), rows)}\n\n{alarms}"


def guard_special_care(language: str) -> str:
    """One row a category of special-care information."""
    ja, found = language == "ja", guarded("special care")
    heads = ("分類", "適合率", "再現率", "あとから書いた文：適合率", "再現率") if ja else ("category", "precision", "recall", "written later: precision", "recall")  # fmt: skip
    rows = []
    for name, words in find("tsuzuri.guard.checks", "special_care").CATEGORIES.items():
        cells = [share(found[part]["categories"][name][key]) for part in ("beside", "fresh") for key in ("precision", "recall")]
        rows.append((words.ja if ja else words.en, *cells))
    rows.append(
        ("全体" if ja else "all", *(share(found[part]["all"][key]) for part in ("beside", "fresh") for key in ("precision", "recall")))
    )
    heads_2 = ("文", "誤検出") if ja else ("texts", "false alarms")
    calm = [
        ("一般の話（並べて書いた文）" if ja else "talk in general, beside", found["beside"]["false alarms"]),
        ("一般の話（あとから書いた文）" if ja else "talk in general, written later", found["fresh"]["false alarms"]),
        ("仕事の文" if ja else "business", found["fresh"]["false alarms in business"]),
    ]
    return f"{table(heads, rows)}\n\n{table(heads_2, [(what, share(one)) for what, one in calm])}"


def guard_plain(language: str) -> str:
    """Ordinary documents in which something was found: of each 300, the first 1,000 characters."""
    ja, found = language == "ja", guarded("plain")
    heads = (
        ("文書の集まり（数）", "注入", "内容", "要配慮個人情報") if ja else ("documents (number)", "injection", "content", "special care")
    )
    rows = [
        (f"{name}（{one['injection']['of']}）" if ja else f"{name} ({one['injection']['of']})", *(share(one[key]) for key in ("injection", "content", "special_care")))
        for name, one in found.items()
    ]  # fmt: skip
    return table(heads, rows)


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
        "content MB/s": ("内容を見る", "looking at the content", "{:.1f} MB/s"),
        "secrets MB/s": ("秘密を見張る、一つ登録", "watching for one secret", "{:.1f} MB/s"),
    }
    rows = [(words[0 if ja else 1], words[2].format(found["speed"][key])) for key, words in called.items()]
    where = machine(found, language) + ("のうち 1 コア。" if ja else ", one of them used.")
    return f"{table(('測定項目', '結果') if ja else ('measured', 'result'), rows)}\n\n{where}"


PARTS: Parts = {
    "guard_personal": guard_personal,
    "guard_injection": guard_injection,
    "guard_outside": guard_outside,
    "guard_kinds": guard_kinds,
    "guard_content": guard_content,
    "guard_special_care": guard_special_care,
    "guard_plain": guard_plain,
    "guard_secrets": guard_secrets,
    "guard_speed": guard_speed,
}
