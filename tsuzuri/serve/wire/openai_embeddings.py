"""OpenAI's embeddings.

In: the JSON of POST /v1/embeddings -> what is to be embedded and how. In: vectors -> the answer, as numbers or as base64 of
little-endian float32 (what the official client asks for unless told otherwise). It computes no vectors.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.serve.wire import fields
from tsuzuri.serve.wire.fields import JSON, Field, invalid, recorded, used

MOST = 2048
FIELDS: tuple[Field, ...] = (
    used("model", "モデルの名前", "the name of a model"),
    used("input", f"文章かトークン番号、またはその並び（{MOST} 個まで）", f"a text or token ids, or up to {MOST} of them"),
    used("encoding_format", "float か base64", "float or base64"),
    recorded("user", "利用者の印", "who it is for"),
    used("dimensions", "ベクトルの次元（モデルのものと同じ数だけ）", "how long a vector is: only as long as the model's are"),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    base64: bool
    dimensions: int | None = None
    marks: Mapping[str, str] = field(default_factory=dict)


def read(request: JSON) -> Wanted:
    """Raises Refusal."""
    fields.check(request, FIELDS)
    form = request.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise invalid("encoding_format", Words("float か base64 です。", "It is float or base64."))
    return Wanted(
        fields.needed(request, "model", most=256),
        _inputs(request.get("input")),
        form == "base64",
        fields.whole(request, "dimensions", 1, 1 << 20),
        fields.marks(request, FIELDS),
    )


def places(wanted: Wanted) -> list[tuple[str, str | tuple[int, ...]]]:
    """The inputs with the place of each in the request."""
    return [(f"input[{i}]" if len(wanted.inputs) > 1 else "input", each) for i, each in enumerate(wanted.inputs)]


def check_dimensions(wanted: Wanted, own: int) -> None:
    """Raises Refusal for another number than the model's own: only a vector that was trained to be cut may be cut."""
    if wanted.dimensions not in (None, own):
        words = Words(
            f"このモデルのベクトルは {own} 次元で、切り詰められるように学習したものではありません。",
            f"This model's vectors have {own} dimensions, and were not trained to be cut.",
        )
        raise invalid("dimensions", words, code="unsupported_parameter")


def _inputs(value: object) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(value, str):
        return (_input(value, "input"),)
    found = fields.several(value, "input", least=1, most=1 << 20)
    if all(isinstance(id, int) for id in found):
        return (_input(found, "input"),)
    if len(found) > MOST:
        raise invalid("input", Words(f"{MOST} 個までです。", f"At most {MOST}."))
    return tuple(_input(one, f"input[{i}]") for i, one in enumerate(found))


def _input(one: object, place: str) -> str | tuple[int, ...]:
    """An empty text has no vector."""
    if isinstance(one, str) and one:
        return one
    if isinstance(one, list) and one and all(isinstance(id, int) and not isinstance(id, bool) and 0 <= id < 2**31 for id in one):
        return tuple(one)
    raise invalid(place, Words("空でない文章か、トークン番号の並びが要ります。", "It takes a text that is not empty, or token ids."))


def whole(wanted: Wanted, vectors: Sequence[Sequence[float]], tokens: int, notices: Sequence[str] = ()) -> dict[str, Any]:
    """`notices` stand in a field of our own, where there are any."""
    data = [{"object": "embedding", "index": i, "embedding": _form(vector, wanted.base64)} for i, vector in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": wanted.model, "usage": usage, **({"notices": list(notices)} if notices else {})}


def _form(vector: Sequence[float], in_base64: bool) -> list[float] | str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii") if in_base64 else list(vector)
