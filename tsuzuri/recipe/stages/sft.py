"""会話の例から、答え方を学習します（指示学習）。 / Learn to answer from conversations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsuzuri import device
from tsuzuri import directory as directories
from tsuzuri.chat import conversations, template
from tsuzuri.errors import ConfigError, FormatError, Words
from tsuzuri.folder import suggestion
from tsuzuri.model import weights
from tsuzuri.model.adapt import lora
from tsuzuri.model.adapt.lora import LoraSettings
from tsuzuri.model.transformer import Transformer
from tsuzuri.recipe.measure import matrix_rate
from tsuzuri.recipe.run import Context
from tsuzuri.recipe.stages import _counted
from tsuzuri.recipe.stages._sample import sample
from tsuzuri.recipe.stages.pretrain import context_length, is_counted
from tsuzuri.text import fast
from tsuzuri.text.corpus.read import origin
from tsuzuri.train import checkpoint, loop
from tsuzuri.train.objectives import sft
from tsuzuri.types import Message

NEEDS = ("tokenizer", "pretrain")
MERGED = "merged"  # where the stage trained an adapter
QUESTION = "あなたは誰ですか。"  # what is answered on the way
SHARED = True  # under torchrun, every process takes part
CHARACTERS_PER_TOKEN = 1.4  # of Japanese with a vocabulary of 4,096; guessed before there is one
TOKENS_AROUND = 5  # of a message: what begins it, its role, its end, a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(loop.LoopSettings):
    inputs: list[str]  # files or directories of JSON lines
    length: int = 256  # tokens a row
    repeat: dict[str, int] | None = None  # how often conversations of a source, or of a collection, stand in the training set
    validation_fraction: float = 0.05
    lora: LoraSettings | None = None  # train an adapter beside the weights, not the weights
    skip_longer: bool = False  # leave out, counted, what is longer than a row; else it stops the run
    seed: int = 2

    def __post_init__(self) -> None:
        loop.LoopSettings.__post_init__(self)
        loop.positive(self, "length")
        for source, times in (self.repeat or {}).items():
            if times < 1:
                raise loop.wrong(
                    Words(
                        f"repeat の「{source}」が {times} です。1 以上の整数が要ります。",
                        f"repeat gives '{source}' {times}; it must be at least 1.",
                    )
                )
        if not 0 <= self.validation_fraction < 1:
            raise loop.wrong(
                Words(
                    f"validation_fraction が {self.validation_fraction} です。0 以上 1 未満の数が要ります。",
                    f"validation_fraction is {self.validation_fraction}; it must lie in [0, 1).",
                )
            )


def check(settings: Settings, before: Mapping[str, Any]) -> None:
    """A conversation may not be longer than the model's context."""
    context = context_length(before["pretrain"], before["tokenizer"].vocab_size)
    if settings.length > context:
        raise ConfigError(
            Words(f"設定「sft.length」に {settings.length} が指定されました。", f"The setting 'sft.length' was given {settings.length}."),
            found=Words(f"モデルが読めるのは {context} トークンまでです。", f"The model reads at most {context} tokens."),
            todo=Words(
                f"sft.length を {context} 以下にするか、pretrain.length か pretrain.model.max_position_embeddings を増やしてください。",
                f"Give sft.length at most {context}, or raise pretrain.length or pretrain.model.max_position_embeddings.",
            ),
        )


def inputs(settings: Settings) -> list[Path]:
    """The files; every source that is to be repeated is in one of them."""
    found = conversations.files(settings.inputs)
    if settings.repeat:
        sources = {conversation.source for conversation in conversations.read(found)}
        _all_met(settings.repeat, sources | {origin(source) for source in sources})
    return found


def run(settings: Settings, context: Context) -> dict[str, Any]:
    directory = context.before("pretrain")
    tokenizer = fast.load(context.before("tokenizer") / "files")
    if is_counted(context.recipe.sections["pretrain"].model.family):
        return _count(settings, context, tokenizer)
    start = newest_model(directory)
    model = weights.load(start, dtype=torch.float32).to(device.choose(context.recipe.head.device))
    train, held, skipped = examples(settings, tokenizer)
    if skipped:
        context.watch.notice(
            Words(
                f"length={settings.length} トークンを超える会話 {skipped} 件を除きました。",
                f"Left out {skipped} conversations longer than length={settings.length} tokens.",
            )
        )
    if settings.lora is not None:
        lora.attach(model, settings.lora, settings.seed)
    end, boundary = tokenizer.special["<|im_end|>"], tokenizer.special["<|endoftext|>"]
    objective = sft.Objective(sft.Settings(settings.length), train, boundary, end)
    held_out = sft.Objective(sft.Settings(settings.length), held, boundary, end)

    question = template.encode(tokenizer, [Message("user", QUESTION)])

    def evaluate(model: Transformer, step: int) -> dict[str, float | str]:
        scored = held_loss(model, held_out)
        return {
            **({} if scored is None else {"validation_loss": scored}),
            **sample(model, tokenizer, question, ["<|im_end|>", "<|endoftext|>"]),
        }

    outcome = loop.train(
        model,
        objective,
        settings,
        context.directory,
        recipe=context.recipe.values,
        family=context.recipe.sections["pretrain"].model.family,
        write_extras=lambda path: write_extras(path, tokenizer),
        evaluate=evaluate,
        matrix_rate=matrix_rate(next(model.parameters()).device, settings.precision),
        watch=context.watch,
    )
    scored = held_loss(model, held_out)
    if settings.lora is not None:
        _merged(model, context, tokenizer, start)
    counts = {"conversations": len(train), "held_out": len(held), "skipped": skipped}
    return {**asdict(outcome), "train_seconds": outcome.seconds, **counts, "validation_loss": scored}


