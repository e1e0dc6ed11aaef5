"""書き下ろしの文例：攻撃と、仕事の文と、個人情報の入った文。 / Texts written for this project, as templates with gaps.

In: a seed. Out: the same texts every time, each with the template it came from: its group. What is learned or tuned is so on the groups
that `held_out` does not hold; what is published is measured on those that it does. No text is anybody's own.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

_GAP = re.compile(r"\{(\w+)\}")
SHARE = 0.35  # of the groups that are held out
PHRASINGS, PHRASINGS_2, PHRASINGS_3 = "phrasings", "phrasings_2", "phrasings_3"  # files of phrasings without gaps
FRESH = "fresh"  # the kind of what was written after the templates and before the phrasings, and is held out whole
FRESH_2 = "fresh_2"  # and of what was written after both
FRESH_3 = "fresh_3"  # and of what was written after the second phrasings
FRESH_4 = "fresh_4"  # and of what was written when half of the third phrasings were learned
FRESH_5 = "fresh_5"  # and of what was written last
WHOLLY = (FRESH, FRESH_2, FRESH_3, FRESH_4, FRESH_5)  # held out
UNGAPPED = (PHRASINGS, PHRASINGS_2, PHRASINGS_3, FRESH_2, FRESH_3, FRESH_4, FRESH_5)  # files whose name is the kind
HARM, HARM_2, HARM_FRESH, HARM_FRESH_2 = "harm", "harm_2", "harm_fresh", "harm_fresh_2"  # files of requests for harm
HARMLESS = "harmless"  # the kind of what only sounds like one


@dataclass(frozen=True, slots=True)
class Example:
    """`kind` is the part of the file the template stands in (of a file of phrasings, the file), `group` the template itself."""

    text: str
    kind: str
    group: str

    @property
    def held_out(self) -> bool:
        return self.kind in WHOLLY or held_out(self.group)


def held_out(group: str) -> bool:
    """By the template's own hash: a new template changes no other's side."""
    return hashlib.sha256(group.encode()).digest()[0] < 256 * SHARE


def attacks(each: int = 10, seed: int = 1) -> list[Example]:
    """Up to `each` fillings of every template of attacks.yaml, the phrasings and the fresh ones, none twice."""
    return [one for file in ("attacks", *UNGAPPED, FRESH) for one in _filled(file, "attacks", each, seed)]


def harmless(each: int = 14, seed: int = 1) -> list[Example]:
    """The same of harmless.yaml, the phrasings and the fresh ones."""
    return [one for file in ("harmless", *UNGAPPED, FRESH) for one in _filled(file, "harmless", each, seed)]


def read(name: str) -> dict[str, object]:
    """A file of this folder."""
    import yaml  # noqa: PLC0415  only who measures or trains reads the corpus

    found = yaml.safe_load(resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def _filled(name: str, part: str, each: int, seed: int) -> Iterator[Example]:
    file = read(name)
    fill, kinds = file.get("fill", {}), file[part]
    assert isinstance(fill, dict) and isinstance(kinds, dict)
    for kind, written in kinds.items():
        templates = [line.replace("⏎", "\n") for line in written.splitlines()] if isinstance(written, str) else written
        for template in templates:
            seen: set[str] = set()
            draw = random.Random(f"{seed} {template}")  # noqa: S311  not for secrets
            for _ in range(4 * each):
                text = filled(template, fill, draw)
                if text not in seen and len(seen) < each:
                    seen.add(text)
                    yield Example(text, name if name in UNGAPPED else kind, template)


def filled(template: str, fill: Mapping[str, Sequence[str]], draw: random.Random) -> str:
    """The template with a choice in every gap, the same for the same gap; {{ and }} stand for braces."""
    chosen: dict[str, str] = {}
    for name in _GAP.findall(template):
        if name in fill and name not in chosen:
            chosen[name] = draw.choice(fill[name])
    text = _GAP.sub(lambda gap: chosen.get(gap[1], gap[0]), template.replace("{{", "\0").replace("}}", "\1"))
    return text.replace("\0", "{").replace("\1", "}")


def content(each: int = 10, seed: int = 1) -> list[Example]:
    """What the lists of the content check are to find, each with its category as `kind`; and what they are not, of kind `harmless`."""
    file, found = read("content"), []
    fill, kinds, none = file["fill"], file["content"], file["harmless"]
    assert isinstance(fill, dict) and isinstance(kinds, dict) and isinstance(none, list)
    for kind, templates in [*kinds.items(), (HARMLESS, none)]:
        for template in templates:
            draw = random.Random(f"{seed} {template}")  # noqa: S311
            texts = dict.fromkeys(filled(template, fill, draw) for _ in range(4 * each))
            found += [Example(text, kind, template) for text in list(texts)[:each]]
    return found


def asked(name: str) -> list[Example]:
    """The same in other words, of HARM or HARM_2, which the weights of the content check are learned from, or of HARM_FRESH or HARM_FRESH_2, all
    of them held out."""
    file = read(name)
    kinds, none = file["content"], file["harmless"]
    assert isinstance(kinds, dict) and isinstance(none, dict)
    lines = [(kind, line) for kind, written in kinds.items() for line in written.splitlines()]
    lines += [(HARMLESS, line) for written in none.values() for line in written.splitlines()]
    return [Example(line, kind, line) for kind, line in lines if line]
