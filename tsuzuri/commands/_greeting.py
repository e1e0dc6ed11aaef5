"""What `tsuzuri serve` says as it starts: where it is, how to get in, what to try, and which models have no price.

In: the address, the models, a key and an invitation that were made just now. Out: lines. The secrets in them are shown this once.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tsuzuri.errors import Words

if TYPE_CHECKING:
    from tsuzuri.serve.models import Served
    from tsuzuri.serve.server import Address
    from tsuzuri.store.prices import Prices


def tell(address: Address, port: int, models: Sequence[Served], secret: str | None, invitation: str | None) -> None:
    """Where it is, how to get in, and three things to try."""
    url, names = replace(address, port=port).url, [model.name for model in models]
    if secret is None:
        key = Words(f"API キーは {program()} keys create --name 名前 で作れます。", f"{program()} keys create --name NAME makes API keys.")
        shown = "$TSUZURI_KEY"
    else:
        key = Words(f"最初の API キー（表示するのは今だけです）：{secret}", f"The first API key, shown only now: {secret}")
        shown = secret
    click.echo(str(Words(f"{url} で提供しています。モデル：{'、'.join(names)}", f"Serving at {url}. Models: {', '.join(names)}")))
    click.echo(str(key))
    click.echo(str(Words("試すには：", "To try it:")))
    writer = next((model for model in models if model.chat is not None), None)
    if writer is None:  # all of them only read
        path, body = "embeddings", f'{{"model": "{names[0]}", "input": "こんにちは"}}'
    else:
        path, body = "chat/completions", f'{{"model": "{writer.name}", "messages": [{{"role": "user", "content": "こんにちは"}}]}}'
    for line in (
        *([f"{program()} chat --url {url}/v1 --key {shown}"] if writer else []),
        f"curl {url}/v1/{path} -H \"Authorization: Bearer {shown}\" -H 'Content-Type: application/json' -d '{body}'",
        in_python(f"{url}/v1", shown, None if writer is None else writer.name, names[0]),
    ):
        click.echo(f"  {line}")
    if invitation is not None:
        said = Words(
            "管理者はまだいません。最初の管理者になるには（1 日間有効）：",
            "There is no administrator yet. To become the first, within a day:",
        )
        click.echo(str(said))
        body = f'{{"token": "{invitation}", "name": "…", "password": "…"}}'
        click.echo(f"  curl {url}/api/first-administrator -H 'Content-Type: application/json' -d '{body}'")
    click.echo(str(Words("Ctrl-C で終わります。", "Ctrl-C ends it.")))


def in_python(url: str, key: str, writer: str | None, reader: str) -> str:
    """A line for the shell: the official client, by the Python that this program runs in."""
    secret = "os.environ['TSUZURI_KEY']" if key.startswith("$") else f"'{key}'"
    client = f"openai.OpenAI(base_url='{url}', api_key={secret})"
    if writer is None:
        asked = f"{client}.embeddings.create(model='{reader}', input='こんにちは').data[0].embedding[:3]"
    else:
        said = "[{'role': 'user', 'content': 'こんにちは'}]"
        asked = f"{client}.chat.completions.create(model='{writer}', messages={said}).choices[0].message.content"
    modules = "openai, os" if key.startswith("$") else "openai"
    return f'{python()} -c "import {modules}; print({asked})"'


def program() -> str:
    """How this program is called from here: by its name where the shell knows it, else as it was called."""
    if shutil.which("tsuzuri"):
        return "tsuzuri"
    return f"{python()} -m tsuzuri" if sys.argv[0].endswith("__main__.py") else sys.argv[0]


def python() -> str:
    """The Python of this program, as it can be called from here."""
    try:
        return str(Path(sys.executable).relative_to(Path.cwd()))
    except ValueError:
        return sys.executable


def tell_unpriced(models: Sequence[Served], costs: Prices) -> None:
    """A model elsewhere without a price is no free one: what becomes of it is said before anybody asks."""
    from tsuzuri.store.tables import now_ms  # noqa: PLC0415

    at = now_ms()
    elsewhere = [model for model in models if model.mine is None and model.route is None]
    unpriced = [one.name for one in elsewhere if all(costs.cost(n, input=1, output=1, at=at) is None for n in (one.name, one.priced))]
    if unpriced:
        listed = "、".join(unpriced), ", ".join(unpriced)
        click.echo(
            str(
                Words(
                    f"料金の分からないモデル：{listed[0]}。予算のあるキーでは使えず、ほかのキーの分は使用額に入りません（--prices、--free）。",
                    f"No price is known for {listed[1]}: keys with a budget cannot use it, for others it is not counted (--prices, --free).",
                )
            )
        )
