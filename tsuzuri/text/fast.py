"""The tokenizers we use: four kinds over the `tokenizers` library, lossless, saved as a plain `tokenizer.json`.

In: text. Out: ids, and text again. Every kind falls back to bytes, so nothing is unknown: BPE and characters work on
bytes throughout, Unigram and word piece spell what is not in their vocabulary. The plain twin of BPE is `bpe.py`.
Special tokens are made by the chat template alone: written in a person's text they stay text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from tsuzuri.errors import ConfigError, FormatError, MissingError, TsuzuriError, Words
from tsuzuri.folder import suggestion
from tsuzuri.text import bytelevel, kinds
from tsuzuri.text.split import split
from tsuzuri.text.stream import Stream

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")  # ids 0 … 3 of every tokenizer we train
ENCODER = ("[CLS]", "[MASK]", "[SEP]", "[PAD]")  # the same of a tokenizer for an encoder (`framing.py`)
SENTINELS = tuple(f"<extra_id_{number}>" for number in range(32))  # what stands for a span that was taken out, as T5 calls them
FILE = "tokenizer.json"
PROBE = "".join(map(chr, range(0x21, 0x7F))) + " \n今日は、カタカナ。🍣"  # what must come back
LARGEST = 1 << 20  # ids; four times the largest public vocabulary. The library takes the memory for all of them at once
PIECES = 1 << 18  # remembered at once, about 100 MB; Japanese repeats its words, so most of a text was met before
LONG = 32  # characters of a piece that is not worth remembering
MAX_FILE = 1 << 28  # bytes; the largest public tokenizer.json is about 35 MB


class FastTokenizer:
    """`tsuzuri.types.Tokenizer` over a tokenizer.json, ours or another's."""

    def __init__(self, core: tokenizers.Tokenizer) -> None:
        core.encode_special_tokens = True  # a special token in a text is text
        self._core = core
        self._state: dict[str, Any] = json.loads(core.to_str())
        self.special: Mapping[str, int] = {t["content"]: t["id"] for t in self._state["added_tokens"] if t["special"]}
        self._bytes = bytelevel.table(self._state, core.get_vocab_size())
        self._by_pieces = kinds.cut_by_script(self._state)
        self._model = core.model
        self._known: dict[str, list[int]] = {}  # piece -> ids, as far as they were met

    @property
    def vocab_size(self) -> int:
        return int(self._core.get_vocab_size())

    @property
    def kind(self) -> str:
        """bpe, unigram, wordpiece or characters."""
        return kinds.of(self._state)

    @property
    def state(self) -> dict[str, Any]:
        """What tokenizer.json says; to be read, not changed."""
        return self._state

    @property
    def longest(self) -> int | None:
        """The most bytes that one id stands for; None where a text may become shorter before it is cut, so that its length says nothing."""
        swallows = any(token["lstrip"] or token["rstrip"] for token in self._state["added_tokens"])
        changed = self._state.get("normalizer") or self._state.get("truncation") or swallows or not _pieces_are_bytes(self._state)
        return None if changed else max(map(len, self._bytes))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical tokenizer.json: same fingerprint, same ids."""
        return hashlib.sha256(self._canonical().encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, nothing added, nothing lost. Raises InputError for half a surrogate pair."""
        bytelevel.utf8(text)  # the library says "must be str"
        if not self._by_pieces:
            return list(self._core.encode(text, add_special_tokens=False).ids)
        known = self._known
        if len(known) > PIECES:
            known = self._known = {}  # another thread may still read the old one
        ids: list[int] = []
        for piece in split(text):
            found = known.get(piece)
            if found is None:
                found = [token.id for token in self._model.tokenize(bytelevel.visible(piece))]
                if len(piece) <= LONG:
                    known[piece] = found
            ids += found
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each; by the library on all cores where pieces cannot be remembered."""
        if self._by_pieces:
            return [self.encode(text) for text in texts]
        for text in texts:
            bytelevel.utf8(text)
        return [list(found.ids) for found in self._core.encode_batch_fast(list(texts), add_special_tokens=False)]

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """`encode`, and the characters start … stop of the text that each id covers, wholly or in part."""
        bytelevel.utf8(text)
        found = self._core.encode(text, add_special_tokens=False)
        return list(found.ids), list(found.offsets)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ones as they are written. Bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.token_bytes(id) for id in ids).decode("utf-8", errors="replace")

    def stream(self) -> Stream:
        """A decoder for ids that arrive one at a time."""
        return Stream(self.token_bytes)

    def token_bytes(self, id: int) -> bytes:
        """The bytes one id stands for. Raises ConfigError for an id that is not in the vocabulary."""
        if not 0 <= id < len(self._bytes):
            raise ConfigError(
                Words(f"トークン番号 {id} を文字に戻そうとしました。", f"Decoding the token id {id}."),
                found=Words(f"語彙は 0 から {len(self._bytes) - 1} までです。", f"The vocabulary is 0 … {len(self._bytes) - 1}."),
                todo=Words("このトークナイザで作った番号を渡してください。", "Give ids made by this tokenizer."),
            )
        return self._bytes[id]

    def shown(self, id: int) -> str:
        """One token for a person to read; bytes that are no whole character as <0xE3>, an id that no text uses as <600>."""
        if id >= self.vocab_size:
            return f"<{id}>"
        found = self.token_bytes(id)
        try:
            return found.decode()
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in found)

    def save(self, directory: Path) -> None:
        """tokenizer.json and tokenizer_config.json into an existing directory."""
        (directory / FILE).write_text(self._canonical(), encoding="utf-8")
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[0],
            "eos_token": SPECIAL[2],
            "pad_token": SPECIAL[3],
            **dict(zip(("cls_token", "mask_token", "sep_token"), ENCODER, strict=False)),
            "clean_up_tokenization_spaces": False,
            "add_bos_token": False,
            "add_eos_token": False,
            "model_max_length": 1 << 30,
        }
        if ENCODER[3] in self.special:
            config |= {"pad_token": ENCODER[3], "model_input_names": ["input_ids", "attention_mask"]}
        text = json.dumps(
            {k: v for k, v in config.items() if not isinstance(v, str) or v in self.special or k == "tokenizer_class"}, indent=1
        )
        (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")

    def _canonical(self) -> str:
        return json.dumps(self._state, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def train(kind: str, texts: Iterable[str], vocab_size: int, special: tuple[str, ...] = SPECIAL) -> FastTokenizer:
    """A tokenizer of `vocab_size` from texts; the same texts give the same tokenizer. With `ENCODER` it says too how others
    frame a text.

    Raises ConfigError for an unknown kind, a vocabulary too small for bytes and specials, or larger than the text supports.
    """
    check(kind, vocab_size)
    core = kinds.KINDS[kind](texts, vocab_size, special)
    if special == ENCODER:
        first, _, last, _ = ENCODER
        core.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{first} $A {last}", pair=f"{first} $A {last} $B:1 {last}:1", special_tokens=[(first, 0), (last, 2)]
        )
    found = FastTokenizer(core)
    if found.vocab_size != vocab_size:
        raise ConfigError(
            _asked(kind, vocab_size),
            found=Words(f"この文章から作れるのは {found.vocab_size} までです。", f"This text supports only {found.vocab_size}."),
            todo=Words("語彙を減らすか、文章を増やしてください。", "Ask for fewer, or give it more text."),
        )
    return found


def check(kind: str, vocab_size: int) -> None:
    """Raises ConfigError for what no text could make: an unknown kind, too small or too large a vocabulary."""
    if kind not in kinds.KINDS:
        raise ConfigError(
            Words(f"トークナイザの種類「{kind}」が指定されました。", f"The tokenizer kind '{kind}' was asked for."),
            found=Words(f"あるのは {'、'.join(kinds.KINDS)} です。", f"There is {', '.join(kinds.KINDS)}."),
            todo=suggestion(kind, list(kinds.KINDS)),
        )
    smallest = len(SPECIAL) + 256
    if vocab_size < smallest:
        raise ConfigError(
            _asked(kind, vocab_size),
            found=Words(f"256 種のバイトと特殊トークンだけで {smallest} 要ります。", f"Bytes and special tokens alone need {smallest}."),
            todo=Words(f"{smallest} 以上にしてください。", f"Ask for at least {smallest}."),
        )
    if vocab_size > LARGEST:
        raise ConfigError(
            _asked(kind, vocab_size),
            found=Words(f"語彙は {LARGEST:,} までです。", f"A vocabulary has at most {LARGEST:,}."),
            todo=Words("小さくしてください。ふつうは 4,000 から 64,000 です。", "Ask for fewer; 4,000 to 64,000 is usual."),
        )


def _asked(kind: str, vocab_size: int) -> Words:
    return Words(f"語彙 {vocab_size} の {kind} を学習しようとしました。", f"Training {kind} with a vocabulary of {vocab_size}.")


def load(path: Path) -> FastTokenizer:
    """A tokenizer.json, or the one in a directory. Raises MissingError and FormatError."""
    asked = Words(f"トークナイザ {path} を読もうとしました。", f"Reading the tokenizer {path}.")
    try:
        file = path / FILE if path.is_dir() else path
        if not file.is_file():
            raise MissingError(
                asked,
                found=Words(f"{FILE} がありません。", f"There is no {FILE}."),
                todo=Words(
                    "tsuzuri tokenizer train で作るか、モデルのディレクトリを指定してください。",
                    "Make one with tsuzuri tokenizer train, or name a model directory.",
                ),
            )
        if file.stat().st_size > MAX_FILE:
            raise ValueError("too large")
        return parse(file.read_text(encoding="utf-8"), asked)
    except TsuzuriError:
        raise
    except OSError as error:
        name = Path(str(error.filename)).name
        raise MissingError(
            asked,
            found=Words(f"{name} を開けません（{error.strerror}）。", f"{name} cannot be opened ({error.strerror})."),
            todo=Words("パスと権限を確かめてください。", "Check the path and the permissions."),
        ) from error
    except ValueError as error:  # too large, or no UTF-8
        raise _unreadable(asked) from error


def parse(text: str, asked: Words) -> FastTokenizer:
    """The content of a tokenizer.json. Raises FormatError, with `asked`."""
    try:
        _check(json.loads(text))
        found = FastTokenizer(tokenizers.Tokenizer.from_str(text))
        if _pieces_are_bytes(found._state) and found.decode(found.encode(PROBE)).removeprefix(" ") != PROBE:
            raise ValueError("text does not come back")
        return found
    except TsuzuriError:
        raise
    except BaseException as error:  # the library raises bare Exception, or a panic that is no Exception, for a file it cannot read
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _unreadable(asked) from error


def _unreadable(asked: Words) -> FormatError:
    return FormatError(
        asked,
        found=Words("tokenizer.json として読めません。", "It cannot be read as a tokenizer.json."),
        todo=Words("壊れているか、別の形式です。入手し直してください。", "It is damaged or of another format: fetch it again."),
    )


def _check(state: Any) -> None:
    """Raises ValueError for what the library itself does not survive, or what would lose text without a word.

    Where the right side of a merge does not begin with `continuing_subword_prefix` it cuts through a character, and the
    process ends (0.23.3). Where a byte has no piece, byte-level BPE leaves that byte out of the ids.
    """
    model = state["model"]
    prefix = model.get("continuing_subword_prefix") or ""
    rights = (merge.split(" ")[-1] if isinstance(merge, str) else merge[1] for merge in model.get("merges", ()))
    if prefix and not all(right.startswith(prefix) for right in rights):
        raise ValueError("merges without the prefix")
    vocabulary = model["vocab"]
    ids = vocabulary if isinstance(vocabulary, dict) else {piece: id for id, (piece, _) in enumerate(vocabulary)}
    if len(set(ids.values())) < len(ids):
        raise ValueError("two pieces of one id")
    if _pieces_are_bytes(state) and not set(bytelevel.alphabet().values()) <= set(ids):
        raise ValueError("bytes without a piece")


def _pieces_are_bytes(state: dict[str, Any]) -> bool:
    """Not so where a decoder falls back to bytes: then the pieces are text, and a space may be added in front of it."""
    decoder = state.get("decoder")
    return decoder is None or decoder["type"] == "ByteLevel"
