"""What several of the twins use."""

import numpy as np
from scipy import sparse

NO_CHILD = -1e30  # the bias of a child that does not exist, or has no rows
LINE = 16  # floats to a line
HASH_FACTOR = np.uint32(2654435769)
PRIORS = "none", "naive_bayes", "centroid"


def dense(indptr, indices, data, n_features):
    rows = sparse.csr_array((data, indices, indptr), shape=(len(indptr) - 1, n_features))
    return rows.toarray().astype(np.float64)


def mix(x):
    """Splitmix64: 64 random bits that depend on x alone."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def uniform_number(number):
    """Between 0 and 1, by the number alone."""
    return (mix(number % 2**64) >> 11) / 2**53
