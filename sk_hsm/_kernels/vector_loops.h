/* The loops of vectors.h, which includes this for each kind of processor; PACK floats are added at once. */
#if defined(__GNUC__)
typedef float NAME(pack) __attribute__((vector_size(4 * PACK), aligned(4), may_alias));
typedef float NAME(quad) __attribute__((vector_size(16), aligned(4), may_alias));
#else
#undef PACK
#define PACK 1
typedef float NAME(pack);
#endif
#define AT(x, i) (*(NAME(pack) *)((x) + (i)))

/* line_sum of packs, a half of what is left added to the other until four are left */
TARGET static inline float NAME(sum)(NAME(pack) *packs) {
    float s[4];
#if PACK == 8
    NAME(pack) half = packs[0] + packs[1];
    NAME(quad) low, high;
    memcpy(&low, &half, sizeof(low));
    memcpy(&high, (char *)&half + sizeof(low), sizeof(high));
    low += high;
    memcpy(s, &low, sizeof(s));
#elif PACK == 4
    NAME(pack) low = (packs[0] + packs[2]) + (packs[1] + packs[3]);
    memcpy(s, &low, sizeof(s));
#else
    float line[LINE];
    memcpy(line, packs, sizeof(line));
    return line_sum(line);
#endif
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* scores[i] = vectors[i] . h, of n up to four that need not wait for each other */
TARGET static inline __attribute__((always_inline)) void NAME(few_dots)(float *scores, float *const *vectors, int n,
                                                                        const float *h, int width) {
    NAME(pack) packs[4][LINE / PACK];
    memset(packs, 0, sizeof(packs));
    for (int l = 0; l < width; l += LINE)
        for (int i = 0; i < n; i++)
            for (int k = 0; k < LINE / PACK; k++) packs[i][k] += AT(vectors[i], l + k * PACK) * AT(h, l + k * PACK);
    for (int i = 0; i < n; i++) scores[i] = NAME(sum)(packs[i]);
}

/* scores[i] = vectors[i] . h */
TARGET static void NAME(dots)(float *scores, float *const *vectors, int n, const float *h, int width) {
    int i = 0;
    for (; i + 4 <= n; i += 4) NAME(few_dots)(scores + i, vectors + i, 4, h, width);
    for (; i < n; i++) NAME(few_dots)(scores + i, vectors + i, 1, h, width);
}

/* back += errors[i] vectors[i], as they were; vectors[i] -= errors[i] h. A line of all vectors at a time, so that
   those of back and h stay in registers. */
TARGET static void NAME(steps)(float *const *vectors, const float *errors, int n, float *back, const float *h,
                               int width) {
    for (int l = 0; l < width; l += LINE) {
        NAME(pack) sum[LINE / PACK], by[LINE / PACK];
        for (int k = 0; k < LINE / PACK; k++) sum[k] = AT(back, l + k * PACK), by[k] = AT(h, l + k * PACK);
        for (int i = 0; i < n; i++) {
            float *v = vectors[i] + l, e = errors[i];
            for (int k = 0; k < LINE / PACK; k++) {
                NAME(pack) before = AT(v, k * PACK);
                sum[k] += e * before;
                AT(v, k * PACK) = before - e * by[k];
            }
        }
        for (int k = 0; k < LINE / PACK; k++) AT(back, l + k * PACK) = sum[k];
    }
}

/* y += a x */
TARGET static void NAME(axpy)(float *y, float a, const float *x, int width) {
    for (int l = 0; l < width; l += PACK) AT(y, l) += a * AT(x, l);
}

#undef NAME
#undef PACK
#undef TARGET
#undef AT
