"""Hand a model over to other software, and prove it: write, read back what was written, compare, write the difference down.

In: a model directory. Out: a directory in Hugging Face's layout, or one with a GGUF file, each with a model card that says how far
its logits and a greedy transcript are from the model as it was. Above the tolerance nothing is left behind but the error.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from tsuzuri import __version__, device
from tsuzuri import directory as directories
from tsuzuri.chat import template
from tsuzuri.errors import ConfigError, FormatError, Words
from tsuzuri.model import gguf, gguf_models, weights
from tsuzuri.model.adapt import lora
from tsuzuri.model.past import Bidirectional, Causal
from tsuzuri.model.transformer import Transformer
from tsuzuri.text import fast, gguf_vocabulary

Format: TypeAlias = Literal["hf", "gguf", "peft"]
STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KINDS = tuple(gguf.TYPES)
# Largest mean divergence (nats a token) from the model as it was, by what it is rounded to; what is not rounded has to be the same.
TOLERANCE = {"adapter": 1e-2, "float16": 1e-3, "bfloat16": 1e-2, "f16": 1e-3, "bf16": 1e-2, "q8_0": 1e-2, "q4_0": 0.5}
EXTRAS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", "data_manifest.json")
ENDS = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}  # GGUF's name -> that of generation_config.json
PROBE = "この法律は、国民の生活の安定と福祉の向上に寄与することを目的とする。吾輩は猫である。名前はまだ無い。"
TRANSCRIPT = 32  # greedy tokens
DRAWN = 64  # random ids, beside the text


@dataclass(frozen=True, slots=True)
class Difference:
    """Between a model as it was and as it was read back, over a Japanese text and random ids."""

    logits: float  # largest |Δ|
    divergence: float  # mean Kullback–Leibler divergence of the next-token distributions, nats
    agreement: float  # share of places at which the most probable token is the same
    transcript: int  # of TRANSCRIPT greedy tokens, how many are the same from the start

    @property
    def says(self) -> str:
        return f"max |Δlogit| {self.logits:.3g}, KL {self.divergence:.3g} nats, top-1 {self.agreement:.1%}, greedy {self.transcript}/{TRANSCRIPT}"


@torch.inference_mode()
def difference(model: Any, again: Any, ids: Sequence[int]) -> Difference:
    """`again` against `model`; both answer `model(tokens, past)`. `ids`: a text in their own vocabulary."""
    drawn = torch.randint(model.vocab_size, (DRAWN,), generator=torch.Generator().manual_seed(0))
    rows = [drawn, *([torch.tensor(ids)] if ids else [])]
    one, other = (torch.cat([logits(each, row).double() for row in rows]) for each in (model, again))
    p, q = one.log_softmax(-1), other.log_softmax(-1)
    divergence = float((p.exp() * (p - q)).sum(-1).mean())
    same = float((one.argmax(-1) == other.argmax(-1)).double().mean())
    start = list(ids) or drawn.tolist()
    pairs = zip(greedy(model, start), greedy(again, start), strict=True) if causal(model) else ()
    matched = next((n for n, (a, b) in enumerate(pairs) if a != b), TRANSCRIPT if causal(model) else 0)
    return Difference(float((one - other).abs().max()), 0.0 if torch.equal(one, other) else divergence, same, matched)


def causal(model: Any) -> bool:
    return bool(getattr(getattr(model, "shape", None), "causal", True))


def logits(model: Any, ids: Tensor) -> Tensor:
    """(T,) -> (T, V) or (T, labels), in float32, at most as many as the model can read"""
    ids = ids[: model.context_length]
    past = (Causal if causal(model) else Bidirectional)(torch.arange(len(ids)))
    return model(ids, past).float()  # type: ignore[no-any-return]


def greedy(model: Any, ids: Sequence[int]) -> list[int]:
    """TRANSCRIPT tokens, the whole text computed anew for each: nothing that is kept can hide a difference."""
    text = list(ids[: max(1, model.context_length - TRANSCRIPT)])
    for _ in range(TRANSCRIPT):
        text.append(int(logits(model, torch.tensor(text))[-1].argmax()) if len(text) < model.context_length else 0)
    return text[-TRANSCRIPT:]


@dataclass(frozen=True, slots=True)
class Handed:
    """What was written and how it was checked."""

    directory: str
    format: Format
    stored: str
    bytes: int
    difference: Difference
    tensors: Mapping[str, int]  # type -> how many; of a GGUF file

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def write(
    source: Path,
    target: Path,
    *,
    to: Format = "hf",
    stored: str | None = None,
    tolerance: float | None = None,
    card: str | None = None,
    extras: Mapping[str, Path] | None = None,
) -> Handed:
    """Export the model of a directory. `stored`: the number type (None: as it is; for GGUF f32 … q4_0, None: f32). `tolerance`:
    largest divergence in nats (None: TOLERANCE of the type). `card`: the text of README.md before what is added here.

    Raises ConfigError (a type or shape that the format cannot say), FormatError (above the tolerance), SpaceError.
    """
    known = KINDS if to == "gguf" else tuple(STORED)
    if stored is not None and stored not in known:
        raise ConfigError(
            Words(f"数値の型「{stored}」で書き出そうとしました。", f"Exporting as '{stored}'."),
            found=Words(f"{to} で選べるのは {'、'.join(known)} です。", f"{to} takes {', '.join(known)}."),
            todo=Words("そのどれかを指定してください。", "Name one of these."),
        )
    model = weights.load(source, device="cpu")
    ids = _probe(source, model)
    with directories.whole(target) as temporary:
        if to == "gguf":
            kind = stored or "f32"
            file = temporary / f"{target.name}.{kind}.gguf"
            counts = gguf_models.export(_transformer(model), file, target.name, kind, _vocabulary(source, model.vocab_size))
            again, rounded = gguf_models.load(gguf.File(file)), "" if kind == "f32" else kind
        else:
            counts = {}
            kind = stored or str(_dtype(model)).removeprefix("torch.")
            rounded = _write_directory(source, temporary, model, kind)
            again = weights.load(temporary, dtype=_dtype(model))
            for name, path in {**{name: source / name for name in EXTRAS}, **(extras or {})}.items():
                if path.is_file():
                    shutil.copy(path, temporary / name)
        found = difference(_wide(model), _wide(again), ids)
        _bar(found, rounded, tolerance)
        before = card if card is not None else _card_of(source, model)
        (temporary / "README.md").write_text(before.rstrip("\n") + "\n" + _section(to, kind, found, counts), encoding="utf-8")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return Handed(str(target), to, kind, size, found, counts)


def write_adapter(source: Path, target: Path, *, base: Path, rank: int = 8, tolerance: float | None = None) -> Handed:
    """What distinguishes the model of `source` from that of `base`, as a PEFT adapter of that rank; `base` with the adapter, read
    back, is compared with `source`. Raises ConfigError (other shapes, or a family that keeps its matrices together) and FormatError."""
    model, family = weights.load(source, dtype=torch.float32), weights.family_of(source).MODEL_TYPE
    beside, again = (weights.load(base, dtype=torch.float32) for _ in range(2))
    if family != weights.family_of(base).MODEL_TYPE or model.shape != beside.shape:
        raise ConfigError(
            Words("アダプタを書き出そうとしました。", "Exporting an adapter."),
            found=Words("元のモデルと形が違います。", "The base model has another shape."),
            todo=Words("--base に、学習を始めたときのモデルを指定してください。", "Give --base the model that training began from."),
        )
    with directories.whole(target) as temporary:
        lora.between(model, beside, rank)
        lora.save(beside, temporary, family, str(base))
        lora.load(again, temporary, family)
        found = difference(model, again, _probe(source, model))
        _bar(found, "adapter", tolerance)
        card = _card_of(source, model)
        section = _section("peft", f"LoRA r={rank}, base {base.resolve().name}", found, {})
        (temporary / "README.md").write_text(card.rstrip("\n") + "\n" + section, encoding="utf-8")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return Handed(str(target), "peft", f"r={rank}", size, found, {})


def _write_directory(source: Path, target: Path, model: Any, kind: str) -> str:
    """Weights and config; what they were rounded to, "" where they were not."""
    own = _dtype(model)
    family = weights.family_of(source).MODEL_TYPE
    narrow = STORED[kind]
    state = None if narrow == own else {name: weight.to(narrow) for name, weight in model.named_parameters()}
    weights.save(model, target, family, state)
    wider = torch.promote_types(own, narrow) == narrow
    return "" if wider else kind


def _dtype(model: Any) -> torch.dtype:
    """Of its weights; a model of counts has none, and computes in float32."""
    return next(iter(model.parameters()), torch.empty(0)).dtype


def _wide(model: Any) -> Any:
    return model.float() if isinstance(model, nn.Module) else model


def _probe(source: Path, model: Any) -> list[int]:
    """A text in the model's own tokens; none where the directory has no tokenizer."""
    if not (source / fast.FILE).is_file():
        return []
    ids = fast.load(source).encode(PROBE)
    return ids[: model.context_length] if max(ids) < model.vocab_size else []


