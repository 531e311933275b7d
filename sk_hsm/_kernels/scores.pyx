# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The scores of a fitted tree's nodes, whichever kind of weights it has. For other kernels only.

What they compute is specified by the twins of the kernels that use them.
"""
from libc.math cimport NAN
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from .packing cimport N_TAGS, bits_of_tag, find_entry, measure_entries, prefetch_bucket, prefetch_entries
from .vectors cimport dot

cdef extern from "packed.h" nogil:
    enum: FEW
    int chunk_bytes(int n, int bits)
    void unpack_chunk(float* out, const uint8_t* packed, int n, int bits)

cdef extern from "lines.h" nogil:
    enum: LINE
    float NO_CHILD
    int line_width(int arity)
    void prefetch(const float* address)
    void line_axpy(float* y, float a, const float* x)
    void row_logits(
        float* z, const float* bias, const float* weights, const int32_t* indices, const float* values, int64_t n, int width
    )
    void add_every_line(
        float* z, const float* weights, const int32_t* features, int64_t n, const float* values, uint32_t n_values, int width
    )

cdef extern from "softmax.h" nogil:
    float MISSING
    bint is_beyond(const float* z, const float* bias, int width)
    void log_softmax(double* log_p, const float* z, int width)
    void smoothed_log_softmax(double* log_p, double* u, const float* z, int width, double smoothing)

cdef extern from "ranks.h" nogil:
    int find_ranks(
        int32_t* ranks, float* found_values, const uint64_t* words, const int32_t* places, const float* values, int n,
        uint32_t last
    )

# features of packed weights that are looked up together
cdef enum:
    BLOCK = 64


cdef int open_model(Model* m, tree, weights, double smoothing) except -1:
    cdef const int32_t[::1] parents = tree.parents, positions = tree.positions
    cdef const int32_t[::1] child_ptr = tree.child_ptr, children = tree.children
    cdef int width
    m.n_inner = child_ptr.shape[0] - 1
    m.max_arity = tree.arity
    width = LINE * ((m.max_arity + LINE - 1) // LINE + 1)
    m.parents, m.positions = &parents[0], &positions[0]
    m.child_ptr = &child_ptr[0]
    m.children = &children[0] if children.shape[0] else NULL
    m.step, m.smoothing = weights.step, smoothing
    m.vectors = NULL
    m.features = NULL
    memset(&m.found, 0, sizeof(Found))
    if hasattr(weights, "vectors"):
        take_vectors(m, weights)
    elif m.step > 0:
        take_packed(m, weights)
    else:
        take_features(m, weights)
    m.logit = <float*>malloc(width * sizeof(float))
    m.log_p = <double*>malloc(width * sizeof(double))
    m.flat = <double*>malloc(width * sizeof(double))
    if m.logit == NULL or m.log_p == NULL or m.flat == NULL:
        close_model(m)
        raise MemoryError(f"no memory to score nodes of {m.max_arity} children")
    return 0


cdef int take_vectors(Model* m, weights) except -1:
    """Of NodeVectors."""
    cdef const float[:, ::1] vectors = weights.vectors
    cdef const float[::1] intercepts = weights.intercepts
    cdef const int64_t[::1] vector_ptr = weights.vector_ptr
    m.dim, m.vectors, m.intercepts, m.vector_ptr = (
        vectors.shape[1], &vectors[0, 0], &intercepts[0], &vector_ptr[0]
    )
    return 0


cdef int take_lines(Model* m, weights) except -1:
    """What NodeWeights and PackedWeights have in common."""
    cdef const float[:, ::1] lines = weights.lines
    cdef const int64_t[::1] line_ptr = weights.line_ptr
    m.lines = &lines[0, 0] if lines.shape[0] else NULL
    m.line_ptr = &line_ptr[0]
    return 0


cdef int take_features(Model* m, weights) except -1:
    """Of NodeWeights."""
    cdef const int64_t[::1] feature_ptr = weights.feature_ptr, word_ptr = weights.word_ptr
    cdef const int32_t[::1] features = weights.features
    cdef const uint64_t[::1] words = weights.words
    take_lines(m, weights)
    m.feature_ptr, m.word_ptr = &feature_ptr[0], &word_ptr[0]
    m.features = &features[0] if features.shape[0] else NULL
    m.words = &words[0] if words.shape[0] else NULL
    return 0


cdef int take_packed(Model* m, weights) except -1:
    """Of PackedWeights."""
    cdef const int64_t[::1] entry_ptr = weights.entry_ptr, bucket_ptr = weights.bucket_ptr
    cdef const uint8_t[::1] entries = weights.entries
    cdef const uint32_t[::1] buckets = weights.buckets
    cdef const int32_t[::1] shifts = weights.shifts
    take_lines(m, weights)
    m.packed.entries, m.packed.entry_ptr = &entries[0], &entry_ptr[0]
    m.packed.buckets = &buckets[0] if buckets.shape[0] else NULL
    m.packed.shifts = &shifts[0] if shifts.shape[0] else NULL
    m.packed.bucket_ptr, m.packed.id_bits = &bucket_ptr[0], weights.id_bits
    return 0


cdef void close_model(Model* m) noexcept nogil:
    free(m.logit)
    free(m.log_p)
    free(m.flat)
    free(m.found.places)
    free(m.found.values)
    free(m.found.starts)
    memset(&m.found, 0, sizeof(Found))
    m.logit = NULL
    m.log_p = NULL
    m.flat = NULL


cdef int start_row(Model* m, Query* x) noexcept nogil:
    """Make ready for the nodes of a row: what is found above the root are its features. -1 without memory."""
    if m.features == NULL:
        return 0
    m.found.n = 0
    if reserve_found(&m.found, x.n) < 0:
        return -1
    memcpy(m.found.places, x.indices, x.n * sizeof(int32_t))
    memcpy(m.found.values, x.data, x.n * sizeof(float))
    m.found.starts[0], m.found.starts[1], m.found.n = 0, x.n, 1
    return 0


cdef int reserve_found(Found* found, int64_t size) noexcept nogil:
    """Room for one more list of so many; -1 where memory runs out."""
    cdef int64_t needed = size + (found.starts[found.n] if found.n else 0), capacity = 2 * needed
    cdef void* grown
    if found.n + 2 > found.most:
        grown = realloc(found.starts, 2 * (found.n + 2) * sizeof(int64_t))
        if grown == NULL:
            return -1
        found.starts, found.most = <int64_t*>grown, 2 * (found.n + 2)
    if needed > found.capacity:
        grown = realloc(found.places, capacity * sizeof(int32_t))
        if grown == NULL:
            return -1
        found.places = <int32_t*>grown
        grown = realloc(found.values, capacity * sizeof(float))
        if grown == NULL:
            return -1
        found.values, found.capacity = <float*>grown, capacity
    return 0


cdef int find_features(Model* m, int node, int above, int n_lines) noexcept nogil:
    """The list of the node's features among those found above it, their lines on the way to the cache."""
    cdef Found* found = &m.found
    cdef int64_t first = found.starts[above], last = found.starts[above + 1], at, i
    cdef int64_t stride = n_lines * LINE
    cdef const float* lines = m.lines + LINE * m.line_ptr[node] + stride
    cdef const float* line
    cdef int n, c
    if reserve_found(found, last - first) < 0:
        return -1
    at = found.starts[found.n]
    n = find_ranks(
        found.places + at, found.values + at, m.words + m.word_ptr[node], found.places + first, found.values + first,
        <int>(last - first), <uint32_t>(m.feature_ptr[node + 1] - m.feature_ptr[node] - 1),
    )
    for i in range(at, at + n):
        line = lines + found.places[i] * stride
        prefetch(line)
        for c in range(1, n_lines):
            prefetch(line + c * LINE)
    found.n += 1
    found.starts[found.n] = at + n
    return found.n - 1


