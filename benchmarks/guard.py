"""What the guard finds, misses and takes for what it is not, with intervals; and how fast.

    python benchmarks/guard.py [--outside DIRECTORY] [--plain DIRECTORY] [--no-secrets]

Three corpora of this repository (tsuzuri/guard/corpus): attacks and harmless sentences, personal data, content. Injection is measured at
its one threshold on templates that were held out of training, and on those written last (`fresh`), each text also in other writings.
Secrets are registered, written in every encoding, and cut anywhere. Intervals are Wilson's, 95 %, over texts; `templates` says how many
groups stand behind them, for texts of one template are alike. Same seed, same numbers; only the speeds are the machine's.
`--outside` measures public sets that are not part of this repository, and that nothing was learned from or set by: CyberSecEval's prompt
injections and BIPIA's attacks (MIT) in DIRECTORY/prompt_injection, AISI Japan's prompts (Apache-2.0) in DIRECTORY/aisi_safety_ja.
`--plain` counts false alarms on ordinary texts: documents of DIRECTORY's *.jsonl.zst that are not in `sample/`.
"""

from __future__ import annotations

import base64
import codecs
import csv
import io
import itertools
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import _protocol
import zstandard

from tsuzuri.guard import corpus, train
from tsuzuri.guard.checks import content, special_care
from tsuzuri.guard.corpus import Example, personal
from tsuzuri.guard.encodings import ENCODINGS
from tsuzuri.guard.finding import look
from tsuzuri.guard.finding import personal as kinds
from tsuzuri.guard.mask import Vault
from tsuzuri.guard.score import load, score
from tsuzuri.guard.secrets import Secrets
from tsuzuri.guard.stream import mask

LATER = (corpus.PHRASINGS, corpus.PHRASINGS_2, corpus.PHRASINGS_3, *corpus.WHOLLY)
PLAIN, FIRST = 300, 1000  # documents of a file of ordinary texts; characters of each
CASES = 100_000  # of secrets written somewhere
ROUNDS = 3  # clauses that an adaptive attacker may add
EDGE = 6  # characters of an encoding's dress (&#, 0x) that may stay
LOW = "abcdefghijklmnopqrstuvwxyz"
HALF = str.maketrans(
    dict(
        zip(
            "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲンァィゥェォッャュョー",
            "ｱｲｳｴｵｶｷｸｹｺｻｼｽｾｿﾀﾁﾂﾃﾄﾅﾆﾇﾈﾉﾊﾋﾌﾍﾎﾏﾐﾑﾒﾓﾔﾕﾖﾗﾘﾙﾚﾛﾜｦﾝｧｨｩｪｫｯｬｭｮｰ",
            strict=True,
        )
    )
)
VOICED = dict(
    zip(
        "ガギグゲゴザジズゼゾダヂヅデドバビブベボパピプペポ",
        [f"{c}ﾞ" for c in "ｶｷｸｹｺｻｼｽｾｿﾀﾁﾂﾃﾄﾊﾋﾌﾍﾎ"] + [f"{c}ﾟ" for c in "ﾊﾋﾌﾍﾎ"],
        strict=True,
    )
)


def latin(text: str) -> bool:
    return text.isascii() or sum(c.isascii() for c in text) > 0.8 * len(text)


def between(mark: str) -> Callable[[str], str]:
    return lambda text: mark.join(text)


def shifted(text: str, start: str, stop: str, by: int) -> str:
    return "".join(chr(ord(c) + by) if start <= c <= stop else c for c in text)


# name -> (what it does, whether it is for texts in Latin letters only)
TRANSFORMS: dict[str, tuple[Callable[[str], str], bool]] = {
    "zenkaku": (lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text), False),
    "hankaku-kana": (lambda text: text.translate(str.maketrans(VOICED)).translate(HALF), False),
    "hiragana": (lambda text: shifted(text, "ァ", "ヶ", -0x60), False),
    "katakana": (lambda text: shifted(text, "ぁ", "ゖ", 0x60), False),
    "zero-width": (between("\u200b"), False),
    "spaced": (between(" "), False),
    "ideographic space": (between("\u3000"), False),
    "tags": (lambda text: "".join(chr(0xE0000 + ord(c)) if " " <= c <= "~" else c for c in text), False),
    "base64": (lambda text: base64.b64encode(text.encode()).decode(), False),
    "rot13": (lambda text: codecs.encode(text, "rot13"), True),
    "leet": (lambda text: text.translate(str.maketrans("aeiostAEIOST", "431057431057")), True),
    "homoglyph": (lambda text: text.translate(str.maketrans("aceopxyijs", "асеорхуіјѕ")), True),
}


