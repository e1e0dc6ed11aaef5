"""どの語がどの語を見ているか、全ヘッドの注意（attention）を表示します。 / Show what every head attends to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tsuzuri.commands._model import directory_option, named
from tsuzuri.commands._piped import piped
from tsuzuri.errors import ContextError, SpaceError, Words, why

if TYPE_CHECKING:
    from rich.console import Console

    from tsuzuri.chat.attention import Attention, Layer

SHADES = ((0.75, "█"), (0.5, "▓"), (0.25, "▒"), (0.1, "░"), (0.0, "·"))  # of shares above; a blank: it may not look there
ON_SCREEN = 64  # tokens
CELLS = 1_000_000  # of one picture, about 20 MB
SIDES = {
    ("self", "tokens"): Words("自己注意", "self-attention"),
    ("self", "target"): Words("出力の自己注意", "self-attention of the target"),
    ("cross", "target"): Words("出力から入力への注意", "the target's attention to the source"),
}

AGAINST = {
    ("self", "tokens"): "",
    ("self", "target"): Words("（出力）", " (target)"),
    ("cross", "target"): Words("（出力から入力）", " (target to source)"),
}


@click.command()
@click.argument("text", required=False)
@directory_option
@click.option("--layer", type=int, metavar="N", help=str(Words("この層だけ（0 から数える）", "this layer alone, from 0")))
@click.option("--head", type=int, metavar="N", help=str(Words("このヘッドだけ（0 から数える）", "this head alone, from 0")))
@click.option("--target", metavar="TEXT", help=str(Words("エンコーダ・デコーダが書いた文章", "the text that an encoder-decoder wrote")))
@click.option(
    "--svg",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=str(Words("濃淡の図を SVG で書き出す", "write heat maps as SVG")),
)
@click.option("--threads", type=int, help=str(Words("計算に使うスレッド数", "computing threads")))
@click.option("--json", "as_json", is_flag=True, help=str(Words("結果を JSON で", "the result as JSON")))
def command(
    text: str | None,
    directory: Path | None,
    layer: int | None,
    head: int | None,
    target: str | None,
    picture: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """文章を読むとき、各ヘッドがどの語からどれだけ受け取っているかを示します。行の語が、列の語を見ます。--layer と --head を両方指定すると、
    一つのヘッドを百分率で表します。TEXT を省くと標準入力を読みます。 / How much each token takes from which, by every head, as the
    model reads a text: the token of a row looks at those of the columns. With --layer and --head one head in percent. Without
    TEXT, standard input is read.

    例：tsuzuri attention "彼は本を読んでいる" --layer 0 --head 1 / For example: tsuzuri attention "彼は本を読んでいる" --layer 0 --head 1"""  # fmt: skip
    asked = piped() if text in (None, "-") else str(text)
    from tsuzuri.chat.attention import read  # noqa: PLC0415  torch loads here

    found = read(named(directory), asked, target, threads=threads).chosen(layer, head)
    if picture is not None:
        _draw(found, asked, picture)
    if as_json:
        click.echo(json.dumps(_plain(found), ensure_ascii=False))
    elif picture is not None:
        click.echo(str(Words(f"図を {picture} に書きました。", f"Wrote the picture {picture}.")))
    else:
        _show(found, whole=layer is not None and head is not None)
    if found.partial:
        told = Words(
            "入力の側だけです。--target に書いた文章を渡すと、出力の自己注意と、出力から入力への注意も出ます。",
            "This is the source alone. Give what was written as --target to see the target's attention, to itself and to the source.",
        )
        click.echo(str(told), err=True)


def _plain(found: Attention) -> dict[str, object]:
    layers = [
        {"layer": each.layer, "kind": each.kind, "rows": each.rows, "columns": each.columns, "heads": each.heads.tolist()}
        for each in found.layers
    ]
    return {"tokens": found.tokens, **({} if found.target is None else {"target": found.target}), "layers": layers}


def _show(found: Attention, *, whole: bool) -> None:
    """Tables that say the same with and without colour. Raises ContextError for what a screen does not hold."""
    most = max(len(found.tokens), len(found.target or []))
    if most > ON_SCREEN:
        raise ContextError(
            Words("注意を画面に表示しようとしました。", "Showing attention on a screen."),
            found=Words(f"{most} トークンあり、画面には {ON_SCREEN} までです。", f"There are {most} tokens; a screen holds {ON_SCREEN}."),
            todo=Words("--svg か --json を使うか、文章を短くしてください。", "Use --svg or --json, or shorten the text."),
        )
    from rich.console import Console  # noqa: PLC0415

    console = Console()
    for each in found.layers:
        title = f"{Words(f'層 {each.layer}：', f'layer {each.layer}: ')}{SIDES[each.kind, each.rows]}"
        rows, columns = _names(found, each)
        if whole:
            _in_percent(console, f"{title}{Words('、ヘッド', ', head')} {found.first}", rows, columns, each)
        else:
            _compact(console, title, rows, columns, each, found.first)
    if not whole:
        steps = "  ".join(f"{shade} {share:.0%}{Words('以上', ' or more')}" for share, shade in SHADES[:-1])
        less = Words(f"{SHADES[-1][1]} それ未満  空白 見えない", f"{SHADES[-1][1]} less  blank: not visible")
        told = Words(
            "行の語が、列の語から受け取る割合。列は左から順に：", "How much the token of a row takes; the columns, from the left: "
        )
        for side in dict.fromkeys(each.columns for each in found.layers):
            console.print(f"{told}{' '.join(map(_name, found.side(side)))}", markup=False, highlight=False)
        console.print(f"{steps}  {less}", markup=False, highlight=False)


def _compact(console: Console, title: str, rows: list[str], columns: list[str], layer: Layer, first: int) -> None:
    """A row a token, a column a head; as many heads side by side as there is room for."""
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    matrices = layer.heads.tolist()
    room = console.width - max(map(cell_len, [*rows, "トークン"])) - 4
    width = max(len(columns), len(f"{Words('ヘッド', 'head')} {first + len(matrices)}") + 3)
    beside = max(1, room // (width + 3))
    for start in range(0, len(matrices), beside):
        part = matrices[start : start + beside]
        table = Table(title=Text(title), title_justify="left")
        table.add_column(str(Words("トークン", "token")), no_wrap=True)
        for number in range(start, start + len(part)):
            table.add_column(f"{Words('ヘッド', 'head')} {first + number}", no_wrap=True, min_width=len(columns))
        for i, name in enumerate(rows):
            table.add_row(Text(name), *(Text("".join(map(_shade, heads[i]))) for heads in part))
        console.print(table)


def _in_percent(console: Console, title: str, rows: list[str], columns: list[str], layer: Layer) -> None:
    """Every share of one head; columns for which there is no room come in a table below."""
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    matrix = layer.heads[0].tolist()
    room = console.width - max(map(cell_len, [*rows, "トークン"])) - 4
    widths = [max(4, cell_len(name)) + 3 for name in columns]
    start = 0
    while start < len(columns):
        stop = start + 1
        while stop < len(columns) and sum(widths[start : stop + 1]) <= room:
            stop += 1
        table = Table(title=Text(title), title_justify="left")
        table.add_column(str(Words("トークン", "token")), no_wrap=True)
        for name in columns[start:stop]:
            table.add_column(Text(name), justify="right", no_wrap=True, min_width=4)
        for name, shares in zip(rows, matrix, strict=True):
            table.add_row(Text(name), *(f"{share:.0%}" if share else "" for share in shares[start:stop]))
        console.print(table)
        start = stop


def _shade(share: float) -> str:
    return next(shade for least, shade in SHADES if share >= least) if share else " "


def _name(token: str) -> str:
    """A token that cannot be seen is written as its escape."""
    return repr(token)[1:-1] if not token or token.isspace() or not token.isprintable() else token


def _draw(found: Attention, text: str, file: Path) -> None:
    """Raises ContextError for a picture that nothing opens, SpaceError where it cannot be written."""
    cells = sum(each.heads.numel() for each in found.layers)
    if cells > CELLS:
        raise ContextError(
            Words("注意の図を描こうとしました。", "Drawing the attention."),
            found=Words(f"升目が {cells:,} あり、{CELLS:,} までです。", f"There are {cells:,} cells; a picture holds {CELLS:,}."),
            todo=Words("--layer か --head で絞るか、文章を短くしてください。", "Choose a --layer or a --head, or shorten the text."),
        )
    from tsuzuri.recipe.heat import Heat, heat_maps  # noqa: PLC0415

    maps = [
        [
            Heat(
                f"{Words('層', 'layer')} {each.layer}{Words('、ヘッド', ', head')} {number}{AGAINST[each.kind, each.rows]}",
                *_names(found, each),
                heads,
            )
            for number, heads in enumerate(each.heads.tolist(), found.first)
        ]
        for each in found.layers
    ]
    try:
        file.write_text(heat_maps(text, maps), encoding="utf-8")
    except OSError as error:
        raise SpaceError(
            Words(f"{file} に図を書こうとしました。", f"Writing the picture {file}."),
            found=Words(f"書けません（{why(error).ja}）。", f"It cannot be written ({why(error).en})."),
            todo=Words("場所と権限を確かめてください。", "Check the place and the permissions."),
        ) from error


def _names(found: Attention, layer: Layer) -> tuple[list[str], list[str]]:
    return list(map(_name, found.side(layer.rows))), list(map(_name, found.side(layer.columns)))