cdef void add_entries(
    Model* m, float* logit, int node, int arity, int n_lines, const int32_t* features, const float* values, int n
) noexcept nogil:
    """logit += the packed weights of a node times the values of at most BLOCK features.

    What is looked up is fetched into the cache for all features, before the next step for any.
    """
    cdef const uint8_t* entry
    cdef int64_t sizes[N_TAGS]
    cdef int i, tag
    measure_entries(arity, sizes)
    for i in range(n):
        prefetch_bucket(&m.packed, node, features[i])
    for i in range(n):
        prefetch_entries(&m.packed, node, features[i])
    for i in range(n):
        entry = find_entry(&m.packed, node, sizes, features[i], &tag)
        if entry == NULL:
            continue
        if tag < FEW:
            add_few(logit, arity, m.step * values[i], entry, tag + 1)
        else:
            add_all(logit, arity, n_lines, m.step * values[i], entry, bits_of_tag(tag))


cdef inline void add_few(float* logit, int arity, float a, const uint8_t* entry, int n) noexcept nogil:
    """logit += a times the integers of n children."""
    cdef int i
    for i in range(n):
        if entry[2 * i] < arity:
            logit[entry[2 * i]] += a * <int8_t>entry[2 * i + 1]


cdef inline void add_all(
    float* logit, int arity, int n_lines, float a, const uint8_t* entry, int bits
) noexcept nogil:
    cdef float[16] chunk
    cdef int c, size
    for c in range(n_lines):
        size = min(LINE, arity - c * LINE)
        unpack_chunk(chunk, entry, size, bits)
        line_axpy(logit + c * LINE, a, chunk)
        entry += chunk_bytes(size, bits)


