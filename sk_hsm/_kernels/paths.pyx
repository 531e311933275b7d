# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that follow paths down a fitted tree: one call, a block of rows.

Their specification is the function of the same name in ``reference``.
Inner nodes are numbered before leaves, so node - n_inner is a leaf's class.
All of them score a node by ``children_log_proba``, so that a probability has
the same bits whichever method asks for it.
"""
from libc.math cimport INFINITY, NAN, exp, log
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from .packing cimport find_entry, measure_entries, prefetch_bucket, prefetch_entries

cdef extern from "packed.h" nogil:
    int chunk_bytes(int n, int bits)
    void unpack_chunk(float* out, const uint8_t* packed, int n, int bits)

cdef extern from "lines.h" nogil:
    enum: LINE
    uint32_t HASH_FACTOR
    void prefetch(const float* address)
    void line_axpy(float* y, float a, const float* x)

cdef extern from "vectors.h" nogil:
    float dot(const float* x, const float* z, int n)

# features that are looked up together
cdef enum:
    BLOCK = 64

# a logit of a child that does not exist, or has no rows, is -1e30
cdef double NO_CHILD = -1e29


cdef int open_model(Model* m, tree, weights) except -1:
    cdef const int32_t[::1] parents = tree.parents, positions = tree.positions
    cdef const int32_t[::1] child_ptr = tree.child_ptr, children = tree.children
    cdef int width
    m.n_inner = child_ptr.shape[0] - 1
    m.max_arity = tree.arity
    width = LINE * ((m.max_arity + LINE - 1) // LINE + 1)
    m.parents, m.positions = &parents[0], &positions[0]
    m.child_ptr = &child_ptr[0]
    m.children = &children[0] if children.shape[0] else NULL
    m.step = weights.step
    m.vectors = NULL
    if hasattr(weights, "vectors"):
        take_vectors(m, weights)
    elif m.step > 0:
        take_packed(m, weights)
    else:
        take_keys(m, weights)
    m.logit = <float*>malloc(width * sizeof(float))
    m.log_p = <double*>malloc(width * sizeof(double))
    if m.logit == NULL or m.log_p == NULL:
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
    m.logit = NULL
    m.log_p = NULL


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
    cdef float[16] chunk
    cdef int64_t sizes[4]
    cdef int i, c, size, bits
    measure_entries(&m.packed, node, arity, sizes)
    for i in range(n):
        prefetch_bucket(&m.packed, node, features[i])
    for i in range(n):
        prefetch_entries(&m.packed, node, features[i])
    for i in range(n):
        entry = find_entry(&m.packed, node, sizes, features[i], &bits)
        if entry != NULL:
            for c in range(n_lines):
                size = min(LINE, arity - c * LINE)
                unpack_chunk(chunk, entry, size, bits)
                line_axpy(logit + c * LINE, m.step * values[i], chunk)
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
    cdef double top = -INFINITY, total = 0
    if m.vectors != NULL:
        multiply_vectors(m, x, node, arity)
    else:
        add_up_lines(m, x, node, arity)
    for c in range(arity):
        m.log_p[c] = m.logit[c]
        top = max(top, m.log_p[c])
    for c in range(arity):
        m.log_p[c] -= top
        total += exp(m.log_p[c])
    total = log(total)
    for c in range(arity):
        m.log_p[c] = m.log_p[c] - total if m.log_p[c] > NO_CHILD / 2 else -INFINITY


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


cdef bint better(Candidate a, Candidate b) noexcept nogil:
    """The order of answers: the more probable first, ties by node."""
    return a.log_p > b.log_p or (a.log_p == b.log_p and a.node < b.node)


cdef int push(Heap* heap, Candidate item) noexcept nogil:
    """Return -1 where memory runs out."""
    cdef Py_ssize_t at = heap.size, up
    cdef Candidate* grown
    if at == heap.capacity:
        grown = <Candidate*>realloc(heap.items, 2 * (at + 32) * sizeof(Candidate))
        if grown == NULL:
            return -1
        heap.items = grown
        heap.capacity = 2 * (at + 32)
    heap.size += 1
    while at > 0:
        up = (at - 1) // 2
        if better(item, heap.items[up]) == heap.worst_first:
            break
        heap.items[at] = heap.items[up]
        at = up
    heap.items[at] = item
    return 0


cdef Candidate pop(Heap* heap) noexcept nogil:
    cdef Candidate head = heap.items[0], item
    cdef Py_ssize_t at = 0, down
    heap.size -= 1
    item = heap.items[heap.size]
    while 2 * at + 1 < heap.size:
        down = 2 * at + 1
        if down + 1 < heap.size and better(heap.items[down + 1], heap.items[down]) != heap.worst_first:
            down += 1
        if better(heap.items[down], item) == heap.worst_first:
            break
        heap.items[at] = heap.items[down]
        at = down
    heap.items[at] = item
    return head


cdef struct Search:
    # inner nodes still to be opened; the next level's (beam only); the k best leaves
    Heap frontier
    Heap next_level
    Heap best
    Py_ssize_t k
    double floor


cdef double bar(Search* search) noexcept nogil:
    """Log-probability that a leaf must reach to be among the answers."""
    if search.best.size < search.k:
        return search.floor
    return max(search.floor, search.best.items[0].log_p)


cdef int offer_leaf(Search* search, Candidate leaf) noexcept nogil:
    if leaf.log_p < search.floor:
        return 0
    if search.best.size < search.k:
        return push(&search.best, leaf)
    if better(leaf, search.best.items[0]):
        pop(&search.best)
        return push(&search.best, leaf)
    return 0


cdef int open_node(Model* m, Query* x, Search* search, Heap* inner, Candidate node) noexcept nogil:
    """Offer the node's leaves, and put its inner children that can still matter on a heap."""
    cdef int32_t c
    cdef Candidate child
    children_log_proba(m, x, node.node)
    for c in range(m.child_ptr[node.node + 1] - m.child_ptr[node.node]):
        child.log_p = node.log_p + m.log_p[c]
        child.node = m.children[m.child_ptr[node.node] + c]
        if child.log_p < bar(search):
            continue
        if child.node >= m.n_inner:
            if offer_leaf(search, child) < 0:
                return -1
        elif push(inner, child) < 0:
            return -1
    return 0


