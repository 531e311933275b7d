from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef extern from "lines.h" nogil:
    uint32_t HASH_FACTOR
    void prefetch(const float* address)

cdef extern from "packed.h" nogil:
    int bits_of_tag(int tag)
    int64_t entry_bytes(int arity, int bits)

cdef struct Packed:
    # a PackedWeights: its entries, and where those of a node and of a bucket begin
    const uint8_t* entries
    const int64_t* entry_ptr
    const uint32_t* buckets
    const int64_t* bucket_ptr
    const int32_t* shifts
    int id_bits

cdef inline int header_bytes(int shift) noexcept nogil:
    """What is left of a key, and two bits."""
    return 2 if shift <= 14 else 4

cdef inline uint32_t read_head(const uint8_t* entry, int header) noexcept nogil:
    cdef uint32_t head = entry[0] | <uint32_t>entry[1] << 8
    return head if header == 2 else head | <uint32_t>entry[2] << 16 | <uint32_t>entry[3] << 24

cdef inline uint32_t key_of(int32_t feature, int id_bits) noexcept nogil:
    return (<uint32_t>feature * HASH_FACTOR) & (0xFFFFFFFFu >> (32 - id_bits))

cdef inline void measure_entries(const Packed* w, int64_t node, int arity, int64_t* sizes) noexcept nogil:
    """The bytes of an entry of each of the four sizes."""
    cdef int tag
    for tag in range(4):
        sizes[tag] = header_bytes(w.shifts[node]) + entry_bytes(arity, bits_of_tag(tag))

cdef inline const uint8_t* find_entry(
    const Packed* w, int64_t node, const int64_t* sizes, int32_t feature, int* bits
) noexcept nogil:
    """The integers of (node, feature), and of how many bits each is; or NULL."""
    cdef int shift = w.shifts[node], header = header_bytes(shift)
    cdef uint32_t key = key_of(feature, w.id_bits), head
    cdef uint32_t rest = key & ((<uint32_t>1 << shift) - 1)
    cdef const uint32_t* bucket = w.buckets + w.bucket_ptr[node] + (key >> shift)
    cdef const uint8_t* entry = w.entries + w.entry_ptr[node] + bucket[0]
    cdef const uint8_t* end = w.entries + w.entry_ptr[node] + bucket[1]
    while entry < end:
        head = read_head(entry, header)
        if head >> 2 == rest:
            bits[0] = bits_of_tag(head & 3)
            return entry + header
        entry += sizes[head & 3]
    return NULL

cdef inline void prefetch_bucket(const Packed* w, int64_t node, int32_t feature) noexcept nogil:
    """Fetch into the cache where the entries of a bucket begin."""
    prefetch(<const float*>(w.buckets + w.bucket_ptr[node] + (key_of(feature, w.id_bits) >> w.shifts[node])))

cdef inline void prefetch_entries(const Packed* w, int64_t node, int32_t feature) noexcept nogil:
    """And then the entries."""
    cdef uint32_t begin = w.buckets[w.bucket_ptr[node] + (key_of(feature, w.id_bits) >> w.shifts[node])]
    prefetch(<const float*>(w.entries + w.entry_ptr[node] + begin))
