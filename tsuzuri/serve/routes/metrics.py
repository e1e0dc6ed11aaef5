"""数えたもの（Prometheus の形式）。 / What is counted of the service, for Prometheus."""

from __future__ import annotations

from tsuzuri.serve.call import Call
from tsuzuri.serve.sending import Answer

METHOD, PATHS, POLICY = "GET", ("/metrics",), ("audit", "admin")


async def answer(call: Call) -> Answer:
    call.service.metrics.under_way.set(call.service.access.under_way)
    return Answer(call.service.metrics.text(), media="text/plain; version=0.0.4; charset=utf-8")