cdef int start(Model* m, Search* search) noexcept nogil:
    """Begin at the root, which in a tree of one class is a leaf."""
    cdef Candidate root = Candidate(0, 0)
    search.frontier.size = 0
    return push(&search.frontier, root) if m.n_inner > 0 else offer_leaf(search, root)


cdef int search_best_first(Model* m, Query* x, Search* search) noexcept nogil:
    """Open the most probable node until none can hold an answer."""
    cdef Candidate node
    while search.frontier.size > 0:
        node = pop(&search.frontier)
        if node.log_p < bar(search):
            break
        if open_node(m, x, search, &search.frontier, node) < 0:
            return -1
    return 0


cdef int search_beam(Model* m, Query* x, Search* search, Py_ssize_t beam_width) noexcept nogil:
    """Level by level, open the beam_width most probable nodes only."""
    cdef Py_ssize_t opened
    cdef Heap swap
    while search.frontier.size > 0:
        for opened in range(min(beam_width, search.frontier.size)):
            if open_node(m, x, search, &search.next_level, pop(&search.frontier)) < 0:
                return -1
        search.frontier.size = 0
        swap = search.frontier
        search.frontier = search.next_level
        search.next_level = swap
    return 0


cdef void write_answers(Model* m, Search* search, int32_t* classes, double* log_proba) noexcept nogil:
    cdef Candidate leaf
    cdef Py_ssize_t at
    for at in range(search.best.size, search.k):
        classes[at] = -1
        log_proba[at] = -INFINITY
    while search.best.size > 0:
        leaf = pop(&search.best)
        classes[search.best.size] = leaf.node - m.n_inner
        log_proba[search.best.size] = leaf.log_p


