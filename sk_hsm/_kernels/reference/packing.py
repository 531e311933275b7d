"""Weights as small integers, see PackedWeights."""

from __future__ import annotations

import numpy as np

from ._common import HASH_FACTOR, LINE

BITS = 4, 6, 16, 32
MOST = 7, 31, 32767
WIDE = {16: np.int16, 32: np.float32}


def count_entries(weights, child_ptr, step, counts):
    """How many features of each node need integers of 4, 6, 16 and 32 bits.

    Weights are divided by step and rounded, half to even. 4 bits hold magnitudes up to 7, 6
    bits up to 31, 16 bits up to 32767; those of 32 bits are float32. Features
    whose weights are all below two steps are left out.

    weights : a NodeWeights.
    step : float32.
    counts : (n_inner, 4) int64, in and out: they are added.
    """
    for v in range(len(counts)):
        for q in _integers(weights, child_ptr, step, v)[1]:
            counts[v, _size(q)] += 1


def pack_weights(weights, child_ptr, packed):
    """Write the entries of all nodes, in a bucket in the order of the features in weights.

    Sixteen children begin a new byte. Of integers of 4 bits, where n children take m bytes,
    byte j holds that of child j, and in its upper half that of child j + m. Those of 6 bits
    are their lower 4 bits so, and then their upper 2: where n children take m bytes, byte j
    holds those of the children j, j + m, j + 2m and j + 3m, from its lowest bits up. Those
    of 4 and 6 bits are stored with half their range added.

    packed : a PackedWeights of the right sizes; its entries and buckets are written.
    """
    for v in range(len(packed.shifts)):
        features, integers = _integers(weights, child_ptr, np.float32(packed.step), v)
        shift = int(packed.shifts[v])
        keys = features.astype(np.uint64) * int(HASH_FACTOR) % 2**packed.id_bits
        buckets = [b"" for _ in range(packed.bucket_ptr[v + 1] - packed.bucket_ptr[v] - 1)]
        for key, q in zip(keys.tolist(), integers, strict=True):
            head = (key % 2**shift) << 2 | _size(q)
            buckets[key >> shift] += head.to_bytes(2 if shift <= 14 else 4, "little") + _packed(q)
        ends = np.cumsum([0, *map(len, buckets)])
        packed.buckets[packed.bucket_ptr[v] : packed.bucket_ptr[v + 1]] = ends
        first = packed.entry_ptr[v]
        packed.entries[first : first + ends[-1]] = np.frombuffer(b"".join(buckets), np.uint8)


def unpack_node(packed, v, arity, features, weights):
    """The features of a node, in the order of its entries, and their weights, float32.

    packed : a PackedWeights.
    features : (n_entries,) int32, out.
    weights : (n_entries, arity) float32, out: step times the integers.
    """
    shift, inverse = int(packed.shifts[v]), pow(int(HASH_FACTOR), -1, 2**32)
    entries = packed.entries[packed.entry_ptr[v] : packed.entry_ptr[v + 1]].tobytes()
    ends = packed.buckets[packed.bucket_ptr[v] : packed.bucket_ptr[v + 1]].astype(int)
    n_header, at = 2 if shift <= 14 else 4, 0
    for i in range(len(features)):
        bucket = np.searchsorted(ends, at, side="right") - 1
        head, at = int.from_bytes(entries[at : at + n_header], "little"), at + n_header
        features[i] = (int(bucket) << shift | head >> 2) * inverse % 2**packed.id_bits
        for first in range(0, arity, LINE):
            n, bits = min(LINE, arity - first), BITS[head % 4]
            q, n_bytes = _unpacked(entries[at:], n, bits)
            at += n_bytes
            weights[i, first : first + n] = np.float32(packed.step) * q.astype(np.float32)


def _integers(weights, child_ptr, step, v):
    """The features of a node that are kept, and their integers."""
    features, W, _ = weights.node(v, int(child_ptr[v + 1] - child_ptr[v]))
    kept = np.abs(W).max(axis=1, initial=0) >= 2 * np.float32(step)
    return features[kept], np.rint(W[kept] / np.float32(step))


def _size(q):
    """The number of the least bits that hold them."""
    return int(np.searchsorted(MOST, np.abs(q).max()))


def _packed(q):
    bits, chunks = BITS[_size(q)], []
    for first in range(0, len(q), LINE):
        chunk = q[first : first + LINE]
        if bits > 6:
            chunks.append(chunk.astype(WIDE[bits]).tobytes())
        else:
            codes = chunk.astype(int) + 2 ** (bits - 1)
            chunks.append(_planes(codes % 16, 4) + (_planes(codes // 16, 2) if bits == 6 else b""))
    return b"".join(chunks)


def _planes(codes, bits):
    """In m bytes, code c is in byte c % m, c // m places from the lowest."""
    m = -(-len(codes) * bits // 8)
    at = np.arange(len(codes))
    return np.bincount(at % m, weights=codes << (bits * (at // m)), minlength=m).astype(np.uint8).tobytes()


def _unpacked(entry, n, bits):
    """n integers, and how many bytes they take."""
    if bits > 6:
        size = n * bits // 8
        return np.frombuffer(entry[:size], WIDE[bits]), size
    at, half, quarter = np.arange(n), -(-n // 2), -(-n // 4)
    codes = np.frombuffer(entry, np.uint8).astype(int)
    q = codes[at % half] >> (4 * (at // half)) & 15
    if bits == 4:
        return q - 8, half
    return q + 16 * (codes[half + at % quarter] >> (2 * (at // quarter)) & 3) - 32, half + quarter
