"""文章を読んで整え、重複を除き、学習用と検証用に分け、何を除いたかを知らせます。 / Clean and deduplicate text, split off validation, tell what was dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.errors import SpaceError, Words

if TYPE_CHECKING:
    from tsuzuri.text.corpus.build import CorpusSettings, Report
    from tsuzuri.text.fast import FastTokenizer
    from tsuzuri.text.shards import Manifest


@click.group()
def command() -> None:
    """文章の集まり（コーパス）を作ります。 / Make a corpus."""


@command.command("build")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="出力先 / where to write")
@click.option("--tokenizer", "tokenizer", type=click.Path(path_type=Path), help="指定すると、トークンにもします / also write token ids")
@click.option(
    "--normalise", type=click.Choice(["none", "nfc", "nfkc"]), default="nfc", show_default=True, help="文字の正規化 / Unicode form"
)
@click.option("--min-characters", default=50, show_default=True, help="これより短い文書は除く / leave out shorter documents")
@click.option("--validation-fraction", default=0.02, show_default=True, help="検証用に分ける割合 / held out for validation")
@click.option(
    "--near-duplicate-threshold",
    default=0.8,
    show_default=True,
    help="類似度がこの値以上の文書は除く（0 で無効） / resemblance to drop from; 0: off",
)
@click.option("--max-bytes", type=int, help="残す文章の上限（バイト。偏りなく選ぶ） / keep a fair sample of at most this")
@click.option("--seed", default=0, show_default=True, help="選び方と分け方の種 / of the sample and the split")
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で / print the report as JSON")
def build_corpus(inputs: tuple[str, ...], out: Path, tokenizer: Path | None, as_json: bool, **settings: Any) -> None:
    """.txt と .jsonl（.zst、.gz でも可）、.parquet を読み、OUT/text に書きます。--tokenizer を付けると OUT/shards にも書きます。 /
    Read .txt and .jsonl (also .zst, .gz) and .parquet, write OUT/text and, with --tokenizer, OUT/shards.

    例：tsuzuri corpus build sample/pretrain --out corpus / For example: tsuzuri corpus build sample/pretrain --out corpus"""
    from dataclasses import asdict  # noqa: PLC0415

    from tsuzuri.text import fast  # noqa: PLC0415
    from tsuzuri.text.corpus.build import CorpusSettings  # noqa: PLC0415

    encoder = fast.load(tokenizer) if tokenizer else None  # first: a wrong one should not be found out at the end
    report, shards = _make(CorpusSettings(inputs=list(inputs), **settings), out, encoder)
    if as_json:
        made = {part: asdict(manifest) for part, manifest in shards.items()}
        click.echo(json.dumps({**asdict(report), "shards": made}, ensure_ascii=False))
    else:
        _show(report, shards, out)


def _make(settings: CorpusSettings, out: Path, encoder: FastTokenizer | None) -> tuple[Report, dict[str, Manifest]]:
    """Text and shards appear together, so that no shards of an older text stay beside a new one."""
    from tsuzuri import directory  # noqa: PLC0415
    from tsuzuri.text.corpus import output  # noqa: PLC0415
    from tsuzuri.text.corpus.build import build  # noqa: PLC0415
    from tsuzuri.text.corpus.read import files  # noqa: PLC0415

    output.check(out, files([Path(name) for name in settings.inputs]))
    stale = encoder is None and (out / "shards").is_dir()
    try:
        with directory.whole(out) as temporary:
            report = build(settings, temporary / "text", _notice)
            parts = {"train": report.train_documents, "validation": report.validation_documents}
            shards = {part: _shards(temporary, part, encoder) for part, count in parts.items() if encoder and count}
    except SpaceError as error:  # it names the temporary place
        raise SpaceError(Words(f"{out} に書き込もうとしました。", f"Writing {out}."), found=error.found, todo=error.todo) from error
    if stale:
        _notice(Words("前の文章から作ったトークンは、合わなくなるので消しました。", "Removed the shards made from the text before."))
    return report, shards


def _notice(words: Words | str) -> None:
    click.echo(str(words), err=True)


def _shards(out: Path, part: str, encoder: FastTokenizer) -> Manifest:
    from tsuzuri.text import shards  # noqa: PLC0415
    from tsuzuri.text.corpus.read import read  # noqa: PLC0415

    def progress(done: int) -> None:
        if done % (shards.BATCH * 20) == 0:
            _notice(Words(f"{part}：{done:,} 文書をトークンにしました。", f"{part}: {done:,} documents tokenized."))

    return shards.write(out / "shards" / part, read([out / "text" / f"{part}.jsonl.zst"]), encoder, progress=progress)


def _show(report: Report, shards: dict[str, Manifest], out: Path) -> None:
    """For a person: what is there, from where, and what was left out with an example of each."""
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415

    console = Console()
    console.print(_sources(report))
    parts = (
        (Words("学習用", "train"), report.train_documents, report.train_bytes),
        (Words("検証用", "validation"), report.validation_documents, report.validation_bytes),
    )
    for name, documents, size in parts:
        console.print(f"{name}: {documents:,} {Words('文書', 'documents')}, {size / 1e6:.2f} MB", highlight=False)
    if report.encodings:
        found = ", ".join(f"{name} {count:,}" for name, count in sorted(report.encodings.items()))
        console.print(f"{Words('.txt の文字コード', 'encodings of .txt')}: {found}", highlight=False)
    for reason, count in report.dropped.items():
        example = report.examples[reason]
        console.print(f"{_reason(reason)}: {count:,}　{Words('例', 'e.g.')} {escape(_example(example))}", highlight=False)
    for part, manifest in shards.items():
        console.print(f"{part}: {manifest.tokens:,} {Words('トークン', 'tokens')}, {manifest.dtype}", highlight=False)
    console.print(str(Words(f"{out} に書きました。", f"Written to {out}.")), markup=False, highlight=False, soft_wrap=True)


def _sources(report: Report) -> Any:
    from rich.table import Table  # noqa: PLC0415

    table = Table(str(Words("出典", "source")))
    for head in (Words("読んだ文書", "read"), Words("残した文書", "kept"), Words("検証用", "validation"), Words("MB", "MB")):
        table.add_column(str(head), justify="right")
    for source, row in sorted(report.sources.items()):
        table.add_row(source, f"{row['read']:,}", f"{row['kept']:,}", f"{row['validation']:,}", f"{row['bytes'] / 1e6:.2f}")
    return table


def _reason(reason: str) -> str:
    from tsuzuri.text.corpus.clean import REASONS  # noqa: PLC0415

    return f"{Words('除いた文書', 'dropped')}（{REASONS[reason]}）"


def _example(example: dict[str, str]) -> str:
    text = " ".join(example["text"].split())[:40]
    return "".join(f"「{part}」" for part in (example["title"], text) if part) or example["source"]
