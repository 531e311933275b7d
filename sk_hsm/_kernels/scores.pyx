# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The scores of a fitted tree's nodes, whichever kind of weights it has. For other kernels only.

What they compute is specified by the twins of the kernels that use them.
"""
from libc.math cimport INFINITY, NAN, exp, log
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from .packing cimport N_TAGS, bits_of_tag, find_entry, measure_entries, prefetch_bucket, prefetch_entries
from .vectors cimport dot

cdef extern from "packed.h" nogil:
    enum: FEW
    int chunk_bytes(int n, int bits)
    void unpack_chunk(float* out, const uint8_t* packed, int n, int bits)

cdef extern from "lines.h" nogil:
    enum: LINE
    uint32_t HASH_FACTOR
    void prefetch(const float* address)
    void line_axpy(float* y, float a, const float* x)
    void add_keyed_lines(
        float* z, const float* weights, const uint32_t* keys, int64_t n, const float* values, uint32_t n_values, int width
    )

# features that are looked up together
cdef enum:
    BLOCK = 64

# a logit of a child that does not exist, or has no rows, is -1e30
cdef double NO_CHILD = -1e29


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
    if hasattr(weights, "vectors"):
        take_vectors(m, weights)
    elif m.step > 0:
        take_packed(m, weights)
    else:
        take_keys(m, weights)
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


cdef int take_keys(Model* m, weights) except -1:
    """Of NodeWeights."""
    cdef const int64_t[::1] key_ptr = weights.key_ptr, bucket_ptr = weights.bucket_ptr
    cdef const uint32_t[::1] keys = weights.keys
    cdef const int32_t[::1] buckets = weights.buckets, shifts = weights.shifts
    take_lines(m, weights)
    m.key_ptr, m.bucket_ptr = &key_ptr[0], &bucket_ptr[0]
    m.keys = &keys[0] if keys.shape[0] else NULL
    m.buckets = &buckets[0] if buckets.shape[0] else NULL
    m.shifts = &shifts[0] if shifts.shape[0] else NULL
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
    m.logit = NULL
    m.log_p = NULL
    m.flat = NULL


cdef void add_lines(
    Model* m, float* logit, int node, int n_lines, const int32_t* features, const float* values, int n
) noexcept nogil:
    """logit += the weights of a node times the values of at most BLOCK features.

    What is looked up is fetched into the cache for all features, before the next step for any.
    """
    cdef const int32_t* buckets = m.buckets + m.bucket_ptr[node]
    cdef const uint32_t* keys = m.keys + m.key_ptr[node]
    cdef const float* lines = m.lines + LINE * (m.line_ptr[node] + n_lines)
    cdef const float* line[BLOCK]
    cdef uint32_t key[BLOCK]
    cdef int64_t bucket[BLOCK]
    cdef int shift = m.shifts[node], i, c
    cdef int32_t at
    for i in range(n):
        key[i] = <uint32_t>features[i] * HASH_FACTOR
        bucket[i] = <int64_t>key[i] >> shift
        prefetch(<const float*>(buckets + bucket[i]))
    for i in range(n):
        prefetch(<const float*>(keys + buckets[bucket[i]]))
    for i in range(n):
        line[i] = NULL
        for at in range(buckets[bucket[i]], buckets[bucket[i] + 1]):
            if keys[at] == key[i]:
                line[i] = lines + <int64_t>at * n_lines * LINE
                prefetch(line[i])
                break
    for i in range(n):
        if line[i] != NULL:
            for c in range(n_lines):
                line_axpy(logit + c * LINE, values[i], line[i] + c * LINE)


cdef void add_entries(
    Model* m, float* logit, int node, int arity, int n_lines, const int32_t* features, const float* values, int n
) noexcept nogil:
    """add_lines, of packed weights."""
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


cdef void add_weights(
    Model* m, float* logit, int node, int arity, int n_lines, const int32_t* features, const float* values, int n
) noexcept nogil:
    """logit += the weights of a node times the values of n features."""
    cdef int block, first, size
    for block in range((n + BLOCK - 1) // BLOCK):
        first, size = block * BLOCK, min(BLOCK, n - block * BLOCK)
        if m.step > 0:
            add_entries(m, logit, node, arity, n_lines, features + first, values + first, size)
        else:
            add_lines(m, logit, node, n_lines, features + first, values + first, size)


cdef void children_log_proba(Model* m, Query* x, int node) noexcept nogil:
    """Fill m.log_p with log P(child | node, x)."""
    cdef int arity = m.child_ptr[node + 1] - m.child_ptr[node], c
    cdef double top = -INFINITY
    if m.vectors != NULL:
        multiply_vectors(m, x, node, arity)
    else:
        add_up_lines(m, x, node, arity)
    for c in range(arity):
        m.log_p[c] = m.logit[c]
        top = max(top, m.log_p[c])
    for c in range(arity):
        m.log_p[c] -= top
    if m.smoothing > 0:
        normalise_smoothed(m, arity)
    else:
        normalise(m, arity)
    for c in range(arity):
        if not m.logit[c] - top > NO_CHILD / 2:
            m.log_p[c] = -INFINITY


cdef void normalise(Model* m, int arity) noexcept nogil:
    """Make the logarithms of a softmax of the logits in m.log_p, the largest of which is 0."""
    cdef double total = 0
    cdef int c
    for c in range(arity):
        total += exp(m.log_p[c])
    total = log(total)
    for c in range(arity):
        m.log_p[c] -= total


cdef void normalise_smoothed(Model* m, int arity) noexcept nogil:
    """normalise, with a share s of the probabilities from a higher temperature T = 3.

    With u = exp(z / T), (1 - s) u^T / total + s u / flat is s u / flat times 1 + ratio * u^(T - 1).
    """
    cdef double total = 0, flat = 0, ratio, u
    cdef int c
    for c in range(arity):
        u = m.flat[c] = exp(m.log_p[c] / 3)
        flat += u
        total += u * u * u
    ratio = (1 / m.smoothing - 1) * flat / total
    flat = log(m.smoothing / flat)
    for c in range(arity):
        m.log_p[c] = min(flat + m.log_p[c] / 3 + log(1 + ratio * m.flat[c] * m.flat[c]), 0.0)


cdef void multiply_vectors(Model* m, Query* x, int node, int arity) noexcept nogil:
    """Fill m.logit with the products of the row and a node's vectors; beyond float32, in float64."""
    cdef int64_t first = m.vector_ptr[node]
    cdef int n_vectors = m.vector_ptr[node + 1] - first, c, i
    cdef int alone = arity - n_vectors
    cdef const float* v
    cdef double z
    m.logit[0] = 0
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


