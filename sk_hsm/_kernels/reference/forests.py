"""Several trees over the same classes, whose probabilities are averaged.

models is a list of (LabelTree, NodeWeights, smoothing), all over the same classes.
"""

from __future__ import annotations

import numpy as np

from .paths import all_log_proba, answer_row


def average_top_k(models, indptr, indices, data, min_log_proba, rescoring, classes, log_proba):
    """The classes of each row with the largest mean probability, ties in order of class.

    The kernel is Fagin's threshold algorithm: it searches the trees best first, averages every
    class that one of them comes to, and ends when all answers have at least the mean of what is
    left in each tree, which no other class can exceed.

    indptr, indices, data : the rows, CSR.
    min_log_proba : float, classes of a smaller mean are left out.
    rescoring : Rescoring or None; likely classes are scored again as by paths.top_k.
    classes : (n_rows, k) int32, out: -1 where there are fewer.
    log_proba : (n_rows, k) float64, out: logarithms of the means; -inf where there are fewer.
    """
    total = np.full((len(classes), models[0][0].n_classes), -np.inf)
    for model in models:
        log_p = np.zeros_like(total)
        all_log_proba(*model, indptr, indices, data, log_p)
        add_log_proba(log_p, total)
    total -= np.log(len(models))
    for i, log_p in enumerate(total):
        found = np.lexsort((np.arange(len(log_p)), -log_p))
        rows = indptr[i : i + 2], indices, data
        answer_row(found, log_p[found], rescoring, *rows, min_log_proba, classes[i], log_proba[i])


def add_log_proba(log_proba, total):
    """Add probabilities to others, all as logarithms.

    log_proba : (n_rows, n_columns) float64.
    total : (n_rows, n_columns) float64, in and out.
    """
    total[...] = np.logaddexp(total, log_proba)
