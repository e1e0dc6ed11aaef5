"""Laws of the compiled step: the same logits as the model, bit for bit the same however the tokens come, and honest refusals."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tsuzuri.engine.cache import Cached
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.paged import Paged, Part, Place
from tsuzuri.engine.sampling import Sampling
from tsuzuri.folder import find, names
from tsuzuri.model import weights
from tsuzuri.model._compilable import LAYERS
from tsuzuri.model.adapt import quantize
from tsuzuri.model.compiled import PAGE, Compiled, made, supports
from tsuzuri.model.parts.rotary import Scaling
from tsuzuri.model.past import Bidirectional, Causal, Naive, Recorded
from tsuzuri.model.transformer import Shape, Transformer
from tsuzuri.native import library
from tsuzuri.native.program import Pool

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_open_folders import of_kind, usual

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
    {"block": "parallel", "partial_rotary_factor": 0.5, "norm": "layer_norm", "attention_bias": True, "head_bias": True},
    {"block": "parallel_one_norm", "num_key_value_heads": 1, "norm": "layer_norm_scale", "tie_word_embeddings": True, "head_bias": True},
    {"block": "sandwich", "norm": "rms_norm_offset", "qk_norm": "head", "embedding_multiplier": None, "attn_logit_softcapping": 2.0},
    {"block": "sandwich", "sliding_window": 9, "layer_types": ("sliding_attention", "full_attention"), "rope_local_theta": 100.0},
    {"block": "reordered_norm", "qk_norm": "token", "num_key_value_heads": 2, "final_logit_softcapping": 0.5},
    {"block": "reordered_norm", "qk_norm": "token", "norm": "layer_norm", "attention_scale": 0.4, "logit_multiplier": 0.3},
    {"block": "post_norm", "norm": "layer_norm", "feedforward": "plain", "hidden_act": "gelu_pytorch_tanh", "position": "learned"},
    {"block": "pre_norm_but_first", "embedding_norm": True, "attention": "attention_by_depth", "hidden_act": "gelu"},
    {"position": "sinusoidal_halves", "feedforward": None, "block": "parallel", "embedding_multiplier": 3.25},
    {"rope_scaling": Scaling(rope_type="linear", factor=2.0)},
    {"rope_scaling": Scaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=75, attention_factor=1.2)},
]
COMPUTED = {  # families whose usual shape the library has; the others it refuses
    "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "olmo2", "openai_gpt", "palm", "phi3", "qwen2",
    "qwen3", "tsuzuri",
}  # fmt: skip
ITS_OWN = {"bamba": {"layer_types": ("mamba2", "full_attention")}}  # what makes it that family, where the usual small shape lacks it
FAMILIES = [name for name in names(weights.FAMILIES) if hasattr(find(weights.FAMILIES, name), "names")]
REFUSED = {"bare", "experts", "relative", "alibi_bfloat16", "mamba2", "rnn", "lstm", "gru"}  # parts
NOISE = {None: 1e-5, "bf16": 1e-5, "q8_0": 0.03, "q4_0": 0.03}  # of the logits' deviation: 8-bit activations and bfloat16 keys


@pytest.fixture(scope="module")
def pool(native: library.Library) -> Pool:
    return Pool(native, 2)


def built(form: str | None = None, **choices: object) -> Transformer:
    shape = Shape(**{**SIZES, "max_position_embeddings": 300, **choices})  # type: ignore[arg-type]
    model = Transformer(shape)
    randomise(model)
    if form == "bf16":
        return model.bfloat16()
    if form:
        quantize.quantize(model, form)
    return model


def randomise(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for weight in model.requires_grad_(False).parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=generator)


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
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_computed_or_refused(pool: Pool, name: str, form: str | None) -> None:
    """What is refused is answered by the model itself; a new family has to say here which of the two it is."""
    family = find(weights.FAMILIES, name)
    sizes = {**SIZES, "intermediate_size": 256, "max_position_embeddings": 150}
    model: Any = weights.build(family, usual(family, **{**sizes, **family.USUAL, **ITS_OWN.get(name, {})}))
    randomise(model)
    if form in quantize.BITS and name != "hmm":
        quantize.quantize(model, form)
    elif form is not None:
        model.bfloat16()
    assert (supports(model) is None) == (name in COMPUTED), supports(model)
    assert (made(model, 1) is None) == (name not in COMPUTED)
    if name in COMPUTED:
        same(Compiled(model, pool), model, NOISE[form])


def same(compiled: Compiled, model: Transformer, noise: float, count: int = 150) -> None:
    """All tokens at once, and cut into calls, one of them a single token."""
    ids, past, rows = some_ids(count), Cached(), []
    found, hidden = (each(ids, Causal(torch.arange(count))) for each in (compiled, compiled.hidden))
    for part in ids.split([count // 2, 1, count - count // 2 - 1]):
        past.begin(len(part))
        rows.append(compiled(part, past))
    assert torch.equal(torch.cat(rows), found)
    wanted = plain(model, ids)
    assert float((found - wanted).std() / wanted.std()) < noise
    wanted = model.hidden(ids, Causal(torch.arange(count)))
    assert float((hidden - wanted).std() / wanted.std()) < noise


@pytest.mark.parametrize("block", of_kind("block"))
@pytest.mark.parametrize("norm", of_kind("norm"))
def test_every_combination_of_parts_is_computed_or_refused(pool: Pool, block: str, norm: str) -> None:
    choices = [*itertools.product(of_kind("feedforward"), of_kind("position"), ["attention"])]
    for feedforward, position, attention in [*choices, *itertools.product(["gated"], ["rotary"], of_kind("mixer"))]:
        model = built(block=block, norm=norm, feedforward=feedforward, position=position, attention=attention, max_position_embeddings=40)
        chosen = {block, feedforward, position, attention}
        assert (supports(model) is None) == (not chosen & REFUSED), chosen
        if not chosen & REFUSED:
            same(Compiled(model, pool), model, NOISE[None], 40)


def test_the_factor_of_embeddings_is_rounded_as_the_weights_are(pool: Pool) -> None:
    model = built("bf16", hidden_size=40, embedding_multiplier=None)
    compiled, ids = Compiled(model, pool), some_ids(20)
    found = compiled(ids, Causal(torch.arange(20)))
    rounded = built("bf16", hidden_size=40, embedding_multiplier=float(torch.tensor(40.0).sqrt().bfloat16()))
    wanted, wide = plain(rounded, ids), plain(model, ids)
    assert float((found - wanted).std() / wanted.std()) < NOISE["bf16"] < float((found - wide).std() / wide.std())


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("hidden_act", {"hidden_act": "relu", "feedforward": "plain"}),
        ("hidden_act", {"hidden_act": "relu2"}),
        ("qk_norm", {"qk_norm": "head", "norm": "layer_norm"}),
        ("causal", {"causal": False}),
        ("cross_attention", {"cross_attention": True}),
        ("type_vocab_size", {"type_vocab_size": 2}),
        ("head", {"head": "masked"}),
        ("mamba2", {"layer_types": ("full_attention", "mamba2")}),
        ("rope_scaling", {"rope_scaling": Scaling(rope_type="dynamic", factor=2.0, original_max_position_embeddings=75)}),
        ("layers", {"num_hidden_layers": 500, "hidden_size": 8, "intermediate_size": 8, "vocab_size": 8}),
    ],
)
def test_a_choice_that_it_does_not_compute_is_named(field: str, choices: dict[str, object]) -> None:
    found = str(supports(built(**choices)))
    assert (str(LAYERS) if field == "layers" else field) in found


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


@pytest.mark.parametrize("tied", [True, False])
def test_an_8_bit_head_adds_no_noise_of_its_own(pool: Pool, tied: bool) -> None:
    """Its inputs have 16 bits: the logits are those of its weights on the hidden states themselves, but for half a 254th of a step of 8
    bits an input, which is what is left over at most."""
    model, ids = built("q8_0", tie_word_embeddings=tied), some_ids(60)
    compiled = Compiled(model, pool, kept=torch.float32)
    past = Causal(torch.arange(60))
    hidden, logits = compiled.hidden(ids, past), compiled(ids, past)
    half = hidden.unflatten(-1, (-1, 32)).abs().amax(-1, keepdim=True).expand(-1, -1, 32).flatten(-2) / 127 / 254 / 2  # (60, D)
    most = half @ model.logits(torch.eye(hidden.shape[1])).abs()
    assert bool(((logits - model.logits(hidden)).abs() <= most + 1e-6).all())
    assert float(most.max()) < float(logits.std()) / 200


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
        (Causal(torch.arange(5, 13)), ids),
        (Causal(torch.arange(8) * 2), ids),
        (Naive(torch.arange(8)), ids),
    ):
        assert torch.equal(compiled(tokens, past), model(tokens, past))
    recorded = Recorded(torch.arange(8), causal=True)
    compiled(ids, recorded)
    assert len(recorded.kept) == 2, "what looks inside finds something there"


def test_several_sequences_that_look_like_one_are_not_taken_for_it(pool: Pool) -> None:
    """Places 3 and 4, of two sequences."""
    compiled, ids = Compiled(model := built(), pool), some_ids(9)
    rows = []
    for each in (compiled, model):
        past, places = Paged(4, 16), [Place(16, [0]), Place(16, [1])]
        past.begin([Part(places[0], 0, 3), Part(places[1], 0, 4)])
        each(ids[:7], past)
        past.begin([Part(places[0], 3, 1), Part(places[1], 4, 1)])
        rows.append(each(ids[7:], past))
    assert torch.equal(*rows)


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
