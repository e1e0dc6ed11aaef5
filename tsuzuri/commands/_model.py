"""The options that say which model a verb uses, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.errors import MissingError, Words

if TYPE_CHECKING:
    from tsuzuri.chat.local import LocalModel

DEFAULT = Path("runs/tiny/model")  # what `make tiny` writes


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--model, --dtype, --quantize, --threads"""
    for option in (
        click.option("--threads", type=int, help=str(Words("計算に使うスレッド数", "computing threads"))),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16"]),
            help=str(
                Words(
                    "数値の型（既定は保存時の型。この計算機で速く計算できなければ float32）",
                    "number type; unless given as stored, or float32 where that is not fast",
                )
            ),
        ),
        click.option(
            "--quantize",
            type=click.Choice(["q8_0", "q4_0"]),
            help=str(
                Words(
                    "読み込むときに 8 ビット（q8_0）か 4 ビット（q4_0）に量子化する（既定は保存時のまま）",
                    "quantise on loading, to 8 bits (q8_0) or 4 (q4_0); unless given as stored",
                )
            ),
        ),
        directory_option,
    ):
        command = option(command)
    return command


def lookup_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--lookup"""
    words = Words(
        "入力と出力に前に出た続きから、この数までまとめて先読みする（0 は使わない。答えは同じ）",
        "guess up to so many tokens ahead from what stood there before; 0: none; the answer is the same",
    )
    return click.option("--lookup", type=int, default=0, show_default=True, help=str(words))(command)


def directory_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--model"""
    words = Words(f"モデルのディレクトリ（既定は {DEFAULT}）", f"model directory; {DEFAULT} unless given")
    return click.option("--model", "directory", type=click.Path(path_type=Path), metavar="DIR", help=str(words))(command)


def named(directory: Path | None) -> Path:
    """The directory asked for, or the usual one. Raises MissingError when no model is named and none was made."""
    if directory is not None:
        return directory
    if not DEFAULT.is_dir():
        raise MissingError(
            Words("モデルを開こうとしました。", "Opening a model."),
            found=Words(f"--model の指定がなく、{DEFAULT} もまだありません。", f"No --model was given, and there is no {DEFAULT} yet."),
            todo=Words(
                "make tiny で作るか、--model でディレクトリを指定してください。",
                "Make one with make tiny, or name a directory with --model.",
            ),
        )
    return DEFAULT


def open_model(directory: Path | None, dtype: str | None, quantize: str | None, threads: int | None, lookup: int = 0) -> LocalModel:
    """Raises MissingError when no model is named and none was made."""
    from tsuzuri import load  # noqa: PLC0415  torch loads here

    return load(named(directory), dtype=dtype, quantize=quantize, threads=threads, lookup=lookup)
