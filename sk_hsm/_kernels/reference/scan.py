"""Twins of the kernels of scan.pyx."""

import numpy as np
from scipy.special import logsumexp

from .sampling import scores_of_codewords


def score_classes(H, vectors, scores):
    """``scores[i, c] = H[i] . vectors[c]``, with the same bits whatever other rows there are."""
    scores[:] = H.astype(np.float64) @ vectors.astype(np.float64).T


def log_totals(scores, out):
    """The logarithm of the sum of exp(scores) of each row."""
    out[:] = logsumexp(scores.astype(np.float64), axis=1)


def best_of_scores(scores, floor, classes, log_proba):
    """The k classes of the highest scores of each row, ties by class, and their log-probabilities.

    Class -1 and minus infinity stand for those below the floor.
    """
    k = classes.shape[1]
    log_p = scores - logsumexp(scores.astype(np.float64), axis=1, keepdims=True)
    classes[:] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    log_proba[:] = np.take_along_axis(log_p, classes, axis=1)
    below = log_proba < floor
    classes[below], log_proba[below] = -1, -np.inf


def search_cells(index, H, dim, vectors, n_probe, classes, log_proba):
    """The best classes of the n_probe cells of the highest bounds, and what best_of_scores gives for them.

    The bound of a cell is in the docstring of SearchIndex. No more cells are opened once k classes have
    been found whose scores are above all other bounds. Of the cells left, the sum of exp(scores) is taken
    as ``cell_weights * exp(what both codewords give)``. Entries of classes that are not found stay.
    """
    K = index.n_codewords
    for i, h in enumerate(H.astype(np.float64)):
        books = (index.codewords.astype(np.float64) @ h).reshape(2, K)
        both = books[0][:, None] + books[1]
        bounds = (both + index.tops + np.linalg.norm(h[:dim]) * (1 + 1e-5) * index.radii).ravel()
        shifted = scores_of_codewords(index, h)
        shares = np.exp(shifted[0][:, None] + shifted[1]) * index.cell_weights[:, :K]
        filled = np.flatnonzero(np.diff(index.cell_ptr))
        found, left = [], list(filled[np.argsort(-bounds[filled], kind="stable")])
        for _ in range(n_probe):
            best = sorted(found, reverse=True)[: classes.shape[1]]
            if not left or len(best) == classes.shape[1] and bounds[left[0]] < best[-1][0]:
                break
            cell = left.pop(0)
            members = index.members[index.cell_ptr[cell] : index.cell_ptr[cell + 1]]
            found += zip(vectors[members].astype(np.float64) @ h, -members, strict=True)
        with np.errstate(divide="ignore"):
            log_left = books.max(axis=1).sum() + np.log(shares.ravel()[left].sum())
        total = np.logaddexp(logsumexp([score for score, _ in found]), log_left)
        for place, (score, negative) in enumerate(sorted(found, reverse=True)[: classes.shape[1]]):
            classes[i, place], log_proba[i, place] = -negative, score - total
