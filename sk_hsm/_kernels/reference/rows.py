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


def sum_magnitudes(indptr, data, sums, counts):
    """Of each row, the sum of its values' magnitudes and the number that are not zero.

    sums : (n_rows,) float64, out.
    counts : (n_rows,) int64, out.
    """
    for i in range(len(sums)):
        row = data[indptr[i] : indptr[i + 1]].astype(np.float64)
        sums[i], counts[i] = np.abs(row).sum(), np.count_nonzero(row)


def sum_rows(
    member_ptr, members, scale, indptr, indices, data, n_columns, sum_ptr, sum_indices, sum_data
):  # fmt: skip
    """The scaled sum of each group of rows, in float64, as CSR with columns in order.

    A column that any row of the group has is in the sum, even if its values make zero.

    member_ptr, members : int64, the groups and the rows of each, which may be in any number of groups.
    scale : (n_members,) float64.
    indptr, indices, data : the rows.
    sum_ptr, sum_indices, sum_data : out; with room for as many values as the members' rows have.
    """
    sum_ptr[0] = 0
    for i in range(len(member_ptr) - 1):
        total, has = np.zeros(n_columns), np.zeros(n_columns, dtype=bool)
        for k in range(member_ptr[i], member_ptr[i + 1]):
            row = slice(indptr[members[k]], indptr[members[k] + 1])
            total[indices[row]] += scale[k] * data[row].astype(np.float64)
            has[indices[row]] = True
        out = slice(sum_ptr[i], sum_ptr[i] + has.sum())
        sum_indices[out], sum_data[out] = np.flatnonzero(has), total[has]
        sum_ptr[i + 1] = out.stop


def is_plain(columns, values, n_features):
    """Whether a row's columns rise, and are below n_features, and its values are finite.

    columns, values : the row's int32 and float32.
    """
    inside = np.all((0 <= columns) & (columns < n_features))
    return bool(inside and np.all(np.diff(columns.astype(int)) > 0) and np.isfinite(values).all())
