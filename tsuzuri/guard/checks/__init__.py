"""見つけるもの (+)：一つのファイルが一種類。 / What is found (+): one file, one kind.

A check is a module with
    LABEL     what it is called, in both languages; the Japanese one stands in the token 【LABEL1】
    PERSONAL  whether it finds personal data, which `mask.py` replaces
    NEEDS     regular expressions: where none of them matches there is nothing to find, and most text ends here; () for everywhere. A match
              lies within what is found or just before it, within one sentence, and looks at no character outside of that sentence
    FOUND     (text, what is found in it) pairs, and
    NOT       texts that look alike and are none: both are its own tests
    find(seen: Normal) -> Iterator[Finding]    places of the original, from a text read by `normal.plain`
What a check may look back at for context is `_context.BEFORE` characters: a stream keeps as many.
"""
