"""生成の部屋：トークンの続きを一つずつ。 / Engine room: ids -> ids.

Enters: a model behind the `past` seam, ids, and `Sampling`. Leaves: tokens with log-probabilities, scores, embeddings.
Open first: `engine.py`, then `cache.py` (what it remembers) and `sampling.py` (how it chooses; add a rule there).
It knows no text and no messages. `sampling.py` needs no torch, so a server of remote models can use it.
"""
