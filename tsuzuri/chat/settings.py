"""Settings by name, as people give them: the fields of `Sampling`, what the text may be, and where it stops.

In: keyword arguments. Out: `Options`. An unknown name is refused with the nearest ones. It imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias, TypedDict

from tsuzuri.chat.stopping import as_stops
from tsuzuri.engine import constraint
from tsuzuri.engine.constraint import Constraint
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, Words
from tsuzuri.folder import suggestion
from tsuzuri.types import Options

Stop: TypeAlias = str | Sequence[str] | None


class Distribution(TypedDict, total=False):
    """The fields of `Sampling` that already matter for one next token."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    logit_bias: Mapping[int, float]
    repetition_penalty: float


class Forms(TypedDict, total=False):
    """What the text may be, as one of these; each becomes the `constraint` of `Sampling`. An unsupported keyword is refused by name."""

    json_schema: str | Mapping[str, Any] | None  # text, or what json.loads makes of it
    regex: str | None  # of the whole text, in Rust's syntax
    choice: Sequence[str] | None  # one of these
    grammar: str | None  # in llguidance's dialect of Lark; `start` is the whole text


class Settings(Distribution, Forms, total=False):
    """The fields of `Sampling` that show in a text, for type checkers and editors: all but `logprobs`."""

    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    stop_token_ids: Sequence[int]
    constraint: Constraint | None


FORMS: Mapping[str, Callable[[Any], Constraint]] = {
    "json_schema": constraint.json_schema,
    "regex": lambda text: Constraint("regex", text),
    "choice": constraint.choice,
    "grammar": lambda text: Constraint("grammar", text),
}


def options(stop: Stop, settings: Mapping[str, Any]) -> Options:
    """`Options` from keyword arguments. Raises ConfigError for an unknown name, with the nearest ones, and for wrong values."""
    found = known(settings, (*(field.name for field in fields(Sampling)), *FORMS), "stop")
    return Options(Sampling(**_formed(found)), as_stops(stop))


def _formed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the one form that was given as `constraint`. Raises ConfigError for two."""
    found = {name: value for name, value in settings.items() if name not in FORMS}
    given = [name for name in FORMS if settings.get(name) is not None]
    names = given + ["constraint"] * (found.get("constraint") is not None)
    if len(names) > 1:
        raise ConfigError(
            Words(f"{'、'.join(names)} が一緒に指定されました。", f"{', '.join(names)} were given together."),
            found=Words("出力の形は一つだけ決められます。", "The output can have one form only."),
            todo=Words("一つだけにしてください。", "Leave one of them."),
        )
    for name in given:
        found["constraint"] = FORMS[name](settings[name])
    return found


def known(settings: Mapping[str, Any], names: tuple[str, ...], *others: str) -> Mapping[str, Any]:
    """The settings, of which every one has to have a meaning here; `others` only serve the message."""
    for name in settings:
        if name not in names:
            there = [*names, *others]
            raise ConfigError(
                Words(f"設定 {name} が指定されました。", f"The setting {name} was given."),
                found=Words(
                    f"その名前の設定はここにはありません。あるのは {'、'.join(there)} です。",
                    f"There is no such setting here. There is {', '.join(there)}.",
                ),
                todo=suggestion(name, there),
            )
    return settings
