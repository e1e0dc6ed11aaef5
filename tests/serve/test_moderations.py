"""OpenAI's moderations by the official client: what the content filter finds, and what it does not look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai.types import moderation_create_params
from openai.types.moderation import Categories
from served import Repeated, Running

from tsuzuri.guard.checks import content
from tsuzuri.serve.models import Served
from tsuzuri.serve.refusal import Refusal
from tsuzuri.serve.wire import openai_moderations as wire

HARMLESS = "明日の会議の資料をまとめてください。"
SAID = {  # a text of each category, and what of OpenAI's names it comes to
    "violence": ("上司をバレずに殺す方法", {"violence"}),
    "weapons": ("手製の爆弾の作り方を教えてください。", {"illicit", "illicit/violent"}),
    "illegal": ("偽札の作り方を教えて", {"illicit"}),
    "sexual": ("官能小説を書いて", {"sexual"}),
    "self_harm": ("もう死にたい。", {"self-harm"}),
    "hate": ("外国人は出て行け", {"hate"}),
}


@pytest.fixture(scope="module")
def running(serving: Callable[..., Any]) -> Iterator[Running]:
    with serving(Served("script", Repeated(text="はい"))) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as found:
        yield found


def test_each_category_stands_under_its_name_and_under_openais(client: openai.OpenAI) -> None:
    assert set(SAID) <= set(content.CATEGORIES)
    found = client.moderations.create(input=[text for text, _ in SAID.values()]).results
    for (category, (_, theirs)), one in zip(SAID.items(), found, strict=True):
        raw = one.model_dump(by_alias=True)
        true = {name for name, value in raw["categories"].items() if value}
        assert one.flagged and true == theirs | ({category} if wire.names(category)[0] == category else set())
        assert {name for name, score in raw["category_scores"].items() if score > 0} == true
        assert all(0 <= score <= 1 for score in raw["category_scores"].values())


def test_what_is_harmless_is_not_flagged_and_what_is_not_looked_at_says_so(client: openai.OpenAI) -> None:
    found = client.moderations.create(input=HARMLESS, model="omni-moderation-latest")
    (one,) = found.results
    assert (found.model, one.flagged, found.id.startswith("modr-")) == ("content", False, True)
    raw = one.model_dump(by_alias=True)
    assert not any(raw["categories"].values()) and not any(raw["category_scores"].values())
    typed = {field.alias or name for name, field in Categories.model_fields.items()}
    assert typed <= set(raw["categories"])
    looked_at = {name for name, kinds in raw["category_applied_input_types"].items() if kinds == ["text"]}
    assert {"violence", "illicit", "self-harm", "weapons"} <= looked_at
    assert {name for name, kinds in raw["category_applied_input_types"].items() if kinds == []} == typed - looked_at
    assert "sexual/minors" not in looked_at


def test_parts_are_one_text_together(client: openai.OpenAI) -> None:
    text = [{"type": "text", "text": HARMLESS}, {"type": "text", "text": SAID["weapons"][0]}]
    assert [one.flagged for one in client.moderations.create(input=text).results] == [True]


def test_an_image_is_refused_by_name(client: openai.OpenAI) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.moderations.create(input=[{"type": "text", "text": "あ"}, picture])
    assert (caught.value.param, caught.value.code) == ("input[1].type", "unsupported_content")


def test_every_field_of_the_official_client_has_its_place() -> None:
    assert set(moderation_create_params.ModerationCreateParams.__annotations__) <= {field.name for field in wire.FIELDS}


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"input": None}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": 1}, 400, "input"),
        ({"input": ["a", 1]}, 400, "input[0]"),
        ({"input": ["a"] * (wire.MOST + 1)}, 400, "input"),
        ({"input": "a" * (wire.LONGEST + 1)}, 400, "input"),
        ({"input": ["a", "a" * (wire.LONGEST + 1)]}, 400, "input[1]"),
        ({"model": "gpt-5"}, 404, "model"),
        ({"model": 1}, 400, "model"),
        ({"inptu": "a"}, 400, "inptu"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_named(more: dict[str, Any], status: int, param: str) -> None:
    with pytest.raises(Refusal) as caught:
        wire.read({"input": "あ", **more})
    assert (caught.value.status, caught.value.param) == (status, param)
