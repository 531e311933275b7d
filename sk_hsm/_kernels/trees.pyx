# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that build label trees: Huffman's merges, balanced 2-means splits, contraction.

Their specification is the function of the same name in ``reference``.
"""
from libc.math cimport INFINITY, fabs, sqrt
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from .rows cimport mix

cdef enum:
    LEFT = 1
    RIGHT = 2

# cosines closer than this are equal: the tree must not hang on rounding
cdef double TIE = 1e-6


def huffman_parents(const double[::1] counts, int arity, int32_t[::1] parents):
    cdef Py_ssize_t n = counts.shape[0], n_nodes = parents.shape[0]
    cdef Py_ssize_t leaf = 0, inner = n, node, k
    cdef Py_ssize_t take = 2 + (n - 2) % (arity - 1)
    cdef double* merged = <double*>malloc((n_nodes - n + 1) * sizeof(double))
    if merged == NULL:
        raise MemoryError(f"no memory for a Huffman tree over {n} classes")
    with nogil:
        for node in range(n, n_nodes):
            merged[node - n] = 0
            for k in range(take):
                # the lighter head of two sorted queues: leaves, merged nodes
                if leaf < n and (inner == node or counts[leaf] <= merged[inner - n]):
                    merged[node - n] += counts[leaf]
                    parents[leaf] = node
                    leaf += 1
                else:
                    merged[node - n] += merged[inner - n]
                    parents[inner] = node
                    inner += 1
            take = arity
        parents[n_nodes - 1] = -1
        free(merged)


cdef struct Item:
    # a class to be put on one side of a cut; `index` counts within its slice
    float score
    float mass
    int32_t index


cdef struct Split:
    # the slice [lo, hi) of the class order, to be cut at `depth`
    Py_ssize_t lo
    Py_ssize_t hi
    int depth


cdef struct Space:
    # the class centroids (CSR), and scratch: two interleaved dense sums, zero
    # between calls, and an item, a place in a sample and three sides a class
    const int64_t* indptr
    const int32_t* indices
    const float* data
    const float* mass
    float* sums
    Item* items
    int32_t* sample
    signed char* side
    signed char* new_side
    signed char* best_side


cdef extern from * nogil:
    void prefetch "__builtin_prefetch"(const void* address)


cdef void fetch(Space* x, int32_t i) noexcept nogil:
    """Have the centroid of class i brought from memory."""
    cdef int64_t j
    for j in range(x.indptr[i], x.indptr[i + 1], 16):
        prefetch(&x.data[j])
        prefetch(&x.indices[j])


cdef bint before(Item* a, Item* b) noexcept nogil:
    return a.score > b.score or (a.score == b.score and a.index < b.index)


cdef Item median(Item* a, Item* b, Item* c) noexcept nogil:
    if before(a, b):
        return b[0] if before(b, c) else (c[0] if before(a, c) else a[0])
    return a[0] if before(a, c) else (c[0] if before(b, c) else b[0])


cdef Py_ssize_t partition(Item* items, Py_ssize_t lo, Py_ssize_t hi, double* inside) noexcept nogil:
    """Quickselect's step: return the pivot's place; inside is the mass before it."""
    cdef Item pivot = median(&items[lo], &items[(lo + hi) // 2], &items[hi - 1]), item
    cdef Py_ssize_t i, at = lo, pivot_at = lo
    inside[0] = 0
    for i in range(lo, hi):
        if items[i].index == pivot.index:
            pivot_at = i
        elif before(&items[i], &pivot):
            item = items[i]
            items[i] = items[at]
            items[at] = item
            if pivot_at == at:
                pivot_at = i
            inside[0] += item.mass
            at += 1
    items[pivot_at] = items[at]
    items[at] = pivot
    return at


cdef Py_ssize_t weighted_cut(Item* items, Py_ssize_t n, double target) noexcept nogil:
    """Move the best-scored items whose mass is nearest target to the front; return how many."""
    cdef Py_ssize_t lo = 0, hi = n, at
    cdef double before_lo = 0, inside = 0
    while hi - lo > 1:
        at = partition(items, lo, hi, &inside)
        if before_lo + inside >= target and at > lo:
            hi = at
        elif before_lo + inside + items[at].mass >= target or at + 1 == hi:
            before_lo += inside
            lo, hi = at, at + 1
        else:
            before_lo += inside + items[at].mass
            lo = at + 1
    if before_lo + 0.5 * items[lo].mass < target:
        lo += 1
    return min(max(lo, 1), n - 1)


cdef double move(Space* x, int32_t i, float weight, float* sums, double square) noexcept nogil:
    """Add weight times class i to a dense sum; return the sum's new square norm."""
    cdef int64_t j
    cdef float v
    cdef float* s
    for j in range(x.indptr[i], x.indptr[i + 1]):
        v = weight * x.data[j]
        s = sums + 2 * <int64_t>x.indices[j]
        square += v * (2 * s[0] + v)
        s[0] += v
    return square


