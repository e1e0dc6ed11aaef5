"""トークナイザを作り、比べ、文章がどう分かれるかを見ます。 / Train tokenizers, compare them, see how a text is cut."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.errors import InputError, Words

if TYPE_CHECKING:
    from tsuzuri.text.corpus.read import Document
    from tsuzuri.text.fast import FastTokenizer

NOTICE_SECONDS = 5.0


@click.group()
def command() -> None:
    """文章とトークン番号を行き来するトークナイザを扱います。 / Text to ids and back."""


@command.command("train")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="出力先 / where to write")
@click.option("--kind", default="bpe", show_default=True, help="bpe, unigram, wordpiece, characters")
@click.option("--vocab-size", default=8000, show_default=True, help="語彙の大きさ / number of ids")
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で / print the result as JSON")
def train_tokenizer(inputs: tuple[Path, ...], out: Path, kind: str, vocab_size: int, as_json: bool) -> None:
    """文章から OUT/tokenizer.json を作ります。.txt と .jsonl（.zst、.gz でも可）、.parquet を読みます。
    / Make OUT/tokenizer.json from .txt, .jsonl (also .zst, .gz) and .parquet.

    例：tsuzuri tokenizer train corpus/text/train.jsonl.zst --out tokenizer
    / For example: tsuzuri tokenizer train corpus/text/train.jsonl.zst --out tokenizer
    """
    from tsuzuri import directory  # noqa: PLC0415
    from tsuzuri.text import fast  # noqa: PLC0415
    from tsuzuri.text.corpus import output  # noqa: PLC0415
    from tsuzuri.text.corpus.read import files  # noqa: PLC0415

    paths = files(inputs)
    output.check(out, paths)
    directory.writable(out)
    counts = {"documents": 0, "characters": 0}
    tokenizer = fast.train(kind, (document.text for document in _read(paths, counts)), vocab_size)
    with directory.whole(out) as temporary:
        tokenizer.save(temporary)
    made = {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint, **counts}
    if as_json:
        click.echo(json.dumps(made | {"directory": str(out)}, ensure_ascii=False))
        return
    size, read, characters = f"{tokenizer.vocab_size:,}", f"{counts['documents']:,}", f"{counts['characters']:,}"
    click.echo(
        str(
            Words(
                f"{read} 文書（{characters} 文字）から、語彙 {size} の {kind} を作りました。\n{out} に書きました。",
                f"Made {kind} with a vocabulary of {size} from {read} documents ({characters} characters).\nWritten to {out}.",
            )
        )
    )


def _read(paths: list[Path], counts: dict[str, int]) -> Iterator[Document]:
    """Every document, counted; tells on stderr how far it is. Raises InputError when there is no text in any of them."""
    from tsuzuri.text.corpus.read import read  # noqa: PLC0415

    told = time.monotonic()
    for document in read(paths):
        counts["documents"] += 1
        counts["characters"] += len(document.text)
        yield document
        if time.monotonic() - told > NOTICE_SECONDS:
            told = time.monotonic()
            _notice(Words(f"{counts['documents']:,} 文書を読みました。", f"{counts['documents']:,} documents read."))
    if not counts["characters"]:
        raise InputError(
            Words(f"{paths[0]} などの文章を読もうとしました。", f"Reading {paths[0]} and what else was named."),
            found=Words("文字が一つもありません。", "There is not one character in it."),
            todo=Words("文章の入ったファイルを指定してください。", "Name files with text in them."),
        )
    _notice(Words(f"{counts['documents']:,} 文書をすべて読みました。", f"All {counts['documents']:,} documents read."))


def _notice(words: Words) -> None:
    click.echo(str(words), err=True)


# ── compare


def _numbers(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        words = Words(f"「{value}」は、4000,8000 のような数の並びではありません。", f"'{value}' is not numbers like 4000,8000.")
        raise click.BadParameter(str(words)) from None


@command.command("compare")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option(
    "--kinds", default="bpe,unigram,wordpiece,characters", show_default=True, help="種類（コンマ区切り） / kinds, separated by commas"
)
@click.option(
    "--sizes",
    default="4000,8000,16000,32000,64000",
    show_default=True,
    callback=_numbers,
    help="語彙の大きさ（コンマ区切り） / sizes, separated by commas",
)
@click.option("--baseline", "baselines", multiple=True, type=click.Path(path_type=Path), help="比べる tokenizer.json / another's")
@click.option(
    "--validation-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="測るために学習から除く割合 / held out to measure on",
)
@click.option("--json", "as_json", is_flag=True, help="一行に一つの JSON で / one JSON a line")
def compare_tokenizers(
    inputs: tuple[Path, ...], kinds: str, sizes: tuple[int, ...], baselines: tuple[Path, ...], validation_fraction: float, as_json: bool
) -> None:
    """四種類のトークナイザを語彙の大きさごとに作り、学習に使わなかった文書で測ります。文章はメモリに読み込みます。
    / Train each kind at each size and measure it on documents it has not seen. The text is held in memory.

    列：1 トークンあたりの文字数とバイト数、文字種ごとの 1 片あたりのトークン数（1 が最小）。
    / Columns: characters and bytes a token; tokens a piece for each script (1 is the least).
    """
    from tsuzuri.text import compare, fast  # noqa: PLC0415
    from tsuzuri.text.corpus.read import files  # noqa: PLC0415

    others = {str(path): fast.load(path) for path in baselines}
    train, held = compare.divide(_read(files(inputs), {"documents": 0, "characters": 0}), validation_fraction)
    texts = f"{len(train):,}", f"{len(held):,}"
    _notice(Words(f"学習用 {texts[0]} 文書、測る文書 {texts[1]}。", f"{texts[0]} documents to train on, {texts[1]} to measure."))

    def progress(kind: str, size: int) -> None:
        _notice(Words(f"語彙 {size:,} の {kind} を学習します。", f"Training {kind} with a vocabulary of {size:,}."))

    rows = compare.table(train, held, [name.strip() for name in kinds.split(",")], sizes, others, progress)
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
    else:
        _show_table(list(rows))


def _show_table(rows: list[dict[str, Any]]) -> None:
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    scripts = list(dict.fromkeys(script for row in rows for script in row.get("fertility", ())))
    heads = [Words("種類", "kind"), Words("語彙", "size"), Words("文字", "chars"), Words("バイト", "bytes")]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)  # 80 columns hold it
    table.add_column(str(heads[0]), overflow="fold")
    for head in (*heads[1:], *(_SCRIPTS[script] for script in scripts)):
        table.add_column(str(head), justify="right", no_wrap=True)
    reasons = []
    for row in rows:
        cells = [escape(row["kind"]), f"{row['vocab_size']:,}"]
        if "unsupported" in row:
            cells.append("–")
            reasons.append(f"{row['kind']} {row['vocab_size']:,}: {row['unsupported']}")
        else:
            measured = [row["characters_per_token"], row["bytes_per_token"], *(row["fertility"].get(script) for script in scripts)]
            cells += ["–" if value is None else f"{value:.2f}" for value in measured]
            if not row["lossless"]:
                reasons.append(f"{row['kind']}: {Words('文章が元に戻りません。', 'it does not give the text back.')}")
        table.add_row(*cells)
    console = Console()
    console.print(table)
    legend = Words(
        "文字・バイト：1 トークンあたり。文字種：1 片あたりのトークン数（1 が最小）。",
        "chars, bytes: a token. Scripts: tokens a piece (1 is the least).",
    )
    for line in (str(legend), *reasons):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


_SCRIPTS = {
    "kanji": Words("漢字", "kanji"),
    "hiragana": Words("ひらがな", "hira"),
    "katakana": Words("カナ", "kata"),
    "latin": Words("英字", "Latin"),
    "digits": Words("数字", "digit"),
    "spaces": Words("空白", "space"),
    "punctuation": Words("記号", "other"),
}


# ── show


@command.command("show")
@click.argument("text")
@click.option("--tokenizer", "place", type=click.Path(path_type=Path), default=Path("runs/tiny/model"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="JSON で / as JSON")
def show_tokens(text: str, place: Path, as_json: bool) -> None:
    """TEXT をトークンに分けて、番号・バイト・文字種を見せます。- なら標準入力から読みます。
    / Cut TEXT into tokens and show id, bytes and script of each; - reads standard input.
    """
    from tsuzuri.commands._piped import piped  # noqa: PLC0415
    from tsuzuri.text import fast  # noqa: PLC0415

    tokenizer = fast.load(place)
    rows = _rows(tokenizer, piped() if text == "-" else text)
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        _show_rows(rows)


def _rows(tokenizer: FastTokenizer, text: str) -> list[dict[str, Any]]:
    """One row a token: id, its text (None where it is no whole characters), bytes, scripts and the pieces it was cut from."""
    from tsuzuri.text.compare import parts  # noqa: PLC0415

    ids = tokenizer.encode(text)
    spelt = [tokenizer.token_bytes(id) for id in ids]
    rows: list[dict[str, Any]] = [
        {"id": id, "text": _text(data), "bytes": data.hex(" "), "scripts": [], "pieces": []} for id, data in zip(ids, spelt, strict=True)
    ]
    for part in parts(spelt):
        rows[part.token]["scripts"].append(part.script)
        rows[part.token]["pieces"].append(part.text)
    return rows


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _show_rows(rows: list[dict[str, Any]]) -> None:
    """What is no whole character is shown by its bytes alone; control characters as Python writes them."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    heads = [Words("番号", "id"), Words("トークン", "token"), Words("バイト", "bytes"), Words("文字種", "script"), Words("片", "piece")]
    table = Table("#", *map(str, heads))
    for number, row in enumerate(rows):
        token = "–" if row["text"] is None else repr(row["text"])[1:-1]
        script = "＋".join(str(_SCRIPTS[script]) for script in row["scripts"])
        cells = (number, row["id"], token, row["bytes"], script, repr("".join(row["pieces"]))[1:-1])
        table.add_row(*(Text(str(cell)) for cell in cells))
    console = Console()
    console.print(table)
    console.print(str(Words(f"{len(rows)} トークン", f"{len(rows)} tokens")), highlight=False)
