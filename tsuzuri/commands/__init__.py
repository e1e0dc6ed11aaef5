"""コマンドの部屋 (+)：一つのファイルが一つのコマンド。 / Commands room (+): one file, one verb.

`tsuzuri VERB` runs `tsuzuri/commands/VERB.py: command`, a click command.
A verb is imported only when it is asked for, so `--help` loads neither torch nor rich. The first line of
each file's docstring is its help line: 「日本語。 / English.」
"""

from __future__ import annotations

import ast
import re
import sys
from inspect import cleandoc
from pathlib import Path

import click

from tsuzuri import __version__
from tsuzuri.commands import _click
from tsuzuri.errors import StopRequested, TsuzuriError, Words, language
from tsuzuri.folder import find, names


class Verbs(click.Group):
    """The verbs of this folder, found by file name and imported one at a time."""

    context_class = _click.Context

    def list_commands(self, context: click.Context) -> list[str]:
        return names(__name__)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        command = find(__name__, name).command
        assert isinstance(command, click.Command), f"commands/{name}.py must define `command`"
        return _in_one_language(command)

    def format_help_text(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(_half(self.help or ""))

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(str(Words("できること", "Verbs"))):
            formatter.write_dl([(name, help_line(name)) for name in self.list_commands(context)])


def help_line(name: str) -> str:
    """The reader's half of the first docstring line of a verb's file, read without importing it."""
    source = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    return _half((ast.get_docstring(ast.parse(source)) or "").partition("\n")[0])


def _half(text: str) -> str:
    """The reader's half of 「日本語。 / English.」 on one line; a text that is not in two halves as it is."""
    ja, *en = re.split(r"\s/\s+", text, maxsplit=1)
    return re.sub(r"\n\s*", "", ja) if language() == "ja" or not en else re.sub(r"\n\s*", " ", en[0])


def _in_one_language(command: click.Command) -> click.Command:
    """The same command with its help, and that of its options and subcommands, in the reader's language."""
    command.help = "\n\n".join(_half(part) for part in cleandoc(command.help or "").split("\n\n"))
    command.short_help = command.help.partition("\n")[0]
    command.context_class = _click.Context
    if not any(isinstance(parameter, click.Option) and "--help" in parameter.opts for parameter in command.params):
        told = str(Words("使い方を表示して終わる", "Show this and exit"))
        command.params.append(click.help_option("-h", "--help", help=told)(lambda: None).__click_params__[0])  # type: ignore[attr-defined]
        command.add_help_option = False
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.help:
            parameter.help = _half(parameter.help)
    if isinstance(command, click.Group):
        command.subcommand_metavar = "VERB …"
        for inner in command.commands.values():
            _in_one_language(inner)
    return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tsuzuri")
def cli() -> None:
    """綴り：文章から語へ、語からモデルへ、モデルから対話へ。 / From text to tokens, to a model, to a conversation."""


def main() -> None:
    """The way out of the process: our errors become a message and exit status 2, an interrupt 130.

    Where nobody listens any more (`tsuzuri … | head`), click ends it quietly with 1.
    """
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        _click.show(error)
        sys.exit(error.exit_code)
    except StopRequested as stop:
        click.echo(str(stop), err=True)
        sys.exit(130)
    except TsuzuriError as error:
        click.echo(f"{Words('エラー', 'error')}: {error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo(str(Words("中断しました。", "Interrupted.")), err=True)
        sys.exit(130)
