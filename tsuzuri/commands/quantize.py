"""モデルを 8 ビットか 4 ビットに縮めて保存します。 / Narrow a model to 8 or 4 bits and save it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click

from tsuzuri.commands._calibration import samples
from tsuzuri.errors import ConfigError, Words

OWN = ("config.json", "files.json")  # written anew


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--form", type=click.Choice(["q8_0", "q4_0", "nf4"]), default="q8_0", show_default=True, help="形式 / form")
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="この文章を読ませ、大事な入力を守るように量子化する（AWQ） / read this text and protect the inputs that matter (AWQ)",
)
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で / the result as JSON")
def command(model: Path, out: Path, form: str, calibrate: Path | None, as_json: bool) -> None:
    """MODEL を量子化して OUT に書きます。読み込むときに縮めるだけなら、どのコマンドでも --quantize でできます。 / Quantise MODEL and
    write it to OUT. To narrow it only on loading, every verb has --quantize."""
    from tsuzuri import directory as directories  # noqa: PLC0415
    from tsuzuri.model import weights  # noqa: PLC0415
    from tsuzuri.model.adapt import awq, quantize  # noqa: PLC0415

    if weights.read_json(model / "config.json").get(weights.METHOD) is not None:
        raise ConfigError(
            Words(f"{model} を量子化しようとしました。", f"Quantising {model}."),
            found=Words("すでに量子化されています。", "It is quantised already."),
            todo=Words("量子化していないモデルを指定してください。", "Name the model before quantisation."),
        )
    loaded = weights.load(model)
    places = awq.scale(loaded.float(), form, samples(model, calibrate, loaded.context_length)) if calibrate else []
    if calibrate and not places:
        raise ConfigError(
            Words(f"{calibrate} で {model} の重みを整えようとしました。", f"Scaling the weights of {model} by {calibrate}."),
            found=Words("このモデルの構成では、整えられる場所がありません。", "The parts of this model leave no place for it."),
            todo=Words("--calibrate を付けずに量子化してください。", "Quantise without --calibrate."),
        )
    record = quantize.quantize(loaded, form)
    with directories.whole(out) as temporary:
        weights.save(loaded, temporary, weights.family_of(model).MODEL_TYPE)
        for file in sorted(model.iterdir()):
            if file.is_file() and file.name not in OWN and ".safetensors" not in file.name:
                shutil.copy(file, temporary / file.name)
    result = {
        "form": form,
        "bytes_before": record.bytes_before,
        "bytes_after": record.bytes_after,
        "narrowed": len(record.narrowed),
        "kept": list(record.kept),
        "scaled": {place.name: {"alpha": place.alpha, "error": [place.error_before, place.error_after]} for place in places},
    }
    click.echo(json.dumps(result, ensure_ascii=False) if as_json else _told(result, out))


def _told(result: dict[str, Any], out: Path) -> str:
    before, after, kept = result["bytes_before"] / 1e6, result["bytes_after"] / 1e6, result["kept"]
    lines = [
        str(
            Words(
                f"{out} に書きました：{before:.1f} MB から {after:.1f} MB に。", f"Written to {out}: {before:.1f} MB, now {after:.1f} MB."
            )
        )
    ]
    if kept:
        names = ", ".join(kept[:3]) + (" …" if len(kept) > 3 else "")
        lines.append(
            str(
                Words(
                    f"入力の数が 32 で割り切れず、そのまま残した行列：{len(kept)} 個（{names}）",
                    f"Matrices kept as they are, their inputs being no multiple of 32: {len(kept)} ({names})",
                )
            )
        )
    return "\n".join(lines)
