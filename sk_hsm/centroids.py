"""Rows and their classes -> what k-means makes trees of: a direction for each class."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import row_norms

from ._kernels.rows import count_columns, count_nonzeros, sum_rows
from .threads import over_threads
from .validation import kernel_rows

# Values of rows that are looked at in one go, by a thread.
AT_ONCE = 2**22
# Of classes with fewer rows than FEW on average, a feature counts as far as it recurs; where recurring ones
# are asked for, to the power RECURRING.
FEW = 3
RECURRING = 4
# What other rows of its classes weigh, over those that have a feature, for that to be known:
# sums are float32.
KNOWN = 1e-5
# What one row of a class of average size has counts ONCE as much as what all its rows have: a
# power of their mean, within POWERS. Means of dense rows stay as they are: of rows, or
# centroids, of whose values more than this share is not zero.
ONCE = 0.22
POWERS = (0.7, 1.5)
DENSE = 0.5

ClassSums = tuple[sparse.csr_array, NDArray[np.int32]]  # of each class, over two to the power of its exponent


def class_centroids(
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    n_classes: int,
    n_jobs: int | None = None,
    recurring: bool = False,
    sums: ClassSums | None = None,
) -> sparse.csr_array:
    """Mean direction of each class's rows: float32 rows of unit length, (n_classes, n_features).

    Summed in float64 and then rounded, so that they do not depend on the order of rows. Features count by
    how far they recur in a class where that is asked for. `sums` are those of unit_sums where they are known.
    """
    sums, exponent = sums or unit_sums(X, y, weights, n_classes, n_jobs)
    centroids = sparse.csr_array((sums.data.copy(), sums.indices, sums.indptr), shape=sums.shape)
    values = centroids.data
    n_rows = weights.sum() / max(np.count_nonzero(np.bincount(y)), 1)
    if recurring or n_rows < FEW:
        exact = np.ldexp(values.astype(np.float64), np.repeat(exponent, np.diff(sums.indptr)))
        share = recurrence(X, y, weights, sums.indices, exact)
        values *= (share ** (RECURRING if recurring else 1))[sums.indices]
    if not (recurring or is_dense(X, weights)):
        np.copysign(np.abs(values) ** power_of_means(n_rows), values, out=values)
    return normalize(centroids, copy=False)


def with_class_features(
    centroids: sparse.csr_array, features: sparse.csr_array, share: float
) -> sparse.csr_array:
    """Directions whose products are 1 - share of those of centroids and share of those of features."""
    # squares of what float32 holds can leave float32, not float64
    parts = [
        normalize(part.astype(np.float64)) * weight**0.5
        for part, weight in ((centroids, 1 - share), (features, share))
        if weight > 0
    ]
    beside = sparse.csr_array(sparse.hstack(parts, format="csr"))
    return normalize(beside, copy=False).astype(np.float32)


def unit_sums(
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    n_classes: int,
    n_jobs: int | None,
) -> ClassSums:
    """Of rows made ones of length one."""
    return sums_near_one(X, y, weights, over_lengths(weights, X), n_classes, n_jobs)


def over_lengths(weights: NDArray[np.float64], X: sparse.csr_array) -> NDArray[np.float64]:
    """What makes rows ones of length `weights`, (n_rows,); zero for rows of zeros."""
    lengths = row_norms(X)
    return np.divide(weights, lengths, out=np.zeros(len(weights)), where=lengths > 0)


def sums_near_one(
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    scale: NDArray[np.float64],
    n_classes: int,
    n_jobs: int | None,
) -> ClassSums:
    """class_sums over a power of two for each class, which changes no digit; and its exponents."""
    largest = np.zeros(n_classes)
    np.maximum.at(largest, y, weights)
    exponent = np.frexp(largest)[1]
    return class_sums(X, y, np.ldexp(scale, -exponent[y]), n_classes, n_jobs), exponent


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
    """The sum of each class's rows times their scale: float32, (n_classes, n_features), columns sorted.

    A column that a class has only in rows of scale zero is not there.
    """
    members = np.argsort(y, kind="stable")
    members = members[scale[members] != 0]
    group_ptr = np.searchsorted(y[members], np.arange(n_classes + 1))
    indptr, indices, data = kernel_rows(X)
    sum_ptr = np.zeros(n_classes + 1, dtype=np.int64)
    parts = list(blocks(np.bincount(y, weights=np.diff(X.indptr), minlength=n_classes)))
    n_features = X.shape[1]

    def count(part: tuple[int, int]) -> None:
        lo, hi = part
        out = sum_ptr[lo + 1 : hi + 1]
        count_columns(group_ptr[lo : hi + 1], members, indptr, indices, n_features, out)

    over_threads(count, parts, n_jobs)
    np.cumsum(sum_ptr, out=sum_ptr)
    sums = np.empty(sum_ptr[-1], np.int32), np.empty(sum_ptr[-1], np.float32)
    rows = members, scale[members], indptr, indices, data, n_features

    def add_up(part: tuple[int, int]) -> None:
        lo, hi = part
        sum_rows(group_ptr[lo : hi + 1], *rows, sum_ptr[lo : hi + 1], *sums)

    over_threads(add_up, parts, n_jobs)
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
    features: NDArray[np.int32],
    sums: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How much of a feature comes again in another row of the class: (n_features,), from 0 to 1.

    With rows x of length one, it is the sum of ``x_i x_j`` over all pairs of rows of a class,
    over what that would be if all rows of a class were the same: the sum of ``x_i^2``. A mean
    of few rows is mostly what they have by chance, and this is what new rows will have, too.
    `sums` are values of the classes' sums of such rows, and `features` their columns.
    """
    n_features = X.shape[1]
    n_values = np.diff(X.indptr)
    scale = over_lengths(weights, X) ** 2 / np.maximum(weights, 1e-300)
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