cdef int children_log_proba(Model* m, Query* x, int node, int above) noexcept nogil:
    """Fill m.log_p with log P(child | node, x).

    `above` is 0 for the root, and for other nodes what this returned for their parents: the number of the list
    of features found there. -1 where memory runs out.
    """
    cdef int arity = m.child_ptr[node + 1] - m.child_ptr[node], width = line_width(arity)
    if m.vectors != NULL:
        multiply_vectors(m, x, node, arity)
    elif m.step > 0:
        add_up_entries(m, x, node, arity)
    else:
        above = add_up_lines(m, x, node, arity, above)
    if m.smoothing > 0:
        smoothed_log_softmax(m.log_p, m.flat, m.logit, width, m.smoothing)
    else:
        log_softmax(m.log_p, m.logit, width)
    return above


cdef void multiply_vectors(Model* m, Query* x, int node, int arity) noexcept nogil:
    """Fill m.logit with the products of the row and a node's vectors; beyond float32, in float64."""
    cdef int64_t first = m.vector_ptr[node]
    cdef int n_vectors = m.vector_ptr[node + 1] - first, c, i
    cdef int alone = arity - n_vectors
    cdef const float* v
    cdef double z
    m.logit[0] = 0
    for c in range(arity, line_width(arity)):
        m.logit[c] = NO_CHILD
    for c in range(n_vectors):
        v = m.vectors + (first + c) * m.dim
        if x.n == m.dim:
            z = m.intercepts[first + c] + dot(x.data, v, m.dim)
        else:
            z = NAN
        if not (-1e28 <= z <= 1e28):
            z = m.intercepts[first + c]
            for i in range(x.n):
                z += <double>x.data[i] * v[x.indices[i]]
            z = min(max(z, -1e28), 1e28)
        m.logit[alone + c] = z


