"""The n-gram model: a worked example, the laws of a probability, the plain twin, the seam, the file."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tsuzuri.errors import ConfigError, FormatError, InputError, MissingError, SpaceError, TsuzuriError
from tsuzuri.model.families._ngram_counts import FALLBACK, discounts
from tsuzuri.model.families.ngram import NgramModel, PlainNgram
from tsuzuri.model.past import Causal

TEXT = Path(__file__).parents[1] / "data" / "ryoriten.txt"  # 宮沢賢治「注文の多い料理店」, public domain, from 青空文庫
EXAMPLE = [[0, 1, 0, 1, 2], [0, 2]]


def arrays(documents: list[list[int]]) -> list[np.ndarray]:
    return [np.array(document, np.int32) for document in documents]


def corpus(seed: int, vocab_size: int, documents: int = 6, length: int = 40) -> list[list[int]]:
    """Ids with habits, so that every count from 1 upward occurs: each id is drawn near twice the one before it."""
    random = np.random.default_rng(seed)
    result = []
    for _ in range(documents):
        ids = [int(random.integers(vocab_size))]
        for _ in range(int(random.integers(length))):
            ids.append(int((2 * ids[-1] + random.geometric(0.6)) % vocab_size))
        result.append(ids)
    return result


# Bigrams of EXAMPLE (^ is the boundary): ^0 twice, 01 twice, 10, 12 and 02 once each.
# Different ids to the left of 0: {^, 1}, of 1: {0}, of 2: {1, 0}; so the unigram counts are 2, 1, 2 of 5.
# Nothing occurs three or four times, so the discounts are ½, 1, 1½.
#   p(0) = (2 - 1)/5 + (1 + ½ + 1)/5 · 1/3 = 11/30,  p(1) = (1 - ½)/5 + ½ · 1/3 = 8/30,  p(2) = 11/30
#   after 0 (01 twice, 02 once, of 3; taken 1 + ½): p(0|0) = ½ · 11/30, p(1|0) = 1/3 + ½ · 8/30, p(2|0) = ½/3 + ½ · 11/30
#   after 1 (10, 12, of 2; taken ½ + ½):           p(0|1) = ¼ + ½ · 11/30, p(1|1) = ½ · 8/30, p(2|1) = ¼ + ½ · 11/30
#   after ^ (^0 twice, of 2; taken 1):             p(0|^) = ½ + ½ · 11/30
#   after 2 nothing was read: p(0|2) = p(0)
WORKED = {(0, 0): 11 / 60, (0, 1): 28 / 60, (0, 2): 21 / 60, (1, 0): 26 / 60, (1, 1): 8 / 60, (1, 2): 26 / 60, (2, 0): 11 / 30}


@pytest.mark.parametrize(("pair", "expected"), WORKED.items())
def test_worked_example(pair: tuple[int, int], expected: float) -> None:
    model = NgramModel.fit(arrays(EXAMPLE), vocab_size=3, order=2)
    assert math.exp(model.score(np.array(pair))[1]) == pytest.approx(expected, abs=1e-12)
    assert PlainNgram(EXAMPLE, 3, 2).probability(pair[:1], pair[1]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_plain_count_at_the_start_of_a_document(order: int) -> None:
    """^0 has nothing to its left at any order: it keeps its count of 2, so p(0|^) stays ½ + ½ · 11/30."""
    assert math.exp(NgramModel.fit(arrays(EXAMPLE), 3, order).score(np.array([0]))[0]) == pytest.approx(41 / 60, abs=1e-12)


def test_discounts_worked() -> None:
    """n1 to n4 = 4, 2, 1, 1: Y = 4/8, D1 = 1 - 2·½·2/4 = ½, D2 = 2 - 3·½·1/2 = 5/4, D3+ = 3 - 4·½·1/1 = 1."""
    assert discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])) == pytest.approx((0.5, 1.25, 1.0))


@pytest.mark.parametrize(
    "counts",
    [
        [],
        [1, 1, 2, 4, 4],  # none of count 3
        [2, 3, 4],  # none of count 1
        [1, 1, 2, 2, 3, 4, 4, 4, 4],  # D3+ = 3 - 4·⅓·4/1 < 0
        [1, 2, 3, 3, 3, 3, 4],  # D2 = 2 - 3·⅓·4/1 < 0
        [1, 2, 2, 3, 3, 3, 3, 3, 4],  # D2 = 2 - 3·⅕·5/2 = ½ holds, D3+ = 3 - 4·⅕·1/5 holds: the control
    ],
)
def test_discounts_fall_back(counts: list[int]) -> None:
    control = len(counts) == 9 and counts[-2] == 3
    found = discounts(np.array(counts, np.int64))
    assert found == (pytest.approx((0.2, 0.5, 2.84)) if control else FALLBACK)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("boundary", [None, 4])
def test_probabilities_sum_to_one(order: int, boundary: int | None) -> None:
    """Law: over all V ids, after seen contexts, unseen ones, and the start of a document."""
    documents = corpus(1, 12)
    model = NgramModel.fit(arrays(documents), 12, order, boundary)
    random = np.random.default_rng(0)
    seen = [document[i : i + order - 1] for document in documents for i in range(len(document) - order + 2)]
    unseen = random.integers(0, 12, (50, order - 1))
    start = np.full((1, order - 1), -1)
    start[:, -1:] = 12 if boundary is None else boundary
    contexts = np.concatenate([np.array(seen, np.int64).reshape(len(seen), order - 1), unseen, start])
    p = model.distribution(contexts)
    assert p.shape == (len(contexts), 12)
    assert np.abs(p.sum(-1) - 1).max() < 1e-9
    assert p.min() > 0


@given(
    documents=st.lists(st.lists(st.integers(0, 4), max_size=25), min_size=1, max_size=5),
    order=st.integers(1, 5),
    boundary=st.sampled_from([None, 0, 3]),
    held=st.lists(st.integers(0, 4), max_size=10),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_plain_equals_fast(documents: list[list[int]], order: int, boundary: int | None, held: list[int]) -> None:
    if not any(documents):
        documents = [[0]]
    plain, fast = PlainNgram(documents, 5, order, boundary), NgramModel.fit(arrays(documents), 5, order, boundary)
    for text in [held, *documents]:
        expected = [plain.probability(text[:i], id) for i, id in enumerate(text)]
        assert np.exp(fast.score(np.array(text, np.int64))) == pytest.approx(expected, rel=1e-12)
    assert np.array(fast.discounts) == pytest.approx(np.array(plain.discounts))


@pytest.mark.parametrize("seed", range(3))
def test_plain_equals_fast_with_measured_discounts(seed: int) -> None:
    documents = corpus(seed, 20, documents=12, length=120)
    plain, fast = PlainNgram(documents, 20, 4), NgramModel.fit(arrays(documents), 20, 4)
    assert sum(taken != FALLBACK for taken in fast.discounts) >= 2  # else this repeats the test above
    text = corpus(seed + 10, 20, documents=1, length=60)[0]
    assert np.exp(fast.score(np.array(text))) == pytest.approx([plain.probability(text[:i], id) for i, id in enumerate(text)], rel=1e-12)


def test_nothing_is_counted_across_documents() -> None:
    """Law: the order of documents does not matter, and one stream cut by the boundary is as good as documents."""
    documents = [[*document, 7] for document in corpus(3, 7)]  # 7 ends every document
    apart = NgramModel.fit(arrays(documents), 8, 4, boundary=7)
    whole = [[id for document in documents for id in document]]
    text = np.array(documents[0])
    turned = NgramModel.fit(arrays(documents[::-1]), 8, 4, boundary=7)
    stream = NgramModel.fit(arrays(whole), 8, 4, boundary=7)
    assert turned.score(text) == pytest.approx(apart.score(text), abs=1e-12)
    assert stream.score(text) == pytest.approx(apart.score(text), abs=1e-12)
    joined = NgramModel.fit(arrays(whole), 8, 4)  # without a boundary the documents do run together
    assert abs(joined.score(text) - apart.score(text)).max() > 1e-3


def test_longer_contexts_predict_japanese_better() -> None:
    """On a real story by characters: each order up to 3 predicts the last fifth better than the one below."""
    text = TEXT.read_text(encoding="utf-8")
    known = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = np.array([known[character] for character in text])
    cut = len(ids) * 4 // 5
    nats = [-NgramModel.fit([ids[:cut]], len(known), order).score(ids[cut:]).mean() for order in (1, 2, 3)]
    assert nats[0] > nats[1] + 0.1
    assert nats[1] > nats[2] + 0.01
    assert nats[0] < math.log(len(known))


class Remembering:
    """A past of generation in the small: one sequence, its state kept between calls."""

    def __init__(self) -> None:
        self.positions = torch.zeros(1, dtype=torch.int64)
        self.state = None

    def recur(self, layer, inputs, scan):
        output, self.state = scan(inputs, self.state)
        return output


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_behind_the_seam(order: int) -> None:
    """Law: whole = in batch = packed = cached token by token = in stretches, and the logits are what `score` says."""
    documents = corpus(5, 9)
    model = NgramModel.fit(arrays(documents), 9, order)
    ids = torch.tensor([*documents[0][:3], *corpus(6, 9, documents=1, length=30)[0][:12], 0, 1, 2])
    other = torch.flip(ids, [0])
    time = torch.arange(len(ids))
    whole = model(ids, Causal(time))
    assert whole.shape == (len(ids), 9)
    assert whole.dtype == torch.float32
    scores = torch.from_numpy(model.score(ids.numpy())[1:]).float()
    torch.testing.assert_close(whole[:-1].gather(-1, ids[1:, None])[:, 0], scores)
    batch = model(torch.stack([other, ids]), Causal(time.expand(2, -1)))
    assert torch.equal(batch[1], whole)
    packed = model(torch.cat([other, ids])[None], Causal(torch.cat([time, time])[None], torch.tensor([[0] * len(ids) + [1] * len(ids)])))
    assert torch.equal(packed[0, len(ids) :], whole)
    for size in (1, 4):
        past = Remembering()
        assert torch.equal(torch.cat([model(part, past) for part in ids.split(size)]), whole)


def test_dense_table_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NgramModel.fit(arrays(corpus(5, 9)), 9, 3)
    ids = torch.tensor([0, 1, 2, 3, 4, 5, 6])
    whole = model(ids, Causal(torch.arange(7)))
    monkeypatch.setattr("tsuzuri.model.families.ngram.CHUNK", 20)
    assert torch.equal(model(ids, Causal(torch.arange(7))), whole)


@pytest.mark.parametrize("boundary", [None, 2])
def test_saved_and_loaded_is_the_same(tmp_path: Path, boundary: int | None) -> None:
    model = NgramModel.fit(arrays(corpus(7, 11)), 11, 4, boundary)
    model.save(tmp_path / "new" / "model")
    again = NgramModel.load(tmp_path / "new" / "model")
    text = np.array(corpus(8, 11, documents=1)[0])
    assert np.array_equal(again.score(text), model.score(text))
    assert (again.vocab_size, again.order, again.boundary, again.discounts) == (11, 4, boundary, model.discounts)
    assert sorted(path.name for path in (tmp_path / "new" / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_orders_longer_than_any_document(tmp_path: Path) -> None:
    model = NgramModel.fit(arrays([[1], [], [0]]), 3, 5)
    model.save(tmp_path)
    assert np.exp(NgramModel.load(tmp_path).score(np.array([1, 1, 2]))).min() > 0
    assert np.abs(model.distribution(np.array([[0, 1, 2, 0]])).sum() - 1) < 1e-12


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    NgramModel.fit(arrays(corpus(7, 11)), 11, 3, boundary=0).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_truncated_file(saved: Path, name: str, share: float) -> None:
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FormatError, match=name):
        NgramModel.load(saved)


def test_header_that_claims_more_than_the_file(saved: Path) -> None:
    path = saved / "model.safetensors"
    path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(FormatError):
        NgramModel.load(saved)


def damage(tensors: dict[str, np.ndarray], kind: str) -> None:
    if kind == "unsorted":
        tensors["order.2.keys"][:2] = tensors["order.2.keys"][1::-1].copy()
    elif kind == "outside":
        tensors["order.3.keys"][-1] = len(tensors["order.2.keys"]) * 12
    elif kind == "negative":
        tensors["order.3.keys"][0] = -1
    elif kind == "nan":
        tensors["order.3.probability"][0] = np.nan
    elif kind == "above one":
        tensors["order.2.backoff"][0] = 1.5
    elif kind == "short":
        tensors["order.2.probability"] = tensors["order.2.probability"][:-1]
    elif kind == "type":
        tensors["order.1.probability"] = tensors["order.1.probability"].astype(np.float32)
    elif kind == "vocabulary":
        for name in ("keys", "probability", "backoff"):
            tensors[f"order.1.{name}"] = tensors[f"order.1.{name}"][:-1]
    elif kind == "missing":
        del tensors["order.3.keys"]
    else:
        tensors["order.4.keys"] = tensors["order.3.keys"]


KINDS = ["unsorted", "outside", "negative", "nan", "above one", "short", "type", "vocabulary", "missing", "extra"]


@pytest.mark.parametrize("kind", KINDS)
def test_tables_that_break_their_promise(saved: Path, kind: str) -> None:
    tensors = dict(load_file(saved / "model.safetensors"))
    damage(tensors, kind)
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(FormatError):
        NgramModel.load(saved)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model_type": "llama"}, ConfigError),
        ({"order": 0}, ConfigError),
        ({"order": 2}, FormatError),
        ({"order": "3"}, ConfigError),
        ({"vocab_size": 10**12}, ConfigError),
        ({"vocab_size": 12}, FormatError),
        ({"boundary": 11}, ConfigError),
        ({"smoothing": "none"}, ConfigError),
        ({"discounts": [[0.5, 1.0]] * 3}, FormatError),
        ({"discounts": [[0.5, 1.0, 1.5]] * 2}, FormatError),
    ],
)
def test_config_that_cannot_be(saved: Path, change: dict[str, object], error: type[TsuzuriError]) -> None:
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error):
        NgramModel.load(saved)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"config\.json"):
        NgramModel.load(tmp_path)


def test_nowhere_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpaceError):
        NgramModel.fit(arrays(EXAMPLE), 3, 2).save(tmp_path / "file")


@pytest.mark.parametrize("ids", [[0, 3], [-1], [[0, 1]], [0.5]])
def test_ids_outside_the_vocabulary(ids: list[object]) -> None:
    with pytest.raises(InputError, match="3"):
        NgramModel.fit([np.array(ids)], 3)
    with pytest.raises(InputError):
        NgramModel.fit(arrays(EXAMPLE), 3).score(np.array(ids))


@pytest.mark.parametrize("documents", [[], [[]]])
def test_no_text(documents: list[list[int]]) -> None:
    with pytest.raises(InputError):
        NgramModel.fit(arrays(documents), 3)


@pytest.mark.parametrize(("vocab_size", "order", "boundary"), [(0, 2, None), (3, 0, None), (3, 65, None), (3, 2, 3), (3, 2, -1)])
def test_impossible_shape(vocab_size: int, order: int, boundary: int | None) -> None:
    with pytest.raises(ConfigError):
        NgramModel.fit(arrays(EXAMPLE), vocab_size, order, boundary)
