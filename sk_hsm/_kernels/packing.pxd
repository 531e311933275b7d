from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef extern from "lines.h" nogil:
    void prefetch(const float* address)

cdef extern from "packed.h" nogil:
    uint32_t HASH_FACTOR
    enum: N_TAGS
    int bits_of_tag(int tag)
    int64_t entry_bytes(int arity, int tag)

# the lowest bits of a header
cdef enum:
    TAG_BITS = 3
    TAG = 7

cdef struct Packed:
    # a PackedWeights: its entries, and where those of a node and of a bucket begin
    const uint8_t* entries
    const int64_t* entry_ptr
    const uint32_t* buckets
    const int64_t* bucket_ptr
    const int32_t* shifts
    int id_bits

cdef inline int header_bytes(int shift) noexcept nogil:
    """What is left of a key, and a tag."""
    return 2 if shift + TAG_BITS <= 16 else 4

cdef inline uint32_t read_head(const uint8_t* entry, int header) noexcept nogil:
    cdef uint32_t head = entry[0] | <uint32_t>entry[1] << 8
    return head if header == 2 else head | <uint32_t>entry[2] << 16 | <uint32_t>entry[3] << 24

cdef inline uint32_t key_of(int32_t feature, int id_bits) noexcept nogil:
    return (<uint32_t>feature * HASH_FACTOR) & (0xFFFFFFFFu >> (32 - id_bits))

cdef inline void measure_entries(int arity, int64_t* sizes) noexcept nogil:
    """The bytes of an entry of each tag, without its header."""
    cdef int tag
    for tag in range(N_TAGS):
        sizes[tag] = entry_bytes(arity, tag)

cdef inline const uint8_t* find_entry(
    const Packed* w, int64_t node, const int64_t* sizes, int32_t feature, int* tag
) noexcept nogil:
    """The integers of (node, feature), and their tag; or NULL."""
    cdef int shift = w.shifts[node], header = header_bytes(shift)
    cdef uint32_t key = key_of(feature, w.id_bits), head
    cdef uint32_t rest = key & ((<uint32_t>1 << shift) - 1)
    cdef const uint32_t* bucket = w.buckets + w.bucket_ptr[node] + (key >> shift)
    cdef const uint8_t* entry = w.entries + w.entry_ptr[node] + bucket[0]
    cdef const uint8_t* head_at = w.entries + w.entry_ptr[node] + bucket[1]
    while entry < head_at:
        head_at -= header
        head = read_head(head_at, header)
        if head >> TAG_BITS == rest:
            tag[0] = head & TAG
            return entry
        entry += sizes[head & TAG]
    return NULL

cdef inline void prefetch_bucket(const Packed* w, int64_t node, int32_t feature) noexcept nogil:
    """Fetch into the cache where the entries of a bucket begin."""
    prefetch(<const float*>(w.buckets + w.bucket_ptr[node] + (key_of(feature, w.id_bits) >> w.shifts[node])))

cdef inline void prefetch_entries(const Packed* w, int64_t node, int32_t feature) noexcept nogil:
    """And then the entries, which may be in two lines of the cache."""
    cdef const uint32_t* bucket = w.buckets + w.bucket_ptr[node] + (key_of(feature, w.id_bits) >> w.shifts[node])
    cdef const uint8_t* entries = w.entries + w.entry_ptr[node]
    prefetch(<const float*>(entries + bucket[0]))
    prefetch(<const float*>(entries + bucket[1] - 1))
