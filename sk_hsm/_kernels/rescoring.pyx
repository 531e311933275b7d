# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A row's likely classes, scored again by their centroids: for searches, and kernels for answers of theirs.

Specifications are the functions of the same names in ``reference``.
"""
from libc.math cimport INFINITY, exp, fabs, log, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from .answers cimport Answers, offer_best
from .heaps cimport Candidate, better, pop
from .scores cimport Query
from .vectors cimport dot

cdef extern from "lines.h" nogil:
    void prefetch(const float* address)

# a centroid of more than so many times the features of a row is searched for each of these
cdef enum:
    LONG = 2


cdef void open_row(Row* row, const Centroids* c, const int32_t* indices, const float* data, int64_t n) noexcept nogil:
    """By features' weights, and of length one; or as it is."""
    cdef double size = 0
    cdef int64_t j
    cdef float value
    row.indices, row.n, row.scale = indices, n, 1
    for j in range(n):
        if c.by_length:
            size += <double>data[j] * data[j] * c.feature_weights[indices[j]]
        else:
            size = max(size, fabs(data[j]))
    if c.by_length:
        size = sqrt(size)
    else:
        row.scale = size
    for j in range(n):
        value = <float>(data[j] / size) if size > 0 else 0
        if c.by_length:
            value *= c.feature_weights[indices[j]]
        row.values[indices[j] if c.are_full else j] = value


cdef void close_row(Row* row, const Centroids* c) noexcept nogil:
    """Zeros again, where there are values of all features."""
    cdef int64_t j
    if c.are_full:
        for j in range(row.n):
            row.values[row.indices[j]] = 0


cdef double similarity(const Centroids* c, const Row* row, int32_t label) noexcept nogil:
    cdef const float* values = c.values + c.starts[label]
    cdef const int32_t* features = c.features + c.starts[label]
    cdef int64_t n = c.starts[label + 1] - c.starts[label], i = 0, j = 0, size, half
    cdef double total = 0
    if c.are_full:
        total = dot(row.values, values, <int>n)
    elif n == c.n_features:
        for j in range(row.n):
            total += row.values[j] * values[row.indices[j]]
    elif n > LONG * row.n:
        for j in range(row.n):
            i, size = 0, n  # not from where the last was found, so that searches overlap
            while size > 1:  # without a branch: either half is as likely
                half = size // 2
                i += half * (features[i + half - 1] < row.indices[j])
                size -= half
            if features[i] == row.indices[j]:
                total += row.values[j] * values[i]
    else:
        while i < n and j < row.n:
            if features[i] == row.indices[j]:
                total += row.values[j] * values[i]
                i += 1
                j += 1
            elif features[i] < row.indices[j]:
                i += 1
            else:
                j += 1
    return row.scale * total + c.biases[label]


cdef double normalise(Candidate* items, int n, double log_total) noexcept nogil:
    """Probabilities in the same proportions, of that sum; return what the sum was before, as a logarithm."""
    cdef double top = -INFINITY, total = 0
    cdef int i
    for i in range(n):
        top = max(top, items[i].log_p)
    for i in range(n):
        items[i].log_p -= top  # which may be huge
        total += exp(items[i].log_p)
    for i in range(n):
        items[i].log_p += log_total - log(total)
    return top + log(total)


cdef void score_again(Rescorer* r, Query* x, Candidate* items, int n) noexcept nogil:
    """Divide what these classes have of the probability anew; in the order of answers."""
    cdef const Centroids* c = &r.centroids
    cdef double log_total = normalise(items, n, 0)
    cdef Candidate item
    cdef int i, at
    for i in range(n):  # so that the memory of all is fetched at once
        prefetch(c.values + c.starts[items[i].node])
        prefetch(<const float*>c.features + c.starts[items[i].node])
    open_row(&r.row, c, x.indices, x.data, x.n)
    for i in range(n):
        items[i].log_p = r.power * items[i].log_p + r.weight * similarity(c, &r.row, items[i].node)
    close_row(&r.row, c)
    normalise(items, n, log_total)
    for i in range(n):
        item, at = items[i], i
        while at > 0 and better(item, items[at - 1]):
            items[at] = items[at - 1]
            at -= 1
        items[at] = item


