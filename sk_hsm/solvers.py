"""Rows of a node -> its weights: dual coordinate ascent, and Newton where a fit is small."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import log_softmax
from sklearn.utils.extmath import row_norms
from sklearn.utils.parallel import _get_threadpool_controller

from ._kernels import nodes as kernels
from .label_tree import LabelTree
from .node_weights import LINE, NO_CHILD, NodeWeights, aligned_empty, feature_keys, n_lines
from .priors import Penalties, smoothing_of, write_guess
from .progress import Progress
from .validation import kernel_rows

# A fit is finished exactly, in float64, where the Hessians of its nodes take no
# more multiplications than this: about a second.
NEWTON_BUDGET = 2**32
NEWTON_UNKNOWNS = 2048
NEWTON_ITERATIONS = 100

# Work is handed to threads in pieces of about this many non-zeros.
TASK_SIZE = 2**20


@dataclass
class Problem:
    """What is fixed while a tree's nodes are trained."""

    X: sparse.csr_array  # float32 data, no duplicates
    y: NDArray[np.int32]  # class of each row
    row_weights: NDArray[np.float32]  # all positive
    tree: LabelTree
    fit_intercept: bool
    tol: float
    max_iter: int
    seed: int
    penalties: Penalties = field(default_factory=lambda: Penalties.of_nodes([]))

    @cached_property
    def csr(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        return kernel_rows(self.X)

    @cached_property
    def square_norms(self) -> NDArray[np.float32]:
        """With the constant feature of the intercept."""
        return (row_norms(self.X, squared=True) + self.fit_intercept).astype(np.float32)

    @cached_property
    def smoothing(self) -> float:
        """What naive Bayes adds to its sums."""
        return smoothing_of(self.X, self.row_weights)

    @cached_property
    def leaf_ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.tree._leaf_ranges()

    @cached_property
    def row_order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows sorted by the depth-first rank of their class, and those ranks: a node is a slice."""
        rank = self.leaf_ranges[0][self.tree.n_inner :][self.y]
        order = np.argsort(rank, kind="stable")
        return order, rank[order]

    @cached_property
    def row_ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Start and stop of each inner node's rows in row_order."""
        start, stop = (bound[: self.tree.n_inner] for bound in self.leaf_ranges)
        ranks = self.row_order[1]
        return np.searchsorted(ranks, start), np.searchsorted(ranks, stop)

    @cached_property
    def is_small(self) -> bool:
        """Whether every node is to be finished by Newton steps."""
        unknowns = (self.X.shape[1] + 1.0) * np.diff(self.tree.child_ptr)
        rows = np.subtract(self.row_ranges[1], self.row_ranges[0])
        work = np.sum(rows * unknowns**2 + unknowns**3)
        return bool(work <= NEWTON_BUDGET and unknowns.max(initial=0) <= NEWTON_UNKNOWNS)

    def arity(self, v: int) -> int:
        return int(self.tree.child_ptr[v + 1] - self.tree.child_ptr[v])

    def rows_of(self, v: int) -> NDArray[np.int64]:
        """The rows whose class is below node v."""
        return self.row_order[0][self.row_ranges[0][v] : self.row_ranges[1][v]]

    def children_of(self, v: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which child of node v each of its rows belongs to."""
        children = self.tree.children[self.tree.child_ptr[v] : self.tree.child_ptr[v + 1]]
        ranks = self.leaf_ranges[0][self.tree.n_inner :][self.y[rows]]
        return np.searchsorted(self.leaf_ranges[0][children], ranks, side="right") - 1


class Workspace(threading.local):
    """Buffers that a thread uses again for every node: fresh memory costs page faults."""

    def __init__(self, n_features: int) -> None:
        self.local_of = np.full(n_features, -1, dtype=np.int32)
        self.buffers: dict[str, NDArray] = {}

    def take(self, name: str, size: int, dtype: type) -> NDArray:
        """An uninitialised array, valid until the next call with this name."""
        if name not in self.buffers or len(self.buffers[name]) < size:
            self.buffers[name] = aligned_empty(size + size // 4, dtype)
        return self.buffers[name][:size]

    def lines(self, name: str, n: int, width: int, dtype: type = np.float32) -> NDArray:
        """Zeros of shape (n, width), likewise."""
        lines = self.take(name, n * width, dtype).reshape(n, width)
        lines.fill(0)
        return lines


@dataclass
class NodeRows:
    """The rows of one node, over the node's own features."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]
    features: NDArray[np.int32]
    child: NDArray[np.int64]
    row_weights: NDArray[np.float32]
    square_norms: NDArray[np.float32]

    @property
    def csr(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        return self.indptr, self.indices, self.data

    def part(self, lo: int, hi: int) -> NodeRows:
        """Rows lo to hi, over the same features; a view."""
        ends = slice(self.indptr[lo], self.indptr[hi])
        return NodeRows(
            self.indptr[lo : hi + 1] - self.indptr[lo], self.indices[ends], self.data[ends], self.features,
            self.child[lo:hi], self.row_weights[lo:hi], self.square_norms[lo:hi],
        )  # fmt: skip


@dataclass
class NodeFit:
    """One trained node."""

    keys: NDArray[np.uint32]
    lines: NDArray[np.float32]
    n_iter: int
    converged: bool


@dataclass
class TreeFit:
    """All trained nodes of a tree."""

    weights: NodeWeights
    n_iter: NDArray[np.int32]
    converged: NDArray[np.bool_] = field(repr=False)


def fit_nodes(problem: Problem, n_jobs: int | None, progress: Progress) -> TreeFit:
    """Train every inner node of the tree; the result does not depend on n_jobs."""
    start, stop = problem.row_ranges
    sizes = problem.X.nnz / max(problem.X.shape[0], 1) * (stop - start) + 1
    tasks = _tasks(sizes)
    progress.start("nodes", sizes.sum())

    space = Workspace(problem.X.shape[1])

    def run(task: NDArray[np.int64]) -> list[NodeFit]:
        fits = []
        for v in task:
            fits.append(solve_node(problem, v, space))
            progress.advance(sizes[v])
        return fits

    # the matrices of Newton steps are too small for several BLAS threads
    with _get_threadpool_controller().limit(limits=1, user_api="blas"):
        done = Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(run)(task) for task in tasks)
    fits: list[NodeFit] = [None] * problem.tree.n_inner  # type: ignore[list-item]
    for task, results in zip(tasks, done, strict=True):
        for v, fit in zip(task, results, strict=True):
            fits[v] = fit
    return TreeFit(
        NodeWeights.from_nodes([(fit.keys, fit.lines) for fit in fits]),
        np.array([fit.n_iter for fit in fits], dtype=np.int32),
        np.array([fit.converged for fit in fits], dtype=bool),
    )


def _tasks(sizes: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Largest nodes first, one by one; small ones together."""
    largest = np.argsort(-sizes, kind="stable")
    piece = (np.cumsum(sizes[largest]) - sizes[largest]) // TASK_SIZE
    return np.split(largest, np.flatnonzero(np.diff(piece)) + 1) if len(sizes) else []


def solve_node(problem: Problem, v: int, space: Workspace) -> NodeFit:
    """Train node v on its rows."""
    rows = take_rows(problem, v, problem.rows_of(v), space)
    penalty = problem.penalties[v]
    weights, bias = start_node(problem, rows, problem.arity(v), penalty.prior, space)
    if np.count_nonzero(bias > NO_CHILD) < 2 or not len(rows.child):
        return NodeFit(feature_keys(rows.features[:0]), bias[None, :], 0, True)
    weights *= np.float32(penalty.scale)
    costs = costs_of(rows, bias, penalty.C)
    exact = problem.is_small and len(weights) + problem.fit_intercept > 0
    start = (weights.copy(), bias.copy()) if exact else None
    n_iter, converged = ascend(problem, rows, costs, weights, bias, v, space)
    if exact:
        converged = finish_by_newton(rows, costs, start, weights, bias, problem.fit_intercept, converged)
    return pack_node(rows.features, weights, bias, n_iter, converged)


def take_rows(problem: Problem, v: int, rows: NDArray[np.int64], space: Workspace) -> NodeRows:
    """Copy some rows of node v, numbering their features as they appear."""
    nnz = int(np.sum(problem.csr[0][rows + 1] - problem.csr[0][rows]))
    indptr = space.take("indptr", len(rows) + 1, np.int64)
    indices, data = space.take("indices", nnz, np.int32), space.take("data", nnz, np.float32)
    features = space.take("features", min(nnz, problem.X.shape[1]), np.int32)
    n_features = kernels.gather_rows(*problem.csr, rows, space.local_of, features, indptr, indices, data)
    return NodeRows(
        indptr, indices, data, features[:n_features], problem.children_of(v, rows),
        problem.row_weights[rows], problem.square_norms[rows],
    )  # fmt: skip


def start_node(
    problem: Problem, rows: NodeRows, arity: int, prior: str, space: Workspace
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The prior, of scale 1, from which training starts: weights (n_features, width) and bias (width,)."""
    width = LINE * n_lines(arity)
    weights = space.lines("weights", len(rows.features), width)
    bias = np.full(width, NO_CHILD)
    seen = np.flatnonzero(np.bincount(rows.child, minlength=arity))
    bias[seen if len(seen) else slice(arity)] = 0  # a child without rows has probability 0
    if prior != "none" and len(seen) > 1:
        guess = np.zeros(width, np.float32)
        sums = space.lines("sums", *weights.shape, np.float64)
        write_guess(prior, rows.csr, rows.row_weights, rows.child, problem.smoothing, sums, weights, guess)
        if problem.fit_intercept:
            bias += guess
    return weights, bias


def costs_of(rows: NodeRows, bias: NDArray[np.float32], C: float) -> NDArray[np.float64]:
    """What the log-loss of each row costs."""
    if np.count_nonzero(bias > NO_CHILD) == 2:
        C = C / 2  # binary LogisticRegression penalises w, which here is split into w / 2 and -w / 2
    return C * rows.row_weights.astype(np.float64)


def ascend(
    problem: Problem,
    rows: NodeRows,
    costs: NDArray[np.float64],
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
    v: int,
    space: Workspace,
) -> tuple[int, bool]:
    """Dual coordinate ascent, weights and bias in place; the passes, and whether it reached tol."""
    dual = space.lines("dual", len(rows.child), len(bias))
    dual[np.arange(len(dual)), rows.child] = 1
    n_iter, _, converged = kernels.ascend_dual(
        *rows.csr, rows.square_norms, costs.astype(np.float32), dual, weights, bias,
        problem.fit_intercept, problem.tol, problem.max_iter, problem.seed + v,
    )  # fmt: skip
    return n_iter, converged


def pack_node(features, weights, bias, n_iter, converged) -> NodeFit:
    """Sort a node's lines by key, bias first."""
    keys = feature_keys(features)
    order = np.argsort(keys)
    lines = np.empty((1 + len(order), len(bias)), dtype=np.float32)
    lines[0] = bias
    np.take(weights, order, axis=0, out=lines[1:], mode="clip")
    return NodeFit(keys[order], lines, n_iter, converged)


def finish_by_newton(
    rows: NodeRows,
    costs: NDArray[np.float64],
    start: tuple[NDArray, NDArray],
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
    fit_intercept: bool,
    converged: bool,
) -> bool:
    """Newton's method in float64 from the given weights, in place; True where it converged.

    Where float64 cannot factor the Hessian (features of 1e7, C of 1e20) weights stay.

    The Hessian is I + sum of cost * (diag(p) - p p') (x) (x x'), over the children that
    have rows.
    """
    alive = np.flatnonzero(bias > NO_CHILD)
    A = sparse.csr_array(
        (rows.data, rows.indices, rows.indptr), shape=(len(rows.child), len(weights)), dtype=np.float64
    ).toarray()
    if fit_intercept:
        A = np.column_stack([A, np.ones(len(A))])
    centre, theta = (
        np.vstack(block)[: A.shape[1], alive].astype(np.float64) for block in (start, (weights, bias))
    )
    child = np.searchsorted(alive, rows.child)
    # logits are affine in what is added to the centre
    try:
        added, converged = newton(A, child, costs, theta - centre, A @ centre)
    except LinAlgError:
        return converged
    theta = centre + added
    weights[:, alive] = theta[: len(weights)]
    if fit_intercept:
        bias[alive] = theta[-1]
    return converged


def newton(
    A: NDArray[np.float64],
    child: NDArray[np.int64],
    costs: NDArray[np.float64],
    theta: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> tuple[NDArray[np.float64], bool]:
    """Minimise ||theta||^2 / 2 + sum of costs * log-loss of softmax(A theta + offset)."""
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
