# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that look for the best classes of a flat softmax: among the scores of all, or cell by cell.

Their specification is the function of the same name in ``reference``.
"""
from libc.math cimport INFINITY, exp, log, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc

from .heaps cimport Candidate, Heap, keep, pop, push
from .sampling cimport Sampler, close_sampler, open_sampler, weigh
from .vectors cimport VectorLoops, dot, log_sum_exp, vector_loops


# vectors that are scored at a time, as many as the first cache holds
cdef enum:
    MANY = 32

# sums of exponentials are kept less an exponent of their own, so that none overflows, nor all vanish
cdef struct Sum:
    double top
    double less


cdef inline void add(Sum* sum, double exponent, double times) noexcept nogil:
    if exponent <= sum.top:
        sum.less += times * exp(exponent - sum.top)
    else:
        sum.top, sum.less = exponent, times + sum.less * exp(sum.top - exponent)


cdef void write_best(Heap* best, double log_total, double floor, int32_t[::1] classes, double[::1] log_proba) noexcept nogil:
    """In order; class -1 below the floor."""
    cdef Candidate one
    while best.size > 0:
        one = pop(best)
        log_proba[best.size] = one.log_p - log_total
        classes[best.size] = one.node
        if log_proba[best.size] < floor:
            log_proba[best.size], classes[best.size] = -INFINITY, -1


def score_classes(const float[:, ::1] H, const float[:, ::1] vectors, float[:, ::1] scores):
    cdef Py_ssize_t i, lo, n = vectors.shape[0]
    cdef int c, some
    cdef float* some_vectors[MANY]
    cdef VectorLoops loops = vector_loops()
    with nogil:
        lo = 0
        while lo < n:
            some = min(<Py_ssize_t>MANY, n - lo)
            for c in range(some):
                some_vectors[c] = <float*>&vectors[lo + c, 0]
            for i in range(H.shape[0]):
                loops.dots(&scores[i, lo], some_vectors, some, &H[i, 0], vectors.shape[1])
            lo += some


def log_totals(const float[:, ::1] scores, double[::1] out):
    cdef Py_ssize_t i
    cdef VectorLoops loops = vector_loops()
    with nogil:
        for i in range(scores.shape[0]):
            out[i] = log_sum_exp(&loops, &scores[i, 0], scores.shape[1])


def best_of_scores(const float[:, ::1] scores, double floor, int32_t[:, ::1] classes, double[:, ::1] log_proba):
    cdef Py_ssize_t i, k = classes.shape[1]
    cdef int32_t c
    cdef int status = 0
    cdef float bar
    cdef const float* row
    cdef VectorLoops loops = vector_loops()
    cdef Heap best
    best.items, best.size, best.capacity, best.worst_first = NULL, 0, 0, True
    with nogil:
        for i in range(scores.shape[0]):
            row = &scores[i, 0]
            bar = -INFINITY
            for c in range(scores.shape[1]):
                if row[c] < bar:
                    continue
                status |= keep(&best, k, Candidate(row[c], c, 0))
                if best.size == k:
                    bar = best.items[0].log_p
            if status:
                break
            write_best(&best, log_sum_exp(&loops, row, scores.shape[1]), floor, classes[i], log_proba[i])
        free(best.items)
    if status:
        raise MemoryError(f"no memory for {k} answers")


cdef int gather_cells(Heap* cells, Sampler* s, const float[:, ::1] radii, const float[:, ::1] tops, double norm) noexcept nogil:
    """All that are not empty, by the most that a class of theirs can score."""
    cdef int a, b, n = s.n_codewords, status = 0
    cdef Candidate cell
    cells.size = 0
    for a in range(n):
        for b in range(n):
            cell.node = a * n + b
            if s.cell_ptr[cell.node + 1] > s.cell_ptr[cell.node]:
                cell.log_p = s.top + s.scores[a] + s.scores[n + b] + tops[a, b] + norm * radii[a, b]
                status |= push(cells, cell)
    return status


cdef double share(Sampler* s, int cell) noexcept nogil:
    """What all classes of a cell make up, as its codewords tell."""
    cdef int a = cell // s.n_codewords, b = cell % s.n_codewords
    return s.exponentials[a] * s.exponentials[s.stride + b] * s.cell_weights[a * s.stride + b]


def search_cells(
    index,
    const float[:, ::1] H,
    int dim,
    const float[:, ::1] vectors,
    Py_ssize_t n_probe,
    int32_t[:, ::1] classes,
    double[:, ::1] log_proba,
):
    cdef Py_ssize_t i, at, k = classes.shape[1], left
    cdef int64_t place
    cdef int status = 0
    cdef double norm, left_out
    cdef float score
    cdef Sum total
    cdef float* vector
    cdef Candidate cell
    cdef VectorLoops loops = vector_loops()
    cdef const float[:, ::1] radii = index.radii, tops = index.tops
    cdef Sampler s
    cdef Heap best, cells
    best.items, best.size, best.capacity, best.worst_first = NULL, 0, 0, True
    cells.items, cells.size, cells.capacity, cells.worst_first = NULL, 0, 0, False
    open_sampler(&s, index)
    with nogil:
        for i in range(H.shape[0]):
            weigh(&s, &H[i, 0])
            norm = sqrt(dot(&H[i, 0], &H[i, 0], dim)) * (1 + 1e-5)  # whatever rounding did
            status |= gather_cells(&cells, &s, radii, tops, norm)
            left_out, left = 0.0, n_probe
            total.top, total.less = -INFINITY, 0.0
            while left > 0 and cells.size > 0:
                if best.size == k and cells.items[0].log_p < best.items[0].log_p:
                    break
                cell = pop(&cells)
                left -= 1
                for place in range(s.cell_ptr[cell.node], s.cell_ptr[cell.node + 1]):
                    vector = <float*>&vectors[s.members[place], 0]
                    loops.dots(&score, &vector, 1, &H[i, 0], s.width)
                    add(&total, score, 1)
                    status |= keep(&best, k, Candidate(score, s.members[place], 0))
            if status:
                break
            for at in range(cells.size):
                left_out += share(&s, cells.items[at].node)
            if left_out > 0:
                add(&total, s.top, left_out)
            write_best(&best, total.top + log(total.less), -INFINITY, classes[i], log_proba[i])
        close_sampler(&s)
        free(best.items)
        free(cells.items)
    if status:
        raise MemoryError(f"no memory for {k} answers")
