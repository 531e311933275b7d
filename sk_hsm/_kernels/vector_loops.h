/* The loops of vectors.h, which includes this for each kind of processor; PACK floats are added at once. */
#if defined(__GNUC__)
typedef float NAME(pack) __attribute__((vector_size(4 * PACK), aligned(4), may_alias));
#else
#undef PACK
#define PACK 1
typedef float NAME(pack);
#endif
#define AT(x, i) (*(NAME(pack) *)((x) + (i)))

/* scores[i] = vectors[i] . h */
TARGET static void NAME(dots)(float *scores, float *const *vectors, int n, const float *h, int width) {
    for (int i = 0; i < n; i++) {
        NAME(pack) packs[LINE / PACK];
        float sum[LINE];
        memset(packs, 0, sizeof(packs));
        for (int l = 0; l < width; l += LINE)
            for (int k = 0; k < LINE / PACK; k++) packs[k] += AT(vectors[i], l + k * PACK) * AT(h, l + k * PACK);
        memcpy(sum, packs, sizeof(sum));
        scores[i] = line_sum(sum);
    }
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
