from libc.stdint cimport int32_t, int64_t

cdef enum:
    NO_PRIOR = 0
    NAIVE_BAYES = 1
    CENTROID = 2

cdef struct Rows:
    # the rows of one node over its own features, CSR; each belongs to a child
    Py_ssize_t n
    int64_t* indptr
    int32_t* indices
    float* data
    int64_t* child
    float* weight
    float* square_norm

cdef void guess(
    const Rows* rows, Py_ssize_t n_features, int width, int prior, double smoothing,
    double* sums, double* totals, float* share, float* weights, float* bias,
) noexcept nogil
