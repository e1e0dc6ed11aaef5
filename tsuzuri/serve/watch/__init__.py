"""Watching the service run. In: what each request did. Out: spans, a comparison with how it used to be, alerts.

Open `watching.py` first: what the service calls. `settings.py` is the file for `--watch`, `steps.py` times the steps of a call, `spans.py`
writes them down, `drift.py` compares, `alerts.py` has the rules, `posting.py` is the one place that sends anything anywhere.
"""
