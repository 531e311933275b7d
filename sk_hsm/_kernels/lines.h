/* A line is sixteen floats, one cache line: the weights that up to sixteen
   children of a node give to one feature. A row's logits, probabilities and dual
   point are as many lines as a feature's weights: `width` floats.
   Loops run over whole lines, so that compilers turn them into vector
   instructions, and sums keep a fixed order, so that results do not depend on
   which instructions those are. */
#ifndef SK_HSM_LINES_H
#define SK_HSM_LINES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LINE 16
#define NO_CHILD (-1e30f) /* the bias, and the logit, of a child that is padding or has no rows */
/* ALWAYS inline: left to the compiler, loops over rows take up to twice as long, depending on what else they hold */
#if defined(_MSC_VER)
#define restrict __restrict
#define EACH for (int c = 0; c < LINE; c++)
#define prefetch(address) ((void)0)
#define ALWAYS __forceinline
#else
#define EACH _Pragma("omp simd") for (int c = 0; c < LINE; c++)
#define prefetch(address) __builtin_prefetch(address)
#define ALWAYS inline __attribute__((always_inline))
#endif

/* Compiled more than once: CLONED with AVX2 and without, WIDE with AVX-512, too, for which a line is one register and
   from which answers, of many small steps, gain nothing. All round the same, as no product and sum are fused
   (-ffp-contract=off). Fits of sparse rows take a tenth less time so, of dense ones half. */
#define CLONED
#define WIDE
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#undef CLONED
#undef WIDE
#define CLONED __attribute__((target_clones("avx2", "default"), unused))
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default"), unused))
#endif
#endif

/* floats of the lines that so many children take */
static ALWAYS int line_width(int arity) { return LINE * ((arity + LINE - 1) / LINE); }

/* below this, exp is taken as 0, which keeps denormal numbers out */
#define EXP_FLOOR (-60.0f)
#define EXP_FLOOR_BITS (-87)

