"""The training of nodes."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.special import log_softmax, xlogy

from ._common import HASH_FACTOR, LINE, NO_CHILD, PRIORS, dense
from .priors import write_guess


class NodeTrainer:
    """Trains nodes of a problem, one after the other.

    problem : a ``solvers.Problem``.
    """

    def __init__(self, problem):
        self.problem = problem

    def count_features(self, nodes, out):
        """The number of distinct features in the rows of some nodes.

        A node of which only one child has rows, or none, has nothing to learn, and 0 features.

        nodes : int64.
        out : (n_inner,) int64, out: the numbers, at these nodes.
        """
        for v in nodes:
            rows = self.problem.rows_of(v)
            one = len(np.unique(self.problem.children_of(v, rows))) < 2
            out[v] = 0 if one else len(self._features(rows))

    def train(self, nodes, penalties, weights, n_iter, converged):
        """Train some nodes: start from the prior, ascend the dual, store.

        The features of a node are stored in the order of their keys.

        nodes : int64.
        penalties : ``priors.Penalties``, of all nodes.
        weights : a ``NodeWeights`` of the sizes that count_features gives; written at these nodes.
        n_iter : (n_inner,) int32, out: passes, likewise.
        converged : (n_inner,) uint8, out: whether tol was reached, likewise.
        """
        for v in nodes:
            rows = self.problem.rows_of(v)
            child = self.problem.children_of(v, rows)
            features = self._features(rows) if len(np.unique(child)) > 1 else np.zeros(0, np.int32)
            W, b, n_iter[v], converged[v] = self._trained(v, rows, features, penalties[v])
            keys = features.astype(np.uint32) * HASH_FACTOR
            order = np.argsort(keys)
            at, first = weights.key_ptr[v], weights.line_ptr[v]
            weights.keys[at : at + len(keys)] = keys[order]
            lines = np.vstack([b, W[order]]).reshape(-1, weights.lines.shape[1])
            weights.lines[first : first + len(lines)] = lines
            ends = np.arange(2 ** (32 - int(weights.shifts[v])) + 1) << int(weights.shifts[v])
            buckets = np.searchsorted(keys[order].astype(np.int64), ends)
            weights.buckets[weights.bucket_ptr[v] : weights.bucket_ptr[v + 1]] = buckets

    def held_out_losses(self, v, rows, n_train, C, prior, scale, out):
        """Train node v on some rows with each of some penalties, and predict other rows.

        rows : int64: the n_train rows to train on, then those to predict.
        C, prior, scale : (n_penalties,) float64, int32 and float64.
        out : (n_penalties,) float64, out: the weighted sum of the log-loss of the others.
        """
        features = self._features(rows)
        train, held = rows[:n_train], rows[n_train:]
        child, row_weights = self.problem.children_of(v, held), self.problem.row_weights[held]
        for k in range(len(C)):
            W, b, _, _ = self._trained(v, train, features, (C[k], prior[k], scale[k]))
            log_p = log_softmax(self._rows(held)[:, features] @ W + b, axis=1)
            out[k] = -row_weights @ log_p[np.arange(len(held)), child]

    def _rows(self, rows):
        return self.problem.X[rows].toarray().astype(np.float64)

    def _features(self, rows):
        """Features in the order in which they appear."""
        indptr, indices, _ = self.problem.csr
        entries = np.concatenate([np.arange(indptr[i], indptr[i + 1]) for i in rows] + [np.arange(0)])
        columns, first = np.unique(indices[entries], return_index=True)
        return columns[np.argsort(first)]

    def _trained(self, v, rows, features, penalty):
        """Weights (n_features, width), bias (width,), passes, and whether tol was reached."""
        p, (C, prior, scale) = self.problem, penalty
        prior = PRIORS.index(prior) if isinstance(prior, str) else prior
        arity, child = p.arity(v), p.children_of(v, rows)
        width = LINE * -(-arity // LINE)
        W, b = np.zeros((len(features), width), np.float32), np.full(width, NO_CHILD, np.float32)
        seen = np.unique(child) if len(rows) else np.arange(arity)
        b[seen] = 0
        if len(rows) == 0 or len(seen) < 2:
            return W, b, 0, True
        x = sparse.csr_array(self._rows(rows)[:, features].astype(np.float32))
        x = x.indptr.astype(np.int64), x.indices.astype(np.int32), x.data
        if prior:
            guess = np.zeros(width, np.float32)
            write_guess(*x, p.row_weights[rows], child, prior, p.smoothing, W, guess)
            W *= np.float32(scale)
            b += guess * p.fit_intercept
        costs = (C / (2 if len(seen) == 2 else 1) * p.row_weights[rows]).astype(np.float32)
        dual = np.zeros((len(rows), width), np.float32)
        dual[np.arange(len(rows)), child] = 1
        goal = p.fit_intercept, p.tol, p.max_iter, p.seed + int(v)
        n_iter, _, done = ascend_dual(*x, p.square_norms[rows], costs, dual, W, b, *goal)
        return W, b, n_iter, done


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
    estimated, as each is found. A row with ``KL <= 0.1 tol`` is passed over, and left out
    of the following passes until one estimates a gap of at most ``tol * sum(costs)``, or
    finds no row to move. The next pass then measures the gap: it visits all rows and moves
    none. Training ends if the gap is small enough, and goes on with the other rows if not.
    All rows are visited at every fifth pass at the latest. Each pass visits its rows in a
    new random order (see _shuffle).

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

    Returns the number of passes, the gap that the last one found, and whether that is a
    measured one within tol.
    """
    x = dense(indptr, indices, data, len(weights))
    c, norms, q, W, b = (array.astype(np.float64) for array in (costs, square_norms, dual, weights, bias))
    everyone, limit = list(range(len(c))), tol * c.sum()
    visited, n_iter, n_partial, gap, done, measuring = everyone, 0, 0, 0.0, False, False
    while n_iter < max_iter and not done:
        n_iter, gap, kept = n_iter + 1, 0.0, []
        visited, seed = _shuffle(visited, seed)
        for i in visited:
            divergence, D, s = _dual_step(q[i], x[i] @ W + b, c[i] * norms[i])
            gap += c[i] * divergence
            if divergence > 0.1 * tol:
                kept.append(i)
            if divergence > 0.1 * tol and not measuring:
                q[i] += s * D
                W -= c[i] * s * np.outer(x[i], D)
                b -= c[i] * s * D * fit_intercept
        done = measuring and gap <= limit
        measuring = not measuring and (gap <= limit or not kept)
        n_partial = 0 if measuring or n_partial == 4 else n_partial + 1
        visited = everyone if n_partial == 0 else kept
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
