#!/usr/bin/env python3
"""監査の記録を、書き出したファイルだけから確かめます。 / Verifies an exported audit log. Needs this one file and Python's standard library.

    tsuzuri audit export > log.jsonl
    python verify_audit.py log.jsonl --anchors anchors [--pepper pepper]

In: the log, and the anchors that were kept where whoever may write the database may not. Out: what is wrong, one line each, and exit status 0
(nothing is), 1 (something is) or 2 (the files cannot be read). Without the pepper nothing secret is needed: the chain and the anchors are
checked; with it also that each record, tombstone and anchor was written by that very server. It was written apart from
`tsuzuri audit verify`, and a test compares what the two find.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

START = "00" * 32  # what the first record names as the one before it
WRONG = {
    "changed": "書き換えられている / is not what its hash says",
    "forged": "このサーバーが書いたものではない / was not written by this server",
    "missing": "ここから欠けている / is missing, and maybe more",
    "order": "前の記録に続いていない / does not follow the one before",
    "cut": "ここから後が切り取られている / and what followed has been cut off",
    "rewritten": "アンカーの見たものと違う / is not what an anchor saw",
    "tombstone": "廃棄の印が偽物 / is a false tombstone",
    "anchor": "アンカーが偽物 / is a false anchor",
    "content": "保存した内容が元のものではない / has content that is not what was kept",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("log", help="tsuzuri audit export の出力 / what it wrote")
    parser.add_argument("--anchors", metavar="FILE", help="アンカー / the anchors")
    parser.add_argument("--pepper", metavar="FILE", help="秘密鍵のファイル pepper（なくてもよい） / the secret of that name, if at hand")
    parser.add_argument("--json", action="store_true", help="JSON で / as JSON")
    options = parser.parse_args(arguments)
    try:
        pepper = bytes.fromhex(Path(options.pepper).read_text(encoding="ascii").strip()) if options.pepper else None
        anchors = [json.loads(line) for line in Path(options.anchors).read_text(encoding="utf-8").splitlines()] if options.anchors else []
        with Path(options.log).open(encoding="utf-8", newline="\n") as file:
            found = Log(pepper).read(file, anchors)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"読めません / cannot be read: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        for seq, wrong in found["findings"]:
            print(f"{seq}: {WRONG[wrong]}")
        said = "問題はない / nothing is wrong" if not found["findings"] else "問題がある / something is wrong"
        print(f"{found['records']}: {said} (アンカー / anchors: {found['anchored']}, 廃棄 / pruned: {found['pruned']})")
        if not anchors:
            print("アンカーなしでは、末尾の切り取りと全体の書き直しは分からない / without anchors a cut end does not show", file=sys.stderr)
    return 1 if found["findings"] else 0


class Log:
    """One pass over the lines: tombstones, records, digests of contents, the head."""

    def __init__(self, pepper: bytes | None) -> None:
        self._pepper = pepper
        self.seq, self.last, self.count, self.pruned, self.pruned_hash = 0, START, 0, 0, START
        self.findings: set[tuple[int, str]] = set()
        self.hashes: dict[int, set[str]] = {}  # of the records that an anchor speaks of
        self.kept: dict[int, str] = {}  # seq -> digest of the content that was kept with it
        self.there: dict[int, str] = {}  # seq -> digest of the content that is there
        self.erased: set[int] = set()
        self.heads: list[tuple[int, str]] = []

    def read(self, lines: Any, anchors: list[dict[str, Any]]) -> dict[str, Any]:
        good = [one for one in anchors if self._signed("audit anchor", f"{one['seq']} {one['hash']} {one['at']}", one["mac"])]
        self.hashes = {one["seq"]: set() for one in good}
        for line in lines:
            value = json.loads(line)
            kind = next(name for name in ("record", "tombstone", "content", "head") if name in value)
            getattr(self, f"_{kind}")(value)
        if self.heads != ([(self.seq, self.last)] if self.seq else []):
            self._found(self.seq + 1, "cut")
        for seq in self.kept.keys() | self.there.keys():
            if self.there.get(seq) != (None if seq in self.erased else self.kept.get(seq)):
                self._found(seq, "content")
        for one in anchors:
            self._anchor(one, one in good)
        return {
            "sound": not self.findings,
            "records": self.count,
            "pruned": self.pruned,
            "anchored": max((one["seq"] for one in good if one["seq"] <= self.seq), default=0),
            "erased": len(self.erased & self.kept.keys()),
            "findings": sorted(self.findings),
        }

    def _tombstone(self, value: dict[str, Any]) -> None:
        """What stands in the place of a pruned beginning; they come before the records."""
        through, digest = value["tombstone"], value["hash"]
        if not self._signed("audit tombstone", f"{through} {digest} {value['at']}", value["mac"]):
            self._found(through, "tombstone")
        self.seq, self.last = self.pruned, self.pruned_hash = through, digest

    def _record(self, value: dict[str, Any]) -> None:
        """Its canonical JSON ends with the hash of the one before, its number and its version."""
        seq, text, digest = value["seq"], value["record"], value["hash"]
        if seq != self.seq + 1:
            self._found(self.seq + 1, "missing")
        elif not text.endswith(f',"prev":"{self.last}","seq":{seq},"v":1}}'):
            self._found(seq, "order")
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            self._found(seq, "changed")
        if self._pepper is not None and not hmac.compare_digest(self._mac("audit", bytes.fromhex(digest)), value["mac"]):
            self._found(seq, "forged")
        if text.startswith('{"_sealed":"'):
            self.kept[seq] = text[12:76]
        elif '"kind":"audit.erased"' in text:
            self._erasure(text)
        if seq in self.hashes:
            self.hashes[seq].add(digest)
        self.seq, self.last = seq, digest
        self.count += 1

    def _erasure(self, text: str) -> None:
        try:
            value = json.loads(text)
            if value["kind"] == "audit.erased":
                self.erased.add(int(value["body"]["seq"]))
        except (ValueError, TypeError, KeyError):
            pass  # a changed record, which its hash tells

    def _content(self, value: dict[str, Any]) -> None:
        self.there[value["content"]] = value["sha256"]

    def _head(self, value: dict[str, Any]) -> None:
        self.heads.append((value["head"], value["hash"]))

    def _anchor(self, one: dict[str, Any], good: bool) -> None:
        """The chain had so many records, and this was the hash of the last."""
        seq = one["seq"]
        if not good:
            self._found(seq, "anchor")
        elif seq > self.seq:
            self._found(self.seq + 1, "cut")
        elif (self.hashes[seq] and self.hashes[seq] != {one["hash"]}) or (seq == self.pruned and self.pruned_hash != one["hash"]):
            self._found(seq, "rewritten")

    def _found(self, seq: int, wrong: str) -> None:
        self.findings.add((seq, wrong))

    def _signed(self, purpose: str, text: str, mac: str) -> bool:
        """True where there is no pepper to tell by."""
        return self._pepper is None or hmac.compare_digest(self._mac(purpose, text.encode()), mac)

    def _mac(self, purpose: str, data: bytes) -> str:
        """Under a key of its own for each purpose."""
        assert self._pepper is not None
        key = hmac.digest(self._pepper, purpose.encode(), "sha256")
        return hmac.digest(key, data, "sha256").hex()


if __name__ == "__main__":
    sys.exit(main())
