"""Twin of the kernel of sampling.pyx."""

import numpy as np

from ._common import uniform_number

DEFENSIVE = 0.1


def scores_of_codewords(index, h):
    """Of both codebooks, each less its greatest and -40 at least."""
    books = (index.codewords.astype(np.float64) @ h).reshape(2, -1)
    return np.maximum(books - books.max(axis=1, keepdims=True), -40)


def class_probabilities(index, h):
    """Of each class to be drawn for h: what is in the docstring of MultiIndex."""
    first, second = (
        scores[code] for scores, code in zip(scores_of_codewords(index, h), index.codes, strict=True)
    )
    by_codewords, by_weight = np.exp(first + second) * index.weights, index.weights.astype(np.float64)
    parts = [share / share.sum() for share in (by_codewords, by_weight)]
    return (1 - DEFENSIVE) * parts[0] + DEFENSIVE * parts[1]


def draw_classes(index, H, number, classes, probabilities):
    """Classes for each row of H, by one random number after the other, and how probable each was.

    Cells, and in them members, lie side by side on a line, each as long as it is probable: a class is
    where a uniform number falls.
    """
    for i, h in enumerate(H):
        proba = class_probabilities(index, h)
        ends = np.cumsum(proba[index.members])
        for j in range(classes.shape[1]):
            at = np.searchsorted(ends, uniform_number(number) * ends[-1], side="right")
            classes[i, j] = index.members[at]
            probabilities[i, j] = proba[classes[i, j]]
            number += 1
