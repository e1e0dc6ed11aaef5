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
SMALL_BODY = [  # of the recipes of encoders
    "corpus.inputs=[sample/pretrain/government.jsonl.zst]",
    "corpus.max_bytes=1000000",
    "tokenizer.vocab_size=1000",
    "masked.model.hidden_size=32",
    "masked.model.num_hidden_layers=1",
    "masked.model.intermediate_size=48",
    "masked.steps=4",
    "masked.evaluate_every=0",
    "masked.batch=4",
]
SMALL_PAIRS = [  # of the recipes that learn from pairs
    "seq2seq.model.hidden_size=32",
    "seq2seq.model.num_hidden_layers=1",
    "seq2seq.model.num_attention_heads=2",
    "seq2seq.model.intermediate_size=48",
    "seq2seq.epochs=0.03",
    "seq2seq.batch=4",
    "translation.sentences=8",
]
SMALL_TASKS = {
    "encoder": [
        *SMALL_BODY,
        "masked.length=64",
        "masked.model.max_position_embeddings=320",
        "masked.compiled=false",
        "masked.precision=float32",
        "masked.model.num_attention_heads=2",
    ],
    "classify": [*SMALL_BODY, "classify.length=320", "classify.epochs=0.04"],
    "tag": [*SMALL_BODY, "tag.length=320", "tag.epochs=0.1"],
    "extract": [*SMALL_BODY, "extract.epochs=0.01"],
    "embed": [*SMALL_BODY, "embed.epochs=0.2"],
    "span": [
        *SMALL_BODY[:3],
        "span.model.hidden_size=32",
        "span.model.num_hidden_layers=1",
        "span.model.encoder_layers=1",
        "span.model.intermediate_size=48",
        "span.steps=4",
        "span.evaluate_every=0",
        "span.batch=4",
        "span.scored=8",
    ],
    "translate": SMALL_PAIRS,
}
