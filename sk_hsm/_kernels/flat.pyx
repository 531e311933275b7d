# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel that learns a flat softmax by sampled negatives, with all that is below it: row by row.

Its specification is the function of the same name in ``reference``.
"""
from libc.math cimport log
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from .sampling cimport Sampler, close_sampler, draw, open_sampler, proba, uniform_number, weigh
from .vectors cimport (
    LINE, VectorLoops, dot, embed, move_embedding, prefetch_embedding, prefetch_vector, shorten_step, softmax,
    stable_rate, vector_loops,
)


# probabilities below this count as it
cdef double LEAST = 1e-30


# vectors that are moved at a time, as many as the first cache holds
cdef enum:
    FEW = 32


cdef struct Level:
    # a vector of so many numbers, a one beside them and zeros up to its width, and its gradient
    int dim
    int width
    float* x
    float* back
    # what the next level is made of: a vector for each of its numbers
    float** rows
    float* errors


cdef struct Candidates:
    # the classes of a step, and their vectors; whose number, and how often each was drawn
    int n
    float** vectors
    float* scores
    int32_t* classes
    int32_t* counts
    # where a class is among them, by its hash, and where they are there; empty is -1
    int32_t* table
    int32_t* slots
    uint64_t mask


cdef Level* open_levels(int n, const int64_t[::1] dims, list weights) except NULL:
    """Room for the vectors of a row, from the one that embeds it to the one that classes are scored by."""
    cdef float[:, ::1] array
    cdef int i, j
    cdef Level* levels = <Level*>calloc(n, sizeof(Level))
    if levels == NULL:
        raise MemoryError(f"no memory for {n} layers")
    for i in range(n):
        levels[i].dim, levels[i].width = dims[i], LINE * (dims[i] // LINE + 1)
        levels[i].x = <float*>calloc(2 * levels[i].width, sizeof(float))
        if i + 1 < n:
            levels[i].rows = <float**>malloc(dims[i + 1] * sizeof(float*))
            levels[i].errors = <float*>malloc((dims[i + 1] + LINE) * sizeof(float))
        if levels[i].x == NULL or i + 1 < n and (levels[i].rows == NULL or levels[i].errors == NULL):
            close_levels(levels, n)
            raise MemoryError(f"no memory for a layer of {dims[i]} numbers")
        levels[i].back = levels[i].x + levels[i].width
        if i + 1 < n:
            array = weights[i]
            for j in range(dims[i + 1]):
                levels[i].rows[j] = &array[j, 0]
    return levels


cdef void close_levels(Level* levels, int n) noexcept nogil:
    cdef int i
    for i in range(n):
        free(levels[i].x)
        free(levels[i].rows)
        free(levels[i].errors)
    free(levels)


cdef int open_candidates(Candidates* c, int room) except -1:
    cdef uint64_t size = 4
    while size < 4 * <uint64_t>room:
        size *= 2
    c.mask = size - 1
    c.vectors = <float**>malloc(room * sizeof(float*))
    c.scores = <float*>malloc((room + LINE) * sizeof(float))
    c.classes = <int32_t*>malloc(room * sizeof(int32_t))
    c.counts = <int32_t*>malloc(room * sizeof(int32_t))
    c.slots = <int32_t*>malloc(room * sizeof(int32_t))
    c.table = <int32_t*>malloc(size * sizeof(int32_t))
    if not (c.vectors and c.scores and c.classes and c.counts and c.slots and c.table):
        close_candidates(c)
        raise MemoryError(f"no memory for {room} classes")
    memset(c.table, 255, size * sizeof(int32_t))
    return 0


cdef void close_candidates(Candidates* c) noexcept nogil:
    free(c.vectors)
    free(c.scores)
    free(c.classes)
    free(c.counts)
    free(c.slots)
    free(c.table)


cdef void take_all(Candidates* c, float* vectors, int n_classes, int width) noexcept nogil:
    """All classes."""
    cdef int k
    c.n = n_classes
    for k in range(n_classes):
        c.vectors[k] = vectors + <int64_t>k * width


cdef void add(Candidates* c, int32_t label, float* vectors, int width) noexcept nogil:
    """A class, unless it is there already: then it counts once more."""
    cdef uint64_t at = (<uint64_t>label * 2654435769u) & c.mask
    while c.table[at] >= 0:
        if c.classes[c.table[at]] == label:
            c.counts[c.table[at]] += 1
            return
        at = (at + 1) & c.mask
    c.table[at], c.slots[c.n] = c.n, at
    c.classes[c.n], c.counts[c.n] = label, 1
    c.vectors[c.n] = vectors + <int64_t>label * width
    prefetch_vector(c.vectors[c.n], width)
    c.n += 1


cdef void take_drawn(
    Candidates* c, Sampler* s, int32_t label, int n_negatives, uint64_t number, float* vectors, int width
) noexcept nogil:
    """The label, and others that are drawn."""
    cdef int k
    cdef int32_t drawn
    for k in range(c.n):
        c.table[c.slots[k]] = -1
    c.n = 0
    add(c, label, vectors, width)
    for k in range(n_negatives):
        drawn = draw(s, uniform_number(number + k))
        if drawn != label:
            add(c, drawn, vectors, width)


cdef void step(Candidates* c, const VectorLoops* loops, float rate, Level* last) noexcept nogil:
    """Move the vectors of classes by their errors, and sum up the gradient of what they are scored by."""
    cdef int k
    for k in range(c.n):
        c.scores[k] *= rate
    k = 0
    while k < c.n:
        loops.steps(c.vectors + k, c.scores + k, min(c.n - k, <int>FEW), last.back, last.x, last.width)
        k += FEW


cdef void forward(const VectorLoops* loops, Level* levels, int n) noexcept nogil:
    """From the vector of the first level to that of the last, by layers that give nothing below 0."""
    cdef int i, j
    for i in range(n - 1):
        loops.dots(levels[i].errors, levels[i].rows, levels[i + 1].dim, levels[i].x, levels[i].width)
        for j in range(levels[i + 1].dim):
            levels[i + 1].x[j] = max(levels[i].errors[j], <float>0)


cdef void backward(const VectorLoops* loops, Level* levels, int n, float rate) noexcept nogil:
    """A step of the layers, from the gradient at the last level; the gradient at the first."""
    cdef int i, j
    for i in range(n - 2, -1, -1):
        for j in range(levels[i + 1].dim):
            levels[i].errors[j] = levels[i + 1].back[j] if levels[i + 1].x[j] > 0 else 0
        shorten_step(levels[i].errors, levels[i + 1].dim, rate, dot(levels[i].x, levels[i].x, levels[i].width))
        memset(levels[i].back, 0, levels[i].width * sizeof(float))
        loops.steps(
            levels[i].rows, levels[i].errors, levels[i + 1].dim, levels[i].back, levels[i].x, levels[i].width
        )
    levels[0].back[levels[0].dim] = 0


def train_flat_rows(
    index,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const int32_t[::1] classes,
    const float[::1] weights,
    const int64_t[::1] order,
    const int64_t[::1] dims,
    float[:, ::1] embedding,
    list layers,
    float[:, ::1] vectors,
    bint fit_intercept,
    int n_negatives,
    uint64_t number,
    double first_rate,
    double last_rate,
):
    cdef int n_levels = dims.shape[0], i, k, at
    cdef Py_ssize_t r, n = order.shape[0]
    cdef int64_t row, j, ahead
    cdef float rate
    cdef double loss = 0
    cdef bint sampled = index is not None, embeds = embedding is not None
    cdef VectorLoops loops = vector_loops()
    cdef Sampler s
    cdef Candidates c
    cdef Level* levels
    cdef Level* last
    levels = open_levels(n_levels, dims, layers)
    last = levels + n_levels - 1
    try:
        open_candidates(&c, n_negatives + 1 if sampled else vectors.shape[0])
        try:
            if sampled:
                open_sampler(&s, index)
        except MemoryError:
            close_candidates(&c)
            raise
    except MemoryError:
        close_levels(levels, n_levels)
        raise
    c.n = 0
    if not sampled:
        take_all(&c, &vectors[0, 0], vectors.shape[0], last.width)
    for i in range(n_levels):
        levels[i].x[levels[i].dim] = i + 1 < n_levels or fit_intercept
    with nogil:
        for r in range(n):
            row = order[r]
            if embeds:
                ahead = order[r + 1] if r + 1 < n else row
                prefetch_embedding(
                    &indices[indptr[ahead]], indptr[ahead + 1] - indptr[ahead], &embedding[0, 0], levels[0].width
                )
                embed(
                    &loops, levels[0].x, &indices[indptr[row]], &data[indptr[row]],
                    indptr[row + 1] - indptr[row], &embedding[0, 0], levels[0].width,
                )
                levels[0].x[levels[0].dim] = n_levels > 1 or fit_intercept
            else:
                memset(levels[0].x, 0, levels[0].dim * sizeof(float))
                for j in range(indptr[row], indptr[row + 1]):
                    levels[0].x[indices[j]] = data[j]
            forward(&loops, levels, n_levels)
            at = classes[row]
            if sampled:
                weigh(&s, last.x)
                take_drawn(&c, &s, at, n_negatives, number, &vectors[0, 0], last.width)
                number += n_negatives
                at = 0
            loops.dots(c.scores, c.vectors, c.n, last.x, last.width)
            if sampled:
                for k in range(1, c.n):
                    c.scores[k] += log(c.counts[k] / (n_negatives * proba(&s, c.classes[k])))
            softmax(c.scores, c.n)
            loss -= weights[row] * log(max(c.scores[at], LEAST))
            c.scores[at] -= 1
            rate = stable_rate(
                weights[row] * (first_rate + (last_rate - first_rate) * r / n),
                dot(last.x, last.x, last.width),
            )
            memset(last.back, 0, last.width * sizeof(float))
            step(&c, &loops, rate, last)
            backward(&loops, levels, n_levels, rate)
            if embeds:
                shorten_step(
                    levels[0].back, levels[0].dim, rate,
                    dot(&data[indptr[row]], &data[indptr[row]], indptr[row + 1] - indptr[row]),
                )
                move_embedding(
                    &loops, levels[0].back, &indices[indptr[row]], &data[indptr[row]],
                    indptr[row + 1] - indptr[row], &embedding[0, 0], levels[0].width,
                )
        if sampled:
            close_sampler(&s)
        close_candidates(&c)
        close_levels(levels, n_levels)
    return loss
