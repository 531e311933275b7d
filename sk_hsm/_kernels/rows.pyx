# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that look at rows: sums, hashes, and whether a row is as kernels need it.

Their specification is the function of the same name in ``reference``.
"""
from libc.float cimport FLT_MAX
from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy


def hash_rows(
    const int64_t[::1] indptr, const int32_t[::1] indices, const float[::1] data, uint64_t[::1] out
):
    cdef Py_ssize_t i
    cdef int64_t j
    cdef uint32_t bits
    with nogil:
        for i in range(out.shape[0]):
            out[i] = 0
            for j in range(indptr[i], indptr[i + 1]):
                if data[j] != 0:
                    memcpy(&bits, &data[j], sizeof(bits))
                    out[i] += mix((<uint64_t>indices[j]) << 32 | bits)


def sum_magnitudes(const int64_t[::1] indptr, const float[::1] data, double[::1] sums, int64_t[::1] counts):
    cdef Py_ssize_t i
    cdef int64_t j
    with nogil:
        for i in range(sums.shape[0]):
            sums[i], counts[i] = 0, 0
            for j in range(indptr[i], indptr[i + 1]):
                sums[i] += fabs(data[j])
                counts[i] += data[j] != 0


def is_plain(const int32_t[::1] columns, const float[::1] values, int64_t n_features):
    cdef Py_ssize_t j
    cdef int64_t before = -1
    for j in range(columns.shape[0]):
        if not (before < columns[j] < n_features and -FLT_MAX <= values[j] <= FLT_MAX):
            return False
        before = columns[j]
    return True


cdef extern from * nogil:
    int lowest_bit "__builtin_ctzll"(unsigned long long bits)


cdef struct Sums:
    # dense sums, of which a bit in `filled` tells whether a column has one, and one in `some` whether any
    # of 64 columns has; all zero between calls
    double* values
    uint64_t* filled
    uint64_t* some
    Py_ssize_t n_columns


cdef void add_row(Sums* sums, double scale, const int32_t* columns, const float* row, int64_t n) noexcept nogil:
    cdef int64_t j
    cdef int32_t c
    for j in range(n):
        c = columns[j]
        sums.values[c] += scale * row[j]
        sums.filled[c >> 6] |= <uint64_t>1 << (c & 63)
        sums.some[c >> 12] |= <uint64_t>1 << ((c >> 6) & 63)


cdef int64_t take_sums(Sums* sums, int32_t* columns, double* values) noexcept nogil:
    """Move the sums out, in order of columns; return their number."""
    cdef Py_ssize_t top, word, c
    cdef int64_t n = 0
    for top in range((sums.n_columns >> 12) + 1):
        while sums.some[top]:
            word = (top << 6) + lowest_bit(sums.some[top])
            sums.some[top] &= sums.some[top] - 1
            while sums.filled[word]:
                c = (word << 6) + lowest_bit(sums.filled[word])
                sums.filled[word] &= sums.filled[word] - 1
                columns[n], values[n] = <int32_t>c, sums.values[c]
                sums.values[c] = 0
                n += 1
    return n


def sum_rows(
    const int64_t[::1] member_ptr,
    const int64_t[::1] members,
    const double[::1] scale,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    Py_ssize_t n_columns,
    int64_t[::1] sum_ptr,
    int32_t[::1] sum_indices,
    double[::1] sum_data,
):
    cdef Py_ssize_t i
    cdef int64_t k, row, n = 0
    cdef Sums sums
    sums.n_columns = n_columns
    sums.values = <double*>calloc(n_columns + 1, sizeof(double))
    sums.filled = <uint64_t*>calloc((n_columns >> 6) + 1, sizeof(uint64_t))
    sums.some = <uint64_t*>calloc((n_columns >> 12) + 1, sizeof(uint64_t))
    try:
        if sums.values == NULL or sums.filled == NULL or sums.some == NULL:
            raise MemoryError(f"no memory for sums of {n_columns} columns")
        with nogil:
            sum_ptr[0] = 0
            for i in range(member_ptr.shape[0] - 1):
                for k in range(member_ptr[i], member_ptr[i + 1]):
                    row = members[k]
                    if indptr[row] < indptr[row + 1]:
                        add_row(
                            &sums, scale[k], &indices[indptr[row]], &data[indptr[row]], indptr[row + 1] - indptr[row]
                        )
                if sum_indices.shape[0]:
                    n += take_sums(&sums, &sum_indices[0] + n, &sum_data[0] + n)
                sum_ptr[i + 1] = n
    finally:
        free(sums.values)
        free(sums.filled)
        free(sums.some)
