"""Settings: what is written is what is meant; what is unknown, mistyped or unreadable is refused by name."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsuzuri.config import MAX_YAML_BYTES, build, dump, override, read_yaml, to_yaml
from tsuzuri.errors import ConfigError, InputError, MissingError, Words


@dataclass(frozen=True, slots=True)
class Inner:
    width: int
    rate: float = 3e-4


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    inner: Inner
    kind: Literal["plain", "fast"] = "plain"
    steps: int | None = None
    either: int | str = 0
    path: Path | None = None
    flag: bool = False
    rows: list[Inner] = field(default_factory=list)
    betas: tuple[float, ...] = (0.9,)
    repeat: dict[str, int] | None = None
    anything: Any = None


LEAST: dict[str, Any] = {"name": "あ", "inner": {"width": 3}}
whole_numbers, numbers = st.integers(-(10**9), 10**9), st.floats(allow_nan=False)
inners = st.builds(Inner, whole_numbers, numbers)
outers = st.builds(
    Outer,
    name=st.text() | st.sampled_from(["3e-4", "010", "1:30", "yes", "null", "~", "<<", "*a", "\x85", "\u2028", "\ufeff", "\r", " a "]),
    inner=inners,
    kind=st.sampled_from(["plain", "fast"]),
    steps=st.none() | whole_numbers,
    either=whole_numbers | st.text(),
    path=st.none() | st.text("あb/.", min_size=1).map(Path),
    flag=st.booleans(),
    rows=st.lists(inners, max_size=3),
    betas=st.lists(numbers, max_size=3).map(tuple),
    repeat=st.none() | st.dictionaries(st.text(), whole_numbers, max_size=3),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One path for every draw."""
    return tmp_path_factory.mktemp("config") / "recipe.yaml"


@settings(deadline=None)
@given(outers)
def test_what_was_dumped_builds_again(file: Path, value: Outer) -> None:
    assert build(Outer, dump(value)) == value
    assert build(Outer, json.loads(json.dumps(dump(value)))) == value
    file.write_text(to_yaml(value), encoding="utf-8", newline="")
    assert build(Outer, read_yaml(file)) == value


def test_yaml_keeps_the_order_and_the_japanese() -> None:
    assert to_yaml(build(Outer, LEAST)).startswith("name: あ\ninner:\n  width: 3\n  rate: 0.0003\nkind: plain\n")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"nmae": "あ"}, ["「nmae」", "あるのは name、inner", "「name」のことでは"]),
        ({"inner": {"width": 3, "raet": 1}}, ["「inner.raet」", "width、rate", "「rate」"]),
        ({"rows": [{"width": 1}, {"widht": 1}]}, ["「rows[1].widht」", "「width」"]),
        ({"zzz": 1}, ["「zzz」", "上のどれか"]),
        ({3: 1}, ["「3」"]),
        ({"kind": "fst"}, ["「kind」に 'fst'", "選べるのは plain、fast", "「fast」"]),
        ({"inner": {"rate": 1.0}}, ["「inner.width」", "必須"]),
        ({"inner": 3}, ["「inner」", "名前: 値", "3"]),
        ({"inner": {"width": 3.0}}, ["「inner.width」", "整数", "3.0"]),
        ({"inner": {"width": True}}, ["「inner.width」", "整数", "True"]),
        ({"inner": {"width": "3"}}, ["「inner.width」", "整数", "'3'"]),
        ({"inner": {"width": None}}, ["「inner.width」", "整数", "None"]),
        ({"inner": {"width": 3, "rate": True}}, ["「inner.rate」", "数が要ります"]),
        ({"inner": {"width": 3, "rate": 10**400}}, ["「inner.rate」", "数が要ります"]),
        ({"steps": "many"}, ["「steps」", "整数", "'many'"]),
        ({"either": 1.5}, ["「either」", "文字列", "1.5"]),
        ({"path": 3}, ["「path」", "パス"]),
        ({"flag": 1}, ["「flag」", "true か false"]),
        ({"flag": "yes"}, ["「flag」", "true か false"]),
        ({"rows": {"width": 1}}, ["「rows」", "並び"]),
        ({"betas": [0.9, "x"]}, ["「betas[1]」", "'x'"]),
        ({"betas": 0.9}, ["「betas」", "並び"]),
        ({"repeat": {"a": "x"}}, ["「repeat.a」", "整数"]),
        ({"repeat": [1]}, ["「repeat」", "名前: 値"]),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_with_its_place(values: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, {**LEAST, **values})
    for words in named:
        assert words in str(caught.value)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match="「inner」"):
        build(Outer, {"name": "あ"})


