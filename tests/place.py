"""Where the project is, and the settings that make the recipes small enough for a test."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = [
    "size=1",
    "corpus.max_bytes=2000000",
    "tokenizer.vocab_size=1000",
    "pretrain.steps=12",
    "pretrain.train_tokens=60000",
    "pretrain.evaluate_every=6",
    "pretrain.checkpoint_every=4",
    "sft.epochs=0.1",
    "evaluate.xz_prior=false",
]
SMALL_VECTORS = [
    "corpus.max_bytes=3000000",
    "tokenizer.vocab_size=3000",
    "tokenizer.train_bytes=1000000",
    "vectors.vector_size=32",
    "vectors.epochs=3",
]
