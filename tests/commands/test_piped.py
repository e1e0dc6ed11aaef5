"""What comes through a pipe is read whole, as UTF-8, or refused with the reason."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from tsuzuri.commands import _piped
from tsuzuri.errors import InputError


@click.command()
def echo() -> None:
    click.echo(_piped.piped(), nl=False)


def run(data: bytes) -> str:
    result = CliRunner().invoke(echo, input=data)
    if result.exception:
        raise result.exception
    return result.stdout


def test_all_of_it_without_the_byte_order_mark() -> None:
    assert run("一行目\n二行目🗾".encode()) == "一行目\n二行目🗾"
    assert run("\ufeffあ".encode()) == "あ"


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "空"), ("日本語".encode("cp932"), "UTF-8"), (b"abc\xe3\x81", "3 バイト目"), (b"\x00\xff\xfe" * 9, "UTF-8")],
    ids=["empty", "cp932", "half a character", "binary"],
)
def test_what_is_no_text_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        run(data)


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_piped, "MAX_BYTES", 1 << 20)
    assert len(run(b"a" * (1 << 20))) == 1 << 20
    with pytest.raises(InputError, match="1 MiB"):
        run(b"a" * ((1 << 20) + 1))
