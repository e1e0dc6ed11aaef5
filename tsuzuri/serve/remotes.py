"""Models elsewhere and routes, from the command line and from a file; keys from the environment or from files, never from either.

In: what settings say under `remotes` and `routes`:

    remotes:
      near: http://127.0.0.1:8002/v1                # or provider:model@address, as on the command line
      large: {provider: anthropic, model: claude-sonnet-4-5, key_env: ANTHROPIC_API_KEY}
      shared: {provider: openai_compatible, model: qwen3, address: http://127.0.0.1:8001/v1}
      cloud: {provider: gemini, model: gemini-2.5-flash, key_file: /run/secrets/gemini}
    routes:
      company:
        models:
          - {model: large, when: {personal: false, tokens_over: 2000}}
          - {model: shared}
        fallback: [unreachable, timeout, failing]

Out: `Served`. Each key goes to the address of its own model and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tsuzuri import config
from tsuzuri.chat import providers
from tsuzuri.chat.providers._wire import checked
from tsuzuri.errors import ConfigError, MissingError, Words
from tsuzuri.folder import find
from tsuzuri.serve.models import Served, routed
from tsuzuri.serve.routing import Candidate, Route, When
from tsuzuri.serve.settings import REMOTE_KEY
from tsuzuri.store import keys, users
from tsuzuri.store.database import Database

SHORT = re.compile(r"(?P<provider>[a-z_-]+):(?P<model>[^\s]+?)(?:@(?P<address>https?://\S+))?")
URL = re.compile(r"[a-z]+://", re.IGNORECASE)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
MOST_KEY = 4096  # bytes of a file with a key
TODO = Words("経路のファイルを直してください。", "Correct the file of routes.")


@dataclass(frozen=True, slots=True)
class Remote:
    """One model elsewhere. `address`: the provider's usual one unless given. `key_env`, `key_file`: where its key is. Raises ConfigError."""

    model: str
    provider: str = "openai_compatible"
    address: str | None = None
    key_env: str | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        module = find(providers.__name__, self.provider)
        if self.address is None and module.ADDRESS is None:
            raise _wrong("address", Words(f"{self.provider} には address が要ります。", f"{self.provider} needs an address."))
        checked(self.place, None)
        if self.key_env is not None and self.key_file is not None:
            raise _wrong("key_file", Words("key_env と key_file は、どちらか一つです。", "Give key_env or key_file, not both."))
        if self.key_env is not None and not VARIABLE.fullmatch(self.key_env):  # not shown: it may be the key itself
            raise _wrong("key_env", Words("環境変数の名前ではありません。", "It is no name of an environment variable."))

    @property
    def place(self) -> str:
        return self.address or str(find(providers.__name__, self.provider).ADDRESS)

    @property
    def listed(self) -> str:
        """Its name in a table of prices for all."""
        return f"{self.provider.replace('-', '_')}/{self.model}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a file of routes says."""

    remotes: Mapping[str, Remote] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)


def plan(remotes: Mapping[str, Any], routes: Mapping[str, Any]) -> Plan:
    """What settings say of them. A model elsewhere is a mapping, or as on the command line. Raises ConfigError naming the key."""
    whole = {name: named(name, one) for name, one in remotes.items() if isinstance(one, str)}
    found = config.build(Plan, {"remotes": {n: one for n, one in remotes.items() if n not in whole}, "routes": routes}, todo=TODO)
    return Plan({name: whole.get(name) or found.remotes[name] for name in remotes}, found.routes)


def named(name: str, text: str) -> Remote:
    """What stands behind NAME= on the command line. Raises ConfigError."""
    if URL.match(text):
        return Remote(name, address=text)
    found = SHORT.fullmatch(text)
    if found is None:
        raise ConfigError(
            Words(f"--remote {name}={text[:80]} が指定されました。", f"--remote {name}={text[:80]} was given."),
            found=Words("アドレスでも、提供元:モデル@アドレス でもありません。", "It is neither an address nor provider:model@address."),
            todo=Words("例：large=anthropic:claude-sonnet-4-5", "For example: large=anthropic:claude-sonnet-4-5"),
        )
    return Remote(found["model"], found["provider"], found["address"])


