"""通信形式：JSON と会話の間を行き来する純粋な関数。 / Wire formats: pure functions between JSON and a conversation.

In: the JSON of a request. Out: `Asked` (messages, options, what shape the answer has), or a `Refusal` that names the field.
In: events. Out: the JSON of the answer, whole or chunk by chunk; the law is that the chunks put together are the whole.
Nothing here knows a server. Each format has one table of all its fields (`FIELDS`): the check, the tests and the pages read it.
"""
