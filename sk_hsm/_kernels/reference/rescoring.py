"""A row's likely classes, scored again by their centroids."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from ._common import dense


def similarities(rescoring, indptr, indices, data, classes, similarity_of):
    """How similar rows are to these classes.

    It is ``x . v + b`` with the class's values v and bias b, x being ``w * row / sqrt(sum(w * row^2))``
    where there are feature weights w, or the row.

    rescoring : Rescoring.
    indptr, indices, data : the rows, CSR, columns in order.
    classes : (n_rows, width) int32; -1 for none.
    similarity_of : (n_rows, width) float64, out: as it is where there is no class.
    """
    rows = dense(indptr, indices, data, rescoring.n_features)
    values = rescoring.matrix().toarray().astype(np.float64)
    if len(rescoring.feature_weights):
        norms = np.sqrt((rows**2 * rescoring.feature_weights).sum(axis=1, keepdims=True))
        rows = np.divide(rows * rescoring.feature_weights, norms, out=np.zeros_like(rows), where=norms > 0)
    for i, row in enumerate(rows):
        is_class = classes[i] >= 0
        label = classes[i, is_class]
        similarity_of[i, is_class] = values[label] @ row + rescoring.biases[label]


def rescore(rescoring, indptr, indices, data, classes, log_proba):
    """Divide what a row's classes have of the probability anew, and sort them again.

    They share it by the softmax of ``power * log-probability + weight * similarity``.

    rescoring, indptr, indices, data : as of similarities.
    classes : (n_rows, width) int32, in and out: the most probable first, ties in order of class; -1 for none.
    log_proba : (n_rows, width) float64, in and out: -inf for none.
    """
    similarity = np.zeros(classes.shape)
    similarities(rescoring, indptr, indices, data, classes, similarity)
    for i in range(len(classes)):
        n = np.count_nonzero(classes[i] >= 0)
        if n == 0:
            continue
        likely, before = classes[i, :n], log_proba[i, :n]
        scores = rescoring.power * before + rescoring.weight * similarity[i, :n]
        after = scores - logsumexp(scores) + logsumexp(before)
        order = np.lexsort((likely, -after))
        classes[i, :n], log_proba[i, :n] = likely[order], after[order]
