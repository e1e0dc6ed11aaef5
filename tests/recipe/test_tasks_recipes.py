"""The recipes of tasks through the real command, small: each runs to its end, reports what it has to, and transformers agrees."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from place import ROOT, SMALL_TASKS

from tsuzuri import directory
from tsuzuri.chat import labels
from tsuzuri.chat.local import LocalModel
from tsuzuri.commands import cli
from tsuzuri.errors import ConfigError, MissingError
from tsuzuri.evals import encoders
from tsuzuri.model import weights
from tsuzuri.model.past import Bidirectional
from tsuzuri.recipe import recipe as recipes
from tsuzuri.recipe.plan import plan

HEADS = {
    "classify": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
    "extract": transformers.AutoModelForQuestionAnswering,
    "embed": transformers.AutoModel,
}
TEXT = "第三条の規定による届出は、平成二十年四月一日までに行う。"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("tasks")
    for name in ("recipes", "sample"):
        (found / name).symlink_to(ROOT / name)
    return found


@pytest.fixture(scope="module")
def ran(place: Path) -> Any:
    """name -> the folder in which that recipe has run; each runs once."""

    def folder(name: str) -> Path:
        if not (place / "runs" / name / "report.md").is_file():
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(place)
                patch.setattr("tsuzuri.recipe.plan.PROBE_SECONDS", 0.1)
                done = CliRunner().invoke(cli, ["run", f"recipes/{name}.yaml", *SMALL_TASKS[name]])
            assert done.exit_code == 0, done.exception
        return place / "runs" / name

    return folder


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))["results"]
    return found


@pytest.mark.parametrize("name", HEADS)
def test_an_encoder_is_taught_measured_and_written(ran: Any, name: str) -> None:
    folder = ran(name)
    directory.verify(folder / "model")
    found = results(folder)
    for stage in ("masked", name):
        one = found[stage]
        assert one["rivals"] and one["seed"] and one["train_seconds"] > 0
        for score in (one["score"], *one["rivals"].values()):
            low, high = score["interval"]
            assert low <= score["value"] <= high and score["items"] == one["score"]["items"] >= 200
    assert labels.load(folder / "model").task == name


@pytest.mark.parametrize("name", HEADS)
def test_the_report_says_task_rivals_score_and_interval(ran: Any, name: str) -> None:
    folder = ran(name)
    text, found = (folder / "report.md").read_text(encoding="utf-8"), results(folder)[name]
    section = text.partition("## 課題：")[2].partition("\n## ")[0]
    score = found["score"]
    assert f"**このモデル** | {score['value']:.3f} | {score['interval'][0]:.3f} – {score['interval'][1]:.3f}" in section
    for rival, each in found["rivals"].items():
        assert f"| {rival} | {each['value']:.3f} |" in section
    assert f"{score['items']:,} 件" in section and f"種 {found['seed']}" in section
    beaten = score["interval"][0] > max(each["interval"][1] for each in found["rivals"].values())
    assert ("重なりません" in section) == beaten
    assert "## 隠した語を当てる学習" in text and "masked の学習" in text, "what came before, and what was planned"


@pytest.mark.parametrize("name", HEADS)
def test_transformers_gives_the_same_outputs(ran: Any, name: str) -> None:
    """The exported directory, its tokenizer and its head, with no code of ours."""
    path = ran(name) / "model"
    theirs_tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    theirs, report = HEADS[name].from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    ours = labels.load(path, dtype="float32")
    framed = ours.frame.around(ours.tokenizer.encode(TEXT))
    ids = torch.tensor([framed])
    assert theirs_tokenizer.encode(TEXT, add_special_tokens=False) == framed[1:-1]
    with torch.inference_mode():
        said = theirs.eval()(ids)
    past = Bidirectional(torch.arange(len(framed))[None], None)
    if name == "embed":
        expected = torch.nn.functional.normalize(said.last_hidden_state.mean(1), dim=-1)[0]
        found = ours.embed(TEXT)
    elif name == "classify":
        names = theirs.config.id2label
        expected = said.logits[0].softmax(-1)
        chosen = {one.label: one.probability for one in ours.classify([TEXT])[0]}
        found = torch.tensor([chosen[names[number]] for number in range(len(names))])
    else:
        with torch.inference_mode():
            found = ours.model(ids, past)[0]
        expected = said.logits[0] if name == "tag" else torch.stack((said.start_logits[0], said.end_logits[0]), -1)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


MADE = {"encoder": ["masked"], "span": ["span"], "translate": ["seq2seq"]}  # the stages that train; else masked and the task


def test_spans_are_written_measured_and_shown(ran: Any) -> None:
    folder = ran("span")
    found, text = results(folder)["span"], (folder / "report.md").read_text(encoding="utf-8")
    assert len(found["rivals"]) == 2 and found["score"]["items"] == 8 * round(128 * 0.3)
    assert all(0 <= one["value"] <= 1 for one in (found["score"], *found["rivals"].values()))
    assert max(one["value"] for one in found["rivals"].values()) > 0.1, "counting alone fills some"
    shown = found["filled"][0]
    assert f"→ **{shown['text']}** ({shown['reference']})" in text
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "model", dtype=torch.float32)
    assert theirs.config.vocab_size == len(transformers.AutoTokenizer.from_pretrained(folder / "model"))


def test_a_translator_is_taught_measured_and_written(ran: Any) -> None:
    folder = ran("translate")
    found, text = results(folder), (folder / "report.md").read_text(encoding="utf-8")
    assert found["translation"]["sentences"] == 8
    for metric in ("chrF", "BLEU"):
        for system, score in found["translation"][metric].items():
            if system != "difference":
                assert score["interval"][0] <= score["score"] <= score["interval"][1]
    assert "## 翻訳" in text and "元の文の写し" in text and "seq2seq の学習" in text
    path = folder / "model"
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32).eval()
    model = LocalModel(path, dtype="float32")
    boundary = model.tokenizer.special["<|endoftext|>"]
    source = [*model.tokenizer.encode("日本の作曲家である。"), boundary]
    with torch.inference_mode():
        ids = theirs.generate(torch.tensor([source]), max_new_tokens=12, do_sample=False)[0].tolist()
    said = model.generate("日本の作曲家である。", temperature=0.0, max_tokens=12)
    assert said == model.tokenizer.decode([id for id in ids[1:] if id != boundary])


@pytest.mark.parametrize("name", SMALL_TASKS)
def test_what_a_task_costs_is_planned(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage that trains has its steps and seconds; the parameters are those of the model."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("tsuzuri.recipe.plan.PROBE_SECONDS", 0.1)
    recipe = recipes.read(Path(f"recipes/{name}.yaml"), SMALL_TASKS[name])
    found = plan(recipe)
    assert [stage.stage for stage in found.stages] == MADE.get(name, ["masked", name])
    assert all(stage.steps and stage.seconds and stage.flops for stage in found.stages)
    assert found.parameters == sum(found.by_component.values())


@pytest.mark.parametrize("name", SMALL_TASKS)
def test_the_planned_steps_are_about_those_of_the_run(ran: Any, name: str) -> None:
    folder = ran(name)
    planned = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["plan"]
    found = results(folder)
    for stage in planned["stages"]:
        assert 0.5 < stage["steps"] / found[stage["stage"]]["steps"] < 2
    made = found[MADE.get(name, ["masked"])[0]]
    assert planned["parameters"] == made["parameters"]


def test_a_recipe_that_trains_nothing_is_not_planned(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(ConfigError, match="masked"):
        plan(recipes.read(Path("recipes/vectors.yaml")))


def test_hidden_tokens_are_guessed_from_both_neighbours() -> None:
    """By hand: 1 2 3 twice, 1 4 3 and 1 5 7 once; after 5 comes 6; 2 is the commonest."""
    counted = encoders.Neighbours([np.array(ids) for ids in ([1, 2, 3, 1, 2, 3, 9], [9, 1, 4, 3], [1, 5, 7], [7, 5, 6, 8], [0, 2, 0])], 10)
    assert counted.commonest == 2
    said = counted(np.array([[1, 0, 3, 9], [5, 0, 9, 9], [1, 0, 7, 9]]))
    assert said[0, 1] == 2 and said[1, 1] == 6 and said[2, 1] == 5
    assert counted(np.array([[8, 8, 8]]))[0, 1] == 2


def test_only_hidden_tokens_count_as_guessed() -> None:
    right, said = np.array([[3, -100, 4], [-100, 5, -100]]), np.array([[3, 9, 1], [2, 5, 2]])
    found = encoders.guessed(right, said)
    assert found.value == pytest.approx(2 / 3) and found.items == 3


def test_the_body_of_a_task_is_that_of_the_stage_before(ran: Any) -> None:
    """What was learned from hidden tokens is where the task begins: only the head is new."""
    folder = ran("classify")
    assert all(name.startswith("head.") for name in results(folder)["classify"]["new_weights"])
    assert weights.load(folder / "model").shape.head == "classify"


def test_a_mean_is_refused_before_the_run_where_the_family_cannot_say_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert recipes.read(Path("recipes/classify.yaml")).sections["classify"].pooling == "mean"
    with pytest.raises(ConfigError, match="pooling"):
        recipes.read(Path("recipes/classify.yaml"), ["masked.model.family=bert"])
    recipes.read(Path("recipes/classify.yaml"), ["masked.model.family=bert", "classify.pooling=first"])


def test_spans_need_names_for_what_is_taken_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(ConfigError, match=r"tokenizer\.special"):
        recipes.read(Path("recipes/span.yaml"), ["tokenizer.special=chat"])


def test_pairs_without_scores_are_measured_by_what_finds_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same recipe from pairs that only belong together: one is found among many, beside counting; half-scored ones are refused."""
    texts = [f"第{n}条の{'規定' if n % 2 else '届出'}は{n * 7}日までに行う" for n in range(40)]
    for part, some in {"train": texts[:24], "test": texts[24:]}.items():
        lines = [json.dumps({"one": text[:6], "other": text}, ensure_ascii=False) for text in some]
        (place / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.chdir(place)
    monkeypatch.setattr("tsuzuri.recipe.plan.PROBE_SECONDS", 0.1)
    own = ["embed.scored=false", "embed.inputs=[train.jsonl]", "embed.test=[test.jsonl]", "out=runs/paired"]
    done = CliRunner().invoke(cli, ["run", "recipes/embed.yaml", *SMALL_TASKS["embed"], *own])
    assert done.exit_code == 0, done.exception
    found = results(place / "runs" / "paired")["embed"]
    assert found["metric"] == "found first" and found["score"]["items"] == 16
    assert min(one["value"] for name, one in found["rivals"].items() if "BM25" in name) > 0.3, "the numbers tell them apart"
    first, *rest = (place / "test.jsonl").read_text(encoding="utf-8").splitlines()
    scored = json.dumps({**json.loads(first), "score": 3.0}, ensure_ascii=False)
    (place / "test.jsonl").write_text("\n".join([scored, *rest]) + "\n", encoding="utf-8")
    failed = CliRunner().invoke(cli, ["run", "recipes/embed.yaml", *SMALL_TASKS["embed"], *own])
    assert failed.exit_code != 0 and "score" in str(failed.exception)


# ── from a finished encoder

TASK: dict[str, Any] = {
    "inputs": ["sample/tasks/topic.train.jsonl.zst"], "test": ["sample/tasks/topic.test.jsonl.zst"], "length": 320, "steps": 3, "batch": 4,
}  # fmt: skip


def from_a_finished_one(start: Path, **more: Any) -> dict[str, Any]:
    return {"name": "taught", "stages": ["classify", "export"], "classify": {**TASK, "start": str(start), **more}, "export": {}}


@pytest.fixture(scope="module")
def narrow(ran: Any, place: Path) -> Path:
    """An encoder that was trained and written before, in 8 bits."""
    target = place / "runs" / "narrow"
    if not target.is_dir():
        done = CliRunner().invoke(cli, ["quantize", str(ran("encoder") / "model"), str(target)])
        assert done.exit_code == 0, done.exception
    return target


def test_a_task_starts_from_a_finished_encoder(narrow: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned, taught, measured, written; no text is read anew. The card says what the encoder read and what the examples are."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("tsuzuri.recipe.plan.PROBE_SECONDS", 0.1)
    (place / "taught.yaml").write_text(json.dumps(from_a_finished_one(narrow)), encoding="utf-8")
    planned = plan(recipes.read(Path("taught.yaml")))
    assert [stage.stage for stage in planned.stages] == ["classify"]
    done = CliRunner().invoke(cli, ["run", "taught.yaml"])
    assert done.exit_code == 0, done.exception
    folder = place / "runs" / "taught"
    found = results(folder)["classify"]
    assert found["steps"] == 3 and all(name.startswith("head.") for name in found["new_weights"])
    assert abs(planned.parameters / found["parameters"] - 1) < 0.1
    card = (folder / "model" / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256((narrow / "model.safetensors").read_bytes()).hexdigest() in card and "narrow" in card
    assert "| wikipedia-ja via github:venali/BilingualCorpus | CC BY-SA 3.0 |" in card
    read = json.loads((narrow / "data_manifest.json").read_text(encoding="utf-8"))["sources"]
    assert read and all(f"| {one['source']} | {one['licence']} |" in card for one in read)
    assert (folder / "model" / "data_manifest.json").read_bytes() == (narrow / "data_manifest.json").read_bytes()
    assert labels.load(folder / "model").classify(["駅である。"])


def test_where_a_task_starts_is_one_place(narrow: Path, ran: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)

    def resolved(**values: Any) -> None:
        recipes.resolve({**from_a_finished_one(narrow), **values})

    resolved()
    with pytest.raises(ConfigError, match="tokenizer"):
        resolved(classify=TASK)
    body = {"corpus": {"inputs": ["sample/pretrain"]}, "tokenizer": {"vocab_size": 1000, "special": "encoder"}}
    with pytest.raises(ConfigError, match="start"):
        resolved(stages=["corpus", "tokenizer", "classify", "export"], **body)
    with pytest.raises(ConfigError, match="length"):
        resolved(classify={**TASK, "start": str(narrow), "length": 1000})
    with pytest.raises(ConfigError, match="隠した語"):
        resolved(classify={**TASK, "start": str(ran("classify") / "model")})
    with pytest.raises(MissingError):
        resolved(classify={**TASK, "start": str(place / "nowhere")})
    (place / "bare").mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (place / "bare" / name).write_bytes((narrow / name).read_bytes())
    (place / "bare.yaml").write_text(json.dumps(from_a_finished_one(place / "bare")), encoding="utf-8")
    with pytest.raises(MissingError, match=r"tokenizer\.json"):
        recipes.read(Path("bare.yaml"))
