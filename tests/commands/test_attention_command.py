"""`tsuzuri attention` and `tsuzuri next` of an encoder: every kind of model, what is shown, drawn and given as JSON, what is refused."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from tsuzuri.chat import labels
from tsuzuri.commands import cli
from tsuzuri.errors import ConfigError, ContextError, InputError, MissingError, TsuzuriError
from tsuzuri.model import weights
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families import bamba, bert, llama, lstm, t5
from tsuzuri.model.past import Bidirectional
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.recipe.stages import seq2seq
from tsuzuri.text import fast

SAMPLE = (Path(__file__).parent.parent / "data" / "ryoriten.txt").read_text(encoding="utf-8")
TEXT = "彼は本を読んでいる"
SIZES = {
    "vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 1024,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory a kind of model, with random weights."""
    root = tmp_path_factory.mktemp("models")
    recurrent = {key: SIZES[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers")}
    made = {
        "llama": Transformer(Shape(**{**llama.USUAL, **SIZES})),
        "bert": Transformer(Shape(**{**bert.USUAL, **SIZES})),
        "classify": Transformer(Shape(**{**bert.USUAL, **SIZES, "head": "classify", "labels": ("良", "悪")})),
        "lstm": Transformer(Shape(**{**lstm.USUAL, **recurrent})),
        "bamba": Transformer(
            Shape(**{**bamba.USUAL, **SIZES, "num_hidden_layers": 3, "layer_types": ("mamba2", "full_attention", "mamba2")})
        ),
    }
    tokenizer = fast.train("bpe", [SAMPLE], 400)
    start = tokenizer.special[seq2seq.BOUNDARY]
    made["t5"] = EncoderDecoder(PairShape(**{**t5.USUAL, **SIZES}, decoder_start_token_id=start))
    for name, model in made.items():
        generator = torch.Generator().manual_seed(3)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3, generator=generator)
        (root / name).mkdir()
        weights.save(model, root / name, "bert" if name == "classify" else name)
        own = fast.train("bpe", [SAMPLE], 400, fast.ENCODER) if name in ("bert", "classify") else tokenizer
        own.save(root / name)
    seq2seq.write_extras(root / "t5", tokenizer)
    return root


def run(*arguments: object, verb: str = "attention") -> Result:
    return CliRunner().invoke(cli, [verb, *map(str, arguments)])


def answer(*arguments: object, verb: str = "attention") -> Any:
    done = run(*arguments, "--json", verb=verb)
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)


def refused(*arguments: object, verb: str = "attention") -> TsuzuriError:
    error = run(*arguments, verb=verb).exception
    assert isinstance(error, TsuzuriError), error
    return error


def test_a_decoder_looks_back(models: Path) -> None:
    found = answer("--model", models / "llama", TEXT)
    assert "".join(found["tokens"]).replace("<0x", "") and len(found["tokens"]) > 4
    assert [(each["layer"], each["kind"], len(each["heads"])) for each in found["layers"]] == [(0, "self", 2), (1, "self", 2)]
    shares = torch.tensor(found["layers"][1]["heads"])
    torch.testing.assert_close(shares.sum(-1), torch.ones(shares.shape[:-1]))
    assert (shares.triu(1) == 0).all() and (shares.tril() == shares).all()


def test_an_encoder_looks_both_ways_and_its_frame_is_shown(models: Path) -> None:
    found = answer("--model", models / "bert", TEXT)
    assert (found["tokens"][0], found["tokens"][-1]) == ("[CLS]", "[SEP]")
    assert all(share > 0 for row in found["layers"][0]["heads"][0] for share in row)


def test_an_encoder_decoder_has_three_kinds(models: Path) -> None:
    found = answer("--model", models / "t5", TEXT, "--target", "紳士")
    sides = [(each["layer"], each["kind"], each["rows"], each["columns"]) for each in found["layers"]]
    source = [(layer, "self", "tokens", "tokens") for layer in (0, 1)]
    written = [(layer, kind, "target", columns) for layer in (0, 1) for kind, columns in (("self", "target"), ("cross", "tokens"))]
    assert sides == source + written
    assert found["target"][0] == seq2seq.BOUNDARY
    cross = torch.tensor(found["layers"][-1]["heads"])
    assert cross.shape == (2, len(found["target"]), len(found["tokens"]))
    alone = run("--model", models / "t5", TEXT)
    assert "--target" in alone.stderr and "自己注意" in alone.stdout
    assert "--target" not in run("--model", models / "t5", TEXT, "--target", "紳士").stderr


