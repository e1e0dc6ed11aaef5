"""What every family with a reference in transformers has to show: one function, called by a test file a family.

A tiny model with random weights is saved by transformers. It loads here and gives the same logits and the same greedy text;
saved here it loads there and gives the same again; cut into calls, and beside another text in pages, it is the same as whole; in a
padded batch every row is as it is alone. In float64, with the reference kept from rounding to float32 on the way, the two agree to the last digits.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tsuzuri.engine.cache import Cached
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.paged import Paged, Part, Place
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import ConfigError, FormatError
from tsuzuri.model import weights
from tsuzuri.model.past import Bidirectional, Causal, Memory
from tsuzuri.model.pooling import classified
from tsuzuri.model.transformer import Shape

LENGTH, GREEDY = 23, 32
RELATIVE = 1e-5  # of the largest logit, float32
RELATIVE_WIDE = 1e-12  # float64 throughout


class Wide(TorchFunctionMode):
    """Everything in float64, also what the reference would round to float32 on the way: norms, angles, softmax."""

    def __enter__(self) -> Wide:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_default_dtype(self.before)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.float:
            return args[0].double()
        wider = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return function(*(torch.float64 if value is torch.float32 else value for value in args), **wider)


def saved(model_class: type, config: Any, directory: Path, *, dtype: torch.dtype = torch.float32, std: float = 0.2) -> Any:
    """A reference model, every weight random (norms around one), in a directory."""
    torch.manual_seed(5)
    model = model_class(config).eval().to(dtype)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not weight.requires_grad:  # a table that follows from the config
                continue
            weight.normal_(std=std)
            if weight.dim() == 1 and "norm" in name.lower() and name.endswith("weight"):
                weight.add_(1)
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer.normal_()
    model.generation_config = transformers.GenerationConfig()
    model.save_pretrained(directory)
    return model


def tokens(vocabulary: int, count: int = LENGTH, seed: int = 1) -> Tensor:
    return torch.randint(3, vocabulary, (count,), generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Tensor, relative: float = RELATIVE) -> None:
    """Largest difference at most `relative` × the largest logit."""
    assert found.dtype == expected.dtype
    assert expected.isfinite().all() and float(expected.std()) > 0
    assert float((found - expected).abs().max()) <= relative * float(expected.abs().max())


def logits(model: Any, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(ids, Causal(torch.arange(ids.shape[-1]).expand(ids.shape)))


@torch.inference_mode()
def parity(reference: Any, directory: Path, back: Path, *, length: int = LENGTH, greedy: int = GREEDY, cached: bool = True) -> None:
    """All of the above for a causal model; `back` is an empty directory to write to. `cached` False: the reference reads the whole
    text for each token, where what it keeps between tokens gives something else than the text at once."""
    ids = tokens(reference.config.vocab_size, length)
    expected = reference(ids[None]).logits[0]
    model = weights.load(directory)
    close(logits(model, ids), expected)
    written_and_read_there(reference, model, directory, back, ids, expected)
    cut_is_whole(model, ids)
    paged_is_whole(model, ids)
    padded_is_alone(reference, model, ids)
    assert greedy_here(model, ids, greedy) == greedy_there(reference, ids, greedy, cached)
    with Wide():
        wide = type(reference)(reference.config).eval().double()
        wide.load_state_dict(reference.state_dict())
        widest = wide(ids[None]).logits[0]  # Mamba-2 hands out float32 whatever it is given
        close(logits(model.double(), ids), widest.double(), RELATIVE_WIDE)


def written_and_read_there(reference: Any, model: Any, directory: Path, back: Path, ids: Tensor, expected: Tensor) -> None:
    weights.save(model, back, weights.family_of(directory).MODEL_TYPE)
    again = type(reference).from_pretrained(back).eval()
    close(again(ids[None]).logits[0], expected)
    assert torch.equal(logits(weights.load(back), ids), logits(model, ids))


def cut_is_whole(model: Any, ids: Tensor) -> None:
    """One token at a time, and in stretches, with what the engine keeps."""
    expected = logits(model, ids)
    for size in (1, 7):
        past, found = Cached(bound=len(ids)), []
        for part in ids.split(size):
            past.begin(len(part))
            found.append(model(part, past))
        close(torch.cat(found), expected)


def paged_is_whole(model: Any, ids: Tensor) -> None:
    """Beside another text, in pages that take turns."""
    texts = ids, ids[3 : 3 + len(ids) // 2]
    found = paged(model, texts, [Place(len(text)) for text in texts])
    for text, each in zip(texts, found, strict=True):
        close(each, logits(model, text))


def paged(model: Any, texts: Sequence[Tensor], places: Sequence[Place], size: int = 4) -> list[Tensor]:
    """Logits (T, V) of each text: all read side by side, each in stretches of its own length."""
    count, most = len(texts), -(-max(map(len, texts)) // size)
    past = Paged(count * most, size)
    found: list[list[Tensor]] = [[] for _ in texts]
    for row, place in enumerate(places):
        place.pages = [*range(row, count * most, count)]
    for step in itertools.zip_longest(*(text.split(7 - 2 * row) for row, text in enumerate(texts))):
        there = [(row, piece) for row, piece in enumerate(step) if piece is not None]
        past.begin([Part(places[row], sum(map(len, found[row])), len(piece)) for row, piece in there])
        read = model(torch.cat([piece for _, piece in there]), past)
        for (row, _), each in zip(there, read.split([len(piece) for _, piece in there]), strict=True):
            found[row].append(each)
    return [torch.cat(each) for each in found]


def padded_is_alone(reference: Any, model: Any, ids: Tensor) -> None:
    """Two rows, the second shorter and padded on the right: padding is a document of its own."""
    short = len(ids) // 2
    batch = torch.stack([ids, torch.cat([ids[5 : 5 + short], ids.new_zeros(len(ids) - short)])])
    there = torch.ones_like(batch)
    there[1, short:] = 0
    positions = torch.arange(len(ids)).expand(2, -1)
    found = model(batch, Causal(positions, 1 - there))
    expected = reference(batch, attention_mask=there).logits
    close(found[0], expected[0])
    close(found[1, :short], expected[1, :short])
    close(found[1, :short], logits(model, batch[1, :short]))


def greedy_here(model: Any, ids: Tensor, count: int, penalty: float = 1.0) -> list[int]:
    engine = LocalEngine(model, [], model.context_length)
    sampling = Sampling(temperature=0, max_tokens=count, repetition_penalty=penalty)
    return [token.id for token in engine.stream(ids.tolist(), sampling)]


def greedy_there(reference: Any, ids: Tensor, count: int, cached: bool = True) -> list[int]:
    settings = transformers.GenerationConfig(
        max_new_tokens=count, min_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0, bos_token_id=None, use_cache=cached
    )
    found = reference.generate(ids[None], attention_mask=torch.ones_like(ids)[None], generation_config=settings)
    return found[0, len(ids) :].tolist()


def pair_logits(model: Any, source: Tensor, target: Tensor) -> Tensor:
    """Logits of a target (..., T) given its source (..., S)."""
    with torch.inference_mode():
        states = model.encode(source, Bidirectional(torch.arange(source.shape[-1]).expand(source.shape)))
        return model(target, Causal(torch.arange(target.shape[-1]).expand(target.shape), memory=Memory(states)))


@torch.inference_mode()
def pair_parity(
    reference: Any,
    directory: Path,
    back: Path,
    *,
    length: int = LENGTH,
    greedy: int = GREEDY,
    widen: Callable[[Any], None] = lambda _: None,
) -> None:
    """What `parity` shows, for an encoder-decoder: a source is encoded, a target decoded. `widen` makes the float64 reference
    compute in float64 where it would round to float32 on the way."""
    target = tokens(
        reference.get_decoder().config.vocab_size if _one_vocabulary(reference) else reference.config.decoder_vocab_size, length
    )
    source = tokens(reference.config.vocab_size, length + 6, seed=2)
    expected = reference(source[None], decoder_input_ids=target[None]).logits[0]
    model = weights.load(directory)
    close(pair_logits(model, source, target), expected)
    weights.save(model, back, weights.family_of(directory).MODEL_TYPE)
    again = type(reference).from_pretrained(back).eval()
    close(again(source[None], decoder_input_ids=target[None]).logits[0], expected)
    assert torch.equal(pair_logits(weights.load(back), source, target), pair_logits(model, source, target))
    pair_cut_is_whole(model, source, target)
    pair_paged_is_whole(model, source, target)
    pair_padded_is_alone(reference, model, source, target)
    for penalty in (1.0, 5.0):  # with tied random weights the likeliest token is the one just written, unless that costs
        found = greedy_here(model, source, greedy, penalty)
        assert found == pair_greedy_there(reference, source, greedy, model.shape.decoder_start_token_id, penalty)
    assert len(set(found)) > 4
    wide = copy.deepcopy(reference).double()
    widen(wide)
    close(pair_logits(model.double(), source, target), wide(source[None], decoder_input_ids=target[None]).logits[0], RELATIVE_WIDE)


def _one_vocabulary(reference: Any) -> bool:
    return getattr(reference.config, "share_encoder_decoder_embeddings", True)


def pair_cut_is_whole(model: Any, source: Tensor, target: Tensor) -> None:
    """The target one token at a time, and in stretches, with what the engine keeps of both texts."""
    expected = pair_logits(model, source, target)
    states = model.encode(source, Bidirectional(torch.arange(len(source))))
    for size in (1, 7):
        past, found = Cached(), []
        past.remember(states)
        for part in target.split(size):
            past.begin(len(part))
            found.append(model(part, past))
        close(torch.cat(found), expected)


def pair_paged_is_whole(model: Any, source: Tensor, target: Tensor) -> None:
    """Beside another pair, in pages that take turns, each looking at its own source."""
    pairs = (source, target), (source[4:], target[3 : 3 + len(target) // 2])
    places = []
    for read, written in pairs:
        states = model.encode(read, Bidirectional(torch.arange(len(read))))
        places.append(Place(len(written), memory=states))
    found = paged(model, [written for _, written in pairs], places)
    for (read, written), each in zip(pairs, found, strict=True):
        close(each, pair_logits(model, read, written))


def pair_padded_is_alone(reference: Any, model: Any, source: Tensor, target: Tensor) -> None:
    """Two pairs in a batch, source and target of the second shorter and padded on the right."""
    sources, source_there = _padded(source, len(source) // 2)
    targets, target_there = _padded(target, len(target) // 3)
    rows = torch.arange(len(source)).expand(2, -1), torch.arange(len(target)).expand(2, -1)
    states = model.encode(sources, Bidirectional(rows[0], 1 - source_there))
    found = model(targets, Causal(rows[1], 1 - target_there, memory=Memory(states, 1 - source_there)))
    expected = reference(sources, attention_mask=source_there, decoder_input_ids=targets, decoder_attention_mask=target_there).logits
    short = len(target) // 3
    close(found[0], expected[0])
    close(found[1, :short], expected[1, :short])
    close(found[1, :short], pair_logits(model, sources[1, : len(source) // 2], targets[1, :short]))


def _padded(ids: Tensor, short: int) -> tuple[Tensor, Tensor]:
    """The ids, and `short` of them padded to the same length; 1 where a token is."""
    batch = torch.stack([ids, torch.cat([ids[2 : 2 + short], ids.new_zeros(len(ids) - short)])])
    there = torch.ones_like(batch)
    there[1, short:] = 0
    return batch, there


def pair_greedy_there(reference: Any, source: Tensor, count: int, start: int, penalty: float) -> list[int]:
    settings = transformers.GenerationConfig(
        max_new_tokens=count, min_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0, decoder_start_token_id=start,
        repetition_penalty=penalty,
        use_cache=False,  # its cache counts the layers of the encoder and fails where the decoder is deeper
    )  # fmt: skip
    found = reference.generate(source[None], attention_mask=torch.ones_like(source)[None], generation_config=settings)
    return found[0, 1:].tolist()


def refuses(directory: Path, change: dict[str, Any]) -> str:
    """What is said of a config.json with these fields changed; it has to be refused by name."""
    path = directory / "config.json"
    before = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(before) | change), encoding="utf-8")
    try:
        with pytest.raises(ConfigError) as caught:
            weights.load(directory)
    finally:
        path.write_text(before, encoding="utf-8")
    assert any(name in str(caught.value) for name in (*change, "rope_scaling"))
    return str(caught.value)


def rewrite(directory: Path, change: dict[str, Any]) -> None:
    """config.json with these fields changed."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")


