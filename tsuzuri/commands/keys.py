"""API キーを作り、調べ、取り替え、失効させます。 / Make, list, rotate and revoke API keys."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsuzuri.commands._store import as_json, data_option, day, json_option, moment, opened, printed, told
from tsuzuri.config import milliseconds
from tsuzuri.errors import Words

if TYPE_CHECKING:
    from tsuzuri.store.keys import Key

SHOWN_ONCE = Words(
    "上の 1 行がキーです。二度と表示できないので、今、安全な場所に控えてください。",
    "The line above is the key. It cannot be shown again: keep it in a safe place now.",
)


@click.group()
def command() -> None:
    """API キーを管理します。キーは作ったときに一度だけ表示し、保管するのは照合用の値だけです。
    / Manages API keys. A key is shown once, when it is made; kept is only what it takes to recognise it."""


@command.command()
@click.option("--name", required=True, metavar="NAME", help="呼び名 / what it is called")
@click.option("--user", metavar="NAME", help="持ち主の利用者 / the user it belongs to")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help="できること。繰り返せます（初期値 chat） / what it may do; may be repeated (chat)",
)
@click.option("--model", "models", multiple=True, metavar="MODEL", help="使えるモデル。省くとすべて / a model it may use; all unless given")
@click.option(
    "--address", "addresses", multiple=True, metavar="CIDR", help="使える接続元。省くとどこからでも / from where; anywhere unless given"
)
@click.option("--expires", metavar="WHEN", help="期限。30d や 2027-04-01 / until when: 30d or 2027-04-01")
@click.option("--requests-per-minute", type=int, metavar="N", help="1 分あたりの要求数 / requests a minute")
@click.option("--tokens-per-minute", type=int, metavar="N", help="1 分あたりのトークン数 / tokens a minute")
@click.option("--concurrent", type=int, metavar="N", help="同時に受ける要求数 / requests at once")
@data_option
@json_option
def create(
    name: str,
    user: str | None,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
    addresses: tuple[str, ...],
    expires: str | None,
    data: Path | None,
    as_json: bool,
    **limits: int | None,
) -> None:
    """キーを作ります。標準出力に出るのはキーだけです。 / Makes a key. Standard output holds the key alone.

    例：tsuzuri keys create --name 受付 --scope chat --expires 90d
    / For example: tsuzuri keys create --name reception --scope chat --expires 90d"""
    with opened(data) as db:
        from tsuzuri.store import keys, users  # noqa: PLC0415
        from tsuzuri.store.tables import now_ms  # noqa: PLC0415

        owner = None if user is None else users.one(db, user).id
        until = None if expires is None else moment(expires, now_ms())
        allowed: dict[str, Any] = {"scopes": scopes or ("chat",), "models": models or None, "addresses": addresses, **limits}
        key, secret = keys.create(db, name, user_id=owner, expires_at=until, **allowed)
    _shown(key, secret, as_json)


@command.command("list")
@data_option
@json_option
def listed(data: Path | None, as_json: bool) -> None:
    """キーの一覧。キーそのものは出ません。 / All keys; never the keys themselves."""
    with opened(data) as db:
        from tsuzuri.store import keys  # noqa: PLC0415
        from tsuzuri.store.tables import now_ms  # noqa: PLC0415

        found, now = keys.listed(db), now_ms()
    if as_json:
        _json([_row(key) for key in found])
        return
    heads = [
        Words("ID", "id"),
        Words("名前", "name"),
        Words("状態", "state"),
        Words("できること", "scopes"),
        Words("期限", "expires"),
        Words("最後の利用", "last used"),
    ]
    printed([(k.id, k.name, _state(k, now), ",".join(sorted(k.scopes)), day(k.expires_at), day(k.last_used_at)) for k in found], heads)


@command.command()
@click.argument("key")
@data_option
@json_option
def revoke(key: str, data: Path | None, as_json: bool) -> None:
    """キーを失効させます。次の要求から使えません。KEY は ID か、tsz_ の後の 12 文字です。
    / Revokes a key, from the next request on. KEY is its id or the 12 characters after tsz_."""
    with opened(data) as db:
        from tsuzuri.store import keys  # noqa: PLC0415

        found = keys.revoke(db, key)
    if as_json:
        _json(_row(found))
        return
    click.echo(str(Words(f"失効させました：{found.id}（{found.name}）", f"Revoked: {found.id} ({found.name})")))


@command.command()
@click.argument("key")
@click.option("--overlap", default="1d", metavar="TIME", help="古いキーも使える長さ（初期値 1d） / how long the old one still works (1d)")
@data_option
@json_option
def rotate(key: str, overlap: str, data: Path | None, as_json: bool) -> None:
    """同じことのできる新しいキーを作り、古いキーはしばらく後に使えなくなります。標準出力に出るのは新しいキーだけです。
    / Makes a new key that may do the same; the old one ends a while later. Standard output holds the new key alone."""
    length = milliseconds(overlap)
    with opened(data) as db:
        from tsuzuri.store import keys  # noqa: PLC0415

        new, secret = keys.rotate(db, key, overlap_ms=length)
    _shown(new, secret, as_json)


@command.command("rotate-master")
@data_option
@json_option
def rotate_master(data: Path | None, as_json: bool) -> None:
    """暗号化のマスター鍵を新しくします。値を読み書きしている間でもできます。秘密鍵の控えも新しくしてください。
    / Makes a new master key for what is encrypted, while it is in use. Take a new copy of the secrets afterwards."""
    with opened(data) as db:
        from tsuzuri.store import audit, sealed  # noqa: PLC0415

        count = sealed.rotate(db)
        (name,) = db.secrets.masters()
        audit.append(db, "master.rotated", {"by": audit.OPERATOR, "name": name, "records": count})
    if as_json:
        _json({"name": name, "records": count})
        return
    click.echo(
        str(Words(f"マスター鍵は {name} です。{count} 件の鍵を包み直しました。", f"The master key is {name}. {count} keys wrapped anew."))
    )


def _shown(key: Key, secret: str, as_json: bool) -> None:
    if as_json:
        _json({"key": secret, **_row(key)})
        return
    click.echo(secret)
    told(SHOWN_ONCE)
    told(Words(f"ID：{key.id}　できること：{'、'.join(sorted(key.scopes))}　期限：{day(key.expires_at)}",
               f"id: {key.id}  scopes: {', '.join(sorted(key.scopes))}  expires: {day(key.expires_at)}"))  # fmt: skip


def _row(key: Key) -> dict[str, Any]:
    return {**asdict(key), "scopes": sorted(key.scopes)}


def _state(key: Key, now: int) -> Words:
    if key.revoked_at is not None:
        return Words("失効", "revoked")
    return Words("期限切れ", "expired") if key.expires_at is not None and key.expires_at <= now else Words("有効", "valid")


_json = as_json
