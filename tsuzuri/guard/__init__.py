"""見張りの部屋：個人情報を伏せ、秘密を通さず、怪しい指示に気づく。 / Guard room: masks, holds back, and notices; Chat -> Chat.

Enters: text, or a `Chat`. Leaves: findings, text with tokens in place of personal data, a score of how much a text looks like an
injection; or the same Chat, guarded (`guarded.py`). Open first: `finding.py` (what is found), then `normal.py` (how text is
read). Add here: a file in `checks/` is one kind of finding. A detector tells; it is no boundary: what a tool may do is decided
elsewhere. Nothing here imports torch.
"""
