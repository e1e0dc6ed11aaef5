"""What the families of encoders have in common: which head `architectures` names, what its labels are called, BERT's names of layers.

In: the fields of a config.json, or a `Shape`. Out: the head and the labels, and back. A head that is not known is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import Words
from tsuzuri.model.families._fields import Fields
from tsuzuri.model.transformer import Shape

# What stands after the family's own name in `architectures` -> our head; the first of several is what we write.
HEADS = {
    "ForMaskedLM": "masked", "ForPreTraining": "masked", "ForSequenceClassification": "classify", "ForTokenClassification": "tag",
    "ForQuestionAnswering": "extract", "Model": "embed",
}  # fmt: skip
LABELLED = ("classify", "tag", "extract")
MOST_LABELS = 1 << 20
# Fields that are about training or about how others compute the same.
WITHOUT_EFFECT = (
    "attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout", "directionality", "gradient_checkpointing",
    "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "output_past",
    "tokenizer_class", "language", "name", "finetuning_task",
)  # fmt: skip


def read(fields: Fields, stem: str) -> tuple[str, tuple[str, ...]]:
    """(head, labels) of a config.json; without `architectures`, a body alone. `stem`: "Bert", "Roberta" …"""
    fields.left -= set(WITHOUT_EFFECT)
    fields.must_be("is_decoder", False)
    fields.must_be("add_cross_attention", False)
    fields.must_be("problem_type", None, "single_label_classification")
    given = fields.optional("architectures") or [f"{stem}Model"]
    known = {f"{stem}{ending}": head for ending, head in HEADS.items()}
    if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], str) or given[0] not in known:
        text = " / ".join(known)
        raise fields.wrong(
            "architectures", Words(f"{given!r} です。計算できるのは {text} です。", f"It is {given!r}; {text} can be computed.")
        )
    head = known[given[0]]
    labels = _labels(fields)
    if head == "extract" and len(labels) != 2:
        raise fields.wrong(
            "id2label", Words(f"{len(labels)} 個です。始まりと終わりの 2 個が要ります。", f"There are {len(labels)}, not two.")
        )
    return head, labels if head in LABELLED else ()


def _labels(fields: Fields) -> tuple[str, ...]:
    """The names in the order of their numbers; where there are none, LABEL_0 and so on."""
    table, count = fields.optional("id2label"), fields.optional("num_labels")
    if table is None:
        if count is not None and (type(count) is not int or not 0 < count <= MOST_LABELS):
            raise fields.wrong(
                "num_labels", Words(f"{count!r} です。正の整数が要ります。", f"It is {count!r}, not a positive whole number.")
            )
        return tuple(f"LABEL_{i}" for i in range(2 if count is None else count))
    named = {str(key): value for key, value in table.items()} if isinstance(table, Mapping) else {}
    found = [named.get(str(i)) for i in range(len(named))]
    if not found or not all(isinstance(name, str) for name in found) or (count is not None and count != len(found)):
        raise fields.wrong("id2label", Words("0 から順の番号に名前を付けたものが要ります。", "It has to name the numbers from 0 on."))
    if fields.config.get("label2id") not in (None, {name: i for i, name in enumerate(found)}):
        raise fields.wrong("label2id", Words("id2label と食い違っています。", "It contradicts id2label."))
    return tuple(str(name) for name in found)


def write(shape: Shape, stem: str) -> dict[str, Any]:
    """`architectures`, and the labels where the head has some."""
    ending = next(ending for ending, head in HEADS.items() if head == shape.head)
    found: dict[str, Any] = {"architectures": [f"{stem}{ending}"]}
    if shape.labels:
        found["id2label"] = {str(i): name for i, name in enumerate(shape.labels)}
        found["label2id"] = {name: i for i, name in enumerate(shape.labels)}
    return found


def layers(shape: Shape, prefix: str) -> dict[str, str]:
    """Embeddings and blocks as BERT calls them."""
    table = {
        "embedding.weight": f"{prefix}embeddings.word_embeddings.weight",
        "position.table.weight": f"{prefix}embeddings.position_embeddings.weight",
        "segment_embedding.weight": f"{prefix}embeddings.token_type_embeddings.weight",
    }
    pairs = [("embedding_norm", f"{prefix}embeddings.LayerNorm")]
    for layer in range(shape.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"{prefix}encoder.layer.{layer}"
        pairs += [(f"{ours}.mixer.{part}", f"{theirs}.attention.self.{part}") for part in ("query", "key", "value")]
        pairs += [
            (f"{ours}.mixer.output", f"{theirs}.attention.output.dense"),
            (f"{ours}.mixer_norm", f"{theirs}.attention.output.LayerNorm"),
            (f"{ours}.feedforward.up", f"{theirs}.intermediate.dense"),
            (f"{ours}.feedforward.down", f"{theirs}.output.dense"),
            (f"{ours}.feedforward_norm", f"{theirs}.output.LayerNorm"),
        ]
    return table | both(pairs)


def both(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Weight and bias of each."""
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in pairs for kind in ("weight", "bias")}
