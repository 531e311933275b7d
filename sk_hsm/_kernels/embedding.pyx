# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel that learns embeddings of features and vectors of nodes: gradient descent, row by row.

Its specification is the function of the same name in ``reference``.
"""
from libc.math cimport log
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from .vectors cimport (
    LINE, VectorLoops, dot, embed, move_embedding, prefetch_embedding, prefetch_vector, shorten_step, sigmoids, softmax,
    stable_rate, vector_loops,
)


# exp is taken as 0 below this
cdef double LEAST = 8.7e-27

cdef struct Path:
    # of one class, from its leaf up: how many vectors each node has, and which child is taken
    int length
    int32_t* n_vectors
    int32_t* taken
    # the vectors of all nodes, and what they give
    int total
    float** vectors
    float* scores


cdef int open_path(Path* path, tree) except -1:
    """Room for the longest path."""
    cdef Py_ssize_t depth = tree.max_depth + 1, most = depth * tree.arity
    path.n_vectors = <int32_t*>malloc(depth * sizeof(int32_t))
    path.taken = <int32_t*>malloc(depth * sizeof(int32_t))
    path.vectors = <float**>malloc(most * sizeof(float*))
    path.scores = <float*>malloc((most + LINE) * sizeof(float))
    if path.n_vectors == NULL or path.taken == NULL or path.vectors == NULL or path.scores == NULL:
        close_path(path)
        raise MemoryError(f"no memory for a path of {depth} nodes")
    return 0


cdef void close_path(Path* path) noexcept nogil:
    free(path.n_vectors)
    free(path.taken)
    free(path.vectors)
    free(path.scores)


cdef void find_path(
    Path* path,
    int32_t leaf,
    const int32_t* parents,
    const int32_t* positions,
    const int64_t* vector_ptr,
    float* vectors,
    int width,
) noexcept nogil:
    cdef int32_t node = leaf
    cdef int64_t v
    path.length = path.total = 0
    while node > 0:
        path.taken[path.length] = positions[node]
        node = parents[node]
        path.n_vectors[path.length] = vector_ptr[node + 1] - vector_ptr[node]
        path.length += 1
        for v in range(vector_ptr[node], vector_ptr[node + 1]):
            path.vectors[path.total] = vectors + v * width
            prefetch_vector(path.vectors[path.total], width)
            path.total += 1


cdef double to_steps(Path* path, float rate) noexcept nogil:
    """Scores -> what vectors are to move by, in units of h: the rate times the error. The path's log-probability.

    The error is how much too probable a child is. The one vector of two children speaks for the second.
    """
    cdef float* p = path.scores
    cdef double product = 1, log_p = 0
    cdef int i, c
    if path.total == path.length:
        for i in range(path.length):
            p[i] = p[i] if path.taken[i] else -p[i]
        sigmoids(p, path.total)
    else:
        to_probabilities(path)
    for i in range(path.length):
        if path.n_vectors[i] > 1:
            product *= max(p[path.taken[i]], LEAST)
            p[path.taken[i]] -= 1
        else:
            product *= max(p[0], LEAST)
            p[0] = p[0] - 1 if path.taken[i] else 1 - p[0]
        p += path.n_vectors[i]
        if product < 1e-200:
            log_p += log(product)
            product = 1
    for c in range(path.total):
        path.scores[c] *= rate
    return log_p + log(product)


cdef void to_probabilities(Path* path) noexcept nogil:
    """Scores -> probabilities of children, or of two children of the one that is taken.

    Node by node from the last, as each writes over the beginning of the next.
    """
    cdef int i
    cdef float kept[16]
    cdef float* scores = path.scores + path.total
    for i in range(path.length - 1, -1, -1):
        memcpy(kept, scores, sizeof(kept))
        scores -= path.n_vectors[i]
        if path.n_vectors[i] > 1:
            softmax(scores, path.n_vectors[i])
        else:
            scores[0] = scores[0] if path.taken[i] else -scores[0]
            sigmoids(scores, 1)
        memcpy(scores + path.n_vectors[i], kept, sizeof(kept))


def train_rows(
    tree,
    const int64_t[::1] vector_ptr,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const int32_t[::1] classes,
    const float[::1] weights,
    const int64_t[::1] order,
    float[:, ::1] embedding,
    float[:, ::1] vectors,
    int dim,
    bint fit_intercept,
    double first_rate,
    double last_rate,
):
    cdef const int32_t[::1] parents = tree.parents, positions = tree.positions
    cdef int n_inner = tree.n_inner, width = vectors.shape[1]
    cdef Py_ssize_t i, n = order.shape[0]
    cdef int64_t row, begin, size, ahead
    cdef int32_t before = -1
    cdef float rate
    cdef float* scratch
    cdef float* h
    cdef float* back
    cdef double loss = 0
    cdef Path path
    cdef VectorLoops loops = vector_loops()
    open_path(&path, tree)
    scratch = <float*>malloc((2 * width + LINE) * sizeof(float))
    if scratch == NULL:
        close_path(&path)
        raise MemoryError(f"no memory for two vectors of {width} numbers")
    h = scratch + (-(<size_t>scratch // sizeof(float))) % LINE  # where a line of the cache begins
    back = h + width
    with nogil:
        for i in range(n):
            row = order[i]
            begin, size = indptr[row], indptr[row + 1] - indptr[row]
            ahead = order[i + 1] if i + 1 < n else row
            prefetch_embedding(
                &indices[indptr[ahead]], indptr[ahead + 1] - indptr[ahead], &embedding[0, 0], width
            )
            embed(&loops, h, &indices[begin], &data[begin], size, &embedding[0, 0], width)
            memset(back, 0, width * sizeof(float))
            if fit_intercept:
                h[dim] = 1
            if classes[row] != before:
                before = classes[row]
                find_path(
                    &path, n_inner + before, &parents[0], &positions[0], &vector_ptr[0], &vectors[0, 0], width
                )
            loops.dots(path.scores, path.vectors, path.total, h, width)
            rate = stable_rate(
                weights[row] * (first_rate + (last_rate - first_rate) * i / n), dot(h, h, width)
            )
            loss -= weights[row] * to_steps(&path, rate)
            loops.steps(path.vectors, path.scores, path.total, back, h, width)
            back[dim] = 0
            shorten_step(back, dim, rate, dot(&data[begin], &data[begin], size))
            move_embedding(&loops, back, &indices[begin], &data[begin], size, &embedding[0, 0], width)
        close_path(&path)
        free(scratch)
    return loss
