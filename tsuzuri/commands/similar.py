"""単語ベクトルで、意味の近い語や文章を探します。 / Find words and texts of near meaning by word vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.errors import MissingError, Words

if TYPE_CHECKING:
    from tsuzuri.model.vectors import Vectors

DEFAULT = Path("runs/vectors/model")  # what `tsuzuri run recipes/vectors.yaml` writes
BAR = 24  # characters of a cosine of 1


@click.command()
@click.argument("words", nargs=-1, metavar="WORD...")
@click.option(
    "--model",
    "place",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"単語ベクトルのディレクトリか .vec ファイル（既定は {DEFAULT}） / directory of word vectors, or a .vec file; {DEFAULT} unless given",
)
@click.option("-k", "count", default=10, show_default=True, help="表示する語の数 / how many words to show")
@click.option("--minus", multiple=True, metavar="WORD", help="引く語（何度でも） / a word to take away, any number of times")
@click.option("--plus", multiple=True, metavar="WORD", help="足す語（何度でも） / a word to add, any number of times")
@click.option(
    "--rule", type=click.Choice(["add", "multiply"]), default="add", show_default=True, help="足し引きのしかた / how to add and take away"
)
@click.option("--text", "texts", is_flag=True, help="引数を文章として、最初のものとほかを比べる / compare texts, the first with the others")
@click.option(
    "--units", type=click.Choice(["word", "character"]), help=".vec の語の切り方（既定は word） / how text is cut for a .vec file"
)
@click.option(
    "--export", type=click.Path(path_type=Path), metavar="FILE", help="全部のベクトルを .vec 形式で書く / write all vectors as .vec"
)
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で / print the result as JSON")
def command(
    words: tuple[str, ...],
    place: Path | None,
    count: int,
    minus: tuple[str, ...],
    plus: tuple[str, ...],
    rule: str,
    texts: bool,
    units: str | None,
    export: Path | None,
    as_json: bool,
) -> None:
    """WORD に意味の近い語を、近い順に示します。数は余弦（1 が同じ向き）です。語を足し引きした先の語も探せます。 / The words nearest
    to each WORD, by cosine (1: the same direction), or to a sum and difference of words.

    例：tsuzuri similar 春 ／ tsuzuri similar 東京 --minus 日本 --plus フランス ／ tsuzuri similar --text "雨が降る" "雪が降る" / For
    example: tsuzuri similar 春; tsuzuri similar 東京 --minus 日本 --plus フランス; tsuzuri similar --text "雨が降る" "雪が降る"
    """
    _check(words, minus, plus, rule, texts, export)
    vectors = _opened(place, units)
    if export:
        from tsuzuri.model import vec_format  # noqa: PLC0415

        vec_format.write(vectors, export)
        size, sides = f"{len(vectors.words):,}", f"{vectors.matrix.shape[1]}"
        told = Words(
            f"{size} 語、{sides} 次元のベクトルを {export} に書きました。", f"Wrote {size} vectors of {sides} numbers to {export}."
        )
        click.echo(json.dumps({"file": str(export), "words": len(vectors.words)}, ensure_ascii=False) if as_json else str(told))
    elif texts:
        rows = [_compared(vectors, words[0], other) for other in words[1:]]
        click.echo(json.dumps(rows, ensure_ascii=False)) if as_json else _show_texts(rows)
    else:
        found = _near(vectors, words, minus, plus, count, rule)
        click.echo(json.dumps(found, ensure_ascii=False)) if as_json else _show(found)


def _check(words: tuple[str, ...], minus: tuple[str, ...], plus: tuple[str, ...], rule: str, texts: bool, export: Path | None) -> None:
    """Raises UsageError for what does not go together."""
    moved = bool(minus or plus)
    if export and (words or moved or texts):
        raise click.UsageError(str(Words("--export には語や文章を付けません。", "--export takes no words or texts.")))
    if texts and moved:
        raise click.UsageError(str(Words("--text と --plus・--minus は同時に使えません。", "--text does not go with --plus or --minus.")))
    if texts and len(words) < 2:
        raise click.UsageError(str(Words("--text には文章を二つ以上指定してください。", "--text takes two texts or more.")))
    if moved and len(words) != 1:
        raise click.UsageError(
            str(Words("--plus・--minus には語を一つだけ指定してください。", "--plus and --minus take exactly one WORD."))
        )
    if not export and not words:
        raise click.UsageError(str(Words("語を指定してください。", "Name a word.")))
    if rule != "add" and not moved:
        raise click.UsageError(str(Words("--rule は --plus・--minus と使います。", "--rule goes with --plus and --minus.")))


def _opened(place: Path | None, units: str | None) -> Vectors:
    """Raises MissingError when no vectors are named and none were made."""
    if place is None and not DEFAULT.is_dir():
        raise MissingError(
            Words("単語ベクトルを開こうとしました。", "Opening word vectors."),
            found=Words(f"--model の指定がなく、{DEFAULT} もまだありません。", f"No --model was given, and there is no {DEFAULT} yet."),
            todo=Words(
                "tsuzuri run recipes/vectors.yaml で作るか、--model で指定してください。",
                "Make them with tsuzuri run recipes/vectors.yaml, or name some with --model.",
            ),
        )
    from tsuzuri.model import vec_format, vectors  # noqa: PLC0415
    from tsuzuri.text.words import cutter  # noqa: PLC0415

    place = place or DEFAULT
    if place.is_dir():
        if units:
            told = Words("--units は .vec ファイルのためのものです。", "--units is for .vec files.")
            raise click.UsageError(f"{told} {Words('ディレクトリには書いてあります。', 'A directory says it itself.')}")
        return vectors.Vectors.load(place, cutter)
    return vec_format.read(place, cutter(units or "word"), units=units or "word")


def _near(
    vectors: Vectors, words: tuple[str, ...], minus: tuple[str, ...], plus: tuple[str, ...], count: int, rule: Any
) -> list[dict[str, Any]]:
    """One entry a question: what was asked, and the words found with their scores."""
    if not (minus or plus):
        asked = [(word, vectors.nearest(word, count)) for word in words]
    else:
        sign = [f" − {word}" for word in minus] + [f" ＋ {word}" for word in plus]
        asked = [(words[0] + "".join(sign), vectors.combine([*words, *plus], minus, count, rule))]
    return [{"asked": what, "found": [{"word": word, "score": score} for word, score in near]} for what, near in asked]


def _compared(vectors: Vectors, one: str, other: str) -> dict[str, Any]:
    """Two texts: their cosine, and the words of either that have no vector."""
    similarity = float(vectors.embed(one) @ vectors.embed(other))
    return {"texts": [one, other], "similarity": similarity, "unknown": [*vectors.unknown(one), *vectors.unknown(other)]}


def _show(found: list[dict[str, Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    for question in found:
        table = Table(str(Words("順位", "rank")), str(Words("語", "word")), str(Words("近さ", "score")), "", title=Text(question["asked"]))
        for column in (0, 2):
            table.columns[column].justify = "right"
        for rank, row in enumerate(question["found"], 1):
            table.add_row(str(rank), Text(row["word"]), f"{row['score']:.3f}", "█" * round(BAR * max(0.0, min(1.0, row["score"]))))
        console.print(table)


def _show_texts(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        click.echo(f"{row['similarity']:.3f}  「{row['texts'][0]}」  「{row['texts'][1]}」")
        if row["unknown"]:
            missing = "、".join(dict.fromkeys(row["unknown"]))
            click.echo(str(Words(f"       知らない語：{missing}", f"       unknown words: {missing}")))
