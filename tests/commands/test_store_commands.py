"""keys, users, budget, audit, backup, restore as a person and a program run them: against a data directory of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from tsuzuri.commands import cli
from tsuzuri.errors import TsuzuriError
from tsuzuri.store import audit, database, energy, keys, ledger, users
from tsuzuri.store.database import Database
from tsuzuri.store.tables import now_ms

KEY = re.compile(r"tsz_[a-z2-7]{12}_[A-Za-z0-9_-]{43}")
GOOD = "朝の散歩と味噌汁と新聞紙"
Ran = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """The command line on the data in `tmp_path/data`, given by the environment; errors as they would be told."""
    for name in ("TSUZURI_DATABASE_URL", "TSUZURI_SECRETS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TSUZURI_DATA_DIR", str(tmp_path / "data"))

    def ran(*arguments: object, status: int = 0, typed: str = "") -> Result:
        done = CliRunner().invoke(cli, [str(argument) for argument in arguments], input=typed)
        if done.exception is not None and not isinstance(done.exception, SystemExit | TsuzuriError):
            raise done.exception
        assert done.exit_code == status, (done.output, done.exception)
        return done

    return ran


@pytest.fixture
def db(tmp_path: Path) -> Callable[[], Database]:
    return lambda: database.open(tmp_path / "data", tmp_path / "data.secrets")


def told(run: Ran, *arguments: object) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def test_a_new_key_is_alone_on_standard_output_and_opens(run: Ran, db: Callable[[], Database]) -> None:
    """KEY=$(tsuzuri keys create …) holds the key and nothing else."""
    done = run(
        "keys",
        "create",
        "--name",
        "受付",
        "--scope",
        "chat",
        "--scope",
        "embeddings",
        "--model",
        "小",
        "--address",
        "10.0.0.0/8",
        "--expires",
        "30d",
    )
    secret = done.stdout.removesuffix("\n")
    assert KEY.fullmatch(secret)
    assert secret not in done.stderr and "二度と表示できない" in done.stderr
    with db() as opened:
        key = keys.find(opened, secret, "10.1.1.1")
        assert key is not None
        assert (key.name, key.scopes, key.models, key.addresses) == ("受付", {"chat", "embeddings"}, ("小",), ("10.0.0.0/8",))
        assert key.expires_at is not None and key.expires_at - key.created_at == pytest.approx(30 * keys.DAY, abs=5000)


def test_a_process_shows_the_key_once(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tsuzuri", "keys", "create", "--name", "受付", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env={**os.environ, "TSUZURI_LANG": "en"})
    assert done.returncode == 0, done.stderr
    assert KEY.fullmatch(done.stdout.strip()) and done.stdout.count("\n") == 1
    assert "cannot be shown again" in done.stderr and not re.search("[ぁ-ん]", done.stderr)
    for file in [*(tmp_path / "data").iterdir(), *(tmp_path / "data.secrets").iterdir()]:
        assert done.stdout.strip().encode()[17:] not in file.read_bytes()


def test_keys_are_listed_rotated_and_revoked(run: Ran, db: Callable[[], Database]) -> None:
    made = told(run, "keys", "create", "--name", "受付", "--requests-per-minute", 60)
    assert made["requests_per_minute"] == 60 and made["scopes"] == ["chat"]
    new = told(run, "keys", "rotate", made["id"], "--overlap", "90m")
    assert new["replaces"] == made["id"]
    with db() as opened:
        assert keys.find(opened, made["key"]) and keys.find(opened, new["key"])
        old = keys.one(opened, made["id"])
        assert old.expires_at is not None and 0 < old.expires_at - new["created_at"] <= 90 * 60_000
    assert "失効させました" in run("keys", "revoke", made["key"][4:16]).stdout
    listed = run("keys", "list")
    assert "失効" in listed.stdout and "有効" in listed.stdout
    assert made["key"][17:] not in listed.stdout
    rows = told(run, "keys", "list")
    assert [row["id"] for row in rows] == [made["id"], new["id"]] and rows[0]["revoked_at"]
    assert "hash" not in json.dumps(rows)
    with db() as opened:
        assert keys.find(opened, made["key"]) is None


def test_users_are_added_changed_and_deactivated(run: Ran, db: Callable[[], Database]) -> None:
    run("users", "add", "山田", "--role", "admin", "--password", typed=f"{GOOD}\n")
    run("users", "add", "鈴木")
    run("users", "role", "鈴木", "auditor")
    made = told(run, "keys", "create", "--name", "鍵", "--user", "鈴木")
    with db() as opened:
        assert users.sign_in(opened, "山田", GOOD)
        assert users.sign_in(opened, "鈴木", "") is None
        assert keys.find(opened, made["key"])
    run("users", "deactivate", "鈴木")
    with db() as opened:
        assert keys.find(opened, made["key"]) is None
    shown = run("users", "list").stdout
    assert "停止" in shown and "auditor" in shown and "argon2" not in shown
    assert [(row["name"], row["role"], row["active"]) for row in told(run, "users", "list")] == [
        ("山田", "admin", True),
        ("鈴木", "auditor", False),
    ]
    done = run("users", "deactivate", "山田", status=1)
    assert "ただ一人" in str(done.exception)


def test_a_user_is_erased_and_the_number_remains(run: Ran, db: Callable[[], Database]) -> None:
    run("users", "add", "山田")
    with db() as opened:
        user = users.one(opened, "山田")
        keys.create(opened, "受付", user_id=user.id)
        audit.append(opened, "request", {"user": user.id, "key": None}, content="話したこと")
    done = json.loads(run("users", "erase", "山田", "--json").stdout)
    assert done == {"user": user.id, "keys": 1, "responses": 0, "contents": 1}
    assert "山田" not in run("users", "list").stdout
    with pytest.raises(TsuzuriError):
        raise run("users", "erase", "山田", status=1).exception or AssertionError


def test_a_password_is_set_anew(run: Ran, db: Callable[[], Database]) -> None:
    run("users", "add", "山田", "--password", typed=f"{GOOD}\n")
    run("users", "password", "山田", typed=f"{GOOD}二\n")
    with db() as opened:
        assert users.sign_in(opened, "山田", GOOD) is None and users.sign_in(opened, "山田", f"{GOOD}二")
    assert "12 文字" in str(run("users", "password", "山田", typed="短い\n", status=1).exception)


def test_the_master_key_is_rotated(run: Ran, db: Callable[[], Database]) -> None:
    with db() as opened:
        seq = audit.append(opened, "chat", {}, content="中身")
    assert told(run, "keys", "rotate-master") == {"name": "master-0002", "records": 1}
    with db() as opened:
        assert audit.content(opened, seq) == "中身"
        assert opened.secrets.masters() == ["master-0002"]


def test_budgets_are_set_and_shown_in_yen(run: Ran, db: Callable[[], Database]) -> None:
    run("users", "add", "山田")
    made = told(run, "keys", "create", "--name", "鍵", "--user", "山田")
    found = run("budget", "set", 5000, "--all")
    assert "1 か月 5,000 円" in found.stdout and "0 円と数えます" in found.stderr
    run("budget", "set", "0.000001", "--key", made["id"])
    run("budget", "set", "12.5", "--user", "山田")
    with db() as opened:
        key = keys.one(opened, made["id"])
        assert isinstance(ledger.reserve(opened, key, "r", 1), ledger.Reservation)
    shown = run("budget", "show").stdout
    for cell in ("キー 鍵", "利用者 山田", "全体", "12.5", "0.000001", "5,000"):
        assert cell in shown
    assert {row["owner"]: row["held"] for row in told(run, "budget", "show")}["all"] == 1
    run("budget", "set", "none", "--all")
    assert "all" in {row["owner"] for row in told(run, "budget", "show") if row["limit"] is None}
    run("budget", "set", 1, status=2)
    run("budget", "set", 1, "--all", "--user", "山田", status=2)
    for wrong in ("-1", "0.0000001", "百円", "NaN", "Infinity"):
        assert run("budget", "set", "--all", "--", wrong, status=1).exception.found  # type: ignore[union-attr]


def test_energy_is_shown_beside_the_money_and_says_how_it_is_known(run: Ran, db: Callable[[], Database]) -> None:
    made = told(run, "keys", "create", "--name", "鍵")
    with db() as opened:
        key = keys.one(opened, made["id"])
        energy.add(opened, [energy.Used(key, energy.Energy(measured=3_600_000, estimated=1_800_000), now_ms())])
    shown = run("budget", "show").stdout
    assert shown.count("1.000 (計測) + 0.500 (推定)") == 2, "of the key and of all together"
    assert {row["owner"]: row["millijoules"] for row in told(run, "budget", "show")}["all"] == {
        "measured": 3_600_000,
        "estimated": 1_800_000,
    }
    with db() as opened:
        energy.add(opened, [energy.Used(key, energy.Energy(measured=7), 0)])
    assert "0.000 (計測)" in run("budget", "show", "--month", "1970-01").stdout


def test_prices_are_shown_with_their_sources_and_what_a_dollar_is(run: Ran, tmp_path: Path) -> None:
    shown = run("budget", "prices").stdout
    assert "claude-haiku-4-5" in shown and "https://" in shown and "未設定" in shown
    own = tmp_path / "prices.yaml"
    own.write_text(
        "rates: {USD: [{from: 2026-01-01, yen: 150}]}\nmodels: {tiny: [{from: 2026-01-01, input: 0.1, output: 2}]}", encoding="utf-8"
    )
    found = {row["model"]: row for row in told(run, "budget", "prices", "--prices", own)}
    assert (found["tiny"]["input"], found["tiny"]["unit"], found["tiny"]["yen"]) == ("0.1", "JPY", "1")
    assert found["openai/gpt-5-nano"]["yen"] == "150" and found["openai/gpt-5-nano"]["source"]


def test_what_calls_cost_is_known_before_they_are_made(run: Ran, tmp_path: Path) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text(
        "rates: {USD: [{from: 2026-01-01, yen: 150}]}\n"
        "models: {tiny: [{from: 2026-01-01, input: 10, cached: 1, output: 30}], far: [{from: 2026-01-01, currency: USD, input: 2, output: 8}],"
        " power: [{from: 2026-01-01, currency: kWh, input: 1, output: 1}]}",
        encoding="utf-8",
    )
    ask = lambda *more, status=0: run("budget", "estimate", *more, "--prices", own, status=status)  # noqa: E731
    assert ask("tiny", "--input", 1000, "--output", 100).stdout == "1 回 0.013 円\n"
    assert told(run, "budget", "estimate", "tiny", "--input", 1000, "--cached", 400, "--output", 100, "--calls", 7, "--prices", own) == {
        "calls": 7, "micro_yen": 9400, "micro_units": 9400, "total_micro_yen": 65800,
        "model": "tiny", "unit": "JPY", "input": "10", "cached": "1", "output": "30", "yen": "1", "from": "2026-01-01", "source": "",
    }  # fmt: skip
    assert ask("far", "--input", 1_000_000, "--output", 1_000_000).stdout.startswith("1 回 1,500 円")
    unrated = ask("power", "--input", 400_000, "--output", 100_000, "--calls", 2)
    assert unrated.stdout == "1 回 0.5 kWh、2 回で 1 kWh\n" and "何円" in unrated.stderr, "an amount that is not in yen says so"
    assert "tiny" in str(ask("tinny", "--input", 1, "--output", 1, status=1).exception)
    assert ask("tiny", "--input", 1, "--cached", 2, "--output", 1, status=2).exit_code == 2


def test_what_was_kept_with_a_record_is_read_and_erased(run: Ran, db: Callable[[], Database]) -> None:
    with db() as opened:
        seq = audit.append(opened, "chat", {}, content="社外秘")
    assert run("audit", "content", seq).stdout == "社外秘\n"
    assert told(run, "audit", "erase", seq) == {"erased": True}
    assert "消去" in str(run("audit", "content", seq, status=1).exception)
    assert told(run, "audit", "erase", seq) == {"erased": False}
    with db() as opened:
        assert [record.kind for record in audit.records(opened)] == ["chat", "audit.content_read", "audit.erased"]


def test_the_audit_is_verified_anchored_exported_and_pruned(run: Ran, db: Callable[[], Database], tmp_path: Path) -> None:
    run("keys", "create", "--name", "一")
    run("keys", "create", "--name", "二")
    noted = told(run, "audit", "anchor", tmp_path / "anchors")
    assert noted["seq"] == 2
    run("audit", "anchor", tmp_path / "anchors")
    assert len(audit.read_anchors(tmp_path / "anchors")) == 2
    done = run("audit", "verify", "--anchors", tmp_path / "anchors")
    assert "2 件を確かめました。問題はありません" in done.stdout
    assert "アンカーなしでは" in run("audit", "verify").stderr
    lines = [json.loads(line) for line in run("audit", "export").stdout.splitlines()]
    assert [json.loads(line["record"])["kind"] for line in lines[:-1]] == ["key.created"] * 2 and lines[-1]["head"] == 2
    assert told(run, "audit", "prune", "--older-than", "1d") == {"pruned": 0}
    with db() as opened, opened.write() as connection:
        connection.execute(text("DROP TRIGGER audit_undeleted"))
        connection.execute(text("DELETE FROM audit WHERE seq = 2"))
        connection.execute(text("UPDATE audit_head SET seq = 1, hash = (SELECT hash FROM audit WHERE seq = 1)"))
    assert "問題はありません" in run("audit", "verify").stdout
    done = run("audit", "verify", "--anchors", tmp_path / "anchors", status=1)
    assert "2 番：ここから後が切り取られています" in done.stdout
    assert json.loads(run("audit", "verify", "--anchors", tmp_path / "anchors", "--json", status=1).stdout)["sound"] is False


def test_a_backup_is_restored_into_a_new_place(run: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = told(run, "keys", "create", "--name", "鍵")
    done = run("backup", tmp_path / "all.backup")
    assert str(tmp_path / "data.secrets") in done.stderr
    monkeypatch.setenv("TSUZURI_SECRETS_DIR", str(tmp_path / "data.secrets"))
    assert "行を戻しました" in run("restore", tmp_path / "all.backup", "--data-dir", tmp_path / "new").stdout
    with database.open(tmp_path / "new") as opened:
        assert keys.find(opened, made["key"])
    assert "空ではありません" in str(run("restore", tmp_path / "all.backup", status=1).exception)


def test_every_change_by_the_operator_is_in_the_audit(run: Ran, db: Callable[[], Database]) -> None:
    made = told(run, "keys", "create", "--name", "鍵")
    run("keys", "rotate", made["id"])
    run("keys", "revoke", made["id"])
    run("users", "add", "山田", "--role", "admin")
    run("users", "add", "鈴木")
    run("users", "role", "鈴木", "auditor")
    run("users", "deactivate", "鈴木")
    run("budget", "set", 5, "--all")
    with db() as opened:
        records = list(audit.records(opened))
        assert audit.verify(opened).sound
    kinds = "key.created key.rotated key.revoked user.added user.added user.role user.deactivated budget.set"
    assert [record.kind for record in records] == kinds.split()
    assert {record.body["by"] for record in records} == {"operator"}
    assert records[5].body["before"] == "member" and records[5].body["role"] == "auditor"


@pytest.mark.parametrize("when", ["soon", "0d", "2027-13-01", "-1d", "1y"])
def test_a_time_that_is_none_is_told(run: Ran, when: str) -> None:
    assert when in str(run("keys", "create", "--name", "鍵", "--expires", when, status=1).exception)
