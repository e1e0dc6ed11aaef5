"""設定ファイルの段階を順に実行します（文章からモデルまで）。 / Run a recipe, from text to a model."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--until", metavar="STAGE", help="この段階まで実行する / run up to this stage")
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で標準出力に / print the results as JSON")
def command(recipe: Path, settings: tuple[str, ...], until: str | None, as_json: bool) -> None:
    """設定ファイルの段階を順に実行します。済んだ段階は飛ばし、止めても続きから再開できます。 / Run the stages of a recipe in
    order. What is finished is skipped; what was stopped goes on.

    例：tsuzuri run recipes/tiny.yaml pretrain.steps=100 / For example: tsuzuri run recipes/tiny.yaml pretrain.steps=100"""
    from tsuzuri import device  # noqa: PLC0415
    from tsuzuri.directory import write_text  # noqa: PLC0415
    from tsuzuri.recipe import recipe as recipes  # noqa: PLC0415
    from tsuzuri.recipe import report  # noqa: PLC0415
    from tsuzuri.recipe.plan import Plan, describe, load, plan  # noqa: PLC0415
    from tsuzuri.recipe.run import check_writable, run  # noqa: PLC0415
    from tsuzuri.train.watch import Terminal, Watch  # noqa: PLC0415

    found = recipes.read(recipe, settings)
    rank, _ = device.rank()
    watch = Terminal() if rank == 0 else Watch()
    device.threads(found.head.threads)
    check_writable(found.out)
    saved = found.out / "plan.json"
    planned: Plan | None = load(saved, found)
    if planned is None and rank == 0 and "pretrain" in found.sections:
        planned = plan(found)
        write_text(saved, json.dumps({"recipe": found.values, "plan": planned.as_json()}, ensure_ascii=False, indent=1))
    if planned:
        watch.notice(describe(planned))
    results = run(found, watch, until=until)
    if rank == 0:
        text = report.write(found, results, planned)
        click.echo(json.dumps(results, ensure_ascii=False) if as_json else text)
