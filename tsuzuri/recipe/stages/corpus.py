"""文章を読み、整え、重複を除き、学習用と検証用に分けます。 / Read, clean and deduplicate text; split off validation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tsuzuri.recipe.run import Context
from tsuzuri.text.corpus.build import CorpusSettings, build
from tsuzuri.text.corpus.read import files

NEEDS = ()
Settings = CorpusSettings


def inputs(settings: CorpusSettings) -> list[Path]:
    return files([Path(name) for name in settings.inputs])


def run(settings: CorpusSettings, context: Context) -> dict[str, Any]:
    report = build(settings, context.directory / "text", context.watch.notice)
    return asdict(report)
