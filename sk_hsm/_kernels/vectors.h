/* Loops over dense vectors, whose length is a multiple of 16: embeddings, and the vectors of nodes.
   They are there twice, for every processor and for those with AVX2, which halves their time; both
   add up in the same order and give the same bits. */
#ifndef SK_HSM_VECTORS_H
#define SK_HSM_VECTORS_H

#include "lines.h"

#define NAME(function) function##_of_4
#define PACK 4
#define TARGET
#include "vector_loops.h"

#if defined(__GNUC__) && defined(__x86_64__)
#define NAME(function) function##_of_8
#define PACK 8
#define TARGET __attribute__((target("avx2")))
#include "vector_loops.h"
#endif

typedef struct {
    void (*dots)(float *scores, float *const *vectors, int n, const float *h, int width);
    void (*steps)(float *const *vectors, const float *errors, int n, float *back, const float *h, int width);
    void (*axpy)(float *y, float a, const float *x, int width);
    double (*sum_exp)(const float *x, int width, float shift);
} VectorLoops;

static inline VectorLoops vector_loops(void) {
    VectorLoops loops = {dots_of_4, steps_of_4, axpy_of_4, sum_exp_of_4};
#if defined(__GNUC__) && defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) loops = (VectorLoops){dots_of_8, steps_of_8, axpy_of_8, sum_exp_of_8};
#endif
    return loops;
}

/* x . z, of any length */
static inline float dot(const float *restrict x, const float *restrict z, int n) {
    float sum[LINE] = {0.0f}, rest = 0.0f;
    int l = 0;
    for (; l + LINE <= n; l += LINE) {
        EACH sum[c] += x[l + c] * z[l + c];
    }
    for (; l < n; l++) rest += x[l] * z[l];
    return line_sum(sum) + rest;
}

/* The curvature of a softmax along its weights is at most |x|^2 / 2: steps of a rate beyond 4 / |x|^2 overshoot. */
#define REACH 4.0f

static inline float stable_rate(float rate, float size2) { return rate * size2 > REACH ? REACH / size2 : rate; }

/* A step of rate * gradient, on something that is multiplied by a vector of that squared size, shortened so that
   it lowers the loss by REACH at most, as far as the gradient says. */
static inline void shorten_step(float *step, int n, float rate, float size2) {
    float fall = dot(step, step, n) * size2;
    if (fall > REACH * rate)
        for (int l = 0; l < n; l++) step[l] *= REACH * rate / fall;
}

/* scores -> 1 / (1 + exp(-score)), in whole lines */
static inline void sigmoids(float *scores, int n) {
    for (int l = 0; l < n; l += LINE) {
        float *z = scores + l, below[LINE], e[LINE];
        EACH below[c] = z[c] > 0.0f ? -z[c] : z[c];
        line_exp(e, below, 0.0f);
        EACH z[c] = (z[c] > 0.0f ? 1.0f : e[c]) / (1.0f + e[c]);
    }
}

/* scores -> their softmax; up to a whole line of them is written to */
static inline void softmax(float *scores, int n) {
    int width = line_width(n);
    float top = scores[0], total = 0.0f, e[LINE];
    for (int c = n; c < width; c++) scores[c] = -1e30f;
    for (int l = 0; l < width; l += LINE) top = line_max(scores + l) > top ? line_max(scores + l) : top;
    for (int l = 0; l < width; l += LINE) {
        line_exp(e, scores + l, top);
        memcpy(scores + l, e, sizeof(e));
        total += line_sum(e);
    }
    for (int l = 0; l < width; l += LINE) line_scale(scores + l, 1.0f / total);
}

/* the l-th number and those after it, and numbers that exp is nil of where there are no more */
static inline void copy_line(float *line, const float *x, int l, int n) {
    for (int c = 0; c < LINE; c++) line[c] = l + c < n ? x[l + c] : -1e30f;
}

/* exp(scores), of scores up to 0; up to whole lines are written to, with zeros */
static inline void exponentials(float *out, const float *scores, int n) {
    for (int l = 0; l < n; l += LINE) {
        float z[LINE];
        copy_line(z, scores, l, n);
        line_exp(out + l, z, 0.0f);
    }
}

/* the logarithm of the sum of exp(scores), in double, so that probabilities add up to one */
static inline double log_sum_exp(const VectorLoops *loops, const float *scores, int n) {
    float top = scores[0], last[LINE];
    int whole = n - n % LINE;
    double total;
    for (int l = 0; l < whole; l += LINE) top = line_max(scores + l) > top ? line_max(scores + l) : top;
    for (int c = whole; c < n; c++) top = scores[c] > top ? scores[c] : top;
    total = loops->sum_exp(scores, whole, top);
    if (whole < n) {
        for (int c = 0; c < LINE; c++) last[c] = whole + c < n ? scores[whole + c] : -INFINITY;
        total += loops->sum_exp(last, LINE, top);
    }
    return (double)top + log(total);
}

static inline double weighted_sum(const float *x, const float *weights, int width) {
    double total = 0.0;
    for (int l = 0; l < width; l += LINE) total += line_dot(x + l, weights + l);
    return total;
}

static inline void prefetch_vector(const float *x, int width) {
    for (int l = 0; l < width; l += LINE) prefetch(x + l);
}

/* features of a row that are fetched ahead */
#define AHEAD 4

static inline void prefetch_embedding(const int32_t *features, int64_t n, const float *embedding, int width) {
    for (int64_t j = 0; j < n && j < AHEAD; j++) prefetch_vector(embedding + (int64_t)features[j] * width, width);
}

/* h = sum of value * embedding over a row's n non-zeros */
static inline void embed(const VectorLoops *loops, float *h, const int32_t *features, const float *values, int64_t n,
                         const float *embedding, int width) {
    memset(h, 0, width * sizeof(float));
    for (int64_t j = 0; j < n; j++) loops->axpy(h, values[j], embedding + (int64_t)features[j] * width, width);
}

/* the embeddings of a row's n non-zeros -= value * back */
static inline void move_embedding(const VectorLoops *loops, const float *back, const int32_t *features,
                                  const float *values, int64_t n, float *embedding, int width) {
    for (int64_t j = 0; j < n; j++) loops->axpy(embedding + (int64_t)features[j] * width, -values[j], back, width);
}

#endif
