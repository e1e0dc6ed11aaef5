"""A directory with an encoder-decoder: a prompt is its source, a conversation its last message, from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import tsuzuri
from tsuzuri.chat.local import LocalModel
from tsuzuri.commands import cli
from tsuzuri.errors import ConfigError
from tsuzuri.model import weights
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families import t5
from tsuzuri.recipe.stages import seq2seq
from tsuzuri.text import fast

PROMPT = "二人の若い紳士が"


@pytest.fixture(scope="module")
def pair_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pair") / "model"
    path.mkdir()
    text = (Path(__file__).parents[1] / "data" / "ryoriten.txt").read_text(encoding="utf-8")
    tokenizer = fast.train("bpe", [text], 400)
    sizes = {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    start = tokenizer.special[seq2seq.BOUNDARY]
    model = EncoderDecoder(PairShape(**{**t5.USUAL, **sizes}, decoder_start_token_id=start)).initialise(1)
    for weight in model.parameters():
        weight.data.normal_(std=0.3)
    weights.save(model, path, "t5")
    seq2seq.write_extras(path, tokenizer)
    return path


@pytest.fixture(scope="module")
def model(pair_directory: Path) -> LocalModel:
    return tsuzuri.load(pair_directory)


def test_a_prompt_is_the_source_with_its_end_and_a_conversation_is_its_last_message(model: LocalModel) -> None:
    end = model.tokenizer.special[seq2seq.BOUNDARY]
    ids = [*model.tokenizer.encode(PROMPT), end]
    text = model.generate(PROMPT, temperature=0, max_tokens=12)
    assert text == model.generate(ids, temperature=0, max_tokens=12) != model.generate("料理", temperature=0, max_tokens=12)
    talk = [{"role": "user", "content": "前の話"}, {"role": "assistant", "content": "はい"}, {"role": "user", "content": PROMPT}]
    assert model.chat(talk, temperature=0, max_tokens=12) == model.chat(PROMPT, temperature=0, max_tokens=12) == text


def test_the_next_token_is_the_first_of_the_target_and_a_target_has_a_score(model: LocalModel) -> None:
    found = model.next(PROMPT, 3)
    ids = [*model.tokenizer.encode(PROMPT), model.tokenizer.special[seq2seq.BOUNDARY]]
    assert found[0].probability == pytest.approx(float(model.engine.after(ids).softmax(-1).max()))
    nats, size = model.score_target(PROMPT, "料理店")
    assert nats > 0 and size == 9
    assert nats != pytest.approx(model.score_target("犬", "料理店")[0])


def test_a_text_alone_is_refused_by_name(model: LocalModel) -> None:
    for refused in (lambda: model.score(PROMPT), lambda: model.logits([3, 4])):
        with pytest.raises(ConfigError, match="score_target"):
            refused()


def test_the_command_writes_the_target(pair_directory: Path, model: LocalModel) -> None:
    line = ["generate", PROMPT, "--model", str(pair_directory), "--temperature", "0", "--max-tokens", "12", "--json"]
    done = CliRunner().invoke(cli, line, catch_exceptions=False)
    assert json.loads(done.stdout)["text"] == model.generate(PROMPT, temperature=0, max_tokens=12)