def as_on_the_hub(directory: Path, prefix: str, extra: list[str]) -> None:
    """The weights as early versions saved them: where a prefix is given without the prefix of the whole model, and with masks nobody reads."""
    path = directory / weights.WEIGHTS
    found = {name.removeprefix(prefix): value.clone() for name, value in load_file(path).items()}
    save_file({**found, **{name: torch.ones(3) for name in extra}}, path)


def repeat(directory: Path, name: str, other: str) -> None:
    """One weight a second time, under another name."""
    path = directory / weights.WEIGHTS
    found = {name: value.clone() for name, value in load_file(path).items()}
    save_file({**found, other: found[name].clone()}, path)


def same(reference: Any, directory: Path) -> None:
    """The directory still holds that reference model."""
    ids = tokens(reference.config.vocab_size)
    with torch.inference_mode():
        close(logits(weights.load(directory), ids), reference(ids[None]).logits[0])


def refuses_weight(directory: Path, name: str) -> None:
    """A weight of that name is not passed over."""
    path = directory / weights.WEIGHTS
    save_file({**{name: value.clone() for name, value in load_file(path).items()}, name: torch.ones(3)}, path)
    with pytest.raises(FormatError, match=re.escape(name)):
        weights.load(directory)


def reads_its_default(family: ModuleType, config: Any) -> None:
    """The plain config of the class, with every field written out and with only those that differ from the default."""
    for short in (True, False):
        shape = family.shape(json.loads(config.to_json_string(use_diff=short)))
        assert shape.vocab_size == config.vocab_size and shape.num_hidden_layers == config.num_hidden_layers
        assert family.shape(family.config(shape)).head_size == shape.head_size


