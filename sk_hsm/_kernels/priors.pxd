from libc.stdint cimport int32_t, int64_t

cdef enum:
    NO_PRIOR = 0
    NAIVE_BAYES = 1
    CENTROID = 2
    N_PRIORS = 3

cdef struct Rows:
    # the rows of one node over its own features; each belongs to a child
    Py_ssize_t n
    # the number of features, if each row has a value of every one: all then share the same indices; or 0
    int64_t n_full
    # where each row's values begin, and end where the next begin; of full rows only the first n places
    int64_t* indptr
    const int32_t* indices
    const float* data
    int64_t* child
    float* weight
    float* square_norm

cdef inline int64_t row_size(const Rows* rows, Py_ssize_t i) noexcept nogil:
    return rows.n_full if rows.n_full else rows.indptr[i + 1] - rows.indptr[i]


cdef inline const int32_t* row_indices(const Rows* rows, Py_ssize_t i) noexcept nogil:
    return rows.indices if rows.n_full else rows.indices + rows.indptr[i]


cdef inline const float* row_data(const Rows* rows, Py_ssize_t i) noexcept nogil:
    return rows.data + rows.indptr[i]


cdef void guess(
    const Rows* rows, Py_ssize_t n_features, int width, int prior, double smoothing,
    double* sums, double* totals, float* share, float* weights, float* bias,
) noexcept nogil
