# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What a search of a tree has come to and not yet followed. For other kernels only.

What they compute is specified by the twins of the kernels that use them.
"""
from libc.stdint cimport int32_t
from libc.stdlib cimport free, realloc

from .heaps cimport Candidate, pop, push, replace
from .scores cimport Model, Query, children_log_proba

cdef extern from "lines.h" nogil:
    enum: LINE

cdef extern from "frontier.h" nogil:
    int32_t TAKEN
    void fill_line(
        Line* line, double log_p, const double* children_log_p, const int32_t* children, int n, int32_t above
    )
    int32_t best_of_line(double* log_p, const Line* line)
    int32_t take_from_line(double* log_p, Line* line, int32_t node)


cdef void clear(Frontier* f) noexcept nogil:
    f.n_lines = f.heap.size = 0


cdef void close_frontier(Frontier* f) noexcept nogil:
    free(f.lines)
    free(f.heap.items)


cdef Py_ssize_t open_node(Frontier* f, Model* m, Query* x, int32_t node, double log_p, int above) noexcept nogil:
    """The first of the lines of a node's children, which can not be taken yet; -1 where memory runs out.

    `above` is the number of the list of features that was found at its parent.
    """
    cdef int32_t n = m.child_ptr[node + 1] - m.child_ptr[node], c
    cdef const int32_t* children = m.children + m.child_ptr[node]
    cdef Py_ssize_t at = f.n_lines, n_lines = (n + LINE - 1) // LINE, i
    cdef void* grown
    if at + n_lines > f.capacity:
        grown = realloc(f.lines, 2 * (at + n_lines) * sizeof(Line))
        if grown == NULL:
            return -1
        f.lines, f.capacity = <Line*>grown, 2 * (at + n_lines)
    above = children_log_proba(m, x, node, above)
    if above < 0:
        return -1
    for i in range(n_lines):
        c = LINE * i
        fill_line(&f.lines[at + i], log_p, m.log_p + c, children + c, min(n - c, LINE), above)
    f.n_lines += n_lines
    return at


cdef int offer_children(Frontier* f, Model* m, int32_t node, Py_ssize_t first, double least) noexcept nogil:
    """Have a node's children taken, in lines with one of `least` or more; -1 where memory runs out."""
    cdef Py_ssize_t n_lines = (m.child_ptr[node + 1] - m.child_ptr[node] + LINE - 1) // LINE, line
    cdef Candidate best
    for line in range(first, first + n_lines):
        best.origin = line
        best.node = best_of_line(&best.log_p, &f.lines[line])
        if not best.log_p < least and best.node < TAKEN and push(&f.heap, best) < 0:
            return -1
    return 0


cdef Candidate take(Frontier* f) noexcept nogil:
    """The most probable child, with the number of its line, and let the next of its line be taken."""
    cdef Candidate best = f.heap.items[0], following
    cdef Line* line = &f.lines[best.origin]
    following.origin = best.origin
    following.node = take_from_line(&following.log_p, line, best.node)
    if following.node == TAKEN:
        pop(&f.heap)
    else:
        replace(&f.heap, following)
    return best
