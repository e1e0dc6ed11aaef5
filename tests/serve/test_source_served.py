"""An encoder-decoder behind the service: what it is said to read is what it reads, the end of its source included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Running

from tsuzuri.model import weights
from tsuzuri.model.encoder_decoder import EncoderDecoder, PairShape
from tsuzuri.model.families import t5
from tsuzuri.recipe.stages import seq2seq
from tsuzuri.serve.models import from_directory
from tsuzuri.serve.running import Meter
from tsuzuri.text import fast

PROMPT = "二人の若い紳士が"
SAID = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = tmp_path_factory.mktemp("pair") / "pair"
    path.mkdir()
    text = (Path(__file__).parents[1] / "data" / "ryoriten.txt").read_text(encoding="utf-8")
    tokenizer = fast.train("bpe", [text], 400)
    sizes = {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    model = EncoderDecoder(PairShape(**{**t5.USUAL, **sizes}, decoder_start_token_id=tokenizer.special[seq2seq.BOUNDARY])).initialise(1)
    for weight in model.parameters():
        weight.data.normal_(std=0.3)
    weights.save(model, path, "t5")
    seq2seq.write_extras(path, tokenizer)
    with serving(from_directory(path)) as found:
        yield found


def test_the_tokens_of_a_conversation_are_those_of_its_usage(running: Running) -> None:
    tokens = running.service.pool.get("pair").tokens
    with running.client() as client:
        read = client.post("/tokenize", json={"model": "pair", "messages": SAID}).json()
        used = client.post("/v1/chat/completions", json={"model": "pair", "messages": SAID, "max_tokens": 2}).json()["usage"]
        counted = client.post("/v1/messages/count_tokens", json={"model": "pair", "messages": SAID}).json()
    end = tokens.model.tokenizer.special[seq2seq.BOUNDARY]
    assert read["tokens"] == [*tokens.model.tokenizer.encode(PROMPT), end]
    assert read["count"] == used["prompt_tokens"] == counted["input_tokens"]


def test_a_text_that_was_cut_off_counts_what_was_read(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the books where the model could not tell any more is what it tells when it can."""
    begun: list[int] = []
    begin = Meter.begin

    def noted(self: Meter, index: int, prompt_tokens: int, again: bool = False) -> None:
        begun.append(prompt_tokens)
        begin(self, index, prompt_tokens, again)

    monkeypatch.setattr(Meter, "begin", noted)
    with running.client() as client:
        used = client.post("/v1/completions", json={"model": "pair", "prompt": PROMPT, "max_tokens": 2}).json()["usage"]
    assert begun == [used["prompt_tokens"]]
