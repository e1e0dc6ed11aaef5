"""Stages (+): one file, one stage of a run. Each defines

    Settings                 a frozen dataclass: the recipe's section of the same name
    inputs(settings)         files whose contents the stage depends on
    run(settings, context)   does the work inside `context.directory`, returns what the report should say (JSON)

A stage that was finished with the same settings, inputs and predecessors is not run again.
"""
