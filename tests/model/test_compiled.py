"""Laws of the compiled step: the same logits as the model, bit for bit the same however the tokens come, and honest refusals."""

from __future__ import annotations

import dataclasses
import gc
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tsuzuri.engine.cache import Cached
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.sampling import Sampling
from tsuzuri.model.adapt import quantize
from tsuzuri.model.compiled import PAGE, Compiled, supports
from tsuzuri.model.past import Bidirectional, Causal
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.native import build, library
from tsuzuri.native.program import Pool

SIZES = {"vocab_size": 70, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
CHOICES = [
    {},
    {"num_key_value_heads": 2},
    {"num_key_value_heads": 1, "tie_word_embeddings": True},
    {"qk_norm": "head"},
    {"sliding_window": 7},
    {"attention_bias": True, "mlp_bias": True},
    {"head_dim": 10, "intermediate_size": 90},
    {"norm": "layer_norm", "feedforward": "plain", "hidden_act": "gelu", "position": "learned"},
    {"position": "alibi", "feedforward": "plain", "hidden_act": "relu2"},
    {"position": "sinusoidal"},
    {"position": "none", "hidden_size": 60, "vocab_size": 71},
]
NOISE = {None: 1e-5, "bf16": 1e-5, "q8_0": 0.03, "q4_0": 0.03}  # of the logits' deviation: 8-bit activations and bfloat16 keys


@pytest.fixture(scope="module")
def pool() -> Pool:
    if not isinstance(library.load(), library.Library):
        try:
            build.build()
        except build.BuildError:
            pytest.skip("no C++ compiler")
        library._open.cache_clear()
        library._load.cache_clear()
    found = library.load()
    assert isinstance(found, library.Library), found
    return Pool(found, 2)


def built(form: str | None = None, **choices: object) -> Transformer:
    shape = Shape(**{**SIZES, "max_position_embeddings": 300, **choices})  # type: ignore[arg-type]
    model = Transformer(shape).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=generator)
    if form == "bf16":
        return model.bfloat16()
    if form:
        quantize.quantize(model, form)
    return model


def some_ids(count: int, vocabulary: int = 70) -> torch.Tensor:
    return torch.randint(vocabulary, (count,), generator=torch.Generator().manual_seed(1))


def plain(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    return model.float()(ids, Causal(torch.arange(len(ids))))


@pytest.mark.parametrize("choices", CHOICES, ids=str)
@pytest.mark.parametrize("form", NOISE)
def test_the_same_logits_as_the_model(pool: Pool, choices: dict[str, object], form: str | None) -> None:
    model = built(form, **choices)
    assert supports(model) is None
    compiled, ids = Compiled(model, pool), some_ids(150)
    found, wanted = compiled(ids, Causal(torch.arange(150))), plain(model, ids)
    assert float((found - wanted).std() / wanted.std()) < NOISE[form]
    hidden = model.hidden(ids, Causal(torch.arange(150)))
    assert float((compiled.hidden(ids, Causal(torch.arange(150))) - hidden).std() / hidden.std()) < NOISE[form]


@pytest.mark.parametrize("form", NOISE)
def test_bit_for_bit_however_the_tokens_come(pool: Pool, form: str | None) -> None:
    """In one block, in several, one at a time, taken back and read again, and beside another sequence."""
    compiled, ids = Compiled(built(form, num_key_value_heads=2), pool), some_ids(200)
    whole = compiled(ids, Causal(torch.arange(200)))
    past, rows = Cached(), []
    for start, stop in ((0, 50), (50, 51), (51, 53), (53, 200)):
        past.begin(stop - start)
        rows.append(compiled(ids[start:stop], past))
    assert torch.equal(torch.cat(rows), whole)
    past.truncate(64)
    past.begin(1)
    assert torch.equal(compiled.read(ids[64:65], past), whole[64])
    pages = torch.tensor([compiled.take_pages(3), compiled.take_pages(3)], dtype=torch.int32)
    mine, others = ids[:40].tolist(), ids[100:140].tolist()
    compiled.step([*mine[:39], *others[:30]], [*range(39), *range(30)], [0] * 39 + [1] * 30, pages, [])
    found = compiled.step([mine[39], others[30]], [39, 30], [0, 1], pages, [0])
    assert torch.equal(found[0], whole[39])


@pytest.mark.parametrize("form", ["q8_0", "q4_0"])
def test_the_noise_of_8_bits_is_the_activations_alone(pool: Pool, form: str) -> None:
    """Against the plain model with its activations on the grid of the kernels, groups of 32 in 255 steps, nothing is left of it."""
    model = built(form)
    compiled, ids = Compiled(model, pool, kept=torch.float32), some_ids(60)
    found = compiled.hidden(ids, Causal(torch.arange(60)))
    assert float((found - model.hidden(ids, Causal(torch.arange(60)))).abs().max()) > 1e-4

    def rounded(module: nn.Module, given: tuple[torch.Tensor]) -> torch.Tensor:
        groups = given[0].unflatten(-1, (-1, 32))
        top = groups.abs().amax(-1, keepdim=True)
        return ((groups * (127 / top)).round() * (top / 127)).flatten(-2)

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(rounded)
    torch.testing.assert_close(found, model.hidden(ids, Causal(torch.arange(60))), rtol=1e-5, atol=1e-5)


def test_an_engine_says_the_same_with_and_without(pool: Pool) -> None:
    model, prompt = built(), some_ids(150).tolist()
    texts, scores = [], []
    for each in (model, Compiled(model, pool)):
        engine = LocalEngine(each, (), 300)
        texts.append([token.id for token in engine.stream(prompt, Sampling(max_tokens=30, temperature=0))])
        again = [token.id for token in engine.stream(prompt, Sampling(max_tokens=30, temperature=0))]
        assert again == texts[-1], "from what was kept"
        scores.append(torch.tensor(engine.score(prompt)))
        engine.embed(prompt)
    assert texts[0] == texts[1]
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)


