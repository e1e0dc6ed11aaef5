"""Families (+): one file, one architecture that others know by name. Each decoder family defines

    MODEL_TYPE           the `model_type` of its config.json
    shape(config)        config.json -> Shape; a field that would change the result and is not understood is an error
    config(shape)        Shape -> config.json; a shape that the family cannot say is an error
    names(shape)         our weight name -> theirs, for every weight

What is common to reading a config.json is in `_fields.py`.
"""
