"""Several trees over the same classes, whose probabilities are averaged.

models is a list of (LabelTree, NodeWeights, smoothing), all over the same classes.
"""

from __future__ import annotations

import numpy as np

from .paths import all_log_proba, number_of_answers


def average_top_k(models, indptr, indices, data, min_log_proba, n_likely, likely, classes, log_proba):
    """The classes of each row with the largest mean probability, ties in order of class.

    As many as of paths.top_k.

    The kernel is Fagin's threshold algorithm: it searches the trees best first, averages every
    class that one of them comes to, and ends when all answers have at least the mean of what is
    left in each tree, which no other class can exceed.

    indptr, indices, data : the rows, CSR.
    min_log_proba : float, classes of a smaller mean are left out.
    n_likely, likely : int, at most width, and float.
    classes : (n_rows, width) int32, out: -1 where there are fewer.
    log_proba : (n_rows, width) float64, out: logarithms of the means; -inf where there are fewer.
    """
    n_rows, width = classes.shape
    total = np.full((n_rows, models[0][0].n_classes), -np.inf)
    for model in models:
        log_p = np.zeros_like(total)
        all_log_proba(*model, indptr, indices, data, log_p)
        add_log_proba(log_p, total)
    total -= np.log(len(models))
    classes[:], log_proba[:] = -1, -np.inf
    for i in range(n_rows):
        best = np.lexsort((np.arange(total.shape[1]), -total[i]))
        best = best[total[i, best] >= min_log_proba]
        best = best[: number_of_answers(total[i, best], n_likely, likely, width)]
        classes[i, : len(best)], log_proba[i, : len(best)] = best, total[i, best]


def add_log_proba(log_proba, total):
    """Add probabilities to others, all as logarithms.

    log_proba : (n_rows, n_columns) float64.
    total : (n_rows, n_columns) float64, in and out.
    """
    total[...] = np.logaddexp(total, log_proba)
