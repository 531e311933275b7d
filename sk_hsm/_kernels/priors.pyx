# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels for what the penalty pulls towards.

Their specification is the function of the same name in ``reference.py``.
"""
from libc.math cimport sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free

cdef extern from "lines.h" nogil:
    void feature_log_odds(float* odds, const double* sums, const float* shares, double smoothing, int width)
    void centre_present(float* x, const float* present, float n_present, int width)


def sum_by_child(
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const float[::1] row_weights,
    const int64_t[::1] child,
    double[:, ::1] sums,
):
    cdef Py_ssize_t i, j
    with nogil:
        for i in range(child.shape[0]):
            for j in range(indptr[i], indptr[i + 1]):
                sums[indices[j], child[i]] += <double>row_weights[i] * data[j]


cdef float count(const float[::1] present) noexcept nogil:
    cdef float n = 0
    cdef Py_ssize_t c
    for c in range(present.shape[0]):
        n += present[c]
    return n


def log_odds(
    const double[:, ::1] sums,
    const float[::1] shares,
    const float[::1] present,
    double smoothing,
    float[:, ::1] out,
):
    cdef Py_ssize_t f
    cdef int width = shares.shape[0]
    cdef float n_present
    with nogil:
        n_present = count(present)
        for f in range(sums.shape[0]):
            feature_log_odds(&out[f, 0], &sums[f, 0], &shares[0], smoothing, width)
            centre_present(&out[f, 0], &present[0], n_present, width)


def directions(const double[:, ::1] sums, const float[::1] present, float[:, ::1] out):
    cdef Py_ssize_t f, c
    cdef int width = present.shape[0]
    cdef float n_present
    cdef double* scale = <double*>calloc(width, sizeof(double))
    if scale == NULL:
        raise MemoryError(f"no memory for the lengths of {width} centroids")
    with nogil:
        n_present = count(present)
        for f in range(sums.shape[0]):
            for c in range(width):
                scale[c] += sums[f, c] * sums[f, c]
        for c in range(width):
            scale[c] = 1 / sqrt(scale[c]) if scale[c] > 0 else 0
        for f in range(sums.shape[0]):
            for c in range(width):
                out[f, c] = <float>(sums[f, c] * scale[c])
            centre_present(&out[f, 0], &present[0], n_present, width)
        free(scale)