cdef int settle(Rescorer* r, Query* x, Answers* answers) noexcept nogil:
    """Score the classes again that were collected for it, and offer them; -1 where memory runs out."""
    cdef Candidate item
    cdef int i, n = <int>answers.likely.size
    while answers.likely.size > 0:  # in their order, as they are wherever they are scored again
        item = pop(&answers.likely)
        answers.likely.items[answers.likely.size] = item
    if n > 1:
        score_again(r, x, answers.likely.items, n)
    answers.is_collecting = False
    for i in range(n):
        if offer_best(answers, answers.likely.items[i]) < 0:
            return -1
    return 0


cdef int open_rescorer(Rescorer* r, rescoring, const int64_t[::1] indptr) except -1:
    cdef const int64_t[::1] starts = rescoring.starts
    cdef const int32_t[::1] features = rescoring.features
    cdef const float[::1] values = rescoring.values, biases = rescoring.biases
    cdef const float[::1] feature_weights = rescoring.feature_weights
    cdef Centroids* c = &r.centroids
    cdef int64_t size = 0
    cdef Py_ssize_t i
    r.power, r.weight = rescoring.power, rescoring.weight
    c.starts, c.biases, c.by_length = &starts[0], &biases[0], feature_weights.shape[0] > 0
    c.features = &features[0] if features.shape[0] else NULL
    c.values = &values[0] if values.shape[0] else NULL
    c.feature_weights = &feature_weights[0] if feature_weights.shape[0] else NULL
    c.n_features = rescoring.n_features
    c.are_full = starts[starts.shape[0] - 1] == c.n_features * (starts.shape[0] - 1)
    for i in range(indptr.shape[0] - 1):
        size = max(size, indptr[i + 1] - indptr[i])
    r.row.values = <float*>calloc((c.n_features if c.are_full else size) + 1, sizeof(float))
    if r.row.values == NULL:
        raise MemoryError(f"no memory to score classes again by {c.n_features} features")
    return 0


cdef void close_rescorer(Rescorer* r) noexcept nogil:
    free(r.row.values)
    r.row.values = NULL


def similarities(
    rescoring,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const int32_t[:, ::1] classes,
    double[:, ::1] similarity_of,
):
    cdef Rescorer r
    cdef Py_ssize_t i, at
    memset(&r, 0, sizeof(Rescorer))
    try:
        open_rescorer(&r, rescoring, indptr)
        with nogil:
            for i in range(classes.shape[0]):
                open_row(&r.row, &r.centroids, &indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
                for at in range(classes.shape[1]):
                    if classes[i, at] >= 0:
                        similarity_of[i, at] = similarity(&r.centroids, &r.row, classes[i, at])
                close_row(&r.row, &r.centroids)
    finally:
        close_rescorer(&r)


def rescore(
    rescoring,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    int32_t[:, ::1] classes,
    double[:, ::1] log_proba,
):
    cdef Rescorer r
    cdef Query x
    cdef Py_ssize_t i, width = classes.shape[1]
    cdef int n, at
    cdef Candidate* items = NULL
    memset(&r, 0, sizeof(Rescorer))
    try:
        items = <Candidate*>malloc((width + 1) * sizeof(Candidate))
        if items == NULL:
            raise MemoryError(f"no memory to score {width} classes again")
        open_rescorer(&r, rescoring, indptr)
        with nogil:
            for i in range(classes.shape[0]):
                x = Query(&indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
                n = 0
                while n < width and classes[i, n] >= 0:
                    items[n] = Candidate(log_proba[i, n], classes[i, n], 0)
                    n += 1
                if n < 2:
                    continue
                score_again(&r, &x, items, n)
                for at in range(n):
                    classes[i, at], log_proba[i, at] = items[at].node, items[at].log_p
    finally:
        free(items)
        close_rescorer(&r)
