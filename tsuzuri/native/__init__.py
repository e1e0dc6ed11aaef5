"""ネイティブの部屋：行列の計算と一ステップ全体を C++ で。なければ PyTorch で。 / Native room: a whole step in C++, where there is a compiler.

Enters: packed weights, a program of operations. Leaves: logits, from one call a step. Open first: `library.py` (what is there, and
which variant runs), then `layout.py` (the bytes), `program.py` (operations and steps), `source/kernels.h`.
It knows no model: `model/compiled.py` writes the program of one. Everything here has a plain twin in PyTorch.
"""
