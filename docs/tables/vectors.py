"""Word vectors of benchmarks/vectors.py: what each is worth beside no training at all, and how fast they are trained."""

from __future__ import annotations

from typing import Any

from tables._shared import RESULTS, Parts, machine, read, said, table

ROWS = {
    "character bigrams": ("文字二つ組の余弦（学習なし）", "cosine of character bigrams (nothing trained)"),
    "random vectors": ("同じ語に乱数のベクトル", "random vectors for the same words"),
    "skip-gram, seed 1": ("Word2Vec skip-gram、種 1", "Word2Vec skip-gram, seed 1"),
    "skip-gram, seed 2": ("Word2Vec skip-gram、種 2", "Word2Vec skip-gram, seed 2"),
    "cbow, seed 1": ("Word2Vec CBOW、種 1", "Word2Vec CBOW, seed 1"),
    "glove, seed 1": ("GloVe、種 1", "GloVe, seed 1"),
}


def vectors(language: str) -> str:
    """One row a way to turn a text into a vector."""
    if not (RESULTS / "vectors.json").is_file():
        return "まだ測っていません。" if language == "ja" else "Not measured yet."
    ja, found = language == "ja", read("vectors.json")
    heads = ("", "意味の近さ：JSTS の順位相関", "質問に最も近い文書が正しい割合", "周回", "プロセッサ秒") if ja else ("", "closeness of meaning: JSTS, rank correlation", "the passage nearest to a question is the right one", "epochs", "processor seconds")  # fmt: skip
    quality = found["quality"]
    rows = [_row(ROWS[name][0 if ja else 1], row) for name, row in quality["rows"].items()]
    words, vocabulary, size = f"{found['words']:,}", f"{found['vocab_size']:,}", found["vector_size"]
    pairs, questions, passages = (f"{quality[name]:,}" for name in ("pairs", "questions", "passages"))
    if ja:
        told = f"{words} 語の文章で学習した、{vocabulary} 語・{size} 次元のベクトル。文の組 {pairs}、質問 {questions}、文書 {passages}。{machine(found, language)}。"
    else:
        told = f"Vectors of {size} numbers for {vocabulary} words, learned from a text of {words}. {pairs} pairs of sentences; {questions} questions, {passages} passages. {machine(found, language)}."
    return "\n".join([table(heads, rows), "", told, *_speed(found, ja)])


def _row(name: str, row: dict[str, Any]) -> list[str]:
    cells = [
        f"{row[measure]:.3f} ({row[f'{measure}_interval'][0]:.3f} – {row[f'{measure}_interval'][1]:.3f})"
        for measure in ("jsts", "recall_at_1")
    ]
    return [name, *cells, *([str(row["epochs"]), f"{row['processor_seconds']:,.0f}"] if "epochs" in row else ["–", "–"])]


def _speed(found: dict[str, Any], ja: bool) -> list[str]:
    if "ratio" not in found.get("speed", {}):
        return []
    speed = found["speed"]
    pace, ratio, peer = f"{speed['words_per_processor_second']:,.0f}", said(speed["ratio"]), f"gensim {speed['gensim']}"
    if ja:
        return ["", f"skip-gram の速さ：1 プロセッサ秒に {pace} 語。同じ語の列と設定、1 スレッドで {peer} の {ratio} 倍。"]
    return ["", f"Speed of skip-gram: {pace} words a processor second; × {ratio} of {peer}, on the same words, settings and one thread."]


PARTS: Parts = {"vectors": vectors}
