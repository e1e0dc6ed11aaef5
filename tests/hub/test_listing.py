"""What a hub says is checked before anything is fetched; what is taken is told by name, and so is what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tsuzuri.errors import ConfigError, FormatError, MissingError, Words
from tsuzuri.hub import listing
from tsuzuri.hub.listing import File, Listing, choose, read, repository

ASKED = Words("頼み", "asked")
COMMIT, SHA1, SHA256 = "c" * 40, "1" * 40, "2" * 64


def answer(*names: str, **changed: Any) -> bytes:
    return json.dumps({"sha": COMMIT, "siblings": [{"rfilename": name, "size": 3, "blobId": SHA1} for name in names], **changed}).encode()


def listed(*names: str) -> Listing:
    return Listing(COMMIT, tuple(File(name, 3, f"{number:040x}") for number, name in enumerate(names)), None)


# ── names of repositories


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("owner/name", ("owner", "name", "main")),
        ("o/n", ("o", "n", "main")),
        ("llm-jp/llm-jp-3-1.8b-instruct3", ("llm-jp", "llm-jp-3-1.8b-instruct3", "main")),
        ("a_b/C.d@v1.0", ("a_b", "C.d", "v1.0")),
        ("owner/name@refs/pr/1", ("owner", "name", "refs/pr/1")),
        (f"owner/name@{COMMIT}", ("owner", "name", COMMIT)),
    ],
)
def test_a_name_that_is_one(written: str, found: tuple[str, str, str]) -> None:
    one = repository(written)
    assert (one.owner, one.name, one.revision) == found
    assert one.folder == f"{found[0]}--{found[1]}"


@pytest.mark.parametrize(
    "written",
    ["", "name", "owner/", "/name", "a/b/c", "owner/name@", "owner/..", "../name", "owner/na..me", "owner/na--me", "-o/name", "owner/name.",
     "owner/name@../../x", "owner/name@a//b", "owner/name@-x", "owner/name\n", "owner/name@main\n", "https://host/owner/name", "owner/name?x=1",
     "owner/na me", "所有者/名前", "owner/name.git", "owner/name@a@b", "o/" + "n" * 97, "owner/name@/x", "owner\\name", "owner/%2e%2e"],
)  # fmt: skip
def test_a_name_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="リポジトリの名前の形ではありません"):
        repository(written)


# ── the answer of the hub


def test_sizes_and_hashes_are_those_of_the_content() -> None:
    large = {"rfilename": "model.safetensors", "size": 134, "blobId": SHA1, "lfs": {"sha256": SHA256, "size": 5000, "pointerSize": 134}}
    small = {"rfilename": "config.json", "size": 7, "blobId": SHA1, "unknown": 1}
    found = read(json.dumps({"sha": COMMIT, "siblings": [large, small], "config": {"model_type": "llama"}, "more": {}}).encode(), ASKED)
    assert found == Listing(COMMIT, (File("model.safetensors", 5000, SHA256), File("config.json", 7, SHA1)), "llama")
    assert [file.algorithm for file in found.files] == ["sha256", "git_sha1"]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"<html>", b"[" * 100_000, b"\xff", b"{}", answer(sha=None), answer(sha="main"), answer(sha=COMMIT + "\n"),
     answer(sha="C" * 40), answer(siblings=None), answer(siblings={})],
    ids=repr,
)  # fmt: skip
def test_what_is_no_answer_of_a_hub_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="ハブの答えとして読めません"):
        read(data, ASKED)


HOSTILE = [
    "/etc/passwd.json", "../x.json", "a/../../x.json", "a/./x.json", "a//x.json", "", ".", "..", "a/", "/", "..\\x.json", "a\\b.json", "C:x.json",
    "c:/x.json", "x\0.json", "x\n.json", "x\x1b[2J.json", "x\x7f.json", "x\u202egnp.json", "x\u200b.json", "x\ud800.json", "n" * 256,
    "名" * 86, "a/" * 520 + "x.json", None, 1, ["x.json"],
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_name_that_leaves_its_folder_or_hides_something_is_refused(name: Any) -> None:
    data = json.dumps({"sha": COMMIT, "siblings": [{"rfilename": name, "size": 3, "blobId": SHA1}]}).encode()
    with pytest.raises(FormatError, match="使えないファイル名") as caught:
        read(data, ASKED)
    assert str(caught.value).count("\n") == 2
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", ["日本語 の　名前.json", "a/b/c/d.json", ".gitattributes", "ab:c.json", "...json", "n" * 255, "👍.json"])
def test_an_unusual_name_that_harms_nobody_is_read(name: str) -> None:
    assert read(answer(name), ASKED).files == (File(name, 3, SHA1),)


@pytest.mark.parametrize(
    "entry",
    [{"size": None}, {"size": -1}, {"size": 1.0}, {"size": True}, {"size": 1 << 50}, {"size": "3"}, {"blobId": None}, {"blobId": "1" * 39},
     {"blobId": SHA256}, {"lfs": {}}, {"lfs": {"size": 3}}, {"lfs": {"size": 3, "sha256": SHA1}}, {"lfs": {"size": -3, "sha256": SHA256}}],
    ids=str,
)  # fmt: skip
def test_a_size_or_hash_that_is_none_is_refused(entry: dict[str, Any]) -> None:
    whole = {"rfilename": "x.json", "size": 3, "blobId": SHA1, **entry}
    with pytest.raises(FormatError, match=r"x\.json の大きさかハッシュ"):
        read(json.dumps({"sha": COMMIT, "siblings": [whole]}).encode(), ASKED)


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_FILES", 2)
    read(answer("a", "b"), ASKED)
    with pytest.raises(FormatError, match="3 個"):
        read(answer("a", "b", "c"), ASKED)


# ── what is taken

TAKEN = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json", "config.json",
         "1_Pooling/config.json", "chat_template.jinja", "merges.txt", "vocab.txt", "README.md", "LICENSE", "LICENSE.txt", "MODEL.SAFETENSORS"]  # fmt: skip
SKIPPED = {
    "pytorch_model.bin": "pickle", "a.pt": "pickle", "b.PTH": "pickle", "c.ckpt": "pickle", "d.pkl": "pickle", "e.npz": "pickle",
    "tf_model.h5": "weights", "flax_model.msgpack": "weights", "onnx/model.onnx": "weights", "modeling.py": "code", "run.sh": "code",
    "LICENSE.py": "code", "LICENSE.bin": "pickle", "q4.gguf": "gguf", "tokenizer.model": "other", "notes.txt": "other", ".gitattributes": "other",
    "image.png": "other", "files.json": "own", "pulled.json": "own",
}  # fmt: skip


def test_weights_and_what_they_need_are_taken_and_the_rest_is_told() -> None:
    found = choose(listed(*TAKEN, *SKIPPED, "sub/files.json"), (), ASKED)
    assert {file.name for file in found.taken} == {*TAKEN, "sub/files.json"}
    assert dict(found.skipped) == SKIPPED


def test_small_files_come_first() -> None:
    sizes = {"b.safetensors": 9000, "a.safetensors": 10, "config.json": 5}
    found = choose(Listing(COMMIT, tuple(File(name, size, f"{size:064x}") for name, size in sizes.items()), None), (), ASKED)
    assert [file.name for file in found.taken] == ["config.json", "a.safetensors", "b.safetensors"]
    assert found.bytes == 9015


def test_a_gguf_is_taken_in_place_of_safetensors() -> None:
    there = listed("model.safetensors", "q4.gguf", "q8.gguf", "config.json")
    found = choose(there, ("q4.gguf",), ASKED)
    assert {file.name for file in found.taken} == {"q4.gguf", "config.json"}
    assert dict(found.skipped) == {"model.safetensors": "safetensors", "q8.gguf": "gguf"}
    with pytest.raises(MissingError, match=r"「q4\.gguf」"):
        choose(there, ("q5.gguf",), ASKED)
    with pytest.raises(MissingError, match="--gguf を付けずに"):
        choose(listed("model.safetensors"), ("model.safetensors",), ASKED)


def test_without_safetensors_the_formats_that_are_there_are_told() -> None:
    with pytest.raises(MissingError) as caught:
        choose(listed("pytorch_model.bin", "tf_model.h5", "modeling.py", "config.json"), (), ASKED)
    assert "safetensors がありません" in str(caught.value)
    for name in ("pickle", "pytorch_model.bin", "tf_model.h5"):
        assert name in str(caught.value)
    with pytest.raises(MissingError, match=r"--gguf a\.gguf"):
        choose(listed("a.gguf", "b.gguf"), (), ASKED)
    with pytest.raises(MissingError, match="ほかの形式の重みもありません"):
        choose(listed("config.json"), (), ASKED)


@pytest.mark.parametrize(
    "names",
    [
        ("x.json", "x.json"),
        ("x.json", "X.json"),
        ("\u304c.json", "\u304b\u3099.json"),
        ("a.json", "a.json/b.json"),
        ("A.json/b.json", "a.json"),
    ],
)
def test_names_that_cannot_stand_beside_each_other_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(FormatError, match="信用できません"):
        choose(listed("model.safetensors", *names), (), ASKED)


def test_one_hash_has_one_size() -> None:
    files = (File("model.safetensors", 3, SHA256), File("again.safetensors", 4, SHA256))
    with pytest.raises(FormatError, match="大きさが一つに決まりません"):
        choose(Listing(COMMIT, files, None), (), ASKED)
