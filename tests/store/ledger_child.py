"""A server in small, to be killed: reserves, writes down what it is about to deliver, delivers it to standard output, settles.

Arguments: address, secrets, seed. Each line it prints is a delivery: `request amount-so-far`.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from tsuzuri.store import database, keys, ledger
from tsuzuri.store.ledger import Reservation


def deliver(line: str) -> None:
    os.write(1, line.encode())


def main(address: str, secrets: str, seed: str) -> None:
    chance = random.Random(int(seed))
    db = database.open(address if "://" in address else Path(address), Path(secrets))
    key = keys.listed(db)[0]
    deliver("ready 0\n")
    for number in range(100_000):
        request = f"{seed}-{number}"
        held = ledger.reserve(db, key, request, 1000, lease_ms=1)
        assert isinstance(held, Reservation)
        so_far = 0
        for _ in range(chance.randrange(4)):
            so_far += chance.randrange(1, 250)
            ledger.delivering(db, held, so_far, lease_ms=1)
            deliver(f"{request} {so_far}\n")
        ledger.settle(db, held, so_far) if chance.random() < 0.8 else ledger.release(db, held)


if __name__ == "__main__":
    main(*sys.argv[1:])
