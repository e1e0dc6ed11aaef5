"""対話の部屋：会話を受け取り、答えを流す。 / Chat room: messages -> events.

Enters: `Message`s and `Options`. Leaves: `Event`s, from whichever model stands behind the `Chat` seam; and `tsuzuri.load`.
Open first: `template.py` (messages -> ids), then `local.py` (a model directory, and what Python and the commands use).
`stopping.py` says where an answer ends, `history.py` what of a long conversation is still read; `scripted.py` answers
from a list, for tests; `conversations.py` reads chat data. Nothing here knows HTTP or a terminal.
"""
