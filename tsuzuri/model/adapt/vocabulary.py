"""More rows for a vocabulary that has grown: each new token starts as the mean of the tokens that stood for it before.

In: a model and, for each new token, the old ids it stands for. Out: a model with as many more rows in embedding and head; all other
weights are the same. A random row would be a word that means nothing; the mean is near what the model read in its place
(Hewitt 2021, "Initializing new word embeddings for pretrained language models"; Yao et al. 2021, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tsuzuri.errors import ConfigError, Words
from tsuzuri.model.transformer import Transformer


def extend(model: Transformer, first: int, pieces: Sequence[Sequence[int]]) -> Transformer:
    """`first`: the id of the first new token, at most V: rows that no token used yet are used. `pieces`: old ids for each new
    token, never none. Raises ConfigError for a model whose head is no language model's."""
    if model.shape.head != "next_token":
        raise ConfigError(
            Words("モデルの語彙を増やそうとしました。", "Extending the vocabulary of a model."),
            found=Words(f"出力が {model.shape.head} です。", f"Its head is {model.shape.head}."),
            todo=Words("次の語を当てるモデルを使ってください。", "Use a model that predicts the next token."),
        )
    assert first <= model.vocab_size and all(0 <= id < first for ids in pieces for id in ids)
    larger = Transformer(replace(model.shape, vocab_size=max(model.vocab_size, first + len(pieces))), device="meta")
    found = {name: weight.detach() for name, weight in model.named_parameters()}
    for name in ("embedding.weight", "head.weight", "head.bias"):
        if name in found:
            rows = found[name]
            found[name] = torch.cat([rows[:first], means(rows, pieces), rows[first + len(pieces) :]])
    larger.load_state_dict({name: nn.Parameter(weight) for name, weight in found.items()}, assign=True)
    return larger.requires_grad_(False)


def means(rows: Tensor, pieces: Sequence[Sequence[int]]) -> Tensor:
    """(V, …) -> (new, …): the mean of the rows of each new token's pieces, in float32"""
    return torch.stack([rows[list(ids)].float().mean(0) for ids in pieces]).to(rows.dtype) if pieces else rows[:0]
