"""`tsuzuri generate | chat | next` as a person runs them: real processes, a real terminal, a small model of random weights."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import tsuzuri
from tsuzuri.chat import template
from tsuzuri.chat.local import LocalModel
from tsuzuri.chat.settings import FORMS
from tsuzuri.commands import cli
from tsuzuri.commands.chat import Talk
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, ContextError, MissingError
from tsuzuri.model import weights
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.text import fast
from tsuzuri.types import Message, Options, Text

SAMPLE = Path(__file__).parent.parent / "data" / "ryoriten.txt"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory: a real tokenizer, random weights, a long context."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = fast.train("bpe", [SAMPLE.read_text(encoding="utf-8")], 600)
    shape = Shape(
        vocab_size=600, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=8192
    )
    model, generator = Transformer(shape), torch.Generator().manual_seed(3)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    weights.save(model, path)
    tokenizer.save(path)
    template.save(path)
    return path


@pytest.fixture(scope="module")
def small(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a context of 64 tokens."""
    path = tmp_path_factory.mktemp("small")
    for file in directory.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    return path


def run(*arguments: object, text: str | None = None) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=text)


def test_generate_is_the_same_as_from_python(directory: Path) -> None:
    found = run("generate", "紳士が", "--model", directory, "--max-tokens", 20, "--seed", 4, "--top-k", 9)
    assert found.exit_code == 0, found.output
    assert found.stdout == tsuzuri.load(directory).generate("紳士が", max_tokens=20, seed=4, top_k=9) + "\n"


def test_generate_as_json(directory: Path) -> None:
    found = run("generate", "紳士が", "--model", directory, "--max-tokens", 5, "--seed", 4, "--logprobs", 2, "--json")
    result = json.loads(found.stdout)
    assert result["text"] == LocalModel(directory).generate("紳士が", max_tokens=5, seed=4)
    assert result["finish"] == "length"
    assert [len(token["top"]) for token in result["tokens"]] == [2] * 5


def test_log_probabilities_that_nobody_would_see_are_refused(directory: Path) -> None:
    found = run("generate", "紳士が", "--model", directory, "--logprobs", 2)
    assert found.exit_code == 2
    assert "--json" in found.output


def test_a_stop_string_ends_the_text(directory: Path) -> None:
    text = LocalModel(directory).generate("紳士が", max_tokens=40, seed=4)
    stop = text[10:12]
    found = run("generate", "紳士が", "--model", directory, "--max-tokens", 40, "--seed", 4, "--stop", stop)
    assert found.stdout == text[: text.index(stop)] + "\n"


def test_several_at_once(directory: Path) -> None:
    sampled = ("--max-tokens", 5, "--seed", 4, "--ignore-eos")
    found = run("generate", "紳士が", "--model", directory, "--n", 3, *sampled, "--json")
    answers = json.loads(found.stdout)["answers"]
    assert answers[0]["text"] == LocalModel(directory).generate("紳士が", max_tokens=5, seed=4, ignore_eos=True)
    assert len(answers) == 3
    best = run("generate", "紳士が", "--model", directory, "--n", 1, "--best-of", 3, *sampled)
    assert best.stdout == max(answers, key=lambda answer: answer["score"])["text"] + "\n"
    shown = run("generate", "紳士が", "--model", directory, "--n", 3, *sampled)
    assert shown.stdout.count("──") == 3


def test_a_beam_search(directory: Path) -> None:
    found = run("generate", "紳士が", "--model", directory, "--beams", 3, "--n", 2, "--max-tokens", 5, "--length-penalty", 0, "--json")
    answers = json.loads(found.stdout)["answers"]
    assert len(answers) == 2
    assert answers[0]["score"] == answers[0]["logprob"] >= answers[1]["logprob"]
    apart = ("--beams", 2, "--beam-groups", 2, "--beam-diversity", 9, "--n", 2, "--max-tokens", 1, "--json")
    rows = json.loads(run("generate", "紳士が", "--model", directory, *apart).stdout)["answers"]
    assert rows[0]["ids"] != rows[1]["ids"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--beams", 2, "--temperature", 0.5), "--temperature"),
        (("--beams", 2, "--stop", "。"), "--stop"),
        (("--beams", 2, "--regex", "あ+"), "--regex"),
        (("--beams", 2, "--best-of", 3), "--best-of"),
        (("--length-penalty", 2), "--beams"),
        (("--beams", 2, "--n", 3), "--n"),
        (("--n", 2, "--prompt-logprobs", 1, "--json"), "--prompt-logprobs"),
        (("--prompt-logprobs", 1), "--json"),
    ],
)
def test_what_would_do_nothing_is_refused(directory: Path, flags: tuple[object, ...], named: str) -> None:
    found = run("generate", "紳士が", "--model", directory, "--max-tokens", 2, *flags)
    assert found.exit_code == 2
    assert named in found.output


