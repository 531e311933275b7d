from libc.stdint cimport int32_t

cdef struct Candidate:
    # of an inner node also the number of the list of features that were found at its parent
    double log_p
    int32_t node
    int32_t above

cdef struct Heap:
    # the root is the first, or with `worst_first` the last, in the order of answers
    Candidate* items
    Py_ssize_t size
    Py_ssize_t capacity
    bint worst_first

cdef bint better(Candidate a, Candidate b) noexcept nogil
cdef int push(Heap* heap, Candidate item) noexcept nogil
cdef Candidate pop(Heap* heap) noexcept nogil
