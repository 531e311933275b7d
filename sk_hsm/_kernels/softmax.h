/* The logarithms of a node's softmax, in double precision, from logits in lines, see lines.h. */
#ifndef SK_HSM_SOFTMAX_H
#define SK_HSM_SOFTMAX_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "lines.h"

/* Logits of children that exist, and have rows, are at least -LARGEST; below MISSING, as they are or less the
   largest one, are those of the others, NO_CHILD. */
#define MISSING (-1e29f)
#define LARGEST 1e28f

/* Whether a logit of a child that exists is beyond what others can be told from. */
static ALWAYS int is_beyond(const float *restrict z, const float *restrict bias, int width) {
    int beyond = 0;
    for (int l = 0; l < width; l += LINE) {
        int32_t wrong[LINE];
        EACH wrong[c] = !(z[l + c] >= -LARGEST && z[l + c] <= LARGEST) & (bias[l + c] > MISSING);
        for (int c = 0; c < LINE; c++) beyond |= wrong[c];
    }
    return beyond;
}

/* y = exp(x) for x <= 0, to 1e-15 relative, and no less than exp(-700): x is split into n log 2 + r, and exp(r) is its
   Taylor polynomial of degree 13. The number that is added to round to n leaves it in the lowest bits. */
static ALWAYS void wide_exp(double *restrict y, const double *restrict x) {
    double shifted[LINE];
    int64_t power[LINE], bits[LINE];
    EACH {
        double t = x[c] > -700.0 ? x[c] : -700.0;
        double s = t * 1.4426950408889634 + 6755399441055744.0, n = s - 6755399441055744.0;
        double r = (t - n * 0.69314718036912382) - n * 1.9082149292705877e-10;
        shifted[c] = s;
        y[c] = 1.0 + r * (1.0 + r * (1.0 / 2 + r * (1.0 / 6 + r * (1.0 / 24 + r * (1.0 / 120 + r * (1.0 / 720 +
               r * (1.0 / 5040 + r * (1.0 / 40320 + r * (1.0 / 362880 + r * (1.0 / 3628800 + r * (1.0 / 39916800 +
               r * (1.0 / 479001600 + r * (1.0 / 6227020800.0)))))))))))));
    }
    memcpy(power, shifted, sizeof(power));
    memcpy(bits, y, sizeof(bits));
    EACH bits[c] += (int64_t)((uint64_t)power[c] << 52);
    memcpy(y, bits, sizeof(bits));
}

static ALWAYS double wide_sum(const double *x) {
    double s[8];
    for (int c = 0; c < 8; c++) s[c] = x[c] + x[c + 8];
    for (int c = 0; c < 4; c++) s[c] += s[c + 4];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* log_p = z less the largest */
static ALWAYS void less_top(double *restrict log_p, const float *restrict z, int width) {
    float top = line_max(z);
    for (int l = LINE; l < width; l += LINE) top = fmaxf(top, line_max(z + l));
    for (int c = 0; c < width; c++) log_p[c] = (double)z[c] - top;
}

/* log_p = z - log sum exp(z); of a child that does not exist, or has no rows, minus infinity */
static CLONED void log_softmax(double *restrict log_p, const float *restrict z, int width) {
    double e[LINE], total = 0.0;
    less_top(log_p, z, width);
    for (int l = 0; l < width; l += LINE) {
        wide_exp(e, log_p + l);
        total += wide_sum(e);
    }
    total = log(total);
    for (int c = 0; c < width; c++) log_p[c] = log_p[c] > MISSING ? log_p[c] - total : -INFINITY;
}

/* log_softmax, with a share s of the probabilities from a higher temperature T = 3.
   With u = exp(z / T), (1 - s) u^T / total + s u / flat is s u / flat times 1 + ratio * u^(T - 1). */
static CLONED void smoothed_log_softmax(double *restrict log_p, double *restrict u, const float *restrict z, int width,
                                        double smoothing) {
    double cubes[LINE], total = 0.0, flat = 0.0, ratio;
    less_top(log_p, z, width);
    for (int l = 0; l < width; l += LINE) {
        EACH cubes[c] = log_p[l + c] / 3.0;
        wide_exp(u + l, cubes);
        EACH cubes[c] = u[l + c] * u[l + c] * u[l + c];
        flat += wide_sum(u + l);
        total += wide_sum(cubes);
    }
    ratio = (1.0 / smoothing - 1.0) * flat / total;
    flat = log(smoothing / flat);
    for (int c = 0; c < width; c++) {
        double x = flat + log_p[c] / 3.0 + log(1.0 + ratio * u[c] * u[c]);
        log_p[c] = log_p[c] > MISSING ? fmin(x, 0.0) : -INFINITY;
    }
}

#endif
