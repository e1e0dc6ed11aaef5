"""コマンドの部屋 (+)：一つのファイルが一つの動詞。 / Commands room (+): one file, one verb.

`tsuzuri VERB` runs `tsuzuri/commands/VERB.py: command`, a click command.
A verb is imported only when it is asked for, so `--help` loads neither torch nor rich. The first line of
each file's docstring is its help line: 「日本語。 / English.」
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import click

from tsuzuri import __version__
from tsuzuri.errors import StopRequested, TsuzuriError, Words, language
from tsuzuri.folder import find, names


class Verbs(click.Group):
    """The verbs of this folder, found by file name and imported one at a time."""

    def list_commands(self, context: click.Context) -> list[str]:
        return names(__name__)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        command = find(__name__, name).command
        assert isinstance(command, click.Command), f"commands/{name}.py must define `command`"
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(str(Words("できること", "Verbs"))):
            formatter.write_dl([(name, help_line(name)) for name in self.list_commands(context)])


def help_line(name: str) -> str:
    """The reader's half of the first docstring line of a verb's file, read without importing it."""
    source = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    line = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    ja, _, en = line.partition(" / ")
    return ja if language() == "ja" or not en else en


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
        error.show()
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
