# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernel that trains a node: dual coordinate ascent over its rows.

Its specification is the function of the same name in ``reference``.
"""
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset

import numpy as np

from .priors cimport Rows, row_data, row_indices, row_size

# passes until all rows are visited again, and how many there are whose estimate of the gap may be relied on
cdef enum:
    CYCLE = 10
    EARLY = 5

# a measuring pass ends early where so many rows at random, and one in SHARE of all, leave no doubt; but not
# where one weighs more than EVEN times the mean
cdef enum:
    ENOUGH = 1000
    SHARE = 16
    EVEN = 10

# of more floats than this, weights or rows are not in the cache when they are needed
cdef enum:
    CACHED = 1 << 15

cdef extern from "lines.h" nogil:
    float NO_CHILD
    void prefetch(const float* address)
    void any_logits(float* z, const float* bias, const float* weights,
                    const int32_t* indices, const float* values, int64_t n, int width, bint is_full)
    void any_update(float* weights, const float* step,
                    const int32_t* indices, const float* values, int64_t n, int width, bint is_full)
    float row_softmax(float* p, const float* z, int width)
    float row_divergence(const float* q, const float* z, float log_sum, int width)
    void row_step(float* q, const float* p, float* step, float a, float cost, float divergence, int width)


cdef uint64_t shuffle(int64_t* rows, Py_ssize_t n, uint64_t state) noexcept nogil:
    """Put rows in random order. In a fixed order ascent creeps, and each row hides the gap of the others."""
    cdef Py_ssize_t k, other
    cdef int64_t row
    for k in range(n - 1, 0, -1):
        state = state * <uint64_t>6364136223846793005 + <uint64_t>1442695040888963407
        other = (state >> 33) % <uint64_t>(k + 1)
        row = rows[k]
        rows[k] = rows[other]
        rows[other] = row
    return state


cdef void fetch_weights(const Node* node, Py_ssize_t i) noexcept nogil:
    """Fetch into the cache the weights that a row needs."""
    cdef const int32_t* indices = row_indices(&node.rows, i)
    cdef int64_t j
    for j in range(row_size(&node.rows, i)):
        prefetch(node.weights + node.width * <int64_t>indices[j])


cdef void fetch_row(const Node* node, Py_ssize_t i) noexcept nogil:
    """Fetch into the cache what is there of a row itself."""
    cdef const Rows* rows = &node.rows
    cdef int64_t j, n = row_size(rows, i)
    for j in range(0, n, 16):
        prefetch(row_data(rows, i) + j)
    if not rows.n_full:
        for j in range(0, n, 16):
            prefetch(<const float*>(row_indices(rows, i) + j))
    prefetch(node.dual + i * node.width)
    prefetch(node.costs + i)
    prefetch(rows.square_norm + i)


cdef bint is_within(double total, double squares, Py_ssize_t n, Py_ssize_t n_all, double limit) noexcept nogil:
    """Whether the sum of all is at most the limit, by n of them and three standard errors."""
    cdef double mean = total / n
    return n_all * (mean + 3 * sqrt(max(squares / n - mean * mean, 0.0) / n)) <= limit


cdef void forget(const Node* node) noexcept nogil:
    """Give all children that have rows the same score."""
    cdef int c
    memset(node.weights, 0, node.n_features * node.width * sizeof(float))
    for c in range(node.width):
        if node.bias[c] != NO_CHILD:
            node.bias[c] = 0


cdef int ascend(Node* node, const Goal* goal, uint64_t seed, double* gap, bint* done) noexcept nogil:
    """ascend_dual, from costs, dual, weights and bias; return the number of passes."""
    cdef Rows* rows = &node.rows
    cdef Py_ssize_t n_active = rows.n, n_kept, i, k, enough
    cdef int64_t nnz
    cdef int n_iter = 0, n_partial = 0, width = node.width, c
    cdef double limit, former, left_out = 0, squares, one, total = 0
    cdef float divergence, largest = 0, idle = 0.1 * goal.tol
    cdef bint measuring = False, is_large = node.n_features * width > CACHED
    cdef bint has_many = (rows.n * rows.n_full if rows.n_full else rows.indptr[rows.n]) > CACHED
    cdef int64_t* active = node.active
    cdef float* weights = node.weights
    cdef float* bias = node.bias
    cdef float* z = node.z
    cdef float* p = z + width
    cdef float* step = z + 2 * width
    cdef float* q
    cdef const int32_t* indices
    cdef const float* data
    gap[0], done[0] = 0, False
    for i in range(rows.n):
        total += node.costs[i]
        largest = max(largest, node.costs[i])
        active[i] = i
    limit = former = goal.tol * total
    # a sample says little of rows that few outweigh
    enough = max(ENOUGH, rows.n // SHARE) if <double>largest * rows.n <= EVEN * total else rows.n + 1
    while n_iter < goal.max_iter and not done[0]:
        n_iter += 1
        gap[0] = left_out
        squares = 0
        n_kept = 0
        seed = shuffle(active, n_active, seed)
        for k in range(n_active):
            i = active[k]
            nnz, indices, data = row_size(rows, i), row_indices(rows, i), row_data(rows, i)
            any_logits(z, bias, weights, indices, data, nnz, width, rows.n_full > 0)
            # the further ahead, the more is yet to be fetched that leads there
            if is_large and k + 1 < n_active:
                fetch_weights(node, active[k + 1])
            if has_many and k + 3 < n_active:
                fetch_row(node, active[k + 3])
            if has_many and k + 6 < n_active:
                prefetch(<const float*>(rows.indptr + active[k + 6]))
            q = node.dual + i * width
            divergence = row_divergence(q, z, row_softmax(p, z, width), width)
            if not divergence < INFINITY:  # numbers have overflowed
                forget(node)
                gap[0] = INFINITY
                return n_iter
            one = <double>node.costs[i] * divergence
            gap[0] += one
            squares += one * one
            if measuring and k + 1 == enough and is_within(gap[0], squares, enough, rows.n, limit):
                gap[0] *= <double>rows.n / enough
                done[0] = True
                break
            if divergence <= idle:
                left_out += one
                continue
            active[n_kept] = i
            n_kept += 1
            if measuring:
                continue
            row_step(q, p, step, node.costs[i] * rows.square_norm[i], node.costs[i], divergence, width)
            any_update(weights, step, indices, data, nnz, width, rows.n_full > 0)
            if goal.fit_intercept:
                for c in range(width):
                    bias[c] += step[c]
        # early on a gap that falls fast is not above what a pass estimates; later one that creeps may be
        done[0] = done[0] or gap[0] <= limit and (measuring or (n_iter <= EARLY and gap[0] <= former / 2))
        former = gap[0]
        n_active = n_kept
        # where the moving gap is small enough, a pass over all rows that moves nothing measures it
        measuring = not measuring and (gap[0] <= limit or n_kept == 0)
        n_partial += 1
        # rows left out for long may need to move again
        if measuring or n_partial == CYCLE:
            n_partial = 0
            left_out = 0
            n_active = rows.n
            for i in range(rows.n):
                active[i] = i
    return n_iter


def ascend_dual(
    int64_t[::1] indptr,
    int32_t[::1] indices,
    float[::1] data,
    float[::1] square_norms,
    float[::1] costs,
    float[:, ::1] dual,
    float[:, ::1] weights,
    float[::1] bias,
    bint fit_intercept,
    double tol,
    int max_iter,
    uint64_t seed,
):
    cdef Goal goal = Goal(fit_intercept, tol, max_iter)
    cdef int64_t[::1] active = np.empty(costs.shape[0], np.int64)
    cdef float[::1] z = np.empty(3 * bias.shape[0], np.float32)
    cdef double gap
    cdef bint done
    cdef Node node
    node.width, node.rows.n, node.n_features = bias.shape[0], costs.shape[0], weights.shape[0]
    node.rows.indptr, node.rows.n_full, node.rows.square_norm = &indptr[0], 0, &square_norms[0]
    node.rows.indices = &indices[0] if indices.shape[0] else NULL
    node.rows.data = &data[0] if data.shape[0] else NULL
    node.weights = &weights[0, 0] if weights.shape[0] else NULL
    node.bias, node.costs, node.dual, node.active, node.z = &bias[0], &costs[0], &dual[0, 0], &active[0], &z[0]
    with nogil:
        n_iter = ascend(&node, &goal, seed, &gap, &done)
    return n_iter, gap, done