def cannot_say(family: ModuleType, choices: dict[str, Any]) -> None:
    """Such a shape is not written as this family; the error names one of the fields."""
    small = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with pytest.raises(ConfigError) as caught:
        family.config(Shape(**{**small, **family.USUAL, **choices}))
    assert any(name in str(caught.value) for name in choices)


def learns(family: ModuleType) -> None:
    """Forty steps on one text halve its loss, every weight taking part."""
    small = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = weights.build(family, Shape(**{**small, "max_position_embeddings": 32, **family.USUAL})).initialise(1)
    ids, past, losses = tokens(20, 33), Causal(torch.arange(32)), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(ids[:-1], past), ids[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    assert [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])] == []


# ── encoders


def encoded(model: Any, ids: Tensor, segments: Tensor | None = None) -> Tensor:
    """(T,) or (B, T) -> what the head gives at every token."""
    with torch.inference_mode():
        return model(ids, Bidirectional(torch.arange(ids.shape[-1]).expand(ids.shape), segments=segments))


def result(model: Any, **inputs: Any) -> Tensor:
    """What the reference's head gives, whatever it calls it: (B, labels) or (B, T, …)."""
    found = model(**inputs)
    if hasattr(found, "start_logits"):
        return torch.stack((found.start_logits, found.end_logits), -1)
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


