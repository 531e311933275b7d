# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel that says, of each node, where features of the node above it are among its own.

Its specification is the function of the same name in ``reference``.
"""
from libc.stdint cimport int32_t, int64_t, uint64_t

import numpy as np

cdef extern from "ranks.h" nogil:
    enum: WORD
    unsigned int count_bits(unsigned int x)


cdef void count_before(uint64_t* words, int64_t n) noexcept nogil:
    """Into the upper half of each word, how many bits are set in the lower halves before."""
    cdef uint64_t total = 0
    cdef int64_t i
    for i in range(n):
        words[i] |= total << 32
        total += count_bits(<unsigned int>words[i])


def rank_features(
    const int32_t[::1] features,
    const int64_t[::1] feature_ptr,
    const int32_t[::1] above,
    const int64_t[::1] nodes,
    Py_ssize_t n_features,
    uint64_t[::1] words,
    const int64_t[::1] word_ptr,
    unsigned char[::1] is_loose,
):
    cdef int32_t[::1] place = np.zeros(n_features, np.int32)
    cdef int64_t k, v, j, first = 0, size = 0
    cdef int32_t parent = -1, at
    with nogil:
        for k in range(nodes.shape[0]):
            v = nodes[k]
            if above[v] != parent:
                parent = above[v]
                first, size = feature_ptr[parent], feature_ptr[parent + 1] - feature_ptr[parent]
                for j in range(size):
                    place[features[first + j]] = <int32_t>j
            for j in range(feature_ptr[v], feature_ptr[v + 1]):
                at = features[j]
                if parent >= 0:
                    at = place[features[j]]
                    # what another parent has left there may be anything
                    if at >= size or features[first + at] != features[j]:
                        is_loose[v] = True
                        continue
                words[word_ptr[v] + at // WORD] |= <uint64_t>1 << (at % WORD)
            count_before(&words[0] + word_ptr[v], word_ptr[v + 1] - word_ptr[v])
