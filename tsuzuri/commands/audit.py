"""監査の記録が書き換えられていないことを確かめ、書き出します。 / Verify the audit records and export them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from tsuzuri.commands._store import as_json as print_json
from tsuzuri.commands._store import data_option, day, json_option, opened
from tsuzuri.config import milliseconds
from tsuzuri.errors import MissingError, Words

WRONG = {
    "changed": Words("書き換えられています", "was changed"),
    "forged": Words("このサーバーが書いたものではありません", "was not written by this server"),
    "missing": Words("ここから欠けています", "is missing, and maybe more"),
    "order": Words("前の記録に続いていません", "does not follow the one before"),
    "cut": Words("ここから後が切り取られています", "and what followed has been cut off"),
    "rewritten": Words("アンカーの見たものと違います", "is not what an anchor saw"),
    "tombstone": Words("廃棄の印が偽物です", "is a false tombstone"),
    "anchor": Words("アンカーが偽物です", "is a false anchor"),
    "content": Words("保存した内容が、元のものではありません", "has content that is not what was kept"),
}


@click.group()
def command() -> None:
    """監査の記録は、一つ前の記録のハッシュでつながっています。アンカーを別の場所に残すと、末尾の切り取りや全体の書き直しも分かります。
    / Each audit record holds the hash of the one before. With an anchor kept elsewhere, a cut end and a rewritten whole show, too."""


@command.command()
@click.option(
    "--anchors", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="照合するアンカー / anchors to compare with"
)
@data_option
@json_option
@click.pass_context
def verify(context: click.Context, anchors: Path | None, data: Path | None, as_json: bool) -> None:
    """すべての記録を読んで確かめます。問題があれば終了コードは 1 です。
    / Reads and checks every record. Where something is wrong the exit status is 1."""
    with opened(data) as db:
        from tsuzuri.store import audit  # noqa: PLC0415

        report = audit.verify(db, audit.read_anchors(anchors) if anchors else ())
    if as_json:
        print_json({"sound": report.sound, **asdict(report)})
    else:
        for found in report.findings:
            wrong = WRONG[found.wrong]
            click.echo(str(Words(f"{found.seq} 番：{wrong.ja}。", f"Record {found.seq} {wrong.en}.")))
        said = Words("問題はありません", "nothing is wrong") if report.sound else Words("問題があります", "something is wrong")
        click.echo(
            str(
                Words(
                    f"{report.records} 件を確かめました。{said.ja}（アンカーの保証は {report.anchored} 番まで、廃棄は {report.pruned} 番まで）。",
                    f"{report.records} records checked: {said.en} (anchors vouch up to {report.anchored}, pruned up to {report.pruned}).",
                )
            )
        )
        if report.sound and not anchors:
            click.echo(
                str(
                    Words(
                        "アンカーなしでは、末尾の切り取りと全体の書き直しは分かりません。tsuzuri audit anchor を使ってください。",
                        "Without an anchor, a cut end and a rewritten whole do not show. Use tsuzuri audit anchor.",
                    )
                ),
                err=True,
            )
    context.exit(0 if report.sound else 1)


@command.command()
@data_option
def export(data: Path | None) -> None:
    """記録を JSONL で標準出力に書きます。会話の内容は含みません。 / Writes the records to standard output as JSONL, without contents."""
    with opened(data) as db:
        from tsuzuri.store import audit  # noqa: PLC0415

        for line in audit.export(db):
            click.echo(line)


@command.command()
@click.argument("number", type=click.IntRange(1))
@data_option
def content(number: int, data: Path | None) -> None:
    """NUMBER 番の記録に残した内容（依頼と答えの JSON）を表示します。読んだことも記録します。
    / Prints what was kept with record NUMBER, the request and the answer as JSON. That it was read is recorded, too."""
    with opened(data) as db:
        from tsuzuri.store import audit  # noqa: PLC0415

        found = audit.content(db, number)
        if found is not None:
            audit.append(db, "audit.content_read", {"by": audit.OPERATOR, "seq": number})
    if found is None:
        raise MissingError(
            Words(f"{number} 番の内容を読もうとしました。", f"Reading the content of record {number}."),
            found=Words("残していないか、消去されています。", "It was not kept, or has been erased."),
            todo=Words(
                "tsuzuri serve --audit-content で、これからの内容を残せます。", "tsuzuri serve --audit-content keeps those to come."
            ),
        )
    click.echo(found)


@command.command()
@click.argument("number", type=click.IntRange(1))
@data_option
@json_option
def erase(number: int, data: Path | None, as_json: bool) -> None:
    """NUMBER 番の記録に残した内容を消去します。記録のつながりは保たれます。
    / Erases what was kept with record NUMBER; the chain remains whole."""
    with opened(data) as db:
        from tsuzuri.store import audit  # noqa: PLC0415

        erased = audit.erase_content(db, number)
    if as_json:
        print_json({"erased": erased})
        return
    click.echo(
        str(Words("消去しました。", "Erased.") if erased else Words("残っている内容はありません。", "There is no content to erase."))
    )


@command.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@data_option
@json_option
def anchor(file: Path, data: Path | None, as_json: bool) -> None:
    """今の件数と最後のハッシュを FILE に 1 行書き足します。FILE は、データベースを書き換えられる人が触れない場所に置いてください。
    / Adds a line to FILE: how many records there are, and the last hash. Keep FILE where whoever may write the database may not."""
    with opened(data) as db:
        from tsuzuri.store import audit  # noqa: PLC0415

        made = audit.anchor(db, file)
    if as_json:
        print_json(asdict(made))
        return
    click.echo(
        str(Words(f"{made.seq} 番まで記しました（{day(made.at)}）：{made.hash}", f"Noted up to {made.seq} ({day(made.at)}): {made.hash}"))
    )


@command.command()
@click.option("--older-than", required=True, metavar="TIME", help="これより古い記録。例：365d / records older than this: 365d")
@data_option
@json_option
def prune(older_than: str, data: Path | None, as_json: bool) -> None:
    """古い記録を廃棄し、署名した印を残します。残りの記録は、引き続き確かめられます。
    / Takes away old records and leaves a signed mark; the rest can still be verified."""
    length = milliseconds(older_than)
    with opened(data) as db:
        from tsuzuri.store import audit  # noqa: PLC0415
        from tsuzuri.store.tables import now_ms  # noqa: PLC0415

        count = audit.prune(db, now_ms() - length)
    if as_json:
        print_json({"pruned": count})
        return
    click.echo(str(Words(f"{count} 件を廃棄しました。", f"{count} records taken away.")))
