"""A `Transformer` written as a program of the native library: a whole step of any number of sequences in one call.

In: a model whose parts the library has (`supports` says what it has not), its matrices in float32, bfloat16, 8 or 4 bits.
Out: `Compiled`, which stands behind the same seam as the model, and `step` for whoever keeps pages of several sequences.
It packs the weights once: what is changed in the model afterwards is not seen. The plain twin is the model itself.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsuzuri.model._compilable import ACTIVATIONS, NORMS, supports
from tsuzuri.model._packing import Packing, form_of
from tsuzuri.model.past import Causal
from tsuzuri.model.transformer import Transformer
from tsuzuri.native.library import Library, load
from tsuzuri.native.program import Attention, Matrix, Norm, Pool, Program
from tsuzuri.types import Past

__all__ = ["Compiled", "made", "supports"]
PAGE = 32  # tokens
FIRST = 1024  # tokens of room at first, in all sequences together; it doubles
MOST = 128  # tokens of one call of the library; more are several calls


def made(model: object, threads: int) -> Compiled | None:
    """The model compiled, where the library is there and has all its parts."""
    library = load()
    if not isinstance(library, Library) or supports(model) is not None:
        return None
    assert isinstance(model, Transformer)
    return Compiled(model, Pool(library, threads))


class Half(NamedTuple):
    """One of the two parts of a block, with the norms around it."""

    part: Any  # of the model; None: there is none
    before: nn.Module | None  # normalises what it reads
    added: nn.Module | None  # normalises what it adds
    after: nn.Module | None  # normalises the sum


class Layer(NamedTuple):
    mixer: Half
    feedforward: Half
    at_once: bool  # both parts read the same


class Buffers(NamedTuple):
    """What operations hand on, a row a token."""

    x: Tensor  # (most, D) the residual stream
    qkv: Tensor  # (most, (H + 2K) E)
    mixed: Tensor  # (most, H E)
    wide: Tensor  # (most, intermediate)
    out: Tensor  # (most, V) logits
    last: Tensor  # (most, D) after the last norm
    aside: Tensor  # (most, D) what is normalised before it is added


class Compiled:
    """The same logits as `model`, to the rounding of the kernels. Safe to call from several threads; one step at a time."""

    page = PAGE

    def __init__(self, model: Transformer, pool: Pool, *, most: int = MOST, kept: torch.dtype | None = None) -> None:
        """`kept`: of keys and values; None: bfloat16 where the weights are quantised, else float32."""
        self.model, self.shape, self.pool, self.most = model, model.shape, pool, most
        self.vocab_size, self.context_length = model.vocab_size, model.context_length
        wide = form_of(model.embedding) in ("f32", "bf16")
        self.kept = kept or (torch.float32 if wide else torch.bfloat16)
        self._packed = Packing(model, layers(model), pool.library)
        shape, size = self.shape, self.shape.head_size
        widths = ((shape.num_attention_heads + 2 * shape.kv_heads) * size, shape.num_attention_heads * size, shape.intermediate_size)
        whole = Program(pool, most)
        sizes = (shape.hidden_size, *widths, shape.vocab_size, shape.hidden_size, shape.hidden_size)
        self._buffers = Buffers(*(whole.buffer(size) for size in sizes))
        self._last = self._buffers.x if _norm(model.norm) is None else self._buffers.last
        self._pages: weakref.WeakKeyDictionary[Past, tuple[list[int], Tensor]] = weakref.WeakKeyDictionary()
        self._free: deque[int] = deque()
        self._none = torch.zeros(1, 0, dtype=torch.int32)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._alone = threading.Lock()
        self._room, self._positions = 0, 0
        self._grow(max(1, FIRST // PAGE), min(FIRST, self.context_length))

    @property
    def bytes(self) -> int:
        """Of packed weights."""
        return self._packed.bytes

    @property
    def bytes_read(self) -> int:
        """Of packed weights that every token reads: all but an embedding that is not the head, too."""
        return self._packed.read

    # ── behind the seam

    def __call__(self, tokens: Tensor, past: Past) -> Tensor:
        """(N,) -> logits (N, V); any other past than that of one sequence is the model's own business"""
        return self._read(tokens, past, range(tokens.numel())) if self._one(tokens, past) else self.model(tokens, past)

    def read(self, tokens: Tensor, past: Past) -> Tensor:
        """(N,) -> logits (V,) of the last one"""
        return self._read(tokens, past, [tokens.numel() - 1])[0] if self._one(tokens, past) else self.model(tokens, past)[-1]

    def hidden(self, tokens: Tensor, past: Past) -> Tensor:
        """(N,) -> (N, D) after the last norm"""
        return self._read(tokens, past, None) if self._one(tokens, past) else self.model.hidden(tokens, past)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.model.logits(hidden)

    @property
    def head_weight(self) -> Tensor:
        return self.model.head_weight

    # ── several sequences

    def step(self, ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], pages: Tensor, chosen: Sequence[int]) -> Tensor:
        """Logits (chosen, V) of those tokens. `pages` int32 (sequences, pages of a sequence), out of `take_pages`."""
        with self._alone:
            self._positions_for(max(positions) + 1)
            self._to_logits.run(ids, positions, sequences, pages, chosen)
            return self._buffers.out[: len(chosen), : self.vocab_size].clone()

    def take_pages(self, count: int) -> list[int]:
        """Pages nobody uses, of PAGE tokens each; `free_pages` gives them back."""
        with self._alone:
            return self._taken(count)

    def free_pages(self, pages: Sequence[int]) -> None:
        self._free.extend(pages)

    def page_contents(self, page: int) -> dict[str, Tensor]:
        """Keys and values of every layer, by name, as they lie in the page."""
        with self._alone:
            kept = (("keys", self._keys), ("values", self._values))
            return {f"{name}.{layer}": x[page].clone() for name, of in kept for layer, x in enumerate(of)}

    def fill_page(self, page: int, contents: Mapping[str, Tensor]) -> None:
        """What `page_contents` gave, of this model or of another one of the same weights."""
        with self._alone:
            for name, of in (("keys", self._keys), ("values", self._values)):
                for layer, x in enumerate(of):
                    x[page] = contents[f"{name}.{layer}"]

    # ── inside

    def _one(self, tokens: Tensor, past: Past) -> bool:
        """Whether these are the next tokens of one sequence, that sees all before it. Only pasts that are known to ask for nothing
        else: that of a whole text, and one that says it is `alone`."""
        whole = type(past) is Causal
        if not (whole or getattr(past, "alone", False)) or past.segments is not None:
            return False
        if tokens.dim() != 1 or not tokens.numel() or past.positions.shape != tokens.shape:
            return False
        if isinstance(past, Causal) and (past.documents is not None or past.memory is not None):
            return False
        positions = past.positions.tolist()
        following = positions == list(range(positions[0], positions[0] + len(positions)))
        return following and (not whole or positions[0] == 0)

    def _read(self, tokens: Tensor, past: Past, chosen: Sequence[int] | None) -> Tensor:
        """Logits of the chosen tokens, or (None) hidden states of all."""
        ids, start = tokens.tolist(), int(past.positions[0])
        outputs: list[Tensor] = []
        with self._alone:
            table = self._table(past, start, start + len(ids))
            for at in range(0, len(ids), self.most):
                part = ids[at : at + self.most]
                count = len(part)
                wanted = [] if chosen is None else [i - at for i in chosen if at <= i < at + count]
                program = self._to_hidden if chosen is None or not wanted else self._to_logits
                program.run(part, range(start + at, start + at + count), [0] * count, table, wanted)
                if chosen is None:
                    outputs.append(self._last[:count, : self.shape.hidden_size].clone())
                elif wanted:
                    outputs.append(self._buffers.out[: len(wanted), : self.vocab_size].clone())
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _table(self, past: Past, start: int, stop: int) -> Tensor:
        """int32 (1, pages) of a past, with room for `stop` tokens. Its pages come back when nobody holds it any more."""
        self._positions_for(stop)
        pages, table = self._pages.get(past, (None, self._none))
        if pages is None:
            assert start == 0, "what came before was not read by this model"
            pages = []
            weakref.finalize(past, self._free.extend, pages)
        missing = -(-stop // PAGE) - len(pages)
        if missing > 0:
            pages.extend(self._taken(missing))
            with torch.inference_mode(False):
                table = torch.tensor([pages], dtype=torch.int32)
            self._pages[past] = pages, table
        return table

    def _taken(self, count: int) -> list[int]:
        if count > len(self._free):
            self._grow(max(2 * self._room, self._room + count), self._positions)
        return [self._free.popleft() for _ in range(count)]

    def _positions_for(self, count: int) -> None:
        if count > self._positions:
            self._grow(self._room, max(count, min(2 * self._positions, self.context_length)))

    def _grow(self, pages: int, positions: int) -> None:
        """Room for more pages, or tables for more positions: the operations point elsewhere, so the programs are written anew."""
        shape, padded = self.shape, -(-self.shape.head_size // 16) * 16
        if pages > self._room:
            key = (pages, shape.kv_heads, PAGE // 16, shape.head_size, 16)
            value = (pages, shape.kv_heads, PAGE, padded)
            for kept, size in ((self._keys, key), (self._values, value)):
                larger = [torch.zeros(size, dtype=self.kept) for _ in range(shape.num_hidden_layers)]
                for old, new in zip(kept, larger, strict=False):
                    new[: self._room] = old
                kept[:] = larger
            self._free.extend(range(self._room, pages))
        self._room, self._positions = pages, positions
        self._to_logits, self._to_hidden = self._written(positions)

    def _written(self, positions: int) -> tuple[Program, Program]:
        """The program up to the logits, and the one up to the last norm."""
        model, shape, b, packed = self.model, self.shape, self._buffers, self._packed
        everywhere = _tables(model.position, positions)
        local = everywhere if model.local_position is None else _tables(model.local_position, positions)
        programs = (Program(self.pool, self.most), Program(self.pool, self.most))
        for program in programs:
            program.embed(packed.embedding, b.x, self._rounded(shape.embedding_scale), everywhere.add)
            if model.embedding_norm is not None:
                self._norm(program, model.embedding_norm, b.x, b.x)
            for number, layer in enumerate(layers(model)):
                self._layer(program, number, layer, everywhere if shape.window(number) is None else local)
        to_logits, to_hidden = programs
        to_logits.matmul(
            packed.head, b.x, b.out, norm=_norm(model.norm), chosen=True, factor=shape.logit_multiplier, cap=shape.final_logit_softcapping
        )
        if self._last is b.last:
            self._norm(to_hidden, model.norm, b.x, b.last)
        return to_logits, to_hidden

    def _rounded(self, factor: float) -> float:
        """As the plain model rounds it, to the precision of its embeddings."""
        like = getattr(self.model.embedding, "like", None)  # of one that is quantised: its weight would be multiplied out to be looked at
        return float(torch.tensor(factor, dtype=(self.model.embedding.weight if like is None else like).dtype))

    def _layer(self, program: Program, number: int, layer: Layer, place: Tables) -> None:
        shape, b, matrices = self.shape, self._buffers, self._packed.layers[number]
        mixer, feedforward = layer.mixer, layer.feedforward
        self._mix(program, number, mixer, place)
        if not layer.at_once:
            self._add(program, matrices.output, b.mixed, mixer)
        if matrices.first is not None and matrices.down is not None:
            act = ACTIVATIONS[shape.hidden_act]
            gate, plain = (act, None) if shape.feedforward == "gated" else (None, act)
            program.matmul(matrices.first, b.x, b.wide, norm=_norm(feedforward.before), gate=gate, shape=plain)
        if layer.at_once:
            self._add(program, matrices.output, b.mixed, mixer)
        if matrices.down is not None:
            self._add(program, matrices.down, b.wide, feedforward)

    def _mix(self, program: Program, number: int, half: Half, place: Tables) -> None:
        """x -> queries, keys and values -> what the heads say"""
        shape, b, mixer, matrices = self.shape, self._buffers, half.part, self._packed.layers[number]
        program.matmul(matrices.qkv, b.x, b.qkv, norm=_norm(half.before))
        queries, keys = shape.num_attention_heads * shape.head_size, shape.kv_heads * shape.head_size
        if mixer.together:
            self._norm(program, mixer.query_norm, b.qkv[:, :queries], b.qkv[:, :queries])
            self._norm(program, mixer.key_norm, b.qkv[:, queries : queries + keys], b.qkv[:, queries : queries + keys])
        each = (None, None) if mixer.together else (_norm(mixer.query_norm), _norm(mixer.key_norm))
        query_norm, key_norm = (None if norm is None else norm.weight for norm in each)
        attention = Attention(
            heads=shape.num_attention_heads, kv_heads=shape.kv_heads, head_size=shape.head_size, keys=self._keys[number],
            values=self._values[number], cos=place.cos, sin=place.sin, slopes=place.slopes, window=mixer.window,
            query_norm=query_norm, key_norm=key_norm, epsilon=shape.norm_eps, scale=mixer.scale, cap=mixer.softcap,
        )  # fmt: skip
        program.attend(attention, b.qkv, b.mixed)

    def _add(self, program: Program, matrix: Matrix, source: Tensor, half: Half) -> None:
        """What a part found, added to the residual stream."""
        b = self._buffers
        if half.added is None:
            program.matmul(matrix, source, b.x, add=True)
        else:
            program.matmul(matrix, source, b.aside)
            self._norm(program, half.added, b.aside, b.x, add=True)
        if half.after is not None:
            self._norm(program, half.after, b.x, b.x)

    @staticmethod
    def _norm(program: Program, module: nn.Module, source: Tensor, output: Tensor, *, add: bool = False) -> None:
        norm = _norm(module)
        assert norm is not None
        program.norm(norm, source, output, add=add)


def layers(model: Transformer) -> list[Layer]:
    """The parts of each block in the order in which they are computed, and where its norms stand."""
    found = []
    kind = model.shape.block
    for number, block in enumerate(model.blocks):
        part: Any = block
        assert part.mixer.layer == number
        halves = []
        for name in ("mixer", "feedforward"):
            norm = getattr(part, "norm" if kind == "parallel_one_norm" else f"{name}_norm", None)
            added, after = getattr(part, f"{name}_after", None), None
            if kind == "reordered_norm":
                norm, added = None, norm
            elif kind == "post_norm":
                norm, after = None, norm
            halves.append(Half(getattr(part, name, None), norm, added, after))
        found.append(Layer(halves[0], halves[1], kind in ("parallel", "parallel_one_norm")))
    return found


class Tables(NamedTuple):
    """What a position part says about the first positions."""

    add: Tensor | None  # (positions, D)
    cos: Tensor | None  # (positions, R/2)
    sin: Tensor | None
    slopes: Tensor | None  # (H,)


def _tables(part: nn.Module, positions: int) -> Tables:
    place = part(Causal(torch.arange(positions)))
    half = None if place.cos is None else place.cos.shape[-1] // 2  # the two halves are the same angles
    cos, sin = (None if t is None else t[:, 0, :half].float().contiguous() for t in (place.cos, place.sin))
    slopes = None
    if place.bias is not None:  # ALiBi: minus the bias at a distance of one
        slopes = -place.bias(torch.tensor([1]), torch.tensor([0])).flatten().float()
    return Tables(None if place.add is None else place.add.detach().float().contiguous(), cos, sin, slopes)


def _norm(module: Any) -> Norm | None:
    """None where there is none."""
    if module is None or isinstance(module, nn.Identity):
        return None
    name = type(module).__module__.rpartition(".")[2]
    weight, bias = module.weight.detach().float(), getattr(module, "bias", None)
    return Norm(
        NORMS[name], 1 + weight if name == "rms_norm_offset" else weight, module.eps, None if bias is None else bias.detach().float()
    )
