"""モデルを、他のソフトウェアで読める形に書き出して確かめます。 / Export a model for other software, and check what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tsuzuri.errors import Words

if TYPE_CHECKING:
    from tsuzuri.recipe.hand_over import Format


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["hf", "gguf", "peft"]), default="hf", show_default=True, help="形式 / format")
@click.option(
    "--type",
    "stored",
    metavar="TYPE",
    help="数値の型：hf は float32、bfloat16、float16、gguf は f32、f16、bf16、q8_0、q4_0 / number type: of hf float32, bfloat16, float16; of gguf f32, f16, bf16, q8_0, q4_0",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="書き出すディレクトリ / directory to write")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    help="許容する差（KL、ナット/トークン。既定は型ごと） / largest difference allowed (KL, nats a token); unless given, by type",
)
@click.option("--base", type=click.Path(path_type=Path), help="peft：学習を始めたときのモデル / peft: the model that training began from")
@click.option("--rank", type=click.IntRange(1, 4096), help="peft：アダプタのランク（既定は 8） / peft: rank of the adapter, 8 unless given")
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で / the result as JSON")
def command(
    model: Path, to: Format, stored: str | None, out: Path, tolerance: float | None, base: Path | None, rank: int | None, as_json: bool
) -> None:
    """モデルのディレクトリを、Hugging Face 形式、GGUF、または元のモデルとの違いだけの PEFT アダプタに書き出します。書いたものを読み直し、ロジットと生成結果を元のモデルと比べ、
    差を README.md に記します。許容を超えると何も残さずエラーになります。 / Write a model directory in Hugging Face's layout, as
    GGUF, or as a PEFT adapter of what distinguishes it from a base model. What was written is read back, logits and a transcript are compared with the model as it was, and the difference is
    written into README.md. Above the tolerance nothing is left but the error.

    例：tsuzuri export runs/tiny/model --to gguf --type q8_0 --out out/tiny-gguf / For example: tsuzuri export runs/tiny/model --to
    gguf --type q8_0 --out out/tiny-gguf"""
    from tsuzuri.recipe import hand_over  # noqa: PLC0415  torch loads here

    if to == "peft":
        if base is None or stored is not None:
            words = Words("--to peft には --base が要り、--type は使えません。", "--to peft needs --base and takes no --type.")
            raise click.UsageError(str(words))
        handed = hand_over.write_adapter(model, out, base=base, rank=rank or 8, tolerance=tolerance)
    elif base is not None or rank is not None:
        raise click.UsageError(
            str(Words("--base と --rank は --to peft と一緒に使ってください。", "Use --base and --rank with --to peft."))
        )
    else:
        handed = hand_over.write(model, out, to=to, stored=stored, tolerance=tolerance)
    if as_json:
        click.echo(json.dumps(handed.as_json(), ensure_ascii=False))
        return
    size = f"{handed.bytes / 1e6:,.1f} MB"
    click.echo(
        str(
            Words(
                f"{handed.directory} に書き出しました（{handed.format}、{handed.stored}、{size}）。",
                f"Wrote {handed.directory} ({handed.format}, {handed.stored}, {size}).",
            )
        )
    )
    click.echo(f"  {Words('読み直した差', 'read back and compared')}: {handed.difference.says}")
