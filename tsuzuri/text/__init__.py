"""文章の部屋：今日は -> [1203, 88]、欠けずに元へ。 / Text room: 今日は -> [1203, 88], and back without loss.

Enters: files and strings. Leaves: ids, shards of ids, and a `tokenizer.json` that others load.
Open first: `bpe.py` (the plain twin), then `fast.py` (the product). It knows no model.
"""
