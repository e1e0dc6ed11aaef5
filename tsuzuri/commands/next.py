"""次に来る語や、隠した語の確率を表にします。 / Show how probable each next, or each hidden, token is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.commands._model import DEFAULT, model_options, open_model
from tsuzuri.commands._sampling import sampling_options
from tsuzuri.errors import Words

if TYPE_CHECKING:
    from tsuzuri.chat.labels import Candidate

BAR = 24  # characters of a probability of 1


@click.command()
@click.argument("text")
@model_options
@click.option("--top", default=10, show_default=True, help=str(Words("表示する候補の数", "how many candidates to show")))
@sampling_options(only=("temperature", "top_k", "top_p", "min_p", "typical_p", "logit_bias", "repetition_penalty"))
@click.option("--json", "as_json", is_flag=True, help=str(Words("結果を JSON で", "the result as JSON")))
def command(
    text: str,
    directory: Path | None,
    dtype: str | None,
    quantize: str | None,
    threads: int | None,
    top: int,
    as_json: bool,
    **settings: Any,
) -> None:
    """文章の次に来るトークンを、確からしい順に示します。モデルそのものの確率と、温度や top-k、top-p をかけた後の確率が並びます。 / The
    tokens that may come next, most probable first: the model's own probability, and that under temperature, top-k and top-p.

    隠した語を当てるエンコーダでは、文章の ○○ や [MASK] に入るトークンを、一つの ○○ につき一つの表にします。 / With an encoder that
    guesses hidden tokens, a table for each ○○ or [MASK] of the text: what may stand there.

    例：tsuzuri next "今日の天気は" --temperature 0.7 --top-p 0.9 ／ tsuzuri next "太陽は東から○○" --model エンコーダ / For example: tsuzuri next "今日の天気は" --temperature 0.7 --top-p 0.9; tsuzuri next "太陽は東から○○" --model ENCODER"""  # fmt: skip
    from tsuzuri.engine.sampling import Sampling  # noqa: PLC0415

    sampling = Sampling(**settings)
    from tsuzuri.chat import labels  # noqa: PLC0415  torch loads here

    if labels.holds_encoder(directory or DEFAULT):
        if quantize is not None:
            raise click.UsageError(str(Words("エンコーダに --quantize は使えません。", "--quantize is not for encoders.")))
        tables = labels.load(directory or DEFAULT, dtype=dtype, threads=threads).fill(text, top, sampling)
        if as_json:
            click.echo(json.dumps([[asdict(row) for row in rows] for rows in tables], ensure_ascii=False))
        else:
            for number, rows in enumerate(tables, 1):
                _show(rows, str(Words(f"{number} 番目の ○○", f"hidden token {number}")))
        return
    rows = open_model(directory, dtype, quantize, threads).next(text, top, sampling)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], ensure_ascii=False))
    else:
        _show(rows)


def _show(rows: list[Candidate], title: str | None = None) -> None:
    """A table that says the same with and without colour."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    columns = (
        Words("順位", "rank"),
        Words("番号", "id"),
        Words("トークン", "token"),
        Words("元の確率", "probability"),
        Words("設定後", "sampled"),
    )
    table = Table(*map(str, columns), "", title=title)
    for column in (0, 1, 3, 4):
        table.columns[column].justify = "right"
    for rank, row in enumerate(rows, 1):
        bar = "█" * round(BAR * row.sampled) or ("▏" if row.sampled else "")
        style = None if row.sampled else "dim"
        shown = repr(row.text)[1:-1] if row.text.isspace() or not row.text.isprintable() else row.text
        table.add_row(
            str(rank), str(row.id), shown, f"{row.probability:.2%}", f"{row.sampled:.2%}" if row.sampled else "—", bar, style=style
        )
    console = Console()
    console.print(table, markup=False)
    total = sum(row.probability for row in rows)
    console.print(
        str(
            Words(
                f"上の {len(rows)} 候補で、元の確率の {total:.1%} を占めます。", f"These {len(rows)} hold {total:.1%} of the probability."
            )
        )
    )
