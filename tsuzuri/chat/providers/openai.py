"""A model of OpenAI's, as a `Chat` over the chat completions API.

In: an address (https://api.openai.com/v1), the model's name, a key. Out: the events of `openai_compatible.py`; OpenAI does not show thoughts
there, it counts them. Only settings that OpenAI has are sent, under its names; any other is refused by name.
"""

from __future__ import annotations

from tsuzuri.chat.providers import _wire
from tsuzuri.chat.providers.openai_compatible import Reading, bearer, request
from tsuzuri.types import Chat

ADDRESS: str | None = "https://api.openai.com/v1"
NAMES = {
    "max_tokens": "max_completion_tokens",  # models that think refuse the old name
    **{name: name for name in ("temperature", "top_p", "logit_bias", "presence_penalty", "frequency_penalty", "seed")},
}


def chat(address: str, model: str, key: str | None = None) -> Chat:
    """Raises ConfigError for what is no address, and for a key that would travel in the clear to another machine."""
    place = _wire.Place(f"{_wire.checked(address, key)}/chat/completions", bearer(key), key)
    return _wire.RemoteChat(place, lambda messages, options: request(model, [*map(_wire.bare, messages)], options, NAMES), Reading)
