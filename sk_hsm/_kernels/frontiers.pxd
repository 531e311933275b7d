from libc.stdint cimport int32_t

from .heaps cimport Candidate, Heap
from .scores cimport Model, Query

cdef extern from "frontier.h" nogil:
    ctypedef struct Line:
        double* log_p
        double* node
        int32_t above

cdef struct Frontier:
    # the children of opened nodes, and a heap of lines, by the best of those that were not taken
    Line* lines
    Py_ssize_t n_lines
    Py_ssize_t capacity
    Heap heap

cdef void clear(Frontier* f) noexcept nogil
cdef void close_frontier(Frontier* f) noexcept nogil
cdef Py_ssize_t open_node(Frontier* f, Model* m, Query* x, int32_t node, double log_p, int above) noexcept nogil
cdef int offer_children(Frontier* f, Model* m, int32_t node, Py_ssize_t first, double least) noexcept nogil
cdef Candidate take(Frontier* f) noexcept nogil
