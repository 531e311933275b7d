# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel that pairs words with their neighbours.

Its specification is the function of the same name in ``reference``.
"""
from libc.stdint cimport int32_t, int64_t


def window_pairs(
    const int32_t[::1] words,
    const int32_t[::1] sentences,
    const int64_t[::1] windows,
    int32_t[::1] contexts,
    int32_t[::1] centres,
):
    cdef int64_t i, j, n = words.shape[0], n_pairs = 0
    with nogil:
        for i in range(n):
            for j in range(max(0, i - windows[i]), min(n, i + windows[i] + 1)):
                if j != i and sentences[j] == sentences[i]:
                    contexts[n_pairs], centres[n_pairs] = words[j], words[i]
                    n_pairs += 1
    return n_pairs
