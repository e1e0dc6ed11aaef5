"""Parts of a model (+): one file, one part. `Shape` names them by file name.

    kind          a file defines                               called as
    norm          class Part(size: int, eps: float)            x (..., D) -> (..., D)
    feedforward   class Part(shape: Shape)                     x (..., D) -> (..., D)
    attention     class Part(shape: Shape, layer: int)         x (..., D), place, past -> (..., D)
    position      class Part(shape: Shape)                     positions (...) -> Place

Each file says its KIND. Weights are created uninitialised-by-us: `Transformer.initialise` fills them.
"""
