"""The settings of a server: one table for file, flags and page; what is wrong is named; what is in force is shown without secrets."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tsuzuri import config
from tsuzuri.commands import cli
from tsuzuri.errors import ConfigError, MissingError, TsuzuriError
from tsuzuri.serve import settings, starting
from tsuzuri.serve.settings import Settings
from tsuzuri.serve.terms import Terms

FAR = "remotes: {far: 'http://127.0.0.1:9/v1'}\n"
PAGES = [Path(__file__).parents[2] / "docs" / language / "service-settings.md" for language in ("en", "ja")]
EVERY: dict[str, Any] = {  # another value than the usual one for each key
    "models": ["some/model"],
    "remotes": {"a": "openai:m", "b": {"model": "m", "address": "http://127.0.0.1:9/v1"}},
    "routes": {"r": {"models": [{"model": "a"}]}},
    "aliases": {"claude-*": "a"},
    "host": "localhost",
    "port": 1,
    "data_dir": "data",
    "names": ["ai.example"],
    "trusted_proxies": ["10.0.0.5"],
    "tls_cert": "c.pem",
    "tls_key": "k.pem",
    "plain_http": True,
    "share_port": True,
    "grace": 2.5,
    "deadline": 90.0,
    "at_once": 3,
    "shared_limits": True,
    "prices": None,
    "free": ["a"],
    "watts": 40.0,
    "audit_content": True,
    "audit_keep": "365d",
    "keep": 7,
    "mask": False,
    "refuse": ["weapons"],
    "injection": "refuse",
    "secrets": None,
    "watch": None,
    "prefix_cache": "cache",
    "quantize": "q8_0",
    "threads": 2,
    "lookup": 8,
}


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`tsuzuri serve`, where it ends before it listens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TSUZURI_LANG", "en")
    for name in ("TSUZURI_DATABASE_URL", "TSUZURI_SECRETS_DIR", "TSUZURI_REMOTE_KEY"):
        monkeypatch.delenv(name, raising=False)

    def ran(*arguments: str, file: str | None = None) -> Result:
        if file is not None:
            (tmp_path / "serve.yaml").write_text(file, encoding="utf-8")
            arguments = ("--config", "serve.yaml", *arguments)
        return CliRunner().invoke(cli, ["serve", *arguments, "--print-config"])

    return ran


def shown(done: Result) -> dict[str, Any]:
    assert done.exception is None, done.exception
    Path("shown.yaml").write_text(done.stdout, encoding="utf-8")
    return config.read_yaml(Path("shown.yaml"))


def test_what_is_shown_is_read_back_and_every_key_of_a_file_is_in_force(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("rates: {USD: [{from: 2026-01-01, yen: 150}]}", encoding="utf-8")
    (tmp_path / "s").write_text("bank=hirake-goma-7781", encoding="utf-8")
    (tmp_path / "w").write_text("drift: {baseline: b.json}", encoding="utf-8")
    wanted = {**EVERY, "prices": "p.yaml", "secrets": "s", "watch": "w"}
    assert set(wanted) == {field.name for field in dataclasses.fields(Settings)}, "every key is tried here"
    usual = config.dump(Settings())
    assert all(wanted[name] != usual[name] for name in usual)
    found = shown(serve(file=config.to_yaml(wanted)))
    assert found == wanted
    assert shown(serve("--config", "shown.yaml")) == wanted


def test_every_key_but_the_rare_ones_has_a_flag_that_goes_before_the_file(serve: Any) -> None:
    command: Any = cli.get_command(None, "serve")  # type: ignore[arg-type]
    flags = {name for option in command.params for name in option.opts}
    for field in dataclasses.fields(Settings):
        flag = field.metadata["key"].flag
        assert (flag is None and field.name in ("at_once", "watts")) or flag in flags
    file = FAR + "port: 1\nrefuse: [weapons, hate]\naudit_content: true\naliases: {x: far, y: far}\nmask: false\n"
    over = ("--port", "2", "--refuse", "illegal", "--no-audit-content", "--alias", "y=more", "--alias", "z=far", "--mask")
    found = shown(serve(*over, "--remote", "far=openai:m", "--remote", "more=openai:n", file=file))
    assert (found["port"], found["refuse"], found["audit_content"], found["mask"]) == (2, ["illegal"], False, True)
    assert found["aliases"] == {"x": "far", "y": "more", "z": "far"}
    assert found["remotes"] == {"far": "openai:m", "more": "openai:n"}
    kept = shown(serve(file=file))
    assert (kept["port"], kept["refuse"], kept["audit_content"], kept["mask"]) == (1, ["weapons", "hate"], True, False)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("prot: 1", "Did you mean port"),
        ("port: eight", "port"),
        ("port: 70000", "65535"),
        ("keep: -1", "3650"),
        ("at_once: 0", "at_once"),
        ("injection: tel", "Did you mean tell"),
        ("mask: 1", "mask"),
        ("port: 1\nport: 2", "twice"),
        ("audit_keep: soon", "length of time"),
        ("refuse: [weather]", "weapons"),
        ("trusted_proxies: [somewhere]", "range of addresses"),
        ("host: 192.0.2.1", "--tls-cert"),
        ("remotes: {a: gemini}", "provider:model@address"),
        ("remotes: {a: {model: m}}", "address"),
        ("remotes: {a: {modle: m}}", "remotes.a.modle"),
        ("routes: {r: {models: []}}", "no model"),
        ("prices: none.yaml", "none.yaml"),
        ("secrets: none", "none"),
        ("aliases: {a: 1}", "aliases.a"),
        ("watch: none.yaml", "none.yaml"),
        ("data_dir: data\nprefix_cache: data/read\nmodels: [near]", "gives texts away"),
        ("threads: 2", "No model runs on this machine"),
        ("quantize: q8_0", "No model runs on this machine"),
        ("lookup: 8", "No model runs on this machine"),
        ("lookup: 65", "64"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(file: str, told: str, serve: Any) -> None:
    done = serve(file=file if file.startswith("remotes") else FAR + file)
    assert isinstance(done.exception, TsuzuriError), done.exception
    assert told in str(done.exception)
    with pytest.raises(MissingError):
        settings.read(Path("not-there.yaml"), {})


def test_a_name_is_in_one_file_only(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text("remotes: {near: 'http://127.0.0.1:9/v1'}", encoding="utf-8")
    assert set(shown(serve("--routes", "routes.yaml", file=FAR))["remotes"]) == {"far", "near"}
    (tmp_path / "routes.yaml").write_text(FAR, encoding="utf-8")
    done = serve("--routes", "routes.yaml", file=FAR)
    assert isinstance(done.exception, ConfigError) and "'far' is in both" in str(done.exception)


def test_no_secret_is_shown(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = "planted-7f3a9c"
    monkeypatch.setenv("TSUZURI_REMOTE_KEY", planted)
    monkeypatch.setenv("OWN_KEY", planted)
    monkeypatch.setenv("TSUZURI_DATABASE_URL", f"postgresql://user:{planted}@db.example:5433/tsuzuri")
    (tmp_path / "k").write_text(planted, encoding="utf-8")
    (tmp_path / "s").write_text(f"bank={planted}", encoding="utf-8")
    file = FAR + "secrets: s\n"
    more = ("--remote", "b=openai:m")
    done = serve(
        *more, file=file.replace("}", ", c: {provider: openai, model: m, key_file: k}, d: {provider: openai, model: m, key_env: OWN_KEY}}")
    )
    shown(done)
    assert planted not in done.output
    assert "postgresql://db.example:5433/tsuzuri" in done.output
    assert all(words in done.output for words in ("key: TSUZURI_REMOTE_KEY", "key: the file k", "key: OWN_KEY"))
    for wrong in (
        f"remotes: {{a: {{provider: openai, model: m, key: {planted}}}}}",
        f"remotes: {{a: {{provider: openai, model: m, key_env: {planted}}}}}",
        f"remotes: {{a: 'http://user:{planted}@127.0.0.1:9/v1'}}",
        FAR + f"remote_key: {planted}",
    ):
        done = serve(file=wrong)
        assert isinstance(done.exception, ConfigError), wrong
        assert planted not in str(done.exception), wrong
    (tmp_path / "s").write_text(planted, encoding="utf-8")
    done = serve(file=file)
    assert isinstance(done.exception, ConfigError) and "Line 1" in str(done.exception) and planted not in str(done.exception)


def test_settings_become_the_terms_of_the_service(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        name: EVERY[name] for name in EVERY if name not in ("prices", "secrets", "tls_cert", "tls_key", "remotes", "routes", "quantize")
    }
    (tmp_path / "w").write_text("drift: {baseline: b.json}", encoding="utf-8")
    terms = starting.ready(config.build(Settings, {**given, "watch": tmp_path / "w"})).terms
    usual = Terms()
    assert terms.guard.checks is not None
    assert (terms.guard.checks.mask, terms.guard.checks.refuse, terms.guard.checks.injection) == ((), ("weapons",), "refuse")
    assert (terms.at_once, terms.deadline, terms.keep, terms.keep_content, terms.shared_limits) == (3, 90.0, 7, True, True)
    assert terms.keep_ms == 365 * 86_400_000
    assert {"ai.example", "localhost"} <= set(terms.hosts)
    assert terms.cost is not None and terms.cost("a", input=1, output=1, at=0) == 0
    for field in dataclasses.fields(Terms):
        assert getattr(terms, field.name) != getattr(usual, field.name), field.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_file_on_the_page_is_taken(page: Path, tmp_path: Path) -> None:
    (written,) = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "page.yaml").write_text(written, encoding="utf-8")
    ready = starting.ready(settings.read(tmp_path / "page.yaml", {}))
    assert set(ready.plan.routes) == {"company"} and set(ready.plan.remotes) == {"large", "near"}
