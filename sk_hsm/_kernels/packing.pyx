# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that round weights to small integers, and give them back.

Their specification is the function of the same name in ``reference``.
"""
from libc.float cimport FLT_MAX
from libc.math cimport fabsf, rintf
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef extern from "lines.h" nogil:
    enum: LINE
    uint32_t HASH_INVERSE
    int line_width(int arity)

cdef extern from "packed.h" nogil:
    int chunk_bytes(int n, int bits)
    int tag_of(float largest)
    void unpack_chunk(float* out, const uint8_t* packed, int n, int bits)
    void pack_chunk(uint8_t* out, const float* q, int n, int bits)


cdef inline float rounded(float weight, float step) noexcept nogil:
    return max(-FLT_MAX, min(FLT_MAX, rintf(weight / step)))


cdef int size_of(const float* weights, int arity, float step) noexcept nogil:
    """The number of the size that a feature's integers need; -1 where all weights are below two steps."""
    cdef float largest = 0
    cdef int c
    for c in range(arity):
        largest = max(largest, fabsf(weights[c]))
    return tag_of(rounded(largest, step)) if largest >= 2 * step else -1


def count_entries(weights, const int32_t[::1] child_ptr, float step, int64_t[:, ::1] counts):
    cdef const float[:, ::1] lines = weights.lines
    cdef const int64_t[::1] line_ptr = weights.line_ptr, key_ptr = weights.key_ptr
    cdef Py_ssize_t v, k
    cdef int arity, width, tag
    with nogil:
        for v in range(counts.shape[0]):
            arity = child_ptr[v + 1] - child_ptr[v]
            width = line_width(arity)
            for k in range(key_ptr[v + 1] - key_ptr[v]):
                tag = size_of(&lines[line_ptr[v], 0] + (k + 1) * width, arity, step)
                if tag >= 0:
                    counts[v, tag] += 1


cdef void write_entry(uint8_t* entry, const float* weights, int arity, float step, int bits) noexcept nogil:
    cdef float q[16]
    cdef int c, chunk, n
    for chunk in range(line_width(arity) // LINE):
        n = min(LINE, arity - chunk * LINE)
        for c in range(n):
            q[c] = rounded(weights[chunk * LINE + c], step)
        pack_chunk(entry, q, n, bits)
        entry += chunk_bytes(n, bits)


def pack_weights(weights, const int32_t[::1] child_ptr, packed):
    cdef const float[:, ::1] lines = weights.lines
    cdef const int64_t[::1] line_ptr = weights.line_ptr, key_ptr = weights.key_ptr
    cdef const uint32_t[::1] keys = weights.keys
    cdef uint8_t[::1] entries = packed.entries
    cdef uint32_t[::1] buckets = packed.buckets
    cdef const int64_t[::1] entry_ptr = packed.entry_ptr, bucket_ptr = packed.bucket_ptr
    cdef const int32_t[::1] shifts = packed.shifts
    cdef int id_bits = packed.id_bits, arity, width, header, shift, tag, bits, stage, c
    cdef float step = packed.step
    cdef Py_ssize_t v, k, b, n_buckets
    cdef uint32_t key, head
    cdef uint32_t* ends
    cdef const float* line
    with nogil:
        for v in range(shifts.shape[0]):
            arity, shift = child_ptr[v + 1] - child_ptr[v], shifts[v]
            width, header = line_width(arity), header_bytes(shift)
            n_buckets = bucket_ptr[v + 1] - bucket_ptr[v] - 1
            ends = &buckets[bucket_ptr[v]] + 1
            for b in range(-1, n_buckets):
                ends[b] = 0
            # sizes of buckets, then their ends, which move on as entries are written
            for stage in range(2):
                for k in range(key_ptr[v + 1] - key_ptr[v]):
                    line = &lines[line_ptr[v], 0] + (k + 1) * width
                    tag = size_of(line, arity, step)
                    if tag < 0:
                        continue
                    bits = bits_of_tag(tag)
                    key = key_of(<int32_t>(keys[key_ptr[v] + k] * HASH_INVERSE), id_bits)
                    b = key >> shift
                    if stage == 1:
                        head = (key & ((<uint32_t>1 << shift) - 1)) << 2 | tag
                        for c in range(header):
                            entries[entry_ptr[v] + ends[b] + c] = <uint8_t>(head >> (8 * c))
                        write_entry(&entries[entry_ptr[v]] + ends[b] + header, line, arity, step, bits)
                    ends[b] += <uint32_t>(header + entry_bytes(arity, bits))
                if stage == 0:
                    start_buckets(ends, n_buckets)


cdef void start_buckets(uint32_t* sizes, Py_ssize_t n) noexcept nogil:
    """Where each bucket begins, from its size."""
    cdef Py_ssize_t b
    cdef uint32_t begin = 0, size
    for b in range(n):
        size = sizes[b]
        sizes[b] = begin
        begin += size


def unpack_node(packed, Py_ssize_t v, int arity, int32_t[::1] features, float[:, ::1] weights):
    cdef const uint8_t[::1] entries = packed.entries
    cdef const uint32_t[::1] buckets = packed.buckets
    cdef const int64_t[::1] entry_ptr = packed.entry_ptr, bucket_ptr = packed.bucket_ptr
    cdef const int32_t[::1] shifts = packed.shifts
    cdef int shift = shifts[v], header = header_bytes(shift), id_bits = packed.id_bits, bits, chunk, n, c
    cdef float step = packed.step
    cdef float q[16]
    cdef uint32_t head, key
    cdef Py_ssize_t at = 0, b
    cdef const uint8_t* entry
    cdef const uint8_t* end
    with nogil:
        for b in range(bucket_ptr[v + 1] - bucket_ptr[v] - 1):
            entry = &entries[entry_ptr[v]] + buckets[bucket_ptr[v] + b]
            end = &entries[entry_ptr[v]] + buckets[bucket_ptr[v] + b + 1]
            while entry < end and at < features.shape[0]:
                head = read_head(entry, header)
                entry += header
                bits = bits_of_tag(head & 3)
                key = <uint32_t>b << shift | head >> 2
                features[at] = <int32_t>((key * HASH_INVERSE) & (0xFFFFFFFFu >> (32 - id_bits)))
                for chunk in range(line_width(arity) // LINE):
                    n = min(LINE, arity - chunk * LINE)
                    unpack_chunk(q, entry, n, bits)
                    for c in range(n):
                        weights[at, chunk * LINE + c] = step * q[c]
                    entry += chunk_bytes(n, bits)
                at += 1
