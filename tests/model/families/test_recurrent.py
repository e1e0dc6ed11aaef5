"""RNN, GRU and LSTM against torch.nn: the same weights under the same names, the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import reference
import torch
from safetensors.torch import load_file
from torch import nn

from tsuzuri.errors import ConfigError
from tsuzuri.folder import find
from tsuzuri.model import weights

KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
CASES: dict[str, dict[str, object]] = {"two layers": {}, "one layer": {"num_hidden_layers": 1}, "tied": {"tie_word_embeddings": True}}


class Reference(nn.Module):
    """What anyone would write with torch.nn."""

    def __init__(self, kind: str, vocabulary: int, size: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size)
        self.rnn = KINDS[kind](size, size, layers, batch_first=True)
        self.head = nn.Linear(size, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(self.embedding(ids))[0])


def written(name: str, case: str, directory: Path) -> weights.Any:
    family = find(weights.FAMILIES, name)
    config = {"model_type": name, "vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, **CASES[case]}
    model = weights.build(family, family.shape(config))
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3, generator=generator)
    directory.mkdir(exist_ok=True)
    weights.save(model, directory, name)
    return model


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_parity(name: str, case: str, tmp_path: Path) -> None:
    written(name, case, tmp_path)
    model = weights.load(tmp_path)
    there = Reference(name, 60, 24, model.shape.num_hidden_layers).eval()
    stored = load_file(tmp_path / weights.WEIGHTS)
    there.load_state_dict({"head.weight": stored["embedding.weight"], **stored})
    ids = reference.tokens(60)
    with torch.inference_mode():
        expected = there(ids[None])[0]
        reference.close(reference.logits(model, ids), expected)
        reference.cut_is_whole(model, ids)
        reference.paged_is_whole(model, ids)
        short = torch.stack([ids, torch.cat([ids[5:16], ids.new_zeros(12)])])
        documents = torch.tensor([[1] * 23, [1] * 11 + [0] * 12])
        padded = model(short, weights_past(documents))
        reference.close(padded[1, :11], there(ids[None, 5:16])[0])
        greedy = ids.tolist()
        for _ in range(32):
            greedy.append(int(there(torch.tensor([greedy]))[0, -1].argmax()))
        assert reference.greedy_here(model, ids, 32) == greedy[23:]
        reference.close(reference.logits(model.double(), ids), there.double()(ids[None])[0], reference.RELATIVE_WIDE)


def weights_past(documents: torch.Tensor) -> reference.Causal:
    return reference.Causal(torch.arange(documents.shape[-1]).expand(documents.shape), documents)


@pytest.mark.parametrize("name", KINDS)
def test_a_field_that_means_nothing_here_is_refused_by_name(name: str) -> None:
    family = find(weights.FAMILIES, name)
    with pytest.raises(ConfigError, match="num_attention_heads"):
        family.shape({"vocab_size": 5, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2})