cdef void score(Space* x, const int32_t* classes, Py_ssize_t n, double left, double right) noexcept nogil:
    """Cosine to the left centroid less cosine to the right one."""
    cdef float scale_left = 1 / sqrt(left) if left > 1e-12 else 0
    cdef float scale_right = 1 / sqrt(right) if right > 1e-12 else 0
    cdef float total, to_left, to_right
    cdef float* s
    cdef Py_ssize_t i, j
    for i in range(n):
        if i + 1 < n:
            fetch(x, classes[i + 1])
        to_left = to_right = 0
        for j in range(x.indptr[classes[i]], x.indptr[classes[i] + 1]):
            s = x.sums + 2 * <int64_t>x.indices[j]
            to_left += x.data[j] * s[0]
            to_right += x.data[j] * s[1]
        total = scale_left * to_left - scale_right * to_right
        x.items[i].score = total if fabs(total) > TIE else 0
        x.items[i].mass = x.mass[classes[i]]
        x.items[i].index = i


cdef Py_ssize_t cut_by_sign(Space* x, Py_ssize_t n, double low, double high) noexcept nogil:
    """Cut where the score changes its sign, if the mass on the left is then in [low, high]."""
    cdef double positive = 0
    cdef Py_ssize_t i
    for i in range(n):
        if x.items[i].score > 0:
            positive += x.items[i].mass
    return weighted_cut(x.items, n, min(max(positive, low), high))


cdef Py_ssize_t change_sides(
    Space* x, const int32_t* classes, Py_ssize_t n, double* left, double* right
) noexcept nogil:
    """Carry classes whose side changed from sum to sum; return their number."""
    cdef Py_ssize_t i, n_moved = 0
    cdef float mass
    for i in range(n):
        if x.side[i] == x.new_side[i]:
            continue
        n_moved += 1
        mass = x.mass[classes[i]]
        if x.side[i] == LEFT:
            left[0] = move(x, classes[i], -mass, x.sums, left[0])
        elif x.side[i] == RIGHT:
            right[0] = move(x, classes[i], -mass, x.sums + 1, right[0])
        x.side[i] = x.new_side[i]
        if x.side[i] == LEFT:
            left[0] = move(x, classes[i], mass, x.sums, left[0])
        else:
            right[0] = move(x, classes[i], mass, x.sums + 1, right[0])
    return n_moved


cdef double total_mass(const float* mass, const int32_t* classes, Py_ssize_t n) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(n):
        total += mass[classes[i]]
    return total


cdef double two_means(
    Space* x, const int32_t* classes, Py_ssize_t n, double low, double high, int max_iter, double tol
) noexcept nogil:
    """Balanced spherical 2-means from the sides some classes have; return the sum of cosines gained."""
    cdef double left = 0, right = 0
    cdef Py_ssize_t i, j, cut
    cdef int iteration
    for i in range(n):
        if x.side[i] == LEFT:
            left = move(x, classes[i], x.mass[classes[i]], x.sums, left)
        elif x.side[i] == RIGHT:
            right = move(x, classes[i], x.mass[classes[i]], x.sums + 1, right)
    for iteration in range(max_iter):
        score(x, classes, n, left, right)
        cut = cut_by_sign(x, n, low, high)
        for i in range(n):
            x.new_side[x.items[i].index] = LEFT if i < cut else RIGHT
        if change_sides(x, classes, n, &left, &right) <= tol * n:
            break
    for i in range(n):
        for j in range(x.indptr[classes[i]], x.indptr[classes[i] + 1]):
            x.sums[2 * <int64_t>x.indices[j]] = 0
            x.sums[2 * <int64_t>x.indices[j] + 1] = 0
    return sqrt(max(left, 0.0)) + sqrt(max(right, 0.0))


cdef void best_start(
    Space* x, const int32_t* classes, Py_ssize_t n, double low, double high,
    uint64_t seed, int max_iter, double tol, int n_init,
) noexcept nogil:
    """Set the sides to the best of n_init 2-means, each from two random classes."""
    cdef double value, best = 0
    cdef Py_ssize_t first
    cdef int run
    for run in range(n_init):
        memset(x.side, 0, n)
        first = mix(mix(seed + run)) % <uint64_t>n
        x.side[first] = LEFT
        x.side[(first + 1 + mix(mix(seed + run) + 1) % <uint64_t>(n - 1)) % n] = RIGHT
        value = two_means(x, classes, n, low, high, max_iter, tol)
        if run == 0 or value > best * (1 + TIE):
            best = value
            memcpy(x.best_side, x.side, n)
    memcpy(x.side, x.best_side, n)