def read(model: Any, ids: Tensor, past: Bidirectional) -> Tensor:
    """The same of ours."""
    return classified(model, ids, past) if model.shape.head == "classify" else model(ids, past)


@torch.inference_mode()
def encoder_parity(reference: Any, directory: Path, back: Path, *, length: int = LENGTH) -> None:
    """Every head of an encoder: alone, in a padded batch with two segments, written and read there, and in float64."""
    reference.config.architectures = [type(reference).__name__]
    ids = tokens(reference.config.vocab_size, length)
    short = length // 2
    batch = torch.stack([ids, torch.cat([ids[5 : 5 + short], ids.new_full((length - short,), reference.config.pad_token_id)])])
    there = torch.ones_like(batch)
    there[1, short:] = 0
    second = (torch.arange(length) > 6).long().expand(2, -1)  # the second segment
    types = {"token_type_ids": second} if getattr(reference.config, "type_vocab_size", 1) > 1 else {}
    expected = result(reference, input_ids=batch, attention_mask=there, **types)
    model = weights.load(directory)

    def past(segments: Tensor | None = second if types else None) -> Bidirectional:
        return Bidirectional(torch.arange(length).expand(2, -1), 1 - there, segments=segments)

    found = read(model, batch, past())
    rows = [(0, length), (1, short)]
    for row, count in rows:
        each = slice(None) if found.dim() == 2 else slice(count)
        close(found[row][each], expected[row][each])
        close(read(model, batch[row : row + 1, :count], _alone(count, past().segments))[0], expected[row][each])
    weights.save(model, back, weights.family_of(directory).MODEL_TYPE)
    again, said = type(reference).from_pretrained(back, output_loading_info=True)
    unneeded = ("pooler.dense.weight", "pooler.dense.bias", "predictions.bias", "lm_head.bias")  # where the result does not need them
    assert not [name for name in said["missing_keys"] if not name.endswith(unneeded)], said
    assert not said["unexpected_keys"], said
    close(result(again.eval(), input_ids=batch, attention_mask=there, **types)[0], expected[0])
    assert again.config.id2label == reference.config.id2label
    assert torch.equal(read(weights.load(back), batch, past()), found)
    with Wide():
        wide = type(reference)(reference.config).eval().double()
        wide.load_state_dict(reference.state_dict())
        expected = result(wide, input_ids=ids[None])[0]
        close(read(model.double(), ids[None], _alone(length, None))[0], expected, RELATIVE_WIDE)


def _alone(length: int, segments: Tensor | None) -> Bidirectional:
    return Bidirectional(torch.arange(length)[None], segments=None if segments is None else segments[:1, :length])
