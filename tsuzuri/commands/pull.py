"""モデルをハブから取り寄せ、すべてのハッシュを確かめて、ディレクトリに収めます。 / Download a model from a hub into a directory, every hash checked."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.errors import StopRequested, Words

if TYPE_CHECKING:
    from tsuzuri.hub.listing import Repository
    from tsuzuri.hub.pull import Offer, Pulled, Watch

FAMILIES = "tsuzuri.model.families"
SHOWN = 8  # names of skipped files of one kind on the screen; --json has them all


@click.command()
@click.argument("name", metavar="OWNER/NAME[@REVISION]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="出力先（既定は models/所有者--名前） / where to; models/OWNER--NAME unless given",
)
@click.option("--gguf", multiple=True, metavar="FILE", help="safetensors の代わりに取り込む GGUF / take this GGUF instead of safetensors")
@click.option(
    "--endpoint",
    metavar="URL",
    help="ハブの接続先（既定は HF_ENDPOINT か公式のハブ） / the hub; HF_ENDPOINT or the official one unless given",
)
@click.option("--dry-run", is_flag=True, help="何を取り寄せるかを示すだけで、何も書かない / only say what would come; write nothing")
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で / the result as JSON")
def command(name: str, out: Path | None, gguf: tuple[str, ...], endpoint: str | None, dry_run: bool, as_json: bool) -> None:
    """モデルのリポジトリから、重み（safetensors）と、使うのに要る JSON などを取り寄せます。pickle とプログラムは取り込みません。止めても、
    切れても、同じコマンドで続きから始まります。 / Download the weights (safetensors) of a model repository, and the JSON needed to use
    them. Pickles and code are not taken. Stopped or cut off, the same command goes on.

    非公開のリポジトリには、環境変数 HF_TOKEN にトークンを入れてください。例：tsuzuri pull llm-jp/llm-jp-3-440m / For a private
    repository put a token into HF_TOKEN. For example: tsuzuri pull llm-jp/llm-jp-3-440m"""
    from tsuzuri.hub import listing, pull, wire  # noqa: PLC0415

    repository = listing.repository(name)
    target = out or Path("models") / repository.folder
    address = endpoint or os.environ.get("HF_ENDPOINT") or wire.HUB
    with wire.Wire(address, os.environ.get("HF_TOKEN")) as hub, _screen() as watch, _stopping(repository):
        offer = pull.look(hub, repository, gguf, watch)
        if dry_run:
            _tell_offer(offer, target, pull.left(offer, target), as_json)
            return
        _say_family(offer.listing.model_type, watch)
        pulled = pull.pull(hub, offer, target, watch)
    _tell_pulled(offer, pulled, gguf, as_json)


@contextmanager
def _stopping(repository: Repository) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise StopRequested(
            Words(f"{repository} の取り寄せを止めました。", f"Stopped pulling {repository}."),
            found=Words("ここまでに届いた分は残っています。", "What has come so far is kept."),
            todo=Words("同じコマンドで続きから始まります。", "The same command goes on from there."),
        ) from None


@contextmanager
def _screen() -> Iterator[Watch]:
    """On a terminal a bar for all bytes, on standard error; elsewhere one line a file."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415

    from tsuzuri.hub.listing import File  # noqa: PLC0415
    from tsuzuri.hub.pull import Watch  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task("", total=None)

    class Screen(Watch):
        def begin(self, bytes: int) -> None:
            progress.update(task, total=bytes)

        def file(self, file: File) -> None:
            progress.update(task, description=file.name)
            if not console.is_terminal:
                self.notice(Words(f"{file.name}（{file.bytes:,} バイト）", f"{file.name} ({file.bytes:,} bytes)"))

        def advance(self, bytes: int) -> None:
            progress.advance(task, bytes)

        def settle(self) -> None:
            progress.update(task, description=str(Words("確かめています", "verifying")))

        def notice(self, words: Words) -> None:
            console.print(str(words), markup=False, highlight=False, soft_wrap=True)

    with progress:
        yield Screen()


def _tell_offer(offer: Offer, out: Path, left: int, as_json: bool) -> None:
    """What would come."""
    from rich.console import Console  # noqa: PLC0415
    from rich.filesize import decimal  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if as_json:
        found = {**_as_json(offer, out), "left_bytes": left, "model_type": offer.listing.model_type}
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    table = Table(str(Words("ファイル", "file")))
    table.add_column(str(Words("大きさ", "size")), justify="right")
    for file in offer.choice.taken:
        table.add_row(Text(file.name), decimal(file.bytes))
    Console().print(table)
    _tell_skipped(offer)
    total, rest = decimal(offer.choice.bytes), decimal(left)
    click.echo(
        Words(
            f"{offer.repository}（コミット {offer.listing.commit}）の {total} のうち、あと {rest} を {out} に取り寄せます。",
            f"{rest} of {total} of {offer.repository} (commit {offer.listing.commit}) would come to {out}.",
        )
    )


