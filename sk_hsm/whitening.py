"""Dense rows made round: alike in all directions in which rows of a class differ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh
from sklearn.utils import gen_batches

from .blas import one_blas_thread
from .label_tree import LabelTree
from .node_weights import NO_CHILD, NodeWeights
from .row_keys import count_distinct
from .validation import as_array, as_view, full_csr

# Numbers of a block of rows that is worked on at a time.
BLOCK = 2**23
# A feature that rows of a class have alike counts as if it varied by this share of its variance; and no
# direction counts as if rows of a class differed in it by less than this share of the mean.
LEAST_SHARE = 1e-3
# A feature that varies by less is taken as constant: float32 does not hold the weight that it would need.
LEAST_DEVIATION = 1e-30
# Of more distinct rows than ENOUGH, those of some classes are looked at, no fewer than there are features.
ENOUGH = 2**20
# It is worth it for rows of which half the values are not zero, and of at most so many features.
DENSE = 0.5
MOST_FEATURES = 1024
# Rows that differ in no direction this many times as much as in another are left as they are.
UNEVEN = 2


def is_worth_whitening(X: sparse.csr_array, n_classes: int) -> bool:
    """Whether rows are dense, and features fewer than classes and than MOST_FEATURES."""
    n, d = X.shape
    return d < n_classes and d <= MOST_FEATURES and X.nnz >= DENSE * n * d


def are_rows_few(keys: NDArray[np.uint64], n_features: int, n_classes: int) -> bool:
    """Whether rows of a class are fewer than features, but all rows more, equal ones counted once.

    Those of one class alone then do not tell in which directions they differ, those of all do.
    """
    return n_features < count_distinct(keys) - n_classes < n_features * n_classes


def learn_whitening(
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    keys: NDArray[np.uint64],
    center: bool,
) -> NDArray[np.float64]:
    """The map A, (n_features + 1, n_features): rows [x, 1] A differ alike in all directions in a class.

    The first rows of A are an inverse root of the covariance within classes S, as in linear
    discriminant analysis [1]_; the last one takes the mean away if `center`, else it is zero. With D
    the diagonal of S, the correlations ``D^-1/2 S D^-1/2`` are first drawn towards the identity, by a share
    of d over the number of distinct rows beyond one a class. `keys` are those of row_keys.

    .. [1] R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7, 1936.
    """
    with one_blas_thread():
        return _learn(X, y, weights, *rows_to_learn_from(y, keys, X.shape[1]), center)


def _learn(
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    order: NDArray[np.int64],
    n_distinct: int,
    center: bool,
) -> NDArray[np.float64]:
    d, total, X = X.shape[1], weights[order].sum(), as_view(X)
    blocks = [order[block] for block in class_blocks(y[order], d)]
    mean = sum(weights[at] @ as_array(X[at]) for at in blocks) / total
    within, squares = np.zeros((d, d)), np.zeros(d)
    for at in blocks:
        rows, w = as_array(X[at]) - mean, weights[at, None]
        weighted = w * rows
        first = np.flatnonzero(np.diff(y[at], prepend=-1))
        sums = np.add.reduceat(weighted, first)
        means = sums / np.add.reduceat(w, first)
        squares += np.einsum("ij,ij->j", weighted, rows)
        within += rows.T @ weighted - means.T @ sums
    deviations = np.sqrt(np.diag(within) + LEAST_SHARE * squares) / total**0.5
    deviations[deviations < LEAST_DEVIATION] = 1
    share = min(1.0, d / max(n_distinct - np.count_nonzero(np.bincount(y[order])), 1))
    correlations = (1 - share) * within / total / np.outer(deviations, deviations)
    np.fill_diagonal(correlations, 1)
    values, vectors = eigh(correlations)
    # times vectors.T, so that nothing hangs on their signs
    root = (vectors / np.sqrt(np.maximum(values, LEAST_SHARE))) @ vectors.T / deviations[:, None]
    return np.vstack([root, -center * mean @ root])


def is_even(A: NDArray[np.float64]) -> bool:
    """Whether rows differ much the same in all directions, by a map of learn_whitening."""
    with one_blas_thread():
        return bool(np.linalg.cond(A[:-1]) < UNEVEN)


def rows_to_learn_from(
    y: NDArray[np.int32], keys: NDArray[np.uint64], n_features: int
) -> tuple[NDArray[np.int64], int]:
    """All rows, or all of every so many-th class, about ENOUGH distinct ones, by class; how many are."""
    order = np.argsort(y, kind="stable")
    n_distinct, classes = count_distinct(keys), np.flatnonzero(np.bincount(y))
    step = -(-n_distinct // ENOUGH)
    if step == 1 or len(classes) < step * n_features:
        return order, n_distinct
    order = order[np.isin(y[order], classes[::step])]
    return order, count_distinct(keys[order])


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
    X, data = as_view(X), np.empty((n, d), dtype=np.float32)
    with one_blas_thread():
        for some in gen_batches(n, max(1, BLOCK // d)):
            data[some] = as_array(X[some]) @ A[:-1] + A[-1]
    return full_csr(data)


def to_raw(weights: NodeWeights, tree: LabelTree, A: NDArray[np.float64]) -> NodeWeights:
    """Weights that give a row x the scores that these give [x, 1] A."""
    return _mapped(weights, tree, A[:-1], A[-1])


def to_white(weights: NodeWeights, tree: LabelTree, A: NDArray[np.float64]) -> NodeWeights:
    """The inverse of to_raw."""
    inverse = np.linalg.inv(A[:-1])
    return _mapped(weights, tree, inverse, -A[-1] @ inverse)


def _mapped(
    weights: NodeWeights, tree: LabelTree, root: NDArray[np.float64], shift: NDArray[np.float64]
) -> NodeWeights:
    """Of each node with weights W and bias b those that are root W and b + shift W."""
    d, arities = len(root), np.diff(tree.child_ptr)
    all_features = np.arange(d, dtype=np.int32)
    out = NodeWeights.of_sizes(np.where(np.diff(weights.feature_ptr) > 0, d, 0), arities)
    for v, arity in enumerate(arities):
        features, W, bias = weights.node(v, arity)
        W = W.astype(np.float64)
        moved = np.where(bias > NO_CHILD, bias + shift[features] @ W, bias)
        some = all_features if len(features) else all_features[:0]
        out.fill(v, some, root[: len(some), features] @ W, moved)
    return out.ranked(tree, d)
