"""How the next token is chosen: `Sampling`, and its rules in the order in which they apply.

    bias → constraint → ends too early → penalties → temperature → top-k → top-p → min-p → typical → draw

In: logits (V,) of one position. Out: a distribution (V,), or one id. Names and meanings are OpenAI's and vLLM's.
Flags and the HTTP schema are derived from the dataclass. It imports no torch: tensors are used by their methods alone.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from tsuzuri.engine.constraint import Constraint
from tsuzuri.errors import ConfigError, Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Limits:
    """The values a field takes: low … high, both included unless `above` (then low itself is refused)."""

    low: float
    high: float
    above: bool = False

    def hold(self, value: float) -> bool:
        """False for NaN as well."""
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        return f"{'(' if self.above else '['}{_plain(self.low)}, {_plain(self.high)}]"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a field of `Sampling` means, for whoever derives a flag, a schema or a page from it."""

    kind: type  # float, int, bool, Constraint; or int for each of several
    words: Words
    limits: Limits | None = None
    optional: bool = False  # None is a value of its own
    several: bool = False  # a sequence of `kind`
    by_id: bool = False  # a `kind` for each of some ids: a mapping, kept as pairs in the order of the ids


def rule(
    default: Any,
    kind: type,
    ja: str,
    en: str,
    limits: Limits | None = None,
    *,
    optional: bool = False,
    several: bool = False,
    by_id: bool = False,
) -> Any:
    """A dataclass field of settings with its `Rule`."""
    return field(default=default, metadata={"rule": Rule(kind, Words(ja, en), limits, optional, several, by_id)})


ID = Limits(0, 2**31 - 1)
COUNT = Limits(1, 2**31 - 1)
LARGEST = 1e300  # of a score: what float64 still holds, with room for the temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """One request's way of choosing tokens. Raises ConfigError naming the field for a value that cannot be."""

    temperature: float = rule(
        1.0,
        float,
        "ゆらぎの大きさ（0 は常に最有力のトークンを選ぶ）",
        "spread of the choice; 0 always takes the most probable",
        Limits(0, 2),
    )
    top_k: int = rule(0, int, "上位何個から選ぶか（0 は制限なし）", "choose among the k most probable; 0: all", Limits(0, 2**31 - 1))
    top_p: float = rule(
        1.0,
        float,
        "確率の合計がこの値に達するまでの上位から選ぶ",
        "choose among the top that holds this much probability",
        Limits(0, 1, above=True),
    )
    min_p: float = rule(
        0.0,
        float,
        "最有力のトークンの確率×この値に満たないトークンを除く",
        "drop what is below this fraction of the best one's probability",
        Limits(0, 1),
    )
    typical_p: float = rule(
        1.0,
        float,
        "情報量が平均に近いものから、確率の合計がこの値に達するまで選ぶ",
        "choose among those whose surprise is nearest to the expected one, until they hold this much probability",
        Limits(0, 1, above=True),
    )
    logit_bias: Mapping[int, float] | tuple[tuple[int, float], ...] = rule(
        (),
        float,
        "番号ごとに点数へ足す値（-100 でほぼ禁止）",
        "added to the scores of these ids; -100 all but forbids",
        Limits(-100, 100),
        by_id=True,
    )
    repetition_penalty: float = rule(
        1.0,
        float,
        "既出のトークン（入力を含む）を避ける強さ（1 はなし）",
        "divide the scores of what was read or said; 1: none",
        Limits(0, 10, above=True),
    )
    presence_penalty: float = rule(
        0.0, float, "一度出力したトークンを避ける強さ", "subtracted from what was said at least once", Limits(-2, 2)
    )
    frequency_penalty: float = rule(0.0, float, "出力した回数に応じて避ける強さ", "subtracted for each time it was said", Limits(-2, 2))
    seed: int | None = rule(None, int, "乱数の種（同じ種なら同じ文章）", "same seed, same text", Limits(-(2**63), 2**63 - 1), optional=True)
    max_tokens: int | None = rule(None, int, "出力するトークン数の上限", "the most tokens to give", COUNT, optional=True)
    min_tokens: int = rule(0, int, "これより少ないトークンでは終わらない", "it does not end with fewer tokens", Limits(0, 2**31 - 1))
    ignore_eos: bool = rule(False, bool, "文章の終わりの印が出ても続ける", "go on after the end of the text")
    logprobs: int | None = rule(
        None, int, "各位置で対数確率を添える候補の数", "how many candidates to report at each place", Limits(0, 20), optional=True
    )
    stop_token_ids: tuple[int, ...] = rule((), int, "出力を終えるトークンの番号", "ids that end the output", ID, several=True)
    constraint: Constraint | None = rule(None, Constraint, "出力の形", "what the output may be", optional=True)  # noqa: RUF009

    def __post_init__(self) -> None:
        check(self)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise _refused(
                "min_tokens",
                self.min_tokens,
                Words(f"max_tokens（{self.max_tokens}）を超えています。", f"It is more than max_tokens, {self.max_tokens}."),
            )
        if self.constraint is not None and self.ignore_eos:
            raise _refused(
                "ignore_eos",
                True,
                Words("形の決まった出力（constraint）は、完成したら終わります。", "An output with a constraint ends when it is whole."),
            )


