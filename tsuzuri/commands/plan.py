"""実行する前に、規模・メモリ・時間・電気代を見積もります。 / Parameters, memory, time, energy and cost before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--json", "as_json", is_flag=True, help="JSON で / as JSON")
def command(recipe: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """設定ファイルを検査し、同じ形のモデルで数ステップだけ試して、全体の費用を見積もります。 / Check a recipe, try a few steps
    on a model of that shape, and say what the whole will cost. Nothing is written."""
    from tsuzuri.recipe import recipe as recipes  # noqa: PLC0415
    from tsuzuri.recipe.plan import describe, plan  # noqa: PLC0415

    planned = plan(recipes.read(recipe, settings))
    click.echo(json.dumps(planned.as_json(), ensure_ascii=False) if as_json else describe(planned))
