"""From settings to what runs: models of our own and elsewhere, the guard, prices, the terms of the service.

In: `Settings`, the environment's keys, an open database. Out: `Terms` and the models of a `Pool`; everything that is wrong is told before
a model is loaded, where it can be. It listens nowhere and prints nothing. torch loads with the first model of our own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tsuzuri import config
from tsuzuri.errors import ConfigError, MissingError, Words, why
from tsuzuri.guard.finding import personal
from tsuzuri.guard.guarded import Checks
from tsuzuri.guard.secrets import Secrets
from tsuzuri.serve import remotes
from tsuzuri.serve.guarding import Guard
from tsuzuri.serve.models import Served
from tsuzuri.serve.proxies import Proxies
from tsuzuri.serve.server import Address
from tsuzuri.serve.settings import DEFAULT, Settings
from tsuzuri.serve.terms import Terms
from tsuzuri.serve.watch import settings as watch
from tsuzuri.serve.workers import beside
from tsuzuri.store import database, prices
from tsuzuri.store.database import Database

WRITING = ("lookup", "prefix_cache")  # settings of models that write
OURS = ("quantize", "threads", *WRITING)  # of models of our own


@dataclass(frozen=True, slots=True)
class Ready:
    """Settings that have been read: nothing of the machine is taken yet."""

    settings: Settings
    address: Address
    plan: remotes.Plan
    costs: prices.Prices
    terms: Terms


def ready(settings: Settings) -> Ready:
    """Raises ConfigError, MissingError, InputError for what is wrong in the settings and the files that they name."""
    plan = remotes.plan(settings.remotes, settings.routes)
    address = Address(settings.host, settings.port, settings.tls_cert, settings.tls_key, settings.plain_http, settings.share_port)
    costs = prices.load(settings.prices).over(prices.listed()) if settings.prices else prices.listed()
    costs = costs.free(settings.free)
    _check_ours(settings, plan)
    _check_apart(settings)
    terms = Terms(
        cost=costs.cost,
        guard=Guard(_checks(settings)),
        hosts=address.hosts(settings.names),
        at_once=settings.at_once,
        keep=settings.keep,
        keep_content=settings.audit_content,
        keep_ms=config.milliseconds(settings.audit_keep) if settings.audit_keep else None,
        deadline=settings.deadline,
        watts=settings.watts,
        proxies=Proxies(settings.trusted_proxies),
        watch=watch.read(settings.watch) if settings.watch else watch.Watch(),
        shared_limits=settings.shared_limits,
    )
    return Ready(settings, address, plan, costs, terms)


def models(found: Ready, db: Database, environment: Mapping[str, str]) -> list[Served]:
    """Loads them. Raises ConfigError, MissingError, FormatError."""
    settings = found.settings
    elsewhere = [*remotes.served(found.plan.remotes, environment), *remotes.routes(found.plan, db)]
    made = _with_aliases([*_local(settings, bool(found.plan.remotes)), *elsewhere], settings.aliases)
    _named("free", settings.free, [model.name for model in made if model.route is None])
    return made


def told(found: Ready, environment: Mapping[str, str]) -> Iterator[str]:
    """Lines on what stands in no setting: where the data and the keys of models elsewhere are. No secret is in them."""
    address = found.settings.data_dir if found.settings.data_dir is not None else database.default_address()
    shown, secret = database.shown(address), database.place_of_secrets(address)
    yield str(Words(f"データ：{shown}　秘密：{secret}", f"data: {shown}  secrets: {secret}"))
    for name, remote in found.plan.remotes.items():
        key = remotes.where_key_is(name, remote, environment)
        yield str(Words(f"モデル {name}：{remote.place}　キー：{key.ja}", f"model {name}: {remote.place}  key: {key.en}"))


def _check_ours(settings: Settings, plan: remotes.Plan) -> None:
    """Raises ConfigError for a setting of models of our own where there is none."""
    given = [name for name in OURS if getattr(settings, name)]
    if given and plan.remotes and not settings.models:
        raise _without(given[0], Words("この計算機で動かすモデルがありません。", "No model runs on this machine."))


def _check_apart(settings: Settings) -> None:
    """Raises ConfigError for a folder of what was read in that of the data: there nothing lies that is not sealed, nor is it backed up."""
    data, pages = database.default_address() if settings.data_dir is None else settings.data_dir, settings.prefix_cache
    if isinstance(data, Path) and pages is not None and pages.absolute().is_relative_to(data.absolute()):
        raise ConfigError(
            Words(f"設定「prefix_cache」に {pages} が指定されました。", f"The setting 'prefix_cache' was given {pages}."),
            found=Words(
                "データのディレクトリの中です。中身から文章が分かるのに、暗号化されません。",
                "It is inside the data directory, and what it holds gives texts away and is not sealed.",
            ),
            todo=Words("その外の場所を指定してください。", "Name a place outside it."),
        )


def _without(name: str, found: Words) -> ConfigError:
    return ConfigError(
        Words(f"設定「{name}」が指定されました。", f"The setting '{name}' was given."),
        found=found,
        todo=Words(f"models を指定するか、{name} を外してください。", f"Name one in models, or leave {name} out."),
    )


def _checks(settings: Settings) -> Checks:
    secrets = None
    if settings.secrets is not None:
        secrets = Secrets(dict(_pair(settings.secrets, number, line) for number, line in _lines(settings.secrets)))
    kinds = tuple(personal()) if settings.mask else ()
    return Checks(mask=kinds, secrets=secrets, refuse=settings.refuse, injection=settings.injection)


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        return [(number, line) for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = why(error) if isinstance(error, OSError) else Words("UTF-8 ではありません", "not UTF-8")
        raise ConfigError(
            Words(f"{path} を読もうとしました。", f"Reading {path}."),
            found=Words(f"読めません（{reason.ja}）。", f"It cannot be read ({reason.en})."),
            todo=Words("パスと中身を確かめてください。", "Check the path and what is in it."),
        ) from error


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    """Of the file of secrets; what stands in the line is not shown."""
    left, sign, right = line.partition("=")
    if not (left and sign and right):
        raise ConfigError(
            Words(f"{path} を読もうとしました。", f"Reading {path}."),
            found=Words(f"{number} 行目が 名前=値 の形ではありません。", f"Line {number} is not NAME=VALUE."),
            todo=Words("その行を直してください。", "Correct that line."),
        )
    return left, right


def _local(settings: Settings, elsewhere: bool) -> list[Served]:
    """Models of our own: those named, or the usual one where nothing is named at all."""
    if not settings.models and not elsewhere and not DEFAULT.is_dir():
        raise MissingError(
            Words("モデルを開こうとしました。", "Opening a model."),
            found=Words(f"--model の指定がなく、{DEFAULT} もまだありません。", f"No --model was given, and there is no {DEFAULT} yet."),
            todo=Words("make tiny で作るか、--model で指定してください。", "Make one with make tiny, or name a directory with --model."),
        )
    wanted = settings.models or (() if elsewhere else (DEFAULT,))
    how = {"quantize": settings.quantize, "threads": settings.threads, "pages": settings.prefix_cache, "lookup": settings.lookup}
    found = [beside(directory, **how) for directory in wanted]
    unused = next((name for name in WRITING if getattr(settings, name) and found and all(one.tokens is None for one in found)), None)
    if unused is not None:
        raise _without(unused, Words("この計算機のモデルは、どれも文章を書きません。", "No model on this machine writes."))
    return found


def _with_aliases(models: Sequence[Served], aliases: Mapping[str, str]) -> list[Served]:
    _named("aliases", list(aliases.values()), [model.name for model in models])
    return [replace(model, aliases=tuple(pattern for pattern, name in aliases.items() if name == model.name)) for model in models]


def _named(key: str, names: Sequence[str], there: Sequence[str]) -> None:
    """Raises ConfigError for a model that is not there."""
    for name in names:
        if name not in there:
            raise ConfigError(
                Words(f"設定「{key}」にモデル「{name}」が指定されました。", f"The setting '{key}' names the model '{name}'."),
                found=Words(f"あるモデルは {'、'.join(there)} です。", f"There is {', '.join(there)}."),
                todo=Words("どれかの名前を指定してください。", "Name one of these."),
            )
