"""A model's words on a terminal: a control character in them is shown, never obeyed.

In: text of a model. Out: the same, to a file or a pipe; to a terminal with ESC as ␛ and so on, lines and tabs apart.
"""

from __future__ import annotations

import sys

import click

PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | dict.fromkeys(range(127, 160), "�")


def write(text: str) -> None:
    """At once, without a line end."""
    click.echo(text.translate(PICTURES) if sys.stdout.isatty() else text, nl=False)
