cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t

from .ascent cimport Goal, Node

cdef int train_from_here(Node* node, double C, const Goal* goal, uint64_t seed, bint* done) noexcept nogil
cdef void see_children(Node* node, int arity, const float* before) noexcept nogil
cdef void write_guess(Node* node, int prior, double smoothing, float* weights, float* bias) noexcept nogil
cdef void* room_in(dict buffers, object name, Py_ssize_t size) except NULL

cdef class NodeTrainer:
    cdef const int64_t[::1] indptr, row_order, start, stop, leaf_stop, row_ptr
    cdef const int32_t[::1] indices, child_ptr, children
    cdef const float[::1] data, row_weights, square_norms
    # earlier weights, and which nodes had rows then
    cdef const int32_t[::1] old_features
    cdef const int64_t[::1] old_feature_ptr, old_line_ptr
    cdef const float[:, ::1] old_lines
    cdef const unsigned char[::1] had_rows
    cdef Py_ssize_t n_columns
    # the number of each of the columns among the features of a node, or -1
    cdef int32_t[::1] local_of
    # the rows of the node at hand, unless they are full
    cdef int32_t* copied_indices
    cdef float* copied_data
    # the number of features, if every row has a value of each
    cdef int64_t n_full
    cdef double smoothing
    cdef uint64_t seed
    cdef Goal goal
    cdef Node node
    cdef int32_t[::1] last_node  # that was counted and has each feature
    cdef dict buffers

    cdef int arity(self, int64_t v) noexcept nogil
    cdef int64_t end_of(self, int64_t v, int64_t child) noexcept nogil
    cdef Py_ssize_t count_entries(self, const int64_t* row_list, Py_ssize_t n) noexcept nogil
    cdef Py_ssize_t count_old(self, int64_t v) noexcept nogil
    cdef const float* old_bias(self, int64_t v) noexcept nogil
    cdef bint is_open(self, int64_t v, int64_t child) noexcept nogil
    cdef int32_t count_features_of(self, int64_t v) noexcept nogil
    @cython.final
    cdef int32_t number(self, int32_t f, int32_t n) noexcept nogil
    cdef void forget(self, int32_t n) noexcept nogil
    cdef void take_rows(self, int64_t v, const int64_t* row_list, Py_ssize_t n) noexcept nogil
    cdef int32_t copy_values(self, const int64_t* row_list, Py_ssize_t n) noexcept nogil
    @cython.final
    cdef void fetch_ahead(self, const int64_t* row_list, Py_ssize_t n) noexcept nogil
    cdef void copy_old_weights(self) noexcept nogil
    cdef void scale_guess(self, const float* weights, float scale) noexcept nogil
    cdef void add_guess_bias(self) noexcept nogil
    cdef void store(self, float* lines, int32_t* features) noexcept nogil
    cdef void take_children(self, int64_t v) noexcept nogil
    cdef int reserve(self, const int64_t[::1] nodes, const int64_t[::1] feature_ptr) except -1
    cdef int reserve_rows(self, Py_ssize_t n, Py_ssize_t n_entries, Py_ssize_t n_old) except -1
    cdef int reserve_numbers(self) except -1
    cdef int reserve_training(
        self, Py_ssize_t n, Py_ssize_t n_dual, Py_ssize_t n_weights, Py_ssize_t width
    ) except -1
    cdef int reserve_guess(self, Py_ssize_t n_weights, Py_ssize_t width) except -1
    cdef void* room(self, str name, Py_ssize_t size, Py_ssize_t itemsize) except NULL
