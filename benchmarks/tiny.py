"""The whole life, timed: recipes/tiny.yaml from sample text to a model one can talk to.

Claims: at most ten minutes on two cores after installation, and fewer bits per byte of held-out text than a 5-gram model in
any unit and than xz, each with the text the network has read. Exits with 1 when a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import _protocol

LIMIT = 600.0  # seconds


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "tsuzuri", "run", "recipes/tiny.yaml", f"out={place}"]
        seconds = _protocol.timed(lambda: subprocess.run(command, cwd=_protocol.ROOT, check=True, stdout=subprocess.DEVNULL))()
        report = json.loads((Path(place) / "report.json").read_text(encoding="utf-8"))
    evaluated = report["results"]["evaluate"]
    record = {
        "seconds": seconds,
        "bits_per_byte": evaluated["network"]["bits_per_byte"],
        "interval": evaluated["network"]["interval"],
        "rivals": {name: row["bits_per_byte"] for name, row in evaluated["baselines"].items()},
        "beats_all": evaluated["beats_all"],
        "stages": {name: found["seconds"] for name, found in report["results"].items()},
        "tokens_per_second": report["results"]["pretrain"]["tokens"] / report["results"]["pretrain"]["train_seconds"],
        "report": report,
    }
    _protocol.write("tiny", record)
    sys.stdout.write(f"{seconds:.0f} s, {record['bits_per_byte']:.4f} bits/byte, beats all: {record['beats_all']}\n")
    sys.exit(0 if seconds <= LIMIT and record["beats_all"] else 1)


if __name__ == "__main__":
    main()
