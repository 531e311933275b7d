"""Dual coordinate ascent."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax, xlogy

from ._common import NO_CHILD, dense


def ascend_dual(
    indptr, indices, data, square_norms, costs, dual, weights, bias, fit_intercept, tol, max_iter, seed
):
    """Train a node: dual coordinate ascent for ``||W||^2 / 2 + sum of cost * log-loss``.

    A row x has the logits ``z = W x + b``, the probabilities ``p = softmax(z)`` and a dual
    point q, a distribution over the children. With ``D = p - q`` and ``a = cost ||x||^2``,
    a visit to the row moves its q, and the weights with it, by the step of Shalev-Shwartz
    and Zhang (2014)::

        KL = sum of q log(q / p)
        s = min(1, (KL + ||D||_1^2 / 2) / (a ||D||_2^2 + ||D||_1^2))
        q += s D;  W -= cost s D (x) x;  b -= cost s D

    The duality gap is the sum of cost * KL over all rows. While rows move it is only
    estimated, as each was found last. A row with ``KL <= 0.1 tol`` is passed over, and left
    out of the following passes until one estimates a gap of at most ``tol * sum(costs)``, or
    finds no row to move. If that is one of the first five passes, and has halved the gap (the
    first one: is half of tol), training ends. Else the next pass measures the gap: it visits
    all rows and moves none; or, if no row costs more than ten times the mean, it ends where 1000 of
    them, and a sixteenth of all, tell that the gap is small enough even with three standard errors
    more. Training ends if it is, and goes on with the other rows if not. All rows are visited at
    every tenth pass at the latest. Each pass visits its rows in a new random order (see _shuffle).
    Where numbers overflow, W and b end as 0, and the gap is infinite.

    indptr, indices, data : the rows, CSR.
    square_norms : (n_rows,) float32, ||x||^2, plus 1 for the intercept's constant feature.
    costs : (n_rows,) float32, positive.
    dual : (n_rows, width) float32, in and out: q. At the start one at the row's own child.
    weights : (n_features, width) float32, in and out: the transpose of W. Where it starts is
        what it is pulled towards: ``||W - start||^2`` if that is not zero.
    bias : (width,) float32, in and out: b, likewise. -1e30 for a child that does not exist.
    fit_intercept : whether b is trained.
    tol, max_iter : float and int, see above; max_iter bounds the passes.
    seed : int, of the order of visits.

    Returns the number of passes, the gap that the last one found, and whether training has ended
    with it.
    """
    x = dense(indptr, indices, data, len(weights))
    c, norms, q, W, b = (array.astype(np.float64) for array in (costs, square_norms, dual, weights, bias))
    everyone, limit = list(range(len(c))), tol * c.sum()
    visited, n_iter, n_partial, gap, done, measuring = everyone, 0, 0, 0.0, False, False
    former, left_out = limit, 0.0
    enough = max(1000, len(c) // 16) if c.max() <= 10 * c.mean() else np.inf
    while n_iter < max_iter and not done:
        n_iter, gap, kept, gaps = n_iter + 1, left_out, [], []
        visited, seed = _shuffle(visited, seed)
        for k, i in enumerate(visited, start=1):
            divergence, D, s = _dual_step(q[i], x[i] @ W + b, c[i] * norms[i])
            if not divergence < np.inf:
                weights[...], bias[...] = 0, np.where(b == NO_CHILD, b, 0)
                return n_iter, np.inf, False
            gap += c[i] * divergence
            gaps.append(c[i] * divergence)
            if measuring and k == enough:
                done = len(c) * (np.mean(gaps) + 3 * np.std(gaps) / np.sqrt(k)) <= limit
                if done:
                    gap = len(c) * np.mean(gaps)
                    break
            if divergence <= 0.1 * tol:
                left_out += c[i] * divergence
                continue
            kept.append(i)
            if not measuring:
                q[i] += s * D
                W -= c[i] * s * np.outer(x[i], D)
                b -= c[i] * s * D * fit_intercept
        done = done or gap <= limit and (measuring or (n_iter <= 5 and gap <= former / 2))
        measuring = not measuring and (gap <= limit or not kept)
        former, n_partial = gap, 0 if measuring or n_partial == 9 else n_partial + 1
        visited, left_out = (everyone, 0.0) if n_partial == 0 else (kept, left_out)
    dual[...], weights[...], bias[...] = q, W, b
    return n_iter, gap, bool(done)


def _shuffle(rows, state):
    """Fisher and Yates' shuffle from the end, with a linear congruential generator."""
    rows = list(rows)
    for k in range(len(rows) - 1, 0, -1):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        other = (state >> 33) % (k + 1)
        rows[k], rows[other] = rows[other], rows[k]
    return rows, state


def _dual_step(q, z, a):
    """KL(q || p), D = p - q and the step size s, for p = softmax(z)."""
    log_p = log_softmax(z)
    divergence = max(0.0, np.sum(xlogy(q, q) - q * log_p))
    D = np.exp(log_p) - q
    norm1, norm2 = np.sum(np.abs(D)) ** 2, np.sum(D**2)
    s = (divergence + norm1 / 2) / (a * norm2 + norm1) if norm1 else 1.0
    return divergence, D, min(1.0, s)
