"""Rows of a node -> its weights: dual coordinate ascent, and Newton where a fit is small."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import log_softmax

from ._kernels.nodes import NodeTrainer
from .blas import one_blas_thread
from .label_tree import LabelTree
from .node_weights import LINE, NO_CHILD, NodeWeights, offsets
from .priors import Penalties, smoothing_of
from .progress import Progress
from .row_keys import row_keys
from .row_sums import RowSums, row_sums
from .threads import over_threads
from .validation import kernel_rows

# A fit is finished exactly, in float64, where the Hessians of its nodes take no more multiplications than
# this: about half a second a step, of which a few are needed. Else nodes that did not converge are, as many
# as take no more, the smallest first.
NEWTON_BUDGET = 2**32
NEWTON_UNKNOWNS = 2048
NEWTON_ITERATIONS = 100

# Work is handed to threads in pieces of about this many non-zeros, and at most MAX_TASKS.
TASK_SIZE = 2**20
MAX_TASKS = 100


@dataclass
class Problem:
    """What is fixed while a tree's nodes are trained."""

    X: sparse.csr_array  # float32 data, no duplicates
    y: NDArray[np.int32]  # class of each row
    row_weights: NDArray[np.float32]  # not negative; rows of weight zero are left out
    tree: LabelTree
    fit_intercept: bool
    tol: float
    max_iter: int
    seed: int
    penalties: Penalties = field(default_factory=lambda: Penalties.of_nodes([]))
    earlier: NodeWeights | None = None  # what training starts from, and the penalty pulls towards

    def with_goal(self, tol: float, max_iter: int) -> Problem:
        """The same, with what is known of its rows, which is found out once: now at the latest."""
        _ = self.csr, self.square_norms, self.smoothing, self.row_order, self.row_ranges
        other = copy(self)
        other.tol, other.max_iter = tol, max_iter
        return other

    @cached_property
    def csr(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        return kernel_rows(self.X)

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """By them rows are held out to choose penalties."""
        return row_keys(self.X, self.y)

    @cached_property
    def row_sums(self) -> RowSums:
        return row_sums(self.X)

    @cached_property
    def square_norms(self) -> NDArray[np.float32]:
        """With the constant feature of the intercept."""
        with np.errstate(over="ignore"):
            return (self.row_sums.squares + self.fit_intercept).astype(np.float32)

    @cached_property
    def has_negative(self) -> bool:
        """Whether a feature is negative: naive Bayes then has no guess."""
        return bool(self.X.data.min(initial=0) < 0)

    @cached_property
    def smoothing(self) -> float:
        """What naive Bayes adds to its sums."""
        return 0.0 if self.has_negative else smoothing_of(self.row_sums, self.row_weights)

    @cached_property
    def leaf_ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.tree._leaf_ranges()

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """The depth-first rank of each row's class."""
        return self.leaf_ranges[0][self.tree.n_inner :][self.y]

    @cached_property
    def row_order(self) -> NDArray[np.int64]:
        """Rows that are not left out, sorted by rank: a node is a slice."""
        order = np.argsort(self.ranks, kind="stable")
        return order[self.row_weights[order] > 0]

    @cached_property
    def row_ptr(self) -> NDArray[np.int64]:
        """Where the rows of each rank begin in row_order; those of the last end with the last entry."""
        return offsets(np.bincount(self.ranks[self.row_weights > 0], minlength=self.tree.n_classes))

    @cached_property
    def row_ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Start and stop of each inner node's rows in row_order."""
        start, stop = (self.row_ptr[bound[: self.tree.n_inner]] for bound in self.leaf_ranges)
        return start, stop

    @cached_property
    def before(self) -> NodeWeights:
        """The earlier weights, or no features at all."""
        return self.earlier or NodeWeights.of_sizes(
            np.zeros(self.tree.n_inner, np.int64), np.diff(self.tree.child_ptr)
        )

    @cached_property
    def had_rows(self) -> NDArray[np.uint8]:
        """For each inner node, whether earlier weights were trained with rows of it."""
        had = np.zeros(self.tree.n_inner, dtype=np.uint8)
        if self.earlier is None:
            return had
        had[:1] = 1
        for nodes in self.tree._levels():
            nodes = nodes[nodes < self.tree.n_inner]
            parents = self.tree.parents[nodes]
            bias = self.earlier.lines.ravel()[
                LINE * self.earlier.line_ptr[parents] + self.tree.positions[nodes]
            ]
            had[nodes] = had[parents] & (bias > NO_CHILD)
        return had

    @cached_property
    def newton_work(self) -> NDArray[np.float64]:
        """Multiplications of a Newton step of each inner node; infinite for those of too many unknowns."""
        unknowns = (self.X.shape[1] + 1.0) * np.diff(self.tree.child_ptr)
        rows = np.subtract(self.row_ranges[1], self.row_ranges[0])
        return np.where(unknowns <= NEWTON_UNKNOWNS, rows * unknowns**2 + unknowns**3, np.inf)

    @cached_property
    def is_small(self) -> bool:
        """Whether every node is to be finished by Newton steps."""
        return bool(self.newton_work.sum() <= NEWTON_BUDGET)

    def arity(self, v: int) -> int:
        return int(self.tree.child_ptr[v + 1] - self.tree.child_ptr[v])

    def rows_of(self, v: int) -> NDArray[np.int64]:
        """The rows whose class is below node v."""
        return self.row_order[self.row_ranges[0][v] : self.row_ranges[1][v]]

    def children_of(self, v: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which child of node v each of its rows belongs to."""
        children = self.tree.children[self.tree.child_ptr[v] : self.tree.child_ptr[v + 1]]
        return np.searchsorted(self.leaf_ranges[0][children], self.ranks[rows], side="right") - 1


@dataclass
class TreeFit:
    """All trained nodes of a tree."""

    weights: NodeWeights
    n_iter: NDArray[np.int32]
    converged: NDArray[np.bool_]


def fit_nodes(
    problem: Problem, n_jobs: int | None, progress: Progress, nodes: NDArray[np.int64] | None = None
) -> TreeFit:
    """Train every inner node of the tree, or these; the result does not depend on n_jobs."""
    nodes = np.arange(problem.tree.n_inner) if nodes is None else nodes
    fit = ascend_nodes(problem, n_jobs, progress, nodes)
    if not problem.is_small:
        nodes = nodes[~fit.converged[nodes]]
        nodes = nodes[np.argsort(problem.newton_work[nodes], kind="stable")]
        nodes = nodes[np.cumsum(problem.newton_work[nodes]) <= NEWTON_BUDGET]
    if len(nodes):
        centre = ascend_nodes(problem.with_goal(problem.tol, 0), n_jobs, progress, nodes).weights
        with one_blas_thread():
            for v in nodes.tolist():
                fit.converged[v] = finish_by_newton(problem, v, centre, fit.weights, fit.converged[v])
    return fit


def ascend_nodes(
    problem: Problem, n_jobs: int | None, progress: Progress, nodes: NDArray[np.int64] | None = None
) -> TreeFit:
    """Dual coordinate ascent of every inner node, or of these; others have no weights, nor biases, then."""
    n_inner = problem.tree.n_inner
    nodes = np.arange(n_inner) if nodes is None else nodes
    start, stop = problem.row_ranges
    sizes = problem.X.nnz / max(problem.X.shape[0], 1) * (stop - start) + 1
    tasks = [nodes[task] for task in tasks_of_sizes(sizes[nodes])]
    n_features = np.zeros(n_inner, dtype=np.int64)
    n_iter, converged = np.zeros(n_inner, dtype=np.int32), np.ones(n_inner, dtype=bool)

    def count(task: NDArray[np.int64]) -> None:
        NodeTrainer(problem).count_features(task, n_features)

    def train(task: NDArray[np.int64]) -> None:
        NodeTrainer(problem).train(task, problem.penalties, weights, n_iter, converged.view(np.uint8))
        progress.advance(sizes[task].sum())

    over_threads(count, tasks, n_jobs)
    weights = NodeWeights.of_sizes(n_features, np.diff(problem.tree.child_ptr))
    progress.start("nodes", sizes[nodes].sum())
    over_threads(train, tasks, n_jobs)
    return TreeFit(weights, n_iter, converged)


def tasks_of_sizes(sizes: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Numbers of what has these sizes: the largest first, one by one; small ones together."""
    largest = np.argsort(-sizes, kind="stable")
    piece = (np.cumsum(sizes[largest]) - sizes[largest]) // max(TASK_SIZE, sizes.sum() / MAX_TASKS)
    return np.split(largest, np.flatnonzero(np.diff(piece)) + 1) if len(sizes) else []


def finish_by_newton(
    problem: Problem, v: int, centre: NodeWeights, weights: NodeWeights, converged: bool
) -> bool:
    """Newton's method in float64 from the weights of node v, in place; True where it converged.

    The centre is what the penalty pulls towards. Where float64 cannot factor the Hessian
    (features of 1e7, C of 1e20), or float32 not hold what is found, weights stay.
    """
    rows, penalty = problem.rows_of(v), problem.penalties[v]
    features, W, bias = weights.node(v, problem.arity(v))
    alive = np.flatnonzero(bias > NO_CHILD)
    child = np.searchsorted(alive, problem.children_of(v, rows))
    if len(alive) < 2 or not len(rows):
        return converged
    A = problem.X[rows].toarray()[:, features].astype(np.float64)
    if problem.fit_intercept:
        A = np.column_stack([A, np.ones(len(A))])
    if not A.shape[1]:
        return converged
    # the features of a node are the same in both
    start, theta = (
        np.vstack(model.node(v, problem.arity(v))[1:])[: A.shape[1], alive].astype(np.float64)
        for model in (centre, weights)
    )
    # two children share a penalty: see NodeTrainer
    costs = penalty.C * problem.row_weights[rows].astype(np.float64) / (2 if len(alive) == 2 else 1)
    # logits are affine in what is added to the centre
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            added, done = newton(A, child, costs, theta - start, A @ start)
            theta = (start + added).astype(np.float32)
    except (LinAlgError, ValueError):  # of a matrix that is not finite
        return converged
    if not np.isfinite(theta).all():
        return converged
    W[:, alive] = theta[: len(W)]
    if problem.fit_intercept:
        bias[alive] = theta[-1]
    return done


def newton(
    A: NDArray[np.float64],
    child: NDArray[np.int64],
    costs: NDArray[np.float64],
    theta: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> tuple[NDArray[np.float64], bool]:
    """Minimise ||theta||^2 / 2 + sum of costs * log-loss of softmax(A theta + offset).

    The Hessian is I + sum of cost * (diag(p) - p p') (x) (x x').
    """
    for _ in range(NEWTON_ITERATIONS):
        log_p = log_softmax(A @ theta + offset, axis=1)
        loss = _objective(theta, log_p, child, costs)
        errors = np.exp(log_p)
        errors[np.arange(len(A)), child] -= 1
        gradient = (theta + A.T @ (costs[:, None] * errors)).T.ravel()
        step = cho_solve(cho_factor(_hessian(A, np.exp(log_p), costs)), gradient)
        decrement = gradient @ step
        step = step.reshape(theta.shape[1], -1).T
        size = 1.0
        # near the optimum the loss is flat to rounding, and the full step is right
        while decrement > 1e-8 * (1 + loss) and size > 1e-8:
            moved = theta - size * step
            if (
                _objective(moved, log_softmax(A @ moved + offset, axis=1), child, costs)
                <= loss - 0.1 * size * decrement
            ):
                break
            size /= 2
        theta = theta - size * step
        if np.abs(step).max() <= 1e-10 * (1 + np.abs(theta).max()):
            return theta, True
    return theta, False


def _objective(theta, log_p, child, costs) -> float:
    return float(np.sum(theta * theta) / 2 - costs @ log_p[np.arange(len(log_p)), child])


def _hessian(A: NDArray, p: NDArray, costs: NDArray) -> NDArray[np.float64]:
    """Of the unknowns child by child: (k * d, k * d)."""
    k, d = p.shape[1], A.shape[1]
    H = np.eye(k * d)
    for c in range(k):
        H[c * d : (c + 1) * d, c * d : (c + 1) * d] += A.T @ ((costs * p[:, c])[:, None] * A)
    size = max(1, 2**22 // (k * d))
    for lo in range(0, len(A), size):
        weighted = np.sqrt(costs[lo : lo + size, None]) * p[lo : lo + size]
        B = (weighted[:, :, None] * A[lo : lo + size, None, :]).reshape(-1, k * d)
        H -= B.T @ B
    return H
