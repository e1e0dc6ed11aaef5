"""文章に含まれる個人情報や危うい内容を示し、伏せた文章を作ります。 / Show personal data and risks in a text, and mask it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tsuzuri.commands._piped import from_file, piped
from tsuzuri.errors import InputError, SpaceError, Words, why


@click.command()
@click.argument("text", required=False)
@click.option(
    "--only",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="伏せる種類（繰り返せる。省くとすべて） / a kind to mask, repeatable; all if not given",
)
@click.option(
    "--vault",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="伏せたものの対応表を書き出す（中身は個人情報そのもの） / write what the tokens stand for; it holds the data itself",
)
@click.option(
    "--unmask",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="--vault で書いた対応表で、TEXT を元に戻す / give TEXT its data back, from a file of --vault",
)
@click.option("--json", "as_json", is_flag=True, help="結果を JSON で / the result as JSON")
def command(text: str | None, kinds: tuple[str, ...], vault: Path | None, unmask: Path | None, as_json: bool) -> None:
    """見つかった個人情報、伏せた文章、危うい内容、注入（モデルへの不正な指示）らしさの点数と理由を示します。TEXT を省くか「-」にすると
    標準入力を読みます。見落としも誤りもあります。安全の境界ではなく、気づくための道具です。 / Show the personal data that was
    found, the masked text, risky content, and how much the text looks like an injection, with reasons. Without TEXT, or with -,
    standard input is read. It misses some and errs at times: it is there to notice, it is no boundary.

    例：tsuzuri guard "田中様の電話は090-1234-5678です" / For example: tsuzuri guard "田中様の電話は090-1234-5678です"

    往復：tsuzuri guard - --vault vault.json < mail.txt で伏せ、tsuzuri guard - --unmask vault.json で戻す /
    There and back: mask with tsuzuri guard - --vault vault.json < mail.txt, unmask with tsuzuri guard - --unmask vault.json"""  # fmt: skip
    from tsuzuri.guard.mask import Vault  # noqa: PLC0415

    given = str(piped() if text in (None, "-") else text)
    if unmask is not None:
        if kinds or vault is not None:
            raise click.UsageError(
                str(Words("--unmask は --only や --vault と一緒には使えません。", "--unmask takes neither --only nor --vault."))
            )
        whole = Vault.of(_pairs(unmask)).unmask(given)
        click.echo(json.dumps({"text": whole}, ensure_ascii=False) if as_json else whole, nl=as_json or text not in (None, "-"))
        return
    found = _found(given, kinds)
    if vault is not None:
        _keep(vault, found["vault"])
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else _shown(found))


def _keep(path: Path, pairs: dict[str, str]) -> None:
    """Readable by its owner alone, from the first byte on."""
    try:
        path.unlink(missing_ok=True)
        with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(json.dumps(pairs, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise SpaceError(
            Words(f"対応表を {path} に書こうとしました。", f"Writing the vault to {path}."),
            found=Words(f"書けません（{why(error).ja}）。", f"It cannot be written ({why(error).en})."),
            todo=Words("場所と権限を確かめてください。", "Check the place and the permissions."),
        ) from error


def _found(text: str, kinds: tuple[str, ...]) -> dict[str, Any]:
    from tsuzuri.guard.finding import look, personal  # noqa: PLC0415
    from tsuzuri.guard.guarded import Checks  # noqa: PLC0415
    from tsuzuri.guard.mask import Vault  # noqa: PLC0415
    from tsuzuri.guard.score import load, score  # noqa: PLC0415
    from tsuzuri.guard.stream import mask  # noqa: PLC0415

    checks = Checks(mask=tuple(kind.replace("-", "_") for kind in kinds) or personal())
    vault = Vault()
    masked, findings = mask(text, vault, checks.mask)
    scored = score(text)
    return {
        "findings": [asdict(one) for one in findings],
        "masked": masked,
        "vault": dict(vault),
        "content": [asdict(one) for one in look(text, ("content",))],
        "injection": {
            "score": round(scored.value, 4),
            "threshold": load().threshold,
            "suspected": scored.value >= load().threshold,
            "text": text[scored.start : scored.stop],
            "reasons": scored.reasons() if scored.value >= load().threshold else [],
        },
    }


def _shown(found: dict[str, Any]) -> str:
    from tsuzuri.guard.checks.content import CATEGORIES  # noqa: PLC0415
    from tsuzuri.guard.finding import label  # noqa: PLC0415
    from tsuzuri.guard.mask import LITERAL  # noqa: PLC0415

    lines = [str(Words("見つかった個人情報", "personal data"))]
    lines += [f"  {label(one['kind'])}  {one['text']!r}" for one in found["findings"] if one["kind"] != LITERAL] or [
        f"  {Words('なし', 'none')}"
    ]
    lines += ["", str(Words("伏せた文章", "masked")), *(f"  {line}" for line in found["masked"].splitlines())]
    if found["content"]:
        lines += ["", str(Words("危うい内容", "risky content"))]
        lines += [f"  {CATEGORIES[one['kind'].partition('.')[2]]}  {one['text']!r}" for one in found["content"]]
    scored = found["injection"]
    verdict = Words("疑いあり", "suspected") if scored["suspected"] else Words("疑いなし", "not suspected")
    lines += [
        "",
        f"{Words('注入らしさ', 'injection')}  {scored['score']:.3f}  （{verdict}、{Words('しきい値', 'threshold')} {scored['threshold']:.3f}）",
    ]
    lines += [f"  {reason}" for reason in scored["reasons"]]
    return "\n".join(lines)


def _pairs(path: Path) -> dict[str, str]:
    asked = Words(f"対応表 {path} を読もうとしました。", f"Reading the vault {path}.")
    try:
        read = json.loads(from_file(path))
        if not isinstance(read, dict) or not all(isinstance(value, str) for value in read.values()):
            raise ValueError("no object of strings")
    except (ValueError, RecursionError) as error:
        raise InputError(
            asked,
            found=Words("トークンと元の文字列を並べた JSON ではありません。", "It is no JSON object of tokens and what they stand for."),
            todo=Words("--vault で書き出したファイルを指定してください。", "Give a file that --vault wrote."),
        ) from error
    return read
