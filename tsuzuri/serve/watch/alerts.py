"""Alerts: rules that are looked at now and then, told when one begins to hold and when it no longer does.

In: rules, what the requests of the last minutes did, the ledger, the audit, the drift. Out: lines in the log, a gauge, and, where an
address is named, a POST of JSON to it. Each is told once as it begins and once as it ends; nothing in it was said by anybody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tsuzuri.errors import TsuzuriError, Words
from tsuzuri.serve.watch.drift import Finding
from tsuzuri.serve.watch.posting import post
from tsuzuri.serve.watch.settings import Alerts, Rule
from tsuzuri.store import audit, ledger
from tsuzuri.store.database import Database

MOST = 100_000  # requests that are remembered
TRIES, WAIT = 3, 2.0  # of telling the webhook; seconds before the second, twice as many before the third
LOG = logging.getLogger("tsuzuri.serve")


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that is over. Seconds; `at` and they on a clock that nobody sets."""

    at: float
    status: int | None
    seconds: float
    first: float | None  # until a model's first event; None where none was asked
    model: bool


class Recent:
    """The requests of the last minutes."""

    def __init__(self) -> None:
        self._ended: deque[Ended] = deque(maxlen=MOST)

    def add(self, one: Ended) -> None:
        self._ended.append(one)

    def since(self, at: float) -> list[Ended]:
        return [one for one in self._ended if one.at >= at]


def share_of_errors(ended: Sequence[Ended], least: int) -> float | None:
    """Of those that asked a model, and of all that failed, how many did (5xx); None of fewer than `least`."""
    failed = [one for one in ended if one.status is not None and one.status >= 500]
    count = len(failed) + sum(one.model and (one.status is None or one.status < 500) for one in ended)
    return len(failed) / count if count >= least else None


def p99(seconds: Sequence[float], least: int) -> float | None:
    """The smallest that 99 of 100 do not pass; None of fewer than `least`."""
    return sorted(seconds)[-(-99 * len(seconds) // 100) - 1] if len(seconds) >= least else None


class Watchman:
    """Looks at the rules and tells. `firing` hears how many things a rule holds for; `lost` of each POST that did not arrive."""

    def __init__(
        self,
        settings: Alerts,
        address: str | None,
        db: Database,
        recent: Recent,
        drifts: Callable[[], Sequence[Finding]],
        unwritten: Callable[[], bool],
        firing: Callable[[str, int], None],
        lost: Callable[[], None],
    ) -> None:
        self._settings, self._address, self._db = settings, address, db
        self._recent, self._drifts, self._unwritten = recent, drifts, unwritten
        self._firing, self._lost = firing, lost
        self._holding: dict[str, dict[str, float]] = {rule.called: {} for rule in settings.rules}
        self._broken: dict[str, float] = {}  # what was found of the audit when it was last read
        self._read: float | None = None  # when that was
        self._telling: set[asyncio.Task[None]] = set()

    async def looking(self) -> None:
        """Ends when it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._settings.every)

    async def look(self) -> None:
        for rule in self._settings.rules:
            try:
                found = await self._found(rule)
            except (TsuzuriError, OSError) as error:
                LOG.error("the alert %s cannot be looked at: %s", rule.called, type(error).__name__)
                continue
            before = self._holding[rule.called]
            self._holding[rule.called] = found
            self._firing(rule.called, len(found))
            for subject in found.keys() - before.keys():
                self._tell(rule, "firing", subject, found[subject])
            for subject in before.keys() - found.keys():
                self._tell(rule, "resolved", subject, before[subject])

    async def _found(self, rule: Rule) -> dict[str, float]:
        """What the rule holds for, and how much it is."""
        ended = self._recent.since(time.monotonic() - 60 * rule.minutes)
        bound = rule.bound
        match rule.when:
            case "budget":
                assert bound is not None
                rows = await asyncio.to_thread(ledger.listed, self._db)
                used = {row.owner: (row.held + row.spent) / row.limit for row in rows if row.limit}
                return {owner: share for owner, share in used.items() if share > bound}
            case "errors":
                return _beyond(share_of_errors(ended, rule.least), bound)
            case "p99":
                return _beyond(p99([one.seconds for one in ended if one.model and one.status == 200], rule.least), bound)
            case "first_p99":
                return _beyond(p99([one.first for one in ended if one.first is not None], rule.least), bound)
            case "drift":
                return {one.quantity: round(one.psi, 4) for one in self._drifts() if one.drifted}
            case "audit":
                return {**await self._audit(), **({"unwritten": 1.0} if self._unwritten() else {})}

    async def _audit(self) -> dict[str, float]:
        """Every record is read, now and then: what is wrong, and of how many."""
        now = time.monotonic()
        if self._read is None or now - self._read >= 60 * self._settings.audit_minutes:
            report = await asyncio.to_thread(self._verified)
            self._read, self._broken = now, {}
            for finding in report.findings:
                self._broken[finding.wrong] = self._broken.get(finding.wrong, 0.0) + 1
        return self._broken

    def _verified(self) -> audit.Report:
        anchors = self._settings.anchors
        return audit.verify(self._db, audit.read_anchors(anchors) if anchors else ())

    def _tell(self, rule: Rule, state: str, subject: str, value: float) -> None:
        text = _said(rule, state, subject, value)
        LOG.warning("alert %s", text)
        if self._address is None:
            return
        body = {
            "alert": rule.called,
            "when": rule.when,
            "state": state,
            "subject": subject,
            "value": value,
            "over": rule.bound,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "text": text,
        }
        task = asyncio.create_task(self._post(json.dumps(body, ensure_ascii=False).encode()))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _post(self, body: bytes) -> None:
        assert self._address is not None
        for tried in range(TRIES):
            if await post(self._address, body):
                return
            if tried < TRIES - 1:
                await asyncio.sleep(WAIT * 2**tried)
        self._lost()
        LOG.error("an alert did not reach the webhook")

    async def flush(self) -> None:
        await asyncio.gather(*self._telling, return_exceptions=True)


def _beyond(value: float | None, bound: float | None) -> dict[str, float]:
    assert bound is not None
    return {"all": value} if value is not None and value > bound else {}


def _said(rule: Rule, state: str, subject: str, value: float) -> str:
    over = "" if rule.bound is None else f" > {rule.bound:g}"
    return f"{rule.called}: {Words('発生', 'firing') if state == 'firing' else Words('解消', 'resolved')} ({subject} {value:.4g}{over})"
