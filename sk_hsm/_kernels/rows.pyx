# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that look at rows: sums, hashes, and whether a row is as kernels need it.

Their specification is the function of the same name in ``reference``.
"""
from libc.float cimport FLT_MAX
from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy


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


def sum_magnitudes(const int64_t[::1] indptr, const float[::1] data, double[::1] sums, int64_t[::1] counts):
    cdef Py_ssize_t i
    cdef int64_t j
    with nogil:
        for i in range(sums.shape[0]):
            sums[i], counts[i] = 0, 0
            for j in range(indptr[i], indptr[i + 1]):
                sums[i] += fabs(data[j])
                counts[i] += data[j] != 0


def is_plain(const int32_t[::1] columns, const float[::1] values, int64_t n_features):
    cdef Py_ssize_t j
    cdef int64_t before = -1
    for j in range(columns.shape[0]):
        if not (before < columns[j] < n_features and -FLT_MAX <= values[j] <= FLT_MAX):
            return False
        before = columns[j]
    return True
