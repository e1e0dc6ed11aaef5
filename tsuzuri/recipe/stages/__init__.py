"""Stages (+): one file, one stage of a run. Each defines

    NEEDS                    stages that must stand before it in the recipe
    Settings                 a frozen dataclass: the recipe's section of the same name
    inputs(settings)         files whose contents the stage depends on
    check(settings, before)  optional: raises ConfigError where it does not fit the settings of the stages before it
    taken(derived, given)    optional: of what the dial `size` derives, what this section has a place for
    run(settings, context)   does the work inside `context.directory`, returns what the report should say (JSON)

A stage that was finished with the same settings, inputs and predecessors is not run again.
"""
