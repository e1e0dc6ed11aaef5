"""Adaptations (+): one file, one transformation of a built model, of whatever family: matrices narrowed, or others put beside them.

What a file transforms stays a model behind the same seam. Quantised weights are read and written by `weights.py`.
"""
