"""モデルの部屋：トークン番号から次の語の確からしさへ。 / Model room: ids -> logits.

Enters: a directory in Hugging Face's layout, or a shape. Leaves: `model(tokens, past) -> logits`, and the same directory.
Open first: `transformer.py`. Add a part in `parts/`, an architecture in `families/`.
It knows no batch, no cache and no text: whoever calls it brings a `Past`.
"""
