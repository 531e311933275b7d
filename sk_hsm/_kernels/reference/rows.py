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


def is_plain(columns, values, n_features):
    """Whether a row's columns rise, and are below n_features, and its values are finite.

    columns, values : the row's int32 and float32.
    """
    inside = np.all((0 <= columns) & (columns < n_features))
    return bool(inside and np.all(np.diff(columns.astype(int)) > 0) and np.isfinite(values).all())
