"""Corpus: files of text in, a clean, deduplicated, divided corpus out.

Enters: .txt, .jsonl and .parquet, plain or packed as .zst or .gz. Leaves: train.jsonl.zst, validation.jsonl.zst, a manifest
of sources and licences, and a report of what was dropped and why. It knows no tokens: those are `text/shards.py`.
Open `build.py` first. A new format goes to `read.py`, a new filter to `clean.py`; `aozora.py` knows Aozora Bunko's markup.
"""
