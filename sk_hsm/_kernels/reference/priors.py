"""What the penalty pulls towards."""

from __future__ import annotations

import numpy as np

from ._common import PRIORS, dense


def write_guess(indptr, indices, data, row_weights, child, prior, smoothing, weights, bias):
    """A node's generative guess at its weights, and at its bias.

    S are the sums of the rows by child, each row by its weight. Naive Bayes is
    ``log((S + a) / (E + a))``, E what S would be if features did not depend on the child:
    their total by the child's share in the weight of all rows (Rennie et al., 2003, smoothed).
    The centroid is S scaled to length one. Both are less their mean over the children that have
    rows, and 0 for others. The bias is the logarithm of the shares, likewise centred. Sums are
    taken in float64 and rounded once, so that they do not depend on the order of rows.

    indptr, indices, data : the rows, CSR.
    row_weights : (n_rows,) float32.
    child : (n_rows,) int64, the child that each row belongs to.
    prior : 1 for naive Bayes, 2 for the centroid.
    smoothing : float, a; positive.
    weights : (n_features, width) float32, out.
    bias : (width,) float32, out for the children that have rows.
    """
    sums = np.zeros(weights.shape)
    np.add.at(sums.T, child, row_weights[:, None].astype(float) * dense(indptr, indices, data, len(sums)))
    share = np.bincount(child, row_weights, minlength=len(bias)) / row_weights.sum(dtype=float)
    present = share > 0
    if PRIORS[prior] == "naive_bayes":
        guess = np.log((sums + smoothing) / (sums.sum(axis=1, keepdims=True) * share + smoothing))
    else:
        lengths = np.linalg.norm(sums, axis=0)
        guess = sums / np.where(lengths > 0, lengths, 1)
    weights[:] = np.where(present, guess - guess[:, present].mean(axis=1, keepdims=True), 0)
    bias[present] = np.log(share[present]) - np.log(share[present]).mean()
