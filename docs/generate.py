"""The generated parts of the pages: the map of the house, the verbs, the measured tables.

In: docstrings, the verbs' help lines, benchmarks/results/*.json. Out: the same pages with the text between
`<!-- generated: NAME -->` and `<!-- end -->` made anew. `--check` changes nothing and fails if a page is out of date.
Each file of `tables/` makes the parts of one subject; its PARTS say what pages call them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from tables import families, guard, house, measured, service, targets, tasks, vectors, weights

ROOT = Path(__file__).parent.parent
# pages in both languages that have a generated part
GENERATED = (
    "history",
    "families",
    "encoders",
    "models",
    "native",
    "tasks",
    "vectors",
    "guard",
    "guard-content",
    "guard-secrets",
    "guard-special-care",
    "service",
    "service-fields",
    "service-ollama",
    "service-responses",
    "service-settings",
    "measured",
    "targets",
)
PAGES = {"README.md": "en", "README.ja.md": "ja"} | {f"docs/{lang}/{name}.md": lang for name in GENERATED for lang in ("en", "ja")}
MARKED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
PARTS = {
    name: make
    for subject in (families, guard, house, measured, service, targets, tasks, vectors, weights)
    for name, make in subject.PARTS.items()
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    stale = [page for page, language in PAGES.items() if made_anew(ROOT / page, language, write=not parser.parse_args().check)]
    if stale and parser.parse_args().check:
        sys.exit(f"out of date: {', '.join(stale)}; run make docs")


def made_anew(page: Path, language: str, *, write: bool) -> bool:
    """Whether the page was out of date; writes it if asked."""
    os.environ["TSUZURI_LANG"] = language  # names come in the reader's language
    before = page.read_text(encoding="utf-8")
    after = MARKED.sub(lambda match: f"{match[1]}{PARTS[match[2]](language)}\n{match[3]}", before)
    if write and after != before:
        page.write_text(after, encoding="utf-8")
    return after != before


if __name__ == "__main__":
    main()
