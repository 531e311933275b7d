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

/* the sum of exp(x - shift) for x <= shift, to 1e-14 relative: as line_exp but in double, and from -700 on. What is
   added before n is rounded leaves it in the lowest bits, from where it goes to the exponent of the polynomial. */
TARGET static double NAME(sum_exp)(const float *x, int width, float shift) {
    const double round = 6755399441055744.0;
    double total = 0.0;
    for (int l = 0; l < width; l += LINE) {
        double y[LINE], z[LINE], s[4] = {0.0};
        uint64_t bits[LINE], n_bits[LINE];
        EACH {
            double t = (double)x[l + c] - shift;
            t = t > -700.0 ? t : -700.0;
            z[c] = t * 1.4426950408889634 + round;
            double n = z[c] - round;
            double r = (t - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
            y[c] = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6 + r * (1.0 / 24 + r * (1.0 / 120 + r * (1.0 / 720 +
                   r * (1.0 / 5040 + r * (1.0 / 40320 + r * (1.0 / 362880 + r * (1.0 / 3628800 +
                   r * (1.0 / 39916800)))))))))));
        }
        memcpy(bits, y, sizeof(bits));
        memcpy(n_bits, z, sizeof(n_bits));
        EACH bits[c] += n_bits[c] << 52;
        memcpy(y, bits, sizeof(y));
        for (int c = 0; c < LINE; c++) s[c % 4] += y[c];
        total += (s[0] + s[2]) + (s[1] + s[3]);
    }
    return total;
}

#undef NAME
#undef PACK
#undef TARGET
#undef AT