cdef Py_ssize_t bisect(
    Space* x, int32_t* classes, Py_ssize_t n, double low, double high,
    uint64_t seed, int max_iter, double tol, int n_init, Py_ssize_t n_sample,
) noexcept nogil:
    """Partition the classes in place by 2-means; return the cut."""
    cdef Py_ssize_t i, at = 0
    cdef double share
    cdef int side
    if n > n_sample:
        for i in range(n_sample):
            x.sample[i] = classes[i * n // n_sample]
        share = total_mass(x.mass, x.sample, n_sample) / total_mass(x.mass, classes, n)
        best_start(x, x.sample, n_sample, low * share, high * share, seed, max_iter, tol, n_init)
        memset(x.side, 0, n)
        for i in range(n_sample):
            x.side[i * n // n_sample] = x.best_side[i]
        two_means(x, classes, n, low, high, max_iter, tol)
    else:
        best_start(x, classes, n, low, high, seed, max_iter, tol, 1)
    for side in range(LEFT, RIGHT + 1):
        for i in range(n):
            if x.side[i] == side:
                x.items[at].index = classes[i]
                at += 1
    at = 0
    for i in range(n):
        classes[i] = x.items[i].index
        at += x.side[i] == LEFT
    return at


cdef int open_space(Space* x, Py_ssize_t n, Py_ssize_t n_features) except -1:
    x.sums = <float*>calloc(2 * n_features + 1, sizeof(float))
    x.items = <Item*>malloc(n * sizeof(Item))
    x.side = <signed char*>malloc(3 * n)
    x.sample = <int32_t*>malloc(n * sizeof(int32_t))
    if x.sums == NULL or x.items == NULL or x.side == NULL or x.sample == NULL:
        close_space(x)
        raise MemoryError(f"no memory to cluster {n} classes of {n_features} features")
    x.new_side = x.side + n
    x.best_side = x.side + 2 * n
    return 0


cdef void close_space(Space* x) noexcept nogil:
    free(x.sums)
    free(x.items)
    free(x.sample)
    free(x.side)


def kmeans_split(
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const float[::1] mass,
    Py_ssize_t n_features,
    int32_t[::1] order,
    int32_t[::1] boundary_depth,
    Py_ssize_t lo,
    Py_ssize_t hi,
    int depth,
    bint whole_subtree,
    uint64_t seed,
    int max_iter,
    double tol,
    int n_init,
    Py_ssize_t n_sample,
    double slack,
):
    cdef Py_ssize_t n = hi - lo, cut, top = 1
    cdef double total
    cdef Space x
    cdef Split item
    cdef Split* stack = <Split*>malloc((n + 2) * sizeof(Split))
    if stack == NULL:
        raise MemoryError(f"no memory to cluster {n} classes")
    try:
        open_space(&x, n, n_features)
    except MemoryError:
        free(stack)
        raise
    x.indptr, x.mass = &indptr[0], &mass[0]
    x.indices = &indices[0] if indices.shape[0] else NULL
    x.data = &data[0] if data.shape[0] else NULL
    stack[0] = Split(lo, hi, depth)
    with nogil:
        while top > 0:
            top -= 1
            item = stack[top]
            n = item.hi - item.lo
            if n < 2:
                continue
            total = total_mass(x.mass, &order[item.lo], n)
            cut = item.lo + bisect(
                &x, &order[item.lo], n, (1 - slack) / 2 * total, (1 + slack) / 2 * total,
                mix(seed ^ mix(<uint64_t>item.lo) ^ <uint64_t>item.hi), max_iter, tol, n_init, n_sample,
            )
            boundary_depth[cut] = item.depth
            if whole_subtree:
                stack[top] = Split(item.lo, cut, item.depth + 1)
                stack[top + 1] = Split(cut, item.hi, item.depth + 1)
                top += 2
        free(stack)
        close_space(&x)


cdef struct Siblings:
    # an inner node, or 0, that is to be in so many parts at `depth`
    int32_t node
    int32_t parts
    int depth


cdef struct Binary:
    # a binary tree over leaves in a row; its inner node v divides leaf v - 1 from leaf v, and
    # 0 stands for a leaf
    Py_ssize_t n
    int32_t* left
    int32_t* right
    int32_t* bottom_up
    # of each inner node: what is below it; and for each number of parts, from first[v] on, the
    # least cost of having it in so many, and how many of them are left
    double* mass
    int64_t* first
    int32_t* most
    int32_t* best
    double* cost
    int32_t* left_parts


cdef void link(const int32_t* depth, Binary* b) noexcept nogil:
    """Find the children of each inner node from their depths, and an order with children first."""
    cdef int32_t i, last
    cdef Py_ssize_t top = 0, done = 0
    cdef int32_t* stack = b.best  # written only later
    for i in range(1, b.n):
        last = 0
        while top > 0 and depth[stack[top - 1]] > depth[i]:
            top -= 1
            last = stack[top]
            b.bottom_up[done] = last
            done += 1
        b.left[i], b.right[i] = last, 0
        if top > 0:
            b.right[stack[top - 1]] = i
        stack[top] = i
        top += 1
    while top > 0:
        top -= 1
        b.bottom_up[done] = stack[top]
        done += 1


cdef int64_t make_room(Binary* b, const double* mass, int arity) noexcept nogil:
    """Masses, and how many parts each inner node can be in; return the number of entries."""
    cdef int64_t size = 0
    cdef Py_ssize_t k
    cdef int32_t v
    for k in range(b.n - 1):
        v = b.bottom_up[k]
        b.mass[v] = (b.mass[b.left[v]] if b.left[v] else mass[v - 1]) + (
            b.mass[b.right[v]] if b.right[v] else mass[v]
        )
        b.most[v] = min(
            arity, (b.most[b.left[v]] if b.left[v] else 1) + (b.most[b.right[v]] if b.right[v] else 1)
        )
        b.first[v] = size
        size += b.most[v]
    return size


cdef void divide(Binary* b, int32_t v) noexcept nogil:
    """The least cost of node v in each number of parts; in one part it is a node of the best number."""
    cdef double leaf = 0, cost, least
    cdef const double* left = b.cost + b.first[b.left[v]] if b.left[v] else &leaf
    cdef const double* right = b.cost + b.first[b.right[v]] if b.right[v] else &leaf
    cdef int most_left = b.most[b.left[v]] if b.left[v] else 1
    cdef int most_right = b.most[b.right[v]] if b.right[v] else 1
    cdef int parts, k
    cdef double* costs = b.cost + b.first[v]
    cdef int32_t* left_parts = b.left_parts + b.first[v]
    costs[0] = INFINITY
    for parts in range(2, b.most[v] + 1):
        least = INFINITY
        for k in range(max(1, parts - most_right), min(most_left, parts - 1) + 1):
            cost = left[k - 1] + right[parts - k - 1]
            if cost < least:
                least = cost
                left_parts[parts - 1] = k
        costs[parts - 1] = least
        if least + b.mass[v] <= costs[0]:
            costs[0] = least + b.mass[v]
            b.best[v] = parts


cdef void set_depths(Binary* b, Siblings* stack, int32_t root, int32_t* depth) noexcept nogil:
    """The depth of each inner node's boundary in the contracted tree, from the root down."""
    cdef Py_ssize_t top = 1
    cdef Siblings item
    cdef int32_t v, parts, left_parts
    stack[0] = Siblings(root, b.best[root], 1)
    while top > 0:
        top -= 1
        item = stack[top]
        v, parts = item.node, item.parts
        if v == 0:
            continue
        if parts == 1:  # a node by itself: its children are one deeper
            parts = b.best[v]
            item.depth += 1
        depth[v] = item.depth
        left_parts = b.left_parts[b.first[v] + parts - 1]
        stack[top] = Siblings(b.left[v], left_parts, item.depth)
        stack[top + 1] = Siblings(b.right[v], parts - left_parts, item.depth)
        top += 2


def contract_binary(int32_t[::1] boundary_depth, const double[::1] mass, int arity):
    cdef Binary b
    cdef Py_ssize_t n = mass.shape[0], k
    cdef int64_t size
    cdef int32_t[:, ::1] ints = np.empty((5, n), np.int32)
    cdef double[::1] masses = np.empty(n), costs
    cdef int64_t[::1] first = np.empty(n, np.int64)
    cdef int32_t[::1] left_parts
    cdef char[::1] stack = np.empty((n + 2) * sizeof(Siblings), np.int8)
    if n < 2:
        return
    b.n, b.mass, b.first = n, &masses[0], &first[0]
    b.left, b.right, b.bottom_up, b.most, b.best = &ints[0, 0], &ints[1, 0], &ints[2, 0], &ints[3, 0], &ints[4, 0]
    with nogil:
        link(&boundary_depth[0], &b)
        size = make_room(&b, &mass[0], arity)
    costs, left_parts = np.empty(size), np.empty(size, np.int32)
    b.cost, b.left_parts = &costs[0], &left_parts[0]
    with nogil:
        for k in range(n - 1):
            divide(&b, b.bottom_up[k])
        set_depths(&b, <Siblings*>&stack[0], b.bottom_up[n - 2], &boundary_depth[0])
