"""Class frequencies or class centroids -> :class:`~sk_hsm.LabelTree`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.preprocessing import normalize
from sklearn.utils import check_random_state
from sklearn.utils.extmath import row_norms

from ._kernels import trees
from ._kernels.rows import count_columns, count_nonzeros, sum_rows
from .label_tree import LabelTree
from .validation import check_rows, check_weights, encode_known, encode_labels, kernel_rows

# A class counts with its frequency to this power when k-means balances its
# clusters: 0 balances the number of classes, 1 the number of rows.
BALANCE = 0.5
# A cut ends after ITERATIONS rounds of 2-means, or when a round moves less than
# TOL of the classes. One of more than SAMPLE classes starts from the best of N_INIT cuts
# of SAMPLE of them, or N_INIT_DENSE if centroids are dense. One half may be up to SLACK
# lighter than its share.
# Cuts of the FIRST_LEVELS are handed to threads one by one, then whole subtrees.
ITERATIONS = 10
TOL = 0.003
N_INIT = 3
N_INIT_DENSE = 8
SAMPLE = 2000
SLACK = 0.5
FIRST_LEVELS = 4
# Values of rows that are looked at in one go, by a thread.
AT_ONCE = 2**22
# Of classes with fewer rows than FEW on average, a feature counts as far as it recurs.
FEW = 3
# What other rows of its classes weigh, over those that have a feature, for that to be known:
# sums are float32.
KNOWN = 1e-5
# What one row of a class of average size has counts ONCE as much as what all its rows have: a
# power of their mean, within POWERS. Means of dense rows stay as they are: of rows, or
# centroids, of whose values more than this share is not zero.
ONCE = 0.22
POWERS = (0.7, 1.5)
DENSE = 0.5


def check_arity(arity: Any) -> int:
    """Return arity as an int, or raise ValueError."""
    if not isinstance(arity, Integral) or isinstance(arity, bool) or arity < 2:
        raise ValueError(f"arity must be an integer of 2 or more, got {arity!r}")
    return int(min(arity, 2**30))


def huffman_tree(counts: ArrayLike, arity: int = 2) -> LabelTree:
    """Huffman tree: frequent classes near the root.

    Of all trees with at most `arity` children a node it has the smallest
    ``sum(counts * depths)``. If no count is zero its mean depth lies in ``[H, H + 1)``, H the
    entropy of the class distribution to base `arity` [1]_.

    Parameters
    ----------
    counts : array-like of shape (n_classes,)
        Frequency of each class, finite and not negative.
    arity : int, default=2
        Most children a node may have.

    Returns
    -------
    LabelTree
        With leaf labels ``0 .. n_classes - 1``.

    Raises
    ------
    ValueError
        If a count is negative or not finite, or arity below 2.

    Notes
    -----
    O(n_classes log n_classes). The first merge takes
    ``2 + (n_classes - 2) mod (arity - 1)`` classes so that every later one is full.

    References
    ----------
    .. [1] D. A. Huffman, "A Method for the Construction of Minimum-Redundancy Codes",
       Proceedings of the IRE 40(9), 1952.

    Examples
    --------
    >>> from sk_hsm.tree_builders import huffman_tree
    >>> huffman_tree([8, 4, 2, 1, 1]).depths().tolist()
    [1, 2, 3, 4, 4]
    """
    arity = check_arity(arity)
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or counts.size == 0:
        raise ValueError(f"counts must be a non-empty 1-D array, got shape {counts.shape}")
    wrong = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
    if len(wrong):
        raise ValueError(
            f"counts must be finite and not negative, got counts[{wrong[0]}] = {counts[wrong[0]]}"
        )
    n = len(counts)
    n_inner = -(-(n - 1) // (arity - 1))
    ascending = np.argsort(counts, kind="stable")
    parents = np.full(n + n_inner, -1, dtype=np.int32)
    if n > 1:
        trees.huffman_parents(counts[ascending], min(arity, n), parents)
    leaves = np.empty(n, dtype=np.int64)
    leaves[ascending] = np.arange(n)
    return LabelTree._from_nodes(parents.astype(np.int64), leaves, np.arange(n))


def balanced_tree(n_classes: int, arity: int = 2) -> LabelTree:
    """Balanced tree: classes in their order, every node divided as evenly as can be.

    Parameters
    ----------
    n_classes : int
        Number of leaves.
    arity : int, default=2
        Most children a node may have.

    Returns
    -------
    LabelTree
        With leaf labels ``0 .. n_classes - 1``, of depth ``ceil(log(n_classes, arity))``.

    Raises
    ------
    ValueError
        If n_classes is below 1 or arity below 2.
    """
    arity = check_arity(arity)
    if not isinstance(n_classes, Integral) or n_classes < 1:
        raise ValueError(f"n_classes must be an integer of 1 or more, got {n_classes!r}")
    depth = np.zeros(n_classes, dtype=np.int32)
    starts, sizes, level = np.array([0]), np.array([n_classes]), 0
    while len(starts := starts[sizes > 1]):
        level += 1
        sizes = sizes[sizes > 1]
        parts = np.minimum(arity, sizes)
        part = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
        size, of = np.repeat(sizes, parts), np.repeat(parts, parts)
        low, high = part * size // of, (part + 1) * size // of
        starts = np.repeat(starts, parts) + low
        depth[starts[part > 0]] = level
        sizes = high - low
    return LabelTree._from_boundaries(np.arange(n_classes), depth)


def kmeans_tree(
    X: ArrayLike | sparse.sparray,
    y: ArrayLike,
    arity: int = 16,
    *,
    sample_weight: ArrayLike | None = None,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> LabelTree:
    """Tree from balanced spherical k-means of the class centroids.

    A class is the mean direction of its rows; of sparse rows, with what only some of them have
    raised, or lowered where rows are few a class. The classes are cut in two by spherical
    2-means with both halves of like mass, and again, down to single classes; a class weighs
    (its summed sample weight) ** 0.5. Then nodes of this binary tree are merged into their
    parents so that none has more than `arity` children and the mean depth, each class by its
    weight, is as small as it can be: frequent classes come near to the root.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
    y : array-like of shape (n_samples,)
        The label of each row.
    arity : int, default=16
        Most children a node may have.
    sample_weight : array-like of shape (n_samples,), default=None
    random_state : int, RandomState instance or None, default=None
        Draws the two classes from which each 2-means starts.
    n_jobs : int or None, default=None
        Number of joblib threads. The tree does not depend on it.

    Returns
    -------
    LabelTree
        With leaf labels ``np.unique(y)``.

    Raises
    ------
    ValueError
        If X and y are of different length or hold NaN, or arity is below 2.

    Notes
    -----
    O(iterations * log2(n_classes) * non-zeros of the centroids).
    """
    X = check_rows(X)
    classes, y = encode_labels(y)
    if len(y) != X.shape[0]:
        raise ValueError(f"X has {X.shape[0]} rows and y {len(y)} labels, they must agree")
    weights = check_weights(sample_weight, len(y))
    seed = check_random_state(random_state).randint(2**31 - 1)
    centroids = class_centroids(X, y, weights, len(classes), n_jobs)
    frequency = np.bincount(y, weights=weights, minlength=len(classes))
    return cluster_centroids(centroids, frequency, check_arity(arity), seed, n_jobs).with_labels(classes)


def cluster_centroids(
    centroids: sparse.csr_array, frequency: NDArray[np.float64], arity: int, seed: int, n_jobs: int | None
) -> LabelTree:
    """kmeans_tree of centroids and summed weights; of no more classes than arity, without a look at them."""
    n_classes = len(frequency)
    order = np.arange(n_classes, dtype=np.int32)
    depth = np.zeros(n_classes, dtype=np.int32)
    if n_classes <= arity:
        depth[1:] = 1
        return LabelTree._from_boundaries(order, depth)
    mass = frequency**BALANCE
    mass = np.maximum(mass, 1e-3 * mass.max())
    arrays = (*kernel_rows(centroids), mass.astype(np.float32), centroids.shape[1], order, depth)
    n_init = N_INIT_DENSE if is_dense(centroids, np.ones(n_classes)) else N_INIT
    settings = seed, ITERATIONS, TOL, n_init, SAMPLE, SLACK

    def split(lo: int, hi: int, level: int, whole: bool) -> None:
        trees.kmeans_split(*arrays, lo, hi, level, whole, *settings)

    # the first cuts by themselves, so that there is work for every thread
    with Parallel(n_jobs=n_jobs, require="sharedmem") as parallel:
        for level in range(1, FIRST_LEVELS + 2):
            bounds = np.concatenate([[0], np.flatnonzero(depth), [n_classes]])
            whole = level > FIRST_LEVELS
            parallel(
                delayed(split)(lo, hi, level, whole) for lo, hi in zip(bounds[:-1], bounds[1:], strict=True)
            )
    trees.contract_binary(depth, frequency[order], arity)
    return LabelTree._from_boundaries(order, depth)


def class_centroids(
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    n_classes: int,
    n_jobs: int | None = None,
) -> sparse.csr_array:
    """Mean direction of each class's rows: float32 rows of unit length, (n_classes, n_features).

    Summed in float64 and then rounded, so that they do not depend on the order of rows.
    """
    lengths = row_norms(X)
    scale = np.divide(weights, lengths, out=np.zeros(len(y)), where=lengths > 0)
    # a power of two brings the sums of each class near to one and changes no digit
    largest = np.zeros(n_classes)
    np.maximum.at(largest, y, weights)
    exponent = np.frexp(largest)[1]
    sums = class_sums(X, y, np.ldexp(scale, -exponent[y]), n_classes, n_jobs)
    n_rows = weights.sum() / max(np.count_nonzero(largest), 1)
    if n_rows < FEW:
        exact = np.ldexp(sums.data.astype(np.float64), np.repeat(exponent, np.diff(sums.indptr)))
        sums.data *= recurrence(X, y, weights, scale, sums.indices, exact)[sums.indices]
    if not is_dense(X, weights):
        np.copysign(np.abs(sums.data) ** power_of_means(n_rows), sums.data, out=sums.data)
    return normalize(sums, copy=False)


def is_dense(X: sparse.csr_array, weights: NDArray[np.float64]) -> bool:
    """Whether more than DENSE of the values are not zero, a row of weight 2 being two rows."""
    counts = np.empty(X.shape[0], dtype=np.int64)
    count_nonzeros(X.indptr.astype(np.int64), X.data, counts)
    return bool(weights @ counts > DENSE * weights.sum() * X.shape[1])


def power_of_means(n_rows: float) -> float:
    """The power that makes ONCE of the share 1 / n_rows, within POWERS."""
    return float(np.clip(np.log(ONCE) / -np.log(max(n_rows, 1.001)), *POWERS))


def class_sums(
    X: sparse.csr_array,
    y: NDArray[np.int32],
    scale: NDArray[np.float64],
    n_classes: int,
    n_jobs: int | None,
) -> sparse.csr_array:
    """The sum of each class's rows times their scale: float32, (n_classes, n_features), columns sorted."""
    members = np.argsort(y, kind="stable")
    group_ptr = np.searchsorted(y[members], np.arange(n_classes + 1))
    indptr, indices, data = kernel_rows(X)
    sum_ptr = np.zeros(n_classes + 1, dtype=np.int64)
    parts = list(blocks(np.bincount(y, weights=np.diff(X.indptr), minlength=n_classes)))
    n_features = X.shape[1]
    with Parallel(n_jobs=n_jobs, require="sharedmem") as parallel:
        parallel(
            delayed(count_columns)(
                group_ptr[lo : hi + 1], members, indptr, indices, n_features, sum_ptr[lo + 1 : hi + 1]
            )
            for lo, hi in parts
        )
        np.cumsum(sum_ptr, out=sum_ptr)
        sums = np.empty(sum_ptr[-1], np.int32), np.empty(sum_ptr[-1], np.float32)
        rows = members, scale[members], indptr, indices, data, n_features
        parallel(
            delayed(sum_rows)(group_ptr[lo : hi + 1], *rows, sum_ptr[lo : hi + 1], *sums) for lo, hi in parts
        )
    return sparse.csr_array((sums[1], sums[0], sum_ptr), shape=(n_classes, n_features))


