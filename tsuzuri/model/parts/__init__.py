"""Parts of a model (+): one file, one part. `Shape` names them by file name.

    kind          a file defines                               called as
    block         class Part(shape: Shape, layer: int)         x (..., D), place, past -> (..., D)
    mixer         class Part(shape: Shape, layer: int)         x (..., D), place, past -> (..., D)
    feedforward   class Part(shape: Shape, layer: int)         x (..., D) -> (..., D)
    norm          class Part(size: int, eps: float)            x (..., D) -> (..., D)
    position      class Part(shape: Shape)                     past -> Place
    head          class Part(shape: Shape)                     x (..., D), embedding (V, D) -> (..., V or labels)

Each file says its KIND; a block says too whether a LAST_NORM follows the last one. Weights are created uninitialised-by-us:
`Transformer.initialise` fills them, and after it a part's own `reset(generator)` where it has one.
"""
