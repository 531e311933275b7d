"""What is summed over the values of each row, or counted in each column."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._kernels.rows import count_columns, sum_values
from .validation import kernel_rows


class RowSums(NamedTuple):
    """Of each row, (n_rows,)."""

    counts: NDArray[np.int64]  # values that are not zero
    magnitudes: NDArray[np.float64]
    squares: NDArray[np.float64]


def row_sums(X: sparse.csr_array) -> RowSums:
    indptr, _, data = kernel_rows(X)
    sums = RowSums(*(np.empty(X.shape[0], dtype) for dtype in (np.int64, np.float64, np.float64)))
    sum_values(indptr, data, *sums)
    return sums


def column_counts(X: sparse.csr_array) -> NDArray[np.int64]:
    """Of each column, how many values are not zero: (n_features,). (np.bincount copies them first.)"""
    counts = np.empty(X.shape[1], np.int64)
    count_columns(*kernel_rows(X)[1:], counts)
    return counts