def copies(sampling: Sampling, count: int) -> list[Sampling]:
    """One for each of several answers to the same request: the first keeps its seed, the others have seeds that follow from it."""
    if sampling.seed is None:
        return [sampling] * count
    numbers = random.Random(sampling.seed % 2**64)  # noqa: S311  text, not secrets
    return [sampling, *(replace(sampling, seed=numbers.getrandbits(62)) for _ in range(count - 1))]


@dataclass(slots=True)
class History:
    """What stands before the token to be chosen."""

    prompt: Sequence[int] = ()
    output: list[int] = field(default_factory=list)
    ends: Collection[int] = ()  # ids that end the output
    ruled_out: NDArray[np.bool_] | None = None  # (V,) what the constraint does not let come next


def choose(logits: Tensor, sampling: Sampling, history: History, generator: random.Random) -> int:
    """(V,) -> one id. Greedy at temperature 0; otherwise one number of `generator` is spent."""
    if sampling.temperature == 0:
        return int(adjusted(logits.double(), sampling, history).argmax())
    return draw(distribution(logits, sampling, history), generator.random())


def distribution(logits: Tensor, sampling: Sampling, history: History | None = None) -> Tensor:
    """(V,) -> probabilities (V,) in float64 that `choose` draws from. Without a history nothing is penalized."""
    scores = adjusted(logits.double(), sampling, history or History())
    if _cold(scores, sampling.temperature):
        return scores.new_zeros(scores.shape).index_fill(0, scores.argmax(), 1.0)
    scores = scores / sampling.temperature
    scores = keep_top_k(scores, sampling.top_k)
    scores = keep_top_p(scores, sampling.top_p)
    scores = keep_min_p(scores, sampling.min_p)
    return keep_typical(scores, sampling.typical_p).softmax(-1)


def adjusted(scores: Tensor, sampling: Sampling, history: History) -> Tensor:
    """Scores (V,) after the rules that also move a greedy choice."""
    scores = constrain(add_bias(scores, sampling.logit_bias), sampling, history)
    return penalize(go_on(scores, sampling.min_tokens, history), sampling, history)


def add_bias(scores: Tensor, bias: Any) -> Tensor:
    """OpenAI's logit_bias; pairs of id and what is added."""
    if not bias:
        return scores
    ids, values = zip(*bias, strict=True)
    return scores.index_add(0, scores.new_tensor(ids).long(), scores.new_tensor(values))


def constrain(scores: Tensor, sampling: Sampling, history: History) -> Tensor:
    """What the constraint does not let come next is ruled out."""
    assert (sampling.constraint is None) == (history.ruled_out is None), "whoever chooses asks the matcher of the constraint first"
    if history.ruled_out is None:
        return scores
    return scores.masked_fill(scores.new_tensor(history.ruled_out).bool(), -math.inf)


def go_on(scores: Tensor, least: int, history: History) -> Tensor:
    """What ends the output is ruled out as long as there are fewer than `least` tokens, unless a constraint leaves nothing else."""
    if len(history.output) + 1 >= least or not history.ends:
        return scores
    found = scores.index_fill(0, scores.new_tensor(sorted(history.ends)).long(), -math.inf)
    return scores if history.ruled_out is not None and not bool(found.isfinite().any()) else found


def _cold(scores: Tensor, temperature: float) -> bool:
    """0, or so near to it that a score divided by it is no number any more, and the distribution would be none."""
    return temperature == 0 or bool(((scores / temperature).isinf() & scores.isfinite()).any())


