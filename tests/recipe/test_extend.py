"""A larger vocabulary: old ids keep their meaning, new rows are means, and bits per byte say what it did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import tsuzuri
from tsuzuri.commands import cli
from tsuzuri.errors import ConfigError, InputError
from tsuzuri.model import weights
from tsuzuri.model.adapt import vocabulary
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.recipe.extend import grow
from tsuzuri.text import fast
from tsuzuri.text.bpe import Bpe, train
from tsuzuri.text.extend import extend

STORY = Path(__file__).parents[1] / "data" / "ryoriten.txt"  # 宮沢賢治「注文の多い料理店」, public domain, from 青空文庫


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return [line for line in STORY.read_text(encoding="utf-8").splitlines() if line]


def test_going_on_is_the_same_as_never_having_stopped(lines: list[str]) -> None:
    """Law: 300 ids, then 100 more from the same text, are 400 ids."""
    found = extend(fast.train("bpe", lines, 300), lines, 100)
    assert found.tokenizer.fingerprint == fast.train("bpe", lines, 400).fingerprint
    assert Bpe.from_state(found.tokenizer.state).merges == train(lines, 400).merges


def test_old_ids_keep_their_meaning_and_nothing_is_lost(lines: list[str]) -> None:
    old = fast.train("bpe", lines[:40], 320)
    found = extend(old, lines[40:], 50)
    assert found.tokenizer.vocab_size == 370
    for line in lines:
        ids = found.tokenizer.encode(line)
        assert found.tokenizer.decode(ids) == line
        spelt = [old for id in ids for old in ([id] if id < 320 else found.pieces[id - 320])]
        assert old.decode(spelt) == line
        assert max(spelt) < 320


def test_more_than_the_text_supports_and_other_kinds_are_refused(lines: list[str]) -> None:
    with pytest.raises(ConfigError, match="この文章から作れるのは"):
        extend(fast.train("bpe", lines, 300), ["あい"], 50)
    with pytest.raises(ConfigError, match="unigram"):
        extend(fast.train("unigram", lines, 400), lines, 10)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 3])
def test_rows_are_means_and_the_rest_is_as_it_was(tied: bool, spare: int) -> None:
    shape = Shape(
        vocab_size=20 + spare, hidden_size=8, num_hidden_layers=1, intermediate_size=8, max_position_embeddings=8, tie_word_embeddings=tied
    )
    model = Transformer(shape).initialise(1).requires_grad_(False)
    larger = vocabulary.extend(model, 20, [[1, 2], [3, 4, 5]])
    assert larger.vocab_size == max(22, 20 + spare)
    for name, before in model.named_parameters():
        after = dict(larger.named_parameters())[name]
        if name in ("embedding.weight", "head.weight"):
            assert torch.equal(after[:20], before[:20])
            torch.testing.assert_close(after[20], before[[1, 2]].mean(0))
            torch.testing.assert_close(after[21], before[[3, 4, 5]].mean(0))
            assert torch.equal(after[22:], before[22:])
        else:
            assert torch.equal(after, before)
    ids = torch.arange(5)
    assert torch.equal(larger(ids, Causal(ids))[:, :20], model(ids, Causal(ids))[:, :20])


def test_a_model_grows_and_says_what_it_did(life: Path, tmp_path: Path, lines: list[str]) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": line}, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    model = life / "runs/tiny/model"
    done = CliRunner().invoke(cli, ["extend", str(model), str(text), "--tokens", "30", "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["bytes_per_token"][1] > found["bytes_per_token"][0]
    assert found["before"]["bytes"] == found["after"]["bytes"] > 500
    assert found["after"]["bits_per_byte"] != found["random_rows"]["bits_per_byte"]
    again = tsuzuri.load(tmp_path / "out")
    assert again.tokenizer.vocab_size == again.model.vocab_size == weights.load(model).vocab_size + 30
    assert len(found["tokens"]) == 30
    assert again.generate("二人の", temperature=0, max_tokens=3) is not None
    with pytest.raises(InputError, match="10 件以上"):
        few = tmp_path / "few.txt"
        few.write_text("短い。", encoding="utf-8")
        grow(model, [few], 5, tmp_path / "other")