def test_what_it_thought_of_the_input(directory: Path) -> None:
    found = json.loads(run("generate", "紳士が二人", "--model", directory, "--max-tokens", 1, "--prompt-logprobs", 2, "--json").stdout)
    model = LocalModel(directory)
    ids = model.tokenizer.encode("紳士が二人")
    assert [(row["id"], row["logprob"]) for row in found["prompt_logprobs"]] == list(zip(ids[1:], model.engine.score(ids), strict=True))
    assert all(len(row["top"]) == 2 for row in found["prompt_logprobs"])


def test_every_field_of_sampling_is_a_flag() -> None:
    shown = run("generate", "--help").output
    names = [field.name for field in fields(Sampling) if field.name != "constraint"] + list(FORMS)
    assert [name for name in names if f"--{name.replace('_', '-')}" not in shown] == []


def test_a_wrong_value_is_told_by_name(directory: Path) -> None:
    for verb in (["generate", "あ"], ["chat", "-m", "あ"], ["next", "あ"]):
        assert isinstance(error := run(*verb, "--model", directory, "--top-p", 1.5).exception, ConfigError)
        assert "top_p" in str(error)


def test_without_a_model_make_tiny_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for verb in (["generate", "あ"], ["chat", "-m", "あ"], ["next", "あ"]):
        assert isinstance(error := run(*verb).exception, MissingError)
        assert "make tiny" in str(error)


def test_a_full_context_is_said(small: Path) -> None:
    found = run("generate", "紳士が", "--model", small, "--seed", 1, "--ignore-eos")
    assert found.exit_code == 0
    assert "上限" in found.stderr
    assert "上限" not in run("generate", "紳士が", "--model", small, "--seed", 1, "--max-tokens", 3).stderr


def test_a_text_that_ends_by_itself_in_the_last_place_is_not_cut_off(small: Path, tmp_path: Path) -> None:
    """The end of the text falls on the last token that the context holds."""
    events = LocalModel(small).events("紳士が", Options(Sampling(seed=1, ignore_eos=True)))
    ids = [token.id for event in events if isinstance(event, Text) for token in event.tokens]
    assert ids[-1] not in ids[:-1]
    place = tmp_path / "model"
    shutil.copytree(small, place)
    (place / "generation_config.json").write_text(json.dumps({"eos_token_id": ids[-1]}))
    found = run("generate", "紳士が", "--model", place, "--seed", 1, "--json")
    result = json.loads(found.stdout)
    assert (result["finish"], result["prompt_tokens"] + result["completion_tokens"]) == ("stop", 64)
    assert "上限" not in run("generate", "紳士が", "--model", place, "--seed", 1).stderr


