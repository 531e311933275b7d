# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that train nodes: take a node's rows, start from a prior or from earlier weights, ascend, store.

Their specification is the class of the same name in ``reference``.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

import numpy as np

from .ascent cimport Goal, Node, ascend
from .priors cimport NO_PRIOR, Rows, guess

cdef extern from "lines.h" nogil:
    float NO_CHILD
    int line_width(int arity)
    void prefetch(const float* address)

# rows that are fetched ahead of the one that is read
cdef enum:
    AHEAD = 4


cdef int train_from_here(Node* node, double C, const Goal* goal, uint64_t seed, bint* done) noexcept nogil:
    """Set costs and dual points, and ascend; return the number of passes."""
    cdef Py_ssize_t i
    cdef double gap
    # binary LogisticRegression penalises w, which here is split into w / 2 and -w / 2
    if node.n_seen == 2:
        C = C / 2
    memset(node.dual, 0, node.rows.n * node.width * sizeof(float))
    for i in range(node.rows.n):
        node.costs[i] = <float>(C * node.rows.weight[i])
        node.dual[i * node.width + node.rows.child[i]] = 1
    return ascend(node, goal, seed + node.v, &gap, done)


cdef void see_children(Node* node, int arity, const float* before) noexcept nogil:
    """The bias to start from: as before, if not NULL, or 0 for children with rows; for all where there are none."""
    cdef Py_ssize_t i
    cdef int c
    cdef float lowest = 0
    node.n_seen = 0
    for c in range(node.width):
        node.bias[c] = NO_CHILD
        if before != NULL and c < arity and before[c] > NO_CHILD:
            node.bias[c] = before[c]
            node.n_seen += 1
            lowest = before[c] if node.n_seen == 1 else min(lowest, before[c])
        elif before == NULL and c < arity and node.rows.n == 0:
            node.bias[c] = 0
    # a child that is new has no more than any other
    for i in range(node.rows.n):
        if node.bias[node.rows.child[i]] == NO_CHILD:
            node.bias[node.rows.child[i]] = lowest
            node.n_seen += 1


cdef void write_guess(Node* node, int prior, double smoothing, float* weights, float* bias) noexcept nogil:
    """The prior of scale 1."""
    memset(bias, 0, node.width * sizeof(float))
    if prior == NO_PRIOR:
        memset(weights, 0, node.n_features * node.width * sizeof(float))
    else:
        guess(
            &node.rows, node.n_features, node.width, prior, smoothing,
            node.sums, node.totals, node.share, weights, bias,
        )


cdef const uint64_t* sorted_features(
    const int32_t* features, Py_ssize_t n, Py_ssize_t n_columns, uint64_t* items
) noexcept nogil:
    """Features, ascending, each with its place in the lower half: by digits of eight bits, the last first.

    There is room for 2 n items.
    """
    cdef uint64_t* others = items + n
    cdef Py_ssize_t ends[256]
    cdef Py_ssize_t i, digit, total
    cdef int shift = 32
    for i in range(n):
        items[i] = <uint64_t>features[i] << 32 | <uint64_t>i
    while <uint64_t>(n_columns - 1) >> (shift - 32):
        memset(ends, 0, sizeof(ends))
        for i in range(n):
            ends[items[i] >> shift & 255] += 1
        total = 0
        for digit in range(256):
            total += ends[digit]
            ends[digit] = total
        for i in range(n - 1, -1, -1):
            digit = items[i] >> shift & 255
            ends[digit] -= 1
            others[ends[digit]] = items[i]
        items, others = others, items
        shift += 8
    return items


cdef void* room_in(dict buffers, object name, Py_ssize_t size) except NULL:
    """Memory of the name, at least so many bytes, from the start of a cache line."""
    cdef unsigned char[::1] buffer
    if name not in buffers or buffers[name].shape[0] < size + 64:
        buffers[name] = np.empty(size + 64, np.uint8)
    buffer = buffers[name]
    return <void*>((<uintptr_t>&buffer[0] + 63) & ~<uintptr_t>63)


