"""A row's likely classes, scored again by their centroids."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from ._common import dense


def rescore(centroids, indptr, indices, data, power, weight, most, least, classes, log_proba):
    """Divide what likely classes of a row have of the probability anew, and sort all answers again.

    Likely are the first ones, up to `most`, of at least the log-probability `least`. They share their
    probability by the softmax of ``power * log-probability + weight * similarity``. The similarity is
    ``x . v + b`` with the class's values v and bias b, x being ``w * row / sqrt(sum(w * row^2))`` where
    there are feature weights w, or the row.

    centroids : Rescoring.
    indptr, indices, data : the rows, CSR, columns in order.
    power, weight, least : float.
    most : int.
    classes : (n_rows, width) int32, in and out: the most probable first, ties in order of class; -1 for none.
    log_proba : (n_rows, width) float64, in and out: -inf for none.
    """
    rows = dense(indptr, indices, data, centroids.n_features)
    values = centroids.matrix().toarray().astype(np.float64)
    if len(centroids.feature_weights):
        norms = np.sqrt((rows**2 * centroids.feature_weights).sum(axis=1, keepdims=True))
        rows = np.divide(rows * centroids.feature_weights, norms, out=np.zeros_like(rows), where=norms > 0)
    for i, row in enumerate(rows):
        n = min(most, np.count_nonzero((classes[i] >= 0) & (log_proba[i] >= least)))
        if n == 0:
            continue
        likely, before = classes[i, :n], log_proba[i, :n]
        scores = power * before + weight * (values[likely] @ row + centroids.biases[likely])
        log_proba[i, :n] = scores - logsumexp(scores) + logsumexp(before)
        order = np.lexsort((np.where(classes[i] < 0, np.inf, classes[i]), -log_proba[i]))
        classes[i], log_proba[i] = classes[i, order], log_proba[i, order]
