"""What is counted of the service, in Prometheus' form; by route, status and model, never by key or by what was said.

In: the end of each request. Out: the text of GET /metrics. Each service has a registry of its own: nothing is global.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)  # seconds


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.requests = Counter("tsuzuri_requests", "Requests that have ended.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "tsuzuri_request_seconds", "From the first to the last byte.", ["route"], buckets=BUCKETS, registry=self.registry
        )
        self.first = Histogram(
            "tsuzuri_first_event_seconds", "Until the model's first event.", ["model"], buckets=BUCKETS, registry=self.registry
        )
        self.tokens = Counter("tsuzuri_tokens", "Tokens read and given.", ["model", "kind"], registry=self.registry)
        self.joules = Counter("tsuzuri_energy_joules", "What models of our own drew.", ["model", "how"], registry=self.registry)
        self.guesses = Counter("tsuzuri_guesses", "Tokens guessed ahead, and right.", ["model", "kind"], registry=self.registry)
        self.fallbacks = Counter("tsuzuri_fallbacks", "Models of a route that did not answer.", ["model", "reason"], registry=self.registry)
        self.under_way = Gauge("tsuzuri_requests_under_way", "Requests under way.", registry=self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)
