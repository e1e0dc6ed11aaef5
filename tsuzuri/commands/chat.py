"""モデルと会話します。 / Talk with a model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.commands._model import lookup_option, model_options, open_model
from tsuzuri.commands._piped import piped
from tsuzuri.commands._sampling import form_options, sampling_options, stop_option
from tsuzuri.commands._screen import write
from tsuzuri.errors import TsuzuriError, Words
from tsuzuri.types import Chat, Done, Event, Finish, Message, Notice, Options, Text, Usage

if TYPE_CHECKING:
    from tsuzuri.chat.local import LocalModel

CONVERSATION = {"temperature": 0.7, "top_p": 0.95}  # equals chat.local.CONVERSATION, whose import would load torch


@click.command()
@click.option("-m", "--message", help=str(Words("一問だけ聞いて終わる", "ask this one question and leave")))
@click.option("--system", help=str(Words("最初に与える指示", "instructions that come first")))
@model_options
@lookup_option
@click.option(
    "--url",
    metavar="URL",
    help=str(
        Words(
            "OpenAI 互換サーバーのモデルと話す（--model にはそこでの名前を）",
            "talk with a model of an OpenAI-compatible server; --model is its name there",
        )
    ),
)
@click.option(
    "--provider",
    metavar="NAME",
    help=str(
        Words(
            "その提供元の形式で話す（anthropic、gemini、openai など。--model は必須）",
            "talk in the form of this provider, such as anthropic, gemini or openai; --model is needed",
        )
    ),
)
@click.option(
    "--key", envvar="TSUZURI_KEY", metavar="KEY", help=str(Words("そのサーバーの API キー（TSUZURI_KEY）", "its API key; TSUZURI_KEY"))
)
@sampling_options(CONVERSATION, without=("logprobs",))  # nothing here would show them
@form_options
@stop_option
@click.option("--json", "as_json", is_flag=True, help=str(Words("一問一答の結果を JSON で", "the one answer as JSON")))
def command(
    message: str | None,
    system: str | None,
    directory: Path | None,
    dtype: str | None,
    quantize: str | None,
    threads: int | None,
    lookup: int,
    url: str | None,
    provider: str | None,
    key: str | None,
    stop: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """モデルと会話します。Ctrl-C で答えを止め、もう一度押すか Ctrl-D、/quit で終わります。 / Talk with a model. Ctrl-C stops the
    answer; once more, Ctrl-D or /quit ends the conversation.

    標準入力から渡された文章には、一度だけ答えます。例：tsuzuri chat -m "こんにちは" / Text piped in is answered once. For
    example: tsuzuri chat -m "こんにちは" """
    elsewhere = url is not None or provider is not None
    if elsewhere and (dtype or quantize or threads or lookup):
        raise click.UsageError(
            str(
                Words(
                    "--url や --provider と一緒には使えません：--dtype --quantize --threads --lookup",
                    "Not with --url or --provider: --dtype --quantize --threads --lookup",
                )
            )
        )
    from tsuzuri.chat.settings import options  # noqa: PLC0415
    from tsuzuri.chat.stopping import Stopping  # noqa: PLC0415

    asked = options(stop, _given(settings) if provider else settings)  # what nobody asked for, some services refuse
    Stopping(asked.stop)  # what it would refuse later it refuses now
    question = piped() if message is None and not sys.stdin.isatty() else message
    if as_json and question is None:
        raise click.UsageError(str(Words("--json は -m か標準入力と一緒に使ってください。", "Use --json with -m or a pipe.")))
    talk = Talk(
        _elsewhere(provider, url, directory, key) if elsewhere else open_model(directory, dtype, quantize, threads, lookup), asked, system
    )
    if question is None:
        _converse(talk)
    elif as_json:
        click.echo(json.dumps(_as_json(asyncio.run(talk.ask(question, quiet=True))), ensure_ascii=False))
    else:
        asyncio.run(talk.ask(question, last=True))


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Those that the person gave."""
    source = click.get_current_context().get_parameter_source
    return {name: value for name, value in settings.items() if source(name) is not click.core.ParameterSource.DEFAULT}


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A model on another server. Nothing of a long conversation is left out here: it says itself when it has become too much."""

    chat_events: Chat


def _elsewhere(provider: str | None, url: str | None, name: Path | None, key: str | None) -> Elsewhere:
    """The model of that name on another server, or the first that it lists."""
    from tsuzuri.chat import providers  # noqa: PLC0415
    from tsuzuri.chat.providers import openai_compatible  # noqa: PLC0415
    from tsuzuri.folder import find  # noqa: PLC0415

    module = find(providers.__name__, provider or "openai_compatible")
    address = url or module.ADDRESS
    if address is None:
        raise click.UsageError(str(Words(f"--provider {provider} には --url も要ります。", f"--provider {provider} needs --url, too.")))
    if name is None and module is not openai_compatible:
        raise click.UsageError(
            str(Words("--provider には --model（そこでの名前）も要ります。", "--provider needs --model, its name there."))
        )
    model = str(name) if name else asyncio.run(openai_compatible.first_model(address, key))
    return Elsewhere(module.chat(address, model, key))


class Talk:
    """One conversation: what was said so far, and the next answer on the screen."""

    def __init__(self, model: LocalModel | Elsewhere, options: Options, system: str | None) -> None:
        self._model, self._options = model, options
        self._head = [] if system is None else [Message("system", system)]
        self.reset()

    def reset(self) -> None:
        self.messages = list(self._head)

    async def ask(self, question: str, quiet: bool = False, last: bool = False) -> list[Event]:
        """The events of the answer, printed as they come unless `quiet`. Interrupted, what was said stays in the conversation;
        a question that got no answer at all does not, and unless it was the `last` one the person is told."""
        before = self.messages
        self.messages = self._fitting([*before, Message("user", question)])
        events: list[Event] = []
        try:
            async for event in self._model.chat_events(self.messages, self._options):
                events.append(event)
                if not quiet:
                    _show(event)
        finally:
            said = "".join(event.text for event in events if isinstance(event, Text))
            self.messages = [*self.messages, Message("assistant", said)] if said else before
            if not said and not quiet and not last:
                _note(
                    Words(
                        "答えがなかったので、この発言は会話に残しません。", "There was no answer, so the conversation goes on without this."
                    )
                )
        return events

    def _fitting(self, messages: list[Message]) -> list[Message]:
        """The messages that leave room for an answer; whoever is left out is named on the screen."""
        from tsuzuri.chat import history  # noqa: PLC0415

        if isinstance(self._model, Elsewhere):
            return messages
        context = self._model.context_length
        answer = min(self._options.sampling.max_tokens or context // 4, context // 2)
        kept, dropped = history.fit(messages, self._model.count, context - answer)
        if dropped:
            _show(history.notice(dropped))
        return kept


def _converse(talk: Talk) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, PLC0415  editing and history of the input line
    _note(Words("話しかけてください。/help で使い方を表示します。", "Say something. /help shows what else there is."))
    interrupted = False  # the last thing the person did was Ctrl-C
    while True:
        try:
            line = input(str(Words("あなた> ", "you> "))).strip()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            if interrupted:
                return
            interrupted = True
            _note(Words("終わるには、もう一度 Ctrl-C を押してください。", "Press Ctrl-C again to leave."))
            continue
        if line == "/quit":
            return
        interrupted = _turn(talk, line)


def _turn(talk: Talk, line: str) -> bool:
    """One line of the person's; whether Ctrl-C ended it."""
    if not line:
        return False
    if re.fullmatch(r"/[a-z]*", line):
        _order(talk, line)
        return False
    try:
        asyncio.run(talk.ask(line))
    except KeyboardInterrupt:
        click.echo()
        _note(Words("答えを止めました。続けて話せます。", "Stopped. You can go on."))
        return True
    except TsuzuriError as error:
        click.echo(f"{Words('エラー', 'error')}: {error}", err=True)
    return False