def _merged(model: Transformer, context: Context, tokenizer: fast.FastTokenizer, base: Path) -> None:
    """Beside the checkpoints: the adapter in PEFT's layout, and the model with the adapter in its weights."""
    family = context.recipe.sections["pretrain"].model.family
    with directories.whole(context.directory / "adapter") as temporary:
        lora.save(model, temporary, family, str(base))
    lora.merge(model)
    with directories.whole(context.directory / MERGED) as temporary:
        weights.save(model, temporary, family)
        write_extras(temporary, tokenizer)


def _count(settings: Settings, context: Context, tokenizer: fast.FastTokenizer) -> dict[str, Any]:
    """A family of counts counts the text of pre-training and the conversations together: to go on from counts is to add."""
    train, held, skipped = examples(settings, tokenizer)
    boundary, end = tokenizer.special["<|endoftext|>"], tokenizer.special["<|im_end|>"]
    before = _counted.read(context)
    conversations = [example.ids for example in train]
    outcome, model = _counted.count(context, tokenizer, [*before, *conversations], lambda path: write_extras(path, tokenizer))
    counts = {"conversations": len(train), "held_out": len(held), "skipped": skipped}
    held_out = sft.Objective(sft.Settings(settings.length), held, boundary, end)
    return {**outcome, **counts, "validation_loss": held_loss(model, held_out)}


def expected_rows(settings: Settings) -> int:
    """About how many rows an epoch will have, for the plan: there is no tokenizer yet, so characters stand for tokens."""
    repeat = settings.repeat or {}
    total = 0.0
    for conversation in conversations.read(inputs(settings)):
        tokens = sum(len(message.content) / CHARACTERS_PER_TOKEN + TOKENS_AROUND for message in conversation.messages)
        if tokens <= settings.length:
            total += tokens * _times(repeat, conversation.source) * (1 - settings.validation_fraction)
    return max(1, round(total / settings.length))


def examples(settings: Settings, tokenizer: fast.FastTokenizer) -> tuple[list[sft.Example], list[sft.Example], int]:
    """(training, validation, how many were too long). Which is which follows from a hash of the conversation."""
    train: list[sft.Example] = []
    held: list[sft.Example] = []
    skipped, repeat = 0, settings.repeat or {}
    for conversation in conversations.read(inputs(settings)):
        ids, trained = template.encode_training(tokenizer, conversation.messages, conversation.tools)
        if settings.skip_longer and len(ids) - 1 > settings.length:
            skipped += 1
            continue
        digest = hashlib.sha256("\0".join(m.content for m in conversation.messages).encode()).digest()
        example = sft.Example(np.asarray(ids, np.int64), np.asarray(trained, np.bool_))
        if int.from_bytes(digest[:4], "big") < settings.validation_fraction * 2**32:
            held.append(example)
        else:
            train += [example] * _times(repeat, conversation.source)
    return train, held, skipped


def _times(repeat: Mapping[str, int], source: str) -> int:
    """By its own name, else by that of its collection (`origin`)."""
    return repeat.get(source, repeat.get(origin(source), 1))


def _all_met(repeat: Mapping[str, int], sources: Collection[str]) -> None:
    """Raises ConfigError for a source to be repeated that no conversation has."""
    for source in set(repeat) - set(sources):
        raise ConfigError(
            Words(f"設定「sft.repeat」に「{source}」が指定されました。", f"The setting 'sft.repeat' names '{source}'."),
            found=Words("その出典の会話は一つもありません。", "No conversation is from that source."),
            todo=suggestion(source, sorted(sources)),
        )


@torch.inference_mode()
def held_loss(model: Any, objective: sft.Objective) -> float | None:
    """Nats a trained target, over all held-out conversations; None when there is none."""
    nats, targets = 0.0, 0
    for start in range(0, objective.rows, 16):
        batch = objective.batch(list(range(start, min(start + 16, objective.rows))))
        nats += float(objective.loss(model, batch.to(device.of(model))))
        targets += batch.trained
    return nats / targets if targets else None


def write_extras(path: Path, tokenizer: fast.FastTokenizer) -> None:
    """What makes a directory of weights a model to chat with: tokenizer, template, and where an answer ends."""
    tokenizer.save(path)
    template.save(path)
    ids = {"bos_token_id": "<|endoftext|>", "eos_token_id": "<|im_end|>", "pad_token_id": "<|pad|>"}
    found = {key: tokenizer.special[name] for key, name in ids.items()}
    (path / "generation_config.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def newest_model(directory: Path) -> Path:
    """The model directory of the last checkpoint of a finished stage, or of what it merged. Raises FormatError where the checkpoint
    is damaged."""
    if (directory / MERGED).is_dir():
        return directory / MERGED
    found, notices = checkpoint.latest(directory / "checkpoints")
    if found is None or notices:
        raise FormatError(
            Words(
                f"段階「{directory.name}」で学習したモデルを読もうとしました。", f"Reading the model that '{directory.name}' has trained."
            ),
            found=notices[0] if notices else Words("途中保存がありません。", "There is no checkpoint."),
            todo=Words(
                f"{directory} を別の場所に移して同じコマンドを実行すると、その段階から作り直します。",
                f"Move {directory} away; the same command then makes that stage anew.",
            ),
        )
    return found / "model"