def _tell_pulled(offer: Offer, pulled: Pulled, gguf: tuple[str, ...], as_json: bool) -> None:
    """What came, what did not, and how to use it."""
    from rich.filesize import decimal  # noqa: PLC0415

    kind = _model_type(pulled.out)
    if as_json:
        counts = {"received_bytes": pulled.received, "resumed_bytes": pulled.resumed, "seconds": round(pulled.seconds, 3)}
        family = {"model_type": kind, "known_family": kind in _families()}
        click.echo(json.dumps({**_as_json(offer, pulled.out), **counts, "unchanged": pulled.unchanged, **family}, ensure_ascii=False))
        return
    _tell_skipped(offer)
    size, came, commit = decimal(offer.choice.bytes), decimal(pulled.received), offer.listing.commit[:12]
    if pulled.unchanged:
        done = Words(f"{pulled.out} に、もうそろっています（コミット {commit}）。", f"{pulled.out} has it all already (commit {commit}).")
    else:
        done = Words(
            f"{pulled.out} に {size} をそろえ、ハッシュを確かめました（コミット {commit}、受信 {came}、{pulled.seconds:.0f} 秒）。",
            f"{size} in {pulled.out}, hashes checked (commit {commit}, {came} received, {pulled.seconds:.0f} s).",
        )
    click.echo(str(done))
    if gguf:
        return
    place = shlex.quote(str(pulled.out))
    if kind in _families():
        click.echo(
            Words(f"系統は {kind} です。使うには：tsuzuri chat --model {place}", f"Its family is {kind}: tsuzuri chat --model {place}")
        )
    else:
        click.echo(str(_unknown(kind)))


def _tell_skipped(offer: Offer) -> None:
    """By kind and name."""
    from tsuzuri.hub.listing import KINDS  # noqa: PLC0415

    there: dict[str, list[str]] = {}
    for name, kind in offer.choice.skipped:
        there.setdefault(kind, []).append(name)
    for kind, names in there.items():
        more = len(names) - SHOWN
        ja, en = (f"、ほか {more} 個", f" and {more} more") if more > 0 else ("", "")
        ja, en = f"{'、'.join(names[:SHOWN])}{ja}", f"{', '.join(names[:SHOWN])}{en}"
        click.echo(str(Words(f"取り込まないもの（{KINDS[kind].ja}）：{ja}", f"Not taken ({KINDS[kind].en}): {en}")), err=True)


def _as_json(offer: Offer, out: Path) -> dict[str, Any]:
    return {
        "repository": str(offer.repository),
        "revision": offer.repository.revision,
        "commit": offer.listing.commit,
        "out": str(out),
        "files": [{"name": file.name, "bytes": file.bytes, file.algorithm: file.hash} for file in offer.choice.taken],
        "skipped": dict(offer.choice.skipped),
        "bytes": offer.choice.bytes,
    }


def _say_family(kind: str | None, watch: Watch) -> None:
    """Before hours of waiting: what the hub says of the family, when it is one that cannot be used here."""
    if kind is not None and kind not in _families():
        watch.notice(_unknown(kind))


def _unknown(kind: str | None) -> Words:
    known = ", ".join(_families())
    if kind is None:
        return Words(
            "config.json に系統（model_type）がないので、tsuzuri では開けません。",
            "config.json names no family (model_type): tsuzuri cannot open it.",
        )
    return Words(
        f"系統 {kind[:80]!r} は、まだ tsuzuri では開けません（開けるのは {known}）。ほかのソフトウェアでは使えます。",
        f"tsuzuri cannot open the family {kind[:80]!r} yet (there is {known}). Other software can.",
    )


def _families() -> list[str]:
    from tsuzuri.folder import names  # noqa: PLC0415

    return names(FAMILIES)


def _model_type(out: Path) -> str | None:
    """Of config.json, which was fetched and is as untrusted as before."""
    from tsuzuri.hub.pull import read_object  # noqa: PLC0415

    kind = read_object(out / "config.json").get("model_type")
    return kind if isinstance(kind, str) else None