cdef void add_up_lines(Model* m, Query* x, int node, int arity) noexcept nogil:
    """Fill m.logit with the sum of the lines of the row's features."""
    cdef int n_lines = (arity + LINE - 1) // LINE, c
    cdef const float* bias = m.lines + LINE * m.line_ptr[node]
    memcpy(m.logit, bias, n_lines * LINE * sizeof(float))
    if m.step == 0 and x.n > 0 and x.indices[x.n - 1] == x.n - 1 and m.key_ptr[node + 1] - m.key_ptr[node] <= x.n:
        # a row of all features: none has to be looked up
        add_keyed_lines(
            m.logit, bias + LINE * n_lines, m.keys + m.key_ptr[node], m.key_ptr[node + 1] - m.key_ptr[node],
            x.data, x.n, LINE * n_lines,
        )
    else:
        add_weights(m, m.logit, node, arity, n_lines, x.indices, x.data, x.n)
    for c in range(arity):
        if not (-1e28 <= m.logit[c] <= 1e28) and bias[c] > NO_CHILD:
            widen_logits(m, x, node, arity, n_lines)
            break


cdef void widen_logits(Model* m, Query* x, int node, int arity, int n_lines) noexcept nogil:
    """Logits beyond float32: sum in float64, clip to 1e28 (a missing child stays below)."""
    cdef int c, i
    cdef const float* bias = m.lines + LINE * m.line_ptr[node]
    cdef double z
    cdef float one = 1
    for c in range(arity):
        m.log_p[c] = bias[c]
    for i in range(x.n):
        for c in range(n_lines * LINE):
            m.logit[c] = 0
        add_weights(m, m.logit, node, arity, n_lines, x.indices + i, &one, 1)
        for c in range(arity):
            m.log_p[c] += <double>x.data[i] * m.logit[c]
    for c in range(arity):
        z = m.log_p[c]
        m.logit[c] = bias[c] if bias[c] < NO_CHILD else min(max(z, -1e28), 1e28)
