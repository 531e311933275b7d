"""Dense rows made round: alike in all directions in which rows of a class differ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh

from ._kernels.rows import hash_rows
from .node_weights import NO_CHILD, NodeWeights
from .validation import kernel_rows

# Numbers of a block of rows that is worked on at a time.
BLOCK = 2**23
# A feature that rows of a class have alike counts as if it varied by this share of its variance; and no
# direction counts as if rows of a class differed in it by less than this share of the mean.
LEAST_SHARE = 1e-3
# Of more distinct rows than ENOUGH, those of some classes are looked at, no fewer than there are features.
ENOUGH = 2**20
# It is worth it for rows of which half the values are not zero, and of at most so many features.
DENSE = 0.5
MOST_FEATURES = 1024


def is_worth_whitening(X: sparse.csr_array, y: NDArray[np.int32], n_classes: int) -> bool:
    """Whether rows are dense, classes more than features, and rows of a class fewer.

    Those of one class alone then do not tell in which directions they differ, those of all do.
    """
    n, d = X.shape
    if not d < n_classes or d > MOST_FEATURES or X.nnz < DENSE * n * d:
        return False
    return d < count_distinct(X, y) - n_classes < d * n_classes


def count_distinct(X: sparse.csr_array, y: NDArray[np.int32]) -> int:
    """Rows that differ in a feature or the class, so that a weight is the same as repetitions."""
    hashes = np.empty(len(y), dtype=np.uint64)
    hash_rows(*kernel_rows(X), hashes)
    return len(np.unique(hashes + y.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)))


def learn_whitening(
    X: sparse.csr_array, y: NDArray[np.int32], weights: NDArray[np.float64], center: bool
) -> NDArray[np.float64]:
    """The map A, (n_features + 1, n_features): rows [x, 1] A differ alike in all directions in a class.

    The first rows of A are an inverse root of the covariance within classes S, as in linear
    discriminant analysis [1]_; the last one takes the mean away if `center`, else it is zero. With D
    the diagonal of S, the correlations ``D^-1/2 S D^-1/2`` are first drawn towards the identity, by a share
    of d over the number of distinct rows beyond one a class.

    .. [1] R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7, 1936.
    """
    X, y, weights, n_distinct = rows_to_learn_from(X, y, weights)
    d = X.shape[1]
    total = weights.sum()
    mean = weights @ X / total
    within, squares = np.zeros((d, d)), np.zeros(d)
    order = np.argsort(y, kind="stable")
    for block in class_blocks(y[order], d):
        at = order[block]
        rows, w = X[at].toarray().astype(np.float64) - mean, weights[at, None]
        first = np.flatnonzero(np.diff(y[at], prepend=-1))
        sizes = np.diff(first, append=len(at))
        means = np.add.reduceat(w * rows, first) / np.add.reduceat(w, first)
        squares += np.sum(w * rows**2, axis=0)
        rows -= np.repeat(means, sizes, axis=0)
        within += rows.T @ (w * rows)
    deviations = np.sqrt(np.diag(within) + LEAST_SHARE * squares) / total**0.5
    deviations[deviations == 0] = 1
    share = min(1.0, d / max(n_distinct - len(np.unique(y)), 1))
    correlations = (1 - share) * within / total / np.outer(deviations, deviations)
    np.fill_diagonal(correlations, 1)
    values, vectors = eigh(correlations)
    root = vectors / np.sqrt(np.maximum(values, LEAST_SHARE)) / deviations[:, None]
    return np.vstack([root, -center * mean @ root])


def rows_to_learn_from(
    X: sparse.csr_array, y: NDArray[np.int32], weights: NDArray[np.float64]
) -> tuple[sparse.csr_array, NDArray[np.int32], NDArray[np.float64], int]:
    """All rows, or all of every so many-th class, about ENOUGH distinct ones; and how many are distinct."""
    n_distinct, classes = count_distinct(X, y), np.unique(y)
    step = -(-n_distinct // ENOUGH)
    if step == 1 or len(classes) < step * X.shape[1]:
        return X, y, weights, n_distinct
    some = np.flatnonzero(np.isin(y, classes[::step]))
    X, y = X[some], y[some]
    return X, y, weights[some], count_distinct(X, y)


def class_blocks(sorted_y: NDArray[np.int32], n_features: int) -> Iterator[slice]:
    """Parts of rows sorted by class, each of whole classes."""
    lo, n = 0, len(sorted_y)
    while lo < n:
        last = sorted_y[min(lo + max(1, BLOCK // n_features), n) - 1]
        hi = int(np.searchsorted(sorted_y, last, side="right"))
        yield slice(lo, hi)
        lo = hi


def whitened(X: sparse.csr_array, A: NDArray[np.float64]) -> sparse.csr_array:
    """[x, 1] A of each row x, as float32."""
    n, d = X.shape
    data = np.empty((n, d), dtype=np.float32)
    size = max(1, BLOCK // d)
    for lo in range(0, n, size):
        data[lo : lo + size] = X[lo : lo + size].toarray() @ A[:-1] + A[-1]
    columns = np.broadcast_to(np.arange(d, dtype=np.int32), (n, d)).ravel()
    return sparse.csr_array((data.ravel(), columns, np.arange(n + 1) * d), shape=X.shape)


def to_raw(weights: NodeWeights, arities: NDArray[np.int64], A: NDArray[np.float64]) -> NodeWeights:
    """Weights that give a row x the scores that these give [x, 1] A."""
    return _mapped(weights, arities, A[:-1], A[-1])


def to_white(weights: NodeWeights, arities: NDArray[np.int64], A: NDArray[np.float64]) -> NodeWeights:
    """The inverse of to_raw."""
    inverse = np.linalg.inv(A[:-1])
    return _mapped(weights, arities, inverse, -A[-1] @ inverse)


def _mapped(
    weights: NodeWeights, arities: NDArray[np.int64], root: NDArray[np.float64], shift: NDArray[np.float64]
) -> NodeWeights:
    """Of each node with weights W and bias b those that are root W and b + shift W."""
    d = len(root)
    all_features = np.arange(d, dtype=np.int32)
    out = NodeWeights.of_sizes(np.where(np.diff(weights.key_ptr) > 0, d, 0), arities)
    for v, arity in enumerate(arities):
        features, W, bias = weights.node(v, arity)
        W = W.astype(np.float64)
        moved = np.where(bias > NO_CHILD, bias + shift[features] @ W, bias)
        some = all_features if len(features) else all_features[:0]
        out.fill(v, some, root[: len(some), features] @ W, moved)
    return out