def test_all_heads_are_shown_and_one_in_percent(models: Path) -> None:
    shown = run("--model", models / "llama", TEXT).stdout
    assert [shown.count(what) for what in ("層 0", "層 1", "ヘッド 0", "ヘッド 1")] == [1, 1, 2, 2]
    assert "█" in shown and "·" in shown
    only = run("--model", models / "llama", TEXT, "--head", 1).stdout
    assert "ヘッド 1" in only and "ヘッド 0" not in only
    one = run("--model", models / "llama", TEXT, "--layer", 1, "--head", 0).stdout
    shares = answer("--model", models / "llama", TEXT, "--layer", 1, "--head", 0)["layers"][0]["heads"][0]
    assert "層 0" not in one
    assert all(f"{share:.0%}" in one for row in shares for share in row if share)


def test_a_picture_has_every_cell_and_no_markup_of_the_text(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "heads.svg"
    assert str(file) in run("--model", models / "llama", "<b>本</b>&", "--svg", file).stdout
    tree = ElementTree.parse(file)
    texts = [each.text for each in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "<b>本</b>&"
    assert len([text for text in texts if "、ヘッド" in str(text)]) == 4
    found = answer("--model", models / "llama", "<b>本</b>&")
    drawn = sum(share >= 0.025 for each in found["layers"] for head in each["heads"] for row in head for share in row)
    cells = sum(str(path.get("d")).count("M") for path in tree.iter("{http://www.w3.org/2000/svg}path"))
    assert abs(cells - drawn) <= 1  # at the boundary of the lightest shade
    assert isinstance(refused("--model", models / "llama", TEXT, "--svg", tmp_path / "none" / "a.svg"), TsuzuriError)


def test_layers_without_attention_are_named(models: Path) -> None:
    error = refused("--model", models / "lstm", TEXT)
    assert isinstance(error, ConfigError) and "lstm" in str(error)
    hybrid = answer("--model", models / "bamba", TEXT)
    assert [each["layer"] for each in hybrid["layers"]] == [1]
    assert "mamba2" in str(refused("--model", models / "bamba", TEXT, "--layer", 0))


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ((TEXT, "--layer", 2), ConfigError, "0, 1"),
        ((TEXT, "--head", -1), ConfigError, "0, 1"),
        ((TEXT, "--target", "本"), ConfigError, "--target"),
        (("",), InputError, "空"),
        (("本を" * 400,), ContextError, "512"),
        (("本を" * 50,), ContextError, "--svg"),
    ],
)
def test_what_cannot_be_shown_is_refused(models: Path, arguments: tuple[object, ...], kind: type[TsuzuriError], said: str) -> None:
    error = refused("--model", models / "llama", *arguments)
    assert isinstance(error, kind) and said in str(error)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert isinstance(refused("--model", tmp_path / "none", TEXT), MissingError)


@pytest.mark.parametrize("mark", ["○○", "◯◯◯", "[MASK]"])
def test_next_of_an_encoder_is_what_may_stand_in_each_hidden_place(models: Path, mark: str) -> None:
    tables = answer(f"太陽は{mark}から{mark}", "--model", models / "bert", "--top", 4, "--top-k", 2, verb="next")
    model = labels.load(models / "bert")
    encode, frame = model.tokenizer.encode, model.frame
    ids = frame.around([*encode("太陽は"), frame.mask, *encode("から"), frame.mask])
    with torch.inference_mode():
        chances = model.model(torch.tensor(ids), Bidirectional(torch.arange(len(ids)))).softmax(-1)
    for rows, place in zip(tables, [i for i, id in enumerate(ids) if id == frame.mask], strict=True):
        best, order = chances[place].topk(4)
        assert [row["id"] for row in rows] == order.tolist()
        assert [row["probability"] for row in rows] == pytest.approx(best.tolist(), rel=1e-4)
        assert [row["sampled"] > 0 for row in rows] == [True, True, False, False]


def test_next_of_an_encoder_as_a_table_and_what_it_refuses(models: Path) -> None:
    shown = run("太陽は東から○○", "--model", models / "bert", "--top", 3, verb="next").stdout
    assert "1 番目の ○○" in shown and "2 番目" not in shown
    assert "○○" in str(refused("太陽は○東から", "--model", models / "bert", verb="next"))
    assert "出力層" in str(refused("太陽は東から○○", "--model", models / "classify", verb="next"))
    assert run("太陽は東から○○", "--model", models / "bert", "--quantize", "q8_0", verb="next").exit_code == 2
    assert len(answer("太陽は東から○○", "--model", models / "llama", "--top", 3, verb="next")) == 3  # a decoder goes on as before
