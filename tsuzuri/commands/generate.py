"""文章の続きを書かせます。 / Continue a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tsuzuri.commands._model import lookup_option, model_options, open_model
from tsuzuri.commands._piped import piped
from tsuzuri.commands._sampling import form_options, sampling_options, stop_option
from tsuzuri.commands._screen import write
from tsuzuri.errors import Words
from tsuzuri.types import Done, Text, Usage


@click.command()
@click.argument("text", required=False)
@model_options
@lookup_option
@sampling_options()
@form_options
@stop_option
@click.option("--json", "as_json", is_flag=True, help=str(Words("結果を JSON で", "the result as JSON")))
def command(
    text: str | None,
    directory: Path | None,
    dtype: str | None,
    quantize: str | None,
    threads: int | None,
    lookup: int,
    stop: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """文章の続きを、できた分から標準出力に書きます。TEXT を省くと標準入力を読みます。 / Write the continuation of a text
    as it comes. Without TEXT, standard input is read.

    例：tsuzuri generate "吾輩は" --max-tokens 50 --seed 1 / For example: tsuzuri generate "吾輩は" --max-tokens 50 --seed 1"""
    prompt = piped() if text in (None, "-") else text
    from tsuzuri.chat.local import options  # noqa: PLC0415

    asked = options(stop, settings)
    if asked.sampling.logprobs is not None and not as_json:
        raise click.UsageError(str(Words("--logprobs は --json と一緒に使ってください。", "Use --logprobs with --json.")))
    model = open_model(directory, dtype, quantize, threads, lookup)
    events = model.events(str(prompt), asked)
    if not as_json:
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
    result["tokens"] = [
        {"id": t.id, "text": model.show(t.id), "logprob": t.logprob}
        | ({"top": [{"id": id, "text": model.show(id), "logprob": p} for id, p in t.top]} if t.top else {})
        for t in tokens
    ]
    click.echo(json.dumps(result, ensure_ascii=False))
