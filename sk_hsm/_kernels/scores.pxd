from libc.stdint cimport int32_t, int64_t, uint64_t

from .packing cimport Packed

cdef struct Found:
    # the features of a row that opened nodes have, one list after the other: their places among those of the
    # node, see NodeWeights, and their values; the first list is the row itself, and features are places there
    int32_t* places
    float* values
    int64_t capacity
    int64_t* starts
    int n
    int most

cdef struct Model:
    int n_inner
    int max_arity
    const int32_t* parents
    const int32_t* positions
    const int32_t* child_ptr
    const int32_t* children
    # biases; and if weights are not packed in steps of this size, their lines and features, too
    float step
    Packed packed
    const float* lines
    const int64_t* line_ptr
    const int32_t* features
    const int64_t* feature_ptr
    const uint64_t* words
    const int64_t* word_ptr
    Found found
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
cdef int start_row(Model* m, Query* x) noexcept nogil
cdef int children_log_proba(Model* m, Query* x, int node, int above) noexcept nogil