def main() -> None:
    arguments = _protocol.arguments(__doc__)
    arguments.add_argument("--outside", type=Path, help="directory of public sets; without it, those of the record before stay")
    arguments.add_argument("--plain", type=Path, help="directory of ordinary texts; without it, the counts of the record before stay")
    arguments.add_argument("--no-secrets", action="store_true", help="the counts of secrets of the record before stay: they take longest")
    given = arguments.parse_args()
    record = {
        "injection": injection(),
        "personal": {"beside": found_personal(fresh=False), "fresh": found_personal(fresh=True)},
        "special care": {"beside": found_special_care(fresh=False), "fresh": found_special_care(fresh=True)},
        "content": found_content(),
        "secrets": earlier(given.out, "secrets") if given.no_secrets else leaks(),
        "outside": outside(given.outside) if given.outside else earlier(given.out, "outside"),
        "plain": plain(given.plain) if given.plain else earlier(given.out, "plain"),
        "speed": speed(given.rounds),
    }
    path = _protocol.write("guard", record, given.out)
    sys.stdout.write(f"{path}\n")


def wilson(hits: int, count: int) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson 1927)."""
    z, share = 1.959964, hits / count if count else 0.0
    if not count:
        return {"hits": 0, "of": 0, "value": None, "interval": None}
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return {"hits": hits, "of": count, "value": share, "interval": [max(0.0, middle - half), min(1.0, middle + half)]}


def caught(texts: Iterable[str]) -> dict[str, Any]:
    threshold = load().threshold
    hits = [score(text).value >= threshold for text in texts]
    return wilson(sum(hits), len(hits))


def injection() -> dict[str, Any]:
    attacks, harmless = corpus.attacks(), corpus.harmless()
    parts = {
        "training": (lambda one: not one.held_out),
        "held out": (lambda one: one.held_out and one.kind not in LATER),
        "phrasings": (lambda one: one.held_out and one.kind == corpus.PHRASINGS),
        "phrasings 2": (lambda one: one.held_out and one.kind == corpus.PHRASINGS_2),
        "phrasings 3": (lambda one: one.held_out and one.kind == corpus.PHRASINGS_3),
        "fresh": (lambda one: one.kind == corpus.FRESH),
        "fresh 2": (lambda one: one.kind == corpus.FRESH_2),
        "fresh 3": (lambda one: one.kind == corpus.FRESH_3),
        "fresh 4": (lambda one: one.kind == corpus.FRESH_4),
        "fresh 5": (lambda one: one.kind == corpus.FRESH_5),
    }
    found: dict[str, Any] = {"threshold": load().threshold, "attacks": len(attacks), "harmless": len(harmless)}
    for name, belongs in parts.items():
        bad, good = [one for one in attacks if belongs(one)], [one for one in harmless if belongs(one)]
        found[name] = {
            "recall": caught(one.text for one in bad) | {"templates": groups(bad)},
            "false alarms": caught(one.text for one in good) | {"templates": groups(good)},
        }
    unseen, calm = [one for one in attacks if one.held_out], [one for one in harmless if one.held_out]
    found["hard negatives"] = caught(one.text for one in calm if one.kind in LATER) | {
        "templates": groups([one for one in calm if one.kind in LATER])
    }
    found["kinds"] = {kind: caught(one.text for one in unseen if one.kind == kind) for kind in dict.fromkeys(one.kind for one in unseen)}
    found["false alarms by kind"] = {
        kind: caught(one.text for one in calm if one.kind == kind) for kind in dict.fromkeys(one.kind for one in calm)
    }
    found["transforms"] = {}
    for name, (change, only_latin) in TRANSFORMS.items():
        texts = [one.text for one in unseen if not only_latin or latin(one.text)]
        found["transforms"][name] = {
            "plain": caught(texts),
            "changed": caught(map(change, texts)),
            "false alarms": caught(change(one.text) for one in calm if not only_latin or latin(one.text)),
        }
    found["in a document"] = documents(unseen, calm)
    found["adaptive"] = adaptive(unseen, calm)
    found["others' texts"] = {name: caught(texts) for name, texts in written_by_others()}
    return found


def outside(directory: Path) -> dict[str, Any]:
    """What the injection score says of attacks, and of e-mails that are none; and what share of each set the content check flags."""
    injections = directory / "prompt_injection"
    found: dict[str, Any] = {"injection": {}, "content": {}}
    english = json.loads((injections / "cyberseceval_prompt_injection_en.json").read_text(encoding="utf-8"))
    for kind in ("direct", "indirect"):
        found["injection"][f"CyberSecEval, {kind}"] = caught(one["user_input"] for one in english if one["injection_type"] == kind)
    for name in ("text", "code"):
        attacks = json.loads((injections / f"bipia_{name}_attack_test.json").read_text(encoding="utf-8"))
        found["injection"][f"BIPIA, {name}"] = caught(text for texts in attacks.values() for text in texts)
    emails = [json.loads(line) for line in (injections / "bipia_email_test.jsonl").read_text(encoding="utf-8").splitlines()]
    found["injection"]["BIPIA, e-mails (no attacks)"] = caught(
        one["context"] if isinstance(one["context"], str) else "\n".join(one["context"]) for one in emails
    )
    for path in sorted((directory / "aisi_safety_ja").glob("*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as file:
            flagged = [any(content.scores(row["text"]).values()) for row in csv.DictReader(file)]
        found["content"][path.stem.split("_")[2]] = wilson(sum(flagged), len(flagged))
    return found


def earlier(out: Path, part: str) -> dict[str, Any] | None:
    path = out / "guard.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")).get(part) if path.exists() else None
    return found


def plain(directory: Path) -> dict[str, Any]:
    """False alarms on the beginnings of ordinary documents that nothing was learned from: each of the three that tell by words."""
    known = {text[:200] for held in (True, False) for texts in train.sample(learned=held).values() for text in texts}
    found: dict[str, Any] = {}
    for path in sorted(directory.glob("*.jsonl.zst")):
        with path.open("rb") as file:
            lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
            texts = [
                text[:FIRST] for line in itertools.islice(lines, 0, 20 * PLAIN, 5) if (text := json.loads(line)["text"])[:200] not in known
            ]
        drawn = random.Random(1).sample(texts, min(PLAIN, len(texts)))
        found[path.name.partition(".")[0]] = {
            "injection": caught(drawn),
            **{name: wilson(sum(bool(look(text, (name,))) for text in drawn), len(drawn)) for name in ("content", "special_care")},
        }
    return found


def documents(attacks: Sequence[Example], harmless: Sequence[Example]) -> dict[str, Any]:
    """Twenty harmless sentences, with an attack among them and without."""
    draw = random.Random(1)
    with_one, without = [], []
    for _ in range(200):
        sentences = [one.text for one in draw.sample(harmless, 20)]
        without.append("\n".join(sentences))
        with_one.append("\n".join([*sentences[:10], draw.choice(attacks).text, *sentences[10:]]))
    return {"recall": caught(with_one), "false alarms": caught(without)}


def adaptive(attacks: Sequence[Example], harmless: Sequence[Example]) -> dict[str, Any]:
    """Who sees the score and joins harmless words to the attack, without an end of sentence between: 30 tries for each of ROUNDS clauses, the best
    kept. Of 200 attacks, and how many of them were found before."""
    draw, rounds = random.Random(1), []
    texts = [one.text for one in draw.sample(attacks, 200)]
    clauses = [one.text.rstrip("。.!?！？") for one in harmless if 8 < len(one.text) < 40 and "\n" not in one.text]
    rounds.append(caught(texts))
    for _ in range(ROUNDS):
        tried = [[text, *(f"{clause}、{text}" for clause in draw.sample(clauses, 15)), *(f"{text.rstrip('。.')}、{clause}" for clause in draw.sample(clauses, 15))] for text in texts]  # fmt: skip
        texts = [min(one, key=lambda text: score(text).value) for one in tried]
        rounds.append(caught(texts))
    return {"before": rounds[0], "after each clause": rounds[1:]}


def written_by_others() -> Iterator[tuple[str, list[str]]]:
    """Harmless texts that nobody wrote for this: of the sample, the first 1,000 characters of 150 documents a part, and up to 800 questions;
    only of those documents that nothing was learned from."""
    for name, texts in train.sample(learned=False).items():
        yield name, random.Random(1).sample(texts, min(800 if name.startswith("chat") else 150, len(texts)))


def groups(examples: Iterable[Example]) -> int:
    return len({one.group for one in examples})


def found_personal(*, fresh: bool) -> dict[str, Any]:
    """Of each kind: a finding is right when kind and both ends are."""
    right, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    texts, structured_kinds = personal.labelled(fresh=fresh), tuple(kind for kind in kinds() if kind != "special_care")
    for one in texts:
        got, wanted = {(f.kind, f.start, f.stop) for f in look(one.text, structured_kinds)}, {*one.spans}
        named = "full_name" if one.kind == "full_name" else None
        for kind, _, _ in got & wanted:
            right[named or kind] += 1
        for kind, _, _ in wanted - got:
            missed[named or kind] += 1
        for kind, _, _ in got - wanted:
            wrong[kind] += 1
    each = {
        kind: {"precision": wilson(right[kind], right[kind] + wrong[kind]), "recall": wilson(right[kind], right[kind] + missed[kind]), "f1": 2 * right[kind] / max(1, 2 * right[kind] + wrong[kind] + missed[kind])}
        for kind in sorted({*right, *wrong, *missed})
    }  # fmt: skip
    structured = [kind for kind in each if kind not in ("name", "full_name", "postal_address")]
    hits, false, lost = (sum(count[kind] for kind in structured) for count in (right, wrong, missed))
    return {
        "texts": len(texts),
        "templates": len({one.group for one in texts}),
        "kinds": each,
        "structured": {"precision": wilson(hits, hits + false), "recall": wilson(hits, hits + lost)},
    }


def found_special_care(*, fresh: bool) -> dict[str, Any]:
    """Of each category: a finding is right when the category and both ends are; and how often there is one in talk in general."""
    right, wrong, missed, alarms = Counter[str](), Counter[str](), Counter[str](), []
    texts = personal.special(fresh=fresh)
    for one in texts:
        got, wanted = {(f.kind, f.start, f.stop) for f in look(one.text, ("special_care",))}, {*one.spans}
        for count, spans in ((right, got & wanted), (missed, wanted - got), (wrong, got - wanted)):
            count.update(kind.partition(".")[2] for kind, _, _ in spans)
        if not wanted:
            alarms.append(bool(got))
    hits, false, lost = right.total(), wrong.total(), missed.total()
    return {
        "texts": len(texts),
        "templates": len({one.group for one in texts}),
        "categories": {
            name: {"precision": wilson(right[name], right[name] + wrong[name]), "recall": wilson(right[name], right[name] + missed[name])}
            for name in special_care.CATEGORIES
        },
        "all": {"precision": wilson(hits, hits + false), "recall": wilson(hits, hits + lost)},
        "false alarms": wilson(sum(alarms), len(alarms)),
        "false alarms in business": alarms_of("special_care", (one.text for one in corpus.harmless())),
    }


def alarms_of(check: str, texts: Iterable[str]) -> dict[str, Any]:
    """In how many of the texts a check finds anything."""
    found = [bool(look(text, (check,))) for text in texts]
    return wilson(sum(found), len(found))


def found_content() -> dict[str, Any]:
    """Of what the lists were written beside; of the requests that were held out of what the weights learned, and of those written last."""
    parts = {
        "beside": corpus.content(),
        "held out": [one for name in (corpus.HARM, corpus.HARM_2) for one in corpus.asked(name) if one.held_out],
        "fresh": corpus.asked(corpus.HARM_FRESH),
        "fresh 2": corpus.asked(corpus.HARM_FRESH_2),
    }
    business = corpus.harmless()
    return {
        **{name: _content(texts) for name, texts in parts.items()},
        "false alarms in business": alarms_of("content", (one.text for one in business)),
        "false alarms in business held out": alarms_of("content", (one.text for one in business if one.held_out)),
        "others' texts": {name: alarms_of("content", texts) for name, texts in written_by_others()},
    }


def _content(texts: Sequence[Example]) -> dict[str, Any]:
    hits, named, counts, calm = Counter[str](), 0, Counter[str](), []
    for one in texts:
        got = {f.kind.partition(".")[2] for f in look(one.text, ("content",))}
        if one.kind == corpus.HARMLESS:
            calm.append(bool(got))
        else:
            counts[one.kind], hits[one.kind], named = counts[one.kind] + 1, hits[one.kind] + bool(got), named + (one.kind in got)
    return {
        "recall": {kind: wilson(hits[kind], counts[kind]) for kind in counts},
        "all": wilson(hits.total(), counts.total()),
        "by the right name": wilson(named, hits.total()),
        "false alarms": wilson(sum(calm), len(calm)),
    }


def leaks() -> dict[str, Any]:
    """Each encoding of random secrets inside ordinary text, the stream cut anywhere: what of it came out, and whether the cuts mattered."""
    draw, differing = random.Random(1), 0
    alphabet = LOW + LOW.upper() + "0123456789-_"
    carriers = [one.text for one in corpus.harmless()]
    leaked = dict.fromkeys(ENCODINGS, 0)
    tried = dict.fromkeys(ENCODINGS, 0)
    while sum(tried.values()) < CASES:
        middle = "".join(draw.choice(alphabet) for _ in range(draw.randint(10, 30)))
        secret = draw.choice(LOW) + middle + draw.choice(LOW)  # what stands before the first letter and behind the last is not hidden
        registered = Secrets({"key": secret})
        for name, encoding in ENCODINGS.items():
            for form in encoding.forms(secret):
                before, after = draw.choice(carriers), draw.choice(carriers)
                text = f"{before} {form} {after}"
                whole, found = registered.hide(text)
                cuts = sorted(draw.sample(range(1, len(text)), min(6, len(text) - 1)))
                watch = registered.watch()
                streamed = "".join(watch(text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)) + watch.flush()
                differing += streamed != whole
                tried[name] += 1
                place = range(len(before) + 1, len(before) + 1 + len(form))
                hidden = {at for leak in found for at in range(leak.start, leak.stop)}
                leaked[name] += sum(at not in hidden and text[at] != "*" for at in place) > EDGE
    clean = Secrets({"key": "k7Rt-92xQ-mmZp-41Lw"})
    false = sum(clean.hide(text)[0] != text for text in carriers)
    each = {name: {"tried": tried[name], "leaked": leaked[name]} for name in ENCODINGS}
    count = sum(tried.values())
    return {
        "encodings": each,
        "tried": count,
        "leaked": sum(leaked.values()),
        "bound": 3 / count,  # of the rate, 95 %, where none leaked
        "cut differently": differing,
        "false alarms": wilson(false, len(carriers)),
    }


def speed(rounds: int) -> dict[str, Any]:
    """Seconds of one core; text of harmless sentences, and of sentences full of personal data."""
    business = "\n".join(one.text for one in corpus.harmless())[:60_000]
    dense = "\n".join(one.text for one in personal.labelled(3))[:30_000]
    secrets = Secrets({"key": "k7Rt-92xQ-mmZp-41Lw"})

    def best(work: Callable[[], object]) -> float:
        took = []
        for _ in range(rounds):
            start = time.process_time()
            work()
            took.append(time.process_time() - start)
        return sorted(took)[len(took) // 2]

    def rate(text: str, work: Callable[[], object]) -> float:
        return len(text.encode()) / best(work) / 1e6

    return {
        "score ms per 1000 characters": best(lambda: score(business)) * 1e6 / len(business),
        "mask MB/s, business": rate(business, lambda: mask(business, Vault(), kinds())),
        "mask MB/s, personal data in every line": rate(dense, lambda: mask(dense, Vault(), kinds())),
        "look MB/s, business": rate(business, lambda: look(business, kinds())),
        "content MB/s": rate(business, lambda: look(business, ("content",))),
        "secrets MB/s": rate(business[:20_000], lambda: secrets.hide(business[:20_000])),
    }


if __name__ == "__main__":
    main()
