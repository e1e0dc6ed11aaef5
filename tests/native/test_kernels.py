"""Laws of the kernels: every variant that this processor runs against PyTorch, and a token's bits do not depend on its neighbours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tsuzuri.errors import ConfigError
from tsuzuri.model.adapt import quantize
from tsuzuri.model.past import Naive
from tsuzuri.native import layout, library
from tsuzuri.native.layout import FORMATS, Format
from tsuzuri.native.program import KEYS, Attention, Matrix, Norm, Pool, Program, room

NO_PAGES = torch.zeros(1, 1, dtype=torch.int32)
STORED = {"q8": "q8_0", "q4": "q4_0", "q8_16": "q8_0"}
FOUND = library.load()  # those that this processor cannot run are emulated in test_sanitized.py
RUNNABLE = FOUND.variants if isinstance(FOUND, library.Library) else library.VARIANTS


@pytest.fixture(params=RUNNABLE)
def variant(request: pytest.FixtureRequest, native: library.Library) -> Pool:
    """A pool whose kernels are those of one variant."""
    if request.param not in native.variants:
        pytest.skip("this processor cannot run it")
    found = library._load(request.param)
    assert isinstance(found, library.Library) and found.variant == request.param
    return Pool(found, 2)


def numbers(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def matrix(pool: Pool, form: Format, weight: Tensor, bias: Tensor | None = None) -> tuple[Matrix, Tensor]:
    """Packed, and the float32 weights it stands for."""
    if form in STORED:
        values, scales = quantize.FORMS[STORED[form]](weight)
        blocks, plain = layout.packed(values, scales), quantize.dequantised(STORED[form], values, scales)
    else:
        narrow = weight if form == "f32" else weight.bfloat16()
        blocks, plain = layout.packed(narrow), narrow.float()
    place = room(pool.library, blocks.numel()).view(blocks.shape).copy_(blocks)
    return Matrix(place, form, weight.shape[0], weight.shape[1], bias), plain


def on_the_grid(x: Tensor, form: Format) -> Tensor:
    """The activations that 8-bit products see: groups of 32 rounded to 127 steps on either side of zero; in 16 bits the rest of each
    rounded once more, to 254 steps in one of those."""
    if form not in STORED:
        return x
    groups = x.unflatten(-1, (-1, 32))
    top = groups.abs().amax(-1, keepdim=True)
    exact = groups * torch.where(top > 0, 127 / top, 0)
    steps = exact.round()  # halves to even
    if form == "q8_16":
        steps = steps + ((exact - steps) * 254).round() / 254
    return (steps * (top / 127)).flatten(-2)


def product(pool: Pool, packed: Matrix, x: Tensor, outputs: int, **how: Any) -> Tensor:
    program = Program(pool, len(x))
    source, out = program.buffer(x.shape[1]), program.buffer(outputs)
    source[:, : x.shape[1]] = x
    out.fill_(0.5)
    program.matmul(packed, source, out, **how)
    program.run([0] * len(x), [0] * len(x), [0] * len(x), NO_PAGES, range(len(x)))
    return out[:, :outputs].clone()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [(16, 32), (1, 64), (70, 96), (33, 384)])
@pytest.mark.parametrize("count", [1, 2, 7, 70])
def test_a_product_is_that_of_pytorch(variant: Pool, form: Format, size: tuple[int, int], count: int) -> None:
    packed, plain = matrix(variant, form, numbers(*size), bias := numbers(size[0], seed=2))
    x = numbers(count, size[1], seed=1) * torch.logspace(-2, 2, count)[:, None]
    packed = Matrix(packed.blocks, form, *size, bias)
    wanted = on_the_grid(x, form) @ plain.T + bias
    torch.testing.assert_close(product(variant, packed, x, size[0]), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_activations_in_16_bits_are_those_of_float32(variant: Pool) -> None:
    """As far as 16 bits go: 254 times nearer than in 8."""
    packed, plain = matrix(variant, "q8_16", numbers(64, 384))
    x = numbers(9, 384, seed=1)
    fine = product(variant, packed, x, 64) - x @ plain.T
    coarse = product(variant, replace(packed, form="q8"), x, 64) - x @ plain.T
    assert float(fine.std()) < float(coarse.std()) / 100


@pytest.mark.parametrize("form", ["f32", "bf16"])
@pytest.mark.parametrize("inputs", [1, 2, 15, 45])
def test_any_number_of_inputs_that_are_not_grouped(variant: Pool, form: Format, inputs: int) -> None:
    packed, plain = matrix(variant, form, numbers(5, inputs))
    x = numbers(3, inputs, seed=1)
    torch.testing.assert_close(product(variant, packed, x, 5), x @ plain.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_a_token_gets_the_same_bits_alone_and_among_others(variant: Pool, form: Format) -> None:
    packed, _ = matrix(variant, form, numbers(40, 96))
    x = numbers(70, 96, seed=1)
    norm = Norm("rms_norm", numbers(96, seed=3), 1e-5)
    together = product(variant, packed, x, 40, norm=norm)
    for count in (1, 2, 3, 5):
        assert torch.equal(product(variant, packed, x[:count], 40, norm=norm), together[:count])


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_done_around_a_product(variant: Pool, form: Format) -> None:
    """Norms before it; a gate, an activation, a factor, a cap and the residual after it."""
    gate, up = numbers(24, 32), numbers(24, 32, seed=1)
    packed, plain = matrix(variant, form, numbers(24, 32))
    both = matrix(variant, form, layout.paired(gate, up))[0]
    first, second = (matrix(variant, form, w)[1] for w in (gate, up))
    x, weight, bias = numbers(5, 32, seed=4), numbers(32, seed=5), numbers(32, seed=6)

    def close(found: Tensor, seen: Tensor, wanted: Any) -> None:
        seen = on_the_grid(seen, form)
        torch.testing.assert_close(found, wanted(seen), rtol=1e-4, atol=1e-4)

    rms = F.rms_norm(x, (32,), weight, 1e-3)
    close(product(variant, packed, x, 24, norm=Norm("rms_norm", weight, 1e-3)), rms, lambda x: x @ plain.T)
    layer = F.layer_norm(x, (32,), weight, bias, 1e-3)
    close(product(variant, packed, x, 24, norm=Norm("layer_norm", weight, 1e-3, bias)), layer, lambda x: x @ plain.T)
    for name, gate_of in {"silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}.items():
        close(product(variant, both, x, 32, gate=name)[:, :24], x, lambda x, g=gate_of: g(x @ first.T) * (x @ second.T))
        close(product(variant, packed, x, 24, shape=name), x, lambda x, g=gate_of: g(x @ plain.T))
    close(product(variant, packed, x, 24, shape="relu2"), x, lambda x: F.relu(x @ plain.T).square())
    close(product(variant, packed, x, 24, factor=0.25, cap=2.0), x, lambda x: 2 * (x @ plain.T / 4 / 2).tanh())
    close(product(variant, packed, x, 24, add=True), x, lambda x: x @ plain.T + 0.5)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_stays_none(variant: Pool, form: Format, odd: float) -> None:
    packed, _ = matrix(variant, form, numbers(16, 64).abs() + 0.1)
    x = numbers(1, 64).abs()
    x[0, 40] = odd
    assert not product(variant, packed, x, 16).isfinite().any()


# ── attention

WAYS = [
    {},
    {"window": 5},
    {"cap": 3.0},
    {"scale": 0.3},
    {"slopes": True},
    {"slopes": True, "window": 40, "cap": 2.0},
]


class Attending:
    """One layer of attention over pages in a shuffled order."""

    def __init__(self, pool: Pool, heads: int, kv_heads: int, size: int, page_size: int, kept: torch.dtype, **how: Any) -> None:
        pages, self.size, self.heads = 8, size, heads
        self.width = (heads + 2 * kv_heads) * size
        keys = torch.full((pages, kv_heads, page_size // KEYS, size, KEYS), float("nan"), dtype=kept)  # what is not written is not read
        values = torch.full((pages, kv_heads, page_size, -(-size // 16) * 16), float("nan"), dtype=kept)
        values[..., size:] = 0
        self.program = Program(pool, 64)
        self.source, self.out = self.program.buffer(self.width), self.program.buffer(heads * size)
        self.program.attend(
            Attention(heads=heads, kv_heads=kv_heads, head_size=size, keys=keys, values=values, **how), self.source, self.out
        )
        self.pages = torch.tensor([[5, 2, 7, 0], [1, 6, 3, 4]], dtype=torch.int32)

    def __call__(self, x: Tensor, positions: list[int], sequences: list[int]) -> Tensor:
        self.source[: len(x), : self.width] = x
        self.program.run([0] * len(x), positions, sequences, self.pages)
        return self.out[: len(x), : self.heads * self.size].clone()


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1), (3, 3)])
@pytest.mark.parametrize(("size", "page_size"), [(16, 16), (10, 32), (64, 16)])
def test_attention_is_the_naive_one(variant: Pool, way: dict[str, Any], heads: tuple[int, int], size: int, page_size: int) -> None:
    many, few = heads
    how = {**way, **({"slopes": torch.arange(1, many + 1) / 8} if "slopes" in way else {})}
    attending = Attending(variant, many, few, size, page_size, torch.float32, **how)
    time = 60
    x = numbers(time, attending.width, seed=size)
    q, k, v = x.split([many * size, few * size, few * size], -1)
    k, v = (t.view(time, few, size).repeat_interleave(many // few, 1) for t in (k, v))
    scores = torch.einsum("ihe,jhe->hij", q.view(time, many, size), k) * (way.get("scale") or size**-0.5)
    if "cap" in way:
        scores = way["cap"] * (scores / way["cap"]).tanh()
    distance = torch.arange(time)[:, None] - torch.arange(time)
    if "slopes" in how:
        scores = scores - how["slopes"][:, None, None] * distance
    scores = scores.masked_fill((distance < 0) | (distance >= way.get("window", time)), -torch.inf)
    wanted = torch.einsum("hij,jhe->ihe", scores.softmax(-1), v).flatten(1)
    together = attending(x, list(range(time)), [0] * time)
    torch.testing.assert_close(together, wanted, rtol=1e-4, atol=1e-5)
    for at in range(0, time, 7):  # the same pages, written and read again in pieces of other sizes
        piece = attending(x[at : at + 3], list(range(at, min(at + 3, time))), [0] * len(x[at : at + 3]))
        assert torch.equal(piece, together[at : at + 3])


def test_the_twin_of_the_attention_here_is_that_of_the_model(pool: Pool) -> None:
    """One point of contact with `model/past.py`: same scores, same window."""
    attending = Attending(pool, 4, 2, 16, 16, torch.float32, window=5)
    x = numbers(20, attending.width)
    q, k, v = x.split([64, 32, 32], -1)
    past = Naive(torch.arange(20))
    wanted = past.attend(0, q.view(20, 4, 16), k.view(20, 2, 16), v.view(20, 2, 16), window=5).flatten(1)
    torch.testing.assert_close(attending(x, list(range(20)), [0] * 20), wanted, rtol=1e-4, atol=1e-5)


def test_sequences_do_not_see_each_other(variant: Pool) -> None:
    attending = Attending(variant, 2, 1, 16, 16, torch.float32)
    one, other = numbers(9, attending.width), numbers(9, attending.width, seed=1)
    alone = attending(one, list(range(9)), [0] * 9)
    attending(torch.cat((one[:8], other[:8])), [*range(8)] * 2, [0] * 8 + [1] * 8)
    last = attending(torch.stack((one[8], other[8])), [8, 8], [0, 1])
    assert torch.equal(last[0], alone[8])


def test_keys_and_values_in_bfloat16(variant: Pool) -> None:
    wide, narrow = (Attending(variant, 4, 2, 16, 16, kept) for kept in (torch.float32, torch.bfloat16))
    x = numbers(40, wide.width)
    x[:, 64:] = x[:, 64:].bfloat16().float()  # keys and values that bfloat16 can say: nothing may differ
    assert torch.equal(narrow(x, list(range(40)), [0] * 40), wide(x, list(range(40)), [0] * 40))


# ── which variant


def test_the_variable_chooses_and_refuses(native: library.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.VARIABLE, "scalar")
    assert library.load().variant == "scalar"  # type: ignore[union-attr]
    monkeypatch.setenv(library.VARIABLE, "off")
    assert not isinstance(library.load(), library.Library)
    for wrong in ("avx3", "neon" if "avx2" in native.variants else "avx2"):
        monkeypatch.setenv(library.VARIABLE, wrong)
        with pytest.raises(ConfigError, match=wrong):
            library.load()
