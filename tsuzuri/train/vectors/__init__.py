"""Word vectors: from lines of text to a vector for each word, by Word2Vec (skip-gram, CBOW) or GloVe.

    lines.py      text -> words as numbers, line after line; the frequent thinned out
    word2vec.py   which word stands beside which: the plain twins, and the same as matrix products
    glove.py      how often words stand near each other: counting, and the fit to the logarithm of the counts
    fit.py        the epochs: progress, stopping, going on; what leaves is a `tsuzuri.model.vectors.Vectors`

Open first: `word2vec.py`, whose plain twin is the paper in a dozen lines.
"""