def _bar(found: Difference, rounded: str, tolerance: float | None) -> None:
    """Raises FormatError where what was read back is too far from what was to be written."""
    bar = tolerance if tolerance is not None else TOLERANCE.get(rounded, 0.0)
    if found.divergence <= bar and (rounded or tolerance is not None or found.logits == 0):
        return
    defect = Words(
        "tsuzuri の不具合です。この表示を添えて報告してください。元のモデルは残っています。",
        "This is a defect of tsuzuri: please report it with this message. The model itself is still there.",
    )
    cut = Words("ランクを落とした分か、線形層の外の違い", "the rank, or from what differs outside linear layers")
    cause = cut if rounded == "adapter" else Words(f"{rounded} に丸めた分", f"rounding to {rounded}")
    meant = Words(
        f"{cause.ja}です。それでよければ tolerance を {found.divergence:.2g} より大きくしてください。元のモデルは残っています。",
        f"It comes from {cause.en}. If that is meant, raise tolerance above {found.divergence:.2g}. The model itself is still there.",
    )
    raise FormatError(
        Words("書き出したモデルを読み直して比べました。", "Comparing the exported model, read back."),
        found=Words(f"元のモデルとずれています（{found.says}、許容 KL {bar:g}）。", f"It differs ({found.says}; tolerance: KL {bar:g})."),
        todo=meant if rounded else defect,
    )


