"""GGUF ファイルか PEFT アダプタのモデルを取り込みます。 / Take in the model of a GGUF file or a PEFT adapter."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tsuzuri.errors import Words


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="書き出すディレクトリ / directory to write")
@click.option("--base", type=click.Path(path_type=Path), help="アダプタの元のモデル / the base model of an adapter")
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で / the result as JSON")
def command(file: Path, out: Path, base: Path | None, as_json: bool) -> None:
    """GGUF（f32、f16、bf16、q8_0、q4_0。llama、qwen2、qwen3、gpt2）を、float32 の Hugging Face 形式のディレクトリにします。
    FILE が PEFT アダプタのディレクトリなら、--base のモデルの重みに合わせます。読み直してロジットが同じであることを確かめます。 / Make a directory in Hugging Face's layout, in float32, of a GGUF file (f32, f16,
    bf16, q8_0, q4_0; llama, qwen2, qwen3, gpt2). Where FILE is the directory of a PEFT adapter, it is
    merged into the model of --base. It is read back and its logits are compared.

    例：tsuzuri import model.q8_0.gguf --out models/model / For example: tsuzuri import model.q8_0.gguf --out models/model"""
    from tsuzuri.recipe import hand_over  # noqa: PLC0415  torch loads here

    if file.is_dir() != (base is not None):
        words = Words("--base は、FILE がアダプタのディレクトリのときに要ります。", "--base goes with the directory of an adapter as FILE.")
        raise click.UsageError(str(words))
    handed = hand_over.take_in(file, out) if base is None else hand_over.take_in_adapter(file, out, base=base)
    if as_json:
        click.echo(json.dumps(handed.as_json(), ensure_ascii=False))
        return
    click.echo(str(Words(f"{handed.directory} に取り込みました。", f"Took it in as {handed.directory}.")))
    click.echo(str(Words(f"話しかける：tsuzuri chat --model {out}", f"Talk to it: tsuzuri chat --model {out}")))
