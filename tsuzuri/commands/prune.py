"""重要でない重みを 0 にして、失われたものを測ります。 / Zero the weights that matter least, and measure what it costs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.commands._calibration import samples
from tsuzuri.errors import ConfigError, Words

if TYPE_CHECKING:
    from tsuzuri.evals.bits import Bits

RECORD = "pruning.json"
OWN = ("config.json", "files.json", RECORD)  # written anew


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="書き出すディレクトリ / directory to write")
@click.option("--sparsity", type=click.FloatRange(0, 1, max_open=True), help="0 にする割合 / share to zero")
@click.option(
    "--pattern", type=click.Choice(["2:4", "4:8"]), help="並んだ 4 個のうち 2 個を残す、など / of each 4 in a row 2 stay, and so on"
)
@click.option(
    "--scope",
    type=click.Choice(["row", "matrix", "model"]),
    help="--sparsity の割合を数える範囲：行、行列、モデル全体（既定は行列。--calibrate があれば行） / where the share of --sparsity is counted: a row, a matrix, all of them; unless given a matrix, with --calibrate a row",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="この文章を読ませ、大きな入力にかかる重みを残す（Wanda） / read this text and keep the weights of large inputs (Wanda)",
)
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="この文章（学習にも較正にも使っていないもの）で前後のビット毎バイトを測る / measure bits per byte before and after on this text, used neither for training nor for --calibrate",
)
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で / the result as JSON")
def command(
    model: Path,
    out: Path,
    sparsity: float | None,
    pattern: str | None,
    scope: Any,
    calibrate: Path | None,
    text: Path | None,
    as_json: bool,
) -> None:
    """MODEL の重みのうち重要でないものを 0 にして、OUT に普通のモデルとして書きます。大きさも速さも変わりません。 / Zero the weights of
    MODEL that matter least, and write OUT, an ordinary model. It is neither smaller nor faster.

    例：tsuzuri prune runs/tiny/model --out runs/pruned --pattern 2:4 / For example: tsuzuri prune runs/tiny/model --out runs/pruned
    --pattern 2:4"""
    import torch  # noqa: PLC0415

    from tsuzuri import directory as directories  # noqa: PLC0415
    from tsuzuri.model import weights  # noqa: PLC0415
    from tsuzuri.model.adapt import prune  # noqa: PLC0415

    plan = prune.Plan(sparsity, pattern, scope)
    if calibrate is not None and text is not None and calibrate.resolve() == text.resolve():
        raise _same_text()
    directories.check(out)
    loaded = weights.load(model)
    held = None if text is None else _documents(model, text, loaded)
    stored = next((weight.dtype for weight in loaded.parameters()), torch.float32) if isinstance(loaded, torch.nn.Module) else None
    if stored in (torch.bfloat16, torch.float16):
        loaded.float()  # for the measurements; the way back is exact
    before = None if held is None else _bits(loaded, held)
    norms = None if calibrate is None else prune.norms_of(loaded, samples(model, calibrate, loaded.context_length))
    record = prune.prune(loaded, plan, norms)
    after = None if held is None else _bits(loaded, held)
    result = record.as_json()
    with directories.whole(out) as temporary:
        weights.save(loaded.to(stored), temporary, weights.family_of(model).MODEL_TYPE)
        for file in sorted(model.iterdir()):
            if file.is_file() and file.name not in OWN and ".safetensors" not in file.name:
                shutil.copy(file, temporary / file.name)
        (temporary / RECORD).write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    result |= {"bits_per_byte": None if before is None or after is None else _compared(before, after)}
    click.echo(json.dumps(result, ensure_ascii=False) if as_json else _told(result, out))


def _documents(model: Path, text: Path, loaded: Any) -> tuple[list[Any], list[int], int]:
    """Ids of every document, their bytes, and the boundary token before them."""
    import numpy as np  # noqa: PLC0415

    from tsuzuri.chat.local import BOUNDARY  # noqa: PLC0415
    from tsuzuri.model.transformer import Transformer  # noqa: PLC0415
    from tsuzuri.text import fast  # noqa: PLC0415
    from tsuzuri.text.corpus.read import read  # noqa: PLC0415

    tokenizer = fast.load(model)
    if (
        not (isinstance(loaded, Transformer) and loaded.shape.causal and loaded.shape.head == "next_token")
        or BOUNDARY not in tokenizer.special
    ):
        raise ConfigError(
            Words(f"{model} のビット毎バイトを測ろうとしました。", f"Measuring bits per byte of {model}."),
            found=Words(
                f"文章の続きを書くモデルではないか、{BOUNDARY} を持ちません。", f"It does not continue a text, or has no {BOUNDARY}."
            ),
            todo=Words("--text を付けずに枝刈りしてください。", "Prune without --text."),
        )
    texts = [document.text for document in read([text])]
    return [np.asarray(tokenizer.encode(each)) for each in texts], [len(each.encode()) for each in texts], tokenizer.special[BOUNDARY]


def _bits(model: Any, held: tuple[list[Any], list[int], int]) -> Bits:
    from tsuzuri.evals.bits import of_documents  # noqa: PLC0415
    from tsuzuri.evals.windows import logprobs  # noqa: PLC0415

    documents, sizes, boundary = held
    return of_documents(lambda ids: logprobs(model, ids, boundary), documents, sizes, progress=_progress)


def _progress(_: str, done: int, count: int) -> None:
    if done == count or done % 10 == 0:
        click.echo(str(Words(f"{done}/{count} 文書を測りました。", f"{done} of {count} documents measured.")), err=True)


def _compared(before: Bits, after: Bits) -> dict[str, Any]:
    from tsuzuri.evals.bits import difference  # noqa: PLC0415

    more = difference(after, before)
    return {
        "before": before.bits_per_byte,
        "after": after.bits_per_byte,
        "difference": more.bits_per_byte,
        "interval": more.interval,
        "perplexity": 2 ** (after.bits_per_token - before.bits_per_token) - 1,  # of a token, as a share more
        "bytes": before.bytes,
        "tokens": before.tokens,
    }


def _told(result: dict[str, Any], out: Path) -> str:
    count, zeros, whole = len(result["matrices"]), result["zeros"], result["share_of_all"]
    lines = [
        Words(
            f"{out} に書きました：{count} 個の行列の {result['share']:.1%}（{zeros:,} 個）が 0 です。重み全体では {whole:.1%} です。",
            f"Written to {out}: of {count} matrices {result['share']:.1%} ({zeros:,} weights) are zero, of all weights {whole:.1%}.",
        )
    ]
    if result["calibrated"]:
        lines.append(
            Words(
                f"{result['calibrated']} 個の行列で、読んだ入力の大きさを掛けて選びました。",
                f"In {result['calibrated']} matrices the weights were chosen by what their inputs read, too.",
            )
        )
    if result["kept"]:
        names = ", ".join(result["kept"][:3]) + (" …" if len(result["kept"]) > 3 else "")
        lines.append(
            Words(
                f"0 にせずに残した行列：{len(result['kept'])} 個（{names}）", f"Matrices that stay whole: {len(result['kept'])} ({names})"
            )
        )
    bits = result["bits_per_byte"]
    if bits is not None:
        interval = "" if bits["interval"] is None else f" ({bits['interval'][0]:+.4f} – {bits['interval'][1]:+.4f})"
        lines.append(
            Words(
                f"ビット毎バイト：{bits['before']:.4f} から {bits['after']:.4f} に（差 {bits['difference']:+.4f}{interval}）。トークンのパープレキシティは {bits['perplexity']:+.1%}。",
                f"Bits per byte: {bits['before']:.4f}, now {bits['after']:.4f} (difference {bits['difference']:+.4f}{interval}). Perplexity of a token {bits['perplexity']:+.1%}.",
            )
        )
    return "\n".join(map(str, lines))


def _same_text() -> ConfigError:
    return ConfigError(
        Words("--calibrate と --text に同じファイルが指定されました。", "--calibrate and --text were given the same file."),
        found=Words(
            "較正に使った文章で測ると、失われたものが小さく見えます。", "Measured on the text it was calibrated on, the loss looks small."
        ),
        todo=Words("別の文章を指定してください。", "Name different texts."),
    )
