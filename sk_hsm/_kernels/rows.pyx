# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that look at rows: sums, hashes, and whether a row is as kernels need it.

Their specification is the function of the same name in ``reference``.
"""
from libc.float cimport FLT_MAX
from libc.math cimport fabs, sqrt
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

import numpy as np


def hash_rows(
    const int64_t[::1] indptr, const int32_t[::1] indices, const float[::1] data, uint64_t[::1] out
):
    cdef Py_ssize_t i
    cdef int64_t j
    cdef uint32_t bits
    with nogil:
        for i in range(out.shape[0]):
            out[i] = 0
            for j in range(indptr[i], indptr[i + 1]):
                if data[j] != 0:
                    memcpy(&bits, &data[j], sizeof(bits))
                    out[i] += mix((<uint64_t>indices[j]) << 32 | bits)


def sum_values(
    const int64_t[::1] indptr,
    const float[::1] data,
    int64_t[::1] counts,
    double[::1] magnitudes,
    double[::1] squares,
):
    cdef Py_ssize_t i
    cdef int64_t j, n
    cdef double magnitude, square
    with nogil:
        for i in range(counts.shape[0]):
            n, magnitude, square = 0, 0, 0
            for j in range(indptr[i], indptr[i + 1]):
                n += data[j] != 0
                magnitude += fabs(data[j])
                square += <double>data[j] * data[j]
            counts[i], magnitudes[i], squares[i] = n, magnitude, square


def count_columns(const int32_t[::1] indices, const float[::1] data, int64_t[::1] counts):
    cdef Py_ssize_t j
    with nogil:
        for j in range(counts.shape[0]):
            counts[j] = 0
        for j in range(indices.shape[0]):
            counts[indices[j]] += data[j] != 0


cdef bint is_plain(const int32_t* columns, const float* values, int64_t n, int64_t n_features) noexcept nogil:
    cdef bint plain = n == 0 or (0 <= columns[0] and columns[n - 1] < n_features)
    cdef int64_t j
    for j in range(1, n):
        plain &= columns[j - 1] < columns[j]
    for j in range(n):
        plain &= (-FLT_MAX <= values[j]) & (values[j] <= FLT_MAX) & (values[j] != 0)
    return plain


def are_plain(
    const int64_t[::1] indptr, const int32_t[::1] columns, const float[::1] values, int64_t n_features
):
    cdef Py_ssize_t i
    for i in range(indptr.shape[0] - 1):
        if indptr[i] < indptr[i + 1] and not is_plain(
            &columns[indptr[i]], &values[indptr[i]], indptr[i + 1] - indptr[i], n_features
        ):
            return False
    return True


def unit_rows(
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const float[::1] feature_weights,
    double[::1] lengths,
    float[::1] out,
):
    cdef Py_ssize_t i
    cdef int64_t j
    cdef double square, scale
    with nogil:
        for i in range(lengths.shape[0]):
            square = 0
            for j in range(indptr[i], indptr[i + 1]):
                square += <double>feature_weights[indices[j]] * data[j] * data[j]
            lengths[i] = sqrt(square)
            scale = 1 / lengths[i] if square > 0 else 1
            for j in range(indptr[i], indptr[i + 1]):
                out[j] = <float>(scale * data[j])


def keep_large(
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const float[::1] feature_weights,
    double share,
    int64_t[::1] counts,
    int32_t[::1] kept_indices,
    float[::1] kept_data,
):
    cdef Py_ssize_t i
    cdef int64_t j, n = 0, before
    cdef double least
    with nogil:
        for i in range(counts.shape[0]):
            least, before = 0, n
            for j in range(indptr[i], indptr[i + 1]):
                least = max(least, <double>feature_weights[indices[j]] * data[j] * data[j])
            least *= share * share
            for j in range(indptr[i], indptr[i + 1]):
                if <double>feature_weights[indices[j]] * data[j] * data[j] >= least:
                    kept_indices[n], kept_data[n] = indices[j], data[j]
                    n += 1
            counts[i] = n - before


cdef extern from * nogil:
    int lowest_bit "__builtin_ctzll"(unsigned long long bits)


cdef struct Columns:
    # a bit in `filled` for each column, and one in `some` for each 64 of them; all zero between groups
    uint64_t* filled
    uint64_t* some
    Py_ssize_t n_words


cdef void mark(Columns* has, int32_t column) noexcept nogil:
    has.filled[column >> 6] |= <uint64_t>1 << (column & 63)
    has.some[column >> 12] |= <uint64_t>1 << ((column >> 6) & 63)


cdef Py_ssize_t take_columns(Columns* has, int32_t* columns) noexcept nogil:
    """Move the marked columns out, in their order; return how many."""
    cdef Py_ssize_t i, word, n = 0
    for i in range(has.n_words):
        while has.some[i]:
            word = (i << 6) + lowest_bit(has.some[i])
            has.some[i] &= has.some[i] - 1
            while has.filled[word]:
                columns[n] = <int32_t>((word << 6) + lowest_bit(has.filled[word]))
                has.filled[word] &= has.filled[word] - 1
                n += 1
    return n


cdef bint some_is_full(
    const int64_t[::1] members, Py_ssize_t first, Py_ssize_t last, const int64_t[::1] indptr, Py_ssize_t n_columns
) noexcept nogil:
    """Whether one of these rows has every column: no row has one twice."""
    cdef Py_ssize_t k
    for k in range(first, last):
        if indptr[members[k] + 1] - indptr[members[k]] == n_columns:
            return True
    return False


def sum_rows(
    const int64_t[::1] group_ptr,
    const int64_t[::1] members,
    const double[::1] scale,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    Py_ssize_t n_columns,
    int64_t[::1] counts,
    int32_t[::1] sum_indices,
    float[::1] sum_data,
):
    cdef Py_ssize_t i
    cdef int64_t j, k, n = 0
    cdef double[::1] sums = np.zeros(n_columns)  # between groups, too
    cdef uint64_t[::1] filled = np.zeros((n_columns >> 6) + 1, dtype=np.uint64)
    cdef uint64_t[::1] some = np.zeros((n_columns >> 12) + 1, dtype=np.uint64)
    cdef bint is_full
    cdef Columns has = Columns(&filled[0], &some[0], some.shape[0])
    with nogil:
        for i in range(counts.shape[0]):
            is_full = some_is_full(members, group_ptr[i], group_ptr[i + 1], indptr, n_columns)
            for k in range(group_ptr[i], group_ptr[i + 1]):
                for j in range(indptr[members[k]], indptr[members[k] + 1]):
                    if not is_full:
                        mark(&has, indices[j])
                    sums[indices[j]] += scale[k] * data[j]
            counts[i] = n_columns if is_full else 0
            if is_full:
                for j in range(n_columns):
                    sum_indices[n + j] = <int32_t>j
            elif group_ptr[i] < group_ptr[i + 1] and n < sum_indices.shape[0]:
                counts[i] = take_columns(&has, &sum_indices[n])
            for j in range(n, n + counts[i]):
                sum_data[j] = <float>sums[sum_indices[j]]
                sums[sum_indices[j]] = 0
            n += counts[i]