def test_what_to_do_is_said_by_whoever_knows_where_the_values_are_from() -> None:
    todo = Words("config.json を直してください。", "Correct config.json.")
    for wrong in ({"inner": {"width": "x"}}, {"inner": {}}, {"inner": {"width": 3}, "rows": [{"width": None}]}):
        with pytest.raises(ConfigError) as caught:
            build(Outer, {"name": "あ", **wrong}, todo=todo)
        assert caught.value.todo == todo
        with pytest.raises(ConfigError, match="上書き指定"):
            build(Outer, {"name": "あ", **wrong})
    with pytest.raises(ConfigError, match="「width」のこと"):  # better advice is kept
        build(Outer, {"name": "あ", "inner": {"widht": 3}}, todo=todo)


def test_a_wrong_value_is_not_shown_by_the_page() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, {**LEAST, "steps": [["x" * 10_000] * 1000] * 1000})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1E5", 1e5), ("-2.5e+3", -2500.0), ("0.5", 0.5), ("7", 7), ("2_000", 2000), ("true", True), ("null", None), ("", None),
        ("[1, 2]", [1, 2]), ("{a: 1}", {"a": 1}), ("あ", "あ"), ("a=b", "a=b"), ("e5", "e5"), ("'7'", "7"),
        ("[", "["), ("010", "010"), ("1:30", "1:30"), ("2026-99-99", "2026-99-99"), ("!!python/name:os.system", "!!python/name:os.system"),
    ],
)  # fmt: skip
def test_an_override_means_what_it_says(text: str, value: object) -> None:
    found = override({"a": {"b": 0, "c": 1}}, [f"a.b={text}"])["a"]
    assert found == {"b": value, "c": 1}
    assert type(found["b"]) is type(value)


def test_overrides_apply_in_order_to_a_copy_and_may_make_sections() -> None:
    values = {"a": {"b": 1}, "empty": None}
    assert override(values, ["a.b=2", "a.b=3", "new.deep.x=1", "empty.y=2"]) == {
        "a": {"b": 3}, "new": {"deep": {"x": 1}}, "empty": {"y": 2},
    }  # fmt: skip
    assert values == {"a": {"b": 1}, "empty": None}


@pytest.mark.parametrize("setting", ["a", "=3", ".a=3", "a..b=3", "a.=3", ""])
def test_an_override_without_a_key_or_a_value_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="名前=値"):
        override({}, [setting])


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="「b」は値"):
        override({"a": {"b": 1}}, ["a.b.c=3"])


# ── files


def written(path: Path, content: str | bytes) -> Path:
    file = path / "recipe.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_a_yaml_file_is_a_mapping(tmp_path: Path) -> None:
    assert read_yaml(written(tmp_path, "name: 綴り # 名前\ninner: {rate: 3e-4, width: 0x10}\n")) == {
        "name": "綴り", "inner": {"rate": 3e-4, "width": 16},
    }  # fmt: skip


def bomb(levels: int = 40) -> str:
    """Each line holds the one before twice: a page of text, 2**40 values."""
    return "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, levels))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bomb(), "2 行目：別名"),
        ("a: &a\n  b: *a\n", "2 行目：別名"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "4 行目：「c」が二度"),
        ("a: 1\nb: 010\n", "2 行目：「010」"),
        ("a: 1\nb: 1:30\n", "2 行目：「1:30」"),
        ("a: 1\nb: !!python/object/apply:os.system [id]\n", "2 行目"),
        ("a: !!python/name:os.system\n", "1 行目"),
        ("a: !mine 3\n", "1 行目"),
        ("a:\n  b: 1\n c: 2\n", "3 行目"),
        ("a: 1\n\tb: 2\n", "2 行目"),
        ("a: b: c\n", "1 行目"),
        ("a: 2026-99-99\n", "内容が YAML として"),
        ("a: " + "9" * 5000, "内容が YAML として"),
        ("a: " + "[" * 50_000, "内容が YAML として"),
        ("? {a: 1}\n: 2\n", "1 行目"),
        ("a: \x01\n", "内容が YAML として"),
        ("a: 1\n---\nb: 2\n", "2 行目"),
        ("", "「名前: 値」の形"),
        ("- a\n- b\n", "「名前: 値」の形"),
        ("綴り", "「名前: 値」の形"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_no_recipe_is_refused_with_its_line(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(written(tmp_path, content))
    assert words in str(caught.value)


def test_a_python_tag_runs_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_yaml(written(tmp_path, f"a: !!python/object/apply:pathlib.Path.touch [{tmp_path}/made]\n"))
    assert not (tmp_path / "made").exists()


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="ありません"):
        read_yaml(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="読めません"):
        read_yaml(tmp_path)
    with pytest.raises(InputError, match="UTF-8"):
        read_yaml(written(tmp_path, "名前: 綴り".encode("cp932")))
    with pytest.raises(InputError, match="1 MiB"):
        read_yaml(written(tmp_path, b"#" * (MAX_YAML_BYTES + 1)))
    assert read_yaml(written(tmp_path, b"a: 1\n" + b"#" * (MAX_YAML_BYTES - 5))) == {"a": 1}
