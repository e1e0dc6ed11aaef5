"""Several continuations of one text: drawn (`--n`, `--best-of`) or searched for (`--beams`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import Words

if TYPE_CHECKING:
    from tsuzuri.chat.local import LocalModel
    from tsuzuri.chat.together import Answer

SEARCHED = ("max_tokens", "min_tokens", "ignore_eos", "stop_token_ids")  # what a search and a draw have in common
OTHERS = ("length_penalty", "beam_groups", "beam_diversity")


def answer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--n, --best-of, --beams and what belongs to it"""
    for option in (
        click.option(
            "--beam-diversity",
            type=float,
            help=str(Words("前の組が選んだ語を選ぶときに引く点数", "subtracted for a token that an earlier group has just taken")),
        ),
        click.option(
            "--beam-groups",
            type=int,
            help=str(Words("ビームをいくつの組に分けるか（組どうしは違う語を選ぶ）", "groups of beams that avoid each other's tokens")),
        ),
        click.option(
            "--length-penalty",
            type=float,
            help=str(
                Words("対数確率の合計を長さの何乗で割るか（既定は 1）", "the sum of log-probabilities over the length to this power; 1")
            ),
        ),
        click.option("--beams", type=int, help=str(Words("ビームサーチの幅", "width of a beam search"))),
        click.option(
            "--best-of", type=int, help=str(Words("これだけ書いて、確率の高いものを選ぶ", "write so many, give the most probable"))
        ),
        click.option("--n", "n", type=int, help=str(Words("いくつ書くか", "how many to write"))),
    ):
        command = option(command)
    return command


def found(model: LocalModel, prompt: str, stop: Sequence[str], settings: Mapping[str, Any], asked: Mapping[str, Any]) -> list[Answer]:
    """The answers, best first where they are ranked. Raises UsageError for what does not go together."""
    beams, given = asked["beams"], {name: value for name, value in asked.items() if value is not None}
    if beams is None:
        _nothing(given, OTHERS, "--beams")
        n = given.get("n", 1)
        return model.several(prompt, n, best_of=given.get("best_of"), stop=stop, **settings)
    _nothing(given, ("best_of",), None)
    plain = {each.name: each.default for each in fields(Sampling)}
    moved = [name for name, value in settings.items() if name not in SEARCHED and value not in (plain.get(name), None, ())]
    _nothing(dict.fromkeys([*moved, *(["stop"] if stop else [])]), (*moved, "stop"), None)
    from tsuzuri.engine.beam import Beams  # noqa: PLC0415

    names = {"beams": "width", "length_penalty": "length_penalty", "beam_groups": "groups", "beam_diversity": "diversity"}
    chosen = {names[name]: value for name, value in given.items() if name in names} | {name: settings[name] for name in SEARCHED}
    n = given.get("n", 1)
    if not 1 <= n <= beams:
        raise click.UsageError(str(Words(f"--n は 1 から --beams（{beams}）までです。", f"--n is 1 to --beams, {beams}.")))
    return model.beams(prompt, Beams(**chosen))[:n]


def show(answers: Sequence[Answer], prompt: str, as_json: bool) -> None:
    if as_json:
        rows = [
            {"text": each.text, "ids": list(each.ids), "logprob": each.logprob, "score": each.score, "finish": each.finish}
            for each in answers
        ]
        click.echo(json.dumps({"prompt": prompt, "answers": rows}, ensure_ascii=False))
        return
    for number, each in enumerate(answers, 1):
        if len(answers) > 1:
            click.secho(f"── {number}  {Words('スコア', 'score')} {each.score:.3f}", dim=True)
        click.echo(each.text)


def _nothing(given: Mapping[str, Any], names: Sequence[str], without: str | None) -> None:
    """Raises UsageError for the first of these that was given: it would do nothing."""
    for name in given:
        if name in names:
            flag = "--" + name.replace("_", "-")
            ja = f"{flag} は {without} と一緒に使ってください。" if without else f"--beams では {flag} は働きません。"
            en = f"Use {flag} with {without}." if without else f"{flag} does nothing with --beams."
            raise click.UsageError(str(Words(ja, en)))
