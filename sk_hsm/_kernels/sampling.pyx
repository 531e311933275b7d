# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that draw classes by an inverted multi-index: first a cell, then a class in it.

Their specification is the function of the same name in ``reference``.
"""
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from .vectors cimport LINE, exponentials, vector_loops, weighted_sum


# so far below the best, no codeword is less probable
cdef float LEAST = -40

# the share of draws that are by weights alone: a class that codewords of a while ago think impossible, but
# that is likely by now, would else make an enormous step the one time that it is drawn
cdef double DEFENSIVE = 0.1


cdef int open_sampler(Sampler* s, index) except -1:
    """Point to the arrays of a MultiIndex, which must outlive s, and make room for scratch."""
    cdef const float[:, ::1] codewords = index.codewords, cell_weights = index.cell_weights
    cdef const int64_t[::1] cell_ptr = index.cell_ptr
    cdef const int32_t[::1] members = index.members, cells = index.cells
    cdef const double[::1] cumulated = index.cumulated
    cdef const float[::1] weights = index.weights
    cdef int i, j, n = cell_weights.shape[0]
    cdef double weight = 0
    s.n_codewords, s.stride, s.width = n, cell_weights.shape[1], codewords.shape[1]
    s.cell_weights, s.cell_ptr, s.members = &cell_weights[0, 0], &cell_ptr[0], &members[0]
    s.cumulated, s.cells, s.weights = &cumulated[0], &cells[0], &weights[0]
    s.codewords = <float**>malloc(2 * n * sizeof(float*))
    s.scores = <float*>malloc((2 * n + LINE) * sizeof(float))
    s.exponentials = <float*>calloc(2 * s.stride, sizeof(float))
    s.row_weights = <double*>malloc(n * sizeof(double))
    s.row_sums = <double*>malloc(n * sizeof(double))
    s.cell_sums = <double*>malloc(n * n * sizeof(double))
    s.summed = <char*>malloc(n)
    if not (
        s.codewords and s.scores and s.exponentials and s.row_weights and s.row_sums and s.cell_sums
        and s.summed
    ):
        close_sampler(s)
        raise MemoryError(f"no memory for {n} x {n} cells")
    for i in range(2 * n):
        s.codewords[i] = <float*>&codewords[i, 0]
    for i in range(n):
        for j in range(n):
            weight += cell_weights[i, j]
        s.row_weights[i] = weight
    return 0


cdef void close_sampler(Sampler* s) noexcept nogil:
    free(s.codewords)
    free(s.scores)
    free(s.exponentials)
    free(s.row_weights)
    free(s.row_sums)
    free(s.cell_sums)
    free(s.summed)


cdef void weigh(Sampler* s, const float* h) noexcept nogil:
    """Make h the one that classes are drawn for."""
    cdef int i, n = s.n_codewords
    cdef double total = 0
    vector_loops().dots(s.scores, s.codewords, 2 * n, h, s.width)
    s.top = shift_to_zero(s.scores, n) + shift_to_zero(s.scores + n, n)
    exponentials(s.exponentials, s.scores, n)
    exponentials(s.exponentials + s.stride, s.scores + n, n)
    for i in range(n):
        total += s.exponentials[i] * weighted_sum(
            s.exponentials + s.stride, s.cell_weights + <int64_t>i * s.stride, s.stride
        )
        s.row_sums[i] = total
    s.total = total
    s.even = DEFENSIVE / (1 - DEFENSIVE) * total / s.row_weights[n - 1]
    for i in range(n):
        s.row_sums[i] += s.even * s.row_weights[i]
    memset(s.summed, 0, n)


cdef float shift_to_zero(float* scores, int n) noexcept nogil:
    """Less the greatest, which is returned, and not below the least; nor is what is not a number."""
    cdef int i
    cdef float top = scores[0], less
    for i in range(1, n):
        top = max(top, scores[i])
    for i in range(n):
        less = scores[i] - top
        scores[i] = less if less > LEAST else LEAST
    return top


cdef int64_t position(const double* sums, int64_t n, double* uniform) noexcept nogil:
    """Where in rising sums a uniform number falls; it becomes one of what lies between two of them."""
    cdef double total = sums[n - 1], at = uniform[0] * total, before
    cdef int64_t lo = 0, hi = n - 1, middle
    while lo < hi:
        middle = (lo + hi) // 2
        if sums[middle] > at or sums[middle] == total:
            hi = middle
        else:
            lo = middle + 1
    before = sums[lo - 1] if lo > 0 else 0
    uniform[0] = min(max((at - before) / (sums[lo] - before), 0.0), 1 - 1e-16)
    return lo


cdef int32_t draw(Sampler* s, double uniform) noexcept nogil:
    """A class: a row of cells, a cell of it, and a class in that, by one uniform number."""
    cdef int n = s.n_codewords, j
    cdef int64_t row = position(s.row_sums, n, &uniform), cell, begin
    cdef double* sums = s.cell_sums + row * n
    cdef double total = 0
    if not s.summed[row]:
        s.summed[row] = True
        for j in range(n):
            total += factor(s, row, j) * s.cell_weights[row * s.stride + j]
            sums[j] = total
    cell = row * n + position(sums, n, &uniform)
    begin = s.cell_ptr[cell]
    return s.members[begin + position(s.cumulated + begin, s.cell_ptr[cell + 1] - begin, &uniform)]


cdef inline double factor(Sampler* s, int row, int column) noexcept nogil:
    """What weights of the classes of a cell are multiplied by."""
    return <double>s.exponentials[row] * s.exponentials[s.stride + column] + s.even


cdef double proba(Sampler* s, int32_t c) noexcept nogil:
    """Of the class c to be drawn."""
    cdef int n = s.n_codewords
    return factor(s, s.cells[c] // n, s.cells[c] % n) * s.weights[c] / s.row_sums[n - 1]


def draw_classes(
    index, const float[:, ::1] H, uint64_t number, int32_t[:, ::1] classes, double[:, ::1] probabilities
):
    cdef Py_ssize_t i, j
    cdef Sampler s
    open_sampler(&s, index)
    with nogil:
        for i in range(classes.shape[0]):
            weigh(&s, &H[i, 0])
            for j in range(classes.shape[1]):
                classes[i, j] = draw(&s, uniform_number(number))
                probabilities[i, j] = proba(&s, classes[i, j])
                number += 1
        close_sampler(&s)
