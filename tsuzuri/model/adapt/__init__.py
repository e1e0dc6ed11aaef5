"""Adaptations (+): one file, one transformation of a built model: adapters, quantisation. Any family's model can be given."""
