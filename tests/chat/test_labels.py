"""An encoder as something to ask: labels, stretches, an answer with its place, a vector; and what it is not asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tsuzuri.chat import labels, local
from tsuzuri.commands import cli
from tsuzuri.errors import ConfigError, ContextError, MissingError
from tsuzuri.model import weights
from tsuzuri.model.families import bert, llama, modernbert
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.text import fast

TEXT = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
SMALL = {
    "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 48,
}  # fmt: skip
NAMES = {"classify": ("良い", "悪い", "わからない"), "tag": ("O", "B-名", "I-名"), "extract": ("start", "end"), "embed": (), "masked": ()}


@pytest.fixture(scope="module")
def tokenizer() -> fast.FastTokenizer:
    return fast.train("bpe", [TEXT * 3], 300, fast.ENCODER)


def encoder(tokenizer: fast.FastTokenizer, head: str, family: str = "modernbert") -> labels.Encoder:
    usual = modernbert.USUAL if family == "modernbert" else bert.USUAL
    model = Transformer(Shape(**{**usual, **SMALL, "head": head, "labels": NAMES[head]}))
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return labels.Encoder(model.requires_grad_(False), tokenizer, head)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory, tokenizer: fast.FastTokenizer) -> Path:
    """A directory a head, and one of a model that continues texts."""
    root = tmp_path_factory.mktemp("encoders")
    for head in NAMES:
        (root / head).mkdir()
        weights.save(encoder(tokenizer, head).model, root / head, "modernbert")
        tokenizer.save(root / head)
    (root / "llama").mkdir()
    weights.save(Transformer(Shape(**{**llama.USUAL, **SMALL})).initialise(1), root / "llama", "llama")
    fast.train("bpe", [TEXT * 3], 300).save(root / "llama")
    return root


def test_labels_of_a_text_are_a_distribution_and_a_batch_is_one_by_one(tokenizer: fast.FastTokenizer) -> None:
    model = encoder(tokenizer, "classify")
    texts = [TEXT[:9], "猫", TEXT[9:20], "", *["無い。"] * labels.AT_ONCE]
    found = model.classify(texts)
    for text, choices in zip(texts, found, strict=True):
        assert sum(choice.probability for choice in choices) == pytest.approx(1)
        assert [c.probability for c in choices] == sorted((c.probability for c in choices), reverse=True)
        alone = {c.label: c.probability for c in model.classify([text])[0]}
        assert alone == pytest.approx({c.label: c.probability for c in choices}, rel=1e-4)


def test_stretches_stand_where_they_say(tokenizer: fast.FastTokenizer) -> None:
    model = encoder(tokenizer, "tag")
    texts = [TEXT[:9], TEXT, *["名前はまだ無い。"] * (labels.AT_ONCE + 3)]
    found = model.tag(texts)
    assert sum(map(len, found)) > 5
    for text, spans in zip(texts, found, strict=True):
        assert all(span.text == text[span.start : span.stop] and 0 < span.probability <= 1 for span in spans)
    assert found[-1] == found[2] == model.tag([texts[-1]])[0] or found[-1][0].start == found[2][0].start


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_an_answer_is_the_best_stretch_of_all_windows(tokenizer: fast.FastTokenizer, family: str) -> None:
    """Read again window by window: no other stretch scores higher; a long context is read to its end."""
    model = encoder(tokenizer, "extract", family)
    context = TEXT * 3
    ids, offsets = tokenizer.spans(context)
    length = model.model.context_length
    rows = labels.windows(model.frame, tokenizer.encode("猫？"), ids, length, length // 4)
    assert len(rows) > 2 and rows[-1].stop == len(ids)
    found = model.extract("猫？", context)
    best: tuple[float, int, int] = (float("-inf"), 0, 0)
    none = float("inf")
    for row in rows:
        with torch.inference_mode():
            scores = model.model(*model._batch([row.ids], [row.segments]))[0]
        none = min(none, float(scores[0].sum()))
        for i in range(row.stop - row.start):
            for j in range(i, min(row.stop - row.start, i + labels.LONGEST)):
                best = max(best, (float(scores[row.begin + i, 0] + scores[row.begin + j, 1]), row.start + i, row.start + j))
    if none >= best[0]:
        assert found.text is None
    else:
        assert (found.start, found.stop) == (offsets[best[1]][0], offsets[best[2]][1])
        assert found.text == context[found.start : found.stop]
    assert 0 < found.probability <= 1


def test_a_vector_has_length_one_and_is_that_of_the_text_alone(tokenizer: fast.FastTokenizer) -> None:
    model = encoder(tokenizer, "embed")
    both = model.embed([TEXT[:20], "猫"])
    assert both.shape == (2, 32)
    torch.testing.assert_close(both.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(both[1], model.embed("猫"))


def test_a_text_that_is_too_long_is_refused(tokenizer: fast.FastTokenizer) -> None:
    for head, ask in (("classify", "classify"), ("tag", "tag"), ("embed", "embed")):
        with pytest.raises(ContextError, match="48"):
            getattr(encoder(tokenizer, head), ask)([TEXT * 4])


def test_a_head_is_asked_only_for_what_it_was_made_for(tokenizer: fast.FastTokenizer) -> None:
    with pytest.raises(ConfigError, match=r"区間の抽出.*\n.*文章の分類"):
        encoder(tokenizer, "classify").tag([TEXT])


def test_each_kind_of_model_says_what_to_use_instead(directories: Path) -> None:
    with pytest.raises(ConfigError, match="tsuzuri label"):
        local.load(directories / "classify")
    with pytest.raises(ConfigError, match="tsuzuri generate"):
        labels.load(directories / "llama")
    with pytest.raises(MissingError):
        labels.load(directories / "nothing")


def asked(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(cli, ["label", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.output)
    return found


def test_the_verb_answers_by_what_the_head_is(directories: Path, tokenizer: fast.FastTokenizer, tmp_path: Path) -> None:
    found = asked("猫である", "--model", str(directories / "classify"))
    expected = encoder(tokenizer, "classify").classify(["猫である"])[0]
    assert [one["label"] for one in found["labels"]] == [choice.label for choice in expected]  # type: ignore[attr-defined]
    assert "spans" in asked(TEXT[:20], "--model", str(directories / "tag"))
    assert len(asked("猫", "--model", str(directories / "embed"))["embedding"]) == 32  # type: ignore[arg-type]
    (tmp_path / "context.txt").write_text(TEXT, encoding="utf-8")
    direct = asked("猫？", "--model", str(directories / "extract"), "--context", TEXT)
    assert direct == asked("猫？", "--model", str(directories / "extract"), "--context-file", str(tmp_path / "context.txt"))


def test_the_verb_shows_stretches_in_the_text(directories: Path, tokenizer: fast.FastTokenizer) -> None:
    done = CliRunner().invoke(cli, ["label", TEXT[:20], "--model", str(directories / "tag")], catch_exceptions=False)
    for span in encoder(tokenizer, "tag").tag([TEXT[:20]])[0]:
        assert f"［{span.text}／名］" in done.output


@pytest.mark.parametrize(("head", "more"), [("classify", ["--context", "x"]), ("extract", [])], ids=str)
def test_a_context_is_given_exactly_where_it_is_needed(directories: Path, head: str, more: list[str]) -> None:
    with pytest.raises(ConfigError, match="--context"):
        CliRunner().invoke(cli, ["label", "猫", "--model", str(directories / head), *more], catch_exceptions=False)


def test_roberta_counts_from_its_padding_token() -> None:
    from tsuzuri.recipe.stages import masked, pretrain

    settings = masked.Settings(steps=1, model=pretrain.ModelSettings(32, 2, 2, 48, family="roberta"))
    assert masked.shape_of(settings, 300, 3).position_offset == 4
    assert replace(masked.shape_of(settings, 300, 3), head="tag", labels=("O",)).num_labels == 1
