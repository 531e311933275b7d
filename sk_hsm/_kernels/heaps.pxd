"""Heaps of answers and of what may lead to them. Inline, for other kernels only."""
from libc.stdint cimport int32_t
from libc.stdlib cimport realloc

cdef struct Candidate:
    # a node or a class, and the number of what it was found in, where that matters
    double log_p
    int32_t node
    int32_t origin

cdef struct Heap:
    # the root is the first, or with `worst_first` the last, in the order of answers
    Candidate* items
    Py_ssize_t size
    Py_ssize_t capacity
    bint worst_first


cdef inline bint better(Candidate a, Candidate b) noexcept nogil:
    """The order of answers: the more probable first, ties by node."""
    if a.log_p == b.log_p:
        return a.node < b.node
    return a.log_p > b.log_p


cdef inline int push(Heap* heap, Candidate item) noexcept nogil:
    """Return -1 where memory runs out."""
    cdef Py_ssize_t at = heap.size, up
    cdef Candidate* grown
    if at == heap.capacity:
        grown = <Candidate*>realloc(heap.items, 2 * (at + 32) * sizeof(Candidate))
        if grown == NULL:
            return -1
        heap.items = grown
        heap.capacity = 2 * (at + 32)
    heap.size += 1
    while at > 0:
        up = (at - 1) // 2
        if better(item, heap.items[up]) == heap.worst_first:
            break
        heap.items[at] = heap.items[up]
        at = up
    heap.items[at] = item
    return 0


cdef inline void replace(Heap* heap, Candidate item) noexcept nogil:
    """Another item in place of the root."""
    cdef Py_ssize_t at = 0, down
    while 2 * at + 1 < heap.size:
        down = 2 * at + 1
        if down + 1 < heap.size:
            down += better(heap.items[down + 1], heap.items[down]) != heap.worst_first
        if better(heap.items[down], item) == heap.worst_first:
            break
        heap.items[at] = heap.items[down]
        at = down
    heap.items[at] = item


cdef inline Candidate pop(Heap* heap) noexcept nogil:
    cdef Candidate root = heap.items[0]
    heap.size -= 1
    replace(heap, heap.items[heap.size])
    return root


cdef inline int keep(Heap* best, Py_ssize_t k, Candidate item) noexcept nogil:
    """Among the k best, if it is one of them; the worst is the root. Return -1 where memory runs out."""
    if best.size < k:
        return push(best, item)
    if better(item, best.items[0]):
        replace(best, item)
    return 0
