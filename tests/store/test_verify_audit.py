"""The verifier that stands alone finds what ours finds, for every way of tampering, from the exported file. It shares no line with it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from store.test_audit import LENGTH, NOW, TAMPERINGS, _Inside, filled, rewrite, some_tampering, tamper, unlocked

from tsuzuri.store import audit, verify_audit
from tsuzuri.store.database import Database

FILE = Path(verify_audit.__file__)
KEYED = {"forged", "tombstone", "anchor"}  # what cannot be told without the pepper


def exported(db: Database, path: Path) -> Path:
    path.write_text("".join(f"{line}\n" for line in audit.export(db)), encoding="utf-8")
    return path


def alone(log: Path, *more: object) -> Any:
    """As another would run it: a process without tsuzuri."""
    line = [sys.executable, "-I", "-S", str(FILE), str(log), "--json", *map(str, more)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["sound"] else 1)
    return found


def both(db: Database, place: Path, anchors: Path | None) -> None:
    """What ours finds, and what the other finds with the pepper and without."""
    ours = audit.verify(db, audit.read_anchors(anchors) if anchors else ())
    expected = {(one.seq, one.wrong) for one in ours.findings}
    log = exported(db, place / "log.jsonl")
    lines = [json.loads(line) for line in anchors.read_text(encoding="utf-8").splitlines()] if anchors else []
    for pepper in (db.secrets.pepper(), None):
        with log.open(encoding="utf-8", newline="\n") as file:
            theirs = verify_audit.Log(pepper).read(file, lines)
        assert set(theirs["findings"]) == {one for one in expected if pepper or one[1] not in KEYED}
        assert (theirs["records"], theirs["pruned"], theirs["erased"]) == (ours.records, ours.pruned, ours.erased)
        assert theirs["anchored"] == ours.anchored or not pepper


@pytest.mark.parametrize("name", TAMPERINGS)
def test_it_finds_what_ours_finds(db: Database, tmp_path: Path, name: str) -> None:
    filled(db)
    audit.anchor(db, tmp_path / "anchors")
    both(db, tmp_path, tmp_path / "anchors")
    tamper(db, *TAMPERINGS[name][0])
    both(db, tmp_path, tmp_path / "anchors")
    both(db, tmp_path, None)


def test_a_cut_end_and_a_rewritten_whole_too(db: Database, tmp_path: Path) -> None:
    filled(db)
    anchors = tmp_path / "anchors"
    audit.anchor(db, anchors)
    for count, key in ((LENGTH, None), (LENGTH, db.secrets.derived(audit.PURPOSE)), (2, db.secrets.derived(audit.PURPOSE))):
        rewrite(db, count, key)
        both(db, tmp_path, anchors)
        both(db, tmp_path, None)
    line = anchors.read_text(encoding="utf-8")
    anchors.write_text(line + line.replace(f'"seq":{LENGTH}', '"seq":1'), encoding="utf-8")
    ours = {(one.seq, one.wrong) for one in audit.verify(db, audit.read_anchors(anchors)).findings}
    with exported(db, tmp_path / "log").open(encoding="utf-8") as file:
        theirs = verify_audit.Log(db.secrets.pepper()).read(file, [json.loads(one) for one in anchors.read_text().splitlines()])
    assert set(theirs["findings"]) == ours and (1, "anchor") in ours


def test_after_erasure_and_pruning_too(db: Database, tmp_path: Path) -> None:
    filled(db)
    anchors = tmp_path / "anchors"
    audit.anchor(db, anchors)
    audit.erase_content(db, 9)
    both(db, tmp_path, anchors)
    audit.prune(db, NOW + 5, now=NOW + 100)
    both(db, tmp_path, anchors)
    tamper(db, "UPDATE audit_tombstones SET through = 6")
    both(db, tmp_path, anchors)
    tamper(db, "DELETE FROM audit_tombstones")
    both(db, tmp_path, anchors)


def test_random_tampering_is_found_by_both_alike(db: Database, tmp_path: Path) -> None:
    filled(db)
    audit.anchor(db, tmp_path / "anchors")

    class Undo(Exception):
        pass

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(st.data())
    def law(data: st.DataObject) -> None:
        with pytest.raises(Undo), db.write() as connection:
            unlocked(db, connection)
            for step in some_tampering(data.draw, db):
                savepoint = connection.begin_nested()
                try:
                    connection.execute(text(step))
                    savepoint.commit()
                except DBAPIError:  # a number that is taken
                    savepoint.rollback()
            inside = _Inside(db, connection)
            both(inside, tmp_path, tmp_path / "anchors")  # type: ignore[arg-type]
            raise Undo

    law()


def test_a_file_that_was_cut_or_changed_itself_is_told(db: Database, tmp_path: Path) -> None:
    """Here it is not the database but the export that somebody touched."""
    filled(db)
    lines = exported(db, tmp_path / "log").read_text(encoding="utf-8").splitlines(keepends=True)
    anchors = tmp_path / "anchors"
    audit.anchor(db, anchors)
    assert alone(tmp_path / "log", "--anchors", anchors)["sound"]
    for changed in (
        [*lines[:-1]],
        [*lines[:5], *lines[6:]],
        [*lines[:-3]],
        lines[::-1],
        [*lines[:2], lines[2].replace("chat", "chit"), *lines[3:]],
        [],
    ):
        (tmp_path / "log").write_text("".join(changed), encoding="utf-8")
        assert not alone(tmp_path / "log", "--anchors", anchors)["sound"], changed[:1]


def test_it_stands_alone(db: Database, tmp_path: Path) -> None:
    source = FILE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 200
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    filled(db, 3)
    log = exported(db, tmp_path / "log")
    assert alone(log)["records"] == 3
    (tmp_path / "pepper").write_text(db.secrets.pepper().hex())
    assert alone(log, "--pepper", tmp_path / "pepper")["sound"]
    (tmp_path / "pepper").write_text("11" * 32)
    assert {wrong for _, wrong in alone(log, "--pepper", tmp_path / "pepper")["findings"]} == {"forged"}
    log.write_text("{", encoding="utf-8")
    done = subprocess.run([sys.executable, str(FILE), str(log)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr
