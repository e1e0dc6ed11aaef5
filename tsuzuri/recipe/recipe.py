"""A recipe as values: YAML and overrides in, every section checked and every derived number filled in out.

`size:` is the one dial: it derives depth, width, heads, rows a step and learning rates, and whatever the recipe says
itself wins. It runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from tsuzuri import device
from tsuzuri.config import build, dump, override, read_yaml
from tsuzuri.errors import ConfigError, Words
from tsuzuri.folder import find, names, suggestion
from tsuzuri.text.corpus.build import CorpusSettings
from tsuzuri.train.loop import LoopSettings

STAGES = "tsuzuri.recipe.stages"


@dataclass(frozen=True, slots=True)
class Head:
    """What holds for the whole run."""

    name: str
    stages: list[str]
    out: str = ""  # "": runs/NAME
    seed: int = 1  # of pretrain, sft and evaluate, unless they have their own; corpus keeps its own: the held-out text stays the same
    size: int | None = None  # the dial: number of blocks
    threads: int | None = None  # None: every core this process may use
    device: str = "auto"
    minutes: float | None = None  # training may take; where it would take longer here, it trains in proportion less
    watts: float | None = None  # drawn under load; None: measured where the machine tells, else assumed and said so
    yen_per_kwh: float = 31.0  # 目安単価, 全国家庭電気製品公正取引協議会, 2022-07-22, tax included

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name or "\\" in self.name:
            raise _wrong(
                Words(
                    f"name が「{self.name}」です。/ や \\ を含まない名前が要ります。",
                    f"name is '{self.name}'; it takes a name without / or \\.",
                )
            )
        if not 0 <= self.seed < 1 << 62:
            raise _wrong(
                Words(f"seed が {self.seed} です。0 以上 2^62 未満の整数が要ります。", f"seed is {self.seed}; it lies in 0 … 2^62.")
            )
        for name in ("minutes", "watts", "yen_per_kwh"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise _wrong(Words(f"{name} が {value} です。正の数が要ります。", f"{name} is {value}; it must be positive."))


HEAD = tuple(field.name for field in fields(Head))


@dataclass(frozen=True, slots=True)
class Recipe:
    head: Head
    sections: dict[str, Any]  # stage name -> its Settings
    values: dict[str, Any]  # everything resolved, ready to be written down

    @property
    def out(self) -> Path:
        return Path(self.head.out or f"runs/{self.head.name}")

    def shortened(self, share: float) -> Recipe:
        """The same recipe with that share of the training: steps, epochs and the text that is read."""
        sections = {name: _shortened(section, share) for name, section in self.sections.items()}
        return Recipe(self.head, sections, {**self.values, **{name: dump(section) for name, section in sections.items()}})


def read(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """The recipe of a file with `a.b=c` overrides. Raises ConfigError naming what is unknown, wrong or impossible, and
    MissingError or InputError for an input that is not there, of any stage: not after an hour of training.
    """
    recipe = resolve(override(read_yaml(path), settings))
    for name, section in recipe.sections.items():
        find(STAGES, name).inputs(section)
    return recipe


def resolve(values: Mapping[str, Any]) -> Recipe:
    head = build(Head, {key: value for key, value in values.items() if key in HEAD})
    if not head.stages:
        raise _wrong(Words("stages が空です。", "stages is empty."))
    twice = [name for number, name in enumerate(head.stages) if name in head.stages[:number]]
    if twice:
        raise _wrong(Words(f"stages に「{twice[0]}」が二度あります。", f"stages has '{twice[0]}' twice."))
    given = {key: value for key, value in values.items() if key not in HEAD}
    unused = [key for key in given if key not in head.stages]
    modules = {name: find(STAGES, name) for name in head.stages}
    if unused:
        raise _unknown(unused[0], [*HEAD, *head.stages])
    derived = {} if head.size is None else derive(head.size)
    sections = {}
    for name, module in modules.items():
        own = {} if given.get(name) is None else _mapping(given[name], name)
        dialled = derived.get(name, {})
        if hasattr(module, "taken"):
            dialled = module.taken(dialled, own)
        section = _merge(dialled | _seeded(module, head.seed), own, name)
        sections[name] = _decided(build(module.Settings, section, name), head.device)
        _fits(name, module, sections)
    return Recipe(head, sections, {**dump(head), **{name: dump(section) for name, section in sections.items()}})


def _seeded(module: ModuleType, seed: int) -> dict[str, int]:
    """The seed of a stage that draws: its own, moved as far as the recipe's was moved from 1."""
    own: Any = {field.name: field.default for field in fields(module.Settings)}.get("seed")
    return {} if own is None or module.Settings is CorpusSettings else {"seed": own + seed - 1}


