"""An encoder's directory as something to ask: a text's labels, the stretches in it, the answer in a context, its vector.

In: text. Out: `Choice`s with probabilities, `Found` stretches with their place, an `Answer`, or numbers. Which of them it can
give is said by the head of the model. A text longer than the model reads is refused; only a context comes in windows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from tsuzuri import device as devices
from tsuzuri.engine.sampling import History, Sampling, distribution
from tsuzuri.errors import ConfigError, ContextError, InputError, MissingError, Words
from tsuzuri.model import weights
from tsuzuri.model.past import Bidirectional
from tsuzuri.model.pooling import classified, embedded
from tsuzuri.model.transformer import Transformer
from tsuzuri.text import fast
from tsuzuri.text.framing import NAMES, Window, frame, windows
from tsuzuri.text.spans import decode

AT_ONCE = 16  # texts
TOKENS_AT_ONCE = 4096  # of these texts, padding and all; a longer text is alone
STRIDE = 64  # tokens that neighbouring windows of a context share, at most a quarter of a window
LONGEST = 64  # tokens of an answer
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Choice:
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Found:
    start: int  # characters
    stop: int
    label: str
    text: str
    probability: float  # of its tokens' labels, the geometric mean


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token for one place, the next one or a hidden one."""

    id: int
    text: str  # bytes that are no whole character are written as <0xE3>
    probability: float  # the model's own
    sampled: float  # under the sampling asked for


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` None: the model finds that the context has no answer."""

    text: str | None
    start: int | None
    stop: int | None
    probability: float  # among all stretches of all windows, and that there is none


class Encoder:
    """One encoder and its tokenizer."""

    def __init__(self, model: Transformer, tokenizer: fast.FastTokenizer, name: str = "") -> None:
        self.model, self.tokenizer, self.name, self.frame = model, tokenizer, name, frame(tokenizer)
        self.device = next(model.parameters()).device

    @property
    def task(self) -> str:
        """The head: masked, classify, tag, extract or embed."""
        return str(self.model.shape.head)

    @torch.inference_mode()
    def classify(self, texts: Sequence[str]) -> list[list[Choice]]:
        """Every label of each text, the most probable first."""
        self._can("classify")
        rows = [self._framed(self.tokenizer.encode(text)) for text in texts]
        found = []
        for batch in _at_once(rows):
            scores = classified(self.model, *self._batch(batch)).double().softmax(-1)
            found += [sorted(map(Choice, self.model.shape.labels, row), key=lambda c: -c.probability) for row in scores.tolist()]
        return found

    @torch.inference_mode()
    def tag(self, texts: Sequence[str]) -> list[list[Found]]:
        """The stretches of each text, in their order."""
        self._can("tag")
        found = []
        spans = [self.tokenizer.spans(text) for text in texts]
        for start, batch in enumerate(_at_once([self._framed(ids) for ids, _ in spans])):
            scores = self.model(*self._batch(batch)).double().log_softmax(-1)  # (B, T, labels)
            for row, each in enumerate(scores):
                text, (ids, offsets) = texts[start * AT_ONCE + row], spans[start * AT_ONCE + row]
                best, labels = each[1 : len(ids) + 1].max(-1)
                found.append(self._stretches(text, offsets, labels.tolist(), best.tolist()))
        return found

    def _stretches(self, text: str, offsets: list[tuple[int, int]], labels: list[int], logs: list[float]) -> list[Found]:
        result = []
        for span in decode([self.model.shape.labels[label] for label in labels], offsets):
            own = [log for log, (start, stop) in zip(logs, offsets, strict=True) if start >= span.start and stop <= span.stop]
            result.append(Found(span.start, span.stop, span.label, text[span.start : span.stop], math.exp(sum(own) / len(own))))
        return result

    @torch.inference_mode()
    def extract(self, question: str, context: str) -> Answer:
        """The most probable answer in the context (Devlin et al. 2019, section 4.3)."""
        self._can("extract")
        ids, offsets = self.tokenizer.spans(context)
        length = self.model.context_length
        rows = windows(self.frame, self.tokenizer.encode(question), ids, length, min(STRIDE, length // 4))
        best, place, scores = -math.inf, (0, 0), []
        none = math.inf  # a context has no answer where no window has one: the window that is least sure of it speaks
        for batch in _at_once(rows):
            found = self.model(*self._batch([row.ids for row in batch], [row.segments for row in batch])).double().cpu()  # (B, T, 2)
            for row, each in zip(batch, found, strict=True):
                none = min(none, float(each[0].sum()))
                table = _stretches(each, row)
                scores.append(table.flatten().logsumexp(0))
                if float(table.max()) > best:
                    best = float(table.max())
                    start, stop = divmod(int(table.argmax()), table.shape[1])
                    place = (row.start + start, row.start + stop)
        total = torch.stack([*scores, torch.tensor(none, dtype=torch.float64)]).logsumexp(0)
        if none >= best or not ids:
            return Answer(None, None, None, math.exp(none - float(total)))
        first, last = offsets[place[0]][0], offsets[place[1]][1]
        return Answer(context[first:last], first, last, math.exp(best - float(total)))

    @torch.inference_mode()
    def fill(self, text: str, k: int = 10, sampling: Sampling | None = None) -> list[list[Candidate]]:
        """For each hidden token of a text, written ○○ or as the tokenizer's mask, the k most probable, the most probable first.
        One ○○ is one token. Raises InputError where nothing is hidden."""
        self._can("masked")
        if not 1 <= k <= self.model.vocab_size:
            raise ConfigError(
                Words(f"隠した語の候補を {k} 個求められました。", f"Asked for {k} tokens in place of a hidden one."),
                found=Words(f"1 から {self.model.vocab_size} までです。", f"There are 1 to {self.model.vocab_size}."),
                todo=Words("個数を直してください。", "Correct the number."),
            )
        if sampling is not None and sampling.constraint is not None:
            raise ConfigError(
                Words("隠した語の候補の形を決めようとしました。", "Constraining what may stand in place of a hidden token."),
                found=Words("形を決められるのは、書く文章だけです。", "Only a text that is being written can be constrained."),
                todo=Words("constraint を外してください。", "Leave constraint out."),
            )
        ids = self._framed(self._hidden(text))
        logits = self.model(*self._batch([ids]))[0].float().cpu()  # (T, V)
        found = []
        for place in (i for i, id in enumerate(ids) if id == self.frame.mask):
            sampled = distribution(logits[place], sampling or Sampling(), History(ids))
            own, order = logits[place].softmax(-1).topk(k)
            found.append(
                [Candidate(int(id), self.tokenizer.shown(int(id)), float(p), float(sampled[id])) for p, id in zip(own, order, strict=True)]
            )
        return found

    def _hidden(self, text: str) -> list[int]:
        """Ids with the mask where the text has ○○, ◯◯, or a name of the mask that this tokenizer has."""
        names = [re.escape(name) for name in NAMES["mask"] if name in self.tokenizer.special]
        parts = re.split("|".join(["[○◯]{2,}", *names]), text)
        if len(parts) == 1:
            raise InputError(
                Words("隠した語を当てようとしました。", "Guessing a hidden token."),
                found=Words(
                    "文章に ○○ がありません。このモデルは続きを書かず、隠した語を当てます。",
                    "The text has no ○○. This model continues no text; it guesses hidden tokens.",
                ),
                todo=Words(
                    "当てたい所に ○○ を書いてください（例：太陽は東から○○）。", "Write ○○ where a token is hidden, as in 太陽は東から○○."
                ),
            )
        first, *rest = (self.tokenizer.encode(part) for part in parts)
        return [*first, *(id for part in rest for id in (self.frame.mask, *part))]

    @torch.inference_mode()
    def embed(self, texts: str | Sequence[str]) -> Tensor:
        """float32 (D,) of a text, or (texts, D), each of length 1: their products are cosines."""
        self._can("embed", "masked")
        if isinstance(texts, str):
            found: Tensor = self.embed([texts])[0]
            return found
        return self.embed_ids([self.tokenizer.encode(text) for text in texts])

    @torch.inference_mode()
    def embed_ids(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """The same of texts that are cut already, without what stands around each. Raises InputError for ids that there are not."""
        rows = [self.checked(ids) for ids in texts]
        found = torch.zeros(len(rows), self.model.shape.hidden_size)
        for places in together(rows):
            found[places] = self.embed_rows([rows[place] for place in places])
        return found

    @torch.inference_mode()
    def embed_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """float32 (rows, D) in one call of the model, of rows that `checked` gave. How many at once is the caller's business: `together`."""
        return embedded(self.model, *self._batch(rows)).float().cpu()

    def checked(self, ids: Sequence[int]) -> list[int]:
        """What the model reads for its vector: with what stands around it. Raises InputError for ids that there are not, ContextError for too
        many, ConfigError where it gives no vectors."""
        self._can("embed", "masked")
        unknown = next((id for id in ids if not 0 <= id < self.model.vocab_size), None)
        if unknown is not None:
            raise InputError(
                Words("トークン番号をモデルに渡そうとしました。", "Giving the model token ids."),
                found=Words(f"{unknown} という番号はありません。", f"There is no token {unknown}."),
                todo=Words(f"0 から {self.model.vocab_size - 1} までです。", f"They go from 0 to {self.model.vocab_size - 1}."),
            )
        return self._framed(list(ids))

    def _framed(self, ids: list[int]) -> list[int]:
        if len(ids) + 2 > self.model.context_length:
            raise ContextError(
                Words("文章をモデルに読ませようとしました。", "Giving the model a text."),
                found=Words(
                    f"{len(ids) + 2} トークンで、モデルが読めるのは {self.model.context_length} までです。",
                    f"It has {len(ids) + 2} tokens; the model reads {self.model.context_length}.",
                ),
                todo=Words("文章を短く分けてください。", "Divide the text."),
            )
        return self.frame.around(ids)

    def _batch(self, rows: Sequence[Sequence[int]], segments: Sequence[Sequence[int]] | None = None) -> tuple[Tensor, Bidirectional]:
        """(B, T) and its past: padding is a document of its own."""
        width = max(map(len, rows))
        tokens = torch.tensor([[*row, *[self.frame.padding] * (width - len(row))] for row in rows], device=self.device)
        documents = torch.tensor([[0] * len(row) + [-1] * (width - len(row)) for row in rows], device=self.device)
        second = None
        if segments is not None and self.model.shape.type_vocab_size > 1:
            second = torch.tensor([[*row, *[0] * (width - len(row))] for row in segments], device=self.device)
        positions = torch.arange(width, device=self.device).expand(len(rows), -1)
        return tokens, Bidirectional(positions, documents, segments=second)

    def _can(self, *tasks: str) -> None:
        if self.task not in tasks:
            verbs = {
                "classify": Words("文章の分類", "labelling a text"),
                "tag": Words("区間の抽出", "finding stretches"),
                "extract": Words("答えの抽出", "finding an answer"),
                "embed": Words("埋め込み", "a vector"),
                "masked": Words("隠した語の推定", "guessing hidden tokens"),
            }
            raise ConfigError(
                Words(
                    f"モデル {self.name} に{verbs[tasks[0]].ja}を求めました。", f"Asking the model {self.name} for {verbs[tasks[0]].en}."
                ),
                found=Words(f"このモデルの出力層は{verbs[self.task].ja}のためのものです。", f"Its head is made for {verbs[self.task].en}."),
                todo=Words("そのために学習したモデルを指定してください。", "Name a model that was trained for it."),
            )


def load(directory: str | Path, *, dtype: str | None = None, threads: int | None = None, device: str = "auto") -> Encoder:
    """The encoder of a directory. Raises MissingError, FormatError, and ConfigError where the model continues texts."""
    path = Path(directory)
    if not path.is_dir():
        raise MissingError(
            Words(f"モデル {path} を読もうとしました。", f"Loading the model {path}."),
            found=Words("そのディレクトリはありません。", "There is no such directory."),
            todo=Words("エンコーダのディレクトリを指定してください。", "Name the directory of an encoder."),
        )
    place = devices.choose(device)
    if threads is not None:
        devices.threads(threads)
    model = weights.load(path, dtype=None if dtype is None else devices.dtype(dtype, place), device=place, quantised=True)
    if not is_encoder(model):
        raise ConfigError(
            Words(f"モデル {path.name} をエンコーダとして開こうとしました。", f"Opening the model {path.name} as an encoder."),
            found=Words("文章の続きを書くモデルです。", "It is a model that continues texts."),
            todo=Words(
                "tsuzuri generate か tsuzuri chat を使うか、エンコーダを指定してください。",
                "Use tsuzuri generate or tsuzuri chat, or name an encoder.",
            ),
        )
    return Encoder(model, fast.load(path), path.resolve().name)


def holds_encoder(directory: Path) -> bool:
    """Whether a directory has an encoder, by its config.json alone."""
    if not (directory / "config.json").is_file():
        return False
    family, config = weights.family_of(directory), weights.read_json(directory / "config.json")
    return hasattr(family, "names") and not family.shape({key: config[key] for key in config if key != weights.METHOD}).causal


def is_encoder(model: object) -> bool:
    return isinstance(model, Transformer) and not model.shape.causal


def together(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Which of them are read in one call: places, those of like length together, the longest first, so that what is too much for the machine
    shows at once. No more than AT_ONCE texts or TOKENS_AT_ONCE tokens, padding included, unless it is one text."""
    found: list[list[int]] = []
    for place in sorted(range(len(rows)), key=lambda place: -len(rows[place])):
        full = not found or len(found[-1]) == AT_ONCE or (len(found[-1]) + 1) * len(rows[found[-1][0]]) > TOKENS_AT_ONCE
        found.append([place]) if full else found[-1].append(place)
    return found


def _at_once(rows: Sequence[Row]) -> list[Sequence[Row]]:
    return [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]


def _stretches(scores: Tensor, window: Window) -> Tensor:
    """(T, 2) -> (S, S) of the window's part of the context: the score of each stretch, −inf where it is none."""
    own = scores[window.begin : window.begin + window.stop - window.start]  # (S, 2)
    table = own[:, :1] + own[:, 1]
    place = torch.arange(len(own), device=own.device)
    apart = place[None, :] - place[:, None]  # end − start
    return table.masked_fill((apart < 0) | (apart >= LONGEST), -math.inf)