def test_room_grows_and_pages_come_back(pool: Pool) -> None:
    compiled, ids = Compiled(built(max_position_embeddings=5000), pool), some_ids(40)
    wanted = compiled(ids, Causal(torch.arange(40)))
    gc.collect()
    free, pasts = len(compiled._free), []
    for _ in range(free // 2 + 2):  # two pages each: more than there are
        past = Cached()
        past.begin(39)
        compiled.read(ids[:39], past)
        pasts.append(past)
    for past in pasts:
        past.begin(1)
        assert torch.equal(compiled.read(ids[39:], past), wanted[39]), "what was there before the room grew is still there"
    pasts.clear()
    del past
    gc.collect()
    assert len(compiled._free) == compiled._room
    long = some_ids(1500)
    torch.testing.assert_close(compiled(long, Causal(torch.arange(1500)))[-1], plain(compiled.model, long)[-1], rtol=1e-3, atol=1e-3)


def test_several_threads_at_once(pool: Pool) -> None:
    compiled, ids = Compiled(built("q4_0"), pool), some_ids(100)
    wanted, wrong = compiled(ids, Causal(torch.arange(100))), []

    def read() -> None:
        past = Cached()
        for start in range(0, 100, 20):
            past.begin(20)
            if not torch.equal(compiled(ids[start : start + 20], past), wanted[start : start + 20]):
                wrong.append(start)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_other_pasts_are_the_models_own_business(pool: Pool) -> None:
    compiled, ids = Compiled(model := built(), pool), some_ids(8)
    two = torch.stack((ids, ids.flip(0)))
    for past, tokens in (
        (Causal(torch.arange(8).expand(2, 8)), two),
        (Causal(torch.tensor([0, 1, 2, 0, 1, 2, 3, 4]), torch.tensor([0] * 3 + [1] * 5)), ids),
        (Bidirectional(torch.arange(8)), ids),
    ):
        assert torch.equal(compiled(tokens, past), model(tokens, past))


def test_what_is_not_a_number_is_not_hidden(pool: Pool) -> None:
    model = built()
    model.blocks[1].feedforward.down.weight[3, 5] = float("nan")
    quantize.quantize(model, "q8_0")
    assert Compiled(model, pool)(some_ids(3), Causal(torch.arange(3))).isnan().any()


def test_pages_are_a_multiple_of_what_the_kernels_read() -> None:
    assert PAGE % 16 == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda model: model.double(), "float32"),
        (lambda model: setattr(model.blocks[0].mixer, "query", Beside(model.blocks[0].mixer.query)), "query"),
        (lambda model: quantize.quantize(model, "nf4"), "embedding"),
        (lambda model: model.blocks[1].register_parameter("sink", nn.Parameter(torch.zeros(4), requires_grad=False)), "blocks.1.sink"),
    ],
)
def test_what_the_library_does_not_have_is_named(change: object, named: str) -> None:
    model = built()
    change(model)  # type: ignore[operator]
    assert named in str(supports(model))
    assert supports(nn.Linear(2, 2)) is not None


def test_a_field_of_tomorrow_is_not_ignored() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(Shape):
        residual_multiplier: float = 1.0

    for value, fits in ((1.0, True), (0.5, False)):
        model = built()
        model.shape = Later(**{**SIZES, "max_position_embeddings": 300, "residual_multiplier": value})  # type: ignore[arg-type]
        assert (supports(model) is None) == fits


class Beside(nn.Linear):
    """A matrix with something beside it, as an adapter makes it."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__(inner.in_features, inner.out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias) * 2
