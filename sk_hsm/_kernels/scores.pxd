from libc.stdint cimport int32_t, int64_t, uint32_t

from .packing cimport Packed

cdef struct Model:
    int n_inner
    int max_arity
    const int32_t* parents
    const int32_t* positions
    const int32_t* child_ptr
    const int32_t* children
    # biases; and if weights are not packed in steps of this size, their lines and keys, too
    float step
    Packed packed
    const float* lines
    const int64_t* line_ptr
    const uint32_t* keys
    const int64_t* key_ptr
    const int32_t* buckets
    const int64_t* bucket_ptr
    const int32_t* shifts
    # or, if there are any, dense vectors of so many features
    const float* vectors
    const float* intercepts
    const int64_t* vector_ptr
    int dim
    # the share of a node's probabilities that are those of its softmax at a higher temperature
    double smoothing
    # scratch: logits of one node's children, log-probabilities and those of a higher temperature
    float* logit
    double* log_p
    double* flat

cdef struct Query:
    const int32_t* indices
    const float* data
    int n

cdef int open_model(Model* m, tree, weights, double smoothing) except -1
cdef void close_model(Model* m) noexcept nogil
cdef void children_log_proba(Model* m, Query* x, int node) noexcept nogil