def test_next_shows_both_probabilities(directory: Path) -> None:
    rows = json.loads(run("next", "今日の天気は", "--model", directory, "--top", 5, "--top-k", 2, "--temperature", 0.5, "--json").stdout)
    assert len(rows) == 5
    probabilities = [row["probability"] for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert [row["sampled"] > 0 for row in rows] == [True, True, False, False, False]
    assert sum(row["sampled"] for row in rows) == pytest.approx(1)
    one, two = probabilities[:2]
    assert rows[0]["sampled"] == pytest.approx(one**2 / (one**2 + two**2))  # temperature 0.5 squares
    table = run("next", "今日の天気は", "--model", directory, "--top", 5, "--top-k", 2, "--temperature", 0.5).stdout
    assert all(f"{p:.2%}" in table and str(row["id"]) in table for p, row in zip(probabilities, rows, strict=True))
    assert "█" in table


def test_one_question(directory: Path) -> None:
    found = run("chat", "-m", "こんにちは。", "--model", directory, "--max-tokens", 20, "--seed", 4)
    assert found.stdout == LocalModel(directory).chat("こんにちは。", max_tokens=20, seed=4) + "\n"


def test_one_question_that_is_too_long_has_no_conversation_to_go_on(small: Path) -> None:
    found = run("chat", "-m", "長い" * 100, "--model", small)
    assert isinstance(found.exception, ContextError)
    assert "残しません" not in found.stderr
    assert "会話" not in found.stderr


class Terminal:
    """What a person sees and types."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self.seen = descriptor, ""
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def interrupt(self) -> None:
        """Ctrl-C at the prompt, as late as a person's: Python's readline misses one between the prompt and its first wait."""
        time.sleep(0.3)
        self.type("\x03")

    def wait(self, pattern: str, seconds: float = 15) -> str:
        """What came up to and with the pattern, since the last time."""
        end = time.monotonic() + seconds
        while not (match := re.search(pattern, self.seen)):
            ready = select.select([self._descriptor], [], [], max(0, end - time.monotonic()))[0]
            assert ready, f"{pattern!r} did not come within {seconds} s: {self.seen[-500:]!r}"
            try:
                self.seen += self._decode(os.read(self._descriptor, 65536))
            except OSError:  # Linux says so when the program has left
                raise AssertionError(f"the program left: {self.seen[-500:]!r}") from None
        found, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return found


@contextmanager
def terminal(*arguments: object) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tsuzuri", "chat", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_controlling)
    os.close(theirs)
    try:
        yield Terminal(ours), process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _controlling() -> None:
    """The terminal becomes the one whose Ctrl-C reaches the process."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_conversation_at_a_terminal(directory: Path) -> None:
    with terminal("--model", directory, "--seed", 1, "--max-tokens", 2000, "--ignore-eos") as (person, process):
        person.wait("あなた> ")
        person.type("こんにちは。\n")
        person.wait("こんにちは。\r?\n")
        person.wait(r"(.|\n){40}")  # the answer is coming
        person.type("\x03")
        start = time.monotonic()
        person.wait("あなた> ")
        assert time.monotonic() - start < 2
        assert process.poll() is None
        person.type("/help\n")
        person.wait("/quit(.|\n)*あなた> ")
        person.type("/reset\n")
        person.wait("最初から(.|\n)*あなた> ")
        person.type("\x04")
        assert process.wait(timeout=10) == 0


def test_quit_leaves_and_old_turns_are_named_when_left_out(small: Path) -> None:
    with terminal("--model", small, "--seed", 1, "--max-tokens", 8, "--ignore-eos") as (person, process):
        person.wait("あなた> ")
        for question in ("一つ目の質問", "二つ目の質問", "三つ目の質問"):
            person.type(question + "\n")
            person.wait(question + "\r?\n")
            shown = person.wait("あなた> ")
        assert "一つ目" in shown or "二つ目" in shown
        person.type("長い" * 100 + "\n")
        person.wait("トークン(.|\n)*あなた> ")
        person.type("/quit\n")
        assert process.wait(timeout=10) == 0


def test_ctrl_c_leaves_when_pressed_again(directory: Path) -> None:
    with terminal("--model", directory, "--seed", 1, "--max-tokens", 2000, "--ignore-eos") as (person, process):
        person.wait("あなた> ")
        person.interrupt()
        person.wait("もう一度(.|\n)*あなた> ")
        person.type("/help\n")  # no second one in a row
        person.wait("/quit(.|\n)*あなた> ")
        person.type("こんにちは。\n")
        person.wait(r"こんにちは。\r?\n(.|\n){40}")
        person.type("\x03")
        person.wait("止めました(.|\n)*あなた> ")
        person.interrupt()
        assert process.wait(timeout=10) == 0


def test_what_was_said_stays_in_the_conversation(directory: Path) -> None:
    options = Options(Sampling(temperature=0, max_tokens=4, ignore_eos=True))
    talk = Talk(LocalModel(directory), options, "短く")
    for question in ("一", "二"):
        asyncio.run(talk.ask(question, quiet=True))
    assert [message.role for message in talk.messages] == ["system", "user", "assistant", "user", "assistant"]
    first = LocalModel(directory).chat(talk.messages[:2], temperature=0, max_tokens=4, ignore_eos=True)
    second = LocalModel(directory).chat(talk.messages[:4], temperature=0, max_tokens=4, ignore_eos=True)
    assert [talk.messages[2].content, talk.messages[4].content] == [first, second]
    talk.reset()
    assert talk.messages == [Message("system", "短く")]


def test_a_question_without_an_answer_is_not_kept_and_this_is_said(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = LocalModel(directory)
    model.engine.eos_ids = frozenset(range(600))
    talk = Talk(model, Options(Sampling()), None)
    asyncio.run(talk.ask("もしもし"))
    assert talk.messages == []
    assert "残しません" in capsys.readouterr().err


# ── the form of the output, and guesses


def test_an_output_has_the_form_that_was_asked_for(directory: Path, tmp_path: Path) -> None:
    ask = ("generate", "紳士が", "--model", directory, "--max-tokens", 200, "--seed", 1)
    schema, grammar = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text('{"type": "array", "items": {"enum": ["犬", "猫"]}, "maxItems": 3}', encoding="utf-8")
    grammar.write_text('start: "犬"+ "が" ("来る" | "鳴く")\n', encoding="utf-8")
    assert run(*ask, "--choice", "晴れ", "--choice", "雨").stdout.strip() in ("晴れ", "雨")
    assert re.fullmatch("[0-9]{3}-[0-9]{4}", run(*ask, "--regex", "[0-9]{3}-[0-9]{4}").stdout.strip())
    assert set(json.loads(run(*ask, "--json-schema", schema).stdout)) <= {"犬", "猫"}
    assert re.fullmatch("犬*が(来る|鳴く)?\n|犬+", run(*ask, "--grammar", grammar).stdout)
    assert run("chat", "-m", "天気は", "--model", directory, "--choice", "雨").stdout.strip() == "雨"


def test_a_form_that_cannot_be_is_refused_before_a_model_is_opened(tmp_path: Path) -> None:
    schema, binary = tmp_path / "schema.json", tmp_path / "binary"
    schema.write_text('{"properties": {"a": {"not": {}}}}', encoding="utf-8")
    binary.write_bytes(b"\xff\xfe")
    for words, arguments in (
        ("#/properties/a のキーワード「not」", ("--json-schema", schema)),
        ("regex、choice が一緒に", ("--regex", "a", "--choice", "a")),
        ("UTF-8 として読めません", ("--grammar", binary)),
    ):
        found = run("generate", "紳士が", "--model", tmp_path / "nowhere", *arguments)
        assert found.exit_code != 0
        assert words in found.output + str(found.exception)


@pytest.mark.parametrize("computed", ["native", "plain"])
@pytest.mark.parametrize("verb", [("generate", "雨が降る。風が吹く。" * 6), ("chat", "-m", "雨が降る。風が吹く。" * 6)])
def test_guesses_change_nothing_but_are_counted(
    directory: Path, verb: tuple[str, ...], computed: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernels to the last bit. PyTorch rounds several tokens at once otherwise than one: there the tokens are the same, and what
    is said of their probability but for that rounding."""
    if computed == "native":
        request.getfixturevalue("native")
    else:
        monkeypatch.setenv("TSUZURI_NATIVE", "off")
    ask = (*verb, "--model", directory, "--max-tokens", 60, "--temperature", 0, "--json")
    plain, guessing = json.loads(run(*ask).stdout), json.loads(run(*ask, "--lookup", 6).stdout)
    counts = guessing.pop("lookup")
    if computed == "plain" and "tokens" in plain:
        exact, rounded = ([token.pop("logprob") for token in answer["tokens"]] for answer in (plain, guessing))
        assert rounded == pytest.approx(exact, abs=1e-5)
    assert guessing == plain
    assert 0 <= counts["accepted"] <= counts["offered"]
    assert "lookup" in str(run(*ask, "--lookup", 65).exception)


def test_guesses_change_none_of_several_outputs(directory: Path) -> None:
    ask = ("generate", "雨が降る。風が吹く。" * 6, "--model", directory, "--max-tokens", 40, "--seed", 3, "--n", 3, "--json")
    assert json.loads(run(*ask, "--lookup", 6).stdout) == json.loads(run(*ask).stdout)


def test_what_guesses_and_forms_do_not_go_with_is_refused(directory: Path) -> None:
    ask = ("generate", "紳士が", "--model", directory, "--max-tokens", 5)
    for arguments, words in (
        (("--beams", 2, "--lookup", 4), "--beams では --lookup は働きません"),
        (("--beams", 2, "--regex", "a"), "--beams では --regex は働きません"),
        (("--beams", 2, "--choice", "a"), "--beams では --choice は働きません"),
    ):
        found = run(*ask, *arguments)
        assert found.exit_code == 2, arguments
        assert words in found.output
    assert run(*ask, "--n", 2, "--seed", 1, "--choice", "雨").output.count("雨") == 2
