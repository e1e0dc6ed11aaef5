"""From nothing to a server that answers, where all models are elsewhere: seconds, processor seconds, memory.

In: `tsuzuri serve --remote …` as a process of its own, before a data directory that is new and before one that is there. Out:
`results/server_start.json` and a line for each: from the moment at which the process was asked for until `/health` answers, what the
processor did for it, and a second later the memory of it and of the processes that it has begun. The claim: less than 3 s and 200 MB, for torch is
not loaded.

    python benchmarks/server_start.py                       half a minute, alone on the machine; reads /proc, so on Linux
    python benchmarks/server_start.py --rounds 1 --out /tmp  a trial
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _protocol
import httpx2

sys.path.append(str(_protocol.ROOT / "benchmarks"))
from restarts import free_port

KINDS = ("new data", "data that is there")
TICK = os.sysconf("SC_CLK_TCK")


def once(data: Path) -> dict[str, float]:
    port = free_port()
    line = [sys.executable, "-m", "tsuzuri", "serve", "--port", str(port), "--data-dir", str(data), "--remote", "far=http://127.0.0.1:9/v1"]
    begun = time.perf_counter()
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, env={**os.environ, "TSUZURI_REMOTE_KEY": "none"}) as server:
        try:
            while not answers(port):
                if server.poll() is not None or time.perf_counter() - begun > 60:
                    raise RuntimeError("the server does not start")
                time.sleep(0.005)
            seconds = time.perf_counter() - begun
            place = Path("/proc") / str(server.pid)
            user, system = (place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
            time.sleep(1)
            megabytes = _protocol.memory(server.pid) / 1e6
            if "libtorch" in (place / "maps").read_text(encoding="utf-8"):
                raise RuntimeError("it has loaded torch")
        finally:
            server.send_signal(signal.SIGTERM)
    return {"seconds": seconds, "processor_seconds": (int(user) + int(system)) / TICK, "megabytes": megabytes}


def answers(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def main() -> None:
    options = _protocol.arguments(__doc__.partition("\n")[0]).parse_args()
    samples: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as place:
        once(Path(place) / "warm")
        for number in range(options.rounds):
            for kind in KINDS:  # the second finds what the first has made
                samples[kind].append(once(Path(place) / str(number)))
    rows: dict[str, Any] = {}
    for kind, found in samples.items():
        rows[kind] = {name: [one[name] for one in found] for name in found[0]}
        middle = {name: statistics.median(each) for name, each in rows[kind].items()}
        print("{}: {seconds:.2f} s ({processor_seconds:.2f} of the processor), {megabytes:.0f} MB".format(kind, **middle))
    print(
        _protocol.write("server_start", {"rounds": options.rounds, "trial": options.rounds < _protocol.ROUNDS, "rows": rows}, options.out)
    )


if __name__ == "__main__":
    main()