cdef int add_up_lines(Model* m, Query* x, int node, int arity, int above) noexcept nogil:
    """Fill m.logit with the sum of the lines of the row's features; the list of those found."""
    cdef int n_lines = (arity + LINE - 1) // LINE, here = above
    cdef int64_t first = m.feature_ptr[node], n_features = m.feature_ptr[node + 1] - first, at
    cdef const float* bias = m.lines + LINE * m.line_ptr[node]
    cdef const float* lines = bias + LINE * n_lines
    # a row of all features, of this node and so of those below: none has to be looked up
    cdef bint is_full = n_features == 0 or (x.n > 0 and x.indices[x.n - 1] == x.n - 1 and n_features <= x.n)
    if is_full:
        memcpy(m.logit, bias, n_lines * LINE * sizeof(float))
        add_every_line(m.logit, lines, m.features + first, n_features, x.data, x.n, LINE * n_lines)
    else:
        here = find_features(m, node, above, n_lines)
        if here < 0:
            return -1
        at = m.found.starts[here]
        row_logits(
            m.logit, bias, lines, m.found.places + at, m.found.values + at, m.found.starts[here + 1] - at, LINE * n_lines
        )
    if is_beyond(m.logit, bias, LINE * n_lines):
        if is_full:
            widen_every_line(m, x, node, arity, n_lines)
        else:
            widen_found_lines(m, node, here, arity, n_lines)
        clip_logits(m, bias, arity)
    return here


cdef void add_up_entries(Model* m, Query* x, int node, int arity) noexcept nogil:
    """Fill m.logit with the sum of the entries of the row's features."""
    cdef int n_lines = (arity + LINE - 1) // LINE, block, i, c
    cdef const float* bias = m.lines + LINE * m.line_ptr[node]
    memcpy(m.logit, bias, n_lines * LINE * sizeof(float))
    for block in range((x.n + BLOCK - 1) // BLOCK):
        i = block * BLOCK
        add_entries(m, m.logit, node, arity, n_lines, x.indices + i, x.data + i, min(BLOCK, x.n - i))
    if is_beyond(m.logit, bias, LINE * n_lines):
        widen_entries(m, x, node, arity, n_lines)
        clip_logits(m, bias, arity)
    for c in range(arity, LINE * n_lines):  # what chunks have behind their children means nothing
        m.logit[c] = NO_CHILD


# Logits beyond float32 are summed in float64, in m.log_p, and cut to 1e28; a missing child stays below.


cdef inline void add_wide(double* z, double value, const float* line, int arity) noexcept nogil:
    cdef int c
    for c in range(arity):
        z[c] += value * line[c]


cdef void start_wide(Model* m, const float* bias, int arity) noexcept nogil:
    cdef int c
    for c in range(arity):
        m.log_p[c] = bias[c]


cdef void clip_logits(Model* m, const float* bias, int arity) noexcept nogil:
    cdef int c
    cdef double z
    for c in range(arity):
        z = m.log_p[c]
        m.logit[c] = bias[c] if bias[c] < MISSING else min(max(z, -1e28), 1e28)


cdef void widen_every_line(Model* m, Query* x, int node, int arity, int n_lines) noexcept nogil:
    cdef const float* line = m.lines + LINE * m.line_ptr[node]
    cdef int64_t j
    start_wide(m, line, arity)
    for j in range(m.feature_ptr[node], m.feature_ptr[node + 1]):
        line += LINE * n_lines
        if <uint32_t>m.features[j] < <uint32_t>x.n:
            add_wide(m.log_p, x.data[m.features[j]], line, arity)


cdef void widen_found_lines(Model* m, int node, int here, int arity, int n_lines) noexcept nogil:
    cdef const float* bias = m.lines + LINE * m.line_ptr[node]
    cdef int64_t i
    start_wide(m, bias, arity)
    for i in range(m.found.starts[here], m.found.starts[here + 1]):
        add_wide(m.log_p, m.found.values[i], bias + (m.found.places[i] + 1) * <int64_t>n_lines * LINE, arity)


cdef void widen_entries(Model* m, Query* x, int node, int arity, int n_lines) noexcept nogil:
    cdef float one = 1
    cdef int i
    start_wide(m, m.lines + LINE * m.line_ptr[node], arity)
    for i in range(x.n):
        memset(m.logit, 0, n_lines * LINE * sizeof(float))
        add_entries(m, m.logit, node, arity, n_lines, x.indices + i, &one, 1)
        add_wide(m.log_p, x.data[i], m.logit, arity)
