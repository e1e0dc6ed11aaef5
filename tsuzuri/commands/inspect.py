"""会話データを一トークンずつ、番号と学習の有無つきで表示します。 / Show every token of a conversation, its id and whether it is trained."""

from __future__ import annotations

import json
from contextlib import closing
from itertools import islice
from pathlib import Path

import click


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer",
    "directory",
    type=click.Path(path_type=Path),
    default=Path("runs/tiny/model"),
    show_default=True,
    help="トークナイザかモデルのディレクトリ / directory of a tokenizer or a model",
)
@click.option("--row", default=1, show_default=True, help="何件目か（1 から） / which conversation, from 1")
@click.option("--json", "as_json", is_flag=True, help="JSON で / as JSON")
def command(data: Path, directory: Path, row: int, as_json: bool) -> None:
    """学習の前に、どのトークンが学習されるかを確かめます。学習されるものが一つもない、全部である、
    答えの終わりが学習されない、という会話はエラーになります。 / Before training, see which tokens will be trained. A conversation
    with none, with all, or with an untrained end of the answer is an error."""
    import numpy as np  # noqa: PLC0415

    from tsuzuri.chat import conversations, template  # noqa: PLC0415
    from tsuzuri.errors import InputError, Words  # noqa: PLC0415
    from tsuzuri.text import fast  # noqa: PLC0415
    from tsuzuri.train.objectives import sft  # noqa: PLC0415

    tokenizer = fast.load(directory)
    with closing(conversations.read(conversations.files([str(data)]))) as every:
        found = list(islice(every, row - 1, row)) if row > 0 else []
    if not found:
        raise InputError(
            Words(f"{data} の {row} 件目を見ようとしました。", f"Looking at conversation {row} of {data}."),
            found=Words(f"{row} 件目はありません。", "There are not so many."),
            todo=Words("--row を 1 から件数までの数にしてください。", "Give --row a number from 1 to the count."),
        )
    ids, trained = template.encode_training(tokenizer, found[0].messages, found[0].tools)
    rows = [{"id": id, "text": tokenizer.decode([id]), "trained": bool(on)} for id, on in zip(ids, trained, strict=True)]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        _show(rows)
    sft.check(row, sft.Example(np.asarray(ids), np.asarray(trained, bool)), tokenizer.special["<|im_end|>"])


def _show(rows: list[dict[str, object]]) -> None:
    """A table that says the same with and without colour."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from tsuzuri.errors import Words  # noqa: PLC0415

    table = Table("#", str(Words("番号", "id")), str(Words("トークン", "text")), str(Words("学習", "trained")))
    for number, row in enumerate(rows):
        mark, style = ("●", "bold green") if row["trained"] else ("", "dim")
        table.add_row(str(number), str(row["id"]), repr(row["text"])[1:-1], mark, style=style)
    console = Console()
    console.print(table)
    count = sum(bool(row["trained"]) for row in rows)
    console.print(str(Words(f"{len(rows)} トークンのうち {count} が学習されます。", f"{count} of {len(rows)} tokens are trained.")))
