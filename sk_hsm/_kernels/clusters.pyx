# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel that divides classes into clusters by spherical k-means.

Its specification is the function of the same name in ``reference``.
"""
from libc.math cimport fabsf, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, memset

import numpy as np

cdef extern from "lines.h" nogil:
    enum: LINE
    int line_width(int arity)
    void prefetch(const float* address)
    float line_max(const float* x)
    void any_logits(float* z, const float* bias, const float* weights,
                    const int32_t* indices, const float* values, int64_t n, int width, bint is_full)

# cosines closer than this are equal: the tree must not hang on rounding
cdef double TIE = 1e-6
# sums shorter than this share of all mass are what rounding leaves of none, or of some that cancel
cdef double NOTHING = 1e-12


cdef struct Space:
    # the class centroids (CSR) and their masses
    const int64_t* indptr
    const int32_t* indices
    const float* data
    const float* mass
    int64_t n_features
    # centers: for each feature its value of each, in a line or more, zero behind them
    int n_centers
    int width
    float* lines
    # scratch: the sums of the classes of each center, cosines, zeros
    double* sums
    float* z
    const float* zeros


cdef void fetch(const Space* x, int32_t i) noexcept nogil:
    """Fetch into the cache the centroid of a class."""
    cdef int64_t j
    for j in range(x.indptr[i], x.indptr[i + 1], 16):
        prefetch(<const float*>(x.indices + j))
        prefetch(x.data + j)


cdef int nearest_center(const Space* x, int32_t i, Py_ssize_t number) noexcept nogil:
    """The first center of largest cosine with a class; one in turn where that is zero."""
    cdef int64_t first = x.indptr[i], n = x.indptr[i + 1] - first
    cdef int c
    cdef float best
    any_logits(x.z, x.zeros, x.lines, x.indices + first, x.data + first, n, x.width, n == x.n_features)
    # what is behind the centers is below all cosines
    for c in range(x.n_centers, x.width):
        x.z[c] = -2
    best = line_max(x.z)
    for c in range(1, x.width // LINE):
        best = max(best, line_max(x.z + c * LINE))
    if fabsf(best) <= <float>TIE:
        return number % x.n_centers
    for c in range(x.n_centers):
        if x.z[c] >= best - <float>TIE:
            return c
    return 0


cdef void add(const Space* x, int32_t i, int c, int sign) noexcept nogil:
    """A class to the sum of a center; with sign -1, take it away."""
    cdef int64_t j
    cdef double mass = sign * x.mass[i]
    cdef double* total = x.sums + c * x.n_features
    for j in range(x.indptr[i], x.indptr[i + 1]):
        total[x.indices[j]] += mass * x.data[j]


cdef Py_ssize_t assign(
    const Space* x, const int32_t* classes, Py_ssize_t n, int32_t* cluster
) noexcept nogil:
    """Give each class to its nearest center, and to its sum; return how many were with another."""
    cdef Py_ssize_t k, n_moved = 0
    cdef int32_t i
    cdef int c
    for k in range(n):
        i = classes[k]
        if k + 1 < n:
            fetch(x, classes[k + 1])
        c = nearest_center(x, i, k)
        if cluster[k] != c:
            if cluster[k] >= 0:
                add(x, i, cluster[k], -1)
            add(x, i, c, 1)
            cluster[k] = c
            n_moved += 1
    return n_moved


cdef double move_centers(const Space* x, double least) noexcept nogil:
    """To the directions of the sums, or to zero of those that are not longer; return the sum of their lengths."""
    cdef double length, total = 0
    cdef int64_t f
    cdef int c
    for c in range(x.n_centers):
        length = 0
        for f in range(x.n_features):
            length += x.sums[c * x.n_features + f] * x.sums[c * x.n_features + f]
        length = sqrt(length)
        length = length if length > least else 0
        total += length
        for f in range(x.n_features):
            x.lines[f * x.width + c] = <float>(x.sums[c * x.n_features + f] / length) if length > 0 else 0
    return total


cdef double lloyd(
    const Space* x, const int32_t* classes, Py_ssize_t n, int max_iter, double tol, int32_t* cluster
) noexcept nogil:
    """Lloyd's algorithm from the centers; return the sum of mass times cosine."""
    cdef double total = 0, mass = 0
    cdef Py_ssize_t i
    cdef int k
    for i in range(n):
        mass += x.mass[classes[i]]
    memset(x.sums, 0, x.n_centers * x.n_features * sizeof(double))
    # every byte of -1 is 255: none has a cluster
    memset(cluster, 255, n * sizeof(int32_t))
    assign(x, classes, n, cluster)
    for k in range(max_iter):
        total = move_centers(x, NOTHING * mass)
        if assign(x, classes, n, cluster) <= tol * n:
            break
    return total


def kmeans_clusters(
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const float[::1] mass,
    Py_ssize_t n_features,
    const int32_t[::1] classes,
    const int32_t[::1] sample,
    const int32_t[:, ::1] starts,
    int max_iter,
    double tol,
    int32_t[::1] cluster,
):
    cdef Space x
    cdef Py_ssize_t n = sample.shape[0], size, s
    cdef int64_t j
    cdef int c
    cdef double total, best_total = -1
    x.n_centers, x.n_features = starts.shape[1], n_features
    x.width = line_width(x.n_centers)
    size = n_features * x.width
    cdef float[::1] lines = np.empty(size + 1, np.float32), best = np.empty(size + 1, np.float32)
    cdef double[::1] sums = np.empty(x.n_centers * n_features + 1)
    cdef float[:, ::1] z = np.zeros((2, x.width), np.float32)
    cdef int32_t[::1] found = np.empty(n, np.int32)
    x.indptr, x.mass = &indptr[0], &mass[0]
    x.indices = &indices[0] if indices.shape[0] else NULL
    x.data = &data[0] if data.shape[0] else NULL
    x.lines, x.sums, x.z, x.zeros = &lines[0], &sums[0], &z[0, 0], &z[1, 0]
    with nogil:
        for s in range(starts.shape[0]):
            memset(x.lines, 0, size * sizeof(float))
            for c in range(x.n_centers):
                for j in range(indptr[starts[s, c]], indptr[starts[s, c] + 1]):
                    x.lines[<int64_t>indices[j] * x.width + c] = data[j]
            total = lloyd(&x, &sample[0], n, max_iter, tol, &found[0])
            if total > best_total * (1 + TIE):
                best_total = total
                memcpy(&best[0], x.lines, size * sizeof(float))
                if classes.shape[0] == n:
                    memcpy(&cluster[0], &found[0], n * sizeof(int32_t))
        if classes.shape[0] > n:
            memcpy(x.lines, &best[0], size * sizeof(float))
            lloyd(&x, &classes[0], classes.shape[0], max_iter, tol, &cluster[0])
