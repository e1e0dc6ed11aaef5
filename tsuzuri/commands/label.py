"""文章を分類し、名前などの区間や、質問の答えを見つけます。 / Label a text, find names in it, or an answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.commands._piped import from_file, piped
from tsuzuri.errors import ConfigError, Words

if TYPE_CHECKING:
    from tsuzuri.chat.labels import Encoder

SHOWN = 5  # labels


@click.command()
@click.argument("text", required=False)
@click.option(
    "--model",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help=str(Words("エンコーダのディレクトリ", "directory of an encoder")),
)
@click.option("--context", help=str(Words("答えを探す文章", "the text to find the answer in")))
@click.option(
    "--context-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=str(Words("同じく、ファイルから", "the same from a file")),
)
@click.option("--threads", type=int, help=str(Words("計算に使うスレッド数", "computing threads")))
@click.option("--json", "as_json", is_flag=True, help=str(Words("結果を JSON で", "the result as JSON")))
def command(text: str | None, directory: Path, context: str | None, context_file: Path | None, threads: int | None, as_json: bool) -> None:
    """学習した課題に応じて、文章の分類、区間の抽出、文章からの答えの抽出、埋め込みをします。TEXT を省くと標準入力を読みます。 /
    By what the model was trained for: label a text, find stretches in it, find the answer to TEXT in a context, or give
    the vector of a text. Without TEXT, standard input is read.

    例：tsuzuri label "朝食は何時からですか" --model runs/classify/model / For example: tsuzuri label "朝食は何時からですか" --model runs/classify/model"""  # fmt: skip
    asked = str(piped() if text in (None, "-") else text)
    from tsuzuri.chat.labels import load  # noqa: PLC0415  torch loads here

    model = load(directory, threads=threads)
    around = _context(model, context, context_file)
    found = _asked(model, asked, around)
    if as_json:
        click.echo(json.dumps({"text": asked, "task": model.task, **found}, ensure_ascii=False))
    else:
        click.echo(_shown(model, asked, found))


def _context(model: Encoder, context: str | None, file: Path | None) -> str | None:
    """Given exactly where the model needs one."""
    if context is not None and file is not None:
        raise click.UsageError(
            str(Words("--context と --context-file は、どちらか一つです。", "Give one of --context and --context-file."))
        )
    if file is not None:
        context = from_file(file)
    if (context is not None) != (model.task == "extract"):
        needs = model.task == "extract"
        raise ConfigError(
            Words(f"モデル {model.name} に尋ねようとしました。", f"Asking the model {model.name}."),
            found=Words("答えを探す文章がありません。", "There is no text to find the answer in.")
            if needs
            else Words("このモデルは --context を使いません。", "This model has no use for --context."),
            todo=Words("--context か --context-file で渡してください。", "Give it with --context or --context-file.")
            if needs
            else Words("--context を外してください。", "Leave --context out."),
        )
    return context


def _asked(model: Encoder, text: str, context: str | None) -> dict[str, Any]:
    match model.task:
        case "classify":
            return {"labels": [asdict(choice) for choice in model.classify([text])[0]]}
        case "tag":
            return {"spans": [asdict(found) for found in model.tag([text])[0]]}
        case "extract":
            return {"answer": asdict(model.extract(text, str(context)))}
    return {"embedding": model.embed(text).tolist()}


def _shown(model: Encoder, text: str, found: dict[str, Any]) -> str:
    match model.task:
        case "classify":
            return "\n".join(f"{one['label']}  {one['probability']:.3f}" for one in found["labels"][:SHOWN])
        case "tag":
            shown, at = "", 0
            for span in found["spans"]:
                shown += f"{text[at : span['start']]}［{span['text']}／{span['label']}］"
                at = span["stop"]
            return shown + text[at:]
        case "extract":
            answer = found["answer"]
            if answer["text"] is None:
                return str(Words("文章の中に答えが見つかりません。", "There is no answer in the text."))
            place = Words(f"{answer['start'] + 1} 文字目から", f"from character {answer['start'] + 1}")
            return f"{answer['text']}  （{place}、{answer['probability']:.3f}）"
    return " ".join(f"{number:.6f}" for number in found["embedding"])
