"""学習の部屋：文章から重みへ。 / Training room: text -> weights.

Enters: shards or conversations, a model, settings. Leaves: checkpoints, and a model directory.
Open first: `loop.py` (the only loop), then `optim.py`. Add a method in `objectives/`.
It knows no recipe and no command: `recipe/` calls it.
"""
