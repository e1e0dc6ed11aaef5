"""設定ファイルの段階を順に実行します（文章からモデルまで）。 / Run a recipe, from text to a model."""

from __future__ import annotations

import json
from contextlib import nullcontext
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
    from tsuzuri.directory import alone, write_text  # noqa: PLC0415
    from tsuzuri.recipe import recipe as recipes  # noqa: PLC0415
    from tsuzuri.recipe import report  # noqa: PLC0415
    from tsuzuri.recipe.plan import describe, load, plan, trains  # noqa: PLC0415
    from tsuzuri.recipe.run import check_writable, meet, run  # noqa: PLC0415
    from tsuzuri.train.watch import Terminal, Watch  # noqa: PLC0415

    found = recipes.read(recipe, settings)
    rank, _ = device.rank()
    watch = Terminal() if rank == 0 else Watch()
    device.threads(found.head.threads)
    if rank == 0:
        check_writable(found.out)
    with alone(found.out) if rank == 0 else nullcontext():
        saved = found.out / "plan.json"
        if rank == 0 and load(saved, found) is None and trains(found):
            made = {"recipe": found.values, "plan": plan(found).as_json()}
            write_text(saved, json.dumps(made, ensure_ascii=False, indent=1))
        meet()  # the plan is there for every process
        planned = load(saved, found)
        if planned:
            watch.notice(describe(planned))
            found = found.shortened(planned.share)
        results = run(found, watch, until=until)
        if rank == 0:
            text = report.write(found, results, planned, save=until is None)
            click.echo(json.dumps(results, ensure_ascii=False) if as_json else text)
