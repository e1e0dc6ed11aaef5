"""What the service calls: the end of each request goes to the metrics, the spans, the drift and the alerts, as far as they are asked for.

In: a call that is over. Out: nothing to the client. A client's trace is read, and passed on to providers, only where traces are set up.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tsuzuri.serve.watch.alerts import Ended, Recent, Watchman
from tsuzuri.serve.watch.drift import Drift, Finding, Seen, language
from tsuzuri.serve.watch.settings import Watch
from tsuzuri.serve.watch.spans import Spans
from tsuzuri.serve.watch.steps import Steps, begun
from tsuzuri.store.database import Database
from tsuzuri.types import Done, Event, Message, Text

LAST = 5.0  # seconds for what waits when the server ends
SAMPLE = 400  # characters of an answer that its language is told by
BUCKETS = (0.0005, 0.002, 0.01, 0.05, 0.25, 1, 5, 30, 300)  # seconds
LOG = logging.getLogger("tsuzuri.serve")


class Noted:
    """What is noted of one conversation on its way, for the comparison: a language, whether it was filtered; of the text itself nothing."""

    def __init__(self) -> None:
        self.asked, self.filtered = "none", False
        self._said = ""

    def messages(self, messages: Sequence[Message]) -> None:
        self.asked = language(messages[-1].content) if messages else "none"

    def passing(self, event: Event) -> None:
        if isinstance(event, Text) and len(self._said) < SAMPLE:
            self._said += event.text[:SAMPLE]
        elif isinstance(event, Done):
            self.filtered = self.filtered or event.finish == "content_filter"

    @property
    def answered(self) -> str:
        return language(self._said)


class Watching:
    """Of one service. Raises MissingError, ConfigError, FormatError for settings that cannot be followed."""

    def __init__(self, settings: Watch, db: Database, registry: CollectorRegistry, unwritten: Callable[[], bool]) -> None:
        steps = Histogram("tsuzuri_step_seconds", "Of each step of a call.", ["step"], buckets=BUCKETS, registry=registry)
        step = functools.cache(lambda name: steps.labels(name))
        self._seconds: Callable[[str, float], None] = lambda name, seconds: step(name).observe(seconds)
        self._traces, self._share = None, settings.traces.share if settings.traces else 0.0
        self._drift, self._alerts = None, None
        self._recent = Recent()
        if settings.traces is not None:
            dropped = Counter("tsuzuri_spans_dropped", "Calls whose spans were lost.", registry=registry)
            self._traces = Spans(settings.traces, dropped.inc)
        if settings.drift is not None:
            self._drift = Drift(settings.drift.baseline, settings.drift.window, settings.drift.over)
            self._psi = Gauge("tsuzuri_drift_psi", "Population stability index of the last window.", ["quantity"], registry=registry)
            self._drifted = Gauge("tsuzuri_drifted", "Whether that is large and more than chance.", ["quantity"], registry=registry)
        if settings.alerts is not None:
            firing = Gauge("tsuzuri_alert", "What an alert holds for at the moment.", ["alert"], registry=registry)
            lost = Counter("tsuzuri_alerts_lost", "Messages that did not reach the webhook.", registry=registry)
            address = settings.alerts.address(os.environ)
            tell = lambda name, count: firing.labels(name).set(count)  # noqa: E731
            self._alerts = Watchman(settings.alerts, address, db, self._recent, self._drifts, unwritten, tell, lost.inc)

    def steps(self, headers: Sequence[str]) -> Steps:
        """Of a call that begins; `headers`: its `traceparent`s."""
        return Steps(self._seconds, begun(headers, self._share) if self._traces else None)

    def noted(self) -> Noted | None:
        """For a conversation; None where nothing is compared."""
        return Noted() if self._drift else None

    def ended(
        self,
        steps: Steps,
        noted: Noted | None,
        *,
        request: str,
        method: str,
        route: str,
        model: str | None,
        status: int | None,
        tokens: tuple[int, int],
        seconds: float,
        first: float | None,
    ) -> None:
        """A request is over. `tokens`: read and given; `first`: seconds until the model's first event."""
        steps.close()
        if self._alerts is not None:
            self._recent.add(Ended(time.monotonic(), status, seconds, first, model is not None))
        if self._traces is not None:
            steps.root.name = f"{method} {route}"
            steps.root.failed = str(status) if status is not None and status >= 500 else ""
            steps.root.notes |= {"http.request.method": method, "http.route": route, "tsuzuri.request": request}
            steps.root.notes |= {"http.response.status_code": status} if status is not None else {"tsuzuri.gone": "true"}
            self._traces.add(steps)
        if self._drift is not None and noted is not None and model is not None:
            seen: Seen = {
                "model": model,
                "prompt_tokens": tokens[0],
                "completion_tokens": tokens[1],
                "first_seconds": "none" if first is None else first,
                "asked_language": noted.asked,
                "answered_language": noted.answered,
                "outcome": _outcome(status, noted.filtered),
                "guard": "found" if steps.told or noted.filtered else "nothing",
            }
            if self._drift.add(seen):
                self._look()

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """What runs beside the requests, each until it is cancelled."""
        return [*([self._traces.writing()] if self._traces else []), *([self._alerts.looking()] if self._alerts else [])]

    async def flush(self) -> None:
        """At the end: what is waiting goes out, as far as it does in a few seconds."""
        try:
            async with asyncio.timeout(LAST):
                await asyncio.gather(*(each.flush() for each in (self._traces, self._alerts) if each is not None))
        except TimeoutError:
            LOG.error("some spans or alerts did not go out before the end")

    def _drifts(self) -> Sequence[Finding]:
        return self._drift.findings if self._drift else ()

    def _look(self) -> None:
        """A window is full."""
        assert self._drift is not None
        try:
            compared = self._drift.look()
        except OSError as error:
            LOG.error("the baseline cannot be written: %s", type(error).__name__)
            return
        if not compared:
            LOG.warning("this window of requests is the baseline from now on")
        for found in self._drift.findings:
            self._psi.labels(found.quantity).set(found.psi)
            self._drifted.labels(found.quantity).set(found.drifted)


def _outcome(status: int | None, filtered: bool) -> str:
    if filtered:
        return "filtered"
    return "gone" if status is None else "answered" if status < 400 else "refused" if status < 500 else "failed"
