"""Sums over rows, and what a row has to be."""

from __future__ import annotations

import numpy as np

from ._common import mix


def hash_rows(indptr, indices, data, out):
    """A number for each row that depends on its non-zeros alone: the sum of their hashes.

    The hash of a non-zero is Splitmix64 of its column (high 32 bits) and the bits of its
    value (low 32 bits). Zeros that are stored do not count.

    out : (n_rows,) uint64, out; sums are taken modulo 2^64.
    """
    for i in range(len(out)):
        out[i] = 0
        for j in range(indptr[i], indptr[i + 1]):
            if data[j] != 0:
                bits = int(data[j : j + 1].view(np.uint32)[0])
                out[i] = (int(out[i]) + mix(int(indices[j]) << 32 | bits)) % 2**64


def sum_magnitudes(indptr, data, out):
    """Of each row, the sum of its values' magnitudes: (n_rows,) float64, out."""
    for i in range(len(out)):
        out[i] = np.abs(data[indptr[i] : indptr[i + 1]].astype(np.float64)).sum()


def count_nonzeros(indptr, data, out):
    """Of each row, the number of values that are not zero: (n_rows,) int64, out."""
    for i in range(len(out)):
        out[i] = np.count_nonzero(data[indptr[i] : indptr[i + 1]])


def count_columns(group_ptr, members, indptr, indices, n_columns, counts):
    """Of each group of rows, the number of columns that any of them has.

    group_ptr, members : int64, the rows of group i are members[group_ptr[i]:group_ptr[i + 1]]; a row may
        be in any number of groups, and often in one.
    indptr, indices : the rows; values may be zero.
    counts : (n_groups,) int64, out.
    """
    for i in range(len(counts)):
        of = members[group_ptr[i] : group_ptr[i + 1]]
        counts[i] = len({column for row in of for column in indices[indptr[row] : indptr[row + 1]]})


def sum_rows(
    group_ptr, members, scale, indptr, indices, data, n_columns, sum_ptr, sum_indices, sum_data
):  # fmt: skip
    """The scaled sum of each group of rows, in float64 and then rounded, as CSR with columns in order.

    group_ptr, members, indptr, indices : see count_columns.
    scale : (n_members,) float64.
    sum_ptr : (n_groups + 1,) int64, where the sums go: by count_columns.
    sum_indices, sum_data : int32 and float32, out.
    """
    for i in range(len(group_ptr) - 1):
        total, has = np.zeros(n_columns), np.zeros(n_columns, dtype=bool)
        for k in range(group_ptr[i], group_ptr[i + 1]):
            row = slice(indptr[members[k]], indptr[members[k] + 1])
            total[indices[row]] += scale[k] * data[row].astype(np.float64)
            has[indices[row]] = True
        sum_indices[sum_ptr[i] : sum_ptr[i + 1]] = np.flatnonzero(has)
        sum_data[sum_ptr[i] : sum_ptr[i + 1]] = total[has]


def is_plain(columns, values, n_features):
    """Whether a row's columns rise, and are below n_features, and its values are finite, none zero.

    columns, values : the row's int32 and float32.
    """
    inside = np.all((0 <= columns) & (columns < n_features))
    rise = np.all(np.diff(columns.astype(int)) > 0)
    return bool(inside and rise and np.isfinite(values).all() and values.all())
