from libc.stdint cimport int32_t, int64_t, uint64_t

from .priors cimport Rows

cdef struct Goal:
    # what training is to reach
    bint fit_intercept
    double tol
    int max_iter


cdef struct Node:
    # the node at hand: its rows, the features they have, and what is trained
    int64_t v
    Rows rows
    Py_ssize_t n_features
    int width
    int n_seen
    int32_t* features
    # which of them each feature of earlier weights is
    int32_t* old
    float* weights
    float* bias
    # the prior of scale 1, where it is kept
    float* guess
    float* guess_bias
    # scratch: a place a row; two places, and sums by child, a feature; shares, totals and z, p and step
    float* costs
    float* dual
    int64_t* active
    uint64_t* order
    double* sums
    float* share
    double* totals
    float* z

cdef int ascend(Node* node, const Goal* goal, uint64_t seed, double* gap, bint* done) noexcept nogil
