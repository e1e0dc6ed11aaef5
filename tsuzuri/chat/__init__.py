"""対話の部屋：会話を受け取り、答えを流す。 / Chat room: messages -> events.

Enters: `Message`s and `Options`. Leaves: `Event`s, from whichever model stands behind the `Chat` seam; and `tsuzuri.load`.
Open first: `template.py` (messages -> ids), then `local.py` (a model directory, and what Python and the commands use).
`reading.py` tells what the model writes: `stopping.py` says where an answer ends, `parse.py` finds calls of tools in it, in the form that
`probe.py` found in the template; `calling.py` holds it to the calls that are asked for.
`history.py` says what of a long conversation is still read; `scripted.py` answers from a list, for tests; `conversations.py` reads chat
data. Nothing here knows HTTP or a terminal.
"""
