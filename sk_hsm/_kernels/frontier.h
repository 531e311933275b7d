/* The children of opened nodes that a search has not followed yet, line by line, see lines.h. */
#ifndef SK_HSM_FRONTIER_H
#define SK_HSM_FRONTIER_H

#include <math.h>
#include <stdint.h>

#include "lines.h"

#define TAKEN INT32_MAX /* in place of the node of a child that was followed, or does not exist */

typedef struct {
    double log_p[LINE];
    double node[LINE]; /* integers, of the same type so that both can be compared in one go */
    int32_t above;     /* the number of the list of features found at their parent */
} Line;

/* The most probable child of a line, the first of equals, and its log-probability. */
static CLONED int32_t best_of_line(double *restrict log_p, const Line *restrict line) {
    double p[LINE], top[8], node[LINE];
    EACH p[c] = line->node[c] == TAKEN ? -INFINITY : line->log_p[c];
    for (int c = 0; c < 8; c++) top[c] = p[c] > p[c + 8] ? p[c] : p[c + 8];
    for (int c = 0; c < 4; c++) top[c] = top[c] > top[c + 4] ? top[c] : top[c + 4];
    for (int c = 0; c < 2; c++) top[c] = top[c] > top[c + 2] ? top[c] : top[c + 2];
    *log_p = top[0] > top[1] ? top[0] : top[1];
    EACH node[c] = p[c] == *log_p ? line->node[c] : TAKEN;
    for (int c = 0; c < 8; c++) node[c] = node[c] < node[c + 8] ? node[c] : node[c + 8];
    for (int c = 0; c < 4; c++) node[c] = node[c] < node[c + 4] ? node[c] : node[c + 4];
    for (int c = 0; c < 2; c++) node[c] = node[c] < node[c + 2] ? node[c] : node[c + 2];
    return (int32_t)(node[0] < node[1] ? node[0] : node[1]);
}

/* A line of n children of a node of that log-probability. */
static CLONED void fill_line(Line *restrict line, double log_p, const double *restrict children_log_p,
                             const int32_t *restrict children, int n, int32_t above) {
    EACH line->log_p[c] = log_p + children_log_p[c];
    for (int c = 0; c < n; c++) line->node[c] = children[c];
    for (int c = n; c < LINE; c++) line->node[c] = TAKEN;
    line->above = above;
}

/* Take a child; the best of the others. */
static CLONED int32_t take_from_line(double *restrict best, Line *restrict line, int32_t node) {
    double taken = node;
    EACH line->node[c] = line->node[c] == taken ? TAKEN : line->node[c];
    return best_of_line(best, line);
}

#endif
