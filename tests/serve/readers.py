"""Directories of models that only read: tiny encoders with random weights, and word vectors of six words."""

from __future__ import annotations

from pathlib import Path

TEXT = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。料理とは、食材を切ったり熱を加えたりすることです。"
SIZES = {
    "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 64,
}  # fmt: skip


def encoder(path: Path, family: str = "modernbert", head: str = "embed") -> Path:
    import torch

    from tsuzuri.folder import find
    from tsuzuri.model import weights
    from tsuzuri.model.transformer import Shape, Transformer
    from tsuzuri.text import fast

    labels = ("良い", "悪い") if head == "classify" else ()
    model = Transformer(Shape(**{**find("tsuzuri.model.families", family).USUAL, **SIZES, "head": head, "labels": labels}))
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    path.mkdir()
    weights.save(model.requires_grad_(False), path, family)
    fast.train("bpe", [TEXT * 3], 300, fast.ENCODER).save(path)
    return path


def words(path: Path) -> Path:
    import numpy as np

    from tsuzuri.model.vectors import Vectors
    from tsuzuri.text.words import cutter

    known = ["猫", "犬", "料理", "雨", "本", "山"]
    matrix = np.random.default_rng(1).normal(size=(len(known), 4)).astype(np.float32)
    matrix[1] = matrix[0] + 0.1
    Vectors(known, matrix, np.arange(1, len(known) + 1), cutter("word"), method="skip-gram").save(path)
    return path
