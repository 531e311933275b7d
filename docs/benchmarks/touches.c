/* What roofline.py compares with: the lines of weights that a fit or a search touches, and nothing else.
   Its loops over lines are those of the kernels. */
#include <stdlib.h>
#include <time.h>

#include "lines.h"

static volatile float sink;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* As the kernel does: of the next visit the lines, of a later one what its row holds. */
static inline void fetch(const float *weights, const int64_t *indptr, const int32_t *indices, const float *values,
                         const int64_t *visits, int64_t k, int64_t n_visits, int width) {
    if (k + 1 < n_visits)
        for (int64_t j = indptr[visits[k + 1] / 2]; j < indptr[visits[k + 1] / 2 + 1]; j++)
            prefetch(weights + (int64_t)indices[j] * width);
    if (k + 3 < n_visits)
        for (int64_t j = indptr[visits[k + 3] / 2]; j < indptr[visits[k + 3] / 2 + 1]; j += LINE) {
            prefetch(values + j);
            prefetch((const float *)(indices + j));
        }
    if (k + 6 < n_visits) prefetch((const float *)(indptr + visits[k + 6] / 2));
}

/* Seconds of so many visits of rows, each its number times 2, plus 1 where it also updates its lines. */
double touch(float *weights, const int64_t *indptr, const int32_t *indices, const float *values,
             const int64_t *visits, int64_t n_visits, int width, int ahead) {
    float *total = aligned_alloc(64, 4 * width * sizeof(float));
    float *bias = total + width, *z = bias + width, *step = z + width;
    double begin;
    for (int c = 0; c < width; c++) total[c] = bias[c] = 0.0f, step[c] = 1e-6f;
    begin = now();
    for (int64_t k = 0; k < n_visits; k++) {
        int64_t first = indptr[visits[k] / 2], n = indptr[visits[k] / 2 + 1] - first;
        if (ahead) fetch(weights, indptr, indices, values, visits, k, n_visits, width);
        row_logits(z, bias, weights, indices + first, values + first, n, width);
        for (int l = 0; l < width; l += LINE) line_axpy(total + l, 1.0f, z + l);
        if (visits[k] % 2) row_update(weights, step, indices + first, values + first, n, width);
    }
    begin = now() - begin;
    for (int c = 0; c < width; c++) sink = total[c]; /* so that no compiler leaves the rows out */
    free(total);
    return begin;
}

static uint64_t shuffle(int64_t *rows, int64_t n, uint64_t state) {
    for (int64_t k = n - 1; k > 0; k--) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        int64_t other = (state >> 33) % (uint64_t)(k + 1), row = rows[k];
        rows[k] = rows[other];
        rows[other] = row;
    }
    return state;
}

/* as in ascent.pyx */
enum { CYCLE = 10, EARLY = 5, ENOUGH = 1000, SHARE = 16, EVEN = 10 };

static int is_within(double total, double squares, int64_t n, int64_t n_all, double limit) {
    double mean = total / n, variance = squares / n - mean * mean;
    return n_all * (mean + 3 * sqrt((variance > 0 ? variance : 0) / n)) <= limit;
}

/* `ascend` of ascent.pyx again, which writes down its visits; returns their number. */
int64_t record(float *weights, float *bias, const int64_t *indptr, const int32_t *indices, const float *values,
               const float *square_norms, const float *costs, float *dual, int64_t n, int width, int has_bias,
               double tol, int max_iter, uint64_t seed, int64_t *visits, int32_t *n_iter) {
    int64_t *active = malloc((n + 1) * sizeof(int64_t)), n_active = n, n_visits = 0;
    float *z = aligned_alloc(64, 3 * width * sizeof(float)), *p = z + width, *step = p + width;
    int done = 0, measuring = 0, n_partial = 0;
    float idle = 0.1 * tol, largest = 0;
    double total = 0, left_out = 0, limit, former;
    int64_t enough;
    *n_iter = 0;
    for (int64_t i = 0; i < n; i++) {
        total += costs[i];
        largest = costs[i] > largest ? costs[i] : largest;
        active[i] = i;
    }
    limit = former = tol * total;
    enough = n / SHARE > ENOUGH ? n / SHARE : ENOUGH;
    if ((double)largest * n > EVEN * total) enough = n + 1;
    while (*n_iter < max_iter && !done) {
        double gap = left_out, squares = 0;
        int64_t n_kept = 0;
        ++*n_iter;
        seed = shuffle(active, n_active, seed);
        for (int64_t k = 0; k < n_active && !done; k++) {
            int64_t i = active[k], first = indptr[i], nnz = indptr[i + 1] - first;
            float *q = dual + i * width, divergence;
            double one;
            row_logits(z, bias, weights, indices + first, values + first, nnz, width);
            divergence = row_divergence(q, z, row_softmax(p, z, width), width);
            one = (double)costs[i] * divergence;
            gap += one;
            squares += one * one;
            visits[n_visits] = 2 * i;
            if (measuring && k + 1 == enough && is_within(gap, squares, enough, n, limit)) {
                gap *= (double)n / enough;
                done = 1;
            } else if (divergence <= idle) {
                left_out += one;
            } else {
                active[n_kept++] = i;
                if (!measuring) {
                    visits[n_visits] += 1;
                    row_step(q, p, step, costs[i] * square_norms[i], costs[i], divergence, width);
                    row_update(weights, step, indices + first, values + first, nnz, width);
                    for (int c = 0; c < width && has_bias; c++) bias[c] += step[c];
                }
            }
            n_visits++;
        }
        done = done || (gap <= limit && (measuring || (*n_iter <= EARLY && gap <= former / 2)));
        former = gap;
        n_active = n_kept;
        measuring = !measuring && (gap <= limit || n_kept == 0);
        n_partial++;
        if (measuring || n_partial == CYCLE) {
            n_partial = 0;
            left_out = 0;
            n_active = n;
            for (int64_t i = 0; i < n; i++) active[i] = i;
        }
    }
    free(active);
    free(z);
    return n_visits;
}
