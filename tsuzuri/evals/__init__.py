"""評価の部屋：モデルと文章から、誤差つきの数へ。 / Evals room: a model and text -> a number with its error.

Enters: anything that gives the log-probability of ids, and held-out documents. Leaves: frozen results such as `Bits`.
Open first: `bits.py` (bits per byte), then `baselines.py` (what a model has to beat: n-grams and xz).
It trains no network and prints nothing: whoever asks for the number shows it.
"""