def _order(talk: Talk, line: str) -> None:
    if line == "/reset":
        talk.reset()
        _note(Words("会話を最初からやり直します。", "The conversation starts anew."))
        return
    if line != "/help":
        _note(Words(f"{line} というコマンドはありません。", f"There is no {line}."))
    _note(
        Words(
            "/reset 会話を最初からやり直す　/quit 終わる　/help この説明\nCtrl-C 答えを止める（続けて二度で終わる）　Ctrl-D 終わる",
            "/reset start anew   /quit leave   /help this\nCtrl-C stop the answer, twice: leave   Ctrl-D leave",
        )
    )


def _show(event: Event) -> None:
    if isinstance(event, Text):
        write(event.text)
    elif isinstance(event, Notice):
        click.secho(f"（{event.text}）", dim=True, err=True)
    elif isinstance(event, Done):
        click.echo()
        _note(_reason(event.finish))


def _reason(finish: Finish) -> Words | None:
    """What to tell the person about the end of an answer; nothing when it simply ended."""
    if finish == "length":
        return Words("長さの上限に達したので、ここで切れています。", "Cut off here: the limit of its length was reached.")
    return None


def _note(words: Words | None) -> None:
    if words:
        click.secho(f"（{words}）", dim=True, err=True)


def _as_json(events: list[Event]) -> dict[str, object]:
    result: dict[str, object] = {"text": "".join(event.text for event in events if isinstance(event, Text))}
    for event in events:
        if isinstance(event, Usage):
            result["usage"] = asdict(event)
        elif isinstance(event, Done):
            result["finish"] = event.finish
            result |= {"lookup": event.detail["lookup"]} if "lookup" in event.detail else {}
    return result
