# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels for what the penalty pulls towards.

Their specification is the function of the same name in ``reference``.
"""
from libc.math cimport log, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

import numpy as np

cdef extern from "lines.h" nogil:
    void centred_log_odds(float* odds, const double* sums, const float* shares, const float* present,
                          float n_present, double smoothing, int64_t n_features, int width)
    void line_add_squares(double* total, const double* x)
    void line_scaled(float* y, const double* scale, const double* x)
    void centre_present(float* x, const float* present, float n_present, int width)


cdef int count_shares(const Rows* rows, int width, double* totals, float* share, float* bias) noexcept nogil:
    """Each child's share in the weight of the rows, and its centred logarithm; the children that have rows."""
    cdef double total = 0, mean = 0
    cdef int c, n_present = 0
    cdef Py_ssize_t i
    memset(totals, 0, width * sizeof(double))
    for i in range(rows.n):
        totals[rows.child[i]] += rows.weight[i]
    for c in range(width):
        total += totals[c]
        n_present += totals[c] > 0
    for c in range(width):
        share[c] = <float>(totals[c] / total)
        mean += log(totals[c] / total) / n_present if totals[c] > 0 else 0
    for c in range(width):
        if totals[c] > 0:
            bias[c] = <float>(log(totals[c] / total) - mean)
    return n_present


cdef void directions(
    Py_ssize_t n_features, int width, int n_present,
    const double* sums, double* totals, const float* present, float* weights,
) noexcept nogil:
    cdef Py_ssize_t f
    cdef int c
    memset(totals, 0, width * sizeof(double))
    for f in range(n_features):
        for c in range(0, width, 16):
            line_add_squares(totals + c, sums + f * width + c)
    for c in range(width):
        totals[c] = 1 / sqrt(totals[c]) if totals[c] > 0 else 0
    for f in range(n_features):
        for c in range(0, width, 16):
            line_scaled(weights + f * width + c, totals + c, sums + f * width + c)
        centre_present(weights + f * width, present, n_present, width)


cdef void guess(
    const Rows* rows, Py_ssize_t n_features, int width, int prior, double smoothing,
    double* sums, double* totals, float* share, float* weights, float* bias,
) noexcept nogil:
    """write_guess. Scratch: sums (n_features, width), totals (width,), share (2 * width,)."""
    cdef Py_ssize_t i
    cdef int64_t j
    cdef int c, n_present = count_shares(rows, width, totals, share, bias)
    cdef float* present = share + width
    cdef const int32_t* indices
    cdef const float* data
    for c in range(width):
        present[c] = totals[c] > 0
    memset(sums, 0, n_features * width * sizeof(double))
    for i in range(rows.n):
        indices, data = row_indices(rows, i), row_data(rows, i)
        for j in range(row_size(rows, i)):
            sums[<int64_t>indices[j] * width + rows.child[i]] += <double>rows.weight[i] * data[j]
    if prior == NAIVE_BAYES:
        centred_log_odds(weights, sums, share, present, n_present, smoothing, n_features, width)
    else:
        directions(n_features, width, n_present, sums, totals, present, weights)


def write_guess(
    int64_t[::1] indptr,
    int32_t[::1] indices,
    float[::1] data,
    float[::1] row_weights,
    int64_t[::1] child,
    int prior,
    double smoothing,
    float[:, ::1] weights,
    float[::1] bias,
):
    cdef int width = bias.shape[0]
    cdef Rows rows
    cdef double[::1] sums = np.empty(weights.shape[0] * width + 1)
    cdef double[::1] totals = np.empty(width)
    cdef float[::1] share = np.empty(2 * width, np.float32)
    rows.n, rows.n_full, rows.indptr, rows.child = child.shape[0], 0, &indptr[0], &child[0]
    rows.weight = &row_weights[0]
    rows.indices = &indices[0] if indices.shape[0] else NULL
    rows.data = &data[0] if data.shape[0] else NULL
    with nogil:
        guess(
            &rows, weights.shape[0], width, prior, smoothing, &sums[0], &totals[0], &share[0],
            &weights[0, 0] if weights.shape[0] else NULL, &bias[0],
        )
