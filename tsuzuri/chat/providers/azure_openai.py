"""A model of OpenAI's deployed in Azure, as a `Chat`.

In: the address of a resource with its version (https://NAME.openai.azure.com/openai/v1), the name of the deployment, a key. Out: the events
of `openai_compatible.py`. The key travels in a header of its own. A question that Azure's filter refuses ends as a filtered answer does:
with a Notice and Done("content_filter").
"""

from __future__ import annotations

from tsuzuri.chat.providers import _wire
from tsuzuri.chat.providers.openai import NAMES
from tsuzuri.chat.providers.openai_compatible import Reading, request
from tsuzuri.types import Chat

ADDRESS: str | None = None  # each resource has its own


def chat(address: str, model: str, key: str | None = None) -> Chat:
    """Raises ConfigError for what is no address, and for a key that would travel in the clear to another machine."""
    place = _wire.Place(f"{_wire.checked(address, key)}/chat/completions", {"api-key": key} if key else {}, key)
    return _wire.RemoteChat(place, lambda messages, options: request(model, [*map(_wire.bare, messages)], options, NAMES), Reading)
