# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that build label trees: Huffman's merges, contraction of binary trees.

Their specification is the function of the same name in ``reference``.
"""
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc

import numpy as np


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
