"""Families (+): one file, one architecture that others know by name. A family of layers defines

    MODEL_TYPE           the `model_type` of its config.json, and the name of the file
    shape(config)        config.json -> Shape; a field that would change the result and is not understood is an error
    config(shape)        Shape -> config.json; a shape that the family cannot say is an error (`SAID`, `said`)
    names(shape)         our weight name -> theirs, for every weight that is stored as it is
    USUAL                the fields of `Shape` in which it differs from the default: what a recipe starts from
    SPECIAL, EQUATION, PAPER, PUBLIC    its row in the documentation: what is special, how it computes, who says so, public shapes

and where needed

    packed(shape)        tensors that hold several of ours, or one of ours turned (`_packed.py`)
    otherwise(found, shape)    tensors as some write them -> as `names` calls them
    MODEL                the class that is built from a shape, where it is not `Transformer`
    SHAPE                the class of its shapes, where it is not `Shape`
    fitted(shape, names) the shape, where it also depends on which weights are there
    PREFIX               what the weights of a body saved by itself lack in front; DERIVED, TIED: endings and names that repeat others

What is common to reading a config.json is in `_fields.py`, of rotary positions in `_rotary.py`, to LLaMA and what came of it in
`_like_llama.py`.
"""
