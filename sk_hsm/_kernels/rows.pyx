# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that look at rows: sums, hashes, and whether a row is as kernels need it.

Their specification is the function of the same name in ``reference``.
"""
from libc.float cimport FLT_MAX
from libc.math cimport fabs
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


def sum_magnitudes(const int64_t[::1] indptr, const float[::1] data, double[::1] out):
    cdef Py_ssize_t i
    cdef int64_t j
    with nogil:
        for i in range(out.shape[0]):
            out[i] = 0
            for j in range(indptr[i], indptr[i + 1]):
                out[i] += fabs(data[j])


def count_nonzeros(const int64_t[::1] indptr, const float[::1] data, int64_t[::1] out):
    cdef Py_ssize_t i
    cdef int64_t j
    cdef int32_t n
    with nogil:
        for i in range(out.shape[0]):
            n = 0
            for j in range(indptr[i], indptr[i + 1]):
                n += data[j] != 0
            out[i] = n


def is_plain(const int32_t[::1] columns, const float[::1] values, int64_t n_features):
    cdef Py_ssize_t j
    cdef int64_t before = -1
    for j in range(columns.shape[0]):
        if not (before < columns[j] < n_features and -FLT_MAX <= values[j] <= FLT_MAX and values[j] != 0):
            return False
        before = columns[j]
    return True


def count_columns(
    const int64_t[::1] group_ptr,
    const int64_t[::1] members,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    Py_ssize_t n_columns,
    int64_t[::1] counts,
):
    cdef Py_ssize_t i
    cdef int64_t j, k
    cdef int32_t[::1] last = np.full(n_columns, -1, np.int32)  # the last group that has a column
    with nogil:
        for i in range(counts.shape[0]):
            counts[i] = 0
            for k in range(group_ptr[i], group_ptr[i + 1]):
                # no row has a column twice: one may have all
                if indptr[members[k] + 1] - indptr[members[k]] == n_columns:
                    counts[i] = n_columns
                    break
                for j in range(indptr[members[k]], indptr[members[k] + 1]):
                    counts[i] += last[indices[j]] != i
                    last[indices[j]] = <int32_t>i


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


cdef void take_columns(Columns* has, int32_t* columns) noexcept nogil:
    """Move the marked columns out, in their order."""
    cdef Py_ssize_t i, word, n = 0
    for i in range(has.n_words):
        while has.some[i]:
            word = (i << 6) + lowest_bit(has.some[i])
            has.some[i] &= has.some[i] - 1
            while has.filled[word]:
                columns[n] = <int32_t>((word << 6) + lowest_bit(has.filled[word]))
                has.filled[word] &= has.filled[word] - 1
                n += 1


def sum_rows(
    const int64_t[::1] group_ptr,
    const int64_t[::1] members,
    const double[::1] scale,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    Py_ssize_t n_columns,
    const int64_t[::1] sum_ptr,
    int32_t[::1] sum_indices,
    float[::1] sum_data,
):
    cdef Py_ssize_t i
    cdef int64_t j, k
    cdef double[::1] sums = np.zeros(n_columns)  # between groups, too
    cdef uint64_t[::1] filled = np.zeros((n_columns >> 6) + 1, dtype=np.uint64)
    cdef uint64_t[::1] some = np.zeros((n_columns >> 12) + 1, dtype=np.uint64)
    cdef bint has_all
    cdef Columns has = Columns(&filled[0], &some[0], some.shape[0])
    with nogil:
        for i in range(group_ptr.shape[0] - 1):
            has_all = sum_ptr[i + 1] - sum_ptr[i] == n_columns
            for k in range(group_ptr[i], group_ptr[i + 1]):
                for j in range(indptr[members[k]], indptr[members[k] + 1]):
                    if not has_all:
                        mark(&has, indices[j])
                    sums[indices[j]] += scale[k] * data[j]
            if has_all:
                for j in range(n_columns):
                    sum_indices[sum_ptr[i] + j] = <int32_t>j
            elif sum_ptr[i] < sum_ptr[i + 1]:
                take_columns(&has, &sum_indices[sum_ptr[i]])
            for j in range(sum_ptr[i], sum_ptr[i + 1]):
                sum_data[j] = <float>sums[sum_indices[j]]
                sums[sum_indices[j]] = 0
