# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel that scores a row's likely classes again, by their centroids.

Its specification is the function of the same name in ``reference``.
"""
from libc.math cimport INFINITY, exp, fabs, log, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc

from .heaps cimport Candidate, better
from .vectors cimport dot

cdef extern from "lines.h" nogil:
    void prefetch(const float* address)

# a centroid of more than so many times the features of a row is searched for each of these
cdef enum:
    LONG = 2


cdef struct Centroids:
    # without `features`, or if they `are_full`, every class has all of them
    const int64_t* starts
    const int32_t* features
    const float* values
    const float* biases
    const float* feature_weights
    int64_t n_features
    bint by_length
    bint are_full


cdef struct Row:
    # values are to be multiplied by `scale`; if centroids are full they are of all features
    const int32_t* indices
    float* values
    int64_t n
    double scale


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


cdef void score_again(
    const Centroids* c, const Row* row, double power, double weight, Candidate* items, int n
) noexcept nogil:
    """Divide what these classes have of the probability anew; in the order of answers."""
    cdef double log_total = normalise(items, n, 0)
    cdef Candidate item
    cdef int i, at
    for i in range(n):  # so that the memory of all is fetched at once
        prefetch(c.values + c.starts[items[i].node])
        prefetch(<const float*>c.features + c.starts[items[i].node])
    for i in range(n):
        items[i].log_p = power * items[i].log_p + weight * similarity(c, row, items[i].node)
    normalise(items, n, log_total)
    for i in range(n):
        item, at = items[i], i
        while at > 0 and better(item, items[at - 1]):
            items[at] = items[at - 1]
            at -= 1
        items[at] = item


cdef void merge(const Candidate* items, int n, int32_t* classes, double* log_proba, Py_ssize_t width) noexcept nogil:
    """Put items in the place of the first n answers, and all in order."""
    cdef Py_ssize_t rest = n, at = 0
    cdef int i = 0
    cdef Candidate other
    while i < n:
        if rest < width:
            other = Candidate(log_proba[rest], classes[rest], 0)
        if rest < width and classes[rest] >= 0 and better(other, items[i]):
            classes[at], log_proba[at] = other.node, other.log_p
            rest += 1
        else:
            classes[at], log_proba[at] = items[i].node, items[i].log_p
            i += 1
        at += 1


def rescore(
    centroids,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    double power,
    double weight,
    int most,
    double least,
    int32_t[:, ::1] classes,
    double[:, ::1] log_proba,
):
    cdef const int64_t[::1] starts = centroids.starts
    cdef const int32_t[::1] features = centroids.features
    cdef const float[::1] values = centroids.values, biases = centroids.biases
    cdef const float[::1] feature_weights = centroids.feature_weights
    cdef Centroids c
    cdef Row row
    cdef Py_ssize_t i, width = classes.shape[1]
    cdef int64_t longest = 0
    cdef int n
    cdef Candidate* items = <Candidate*>malloc((most + 1) * sizeof(Candidate))
    for i in range(classes.shape[0]):
        longest = max(longest, indptr[i + 1] - indptr[i])
    c.n_features = centroids.n_features
    c.are_full = starts[starts.shape[0] - 1] == c.n_features * (starts.shape[0] - 1)
    row.values = <float*>calloc((c.n_features if c.are_full else longest) + 1, sizeof(float))
    if items == NULL or row.values == NULL:
        free(items)
        free(row.values)
        raise MemoryError(f"no memory to score {most} classes again")
    c.starts, c.biases, c.by_length = &starts[0], &biases[0], feature_weights.shape[0] > 0
    c.features = &features[0] if features.shape[0] else NULL
    c.values = &values[0] if values.shape[0] else NULL
    c.feature_weights = &feature_weights[0] if feature_weights.shape[0] else NULL
    with nogil:
        for i in range(classes.shape[0]):
            n = 0
            while n < most and n < width and classes[i, n] >= 0 and log_proba[i, n] >= least:
                items[n] = Candidate(log_proba[i, n], classes[i, n], 0)
                n += 1
            if n < 2:
                continue
            open_row(&row, &c, &indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
            score_again(&c, &row, power, weight, items, n)
            close_row(&row, &c)
            merge(items, n, &classes[i, 0], &log_proba[i, 0], width)
        free(items)
        free(row.values)
