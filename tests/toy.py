"""A tiny model directory with random weights: it speaks nonsense, always the same, through every real part."""

from __future__ import annotations

from pathlib import Path


def make(path: Path, context: int = 256) -> Path:
    """The directory, which must not be there yet; `context` in tokens."""
    import torch

    from tsuzuri.chat import template
    from tsuzuri.model import weights
    from tsuzuri.model.transformer import Shape, Transformer
    from tsuzuri.text import fast

    path.mkdir()
    text = (Path(__file__).parent / "data" / "ryoriten.txt").read_text(encoding="utf-8")
    tokenizer = fast.train("bpe", [text] * 2, 600)
    shape = Shape(
        vocab_size=600,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=context,
    )
    model, generator = Transformer(shape), torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.15, generator=generator) if weight.dim() > 1 else torch.nn.init.ones_(weight)
    weights.save(model, path)
    tokenizer.save(path)
    template.save(path)
    return path
