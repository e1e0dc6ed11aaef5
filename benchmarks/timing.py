"""Whether the time of a refusal tells how much of a key was right: first character wrong against last, 20,000 requests over HTTP.

In: nothing; a server of its own on 127.0.0.1. Out: `results/timing.json` and a line: t between the two, Welch's of all samples and Yuen's
without the slowest tenth (|t| below 4.5 is no sign of a difference; Reparaz, Balasch and Verbauwhede 2017), and as a control the same of two
draws of one kind. It has meaning on a quiet machine alone.

    python benchmarks/timing.py              about a minute
    python benchmarks/timing.py --requests 2000 --out /tmp/x   a trial
"""

from __future__ import annotations

import http.client
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

import _protocol

from tsuzuri.serve.app import Service
from tsuzuri.serve.models import Pool
from tsuzuri.serve.server import Address, Server, listen
from tsuzuri.store import database, keys

REQUESTS, WARM = 20_000, 500


def t_of(first: list[float], second: list[float], share: float = 1.0) -> float:
    """Welch's; with a smaller `share` Yuen's (1974), of means without the slowest rest."""
    means, spread = [], 0.0
    for samples in (first, second):
        kept = sorted(samples)[: int(len(samples) * share)]
        winsorised = kept + [kept[-1]] * (len(samples) - len(kept))
        means.append(statistics.fmean(kept))
        spread += statistics.variance(winsorised) / (share**2 * len(samples))
    return (means[0] - means[1]) / spread**0.5


def seconds(connection: http.client.HTTPConnection, secret: str) -> float:
    start = time.perf_counter()
    connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {secret}"})
    answer = connection.getresponse()
    answer.read()
    took = time.perf_counter() - start
    assert answer.status == 401
    return took


def measured(port: int, wrong: tuple[str, str], requests: int) -> tuple[list[float], list[float], list[int]]:
    """Samples of each kind, in a drawn order, and which draw of the first kind each was for the control."""
    draw, samples, halves = random.Random(20), ([], []), []  # type: ignore[var-annotated]
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for number in range(WARM + requests):
        which = draw.randrange(2)
        took = seconds(connection, wrong[which])
        if number >= WARM:
            samples[which].append(took)
            halves += [draw.randrange(2)] if which == 0 else []
    connection.close()
    return *samples, halves


def main() -> None:
    parser = _protocol.arguments(__doc__ or "")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, database.open(Path(place) / "data", Path(place) / "secrets") as db:
        _, secret = keys.create(db, "timing")
        wrong = tuple(secret[:at] + ("A" if secret[at] != "A" else "B") + secret[at + 1 :] for at in (17, len(secret) - 1))
        at = listen(Address(port=0))
        server = Server(Service(Pool([]), db), Address(), 0.2)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        first, last, halves = measured(at.getsockname()[1], (wrong[0], wrong[1]), options.requests)
        server.should_exit = True
        thread.join(20)
    control = [[took for took, half in zip(first, halves, strict=True) if half == which] for which in (0, 1)]
    found = {
        "t": t_of(first, last), "t_trimmed": t_of(first, last, 0.9), "t_control": t_of(control[0], control[1], 0.9),
        "median_microseconds": [1e6 * statistics.median(samples) for samples in (first, last)],
    }  # fmt: skip
    _protocol.write("timing", {"requests": options.requests, "rounds": options.rounds, **found}, options.out)
    print(f"t = {found['t']:.2f}, trimmed {found['t_trimmed']:.2f} (control {found['t_control']:.2f}) of {options.requests} requests")


if __name__ == "__main__":
    main()
