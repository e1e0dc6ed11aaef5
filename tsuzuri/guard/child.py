"""A process of its own that reads long texts: started by `reader.py`. Its interpreter may be held for as long as it likes.

In: lines of JSON on standard input, each with the name of a reading, texts, and what is looked for. Out: a line when it is ready, and for each
a line with the values. It keeps nothing, and ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the package that this file is of, and no other
    from tsuzuri.guard.finding import personal  # noqa: PLC0415
    from tsuzuri.guard.readings import READINGS, WARM, here  # noqa: PLC0415

    del sys.path[0]
    if hasattr(os, "nice"):
        os.nice(10)  # answers come before what is only read
    for what in READINGS.values():
        list(here(what, [WARM], personal()))  # loads weights, names, rules
    _say("ready")
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        what = READINGS[asked["what"]]
        _say([what.packed(value) for value in here(what, asked["texts"], asked["among"])])


def _say(value: object) -> None:
    sys.stdout.buffer.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
