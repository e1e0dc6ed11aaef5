"""A `Transformer` written as a program of the native library: a whole step of any number of sequences in one call.

In: a model whose parts the library has (`supports` says which it has not), its matrices in float32, bfloat16 or quantised.
Out: `Compiled.step`, logits for the tokens that are asked for. It keeps keys and values in pages; which page belongs to which
sequence is the caller's business. The plain twin is the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tsuzuri.model.adapt import quantize
from tsuzuri.model.transformer import Transformer
from tsuzuri.native import layout
from tsuzuri.native.library import Library
from tsuzuri.native.program import Attention, Matrix, Norm, Pool, Program, room


class Compiled:
    def __init__(self, model: Transformer, pool: Pool, *, form: str, pages: int, page_size: int = 32, most: int = 128) -> None:
        shape = model.shape
        self.shape, self.most, self.form = shape, most, form
        self.program = program = Program(pool, most)
        size, heads, kv = shape.head_size, shape.num_attention_heads, shape.kv_heads
        x, qkv = program.buffer(shape.hidden_size), program.buffer((heads + 2 * kv) * size)
        mixed, wide = program.buffer(heads * size), program.buffer(shape.intermediate_size)
        self._logits = program.buffer(shape.vocab_size)
        place = model.position(torch.arange(shape.max_position_embeddings))
        cos, sin = (t[:, 0, : size // 2].contiguous() for t in (place.cos, place.sin))
        kept = torch.float32 if form == 'f32' else torch.bfloat16
        arena = Arena(pool.library)
        plans = []
        embedding = arena.add(model.embedding.weight, form)
        for block in model.blocks:
            a, f = block.attention, block.feedforward
            plans.append(
                (
                    arena.add(torch.cat([a.query.weight, a.key.weight, a.value.weight]), form),
                    arena.add(a.output.weight, form),
                    arena.add(layout.paired(f.gate.weight, f.up.weight), form),
                    arena.add(f.down.weight, form),
                )
            )
        head = embedding if model.head is None else arena.add(model.head.weight, form)
        matrices = arena.fill()
        program.embed(matrices[embedding], x)
        for layer, (block, (i, o, g, d)) in enumerate(zip(model.blocks, plans, strict=True)):
            keys = torch.zeros(pages, kv, page_size // 16, size, 16, dtype=kept)
            values = torch.zeros(pages, kv, page_size, -(-size // 16) * 16, dtype=kept)
            program.matmul(matrices[i], x, qkv, norm=_norm(block.attention_norm))
            program.attend(Attention(heads=heads, kv_heads=kv, head_size=size, keys=keys, values=values, cos=cos, sin=sin), qkv, mixed)
            program.matmul(matrices[o], mixed, x, add=True)
            program.matmul(matrices[g], x, wide, norm=_norm(block.feedforward_norm), gate="silu")
            program.matmul(matrices[d], wide, x, add=True)
        program.matmul(matrices[head], x, self._logits, norm=_norm(model.norm), chosen=True)
        self.bytes = arena.bytes

    def step(self, ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], pages: Tensor, chosen: Sequence[int]) -> Tensor:
        """-> (chosen, V) float32, a view that the next step writes over"""
        self.program.run(ids, positions, sequences, pages, chosen)
        return self._logits[: len(chosen), : self.shape.vocab_size]


class Arena:
    def __init__(self, library: Library) -> None:
        self.library, self.parts, self.bytes = library, [], 0

    def add(self, weight: Tensor, form: str) -> int:
        if form in ("f32", "bf16"):
            blocks = layout.packed(weight.float() if form == "f32" else weight.bfloat16())
        else:
            blocks = layout.packed(*(quantize.q8_0 if form == "q8" else quantize.q4_0)(weight))
        self.parts.append((blocks, form, *weight.shape))
        self.bytes += blocks.numel()
        return len(self.parts) - 1

    def fill(self) -> list[Matrix]:
        whole = room(self.library, self.bytes + 64 * len(self.parts))
        start, found = 0, []
        for blocks, form, rows, columns in self.parts:
            place = whole[start : start + blocks.numel()].view(blocks.shape)
            place.copy_(blocks)
            found.append(Matrix(place, form, rows, columns))
            start += -(-blocks.numel() // 64) * 64
        self.parts = []
        return found


def _norm(module: nn.Module) -> Norm:
    return Norm("rms_norm", module.weight.detach().float(), module.eps)
