"""How long it takes to verify the audit, and to write it: records a second, on SQLite as it is set up.

In: a million records like those of chat calls. Out: `results/audit.json` and a line: seconds to verify them (each sample is the whole
chain, with an anchor at its end), records a second appended one by one (each on the disk before the next) and in transactions of 1,000.
The claim: a million records are verified in at most ten seconds.

    python benchmarks/audit.py                                            about three minutes and 1 GB of disk
    python benchmarks/audit.py --rounds 1 --records 10000 --out /tmp/x    a trial
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import _protocol

from tsuzuri.store import audit, database
from tsuzuri.store.database import Database

MILLION, ONE_BY_ONE, TOGETHER = 1_000_000, 500, 1000


def call(number: int) -> dict[str, object]:
    tokens = {"prompt": 1000 + number % 500, "completion": number % 300, "cached": 512}
    return {"key": "key_0123456789abcdef01234567", "user": "user_0123456789abcdef01234567", "model": "tsuzuri-small", "request": f"req_{number:024x}",
            "tokens": tokens, "status": 200, "stream": True, "micro_yen": 12_345 + number}  # fmt: skip


def written(db: Database, records: int) -> dict[str, float]:
    """Records a second, one by one and together."""
    start = time.perf_counter()
    for number in range(ONE_BY_ONE):
        audit.append(db, "chat", call(number))
    middle = time.perf_counter()
    for first in range(ONE_BY_ONE, records, TOGETHER):
        audit.append_many(db, [("chat", call(number)) for number in range(first, min(records, first + TOGETHER))])
    end = time.perf_counter()
    return {"one_by_one": ONE_BY_ONE / (middle - start), "together": (records - ONE_BY_ONE) / (end - middle)}


def main() -> None:
    parser = _protocol.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=MILLION, help="fewer are a trial")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        with database.open(root / "data", root / "secrets") as db:
            rates = written(db, options.records)
            audit.anchor(db, root / "anchors")
            anchors = audit.read_anchors(root / "anchors")

            def verify() -> tuple[float, float]:
                begun, computed = time.perf_counter(), time.process_time()
                report = audit.verify(db, anchors)
                assert report.sound and report.records == report.anchored == options.records
                return time.perf_counter() - begun, time.process_time() - computed

            verify()
            samples, processor = (list(each) for each in zip(*[verify() for _ in range(options.rounds)], strict=True))
    seconds, alone = (statistics.median(each) * MILLION / options.records for each in (samples, processor))
    record = {
        "rounds": options.rounds,
        "records": options.records,
        "verify_seconds": samples,
        "verify_seconds_per_million": seconds,
        "verify_processor_seconds": processor,
        "append_records_per_second": rates,
    }
    _protocol.write("audit", record, options.out)
    print(
        f"verify: {seconds:.1f} s for a million ({alone:.1f} of the processor); append: {rates['one_by_one']:.0f}/s one by one, {rates['together']:.0f}/s together"
    )


if __name__ == "__main__":
    main()