cdef class NodeTrainer:
    """Trains nodes one after the other, in memory of its own: each thread needs one."""

    def __init__(self, problem):
        tree = problem.tree
        self.indptr, self.indices, self.data = problem.csr
        self.row_weights, self.square_norms = problem.row_weights, problem.square_norms
        self.row_order, self.row_ptr = problem.row_order, problem.row_ptr
        self.start, self.stop = problem.row_ranges
        self.leaf_stop = problem.leaf_ranges[1]
        self.child_ptr, self.children = tree.child_ptr, tree.children
        before = problem.before
        self.old_features, self.old_lines = before.features, before.lines
        self.old_feature_ptr, self.old_line_ptr = before.feature_ptr, before.line_ptr
        self.had_rows = problem.had_rows
        self.smoothing, self.seed = problem.smoothing, problem.seed
        self.goal = Goal(problem.fit_intercept, problem.tol, problem.max_iter)
        n, d = problem.X.shape
        self.n_full = d if self.indices.shape[0] == n * d else 0
        self.n_columns, self.local_of = d, np.empty(0, np.int32)
        self.buffers = {}

    def count_features(self, const int64_t[::1] nodes, int64_t[::1] out):
        cdef Py_ssize_t k
        self.last_node = np.full(self.n_columns, -1, np.int32)
        with nogil:
            for k in range(nodes.shape[0]):
                out[nodes[k]] = self.count_features_of(nodes[k])

    def train(
        self, const int64_t[::1] nodes, penalties, weights, int32_t[::1] n_iter, unsigned char[::1] converged
    ):
        cdef const double[::1] C = penalties.C, scale = penalties.scale
        cdef const int32_t[::1] prior = penalties.code
        cdef const int64_t[::1] line_ptr = weights.line_ptr, feature_ptr = weights.feature_ptr
        cdef float[:, ::1] lines = weights.lines
        cdef int32_t[::1] features = weights.features
        cdef Node* node = &self.node
        cdef int64_t k, v
        cdef bint done
        self.reserve(nodes, feature_ptr)
        with nogil:
            for k in range(nodes.shape[0]):
                v = nodes[k]
                self.take_rows(v, &self.row_order[0] + self.start[v], self.stop[v] - self.start[v])
                self.take_children(v)
                see_children(node, self.arity(v), self.old_bias(v))
                n_iter[v], done = 0, True
                if node.n_seen < 2:
                    node.n_features = 0
                elif self.is_open(v, -1):
                    self.copy_old_weights()
                else:
                    write_guess(node, prior[v], self.smoothing, node.weights, node.guess_bias)
                    self.scale_guess(node.weights, scale[v])
                if node.n_seen > 1 and node.rows.n > 0:
                    n_iter[v] = train_from_here(node, C[v], &self.goal, self.seed, &done)
                converged[v] = done
                self.store(&lines[line_ptr[v], 0], &features[0] + feature_ptr[v])

    # -- the node at hand ---------------------------------------------------

    cdef int arity(self, int64_t v) noexcept nogil:
        return self.child_ptr[v + 1] - self.child_ptr[v]

    cdef int64_t end_of(self, int64_t v, int64_t child) noexcept nogil:
        """Where the rows of a child of node v end in row_order."""
        return self.row_ptr[self.leaf_stop[self.children[self.child_ptr[v] + child]]]

    cdef const float* old_bias(self, int64_t v) noexcept nogil:
        """NULL where no row has come to node v before."""
        return &self.old_lines[self.old_line_ptr[v], 0] if self.had_rows[v] else NULL

    cdef bint is_open(self, int64_t v, int64_t child) noexcept nogil:
        """Whether a child of node v other than this one had rows before; for child -1, two of them."""
        cdef const float* bias = self.old_bias(v)
        cdef int64_t c
        if bias != NULL:
            for c in range(self.arity(v)):
                if bias[c] > NO_CHILD and c != child:
                    if child >= 0:
                        return True
                    child = c
        return False

    cdef int32_t count_features_of(self, int64_t v) noexcept nogil:
        """Distinct features of node v, now and before; none, where only one child has had rows."""
        cdef int64_t first = self.start[v], last = self.stop[v], i, j, child = -1
        cdef int32_t* last_node = &self.last_node[0]
        cdef int32_t n = 0
        if first < last:
            child = 0
            while self.end_of(v, child) == first:
                child += 1
        if (first == last or self.end_of(v, child) == last) and not self.is_open(v, child):
            return 0
        if self.n_full and first < last:
            return self.n_full
        for j in range(self.old_feature_ptr[v], self.old_feature_ptr[v + 1]):
            n += last_node[self.old_features[j]] != v
            last_node[self.old_features[j]] = <int32_t>v
        for i in range(first, last):
            self.fetch_ahead(&self.row_order[0] + i, last - i)
            for j in range(self.indptr[self.row_order[i]], self.indptr[self.row_order[i] + 1]):
                n += last_node[self.indices[j]] != v
                last_node[self.indices[j]] = <int32_t>v
        return n

    @cython.final
    cdef int32_t number(self, int32_t f, int32_t n) noexcept nogil:
        """Number feature f among the n of the node, if it is new; return how many there are then."""
        if self.local_of[f] >= 0:
            return n
        self.local_of[f] = n
        self.node.features[n] = f
        return n + 1

    cdef void forget(self, int32_t n) noexcept nogil:
        """The numbers of the node's features."""
        cdef int32_t i
        for i in range(n):
            self.local_of[self.node.features[i]] = -1

    cdef void take_rows(self, int64_t v, const int64_t* row_list, Py_ssize_t n) noexcept nogil:
        """The rows of node v, their features numbered as they appear; old ones come last."""
        cdef Node* node = &self.node
        cdef Rows* rows = &node.rows
        cdef Py_ssize_t i
        cdef int64_t j, first = self.old_feature_ptr[v]
        cdef int32_t n_features = 0
        node.v, node.width, rows.n_full = v, line_width(self.arity(v)), self.n_full if n else 0
        for i in range(n):
            rows.weight[i], rows.square_norm[i] = self.row_weights[row_list[i]], self.square_norms[row_list[i]]
        if rows.n_full:
            rows.indices, rows.data = &self.indices[0], &self.data[0]
            for i in range(n):
                rows.indptr[i] = self.indptr[row_list[i]]
            for j in range(rows.n_full):
                n_features = self.number(j, n_features)
        else:
            n_features = self.copy_values(row_list, n)
        for j in range(first, self.old_feature_ptr[v + 1]):
            n_features = self.number(self.old_features[j], n_features)
            node.old[j - first] = self.local_of[self.old_features[j]]
        self.forget(n_features)
        rows.n, node.n_features = n, n_features

    cdef void take_children(self, int64_t v) noexcept nogil:
        """Those of all rows of node v, which are sorted by child."""
        cdef int64_t child, i, at = 0
        for child in range(self.arity(v)):
            for i in range(at, self.end_of(v, child) - self.start[v]):
                self.node.rows.child[i] = child
            at = self.end_of(v, child) - self.start[v]

    cdef int32_t copy_values(self, const int64_t* row_list, Py_ssize_t n) noexcept nogil:
        """Copy these rows, numbering their features as they appear; return how many there are."""
        cdef Rows* rows = &self.node.rows
        cdef Py_ssize_t i
        cdef int64_t j, at = 0
        cdef int32_t n_features = 0
        rows.indices, rows.data = self.copied_indices, self.copied_data
        for i in range(n):
            rows.indptr[i] = at
            self.fetch_ahead(row_list + i, n - i)
            for j in range(self.indptr[row_list[i]], self.indptr[row_list[i] + 1]):
                n_features = self.number(self.indices[j], n_features)
                self.copied_indices[at] = self.local_of[self.indices[j]]
                self.copied_data[at] = self.data[j]
                at += 1
        rows.indptr[n] = at
        return n_features

    @cython.final
    cdef void fetch_ahead(self, const int64_t* row_list, Py_ssize_t n) noexcept nogil:
        """Where the first of n rows is read, fetch what is there of later ones into the cache."""
        cdef int64_t j
        if n > 2 * AHEAD:
            prefetch(<const float*>(&self.indptr[0] + row_list[2 * AHEAD]))
        if n > AHEAD:
            for j in range(self.indptr[row_list[AHEAD]], self.indptr[row_list[AHEAD] + 1], 16):
                prefetch(<const float*>(&self.indices[0] + j))
                prefetch(&self.data[0] + j)

    cdef void copy_old_weights(self) noexcept nogil:
        """Start from them; from zero for features that are new."""
        cdef Node* node = &self.node
        cdef int64_t n = self.old_feature_ptr[node.v + 1] - self.old_feature_ptr[node.v], j
        cdef const float* lines = &self.old_lines[self.old_line_ptr[node.v], 0] + node.width
        memset(node.weights, 0, node.n_features * node.width * sizeof(float))
        for j in range(n):
            memcpy(node.weights + node.old[j] * <int64_t>node.width, lines + j * node.width, node.width * sizeof(float))

    cdef void scale_guess(self, const float* weights, float scale) noexcept nogil:
        """Start from the guess, its weights times scale."""
        cdef Node* node = &self.node
        cdef Py_ssize_t i
        for i in range(node.n_features * node.width):
            node.weights[i] = scale * weights[i]
        self.add_guess_bias()

    cdef void add_guess_bias(self) noexcept nogil:
        cdef int c
        if self.goal.fit_intercept:
            for c in range(self.node.width):
                self.node.bias[c] += self.node.guess_bias[c]

    cdef void store(self, float* lines, int32_t* features) noexcept nogil:
        """Write bias, features, ascending, and their weights."""
        cdef Node* node = &self.node
        cdef Py_ssize_t i
        cdef int width = node.width
        cdef const uint64_t* items = sorted_features(node.features, node.n_features, self.n_columns, node.order)
        memcpy(lines, node.bias, width * sizeof(float))
        for i in range(node.n_features):
            features[i] = <int32_t>(items[i] >> 32)
            memcpy(lines + (i + 1) * width, node.weights + <uint32_t>items[i] * <int64_t>width, width * sizeof(float))

    # -- memory -------------------------------------------------------------

    cdef Py_ssize_t count_entries(self, const int64_t* row_list, Py_ssize_t n) noexcept nogil:
        """The values of these rows."""
        cdef Py_ssize_t i, n_entries = 0
        for i in range(n):
            n_entries += self.indptr[row_list[i] + 1] - self.indptr[row_list[i]]
        return n_entries

    cdef Py_ssize_t count_old(self, int64_t v) noexcept nogil:
        return self.old_feature_ptr[v + 1] - self.old_feature_ptr[v]

    cdef int reserve(self, const int64_t[::1] nodes, const int64_t[::1] feature_ptr) except -1:
        """Room for each of these nodes."""
        cdef Py_ssize_t n_rows = 0, n_entries = 0, n_old = 0, n_dual = 0, n_features = 0, n_weights = 0, width = 0
        cdef Py_ssize_t n, f, k, here
        cdef int64_t v
        for k in range(nodes.shape[0]):
            v = nodes[k]
            n, here = self.stop[v] - self.start[v], line_width(self.arity(v))
            n_rows, n_dual, width = max(n_rows, n), max(n_dual, n * here), max(width, here)
            n_entries = max(n_entries, self.count_entries(&self.row_order[0] + self.start[v], n))
            n_old = max(n_old, self.count_old(v))
            f = feature_ptr[v + 1] - feature_ptr[v]
            n_features, n_weights = max(n_features, f), max(n_weights, f * here)
        self.reserve_rows(n_rows, n_entries, n_old)
        self.node.order = <uint64_t*>self.room("order", 2 * n_features, sizeof(uint64_t))
        return self.reserve_training(n_rows, n_dual, n_weights, width)

    cdef int reserve_rows(self, Py_ssize_t n, Py_ssize_t n_entries, Py_ssize_t n_old) except -1:
        """Room for as many rows, values of them and old features."""
        cdef Node* node = &self.node
        self.reserve_numbers()
        node.old = <int32_t*>self.room("old", n_old, sizeof(int32_t))
        node.rows.indptr = <int64_t*>self.room("indptr", n + 1, sizeof(int64_t))
        if not self.n_full:
            self.copied_indices = <int32_t*>self.room("indices", n_entries, sizeof(int32_t))
            self.copied_data = <float*>self.room("data", n_entries, sizeof(float))
        node.rows.child = <int64_t*>self.room("child", n, sizeof(int64_t))
        node.rows.weight = <float*>self.room("row_weights", n, sizeof(float))
        node.rows.square_norm = <float*>self.room("square_norms", n, sizeof(float))
        node.features = <int32_t*>self.room("features", min(n_entries + n_old, self.n_columns), sizeof(int32_t))
        return 0

    cdef int reserve_numbers(self) except -1:
        if self.local_of.shape[0] == 0:
            self.local_of = np.full(self.n_columns, -1, np.int32)
        return 0

    cdef int reserve_training(
        self, Py_ssize_t n, Py_ssize_t n_dual, Py_ssize_t n_weights, Py_ssize_t width
    ) except -1:
        """Room for training with n rows, so many dual coordinates and weights, from a guess of its own."""
        cdef Node* node = &self.node
        node.costs = <float*>self.room("costs", n, sizeof(float))
        node.dual = <float*>self.room("dual", n_dual, sizeof(float))
        node.active = <int64_t*>self.room("active", n, sizeof(int64_t))
        node.weights = <float*>self.room("weights", n_weights, sizeof(float))
        node.bias = <float*>self.room("bias", width, sizeof(float))
        node.guess_bias = <float*>self.room("guess_bias", width, sizeof(float))
        node.z = <float*>self.room("z", 3 * width, sizeof(float))
        return self.reserve_guess(n_weights, width)

    cdef int reserve_guess(self, Py_ssize_t n_weights, Py_ssize_t width) except -1:
        """Scratch for it."""
        cdef Node* node = &self.node
        node.sums = <double*>self.room("sums", n_weights, sizeof(double))
        node.share = <float*>self.room("share", 2 * width, sizeof(float))
        node.totals = <double*>self.room("totals", width, sizeof(double))
        return 0

    cdef void* room(self, str name, Py_ssize_t size, Py_ssize_t itemsize) except NULL:
        return room_in(self.buffers, name, size * itemsize)
