/* Weights of one feature as small integers of 4, 6 or 16 bits, or floats of 32. Up to sixteen children are
   a chunk. Of n integers of 4 bits, byte j holds that of child j and, in its upper half, of child j + m,
   where m = ceil(n / 2) bytes are needed. Those of 6 bits are their lower 4 bits so, and then their upper 2:
   byte j holds those of the children j, j + m, j + 2m and j + 3m, with m = ceil(n / 4).
   Integers of 4 and 6 bits are stored with half their range added. */
#ifndef SK_HSM_PACKED_H
#define SK_HSM_PACKED_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "lines.h"

#define HASH_FACTOR 2654435769u
#define HASH_INVERSE 340573321u /* HASH_FACTOR * HASH_INVERSE = 1 */

/* The nearest integer, half to even, within float32. Floats above 2^23 are integers: to add and subtract such
   a one rounds in a third of the time that rintf takes. */
static inline float nearest(float x) {
    if (fabsf(x) < 4194304.0f) return (x + 12582912.0f) - 12582912.0f;
    x = rintf(x);
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

/* An entry's tag says how its integers are stored: up to FEW children alone, each a byte of its number and one
   of its integer, where all others have zero; or all children's, of 4, 6, 16 bits, or floats of 32. */
enum { FEW = 4, N_TAGS = 8, MOST_CHILDREN = 256 };

static inline int bits_of_tag(int tag) { return tag < 5 ? 4 : tag == 5 ? 6 : tag == 6 ? 16 : 32; }

/* of all children, the least that holds integers of this magnitude */
static inline int tag_of(float largest) {
    return FEW + (largest <= 7 ? 0 : largest <= 31 ? 1 : largest <= 32767 ? 2 : 3);
}

static inline int chunk_bytes(int n, int bits) {
    return bits == 4 ? (n + 1) / 2 : bits == 6 ? (n + 1) / 2 + (n + 3) / 4 : n * bits / 8;
}

static inline int64_t entry_bytes(int arity, int tag) {
    int bits = bits_of_tag(tag);
    return tag < FEW ? 2 * (tag + 1) : (int64_t)(arity / LINE) * 2 * bits + chunk_bytes(arity % LINE, bits);
}

/* all sixteen of out are written, and up to 64 bytes are read; what is behind n means nothing */
static inline void unpack_chunk(float *restrict out, const uint8_t *restrict in, int n, int bits) {
    if (bits == 32) {
        memcpy(out, in, LINE * sizeof(float));
        return;
    }
    if (bits == 16) {
        int16_t wide[LINE];
        memcpy(wide, in, sizeof(wide));
        EACH out[c] = (float)wide[c];
        return;
    }
    int half = (n + 1) / 2, quarter = (n + 3) / 4, offset = bits == 4 ? 8 : 32;
    uint8_t q[LINE], upper[LINE];
    for (int j = 0; j < 8; j++) q[j] = in[j] & 15;
    for (int j = 0; j < 8; j++) upper[j] = in[j] >> 4;
    memcpy(q + half, upper, 8);
    if (bits == 6) {
        in += half;
        for (int part = 0; part < 4; part++)
            for (int j = 0; j < 4; j++) upper[part * quarter + j] = (in[j] >> (2 * part)) & 3;
        for (int c = 0; c < LINE; c++) q[c] = (uint8_t)(q[c] + 16 * upper[c]);
    }
    EACH out[c] = (float)((int)q[c] - offset);
}

/* q are n integers; writes nothing behind the chunk */
static inline void pack_chunk(uint8_t *restrict out, const float *restrict q, int n, int bits) {
    int half = (n + 1) / 2, quarter = (n + 3) / 4, offset = bits == 4 ? 8 : 32;
    if (bits == 32) memcpy(out, q, n * sizeof(float));
    if (bits == 16) {
        int16_t wide[LINE];
        for (int c = 0; c < n; c++) wide[c] = (int16_t)q[c];
        memcpy(out, wide, n * sizeof(int16_t));
    }
    if (bits > 6) return;
    memset(out, 0, chunk_bytes(n, bits));
    for (int c = 0; c < n; c++) {
        int code = (int)q[c] + offset;
        out[c % half] |= (uint8_t)((code & 15) << (4 * (c / half)));
        if (bits == 6) out[half + c % quarter] |= (uint8_t)((code >> 4) << (2 * (c / quarter)));
    }
}

#endif
