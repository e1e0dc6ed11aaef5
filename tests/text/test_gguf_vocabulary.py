"""The vocabulary of a GGUF file: ours comes back as it was, another's is read, a damaged one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tsuzuri.errors import ConfigError, FormatError
from tsuzuri.text import fast, gguf_vocabulary

STORY = Path(__file__).parents[1] / "data" / "ryoriten.txt"  # 宮沢賢治「注文の多い料理店」, public domain, from 青空文庫


@pytest.fixture(scope="module")
def tokenizer() -> fast.FastTokenizer:
    return fast.train("bpe", STORY.read_text(encoding="utf-8").splitlines(), 600)


@pytest.fixture(scope="module")
def keys(tokenizer: fast.FastTokenizer) -> dict[str, Any]:
    return gguf_vocabulary.keys(tokenizer, 610, "{{ messages }}", {"eos": 2})


def test_our_tokenizer_comes_back_whole(tokenizer: fast.FastTokenizer, keys: dict[str, Any]) -> None:
    assert gguf_vocabulary.tokenizer(keys).fingerprint == tokenizer.fingerprint
    assert len(keys["tokenizer.ggml.tokens"]) == len(keys["tokenizer.ggml.token_type"]) == 610
    assert keys["tokenizer.ggml.token_type"][:4] == [3] * 4
    assert keys["tokenizer.ggml.eos_token_id"] == 2


def test_tokens_and_merges_alone_make_a_tokenizer_that_loses_nothing(tokenizer: fast.FastTokenizer, keys: dict[str, Any]) -> None:
    """What files of others hold. Cut by GPT-4's pattern, most lines get the ids that our own cut gives."""
    bare = {key: value for key, value in keys.items() if key != gguf_vocabulary.WHOLE}
    again = gguf_vocabulary.tokenizer(bare)
    lines = [line for line in STORY.read_text(encoding="utf-8").splitlines() if line]
    assert all(again.decode(again.encode(line)) == line for line in lines)
    same = sum(again.encode(line) == tokenizer.encode(line) for line in lines)
    assert same / len(lines) > 0.95


def test_llama_cpp_cuts_most_texts_as_we_do(tokenizer: fast.FastTokenizer, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install -e '.[peers]'")
    from tsuzuri.model import gguf_models
    from tsuzuri.model.transformer import Shape, Transformer

    shape = Shape(vocab_size=600, hidden_size=32, num_hidden_layers=1, intermediate_size=32, max_position_embeddings=32)
    model = Transformer(shape).initialise(1).requires_grad_(False)
    gguf_models.export(model, tmp_path / "m.gguf", "m", "f32", gguf_vocabulary.keys(tokenizer, 600, None, {"eos": 2, "bos": 0}))
    peer = llama_cpp.Llama(str(tmp_path / "m.gguf"), vocab_only=True, verbose=False)
    lines = [line for line in STORY.read_text(encoding="utf-8").splitlines() if line]
    same = sum(peer.tokenize(line.encode(), add_bos=False, special=False) == tokenizer.encode(line) for line in lines)
    assert same / len(lines) > 0.95
    assert all(peer.detokenize(tokenizer.encode(line)).decode() == line for line in lines[:20])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"tokenizer.ggml.model": "llama"}, ConfigError),
        ({"tokenizer.ggml.pre": "of tomorrow"}, ConfigError),
        ({"tokenizer.ggml.merges": ["a b c"]}, FormatError),
        ({"tokenizer.ggml.merges": ["あ い"]}, FormatError),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, FormatError),
        ({"tokenizer.ggml.token_type": [1]}, FormatError),
        ({"tokenizer.huggingface.json": "{"}, FormatError),
    ],
)
def test_what_cannot_be_read_is_refused(keys: dict[str, Any], change: dict[str, Any], error: type[Exception]) -> None:
    bare = {key: value for key, value in keys.items() if key != gguf_vocabulary.WHOLE}
    with pytest.raises(error):
        gguf_vocabulary.tokenizer({**bare, **change})


def test_a_kind_that_the_format_does_not_know_is_refused() -> None:
    other = fast.train("characters", [STORY.read_text(encoding="utf-8")], 400)
    with pytest.raises(ConfigError, match="characters"):
        gguf_vocabulary.keys(other, 400, None, {})
