"""The training of nodes."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ._common import LINE, NO_CHILD, PRIORS
from .ascent import ascend_dual
from .priors import write_guess


class NodeTrainer:
    """Trains nodes of a problem, one after the other.

    problem : a ``solvers.Problem``.
    """

    def __init__(self, problem):
        self.problem = problem

    def count_features(self, nodes, out):
        """The number of distinct features of some nodes, in their rows and in earlier weights.

        A node of which only one child has or had rows, or none, has nothing to learn, and 0 features.

        nodes : int64.
        out : (n_inner,) int64, out: the numbers, at these nodes.
        """
        for v in nodes:
            rows = self.problem.rows_of(v)
            out[v] = len(self._features(v, rows)) if len(self._seen(v, rows)) > 1 else 0

    def train(self, nodes, penalties, weights, n_iter, converged):
        """Train some nodes: start from earlier weights or the prior, ascend the dual, store.

        A node of which two children had rows starts from the earlier weights, which are zero for
        features that are new. The bias of a child that is new is the least of the others. The
        features of a node are stored in ascending order.

        nodes : int64.
        penalties : ``priors.Penalties``, of all nodes.
        weights : a ``NodeWeights`` of the sizes that count_features gives; written at these nodes.
        n_iter : (n_inner,) int32, out: passes, likewise.
        converged : (n_inner,) uint8, out: whether tol was reached, likewise.
        """
        for v in nodes:
            rows = self.problem.rows_of(v)
            features = self._features(v, rows) if len(self._seen(v, rows)) > 1 else np.zeros(0, np.int32)
            W, b, n_iter[v], converged[v] = self._trained(v, rows, features, penalties[v])
            weights.features[weights.feature_ptr[v] : weights.feature_ptr[v + 1]] = features
            lines = np.vstack([b, W]).reshape(-1, weights.lines.shape[1])
            weights.lines[weights.line_ptr[v] : weights.line_ptr[v + 1]] = lines

    def _rows(self, rows):
        return self.problem.X[rows].toarray().astype(np.float64)

    def _before(self, v):
        """Features, weights and bias before, and the children that had rows then."""
        features, W, b = self.problem.before.node(v, self.problem.arity(v))
        return features, W, b, np.flatnonzero((b > NO_CHILD) & bool(self.problem.had_rows[v]))

    def _seen(self, v, rows):
        """The children that have, or had, rows."""
        return np.union1d(self._before(v)[-1], self.problem.children_of(v, rows))

    def _features(self, v, rows):
        indptr, indices, _ = self.problem.csr
        entries = np.concatenate([np.arange(indptr[i], indptr[i + 1]) for i in rows] + [np.arange(0)])
        return np.union1d(indices[entries.astype(int)], self._before(v)[0]).astype(np.int32)

    def _trained(self, v, rows, features, penalty, row_weights=None):
        """Weights (n_features, width), bias (width,), passes, and whether tol was reached."""
        p, (C, prior, scale) = self.problem, penalty
        row_weights = p.row_weights[rows] if row_weights is None else row_weights
        prior = PRIORS.index(prior) if isinstance(prior, str) else prior
        arity, child = p.arity(v), p.children_of(v, rows)
        old_features, old_W, old_b, had = self._before(v)
        width = LINE * -(-arity // LINE)
        W, b = np.zeros((len(features), width), np.float32), np.full(width, NO_CHILD, np.float32)
        seen = self._seen(v, rows).astype(int)
        b[seen if len(seen) else np.arange(arity)] = old_b[had].min() if len(had) else 0
        b[had] = old_b[had]
        if len(had) > 1:
            W[np.searchsorted(features, old_features), :arity] = old_W
        if len(rows) == 0 or len(seen) < 2:
            return W, b, 0, True
        x = sparse.csr_array(self._rows(rows)[:, features].astype(np.float32))
        x = x.indptr.astype(np.int64), x.indices.astype(np.int32), x.data
        if prior and len(had) < 2:
            guess = np.zeros(width, np.float32)
            write_guess(*x, row_weights, child, prior, p.smoothing, W, guess)
            W *= np.float32(scale)
            b += guess * p.fit_intercept
        costs = (C / (2 if len(seen) == 2 else 1) * row_weights).astype(np.float32)
        dual = np.zeros((len(rows), width), np.float32)
        dual[np.arange(len(rows)), child] = 1
        goal = p.fit_intercept, p.tol, p.max_iter, p.seed + int(v)
        n_iter, _, done = ascend_dual(*x, p.square_norms[rows], costs, dual, W, b, *goal)
        return W, b, n_iter, done
