# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that round weights to small integers, and give them back.

Their specification is the function of the same name in ``reference``.
"""
from libc.math cimport fabsf
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memset

import numpy as np

cdef extern from "lines.h" nogil:
    enum: LINE
    int line_width(int arity)

cdef extern from "packed.h" nogil:
    enum: FEW, MOST_CHILDREN
    uint32_t HASH_INVERSE
    float nearest(float x)
    int chunk_bytes(int n, int bits)
    int tag_of(float largest)
    void unpack_chunk(float* out, const uint8_t* packed, int n, int bits)
    void pack_chunk(uint8_t* out, const float* q, int n, int bits)


cdef int take_integers(const float* weights, int arity, float step, float* q) noexcept nogil:
    """Round weights to integers; the tag of their entry, -1 where they need none."""
    cdef float largest = 0, commonest
    cdef int c, n, tag
    for c in range(arity):
        largest = max(largest, fabsf(weights[c]))
    if largest < 2 * step:
        return -1
    largest = 0
    for c in range(arity):
        q[c] = nearest(weights[c] / step)
        largest = max(largest, fabsf(q[c]))
    tag = tag_of(largest)
    n = find_commonest(q, arity, &commonest)
    if n == 0:
        return -1
    if n > FEW or 2 * n >= entry_bytes(arity, tag) or arity > MOST_CHILDREN:
        return tag
    for c in range(arity):
        if fabsf(q[c] - commonest) > 127:
            return tag
    # a softmax is the same if all logits are less by one number
    for c in range(arity):
        q[c] -= commonest
    return n - 1


cdef int find_commonest(const float* q, int arity, float* commonest) noexcept nogil:
    """The integer of most children, if at most FEW have another; and how many have."""
    cdef int c, i, n, least = FEW + 1
    # one of so many has it
    for i in range(min(FEW + 1, arity)):
        n = 0
        for c in range(arity):
            n += q[c] != q[i]
        if n < least:
            least, commonest[0] = n, q[i]
    return least


def choose_tags(weights, const int32_t[::1] child_ptr, float step, int8_t[::1] tags, int64_t[:, ::1] counts):
    cdef const float[:, ::1] lines = weights.lines
    cdef const int64_t[::1] line_ptr = weights.line_ptr, feature_ptr = weights.feature_ptr
    cdef float[::1] q = np.empty(np.diff(child_ptr).max(initial=1), np.float32)
    cdef Py_ssize_t v, k
    cdef int arity, width
    with nogil:
        for v in range(counts.shape[0]):
            arity = child_ptr[v + 1] - child_ptr[v]
            width = line_width(arity)
            for k in range(feature_ptr[v], feature_ptr[v + 1]):
                tags[k] = take_integers(
                    &lines[line_ptr[v], 0] + (k - feature_ptr[v] + 1) * width, arity, step, &q[0]
                )
                if tags[k] >= 0:
                    counts[v, tags[k]] += 1


cdef void write_integers(uint8_t* out, const float* q, int arity, int tag) noexcept nogil:
    cdef int c, chunk, n, bits = bits_of_tag(tag)
    if tag < FEW:
        for c in range(arity):
            if q[c] != 0:
                out[0], out[1] = <uint8_t>c, <uint8_t>(<int8_t>q[c])
                out += 2
        return
    for chunk in range(line_width(arity) // LINE):
        n = min(LINE, arity - chunk * LINE)
        pack_chunk(out, q + chunk * LINE, n, bits)
        out += chunk_bytes(n, bits)


def pack_weights(weights, const int32_t[::1] child_ptr, const int8_t[::1] tags, packed):
    cdef const float[:, ::1] lines = weights.lines
    cdef const int64_t[::1] line_ptr = weights.line_ptr, feature_ptr = weights.feature_ptr
    cdef const int32_t[::1] features = weights.features
    cdef uint8_t[::1] entries = packed.entries
    cdef uint32_t[::1] buckets = packed.buckets
    cdef const int64_t[::1] entry_ptr = packed.entry_ptr, bucket_ptr = packed.bucket_ptr
    cdef const int32_t[::1] shifts = packed.shifts
    cdef float[::1] q = np.empty(np.diff(child_ptr).max(initial=1), np.float32)
    # where the next entry of a bucket is written, and its header
    cdef uint32_t[:, ::1] ends = np.empty((2, np.diff(packed.bucket_ptr).max(initial=1)), np.uint32)
    cdef int id_bits = packed.id_bits, arity, width, header, shift, tag, is_writing, c
    cdef float step = packed.step
    cdef Py_ssize_t v, k, b, n_buckets
    cdef uint32_t key, head, size
    cdef uint32_t* begins
    cdef const float* line
    with nogil:
        for v in range(shifts.shape[0]):
            arity, shift = child_ptr[v + 1] - child_ptr[v], shifts[v]
            width, header = line_width(arity), header_bytes(shift)
            n_buckets = bucket_ptr[v + 1] - bucket_ptr[v] - 1
            begins = &buckets[bucket_ptr[v]]
            memset(begins, 0, (n_buckets + 1) * sizeof(uint32_t))
            for is_writing in range(2):
                for k in range(feature_ptr[v], feature_ptr[v + 1]):
                    tag = tags[k]
                    if tag < 0:
                        continue
                    key = key_of(features[k], id_bits)
                    b = key >> shift
                    size = <uint32_t>entry_bytes(arity, tag)
                    if not is_writing:
                        begins[b + 1] += header + size
                        continue
                    line = &lines[line_ptr[v], 0] + (k - feature_ptr[v] + 1) * width
                    take_integers(line, arity, step, &q[0])
                    write_integers(&entries[entry_ptr[v]] + ends[0, b], &q[0], arity, tag)
                    ends[0, b] += size
                    ends[1, b] -= header
                    head = (key & ((<uint32_t>1 << shift) - 1)) << TAG_BITS | tag
                    for c in range(header):
                        entries[entry_ptr[v] + ends[1, b] + c] = <uint8_t>(head >> (8 * c))
                if not is_writing:
                    for b in range(n_buckets):
                        begins[b + 1] += begins[b]
                        ends[0, b], ends[1, b] = begins[b], begins[b + 1]


cdef void read_integers(float* q, const uint8_t* entry, int arity, int tag) noexcept nogil:
    """Whole chunks are written."""
    cdef int i, chunk, n, bits = bits_of_tag(tag)
    if tag < FEW:
        memset(q, 0, arity * sizeof(float))
        for i in range(tag + 1):
            if entry[2 * i] < arity:
                q[entry[2 * i]] = <int8_t>entry[2 * i + 1]
        return
    for chunk in range(line_width(arity) // LINE):
        n = min(LINE, arity - chunk * LINE)
        unpack_chunk(q + chunk * LINE, entry, n, bits)
        entry += chunk_bytes(n, bits)


def unpack_node(packed, Py_ssize_t v, int arity, int32_t[::1] features, float[:, ::1] weights):
    cdef const uint8_t[::1] entries = packed.entries
    cdef const uint32_t[::1] buckets = packed.buckets
    cdef const int64_t[::1] entry_ptr = packed.entry_ptr, bucket_ptr = packed.bucket_ptr
    cdef const int32_t[::1] shifts = packed.shifts
    cdef float[::1] q = np.empty(line_width(arity), np.float32)
    cdef int shift = shifts[v], header = header_bytes(shift), id_bits = packed.id_bits, c
    cdef float step = packed.step
    cdef uint32_t head, key
    cdef Py_ssize_t at = 0, b
    cdef const uint8_t* entry
    cdef const uint8_t* head_at
    with nogil:
        for b in range(bucket_ptr[v + 1] - bucket_ptr[v] - 1):
            entry = &entries[entry_ptr[v]] + buckets[bucket_ptr[v] + b]
            head_at = &entries[entry_ptr[v]] + buckets[bucket_ptr[v] + b + 1]
            while entry < head_at and at < features.shape[0]:
                head_at -= header
                head = read_head(head_at, header)
                key = <uint32_t>b << shift | head >> TAG_BITS
                features[at] = <int32_t>((key * HASH_INVERSE) & (0xFFFFFFFFu >> (32 - id_bits)))
                read_integers(&q[0], entry, arity, head & TAG)
                for c in range(arity):
                    weights[at, c] = step * q[c]
                entry += entry_bytes(arity, head & TAG)
                at += 1