def top_k(
    tree,
    weights,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    double min_log_proba,
    Py_ssize_t beam_width,
    int32_t[:, ::1] classes,
    double[:, ::1] log_proba,
):
    cdef Model m
    cdef Query x
    cdef Search search
    cdef Py_ssize_t i
    cdef int status = 0
    open_model(&m, tree, weights)
    search.frontier = search.next_level = Heap(NULL, 0, 0, False)
    search.best = Heap(NULL, 0, 0, True)
    search.k = classes.shape[1]
    search.floor = min_log_proba
    with nogil:
        for i in range(classes.shape[0]):
            x = Query(&indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
            status = start(&m, &search)
            if status == 0 and beam_width > 0:
                status = search_beam(&m, &x, &search, beam_width)
            elif status == 0:
                status = search_best_first(&m, &x, &search)
            if status < 0:
                break
            write_answers(&m, &search, &classes[i, 0], &log_proba[i, 0])
        free(search.frontier.items)
        free(search.next_level.items)
        free(search.best.items)
        close_model(&m)
    if status < 0:
        raise MemoryError(f"no memory to search for the {search.k} best classes of a row")


def all_log_proba(
    tree,
    weights,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    double[:, ::1] log_proba,
):
    cdef Model m
    cdef Query x
    cdef Py_ssize_t i
    cdef int32_t node, c, child
    cdef double* at_inner
    open_model(&m, tree, weights)
    at_inner = <double*>malloc((m.n_inner + 1) * sizeof(double))
    if at_inner == NULL:
        close_model(&m)
        raise MemoryError(f"no memory for the log-probabilities of {m.n_inner} nodes")
    with nogil:
        for i in range(log_proba.shape[0]):
            x = Query(&indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
            at_inner[0] = 0
            for node in range(m.n_inner):
                children_log_proba(&m, &x, node)
                for c in range(m.child_ptr[node + 1] - m.child_ptr[node]):
                    child = m.children[m.child_ptr[node] + c]
                    if child >= m.n_inner:
                        log_proba[i, child - m.n_inner] = at_inner[node] + m.log_p[c]
                    else:
                        at_inner[child] = at_inner[node] + m.log_p[c]
        free(at_inner)
        close_model(&m)


def path_log_proba(
    tree,
    weights,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const int32_t[::1] classes,
    double[::1] log_proba,
):
    cdef Model m
    cdef Query x
    cdef Py_ssize_t i, depth
    cdef int32_t node
    cdef int32_t* path
    cdef Py_ssize_t max_depth = tree.max_depth
    open_model(&m, tree, weights)
    path = <int32_t*>malloc((max_depth + 1) * sizeof(int32_t))
    if path == NULL:
        close_model(&m)
        raise MemoryError(f"no memory for a path of {max_depth} nodes")
    with nogil:
        for i in range(classes.shape[0]):
            x = Query(&indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
            node = m.n_inner + classes[i]
            depth = 0
            while node > 0:
                path[depth] = node
                depth += 1
                node = m.parents[node]
            log_proba[i] = 0
            while depth > 0:
                # from the root down, as every other method adds them up
                depth -= 1
                node = path[depth]
                children_log_proba(&m, &x, m.parents[node])
                log_proba[i] += m.log_p[m.positions[node]]
        free(path)
        close_model(&m)


def sample_classes(
    tree,
    weights,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const double[:, ::1] uniforms,
    int32_t[:, ::1] classes,
):
    cdef Model m
    cdef Query x
    cdef Py_ssize_t i, s
    cdef int32_t node, c, chosen
    cdef double u, p
    open_model(&m, tree, weights)
    with nogil:
        for i in range(classes.shape[0]):
            x = Query(&indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
            for s in range(classes.shape[1]):
                u = uniforms[i, s]
                if u < 0:
                    continue
                node = 0
                while node < m.n_inner:
                    children_log_proba(&m, &x, node)
                    chosen = -1
                    for c in range(m.child_ptr[node + 1] - m.child_ptr[node]):
                        p = exp(m.log_p[c])
                        if p == 0:
                            continue
                        chosen = c
                        if u < p:
                            break
                        u -= p
                    # what is left of u, stretched, is uniform again
                    u = min(u / exp(m.log_p[chosen]), 1.0)
                    node = m.children[m.child_ptr[node] + chosen]
                classes[i, s] = node - m.n_inner
        close_model(&m)
