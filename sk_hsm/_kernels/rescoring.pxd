from libc.stdint cimport int32_t, int64_t

from .answers cimport Answers
from .scores cimport Query

cdef struct Centroids:
    # without `features`, or if they `are_full`, every class has all of them
    const int64_t* starts
    const int32_t* features
    const float* values
    const float* biases
    const float* feature_weights
    int64_t n_features
    bint by_length
    bint are_full

cdef struct Row:
    # values are to be multiplied by `scale`; if centroids are full they are of all features
    const int32_t* indices
    float* values
    int64_t n
    double scale

cdef struct Rescorer:
    # a Rescoring, and memory for a row
    Centroids centroids
    Row row
    double power
    double weight

cdef int open_rescorer(Rescorer* r, rescoring, const int64_t[::1] indptr) except -1
cdef void close_rescorer(Rescorer* r) noexcept nogil
cdef int settle(Rescorer* r, Query* x, Answers* answers) noexcept nogil
