"""サービスの部屋：プログラムと人のための、一つの入口。 / Service room: one door for programs and people.

Enters: HTTP. Leaves: HTTP, in OpenAI's or Anthropic's form, whole or streamed; behind it stands any `Chat`.
Open first: `app.py` (the route table and the one pipeline that every request goes through). `bounds.py` reads bodies,
`access.py` knows who may do what, `models.py` which models there are, `workers.py` where they compute,
`running.py` drives an answer and stops it.
Add: a route in `routes/` (+), a wire format in `wire/` (pure functions, no server needed to try them).
"""
