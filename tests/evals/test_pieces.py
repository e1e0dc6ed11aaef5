"""The table that reads names: what it divides, and that it takes the longest run it knows."""

from __future__ import annotations

from tsuzuri.evals.pieces import Pieces

NAMES = [
    ("山川", "やまかわ"), ("山田", "やまだ"), ("川田", "かわだ"), ("田川", "たがわ"), ("山", "やま"), ("川", "かわ"), ("小山", "こやま"),
    ("小川", "おがわ"), ("小田", "おだ"), ("小山田", "おやまだ"), ("大和", "やまと"), ("大和川", "やまとがわ"),
]  # fmt: skip


def test_a_name_that_was_not_seen_is_read_from_its_characters() -> None:
    assert Pieces(NAMES)("川山") == "かわやま"


def test_the_longest_run_that_is_known_is_read_together() -> None:
    read = Pieces(NAMES)
    assert read("小山") == "こやま" and read("小山田") == "おやまだ"
    assert read("大和田").startswith("やまと"), "no character of it is read so alone"


def test_what_was_never_seen_stays_and_kana_is_itself() -> None:
    read = Pieces(NAMES)
    assert read("山の") == "やまの" and read("山犬") == "やま犬"


def test_a_target_that_is_too_long_teaches_nothing() -> None:
    assert Pieces([("山", "やまやまやまやま"), ("川", "かわ")])("山川") == "山かわ"
