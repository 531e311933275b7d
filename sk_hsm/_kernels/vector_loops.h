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

/* back += errors[i] vectors[i], as they were; vectors[i] -= errors[i] h */
TARGET static void NAME(steps)(float *const *vectors, const float *errors, int n, float *back, const float *h,
                               int width) {
    for (int i = 0; i < n; i++) {
        float *v = vectors[i], e = errors[i];
        for (int l = 0; l < width; l += PACK) {
            NAME(pack) before = AT(v, l);
            AT(back, l) += e * before;
            AT(v, l) = before - e * AT(h, l);
        }
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
