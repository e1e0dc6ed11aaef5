"""文章の続きを書かせます。 / Continue a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.commands import _answers
from tsuzuri.commands._answers import answer_options
from tsuzuri.commands._model import lookup_option, model_options, open_model
from tsuzuri.commands._piped import piped
from tsuzuri.commands._sampling import form_options, sampling_options, stop_option
from tsuzuri.commands._screen import write
from tsuzuri.errors import Words
from tsuzuri.types import Done, Event, Text, Token, Usage

if TYPE_CHECKING:
    from tsuzuri.chat.local import LocalModel


@click.command()
@click.argument("text", required=False)
@model_options
@lookup_option
@sampling_options()
@form_options
@stop_option
@answer_options
@click.option(
    "--prompt-logprobs",
    type=click.IntRange(0, 20),
    help=str(Words("入力の各トークンにも、対数確率と候補をこの数だけ添える", "report the input's tokens too, with so many candidates")),
)
@click.option("--json", "as_json", is_flag=True, help=str(Words("結果を JSON で", "the result as JSON")))
def command(
    text: str | None,
    directory: Path | None,
    dtype: str | None,
    quantize: str | None,
    threads: int | None,
    lookup: int,
    stop: tuple[str, ...],
    n: int | None,
    best_of: int | None,
    beams: int | None,
    length_penalty: float | None,
    beam_groups: int | None,
    beam_diversity: float | None,
    prompt_logprobs: int | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """文章の続きを、できた分から標準出力に書きます。TEXT を省くと標準入力を読みます。 / Write the continuation of a text
    as it comes. Without TEXT, standard input is read.

    例：tsuzuri generate "吾輩は" --max-tokens 50 --seed 1 / For example: tsuzuri generate "吾輩は" --max-tokens 50 --seed 1"""
    prompt = piped() if text in (None, "-") else text
    from tsuzuri.chat.settings import options  # noqa: PLC0415

    asked = options(stop, settings)
    for flag, value in (("--logprobs", asked.sampling.logprobs), ("--prompt-logprobs", prompt_logprobs)):
        if value is not None and not as_json:
            raise click.UsageError(str(Words(f"{flag} は --json と一緒に使ってください。", f"Use {flag} with --json.")))
    model = open_model(directory, dtype, quantize, threads, lookup)
    several = {
        "n": n, "best_of": best_of, "beams": beams, "length_penalty": length_penalty, "beam_groups": beam_groups,
        "beam_diversity": beam_diversity,
    }  # fmt: skip
    if any(value is not None for value in several.values()):
        if prompt_logprobs is not None:
            raise click.UsageError(str(Words("--prompt-logprobs は一つの出力にだけ使えます。", "--prompt-logprobs goes with one output.")))
        if lookup and beams is not None:
            raise click.UsageError(str(Words("--beams では --lookup は働きません。", "--lookup does nothing with --beams.")))
        _answers.show(_answers.found(model, str(prompt), stop, settings, several), str(prompt), as_json)
        return
    events = model.events(str(prompt), asked)
    if not as_json:
        _write(model, events)
        return
    found = list(events)
    tokens = [token for event in found if isinstance(event, Text) for token in event.tokens]
    result: dict[str, Any] = {"prompt": prompt, "text": "".join(event.text for event in found if isinstance(event, Text))}
    for event in found:
        if isinstance(event, Usage):
            result |= {"prompt_tokens": event.prompt_tokens, "completion_tokens": event.completion_tokens}
        elif isinstance(event, Done):
            result["finish"] = event.finish
            result |= {"lookup": event.detail["lookup"]} if "lookup" in event.detail else {}
    result["tokens"] = [_shown(model, token) for token in tokens]
    if prompt_logprobs is not None:
        result["prompt_logprobs"] = [_shown(model, token) for token in model.read_through(str(prompt), prompt_logprobs)]
    click.echo(json.dumps(result, ensure_ascii=False))


def _shown(model: LocalModel, token: Token) -> dict[str, Any]:
    top = [{"id": id, "text": model.show(id), "logprob": logprob} for id, logprob in token.top]
    return {"id": token.id, "text": model.show(token.id), "logprob": token.logprob, **({"top": top} if top else {})}


def _write(model: LocalModel, events: Iterator[Event]) -> None:
    """The text as it comes, and whether it is cut off."""
    used = 0
    for event in events:
        if isinstance(event, Text):
            write(event.text)
        elif isinstance(event, Usage):
            used = event.completion_tokens + (1 if model.engine.reads_source else event.prompt_tokens)
        elif isinstance(event, Done) and event.finish == "length" and used >= model.context_length:
            words = Words(
                f"文脈の上限 {model.context_length} トークンに達したので、ここで切れています。",
                f"Cut off here: the context of {model.context_length} tokens is full.",
            )
            click.secho(f"\n（{words}）", dim=True, err=True, nl=False)
    click.echo()
