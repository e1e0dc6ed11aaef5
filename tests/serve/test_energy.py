"""What requests drew: by counters like those of Linux, shared out to the last millijoule, estimated where none tells and called so, and kept for
each who asked, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Repeated, Running, until

from tsuzuri.serve import energy
from tsuzuri.serve.energy import Energy, packages
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.store import audit, keys
from tsuzuri.store import energy as sums
from tsuzuri.store.database import Database

SPAN = 1_000_000


def machine(place: Path, *counters: int, names: tuple[str, ...] = ("package-0", "package-1")) -> Path:
    """As /sys/class/powercap: two processors, the parts of one, and the whole machine's counter, that holds the others."""
    for number, (name, counter) in enumerate(zip((*names, "psys"), (*counters, 999), strict=False)):
        for zone in (f"intel-rapl:{number}", f"intel-rapl:{number}:0"):
            (place / zone).mkdir(parents=True, exist_ok=True)
            (place / zone / "name").write_text(f"{name if zone.count(':') == 1 else 'core'}\n")
            (place / zone / "max_energy_range_uj").write_text(f"{SPAN - 1}\n")
            (place / zone / "energy_uj").write_text(f"{counter}\n")
    (place / "intel-rapl").mkdir(exist_ok=True)
    return place


def test_counters_of_processors_are_added_once_each_and_begin_anew(tmp_path: Path) -> None:
    place = machine(tmp_path, 100, 999_000)
    found = Energy(counters=packages(place, gpu=()))
    assert found.how == "measured"
    with found.share() as share:
        machine(place, 50_100, 1_000)  # the second has begun anew
    assert share.drawn == energy.Drawn(52, "measured")
    machine(place, 900_000, 2_000)
    with found.share() as later:
        machine(place, 901_000, 2_000)
    assert later.drawn == energy.Drawn(1, "measured"), "what is drawn while nobody asks is nobody's"


def test_those_under_way_share_what_is_drawn_and_nothing_is_lost(tmp_path: Path) -> None:
    place = machine(tmp_path, 0, 0)
    found = Energy(counters=packages(place, gpu=()))
    with found.share() as one:
        machine(place, 10_000, 0)
        with found.share() as other:
            machine(place, 30_000, 0)
        machine(place, 35_000, 0)
    assert (one.drawn, other.drawn) == (energy.Drawn(25, "measured"), energy.Drawn(10, "measured"))


def test_without_a_counter_it_is_an_estimate_or_nothing_and_says_so(tmp_path: Path) -> None:
    guessed = Energy(50.0, counters=())
    assert (guessed.how, Energy(None, counters=()).how) == ("estimated", None)

    async def waiting() -> None:
        with guessed.share() as share:
            await asyncio.sleep(0.2)
        assert share.drawn is not None and share.drawn.how == "estimated"
        assert 10_000 <= share.drawn.millijoules <= 20_000, "50 W for 0.2 s, and what the machine was late"

    asyncio.run(waiting())
    with Energy(None, counters=()).share() as share:
        pass
    assert share.drawn is None


def test_half_a_measure_is_none(tmp_path: Path) -> None:
    """A processor that does not tell, a GPU that no counter of processors knows, a counter that is lost on the way."""
    place = machine(tmp_path / "a", 0, 0)
    assert packages(place, gpu=(place / "intel-rapl",)) == [] == packages(tmp_path / "none", gpu=())
    (place / "intel-rapl:1" / "energy_uj").write_text("secret\n")
    assert packages(place, gpu=()) == []
    place = machine(tmp_path / "b", 0, 0)
    found = Energy(7.0, counters=packages(place, gpu=()))
    with found.share() as share:
        (place / "intel-rapl:0" / "energy_uj").unlink()
    assert share.drawn is None and found.how == "estimated"


# ── behind the service


@pytest.fixture
def told(serving: Callable[..., Any], tiny: Path, make_key: Callable[..., Any]) -> Any:
    def ask(running: Running, secret: str, model: str, path: str = "/v1/chat/completions", **more: Any) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": "あ"}], "max_tokens": 8, **more}
        if "input" in more:
            body = {"model": model, **more}
        with running.client() as client:
            found = client.post(path, json=body, headers={"authorization": f"Bearer {secret}"})
        assert found.status_code == 200, found.text

    return ask


def test_a_request_of_our_own_model_has_its_energy_in_audit_metrics_and_sums(
    told: Any, serving: Callable[..., Any], tiny: Path, make_key: Callable[..., Any], db: Database
) -> None:
    key, secret = make_key("chat", "embeddings")
    with serving(from_directory(tiny), Served("far", Repeated(text="はい")), watts=100.0) as running:
        running.service.energy = Energy(100.0, counters=())
        told(running, secret, "tiny")
        told(running, secret, "tiny", stream=True)
        told(running, secret, "tiny", path="/v1/embeddings", input=["あ", "い"])
        told(running, secret, "far")
        with running.client() as client:
            assert 'tsuzuri_energy_joules_total{how="estimated",model="tiny"}' in client.get("/metrics").text
            mine = [one for one in client.get("/api/budgets").json()["data"] if one["owner"] == f"key:{key.id}"]
        records = lambda: [one.body for one in audit.records(db) if one.kind == "request" and one.body["key"] == key.id]  # noqa: E731
        assert until(lambda: len(records()) == 4)
        drawn = [one.get("millijoules") for one in records()]
        assert all(one is not None and one > 0 for one in drawn[:3])
        assert drawn[3] is None and "energy" not in records()[3], "what a model elsewhere draws is not known"
        assert {one.get("energy") for one in records()[:3]} == {"estimated"}
        assert until(lambda: sums.listed(db).get(f"key:{key.id}") == sums.Energy(estimated=sum(drawn[:3])))
    assert mine == [], "energy alone is no budget; a person sees it with `tsuzuri budget show`"


def test_who_leaves_has_drawn_too(told: Any, serving: Callable[..., Any], tiny: Path, make_key: Callable[..., Any], db: Database) -> None:
    import httpx2

    key, secret = make_key("chat")
    with serving(from_directory(tiny)) as running:
        running.service.energy = Energy(100.0, counters=())
        body = {"model": "tiny", "messages": [{"role": "user", "content": "あ"}], "ignore_eos": True, "min_tokens": 200, "stream": True}
        headers = {"authorization": f"Bearer {secret}"}
        with httpx2.stream("POST", f"{running.url}/v1/chat/completions", json=body, headers=headers) as response:
            next(response.iter_bytes())
        assert until(lambda: sums.listed(db).get(f"key:{key.id}", sums.Energy()).estimated > 0)


def test_sums_are_by_owner_and_month(db: Database) -> None:
    key, _ = keys.create(db, "energy")
    day = 86_400_000
    used = [
        sums.Used(key, sums.Energy(measured=5), day),
        sums.Used(key, sums.Energy(estimated=2), day),
        sums.Used(key, sums.Energy(measured=1), 60 * day),
    ]
    sums.add(db, used)
    sums.add(db, used[:1])
    assert sums.listed(db, "1970-01")[f"key:{key.id}"] == sums.Energy(10, 2) == sums.listed(db, "1970-01")["all"]
    assert sums.listed(db, "1970-03")[f"key:{key.id}"] == sums.Energy(1, 0)
