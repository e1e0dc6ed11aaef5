"""Reranking, in the form of Jina and Cohere: which of several texts are nearest to a question.

In: the JSON of POST /v1/rerank -> a question and texts. In: a vector for each -> the texts in their order, with the cosine of each.
It computes no vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.serve.wire import fields
from tsuzuri.serve.wire.fields import JSON, Field, invalid, recorded, refused, used

MOST, LONGEST = 1024, 1 << 20  # texts, characters of each
FIELDS: tuple[Field, ...] = (
    used("model", "モデルの名前", "the name of a model"),
    used("query", "質問や検索の言葉", "a question, or words to look for"),
    used("documents", f'文章か {{"text": 文章}} の並び（{MOST} 個まで）', f'up to {MOST} texts, or {{"text": …}}'),
    used("top_n", "近いものから何個返すか（なければ全部）", "how many of the nearest come back; unless given all"),
    used("return_documents", "文章も返す（なければ true）", "give the texts back, too; true unless given"),
    recorded("user", "利用者の印", "who it is for"),
    refused("rank_fields", '読むのは "text" だけです。', 'Only "text" is read.', ["text"]),
    refused("max_chunks_per_doc", "文章は分けません。長すぎれば断ります。", "Texts are not divided; one too long is refused."),
    refused("max_tokens_per_doc", "文章は切り詰めません。長すぎれば断ります。", "Texts are not cut; one too long is refused."),
    refused("truncation", "文章は切り詰めません。長すぎれば断ります。", "Texts are not cut; one too long is refused.", False),
    refused("truncate_prompt_tokens", "文章は切り詰めません。長すぎれば断ります。", "Texts are not cut; one too long is refused."),
    refused("return_embeddings", "ベクトルは /v1/embeddings で返します。", "Vectors come from /v1/embeddings.", False),
    refused("priority", "扱いに段階はありません。", "There are no tiers.", 0),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    model: str
    query: str
    documents: tuple[str, ...]
    top: int | None
    documents_back: bool
    marks: Mapping[str, str] = field(default_factory=dict)


def read(request: JSON) -> Wanted:
    """Raises Refusal."""
    fields.check(request, FIELDS)
    given = fields.several(request.get("documents"), "documents", least=1, most=MOST)
    return Wanted(
        fields.needed(request, "model", most=256),
        _filled(fields.needed(request, "query", most=LONGEST), "query"),
        tuple(_document(one, f"documents[{i}]") for i, one in enumerate(given)),
        fields.whole(request, "top_n", 1, 1 << 20),
        fields.boolean(request, "return_documents", default=True),
        fields.marks(request, FIELDS),
    )


def _document(one: object, place: str) -> str:
    if isinstance(one, dict):
        extra = next((name for name in one if name != "text"), None)
        if extra is not None:
            raise invalid(f"{place}.{extra[:80]}", Words("読むのは text だけです。", "Only text is read."), code="unknown_parameter")
        return _filled(fields.needed(one, "text", most=LONGEST, place=f"{place}."), f"{place}.text")
    return _filled(fields.needed({"": one}, "", most=LONGEST, place=place), place)


def _filled(text: str, place: str) -> str:
    if not text:
        raise invalid(place, Words("空の文章は比べられません。", "An empty text cannot be compared."))
    return text


def places(wanted: Wanted) -> list[tuple[str, str]]:
    """Everything that is read, with the place of each in the request: the question first."""
    return [("query", wanted.query), *((f"documents[{i}]", text) for i, text in enumerate(wanted.documents))]


def whole(
    answer_id: str, model: str, wanted: Wanted, vectors: Sequence[Sequence[float]], tokens: int, notices: Sequence[str] = ()
) -> dict[str, Any]:
    """`vectors` of length 1: of the question, then of each text. Equally near ones stay in the order they came in."""
    query, *rest = vectors
    scores = [
        max(-1.0, min(1.0, sum(a * b for a, b in zip(query, each, strict=True)))) for each in rest
    ]  # of one's length there is rounding
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: wanted.top]
    results = [{"index": i, "relevance_score": scores[i], **_text(wanted, i)} for i in order]
    made = {
        "id": answer_id,
        "object": "list",
        "model": model,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return {**made, **({"notices": list(notices)} if notices else {})}


def _text(wanted: Wanted, index: int) -> dict[str, Any]:
    return {"document": {"text": wanted.documents[index]}} if wanted.documents_back else {}
