"""The best classes of a row, as a search comes to them. Inline, for other kernels only."""
from libc.math cimport INFINITY
from libc.stdint cimport int32_t
from libc.stdlib cimport free

from .heaps cimport Candidate, Heap, better, keep, pop, push, replace

cdef struct Answers:
    # the best of at least the floor: k at most
    Heap best
    Py_ssize_t k
    double floor
    # while they are collected, classes that will be scored again: so many at most, of at least this log-probability
    bint is_collecting
    Heap likely
    Py_ssize_t most
    double least


cdef inline void open_answers(Answers* a, Py_ssize_t k, double floor) noexcept nogil:
    a.best = a.likely = Heap(NULL, 0, 0, True)
    a.k, a.floor = k, floor


cdef inline void close_answers(Answers* a) noexcept nogil:
    free(a.best.items)
    free(a.likely.items)


cdef inline double needed(Answers* a) noexcept nogil:
    """Log-probability that a class must reach to change what is known."""
    if a.is_collecting:
        return a.likely.items[0].log_p if a.likely.size == a.most else a.least
    return max(a.floor, a.best.items[0].log_p) if a.best.size == a.k else a.floor


cdef inline double bar(Answers* a) noexcept nogil:
    """Log-probability that a class must reach to matter, now or once no more are collected."""
    return min(a.floor, a.least) if a.is_collecting else needed(a)


cdef inline int offer_best(Answers* a, Candidate item) noexcept nogil:
    """Return -1 where memory runs out."""
    return 0 if item.log_p < a.floor else keep(&a.best, a.k, item)


cdef inline int offer(Answers* a, Candidate item) noexcept nogil:
    """Return -1 where memory runs out."""
    cdef Candidate worst
    if a.is_collecting and item.log_p >= a.least:
        if a.likely.size < a.most:
            return push(&a.likely, item)
        worst = a.likely.items[0]
        if better(item, worst):
            replace(&a.likely, item)
            item = worst
    return offer_best(a, item)


cdef inline void write_answers(Answers* a, int32_t* classes, double* log_proba) noexcept nogil:
    """In order; class -1 where there are fewer than k."""
    cdef Candidate item
    cdef Py_ssize_t at
    for at in range(a.best.size, a.k):
        classes[at], log_proba[at] = -1, -INFINITY
    while a.best.size > 0:
        item = pop(&a.best)
        classes[a.best.size], log_proba[a.best.size] = item.node, item.log_p