def blocks(n_values: NDArray) -> Iterable[tuple[int, int]]:
    """Ranges of what has so many values each, for which copies of these in float64 are not much memory."""
    ends = np.cumsum(n_values)
    bounds = np.searchsorted(ends, np.arange(AT_ONCE, ends[-1], AT_ONCE))
    return pairwise(np.unique([0, *bounds, len(ends)]).tolist())


def recurrence(
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    scale: NDArray[np.float64],
    features: NDArray[np.int32],
    sums: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How much of a feature comes again in another row of the class: (n_features,), from 0 to 1.

    With rows x of length one, it is the sum of ``x_i x_j`` over all pairs of rows of a class,
    over what that would be if all rows of a class were the same: the sum of ``x_i^2``. A mean
    of few rows is mostly what they have by chance, and this is what new rows will have, too.
    `sums` are values of the classes' sums of rows times `scale`, and `features` their columns.
    """
    n_features = X.shape[1]
    n_values = np.diff(X.indptr)
    scale = scale**2 / np.maximum(weights, 1e-300)
    # a row of weight 2 is two rows, and one of weight 1/2 the half of one
    itself = np.minimum(weights, 1)
    others = np.bincount(y, weights=weights)[y] - itself
    alone, alike = np.zeros((2, n_features))
    for lo, hi in blocks(n_values):
        values, count = slice(X.indptr[lo], X.indptr[hi]), n_values[lo:hi]
        columns, squares = X.indices[values], X.data[values].astype(np.float64) ** 2
        for total, factor in ((alone, itself), (alike, others)):
            by_row = np.repeat((scale * factor)[lo:hi], count)
            total += np.bincount(columns, weights=squares * by_row, minlength=n_features)
    pairs = np.bincount(features, weights=sums**2, minlength=n_features) - alone
    known = alike > KNOWN * alone
    mean = np.clip(pairs[known].sum() / alike[known].sum(), 0, 1) if known.any() else 1.0
    share = np.divide(pairs, alike, out=np.full(n_features, mean), where=known)
    return np.clip(share, 0, 1).round(6)


def given_tree(
    kind: Any, arity: int, classes: NDArray[Any], frequency: NDArray[np.float64]
) -> LabelTree | None:
    """The tree that an estimator's parameter names, its leaves in the order of classes; None for "kmeans"."""
    if isinstance(kind, LabelTree):
        return match_leaves(kind, classes)
    if not isinstance(kind, str):
        return LabelTree.from_parents(kind, classes)
    if kind == "balanced":
        return balanced_tree(len(classes), arity).with_labels(classes)
    return huffman_tree(frequency, arity).with_labels(classes) if kind == "huffman" else None


def _plain(label: Any) -> Any:
    """A label as a user writes it: 3, not np.int64(3)."""
    return label.item() if isinstance(label, np.generic) else label


def match_leaves(tree: LabelTree, classes: NDArray[Any]) -> LabelTree:
    """The user's tree with its leaves in the order of classes; the labels must be the same."""
    at = encode_known(tree.leaf_labels, classes)
    if (at < 0).any():
        leaf = np.flatnonzero(at < 0)[0]
        raise ValueError(
            f"leaf {_plain(tree.leaf_labels[leaf])!r} (node {tree.n_inner + leaf}) of tree "
            "is none of the classes in y"
        )
    if tree.n_classes < len(classes):
        missing = np.setdiff1d(np.arange(len(classes)), at)[0]
        raise ValueError(
            f"tree has no leaf for class {_plain(classes[missing])!r}: it has {tree.n_classes} leaves, "
            f"y {len(classes)} classes"
        )
    return tree._reorder_leaves(np.argsort(at), classes)
