"""段取りの部屋：YAML 一枚から、全工程を順に。 / Recipe room: one YAML file -> a whole run, stage after stage.

Enters: a recipe (`recipes/*.yaml`) and overrides. Leaves: a run directory with one folder a stage, a model, a report.
Open first: `run.py`. Add a stage in `stages/`. It computes nothing itself: it calls text, train, evals and chat.
"""
