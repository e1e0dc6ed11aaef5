"""The words: what the pages tell a reader to type is run, what is generated is up to date, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from place import ROOT, SMALL, SMALL_TASKS, SMALL_VECTORS

PAGES = [ROOT / "README.md", ROOT / "README.ja.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
LONG = ("make up", "make tiny", "make test")  # the whole life runs in the fixture and in benchmarks/tiny.py; the tests are what runs here


def commands() -> Iterator[tuple[str, str]]:
    """(page, command) for every `$` line of every page, each once."""
    seen = set()
    for page in PAGES:
        for block in CONSOLE.findall(page.read_text(encoding="utf-8")):
            for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
                command = " ".join(shlex.split(line, comments=True, posix=False))
                if command not in seen:
                    seen.add(command)
                    yield page.relative_to(ROOT).as_posix(), command


COMMANDS = list(commands())


def scripts() -> list[tuple[str, str]]:
    found = {code: page.relative_to(ROOT).as_posix() for page in PAGES for code in PYTHON.findall(page.read_text(encoding="utf-8"))}
    return [(page, code) for code, page in found.items()]


def test_there_are_commands_to_run() -> None:
    assert len(COMMANDS) >= 8
    assert len(scripts()) >= 1


@pytest.mark.parametrize(("page", "command"), [pytest.param(*found, id=f"{found[0]}: {found[1]}") for found in COMMANDS])
def test_a_command_of_a_page_runs(page: str, command: str, life: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if command in LONG:
        target = command.split()[1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return
    words = shlex.split(command)
    program = Path(words[0]).name
    assert program in ("tsuzuri", "python"), f"{page} names a program the tests do not run: {command}"
    arguments = [sys.executable, *(["-m", "tsuzuri"] if program == "tsuzuri" else []), *words[1:]]
    if words[1] in ("run", "plan"):  # the same command, on a smaller model and in a place of its own
        small = {"vectors": SMALL_VECTORS, **SMALL_TASKS}.get(Path(words[2]).stem, [*SMALL, "pretrain.steps=2"])
        arguments += [setting for setting in small if setting.split("=")[0] not in command] + [f"out={tmp_path}"]
    if words[1] == "similar":
        request.getfixturevalue("word_vectors")
    if words[1] == "label":
        request.getfixturevalue("classifier")
    done = subprocess.run(arguments, cwd=life, input="こんにちは。\n", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize(("page", "code"), [pytest.param(*found, id=found[0]) for found in scripts()])
def test_python_of_a_page_runs(page: str, code: str, life: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "runs/vectors" in code:
        request.getfixturevalue("word_vectors")
    monkeypatch.chdir(life)
    exec(compile(code, page, "exec"), {})


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_readme_is_short(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "ja").glob("*.md")), ids=lambda page: page.name)
def test_each_japanese_page_has_an_english_one(page: Path) -> None:
    assert (ROOT / "docs" / "en" / page.name).is_file()
