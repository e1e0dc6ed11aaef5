"""The sample text of the repository: what its manifest and its attribution say is what lies there, and all of it is free."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tsuzuri.text.corpus.read import read

SAMPLE = Path(__file__).parents[2] / "sample"
KINDS = ("government", "law", "literature", "technical")


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_make", SAMPLE / "make.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_manifest_and_attribution_agree_with_the_files(make: ModuleType) -> None:
    found = json.loads((SAMPLE / "manifest.json").read_text(encoding="utf-8"))
    assert make.manifest() == found, "run: python sample/make.py"
    assert make.attribution(found) == (SAMPLE / "ATTRIBUTION.md").read_text(encoding="utf-8"), "run: python sample/make.py"


def test_everything_is_free_and_named(make: ModuleType) -> None:
    for file in make.manifest()["files"]:
        for source in file["sources"]:
            assert not re.search(r"SA|NC|ND", source["licence"])
            assert make.FREE.fullmatch(source["licence"]) or file["path"].startswith("chat/")
            if source["licence"].startswith(("CC BY", "MIT")):
                assert source["credits"], source


def test_attribution_says_what_the_licences_ask(make: ModuleType) -> None:
    source = {"source": "megagonlabs/instruction_ja", "licence": "MIT", "records": 2, "credits": [make.credit_of(chat("MIT"))]}
    file = {"path": "chat/a.jsonl.zst", "records": 2, "bytes": 1, "text_bytes": 1, "licences": ["MIT"], "sources": [source]}
    text = make.attribution({"note": "", "files": [file]})
    assert "2023 Megagon Labs" in text
    assert "The above copyright notice and this permission notice shall be included" in text
    assert "permission notice" not in make.attribution({"note": "", "files": []})
    work = {"source": "aozorabunko:cards/1.txt", "licence": "CC BY 4.0", "title": "幽霊島", "credit": "奥増夫訳"}
    assert make.credit_of(work) == "「幽霊島」奥増夫訳"
    assert make.credit_of(work | {"licence": "PD-JP"}) == ""
    assert make.link("github:php/doc-ja") == "[php/doc-ja](https://github.com/php/doc-ja)"
    assert make.words(chat("MIT")) == "はいどうぞ"


def chat(licence: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "はい"}, {"role": "assistant", "content": "どうぞ"}]
    return {"messages": messages, "source": "megagonlabs/instruction_ja:1", "licence": licence}


def test_it_is_small_and_balanced(make: ModuleType) -> None:
    files = make.manifest()["files"]
    assert sum(file["bytes"] for file in files) <= 12_000_000
    sizes = {Path(file["path"]).name.split(".")[0]: file["text_bytes"] for file in files if file["path"].startswith("pretrain/")}
    assert set(sizes) == set(KINDS)
    total = sum(sizes.values())
    assert 25e6 < total < 35e6
    shares = {kind: size / total for kind, size in sizes.items()}
    for kind, share in {"literature": 0.45, "government": 0.17, "law": 0.13, "technical": 0.25}.items():
        assert abs(shares[kind] - share) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_short_distinct_and_sound(kind: str) -> None:
    documents = list(read([SAMPLE / "pretrain" / f"{kind}.jsonl.zst"]))
    assert all(200 <= len(d.text) <= 12_000 and d.title and d.source and d.licence for d in documents)
    assert not any("\ufffd" in d.text for d in documents)
    assert max(Counter(d.text for d in documents).values()) == 1


def test_long_works_are_cut_at_paragraph_ends(make: ModuleType) -> None:
    text = "\n".join(f"第{i}段落。{'文' * 90}" for i in range(400))
    found = list(make.parts({"text": text, "title": "題", "source": "s", "licence": "PD-JP", "author": "某"}))
    assert "\n".join(part["text"] for part in found) == text
    assert [part["part"] for part in found] == [f"{i}/{len(found)}" for i in range(1, len(found) + 1)]
    assert {part["title"] for part in found} == {"題"}
    assert "part" not in next(make.parts({"text": "短い" * 200, "title": "題", "source": "s", "licence": "PD-JP"}))


def test_what_is_not_free_or_not_prose_is_not_chosen(make: ModuleType) -> None:
    for licence in (
        "CC BY-SA 4.0",
        "CC BY-NC 4.0",
        "CC BY-ND 2.1 JP",
        "CC BY 3.0 SA",
        "CC BY 4.0 NC",
        "MIT",
        "PSF",
        "GFDL",
        "PD-JP but not here",
    ):
        assert not make.FREE.fullmatch(licence)
    page = (
        "この関数は、与えられた値を計算して返します。\n" + "使い方を次に示します。\n" + "\n".join(f"説明の{i}行目です。" for i in range(40))
    )
    assert make.technical_prose(page)
    assert not make.technical_prose(page + "\n" + "\n".join(f"x[{i}] = f({i}) + compute_something(x, {i});" for i in range(40)))
    seen: set[int] = set()
    assert not make.known(page, seen)
    assert make.known(page + "少し違います。", seen)
