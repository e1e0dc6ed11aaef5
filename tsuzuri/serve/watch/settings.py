"""The file for `tsuzuri serve --watch FILE`: what is written down, compared and told of the running service. Without it, nothing is.

    traces: {file: runs/spans.jsonl, endpoint: http://127.0.0.1:4318/v1/traces, share: 0.1}
    drift: {baseline: runs/baseline.json, window: 500}
    alerts:
      webhook_env: TSUZURI_WEBHOOK
      rules:
        - {when: budget, over: 0.9}
        - {when: errors, over: 0.05, minutes: 10}
        - {when: p99, over: 30}
        - {when: drift}
        - {when: audit}

In: YAML. Out: frozen values. Nothing is sent anywhere unless an address stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import httpx2

from tsuzuri import config
from tsuzuri.errors import ConfigError, MissingError, Words

When: TypeAlias = Literal["budget", "errors", "p99", "first_p99", "drift", "audit"]
USUAL: Mapping[str, float] = {"budget": 0.9, "errors": 0.05, "p99": 30.0, "first_p99": 10.0}  # `over`, where nothing else is said
SHARES = ("budget", "errors")
RECENT = ("errors", "p99", "first_p99")
TODO = Words("--watch のファイルを直してください。", "Correct the file of --watch.")


@dataclass(frozen=True, slots=True)
class Traces:
    """Where spans go. `share`: of the requests that bring no trace of their own, how many are written down (0 to 1)."""

    file: Path | None = None  # lines of JSON; at `most_mib` it is renamed to NAME.1, the one before it is gone
    endpoint: str | None = None  # of an OTLP collector, over HTTP
    share: float = 1.0
    most_mib: int = 64

    def __post_init__(self) -> None:
        if self.file is None and self.endpoint is None:
            raise _wrong("traces", Words("file か endpoint が要ります。", "It needs a file or an endpoint."))
        if self.endpoint is not None:
            check(self.endpoint, "traces.endpoint")
        _between("traces.share", self.share, 0, 1)
        _between("traces.most_mib", self.most_mib, 1, 1 << 20)


@dataclass(frozen=True, slots=True)
class Drift:
    """`window` requests are compared with those of the `baseline`; where that file is not there, the first window becomes it."""

    baseline: Path
    window: int = 500
    over: float = 0.25  # population stability index from which on it is called a drift

    def __post_init__(self) -> None:
        _between("drift.window", self.window, 100, 100_000)
        _between("drift.over", self.over, 0.01, 100)


@dataclass(frozen=True, slots=True)
class Rule:
    """When an alert is raised. `over`: a share (budget, errors) or seconds (p99, first_p99). `minutes`: how far back is looked, and
    `least`: of how many requests at least."""

    when: When
    over: float | None = None
    minutes: float = 10
    least: int = 20
    name: str = ""

    def __post_init__(self) -> None:
        if self.when not in USUAL and self.over is not None:
            raise _wrong("alerts.rules", Words(f"{self.when} に over はありません。", f"{self.when} takes no over."))
        if self.over is not None:
            _between("alerts.rules.over", self.over, 0, 1 if self.when in SHARES else 86_400)
        if self.when not in RECENT and (self.minutes, self.least) != (10, 20):
            raise _wrong(
                "alerts.rules", Words(f"{self.when} に minutes と least はありません。", f"{self.when} takes no minutes and no least.")
            )
        _between("alerts.rules.minutes", self.minutes, 0.01, 1440)
        _between("alerts.rules.least", self.least, 1, 100_000)

    @property
    def called(self) -> str:
        return self.name or self.when

    @property
    def bound(self) -> float | None:
        return USUAL.get(self.when) if self.over is None else self.over


@dataclass(frozen=True, slots=True)
class Alerts:
    """`every`: seconds between two looks; `audit_minutes`: between two readings of every audit record, compared with `anchors`.
    The address of the webhook may be a secret: then it stands in the environment, by the name in `webhook_env`."""

    rules: tuple[Rule, ...]
    every: float = 30
    audit_minutes: float = 60
    anchors: Path | None = None
    webhook: str | None = None
    webhook_env: str | None = None

    def __post_init__(self) -> None:
        names = [rule.called for rule in self.rules]
        twice = next((name for name in names if names.count(name) > 1), None)
        if not names or twice is not None:
            words = Words(f"「{twice}」が二つあります。name で区別してください。", f"There are two called {twice}: give them names.")
            raise _wrong("alerts.rules", words if names else Words("規則がありません。", "There is no rule."))
        if self.webhook is not None and self.webhook_env is not None:
            raise _wrong("alerts.webhook", Words("webhook と webhook_env は、どちらか一つです。", "Give webhook or webhook_env, not both."))
        if self.webhook is not None:
            check(self.webhook, "alerts.webhook")
        _between("alerts.every", self.every, 0.05, 3600)
        _between("alerts.audit_minutes", self.audit_minutes, 0.001, 10_080)

    def address(self, environment: Mapping[str, str]) -> str | None:
        """Of the webhook. Raises MissingError, ConfigError."""
        if self.webhook_env is None:
            return self.webhook
        found = environment.get(self.webhook_env)
        if not found:
            raise MissingError(
                Words("知らせの送り先を読もうとしました。", "Reading where alerts go."),
                found=Words(f"環境変数 {self.webhook_env} がありません。", f"There is no {self.webhook_env} in the environment."),
                todo=Words("環境変数を設定してください。", "Set it."),
            )
        check(found, "alerts.webhook_env")
        return found


@dataclass(frozen=True, slots=True)
class Watch:
    """What `--watch` says."""

    traces: Traces | None = None
    drift: Drift | None = None
    alerts: Alerts | None = None

    def __post_init__(self) -> None:
        if self.drift is None and self.alerts and any(rule.when == "drift" for rule in self.alerts.rules):
            raise _wrong("alerts.rules", Words("drift の設定がないので、変化は分かりません。", "Without drift, there is none to know of."))


NOTHING = Watch()


def read(path: Path) -> Watch:
    """Raises MissingError, InputError, ConfigError naming the key."""
    return config.build(Watch, config.read_yaml(path), todo=TODO)


def check(address: str, where: str) -> None:
    """Raises ConfigError for what is no address; what it is, is not repeated: it may hold a secret."""
    try:
        url = httpx2.URL(address)
    except (httpx2.InvalidURL, ValueError):
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.fragment:
        raise _wrong(where, Words("http か https のアドレスではありません。", "It is no address of http or https."))


def _between(where: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise _wrong(where, Words(f"{least} から {most} までです。", f"It is from {least} to {most}."))


def _wrong(where: str, found: Words) -> ConfigError:
    return ConfigError(Words(f"設定「{where}」を読もうとしました。", f"Reading the setting '{where}'."), found=found, todo=TODO)
