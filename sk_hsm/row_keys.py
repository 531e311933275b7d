"""Random numbers that are of a row and its class, whatever other rows there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._kernels.rows import hash_rows
from .validation import kernel_rows


def row_keys(X: sparse.csr_array, y: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Random numbers that depend on nothing but a row's values and class, (n_rows,)."""
    hashes = np.empty(len(y), dtype=np.uint64)
    hash_rows(*kernel_rows(X), hashes)
    return mixed(hashes + mixed(y.astype(np.uint64)))


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Splitmix64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def count_distinct(keys: NDArray[np.uint64]) -> int:
    """How many different ones there are. (np.unique of numpy 2.4 takes fifty times as long.)"""
    keys = np.sort(keys)
    return min(len(keys), 1) + np.count_nonzero(keys[1:] != keys[:-1])


def distinct(
    keys: NDArray[np.uint64], weights: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For different keys, in their order: one row of each; which each row has; and the summed weights."""
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return first, which, np.bincount(which, weights=weights)
