"""Models in OpenAI's form; where the model is ours, with `max_model_len` as vLLM has it.

In: `Served`. Out: JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tsuzuri.serve.models import Served


def one(model: Served) -> dict[str, Any]:
    made: dict[str, Any] = {"id": model.name, "object": "model", "created": model.created, "owned_by": "tsuzuri"}
    return {**made, "max_model_len": model.length} if model.length else made


def listed(models: Sequence[Served]) -> dict[str, Any]:
    return {"object": "list", "data": [one(model) for model in models]}