def _transformer(model: Any) -> Transformer:
    """Raises ConfigError for a model of another kind: llama.cpp computes none of ours."""
    if isinstance(model, Transformer):
        return model.float()
    raise ConfigError(
        Words("モデルを GGUF で書き出そうとしました。", "Writing the model as GGUF."),
        found=Words("この系統は llama.cpp では計算できません。", "llama.cpp does not compute this family."),
        todo=Words("--to hf で書き出してください。", "Export it with --to hf."),
    )


def _vocabulary(source: Path, rows: int) -> dict[str, Any]:
    """The tokenizer's keys; none where the directory has no tokenizer: such a file takes ids only."""
    if not (source / fast.FILE).is_file():
        return {"tokenizer.ggml.model": "none"}
    tokenizer = fast.load(source)
    settings = weights.read_json(source / "generation_config.json") if (source / "generation_config.json").is_file() else {}
    ends = {}
    for name, key in ENDS.items():
        value = settings.get(key)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int) and 0 <= value < rows:
            ends[name] = value
    chat = template.load(source).text if (source / template.FILE).is_file() else None
    return gguf_vocabulary.keys(tokenizer, rows, chat, ends)


def _card_of(source: Path, model: Any) -> str:
    """The card that the model has; else the little that its files tell."""
    path = source / "README.md"
    if path.is_file() and path.stat().st_size < 1 << 20:
        return path.read_text(encoding="utf-8", errors="replace").split(MARK, 1)[0]
    count = sum(weight.numel() for weight in model.parameters())
    kind = weights.family_of(source).MODEL_TYPE
    lines = [
        f"# {source.resolve().name}",
        "",
        f"{kind} 型のモデルです（{count / 1e6:.1f} M パラメータ）。元のディレクトリに説明がなく、学習データと利用条件は分かりません。",
        "",
        f"A model of type {kind}. The directory it was made from has no card: its training data and licence are not known.",
    ]
    return "\n".join([*lines, ""])