static ALWAYS float line_sum(const float *x) {
    float s[8];
    for (int c = 0; c < 8; c++) s[c] = x[c] + x[c + 8];
    for (int c = 0; c < 4; c++) s[c] += s[c + 4];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

static ALWAYS float line_max(const float *x) {
    float s[8];
    for (int c = 0; c < 8; c++) s[c] = x[c] > x[c + 8] ? x[c] : x[c + 8];
    for (int c = 0; c < 4; c++) s[c] = s[c] > s[c + 4] ? s[c] : s[c + 4];
    for (int c = 0; c < 2; c++) s[c] = s[c] > s[c + 2] ? s[c] : s[c + 2];
    return s[0] > s[1] ? s[0] : s[1];
}

/* y += a x */
static ALWAYS void line_axpy(float *restrict y, float a, const float *restrict x) {
    EACH y[c] += a * x[c];
}

static ALWAYS void line_scale(float *restrict y, float a) {
    EACH y[c] *= a;
}

/* y = exp(x - shift) for x <= shift, to 2e-7 relative: x is split into n log 2 + r,
   and exp(r) is its Taylor polynomial of degree 6 */
static ALWAYS void line_exp(float *restrict y, const float *restrict x, float shift) {
    float scale[LINE];
    int32_t bits[LINE];
    EACH {
        float t = x[c] - shift;
        t = t > EXP_FLOOR ? t : EXP_FLOOR;
        float n = (t * 1.44269504f + 12582912.0f) - 12582912.0f; /* nearest integer */
        float r = (t - n * 0.693359375f) + n * 2.12194440e-4f;
        int32_t e = (int32_t)n;
        y[c] = 1.0f + r * (1.0f + r * (0.5f + r * (1.66666667e-1f +
               r * (4.16666667e-2f + r * (8.3333333e-3f + r * 1.3888889e-3f)))));
        bits[c] = e > EXP_FLOOR_BITS ? (e + 127) * (1 << 23) : 0;
    }
    memcpy(scale, bits, sizeof(scale));
    EACH y[c] *= scale[c];
}

/* y = log(x) for normal x > 0, and finite for 0: x is split into m 2^e with m in [0.7, 1.4], and
   log m = 2 atanh((m - 1) / (m + 1)) is its series to the ninth power */
static ALWAYS void line_log(float *restrict y, const float *restrict x) {
    float m[LINE];
    int32_t bits[LINE], exponent[LINE];
    memcpy(bits, x, sizeof(bits));
    EACH {
        exponent[c] = (bits[c] - 0x3f3504f3) >> 23;
        bits[c] -= exponent[c] * (1 << 23);
    }
    memcpy(m, bits, sizeof(m));
    EACH {
        float r = (m[c] - 1.0f) / (m[c] + 1.0f), s = r * r;
        float log_m = 2.0f * r * (1.0f + s * (0.333333333f + s * (0.2f + s * (0.142857143f + s * 0.111111111f))));
        y[c] = log_m + 0.693147181f * (float)exponent[c];
    }
}

/* sum of x log x for 0 <= x <= 1 */
static ALWAYS float line_sum_xlogx(const float *restrict x) {
    float term[LINE];
    line_log(term, x);
    EACH term[c] *= x[c];
    return line_sum(term);
}

static ALWAYS float line_dot(const float *restrict x, const float *restrict y) {
    float product[LINE];
    EACH product[c] = x[c] * y[c];
    return line_sum(product);
}

/* step = p - q; add to the sums of its absolute values and squares */
static ALWAYS void line_difference(float *restrict step, const float *restrict p, const float *restrict q,
                                   float *norm1, float *norm2) {
    float absolute[LINE], square[LINE];
    EACH {
        float d = p[c] - q[c];
        step[c] = d;
        absolute[c] = d > 0.0f ? d : -d;
        square[c] = d * d;
    }
    *norm1 += line_sum(absolute);
    *norm2 += line_sum(square);
}

/* q += s step; step = cost * (old q - new q) */
static ALWAYS void line_move(float *restrict q, float *restrict step, float s, float cost) {
    EACH {
        float moved = q[c] + s * step[c];
        step[c] = cost * (q[c] - moved);
        q[c] = moved;
    }
}

/* z = bias + sum over the row's n non-zeros of value * weight lines */
static ALWAYS void row_logits(float *restrict z, const float *restrict bias, const float *restrict weights,
                              const int32_t *restrict indices, const float *restrict values, int64_t n, int width) {
    for (int l = 0; l < width; l += LINE) {
        float even[LINE], odd[LINE] = {0.0f}; /* two sums, so that one addition need not wait for the last */
        int64_t j = 0;
        memcpy(even, bias + l, sizeof(even));
        for (; j + 1 < n; j += 2) {
            line_axpy(even, values[j], weights + (int64_t)indices[j] * width + l);
            line_axpy(odd, values[j + 1], weights + (int64_t)indices[j + 1] * width + l);
        }
        if (j < n) line_axpy(even, values[j], weights + (int64_t)indices[j] * width + l);
        EACH z[l + c] = even[c] + odd[c];
    }
}

/* the same for training; the few features that a node has of a row are not worth the call */
static WIDE void sparse_logits(float *restrict z, const float *restrict bias, const float *restrict weights,
                               const int32_t *restrict indices, const float *restrict values, int64_t n, int width) {
    row_logits(z, bias, weights, indices, values, n, width);
}

/* the value of a feature, of a row that has all up to some feature */
static ALWAYS float value_of(uint32_t feature, const float *restrict values, uint32_t n_values) {
    return feature < n_values ? values[feature] : 0.0f;
}

/* z += sum over a node's n features of value * weight lines */
static CLONED void add_every_line(float *restrict z, const float *restrict weights, const int32_t *restrict features,
                                  int64_t n, const float *restrict values, uint32_t n_values, int width) {
    for (int l = 0; l < width; l += LINE) {
        float even[LINE] = {0.0f}, odd[LINE] = {0.0f};
        int64_t j = 0;
        for (; j + 1 < n; j += 2) {
            line_axpy(even, value_of(features[j], values, n_values), weights + j * width + l);
            line_axpy(odd, value_of(features[j + 1], values, n_values), weights + (j + 1) * width + l);
        }
        if (j < n) line_axpy(even, value_of(features[j], values, n_values), weights + j * width + l);
        EACH z[l + c] += even[c] + odd[c];
    }
}

/* weight lines += value * step over the row's n non-zeros */
static WIDE void row_update(float *restrict weights, const float *restrict step,
                              const int32_t *restrict indices, const float *restrict values, int64_t n, int width) {
    for (int l = 0; l < width; l += LINE)
        for (int64_t j = 0; j < n; j++) line_axpy(weights + (int64_t)indices[j] * width + l, values[j], step + l);
}

/* row_logits of a row that has a value of each of n features */
static WIDE void full_logits(float *restrict z, const float *restrict bias, const float *restrict weights,
                               const float *restrict values, int64_t n, int width) {
    for (int l = 0; l < width; l += LINE) {
        float even[LINE], odd[LINE] = {0.0f};
        int64_t j = 0;
        memcpy(even, bias + l, sizeof(even));
        for (; j + 1 < n; j += 2) {
            line_axpy(even, values[j], weights + j * width + l);
            line_axpy(odd, values[j + 1], weights + (j + 1) * width + l);
        }
        if (j < n) line_axpy(even, values[j], weights + j * width + l);
        EACH z[l + c] = even[c] + odd[c];
    }
}

/* row_update of such a row */
static WIDE void full_update(float *restrict weights, const float *restrict step,
                               const float *restrict values, int64_t n, int width) {
    for (int l = 0; l < width; l += LINE)
        for (int64_t j = 0; j < n; j++) line_axpy(weights + j * width + l, values[j], step + l);
}

static ALWAYS void any_logits(float *restrict z, const float *restrict bias, const float *restrict weights,
                              const int32_t *restrict indices, const float *restrict values, int64_t n, int width,
                              int is_full) {
    if (is_full) full_logits(z, bias, weights, values, n, width);
    else sparse_logits(z, bias, weights, indices, values, n, width);
}

static ALWAYS void any_update(float *restrict weights, const float *restrict step, const int32_t *restrict indices,
                              const float *restrict values, int64_t n, int width, int is_full) {
    if (is_full) full_update(weights, step, values, n, width);
    else row_update(weights, step, indices, values, n, width);
}

/* p = softmax(z); return log sum exp(z) */
static WIDE float row_softmax(float *restrict p, const float *restrict z, int width) {
    float top = line_max(z), total = 0.0f;
    for (int l = LINE; l < width; l += LINE) top = fmaxf(top, line_max(z + l));
    for (int l = 0; l < width; l += LINE) {
        line_exp(p + l, z + l, top);
        total += line_sum(p + l);
    }
    for (int l = 0; l < width; l += LINE) line_scale(p + l, 1.0f / total);
    return top + logf(total);
}

/* KL(q || softmax(z)), given log sum exp(z) */
static WIDE float row_divergence(const float *restrict q, const float *restrict z, float log_sum, int width) {
    float total = log_sum;
    for (int l = 0; l < width; l += LINE) total += line_sum_xlogx(q + l) - line_dot(q + l, z + l);
    return total > 0.0f ? total : 0.0f;
}

/* The step of Shalev-Shwartz and Zhang (2014) for the softmax loss: move the dual
   point q towards p, where a = cost * ||x||^2; leave cost * (old q - new q) in step. */
static WIDE void row_step(float *restrict q, const float *restrict p, float *restrict step,
                            float a, float cost, float divergence, int width) {
    float norm1 = 0.0f, norm2 = 0.0f;
    for (int l = 0; l < width; l += LINE) line_difference(step + l, p + l, q + l, &norm1, &norm2);
    norm1 *= norm1;
    float s = (divergence + 0.5f * norm1) / (a * norm2 + norm1);
    s = s < 1.0f ? s : 1.0f;
    for (int l = 0; l < width; l += LINE) line_move(q + l, step + l, s, cost);
}

/* less the mean over the n_present children; zero for the others */
static ALWAYS void centre_present(float *restrict x, const float *restrict present, float n_present, int width) {
    float mean = 0.0f;
    for (int l = 0; l < width; l += LINE) {
        EACH x[l + c] *= present[l + c];
        mean += line_sum(x + l);
    }
    mean /= n_present;
    for (int l = 0; l < width; l += LINE) line_axpy(x + l, -mean, present + l);
}

static ALWAYS double double_sum(const double *x) {
    double s[8];
    for (int c = 0; c < 8; c++) s[c] = x[c] + x[c + 8];
    for (int c = 0; c < 4; c++) s[c] += s[c + 4];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* total += x^2 */
static ALWAYS void line_add_squares(double *restrict total, const double *restrict x) {
    EACH total[c] += x[c] * x[c];
}

/* y = scale x */
static ALWAYS void line_scaled(float *restrict y, const double *restrict scale, const double *restrict x) {
    EACH y[c] = (float)(scale[c] * x[c]);
}

/* smoothed log-odds of a feature, from its sums by child */
static ALWAYS void feature_log_odds(float *restrict odds, const double *restrict sums, const float *restrict shares,
                                    double smoothing, int width) {
    double total = 0.0;
    for (int l = 0; l < width; l += LINE) total += double_sum(sums + l);
    for (int l = 0; l < width; l += LINE) {
        float ratio[LINE];
        EACH ratio[c] = (float)((sums[l + c] + smoothing) / (total * shares[l + c] + smoothing));
        line_log(odds + l, ratio);
    }
}

/* the same of all features, centred over the children that are present */
static WIDE void centred_log_odds(float *odds, const double *sums, const float *shares, const float *present,
                                    float n_present, double smoothing, int64_t n_features, int width) {
    for (int64_t f = 0; f < n_features; f++) {
        feature_log_odds(odds + f * width, sums + f * width, shares, smoothing, width);
        centre_present(odds + f * width, present, n_present, width);
    }
}

#endif
