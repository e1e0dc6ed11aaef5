"""Objectives (+): one file, one training method. Each defines

Settings     a frozen dataclass of its own choices
Objective    .rows (how many rows an epoch has), .batch(indices) -> Batch, .loss(model, batch) -> nats, summed over targets
"""