MARK = "\n## 書き出し / export\n"


def _section(to: Format, kind: str, found: Difference, counts: Mapping[str, int]) -> str:
    """What is added to the card: what was written, and how far it is from what it was made from."""
    types = "、".join(f"{name} × {count}" for name, count in counts.items())
    lines = [
        f"- 形式 / format: {to}, {kind}" + (f"（{types}）" if types else ""),
        f"- 読み直した差 / read back and compared: max |Δlogit| {found.logits:.3g}, KL {found.divergence:.3g} nats",
        f"- 最も確からしい語の一致 / top-1 agreement: {found.agreement:.2%}; greedy {found.transcript} / {TRANSCRIPT}",
        f"- tsuzuri {__version__}, torch {torch.__version__}",
    ]
    if to == "gguf":
        cut = (
            "- 文章の区切り方は llama.cpp の組み込みに従うため、まれに学習時と違うトークンになります。",
            "  / llama.cpp cuts text by a pattern of its own: now and then a text gets other tokens than in training.",
        )
        lines += cut
    return "\n".join([MARK, *lines, ""])


def hardware() -> str:
    """The processor and the accelerators, as they call themselves."""
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ", ".join([f"{_processor()} × {device.cores()}", *cards])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    named = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def take_in_adapter(adapter: Path, target: Path, *, base: Path) -> Handed:
    """The model of `base` with a PEFT adapter merged into its weights. Raises FormatError and ConfigError."""
    model, merged = (weights.load(base, dtype=torch.float32) for _ in range(2))
    family = weights.family_of(base).MODEL_TYPE
    for each in (model, merged):
        lora.load(each, adapter, family)
    lora.merge(merged)
    with directories.whole(target) as temporary:
        weights.save(merged, temporary, family)
        for name in EXTRAS:
            if (base / name).is_file():
                shutil.copy(base / name, temporary / name)
        found = difference(model, weights.load(temporary), _probe(base, model))
        _bar(found, "float32", 1e-6)  # merged is unmerged, but for the order of sums
        section = _section("hf", f"float32, {adapter.resolve().name} merged", found, {})
        (temporary / "README.md").write_text(_card_of(base, model).rstrip("\n") + "\n" + section, encoding="utf-8")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return Handed(str(target), "hf", "float32", size, found, {})


def take_in(file: Path, target: Path) -> Handed:
    """The model of a GGUF file as a directory in Hugging Face's layout, in float32. Raises FormatError and ConfigError."""
    opened = gguf.File(file)
    model = gguf_models.load(opened)
    family = str(opened.metadata["general.architecture"])
    with directories.whole(target) as temporary:
        weights.save(model, temporary, family)
        tokenizer = gguf_vocabulary.tokenizer(opened.metadata)
        tokenizer.save(temporary)
        chat = opened.metadata.get("tokenizer.chat_template")
        if isinstance(chat, str):
            (temporary / template.FILE).write_text(chat, encoding="utf-8")
            template.load(temporary)
        ends = {key: opened.metadata.get(f"tokenizer.ggml.{name}_token_id") for name, key in ENDS.items()}
        ends = {key: value for key, value in ends.items() if type(value) is int and value < model.vocab_size}
        (temporary / "generation_config.json").write_text(json.dumps(ends, indent=1) + "\n", encoding="utf-8")
        found = difference(model, weights.load(temporary), [])
        _bar(found, "", None)
        card = f"# {target.name}\n\n{file.name} から取り込みました。学習データと利用条件は元の配布元で確かめてください。\n\nImported from {file.name}.\n"
        (temporary / "README.md").write_text(card + _section("hf", "float32", found, {}), encoding="utf-8")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return Handed(str(target), "hf", "float32", size, found, {})
