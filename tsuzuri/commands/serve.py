"""モデルを HTTP で提供します（OpenAI と Anthropic の形式）。 / Serve models over HTTP, in OpenAI's and Anthropic's form."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from tsuzuri.commands import _greeting as greeting
from tsuzuri.commands._model import DEFAULT, named
from tsuzuri.commands._store import data_option, milliseconds, opened
from tsuzuri.errors import ConfigError, Words

if TYPE_CHECKING:
    from tsuzuri.guard.guarded import Checks
    from tsuzuri.serve.models import Served
    from tsuzuri.serve.remotes import Plan
    from tsuzuri.store.database import Database

REMOTE_KEY = "TSUZURI_REMOTE_KEY"  # equals serve.remotes.COMMON_KEY, whose import would load the database


@click.command()
@click.option(
    "--model",
    "directories",
    type=click.Path(path_type=Path),
    metavar="DIR",
    multiple=True,
    help=str(
        Words(
            f"モデルのディレクトリ（複数指定可。何も指定しなければ {DEFAULT}）", f"model directory, several times; {DEFAULT} unless given"
        )
    ),
)
@click.option(
    "--remote",
    "remotes",
    metavar="NAME=WHERE",
    multiple=True,
    help=str(
        Words(
            f"よそのモデル：アドレスか、提供元:モデル@アドレス（複数指定可。キーは環境変数 {REMOTE_KEY} か {REMOTE_KEY}_名前）",
            f"a model elsewhere: URL or provider:model@URL, several times; its key is in {REMOTE_KEY} or {REMOTE_KEY}_NAME",
        )
    ),
)
@click.option(
    "--routes",
    "routes_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=str(Words("よそのモデルと、答えるモデルを選ぶ規則（YAML）", "models elsewhere, and rules for which model answers (YAML)")),
)
@click.option(
    "--alias",
    "aliases",
    metavar="PATTERN=NAME",
    multiple=True,
    help=str(Words("別名。例：claude-*=tiny", "another name for a model, such as claude-*=tiny")),
)
@click.option("--host", default="127.0.0.1", show_default=True, help=str(Words("待ち受けるアドレス", "address to listen on")))
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help=str(Words("ポート", "port")))
@data_option
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=str(
        Words(
            "料金表（YAML）。予算はこれで数える。付属の表より優先",
            "table of prices (YAML) for budgets; it goes before the one that comes with it",
        )
    ),
)
@click.option(
    "--free",
    metavar="NAME",
    multiple=True,
    help=str(Words("料金をかからないものとして数えるモデル（複数指定可）", "a model that is counted as costing nothing, several times")),
)
@click.option(
    "--name",
    "names",
    metavar="HOST",
    multiple=True,
    help=str(Words("このサーバーの名前（Host に書かれるもの。複数指定可）", "a name of this server in Host headers, several times")),
)
@click.option(
    "--trusted-proxy",
    "proxies",
    metavar="CIDR",
    multiple=True,
    help=str(
        Words(
            "接続元（X-Forwarded-For、X-Forwarded-Proto）を信じてよい中継サーバー（複数指定可）",
            "a proxy that is believed in X-Forwarded-For and X-Forwarded-Proto, several times",
        )
    ),
)
@click.option(
    "--shared-limits",
    is_flag=True,
    help=str(
        Words(
            "一つの SQLite を使う複数のサーバーで、キーの上限を合わせて数える（PostgreSQL ではいつもそうする）",
            "several servers on one SQLite count the limits of keys together (on PostgreSQL they always do)",
        )
    ),
)
@click.option("--tls-cert", type=click.Path(path_type=Path), metavar="FILE", help=str(Words("TLS の証明書", "TLS certificate")))
@click.option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help=str(Words("その秘密鍵", "its private key")))
@click.option(
    "--plain-http",
    is_flag=True,
    help=str(Words("ほかの計算機にも、暗号化せずに公開する", "serve other machines, too, and unencrypted")),
)
@click.option(
    "--audit-content", is_flag=True, help=str(Words("会話の内容も、暗号化して記録に残す", "keep what is said with the audit, encrypted"))
)
@click.option(
    "--audit-keep",
    metavar="TIME",
    help=str(Words("これより古い監査の記録は廃棄する。例：365d", "take away audit records that are older, such as 365d")),
)
@click.option("--no-mask", is_flag=True, help=str(Words("個人情報を伏せずにモデルへ渡す", "let models read personal data")))
@click.option(
    "--refuse",
    metavar="KIND",
    multiple=True,
    help=str(Words("この種類の内容には答えない（例：weapons。複数指定可）", "do not answer this kind of content, such as weapons")),
)
@click.option(
    "--injection",
    type=click.Choice(["ignore", "tell", "refuse"]),
    default="tell",
    show_default=True,
    help=str(Words("不正な指示に似た文を、放っておく・知らせる・断る", "what looks like an injection is ignored, told or refused")),
)
@click.option(
    "--secrets",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=str(Words("答えに出してはならない文字列（名前＝値を一行に一つ）", "what must not come out in an answer: NAME=VALUE, one a line")),
)
@click.option(
    "--keep",
    type=click.IntRange(0, 3650),
    metavar="DAYS",
    default=30,
    show_default=True,
    help=str(
        Words(
            "保存を頼まれた答え（responses）を残す日数。0 なら保存しない", "days for which responses are stored that ask for it; 0: none is"
        )
    ),
)
@click.option(
    "--prefix-cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=str(
        Words("読んだ文章の計算結果を残すフォルダ（中身から文章が分かります）", "where what was read is kept; it gives the texts away")
    ),
)
@click.option(
    "--share-port",
    is_flag=True,
    help=str(
        Words(
            "同じポートをほかの tsuzuri serve と分け合う（止めずに入れ替えるとき）",
            "share the port with other servers, to replace one by one",
        )
    ),
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 3600),
    default=30,
    show_default=True,
    help=str(Words("止めるとき、答えの途中のものを待つ秒数", "seconds that answers under way have when it is told to stop")),
)
@click.option(
    "--watch",
    "watch_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=str(Words("動作の見守り：トレース、変化の検知、警報（YAML）", "watching it run: traces, drift, alerts (YAML)")),
)
@click.option("--quantize", type=click.Choice(["q8_0", "q4_0"]), help=str(Words("読み込むときに量子化する", "quantise on loading")))
@click.option("--threads", type=int, help=str(Words("計算に使うスレッド数", "computing threads")))
def command(
    directories: tuple[Path, ...],
    remotes: tuple[str, ...],
    routes_file: Path | None,
    aliases: tuple[str, ...],
    host: str,
    port: int,
    data: Path | None,
    prices: Path | None,
    free: tuple[str, ...],
    names: tuple[str, ...],
    proxies: tuple[str, ...],
    shared_limits: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    plain_http: bool,
    audit_content: bool,
    audit_keep: str | None,
    no_mask: bool,
    refuse: tuple[str, ...],
    injection: Literal["ignore", "tell", "refuse"],
    secrets: Path | None,
    keep: int,
    prefix_cache: Path | None,
    share_port: bool,
    grace: float,
    watch_file: Path | None,
    quantize: str | None,
    threads: int | None,
) -> None:
    """モデルを HTTP で提供します。最初に起動したときにキーを一つ作り、一度だけ表示します。Ctrl-C で終わります（答えの途中のものは
    待ちます。もう一度押すとすぐに終わります）。 / Serve models over HTTP. The first start makes a key and shows it, once. Ctrl-C ends
    it: answers under way may finish; once more, and it ends at once.

    例：tsuzuri serve --model runs/tiny/model / For example: tsuzuri serve --model runs/tiny/model"""
    from tsuzuri.serve import remotes as remote  # noqa: PLC0415
    from tsuzuri.serve import server  # noqa: PLC0415
    from tsuzuri.serve.app import Service  # noqa: PLC0415
    from tsuzuri.serve.guarding import Guard  # noqa: PLC0415
    from tsuzuri.serve.models import Pool  # noqa: PLC0415
    from tsuzuri.serve.proxies import Proxies  # noqa: PLC0415
    from tsuzuri.serve.watch import settings as watch  # noqa: PLC0415
    from tsuzuri.store import prices as table  # noqa: PLC0415

    plan = _plan(remotes, routes_file)
    guard = Guard(_checks(no_mask, refuse, injection, secrets))
    costs = (table.load(prices).over(table.listed()) if prices else table.listed()).free(free)
    keep_records = milliseconds(audit_keep) if audit_keep else None
    behind = Proxies(proxies)
    watched = watch.read(watch_file) if watch_file else watch.NOTHING
    address = server.Address(host, port, tls_cert, tls_key, plain_http, share_port)
    with server.listen(address) as at, opened(data) as db:
        elsewhere = [*remote.served(plan.remotes, os.environ), *remote.routes(plan, db)]
        models = _with_aliases([*_local(directories, bool(plan.remotes), quantize, threads, prefix_cache), *elsewhere], aliases)
        _check_free(free, models)
        service = Service(
            Pool(models),
            db,
            cost=costs.cost,
            guard=guard,
            hosts=address.hosts(names),
            keep=keep,
            keep_content=audit_content,
            keep_ms=keep_records,
            proxies=behind,
            shared_limits=shared_limits,
            watch=watched,
        )
        greeting.tell_unpriced(models, costs)
        greeting.tell(address, at.getsockname()[1], models, _first_key(db), _invitation(db))
        server.run(service, address, at, grace)
    click.echo(str(Words("終わりました。", "Stopped.")))


def _checks(no_mask: bool, refuse: tuple[str, ...], injection: Literal["ignore", "tell", "refuse"], secrets: Path | None) -> Checks:
    from tsuzuri.guard.finding import personal  # noqa: PLC0415
    from tsuzuri.guard.guarded import Checks  # noqa: PLC0415
    from tsuzuri.guard.secrets import Secrets  # noqa: PLC0415

    registered = dict(_pair("--secrets", line) for line in _lines(secrets)) if secrets else None
    kinds = () if no_mask else personal()
    return Checks(mask=tuple(kinds), secrets=None if registered is None else Secrets(registered), refuse=refuse, injection=injection)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or Words("UTF-8 ではありません", "not UTF-8")
        raise ConfigError(
            Words(f"{path} を読もうとしました。", f"Reading {path}."),
            found=Words(f"読めません（{why}）。", f"It cannot be read ({why})."),
            todo=Words("パスと中身を確かめてください。", "Check the path and what is in it."),
        ) from error


def _local(directories: Sequence[Path], elsewhere: bool, quantize: str | None, threads: int | None, pages: Path | None) -> list[Served]:
    """Models of our own: those named, or the usual one where nothing is named at all."""
    from tsuzuri.serve.models import from_directory  # noqa: PLC0415

    wanted = directories or (() if elsewhere else (named(None),))
    return [from_directory(directory, quantize=quantize, threads=threads, pages=pages) for directory in wanted]


def _plan(remotes: Sequence[str], path: Path | None) -> Plan:
    """What the file says, and the models named beside it."""
    from tsuzuri.serve import remotes as remote  # noqa: PLC0415

    plan = remote.read(path) if path else remote.Plan()
    pairs = [_pair("--remote", text) for text in remotes]
    names = [*plan.remotes, *(name for name, _ in pairs)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            Words(f"よそのモデル「{twice}」が指定されました。", f"A model elsewhere, '{twice}', was given."),
            found=Words("同じ名前のモデルが二つあります。", "There are two models of that name."),
            todo=Words("名前を変えてください。", "Rename one."),
        )
    return remote.Plan({**plan.remotes, **{name: remote.named(name, text) for name, text in pairs}}, plan.routes)


def _with_aliases(models: Sequence[Served], aliases: Sequence[str]) -> list[Served]:
    from dataclasses import replace  # noqa: PLC0415

    pairs = [_pair("--alias", alias) for alias in aliases]
    there = [model.name for model in models]
    for pattern, name in pairs:
        if name not in there:
            raise ConfigError(
                Words(f"--alias {pattern}={name} が指定されました。", f"--alias {pattern}={name} was given."),
                found=Words(f"あるモデルは {'、'.join(there)} です。", f"There is {', '.join(there)}."),
                todo=Words("どれかの名前を指定してください。", "Name one of these."),
            )
    return [replace(model, aliases=tuple(pattern for pattern, name in pairs if name == model.name)) for model in models]


def _pair(option: str, text: str) -> tuple[str, str]:
    left, sign, right = text.partition("=")
    if not (left and sign and right):
        words = Words(
            f"{option} は {'名前=アドレス' if option == '--remote' else '別名=モデル' if option == '--alias' else '名前=値'} の形です。",
            f"{option} takes NAME=VALUE.",
        )
        raise click.UsageError(str(words))
    return left, right


def _check_free(free: Sequence[str], models: Sequence[Served]) -> None:
    there = [model.name for model in models if model.route is None]
    for name in free:
        if name not in there:
            raise ConfigError(
                Words(f"--free {name} が指定されました。", f"--free {name} was given."),
                found=Words(f"あるモデルは {'、'.join(there)} です。", f"There is {', '.join(there)}."),
                todo=Words("どれかの名前を指定してください。", "Name one of these."),
            )


def _first_key(db: Database) -> str | None:
    """The secret of a key made because there was none."""
    from tsuzuri.store import keys  # noqa: PLC0415

    return None if keys.listed(db) else keys.create(db, "first", scopes=("chat", "embeddings"))[1]


def _invitation(db: Database) -> str | None:
    """A one-time token for the first administrator, as long as there is none."""
    from tsuzuri.store import users  # noqa: PLC0415

    return users.invite(db)