def penalize(scores: Tensor, sampling: Sampling, history: History) -> Tensor:
    """Repetition over prompt and output (Keskar et al. 2019, as Hugging Face); presence, frequency over output (OpenAI)."""
    if sampling.repetition_penalty != 1:
        seen = scores.new_tensor(sorted({*history.prompt, *history.output})).long()
        old = scores[seen]
        raised = (old / sampling.repetition_penalty).clamp(max=LARGEST)  # a penalty near 0 must not make infinity of it
        scores = scores.index_copy(0, seen, raised.where(old > 0, old * sampling.repetition_penalty))
    if (sampling.presence_penalty or sampling.frequency_penalty) and history.output:
        counts = Counter(history.output)
        said = scores.new_tensor(list(counts)).long()
        times = scores.new_tensor(list(counts.values()))
        scores = scores.index_add(0, said, -(sampling.presence_penalty + sampling.frequency_penalty * times))
    return scores


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Exactly the k highest scores stay (Fan et al. 2018); 0 keeps all."""
    if k == 0 or k >= len(scores):
        return scores
    values, ids = scores.topk(k)
    return scores.new_full(scores.shape, -math.inf).scatter(0, ids, values)


def keep_top_p(scores: Tensor, p: float) -> Tensor:
    """The smallest set of the most probable tokens that holds at least p stays (Holtzman et al. 2020)."""
    if p >= 1:
        return scores
    probabilities = scores.softmax(-1)
    values = probabilities.cpu().numpy().copy()
    values.sort()  # numbers alone, by NumPy: a tenth of the time in which PyTorch sorts them with their ids
    falling = values[::-1]
    kept = int((falling.cumsum() - falling < p).sum())  # of each, what the more probable ones hold already
    least = float(falling[kept - 1])
    stays = probabilities > least
    level = (probabilities == least).nonzero().flatten()  # of equal ones the first
    stays[level[: kept - int(stays.sum())]] = True
    return scores.masked_fill(~stays, -math.inf)


def keep_min_p(scores: Tensor, p: float) -> Tensor:
    """What has at least p times the probability of the most probable token stays (Nguyen et al. 2024)."""
    if p == 0:
        return scores
    return scores.masked_fill(scores < scores.max() + math.log(p), -math.inf)


def keep_typical(scores: Tensor, p: float) -> Tensor:
    """Those whose surprise −log q is nearest to the entropy stay, until they hold p (Meister et al. 2023, section 3)."""
    if p >= 1:
        return scores
    log = scores.log_softmax(-1)
    probabilities = log.exp()
    entropy = -(probabilities * log).nansum()  # what was ruled out gives nothing
    ids = (-log - entropy).abs().sort(stable=True).indices
    held = probabilities[ids]
    return scores.index_fill(0, ids[held.cumsum(-1) - held >= p], -math.inf)


def draw(probabilities: Tensor, number: float) -> int:
    """The id at which the cumulated probabilities pass `number` in [0, 1). One number a token: the same on every device."""
    cumulated = probabilities.cumsum(-1)
    return int((cumulated <= cumulated[-1] * number).sum())


def generator(seed: int | None) -> random.Random:
    """The stream of numbers of one request; None draws a seed from the operating system."""
    return random.Random(None if seed is None else seed % 2**64)  # noqa: S311  text, not secrets


def check(settings: Any) -> None:
    """Every field of a dataclass whose fields have rules, in its own type. Raises ConfigError naming the field."""
    for each in fields(settings):
        object.__setattr__(settings, each.name, _checked(each.name, each.metadata["rule"], getattr(settings, each.name)))


def _checked(name: str, rule: Rule, value: Any) -> Any:
    """The value in the field's own type. Raises ConfigError."""
    if value is None and rule.optional:
        return None
    if rule.by_id:
        pairs = sorted(value.items()) if isinstance(value, Mapping) and all(isinstance(id, int) for id in value) else value
        if not isinstance(pairs, list | tuple) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            raise _refused(name, value, Words("番号と値の対応（{265: -100}）が要ります。", "It takes a mapping of ids to values."))
        known = {_one(name, Rule(int, rule.words, ID), id): _one(name, rule, number) for id, number in pairs}
        return tuple(sorted(known.items()))
    if rule.several:
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise _refused(name, value, Words("並び（[1, 2]）が要ります。", "It takes a sequence."))
        return tuple(_one(name, rule, item) for item in value)
    return _one(name, rule, value)


def _one(name: str, rule: Rule, value: Any) -> Any:
    if rule.kind is Constraint:
        if not isinstance(value, Constraint):
            raise _refused(name, value, Words("Constraint が要ります。", "It takes a Constraint."))
        return value
    is_number = isinstance(value, int | float if rule.kind is float else int) and not isinstance(value, bool)
    if rule.kind is bool and not isinstance(value, bool):
        raise _refused(name, value, Words("True か False が要ります。", "It takes True or False."))
    if rule.kind is not bool and not is_number:
        kind = (
            Words("数が要ります。", "It takes a number.") if rule.kind is float else Words("整数が要ります。", "It takes a whole number.")
        )
        raise _refused(name, value, kind)
    if rule.limits and not rule.limits.hold(value):
        raise _refused(name, value, _range(rule.limits))
    return rule.kind(value)


def _range(limits: Limits) -> Words:
    low, high = _plain(limits.low), _plain(limits.high)
    if limits.above:
        return Words(f"{low} より大きく {high} 以下の値が要ります。", f"It takes more than {low} and at most {high}.")
    return Words(f"{low} 以上 {high} 以下の値が要ります。", f"It takes {low} to {high}.")


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _refused(name: str, value: Any, found: Words) -> ConfigError:
    shown = repr(value)[:40]
    return ConfigError(
        Words(f"生成の設定 {name} に {shown} が指定されました。", f"The sampling setting {name} was given {shown}."),
        found=found,
        todo=Words(f"{name} を直してください。", f"Correct {name}."),
    )
