"""Models that only read, behind the service: vectors by the official client, reranking, and what they refuse by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from serve import readers
from serve.readers import TEXT
from serve.test_serve_command import address, process, until_up
from served import Repeated, Running, until

from tsuzuri.chat import labels
from tsuzuri.errors import ConfigError
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.wire import openai_embeddings, rerank
from tsuzuri.store import ledger
from tsuzuri.text import fast

CAT, COOK = "吾輩は猫である。", "料理とは、食材を切ったり"
PLANTED = "090-1234-5678"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("readers")
    readers.encoder(root / "modern")
    readers.encoder(root / "bert", "bert", "masked")
    readers.encoder(root / "labeller", head="classify")
    readers.words(root / "words")
    return root


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any], places: Path, tiny: Path) -> Iterator[Running]:
    models = [from_directory(places / name) for name in ("modern", "bert", "words")]
    with serving(*models, from_directory(tiny), Served("far", Repeated(text="はい"))) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as found:
        yield found


def refused(running: Running, path: str, body: dict[str, Any]) -> tuple[int, str | None, str | None]:
    with running.client() as raw:
        found = raw.post(path, json=body)
    error = found.json()["error"]
    return found.status_code, error["param"], error["code"]


@pytest.mark.parametrize("name", ["modern", "bert"])
def test_an_encoder_gives_the_vectors_that_it_gives_alone(name: str, client: openai.OpenAI, places: Path) -> None:
    alone = labels.load(places / name)
    found = client.embeddings.create(model=name, input=[CAT, COOK])
    for one, text in zip(found.data, (CAT, COOK), strict=True):
        assert one.embedding == pytest.approx(alone.embed(text).tolist(), abs=1e-5)
    ids = [alone.tokenizer.encode(text) for text in (CAT, COOK)]
    assert found.usage.prompt_tokens == sum(len(alone.frame.around(row)) for row in ids), "what it read, its frame included"
    by_id = client.embeddings.create(model=name, input=ids)
    assert [one.embedding for one in by_id.data] == [pytest.approx(one.embedding, abs=1e-6) for one in found.data]


def test_an_encoder_reads_several_texts_in_one_call_and_answers_in_their_order(
    running: Running, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [TEXT[:length] for length in (3, 30, 1, 22, 9)] * 10
    calls: list[int] = []
    inner = labels.Encoder.embed_rows

    def spied(self: labels.Encoder, rows: Any) -> Any:
        calls.append(len(rows))
        return inner(self, rows)

    alone = [client.embeddings.create(model="modern", input=text) for text in texts[:5]]
    monkeypatch.setattr(labels.Encoder, "embed_rows", spied)
    found = client.embeddings.create(model="modern", input=texts)
    assert sum(calls) == 50 and len(calls) <= 5
    for place, one in enumerate(found.data):
        assert one.embedding == pytest.approx(alone[place % 5].data[0].embedding, abs=1e-5)
    assert found.usage.prompt_tokens == 10 * sum(one.usage.prompt_tokens for one in alone)


def test_who_leaves_ends_it_between_two_calls(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    inner = labels.Encoder.embed_rows

    def slow(self: labels.Encoder, rows: Any) -> Any:
        calls.append(len(rows))
        time.sleep(0.05)
        return inner(self, rows)

    monkeypatch.setattr(labels.Encoder, "embed_rows", slow)
    with running.client() as raw, pytest.raises(httpx2.ReadTimeout):
        raw.post("/v1/embeddings", json={"model": "modern", "input": [CAT] * 640}, timeout=0.2)
    assert until(lambda: running.service.access.under_way == 0)
    assert 0 < len(calls) < 40


def test_word_vectors_are_served_and_words_they_do_not_know_are_told(running: Running) -> None:
    with running.client() as raw:
        found = raw.post("/v1/embeddings", json={"model": "words", "input": ["猫と本", "犬"]}).json()
    assert all(sum(x * x for x in one["embedding"]) == pytest.approx(1, abs=1e-5) for one in found["data"])
    assert len(found["data"][0]["embedding"]) == 4 and found["usage"]["total_tokens"] == 4
    assert len(found["notices"]) == 1 and "1" in found["notices"][0]
    assert refused(running, "/v1/embeddings", {"model": "words", "input": ["猫", "ぬるぽ"]}) == (400, "input[1]", "invalid_value")
    assert refused(running, "/v1/embeddings", {"model": "words", "input": [1, 2]})[:2] == (400, "input")


@pytest.mark.parametrize("model", ["modern", "words"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_only_reads_is_not_asked_to_write(model: str, stream: bool, running: Running) -> None:
    said = [{"role": "user", "content": "あ"}]
    for path, body in {
        "/v1/chat/completions": {"messages": said, "stream": stream},
        "/v1/responses": {"input": "あ", "stream": stream},
        "/v1/completions": {"prompt": "あ", "stream": stream},
        "/tokenize": {"prompt": "あ"},
    }.items():
        assert refused(running, path, {"model": model, **body}) == (400, "model", "unsupported_model"), path
    with running.client() as raw:
        found = raw.post("/v1/messages", json={"model": model, "max_tokens": 1, "messages": said, "stream": stream})
    assert found.status_code == 400 and found.json()["error"]["message"].startswith("model: ")


def test_how_much_it_reads_is_listed_and_what_is_longer_is_refused_by_place(client: openai.OpenAI, running: Running) -> None:
    assert client.models.retrieve("modern").max_model_len == 64
    assert "max_model_len" not in client.models.retrieve("words").model_dump()
    long = {"model": "modern", "input": [CAT, COOK * 40]}
    assert refused(running, "/v1/embeddings", long) == (400, "input[1]", "context_length_exceeded")
    assert refused(running, "/v1/embeddings", {"model": "modern", "input": [[299], [300]]})[:2] == (400, "input[1]")


def test_dimensions_are_the_models_own_or_refused(client: openai.OpenAI, running: Running) -> None:
    for model, own in (("modern", 32), ("tiny", 48), ("words", 4)):
        text = "猫"
        assert len(client.embeddings.create(model=model, input=text, dimensions=own).data[0].embedding) == own
        body = {"model": model, "input": text, "dimensions": own // 2}
        assert refused(running, "/v1/embeddings", body) == (400, "dimensions", "unsupported_parameter")


def test_an_encoder_for_something_else_is_not_served(places: Path) -> None:
    with pytest.raises(ConfigError, match="classify"):
        from_directory(places / "labeller")
    with pytest.raises(ConfigError, match="--quantize"):
        from_directory(places / "modern", quantize="q8_0")


def test_every_field_of_the_official_client_has_its_place() -> None:
    from openai.types import embedding_create_params

    assert set(embedding_create_params.EmbeddingCreateParams.__annotations__) <= {field.name for field in openai_embeddings.FIELDS}


# ── reranking


@pytest.mark.parametrize("model", ["modern", "tiny", "words"])
def test_the_nearest_come_first_by_the_cosine_of_their_vectors(model: str, running: Running, client: openai.OpenAI) -> None:
    texts = ["犬", "料理", "猫", "山"]
    data = client.embeddings.create(model=model, input=["猫", *texts]).data
    query, *rest = (one.embedding for one in data)
    cosines = [sum(a * b for a, b in zip(query, each, strict=True)) for each in rest]
    with running.client() as raw:
        documents: list[Any] = [texts[0], {"text": texts[1]}, *texts[2:]]
        found = raw.post("/v1/rerank", json={"model": model, "query": "猫", "documents": documents}).json()
        cut = raw.post("/rerank", json={"model": model, "query": "猫", "documents": texts, "top_n": 2, "return_documents": False}).json()
    order = sorted(range(4), key=lambda i: -cosines[i])
    assert order[0] == 2
    assert [one["index"] for one in found["results"]] == order
    assert [one["relevance_score"] for one in found["results"]] == pytest.approx([cosines[i] for i in order], abs=1e-5)
    assert [one["document"] for one in found["results"]] == [{"text": texts[i]} for i in order]
    assert all(-1 <= one["relevance_score"] <= 1 for one in found["results"]), "rounding does not pass it"
    assert [set(one) for one in cut["results"]] == [{"index", "relevance_score"}] * 2
    assert [one["index"] for one in cut["results"]] == order[:2]
    embedded = client.embeddings.create(model=model, input=["猫", *texts]).usage.prompt_tokens
    assert found["usage"] == {"prompt_tokens": embedded, "total_tokens": embedded}
    assert found["model"] == model


def test_equally_near_ones_stay_in_their_order() -> None:
    wanted = rerank.read({"model": "m", "query": "a", "documents": ["x", "y", "z"]})
    found = rerank.whole("i", "m", wanted, [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], 4)
    assert [one["index"] for one in found["results"]] == [1, 0, 2]


def test_what_is_longer_than_the_model_reads_is_named(running: Running) -> None:
    body = {"model": "modern", "query": CAT, "documents": ["猫", COOK * 40]}
    assert refused(running, "/v1/rerank", body) == (400, "documents[1]", "context_length_exceeded")
    assert refused(running, "/v1/rerank", {**body, "query": COOK * 40}) == (400, "query", "context_length_exceeded")
    assert refused(running, "/v1/rerank", {**body, "model": "far"}) == (400, "model", "unsupported_model")


@pytest.mark.parametrize("field", [field for field in rerank.FIELDS if field.use == "refused"], ids=lambda field: field.name)
def test_what_is_refused_is_refused_by_name(field: Any) -> None:
    base = {"model": "m", "query": "a", "documents": ["b"]}
    with pytest.raises(Refusal) as caught:
        rerank.read({**base, field.name: "something else"})
    assert (caught.value.param, caught.value.code) == (field.name, "unsupported_parameter")
    for value in (None, *field.neutral):
        rerank.read({**base, field.name: value})


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": ["a"]}, "query"),
        ({"query": "a" * (rerank.LONGEST + 1)}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a"] * (rerank.MOST + 1)}, "documents"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": ["a", 1]}, "documents[1]"),
        ({"documents": ["a", None]}, "documents[1]"),
        ({"documents": [{"text": ""}]}, "documents[0].text"),
        ({"documents": [{}]}, "documents[0].text"),
        ({"documents": [{"text": "a", "title": "b"}]}, "documents[0].title"),
        ({"documents": [[1, 2]]}, "documents[0]"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": 1.5}, "top_n"),
        ({"return_documents": 1}, "return_documents"),
        ({"documentz": 1}, "documentz"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as caught:
        rerank.read({"model": "m", "query": "a", "documents": ["b"], **more})
    assert (caught.value.status, caught.value.param) == (400, param)


# ── paid for


def test_vectors_are_paid_for_to_the_token(serving: Callable[..., Any], places: Path, make_key: Callable[..., Any], db: Any) -> None:
    """Ten micro-yen a token that is read; then the key has no money for another request."""

    def cost(model: str, *, input: int, output: int, cached: int = 0, at: int) -> int:
        return 10 * input

    key, secret = make_key("embeddings")
    headers = {"authorization": f"Bearer {secret}"}
    with serving(from_directory(places / "modern"), cost=cost) as running, running.client() as raw:
        ask = lambda: raw.post("/v1/embeddings", json={"model": "modern", "input": [CAT]}, headers=headers)  # noqa: E731
        used = ask().json()["usage"]["total_tokens"]
        assert used == len(fast.load(places / "modern").encode(CAT)) + 2
        assert ledger.balance(db, f"key:{key.id}").spent == 10 * used
        ledger.set_limit(db, f"key:{key.id}", 10 * used + 1)
        assert ask().status_code == 429
        assert ledger.balance(db, f"key:{key.id}").spent == 10 * used


# ── as a person starts it


def test_an_encoders_directory_is_served_by_the_command(places: Path, tmp_path: Path) -> None:
    with process(tmp_path, "--model", str(places / "modern")) as server:
        url, key = address(server)
        until_up(url)
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key or "", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["modern"]
            assert len(client.embeddings.create(model="modern", input=CAT).data[0].embedding) == 32
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(model="modern", messages=[{"role": "user", "content": "あ"}])
            assert caught.value.param == "model"


def test_what_has_no_price_costs_nothing_on_a_machine_of_our_own(
    serving: Callable[..., Any], places: Path, make_key: Callable[..., Any], db: Any
) -> None:
    key, secret = make_key("embeddings")
    ledger.set_limit(db, f"key:{key.id}", 1)
    with serving(from_directory(places / "modern"), cost=lambda model, **_: None) as running, running.client() as raw:
        found = raw.post("/v1/embeddings", json={"model": "modern", "input": CAT}, headers={"authorization": f"Bearer {secret}"})
    assert found.status_code == 200
