"""One section a family, from its file and from the cases of its test; the parts they are made of; the history, measured."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from tables._shared import RESULTS, ROOT, Parts, machine, read
from tsuzuri.errors import Words
from tsuzuri.folder import find, names

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
    told = f"一つにつき学習 {seconds:.0f} プロセッサ秒、種 1 つ、{where}。" if ja else f"{seconds:.0f} processor seconds of training each, one seed, {where}."  # fmt: skip
    return "\n".join([*lines, "", told])


ENCODERS = ("bert", "marian", "modernbert", "mt5", "roberta", "t5")  # families that read a text both ways
CHECKED_IN = {"gru": "recurrent", "lstm": "recurrent", "rnn": "recurrent"}  # where not in a test of its own name
CHECKED = {
    "hmm": Words(
        "すべての状態列の和との一致、どの一歩でも尤度が下がらないこと、落ち着いた所で勾配が 0 になること",
        "against the sum over all paths; no step lowers the likelihood; where it rests the gradient is zero",
    ),
    "mt5": Words(
        "T5 1.1 の形で、名前の違う transformers のモデルとの一致（ほかの形は t5 で）",
        "the shape of T5 1.1 under its own name, compared with transformers; the other shapes as t5",
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


PARTS: Parts = {"history": history, "families": families, "encoders": encoders, "earlier": earlier, "parts": parts}
