"""Rows and their classes -> what k-means makes trees of: a direction for each class."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import normalize

from ._kernels.rows import sum_rows
from .row_sums import RowSums, row_sums
from .threads import over_threads
from .validation import kernel_rows, row_starts

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


class ClassSums(NamedTuple):
    """Sums of each class's rows, over two to the power of its exponent, which changes no digit."""

    sums: sparse.csr_array
    exponent: NDArray[np.int32]
    of_dense: bool  # as are_dense says of the rows


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
    sums, exponent, of_dense = sums or unit_sums(X, y, weights, n_classes, n_jobs)
    centroids = sparse.csr_array((sums.data.copy(), sums.indices, sums.indptr), shape=sums.shape)
    values = centroids.data
    n_rows = weights.sum() / max(np.count_nonzero(np.bincount(y)), 1)
    if recurring or n_rows < FEW:
        exact = np.ldexp(values.astype(np.float64), np.repeat(exponent, np.diff(sums.indptr)))
        share = recurrence(X, y, weights, sums.indices, exact)
        values *= (share ** (RECURRING if recurring else 1))[sums.indices]
    if not (recurring or of_dense):
        size = np.abs(values)
        np.copysign(np.power(size, power_of_means(n_rows), out=size), values, out=values)
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
    of_rows: RowSums | None = None,
) -> ClassSums:
    """Of rows made ones of length one; with their row_sums, where these are known."""
    of_rows = of_rows or row_sums(X)
    scale = over_lengths(weights, of_rows)
    return scaled_sums(X, y, weights, scale, n_classes, are_dense(of_rows, weights, X.shape[1]), n_jobs)


def over_lengths(weights: NDArray[np.float64], of_rows: RowSums) -> NDArray[np.float64]:
    """What makes rows ones of length `weights`, (n_rows,); zero for rows of zeros."""
    lengths = np.sqrt(of_rows.squares)
    return np.divide(weights, lengths, out=np.zeros(len(weights)), where=lengths > 0)


def scaled_sums(
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    scale: NDArray[np.float64],
    n_classes: int,
    of_dense: bool,
    n_jobs: int | None,
) -> ClassSums:
    """class_sums over a power of two for each class, so that they are near one."""
    largest = np.zeros(n_classes)
    np.maximum.at(largest, y, weights)
    exponent = np.frexp(largest)[1]
    return ClassSums(class_sums(X, y, np.ldexp(scale, -exponent[y]), n_classes, n_jobs), exponent, of_dense)


def are_dense(of_rows: RowSums, weights: NDArray[np.float64], n_features: int) -> bool:
    """Whether more than DENSE of rows' values are not zero, a row of weight 2 being two rows."""
    return bool(weights @ of_rows.counts > DENSE * weights.sum() * n_features)


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
    n_features, rows = X.shape[1], (members, scale[members], *kernel_rows(X))
    n_values = np.bincount(y, weights=np.diff(X.indptr), minlength=n_classes).astype(np.int64)
    # room for what sums may have at most, of which only what they have is touched
    room = row_starts(n_values)
    counts = np.empty(n_classes, np.int64)
    columns, sums = np.empty(room[-1], np.int32), np.empty(room[-1], np.float32)

    def add_up(part: tuple[int, int]) -> slice:
        lo, hi = part
        here = slice(room[lo], room[hi])
        sum_rows(group_ptr[lo : hi + 1], *rows, n_features, counts[lo:hi], columns[here], sums[here])
        return slice(room[lo], room[lo] + counts[lo:hi].sum())

    used = over_threads(add_up, blocks(n_values), n_jobs)
    columns, sums = (np.concatenate([array[part] for part in used]) for array in (columns, sums))
    return sparse.csr_array((sums, columns, row_starts(counts)), shape=(n_classes, n_features))


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
    scale = over_lengths(weights, row_sums(X)) ** 2 / np.maximum(weights, 1e-300)
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
