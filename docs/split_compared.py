"""What GPT-4's way of cutting text costs and gains on Japanese: the table in tokenizers.md. `python docs/split_compared.py`

In: two files of sample/pretrain. Out: for either pattern, bytes a token on held-out text, how many entries of the vocabulary
cross scripts, and one sentence cut. It takes about a minute and writes nothing.
"""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from tsuzuri.text import compare, fast
from tsuzuri.text.bytelevel import alphabet
from tsuzuri.text.corpus.read import read
from tsuzuri.text.split import scripts

# tiktoken, cl100k_base
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXTS = [Path("sample/pretrain") / f"{name}.jsonl.zst" for name in ("government", "literature")]
SIZE = 8000
SENTENCE = "人工知能の発展について、専門家は"


def main() -> None:
    train, held = compare.divide(read(TEXTS))
    for name, tokenizer in (("GPT-4", with_gpt4s_cuts(train)), ("script", fast.train("bpe", train, SIZE))):
        found = compare.measure(tokenizer, held)
        cut = "／".join(tokenizer.decode([id]) for id in tokenizer.encode(SENTENCE))
        print(f"{name}: {found['bytes_per_token']:.2f} bytes/token, {crossing(tokenizer)} of {SIZE - 260} cross scripts, {cut}")


def with_gpt4s_cuts(texts: list[str]) -> fast.FastTokenizer:
    """The same BPE in every other respect."""
    core = tokenizers.Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(tokenizers.Regex(GPT4), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    letters = sorted(alphabet().values())
    trainer = trainers.BpeTrainer(vocab_size=SIZE, special_tokens=list(fast.SPECIAL), initial_alphabet=letters, show_progress=False)
    core.train_from_iterator(texts, trainer)
    return fast.FastTokenizer(core)


def crossing(tokenizer: fast.FastTokenizer) -> int:
    """Entries of more than one script, among those that are whole characters."""
    texts = [tokenizer.token_bytes(id).decode(errors="replace") for id in range(260, SIZE)]
    return sum(len({script for script, _ in scripts(text)}) > 1 for text in texts if "\ufffd" not in text)


if __name__ == "__main__":
    main()
