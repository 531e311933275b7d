# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that train one node: gather its rows, then ascend the dual.

Their specification is the function of the same name in ``reference.py``.
"""
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free, malloc

# passes over the rows that still move, before all rows are visited again
cdef enum:
    MAX_PARTIAL = 5

cdef extern from "lines.h" nogil:
    void prefetch(const float* address)
    void row_logits(float* z, const float* bias, const float* weights,
                    const int32_t* indices, const float* values, int64_t n, int width)
    void row_update(float* weights, const float* step,
                    const int32_t* indices, const float* values, int64_t n, int width)
    float row_softmax(float* p, const float* z, int width)
    float row_divergence(const float* q, const float* z, float log_sum, int width)
    void row_step(float* q, const float* p, float* step, float a, float cost, float divergence, int width)


def gather_rows(
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const int64_t[::1] rows,
    int32_t[::1] local_of,
    int32_t[::1] features,
    int64_t[::1] out_indptr,
    int32_t[::1] out_indices,
    float[::1] out_data,
):
    cdef Py_ssize_t i, j, at = 0
    cdef int32_t f, n_features = 0
    with nogil:
        for i in range(rows.shape[0]):
            out_indptr[i] = at
            for j in range(indptr[rows[i]], indptr[rows[i] + 1]):
                f = indices[j]
                if local_of[f] < 0:
                    local_of[f] = n_features
                    features[n_features] = f
                    n_features += 1
                out_indices[at] = local_of[f]
                out_data[at] = data[j]
                at += 1
        out_indptr[rows.shape[0]] = at
        for i in range(n_features):
            local_of[features[i]] = -1
    return n_features


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


def ascend_dual(
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const float[::1] square_norms,
    const float[::1] costs,
    float[:, ::1] dual,
    float[:, ::1] weights,
    float[::1] bias,
    bint fit_intercept,
    double tol,
    int max_iter,
    uint64_t seed,
):
    cdef Py_ssize_t n = costs.shape[0], n_active = n, n_kept, i, j, k, nnz
    cdef int width = bias.shape[0], n_iter = 0, n_partial = 0, c
    cdef double gap = 0, limit = 0
    cdef float divergence, idle = 0.1 * tol
    cdef bint measuring = False, done = False
    cdef float* w = &weights[0, 0] if weights.shape[0] else NULL
    cdef const int32_t* row_indices = NULL
    cdef const float* row_data = NULL
    cdef float* z = <float*>malloc(3 * width * sizeof(float))
    cdef int64_t* active = <int64_t*>malloc(n * sizeof(int64_t))
    if z == NULL or active == NULL:
        free(z)
        free(active)
        raise MemoryError(f"no memory to train a node of {n} rows and {width} children")
    cdef float* p = z + width
    cdef float* step = z + 2 * width
    with nogil:
        for i in range(n):
            limit += tol * costs[i]
            active[i] = i
        while n_iter < max_iter and not done:
            n_iter += 1
            gap = 0
            n_kept = 0
            seed = shuffle(active, n_active, seed)
            for k in range(n_active):
                i = active[k]
                nnz = indptr[i + 1] - indptr[i]
                if nnz > 0:
                    row_indices = &indices[indptr[i]]
                    row_data = &data[indptr[i]]
                row_logits(z, &bias[0], w, row_indices, row_data, nnz, width)
                if k + 1 < n_active:
                    for j in range(indptr[active[k + 1]], indptr[active[k + 1] + 1]):
                        prefetch(w + width * <int64_t>indices[j])
                divergence = row_divergence(&dual[i, 0], z, row_softmax(p, z, width), width)
                gap += costs[i] * divergence
                if divergence <= idle:
                    continue
                active[n_kept] = i
                n_kept += 1
                if measuring:
                    continue
                row_step(&dual[i, 0], p, step, costs[i] * square_norms[i], costs[i], divergence, width)
                row_update(w, step, row_indices, row_data, nnz, width)
                if fit_intercept:
                    for c in range(width):
                        bias[c] += step[c]
            done = measuring and gap <= limit
            n_active = n_kept
            # where the moving gap is small enough, a pass over all rows that moves nothing measures it
            measuring = not measuring and (gap <= limit or n_kept == 0)
            n_partial += 1
            # rows left out for long may need to move again
            if measuring or n_partial == MAX_PARTIAL:
                n_partial = 0
                n_active = n
                for i in range(n):
                    active[i] = i
        free(z)
        free(active)
    return n_iter, gap, done