def _shortened(section: Any, share: float) -> Any:
    if share == 1 or not isinstance(section, LoopSettings):
        return section
    given = {name: getattr(section, name, None) for name in ("steps", "epochs", "train_tokens")}
    less: Any = {name: max(1, round(n * share)) if isinstance(n, int) else n * share for name, n in given.items() if n}
    return replace(section, **less)


def _decided(section: Any, name: str) -> Any:
    """A section whose precision is 'auto' with the one this machine takes: it is written down, so a run keeps it to its end."""
    if getattr(section, "precision", None) != "auto":
        return section
    chosen = str(device.dtype("auto", device.choose(name))).removeprefix("torch.")
    return replace(section, precision=chosen)


def _fits(name: str, module: ModuleType, sections: Mapping[str, Any]) -> None:
    """What the stage needs stands before it, and its settings go with theirs."""
    for needed in module.NEEDS:
        if needed not in sections:
            raise _wrong(
                Words(f"段階「{name}」の前に「{needed}」が要ります。", f"The stage '{name}' needs '{needed}' before it in stages."),
            )
    if hasattr(module, "check"):
        module.check(sections[name], sections)


def derive(size: int) -> dict[str, dict[str, Any]]:
    """What the dial turns: `size` blocks, 64 wide each, heads of 64. Without embedding and head 4: 3.2 M,
    6: 10.6 M, 12: 85 M.

    Learning rates fall with the width as 1/√D from the values found best at size 4 (docs/log.md).
    """
    if not 1 <= size <= 128:
        raise _wrong(Words(f"size が {size} ですが、1 から 128 までです。", f"size is {size}; it lies in 1 … 128."))
    width = 64 * size
    model = {
        "hidden_size": width,
        "num_hidden_layers": size,
        "num_attention_heads": size,
        "intermediate_size": round(width * 8 / 3 / 64) * 64,
    }
    return {"pretrain": {"model": model, "learning_rate": round(8e-3 * (4 / size) ** 0.5, 6)}}


def _mapping(given: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise _wrong(Words(f"「{where}」は項目の並び（名前: 値）でなければなりません。", f"'{where}' must be a mapping of keys to values."))
    return given


def _merge(derived: Mapping[str, Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What the recipe says wins over what the dial says, key by key."""
    result: dict[str, Any] = {**derived, **given}
    for key, value in derived.items():
        if isinstance(value, Mapping) and key in given:
            result[key] = _merge(value, _mapping(given[key], f"{where}.{key}"), f"{where}.{key}")
    return result


def _unknown(key: str, known: list[str]) -> ConfigError:
    if key in names(STAGES):
        return ConfigError(
            Words(f"段階「{key}」の設定があります。", f"There are settings for the stage '{key}'."),
            found=Words("stages の並びにその段階がありません。", "The list of stages does not have it."),
            todo=Words(
                "stages に加えるか、設定を消してください。途中までだけ実行するには --until を使います。",
                "Add it to stages or remove the settings. To run only the first stages, use --until.",
            ),
        )
    return ConfigError(
        Words(f"設定「{key}」が指定されました。", f"The setting '{key}' was given."),
        found=Words(
            f"その名前の項目も段階もありません。あるのは {'、'.join(known)} です。",
            f"No key or stage has that name. There is {', '.join(known)}.",
        ),
        todo=suggestion(key, known),
    )


def _wrong(found: Words) -> ConfigError:
    return ConfigError(
        Words("設定ファイルに問題があります。", "Checking the recipe."),
        found=found,
        todo=Words("recipes/tiny.yaml を手本に直してください。", "Correct it after the model of recipes/tiny.yaml."),
    )
