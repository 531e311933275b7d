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


def sum_values(indptr, data, counts, magnitudes, squares):
    """Of each row, how many values are not zero, and the sums of their magnitudes and squares.

    counts, magnitudes, squares : (n_rows,) int64, float64 and float64, out.
    """
    for i in range(len(counts)):
        values = data[indptr[i] : indptr[i + 1]].astype(np.float64)
        counts[i], magnitudes[i], squares[i] = np.count_nonzero(values), np.abs(values).sum(), values @ values


def count_columns(indices, data, counts):
    """How many values of each column are not zero: (n_columns,) int64, out.

    indices, data : columns and values.
    """
    for column in range(len(counts)):
        counts[column] = np.count_nonzero(data[indices == column])


def are_plain(indptr, columns, values, n_features):
    """Whether each row's columns rise, and are below n_features, and its values are finite, none zero.

    indptr, columns, values : the rows, CSR.
    """
    plain = np.isfinite(values) & (values != 0) & (0 <= columns) & (columns < n_features)
    spans = [slice(*bounds) for bounds in zip(indptr[:-1], indptr[1:], strict=True)]
    return all(plain[s].all() and np.all(np.diff(columns[s].astype(int)) > 0) for s in spans)


def unit_rows(indptr, indices, data, feature_weights, lengths, out):
    """Each row over its length, the root of the sum of feature weight times value squared, unless it is zero.

    lengths, out : (n_rows,) float64 and (n_values,) float32, out.
    """
    for i in range(len(lengths)):
        row = slice(indptr[i], indptr[i + 1])
        lengths[i] = np.sqrt(feature_weights[indices[row]] @ data[row].astype(np.float64) ** 2)
        out[row] = data[row] / (lengths[i] or 1)


def keep_large(indptr, indices, data, feature_weights, share, counts, kept_indices, kept_data):
    """Of each row, the values that are at least a share of its largest, all times the root of their weight.

    counts : (n_rows,) int64, out: how many there are.
    kept_indices, kept_data : int32 and float32, out: row by row, with room for all.
    """
    n = 0
    for i in range(len(counts)):
        row = slice(indptr[i], indptr[i + 1])
        size = feature_weights[indices[row]] * data[row].astype(np.float64) ** 2
        kept = size >= share**2 * size.max(initial=0)
        counts[i] = np.count_nonzero(kept)
        some = slice(n, n + counts[i])
        kept_indices[some], kept_data[some] = indices[row][kept], data[row][kept]
        n += counts[i]


def sum_rows(
    group_ptr, members, scale, indptr, indices, data, n_columns, counts, sum_indices, sum_data
):  # fmt: skip
    """The scaled sum of each group of rows, in float64 and then rounded, as CSR with columns in order.

    group_ptr, members : int64, the rows of group i are members[group_ptr[i]:group_ptr[i + 1]]; a row may
        be in any number of groups, and often in one.
    scale : (n_members,) float64.
    indptr, indices, data : the rows; values may be zero.
    counts : (n_groups,) int64, out: of each group, the number of columns that any of its rows has.
    sum_indices, sum_data : int32 and float32, out: group by group, with room for as many values as the
        members have.
    """
    n = 0
    for i in range(len(counts)):
        total, has = np.zeros(n_columns), np.zeros(n_columns, dtype=bool)
        for k in range(group_ptr[i], group_ptr[i + 1]):
            row = slice(indptr[members[k]], indptr[members[k] + 1])
            total[indices[row]] += scale[k] * data[row].astype(np.float64)
            has[indices[row]] = True
        counts[i] = np.count_nonzero(has)
        sum_indices[n : n + counts[i]] = np.flatnonzero(has)
        sum_data[n : n + counts[i]] = total[has]
        n += counts[i]
