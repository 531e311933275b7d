/* Weights of one feature as small integers of 4, 6 or 16 bits, or floats of 32. Up to sixteen children are
   a chunk. Of n integers of 4 bits, byte j holds that of child j and, in its upper half, of child j + m,
   where m = ceil(n / 2) bytes are needed. Those of 6 bits are their lower 4 bits so, and then their upper 2:
   byte j holds those of the children j, j + m, j + 2m and j + 3m, with m = ceil(n / 4).
   Integers of 4 and 6 bits are stored with half their range added. */
#ifndef SK_HSM_PACKED_H
#define SK_HSM_PACKED_H

#include <stdint.h>
#include <string.h>

#include "lines.h"

/* number 0 to 3 of the sizes */
static inline int bits_of_tag(int tag) { return tag == 0 ? 4 : tag == 1 ? 6 : tag == 2 ? 16 : 32; }

/* the number of the least that holds integers of this magnitude */
static inline int tag_of(float largest) { return largest <= 7 ? 0 : largest <= 31 ? 1 : largest <= 32767 ? 2 : 3; }

static inline int chunk_bytes(int n, int bits) {
    return bits == 4 ? (n + 1) / 2 : bits == 6 ? (n + 1) / 2 + (n + 3) / 4 : n * bits / 8;
}

static inline int64_t entry_bytes(int arity, int bits) {
    return (int64_t)(arity / LINE) * 2 * bits + chunk_bytes(arity % LINE, bits);
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
