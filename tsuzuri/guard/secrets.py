"""Registered secrets do not get out, in none of the ways of writing in `encodings.py`, at no cut of the stream.

In: secrets (passwords, keys, a system prompt's canary), and pieces of text. Out: the text with 【非公開】 where a secret stood, as soon
as it is certain. Every character is read once, in order, whatever pieces it came in: so the stream is the whole at every cut. What could
still become a secret is held back; that is at most LONGEST_GAP characters for each of the secret's. A part of a secret is not one:
its first half alone gets through.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tsuzuri.errors import ConfigError, Words
from tsuzuri.guard.encodings import ENCODINGS
from tsuzuri.guard.normal import LOOKALIKE

SHOWN = "【非公開】"
SHORTEST, LONGEST = 8, 512  # characters of a secret: a shorter one would be found in ordinary text
LONGEST_GAP = 32  # characters without a letter between two letters of a secret
MOST_PACKED = 8192  # characters of a run that is taken apart
_DEPTH = 3  # Base64 of Base64 of …


@dataclass(frozen=True, slots=True)
class Leak:
    """Where a secret stood, in places of the whole text, and in which way it was written."""

    secret: str  # the name it was registered by
    encoding: str
    start: int
    stop: int


class Secrets:
    """What is registered, by name. It is compiled once and watches many streams."""

    def __init__(self, registered: Mapping[str, str]) -> None:
        """Raises ConfigError for a secret that is too short or too long to be looked for."""
        for name, secret in registered.items():
            if not (SHORTEST <= len(secret) <= LONGEST and len(_letters_of(secret)) >= SHORTEST):
                raise _refused(name)
        self.names = tuple(registered)
        self.letters = _Automaton(_needles(registered, "letters", _letters_of))
        self.raw = _Automaton(_needles(registered, "raw", _visible_of))

    def watch(self) -> Watch:
        """A new stream."""
        return Watch(self)

    def hide(self, text: str) -> tuple[str, list[Leak]]:
        """The whole text without the secrets, and where they stood."""
        watch = self.watch()
        return watch(text) + watch.flush(), watch.leaks

    def hidden_in(self, text: str) -> tuple[str, str] | None:
        """(name, encoding) of a secret in a text of any length, escapes read; None if there is none."""
        for automaton, read in ((self.letters, _letters_of), (self.raw, _visible_of)):
            state = 0
            for character in read(text):
                state = automaton.next(state, character)
                end = automaton.ends[state]
                if end:
                    return end[1], end[2]
        return None


class Watch:
    """Feed it with pieces; `leaks` are those found so far."""

    def __init__(self, secrets: Secrets) -> None:
        self.leaks: list[Leak] = []
        self._secrets = secrets
        self._held, self._start, self._at = "", 0, 0  # text held back, where it begins, where reading stands
        self._spans: list[tuple[int, int]] = []  # of secrets in what is held
        self._letters = _Reader(secrets.letters, LONGEST_GAP)
        self._decoded = _Reader(secrets.letters, LONGEST_GAP)
        self._raw = _Reader(secrets.raw, LONGEST_GAP)
        self._once, self._twice = _Escapes(), _Escapes()
        self._run: list[str] = []  # a run of letters and digits, which may be something packed
        self._run_start = 0

    def __call__(self, piece: str) -> str:
        """The text that has become certain with this piece."""
        self._held += piece
        for character in piece:
            self._read(character)
        return self._release(self._certain())

    def flush(self) -> str:
        """The text has ended."""
        self._unpack()
        for item in self._twice.last(self._once.last()):
            self._feed(self._decoded, item, _LETTERS[item[0]])
        return self._release(self._at)

    def _read(self, character: str) -> None:
        at, stop = self._at, self._at + 1
        self._at = stop
        item = (character, at, stop)
        self._feed(self._letters, item, _LETTERS[character])
        self._feed(self._raw, item, _VISIBLE[character])
        for once in self._once(item):
            for twice in self._twice(once):
                self._feed(self._decoded, twice, _LETTERS[twice[0]])
        if character in _PACKING or (character in "\r\n" and len(self._run) >= 60):
            if not self._run:
                self._run_start = at
            self._run.append(character)
            if len(self._run) == MOST_PACKED:
                self._unpack()
        elif self._run:
            self._unpack()

    def _feed(self, reader: _Reader, item: tuple[str, int, int], symbols: str) -> None:
        found = reader(item, symbols)
        if found:
            start, stop, name, encoding = found
            self._spans.append((start, stop))
            self.leaks.append(Leak(name, encoding, start, stop))

    def _unpack(self) -> None:
        """The run of letters and digits has ended: whether it holds a secret."""
        run, self._run = "".join(self._run), []
        if len(run) >= SHORTEST and (found := _packed(self._secrets, run, _DEPTH)):
            stop = self._run_start + len(run)
            self._spans.append((self._run_start, stop))
            self.leaks.append(Leak(*found, self._run_start, stop))

    def _certain(self) -> int:
        """Up to where nothing can become a secret any more."""
        places = [self._at, self._letters.begins(self._at), self._raw.begins(self._at), self._decoded.begins(self._at)]
        places += [escapes.start for escapes in (self._once, self._twice) if escapes.start is not None]
        if self._run:
            places.append(self._run_start)
        return min(places)

    def _release(self, certain: int) -> str:
        """What is held, up to a place; a secret that lies across it is held whole."""
        spans = _merged(self._spans)
        for start, stop in spans:
            if start < certain < stop:
                certain = start
        parts, at = [], self._start
        for start, stop in spans:
            if stop <= certain:
                parts += [self._held[at - self._start : start - self._start], SHOWN]
                at = stop
        parts.append(self._held[at - self._start : certain - self._start])
        self._spans = [span for span in spans if span[1] > certain]
        self._held, self._start = self._held[certain - self._start :], certain
        return "".join(parts)


class _Automaton:
    """All needles at once (Aho and Corasick 1975): a state is the longest end of what was read that begins a needle."""

    def __init__(self, needles: Mapping[str, tuple[str, str]]) -> None:
        self.moves: list[dict[str, int]] = [{}]
        self.depth = [0]
        self.ends: list[tuple[int, str, str] | None] = [None]  # the longest needle that ends here: its length, name, encoding
        for needle, (name, encoding) in needles.items():
            state = 0
            for character in needle:
                if character not in self.moves[state]:
                    self.moves[state][character] = len(self.moves)
                    self.moves.append({})
                    self.depth.append(self.depth[state] + 1)
                    self.ends.append(None)
                state = self.moves[state][character]
            self.ends[state] = (len(needle), name, encoding)
        self.back = [0] * len(self.moves)
        waiting = deque(self.moves[0].values())
        while waiting:
            state = waiting.popleft()
            for character, child in self.moves[state].items():
                self.back[child] = self.next(self.back[state], character)
                self.ends[child] = self.ends[child] or self.ends[self.back[child]]
                waiting.append(child)

    def next(self, state: int, character: str) -> int:
        while character not in self.moves[state]:
            if state == 0:
                return 0
            state = self.back[state]
        return self.moves[state][character]


class _Reader:
    """One reading of the stream: a state, and where the characters that led to it stand in the text."""

    def __init__(self, automaton: _Automaton, gap: int) -> None:
        self._automaton, self._gap = automaton, gap
        self._state = 0
        self._starts: deque[int] = deque(maxlen=max(automaton.depth) + 1)
        self._last = 0  # where the last symbol ended

    def __call__(self, item: tuple[str, int, int], symbols: str) -> tuple[int, int, str, str] | None:
        """(start, stop, name, encoding) of a secret that is complete with this character."""
        _, start, stop = item
        if self._state and start - self._last > self._gap:
            self._state = 0
        found = None
        for symbol in symbols:
            self._state = self._automaton.next(self._state, symbol)
            self._starts.append(start)
            self._last = stop
            end = self._automaton.ends[self._state]
            if end:
                found = (self._starts[-end[0]], stop, end[1], end[2])
        return found

    def begins(self, at: int) -> int:
        """Where that which may become a secret begins; `at`, how far the text was read, if there is none."""
        if self._state and at - self._last > self._gap:
            self._state = 0
        depth = self._automaton.depth[self._state]
        return self._starts[-depth] if depth else at


class _Escapes:
    """Escapes as the characters they stand for; all else as it is. `start`: where an escape that is not complete yet begins."""

    def __init__(self) -> None:
        self.start: int | None = None
        self._held: list[tuple[str, int, int]] = []

    def __call__(self, item: tuple[str, int, int]) -> Iterator[tuple[str, int, int]]:
        if not self._held and item[0] not in "&%\\=":
            yield item
            return
        self._held.append(item)
        yield from self._settle(last=False)

    def last(self, items: Iterator[tuple[str, int, int]] | Sequence[tuple[str, int, int]] = ()) -> Iterator[tuple[str, int, int]]:
        """The rest; the text has ended."""
        for item in items:
            yield from self(item)
        yield from self._settle(last=True)

    def _settle(self, *, last: bool) -> Iterator[tuple[str, int, int]]:
        while self._held:
            text = "".join(item[0] for item in self._held)
            match = _ESCAPE.match(text)
            if match:
                taken, self._held = self._held[: match.end()], self._held[match.end() :]
                yield (_unescaped(match), taken[0][1], taken[-1][2])
            elif not last and _BEGUN.fullmatch(text):
                break
            else:
                yield self._held.pop(0)
        self.start = self._held[0][1] if self._held else None


_HEX, _TAIL = "[0-9a-fA-F]", "%[89abAB][0-9a-fA-F]"
_ESCAPE = re.compile(
    rf"&#x({_HEX}{{1,6}});|&#(\d{{1,7}});|%([0-7]{_HEX})|\\u({_HEX}{{4}})|\\x({_HEX}{{2}})|=([0-7][0-9A-F])|&(amp|lt|gt|quot|apos);"
    rf"|(%[cdCD]{_HEX}{_TAIL}|%[eE]{_HEX}(?:{_TAIL}){{2}}|%[fF]{_HEX}(?:{_TAIL}){{3}})"
)
_BEGUN = re.compile(
    rf"&(?:#(?:x{_HEX}{{0,6}}|\d{{0,7}})?|a|am|amp|ap|apo|apos|l|lt|g|gt|q|qu|quo|quot)?|\\(?:u{_HEX}{{0,3}}|x{_HEX}?)?|=[0-7]?"
    rf"|%(?:[0-7]|[c-fC-F]{_HEX}?|[c-fC-F]{_HEX}(?:{_TAIL}){{0,2}}%(?:[89abAB]{_HEX}?)?)?|%[c-fC-F]{_HEX}(?:{_TAIL}){{0,2}}"
)
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


def _unescaped(match: re.Match[str]) -> str:
    if match[7]:
        return _NAMED[match[7]]
    if match[8]:
        return bytes.fromhex(match[8].replace("%", "")).decode("utf-8", "replace")
    code = int(match[2]) if match[2] else int(match[1] or match[3] or match[4] or match[5] or match[6], 16)
    return chr(code) if code < 0x110000 else "\ufffd"


class _Letters(dict[str, str]):
    """A character -> what of it is compared: its letters and digits, small, of any width and look, digits as letters alike."""

    def __missing__(self, character: str) -> str:
        code = ord(character)
        if 0x1F1E6 <= code < 0x1F200:
            plain = chr(97 + code - 0x1F1E6)
        elif 0xE0020 <= code < 0xE007F:
            plain = chr(code - 0xE0000)
        else:
            plain = unicodedata.normalize("NFKC", character)
        folded = "".join(c for c in plain.translate(LOOKALIKE).casefold() if c.isalnum() or 0x2801 <= ord(c) < 0x2900 or c in "@$")
        self[character] = folded.translate(_ALIKE)
        return self[character]


class _Visible(dict[str, str]):
    """A character -> itself, if it is one that can be seen; dots and dashes of Morse alike."""

    def __missing__(self, character: str) -> str:
        seen = not character.isspace() and unicodedata.category(character) not in ("Cf", "Cc", "Mn")
        self[character] = character.translate(_STROKES) if seen else ""
        return self[character]


_ALIKE = str.maketrans("0134578@$l", "oieastbasi")
_STROKES = str.maketrans("·•・−–—", "...---", "")
_LETTERS, _VISIBLE = _Letters(), _Visible()
_PACKING = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-")


def _letters_of(text: str) -> str:
    return "".join(_LETTERS[character] for character in text)


def _visible_of(text: str) -> str:
    return "".join(_VISIBLE[character] for character in text)


def _needles(registered: Mapping[str, str], how: str, read: Callable[[str], str]) -> dict[str, tuple[str, str]]:
    """Every form of every secret as it is compared -> (name, encoding)."""
    found: dict[str, tuple[str, str]] = {}
    for name, secret in registered.items():
        for called, encoding in ENCODINGS.items():
            for form in encoding.forms(secret) if encoding.how == how else ():
                needle = read(form)
                if len(needle) >= SHORTEST:
                    found.setdefault(needle, (name, called))
    return found


def _packed(secrets: Secrets, run: str, depth: int) -> tuple[str, str] | None:
    """(name, encoding) of a secret in what a run of letters and digits holds."""
    for data in _unpacked(run):
        for text in _texts(data):
            found = secrets.hidden_in(text)
            if found:
                return found[0], f"packed {found[1]}"
            inner = text.strip()
            if depth > 1 and len(inner) >= SHORTEST and _PACKING.issuperset(inner) and (found := _packed(secrets, inner, depth - 1)):
                return found
    return None


def _unpacked(run: str) -> Iterator[bytes]:
    whole = run.replace("\n", "").replace("\r", "")
    if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", whole):
        yield bytes.fromhex(whole)
    standard = whole.replace("-", "+").replace("_", "/").partition("=")[0]
    if len(standard) % 4 != 1:
        try:
            yield base64.b64decode(standard + "=" * (-len(standard) % 4))
        except (binascii.Error, ValueError):
            return


def _texts(data: bytes) -> Iterator[str]:
    if data[:2] == b"\x1f\x8b" or (data[:1] == b"x" and len(data) > 2 and (data[0] * 256 + data[1]) % 31 == 0):
        try:
            data = zlib.decompressobj(47).decompress(data, 4 * MOST_PACKED)  # 47: gzip or zlib
        except zlib.error:
            return
    try:
        yield data.decode()
    except UnicodeDecodeError:
        return


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def _refused(name: str) -> ConfigError:
    return ConfigError(
        Words(f"秘密「{name}」を登録しようとしました。", f"Registering the secret '{name}'."),
        found=Words(
            f"文字や数字が {SHORTEST} 字未満か、全体が {LONGEST} 字を超えています。",
            f"It has fewer than {SHORTEST} letters and digits, or more than {LONGEST} characters.",
        ),
        todo=Words(
            "短い秘密はふつうの文章にも現れるため、見張れません。長いものに替えてください。",
            "A short one occurs in ordinary text and cannot be watched for; make it longer.",
        ),
    )
