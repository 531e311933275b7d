/* A node's features as bits. A word of 64: the lower 32 say which of 32 features in a row a node has, the
   upper 32 how many it has before these. So the rank of a feature, its place among the node's, takes one
   word of memory and a count of bits. */
#ifndef SK_HSM_RANKS_H
#define SK_HSM_RANKS_H

#include <stdint.h>

#include "lines.h"

#define WORD 32 /* features of a word */

static ALWAYS uint32_t count_bits(uint32_t x) {
#if defined(__GNUC__)
    return (uint32_t)__builtin_popcount(x);
#else
    x -= x >> 1 & 0x55555555u;
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    return ((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24;
#endif
}

/* Of n features, given by their places among those that words are about, the ones that the node has: their
   ranks, at most `last`, whatever a damaged file may say, and their values. Without a branch, as either is as
   likely. Return how many there are. */
static CLONED int find_ranks(int32_t *restrict ranks, float *restrict found_values, const uint64_t *restrict words,
                             const int32_t *restrict places, const float *restrict values, int n, uint32_t last) {
    int n_found = 0;
    for (int i = 0; i < n; i++) prefetch(words + (uint32_t)places[i] / WORD);
    for (int i = 0; i < n; i++) {
        uint64_t word = words[(uint32_t)places[i] / WORD];
        uint32_t bits = (uint32_t)word, at = (uint32_t)places[i] % WORD;
        uint32_t rank = (uint32_t)(word >> 32) + count_bits(bits & ((1u << at) - 1));
        ranks[n_found] = (int32_t)(rank < last ? rank : last);
        found_values[n_found] = values[i];
        n_found += bits >> at & 1;
    }
    return n_found;
}

#endif
