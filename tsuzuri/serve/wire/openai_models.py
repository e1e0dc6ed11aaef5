"""Models in OpenAI's form, with what Anthropic's client reads beside it; where the model is ours, with `max_model_len` as vLLM has it; and what it costs.

In: `Served`, and its price. Out: JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from tsuzuri.serve.models import Served

Price: TypeAlias = Mapping[str, str] | None  # `Books.price`


def one(model: Served, price: Price) -> dict[str, Any]:
    made: dict[str, Any] = {"id": model.name, "object": "model", "created": model.created, "owned_by": "tsuzuri"}
    made |= {
        "type": "model",
        "display_name": model.name,
        "created_at": datetime.fromtimestamp(model.created, UTC).isoformat(),
        "pricing": price,
    }
    return {**made, "max_model_len": model.length} if model.length else made


def listed(models: Sequence[tuple[Served, Price]]) -> dict[str, Any]:
    names: list[str | None] = [model.name for model, _ in models] or [None]
    data = [one(model, price) for model, price in models]
    return {"object": "list", "data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}