def served(remotes: Mapping[str, Remote], environment: Mapping[str, str]) -> list[Served]:
    """Raises ConfigError and MissingError for a key that is not where it should be, and for one that could go to several places."""
    alike = {remote.place for name, remote in remotes.items() if not _own(name, remote, environment)}
    if environment.get(REMOTE_KEY) and len(alike) > 1:
        raise ConfigError(
            Words("複数のサーバーのモデルが指定されました。", "Models of several servers were given."),
            found=Words(f"{REMOTE_KEY} のキーを、どこへ送るのか決められません。", f"It is not clear where the key in {REMOTE_KEY} goes."),
            todo=Words(f"{REMOTE_KEY}_名前 に、それぞれのキーを入れてください。", f"Put each key into {REMOTE_KEY}_NAME."),
        )
    return [_served(name, remote, _key(name, remote, environment)) for name, remote in remotes.items()]


def _served(name: str, remote: Remote, key: str | None) -> Served:
    chat = find(providers.__name__, remote.provider).chat(remote.place, remote.model, key)
    return Served(name, chat, tools=True, forms=True, priced=remote.listed)


def where_key_is(name: str, remote: Remote, environment: Mapping[str, str]) -> Words:
    """For a person who looks at what is in force; never the key."""
    if remote.key_file is not None:
        return Words(f"ファイル {remote.key_file}", f"the file {remote.key_file}")
    if remote.key_env is not None:
        there = bool(environment.get(remote.key_env))
        return Words(f"{remote.key_env}{'' if there else '（ありません）'}", f"{remote.key_env}{'' if there else ' (not there)'}")
    found = next((each for each in (variable(name), REMOTE_KEY) if environment.get(each)), None)
    return Words(found or "なし", found or "none")


def variable(name: str) -> str:
    """The environment variable for the key of that model alone."""
    return f"{REMOTE_KEY}_{re.sub('[^A-Z0-9]', '_', name.upper())}"


def _own(name: str, remote: Remote, environment: Mapping[str, str]) -> bool:
    return bool(remote.key_env or remote.key_file or environment.get(variable(name)))


def _key(name: str, remote: Remote, environment: Mapping[str, str]) -> str | None:
    if remote.key_file is not None:
        return _from_file(name, remote.key_file)
    if remote.key_env is None:
        return environment.get(variable(name)) or environment.get(REMOTE_KEY) or None
    found = environment.get(remote.key_env)
    if not found:
        raise MissingError(
            Words(f"モデル「{name}」のキーを読もうとしました。", f"Reading the key of the model '{name}'."),
            found=Words(f"環境変数 {remote.key_env} がありません。", f"There is no {remote.key_env} in the environment."),
            todo=Words("環境変数を設定してください。", "Set it."),
        )
    return found


def _from_file(name: str, path: Path) -> str:
    """One line. What is in it is never shown."""
    asked = Words(f"モデル「{name}」のキーを {path} から読もうとしました。", f"Reading the key of the model '{name}' from {path}.")
    todo = Words("キーだけを一行に書いたファイルにしてください。", "Let it be a file with the key alone, in one line.")
    try:
        with path.open("rb") as file:
            text = file.read(MOST_KEY + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MissingError(asked, found=Words("読めません。", f"It cannot be read ({type(error).__name__})."), todo=todo) from error
    if not text or len(text) > MOST_KEY or len(text.split()) != 1:
        raise ConfigError(asked, found=Words("キーが一つだけではありません。", "It does not hold one key."), todo=todo)
    return text


def routes(plan: Plan, db: Database) -> list[Served]:
    """The routes as models, with the keys and users that they name by id. Raises MissingError for one that is not there."""
    found = []
    for name, route in plan.routes.items():
        models = tuple(Candidate(one.model, _known(one.when, db)) for one in route.models)
        found.append(routed(name, replace(route, models=models)))
    return found


def _known(when: When, db: Database) -> When:
    """A rule that names nobody would be silently without effect."""
    return replace(when, keys=_ids(keys.one, db, when.keys), users=_ids(users.one, db, when.users))


def _ids(one: Any, db: Database, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(one(db, name).id for name in names)


def _wrong(where: str, found: Words) -> ConfigError:
    return ConfigError(
        Words(f"よそのモデルの「{where}」を読もうとしました。", f"Reading '{where}' of a model elsewhere."), found=found, todo=TODO
    )
