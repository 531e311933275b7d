from libc.stdint cimport int32_t, int64_t, uint64_t

from .rows cimport mix

cdef struct Sampler:
    # the distribution of classes in an inverted multi-index, given h
    int n_codewords  # of each of two codebooks
    int stride  # from a row of cell_weights to the next
    int width
    float** codewords
    const float* cell_weights
    const int64_t* cell_ptr
    const int32_t* members
    const double* cumulated
    const int32_t* cells
    const float* weights
    # what rows of cells weigh, up to and with each
    double* row_weights
    # scratch: what codewords give, less the greatest of each book, which add up to top, and exp of it; the sum
    # of that by weights over all cells; what is added so that weights alone decide now and then
    float* scores
    float* exponentials
    float top
    double total
    double even
    # what rows of cells sum up to, up to and with each, and the cells of a row, where they were asked for
    double* row_sums
    double* cell_sums
    char* summed

cdef inline double uniform_number(uint64_t number) noexcept nogil:
    """Between 0 and 1, by the number alone."""
    return (mix(number) >> 11) * (1.0 / 9007199254740992.0)

cdef int open_sampler(Sampler* s, index) except -1
cdef void close_sampler(Sampler* s) noexcept nogil
cdef void weigh(Sampler* s, const float* h) noexcept nogil
cdef int32_t draw(Sampler* s, double uniform) noexcept nogil
cdef double proba(Sampler* s, int32_t c) noexcept nogil
