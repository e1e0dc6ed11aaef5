"""別の分野の文章から語を学び、モデルの語彙を増やします。 / Extend a model's vocabulary by the words of another field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tsuzuri.errors import Words

if TYPE_CHECKING:
    from tsuzuri.evals.bits import Bits

SHOWN = 20  # new tokens


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option("--tokens", type=click.IntRange(1, 100_000), default=200, show_default=True, help="増やす数 / how many to add")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="書き出すディレクトリ / directory to write")
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で / the result as JSON")
def command(model: Path, inputs: tuple[Path, ...], tokens: int, out: Path, as_json: bool) -> None:
    """文章でよく続くトークンをつなげて新しいトークンにし、埋め込みと出力の行を元のトークンの平均から始めます。十件に一件の文書を
    取り分け、前後のビット毎バイトを測ります。学習はしません。 / Joins tokens that often follow each other in the texts into new ones;
    their rows in embedding and head start from the mean of their pieces. Every tenth document is held out to measure bits per
    byte before and after. Nothing is trained.

    例：tsuzuri extend runs/tiny/model sample/pretrain/law.jsonl.zst --tokens 200 --out out/grown / For example: tsuzuri extend runs/tiny/model sample/pretrain/law.jsonl.zst
    --tokens 200 --out out/grown"""
    from tsuzuri.recipe.extend import grow  # noqa: PLC0415  torch loads here

    grown = grow(model, inputs, tokens, out)
    if as_json:
        click.echo(json.dumps(grown.as_json(), ensure_ascii=False))
        return
    rows = {
        Words("変更前", "before"): grown.before,
        Words("平均から始めた行", "rows from means"): grown.after,
        Words("乱数から始めた行", "random rows"): grown.random_rows,
    }
    few, many = grown.bytes_per_token
    click.echo(str(Words(f"語彙を {grown.vocab_size:,} にしました：{out}", f"The vocabulary is now {grown.vocab_size:,}: {out}")))
    click.echo(f"  {Words('バイト/トークン', 'bytes a token')}: {few:.2f} → {many:.2f}")
    for name, bits in rows.items():
        click.echo(f"  {Words('ビット毎バイト', 'bits per byte')}（{name}）: {_said(bits)}")
    click.echo(f"  {Words('新しい語', 'new tokens')}: {' '.join(repr(token)[1:-1] for token in grown.tokens[:SHOWN])} …")


def _said(bits: Bits) -> str:
    low, high = bits.interval if bits.interval else (bits.bits_per_byte, bits.bits_per_byte)
    return f"{bits.bits_per_byte:.4f} (95 % {low:.4f} … {high:.4f})"
