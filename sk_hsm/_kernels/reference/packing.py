"""Weights as small integers, see PackedWeights."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ._common import HASH_FACTOR, LINE

FEW, MOST_CHILDREN = 4, 256
BITS = 4, 6, 16, 32
MOST = 7, 31, 32767
N_TAGS = FEW + len(BITS)
WIDE = {16: np.int16, 32: np.float32}


def choose_tags(weights, child_ptr, step, tags, counts):
    """How features are stored, and how many entries each node has of each tag.

    Weights are divided by step and rounded, half to even, to no more than float32 has. Tags from 4 on are of
    entries with integers of all children, of 4 bits, which hold magnitudes up to 7, of 6 bits up to 31, of 16
    bits up to 32767, or float32. Tags 0 to 3 are of those with integers of 1 to 4 children alone, less what
    all others have: they are taken where they need fewer bytes, if no difference is above 127 and no child
    above the 256th. Features whose weights are all below two steps, or whose integers are the same, are left
    out: tag -1.

    weights : a NodeWeights.
    step : float32.
    tags : int8, out, one for each of weights.features.
    counts : (n_inner, 8) int64, in and out: they are added.
    """
    for v in range(len(counts)):
        _, W, _ = weights.node(v, int(child_ptr[v + 1] - child_ptr[v]))
        tags[weights.feature_ptr[v] : weights.feature_ptr[v + 1]] = [_integers(w, step)[0] for w in W]
        for tag in tags[weights.feature_ptr[v] : weights.feature_ptr[v + 1]]:
            counts[v, tag] += tag >= 0


def pack_weights(weights, child_ptr, tags, packed):
    """Write the entries of all nodes, in a bucket in the order of the features in weights; headers backwards.

    Those of few children are a byte for each one's position and one for its integer, an int8. Else sixteen
    children begin a new byte. Of integers of 4 bits, where n children take m bytes, byte j holds that of
    child j, and in its upper half that of child j + m. Those of 6 bits are their lower 4 bits so, and then
    their upper 2: where n children take m bytes, byte j holds those of the children j, j + m, j + 2m and
    j + 3m, from its lowest bits up. Those of 4 and 6 bits are stored with half their range added.

    tags : of choose_tags.
    packed : a PackedWeights of the right sizes; its entries and buckets are written.
    """
    for v in range(len(packed.shifts)):
        shift = int(packed.shifts[v])
        buckets, headers = ([b""] * (packed.bucket_ptr[v + 1] - packed.bucket_ptr[v] - 1) for _ in range(2))
        features, W, _ = weights.node(v, int(child_ptr[v + 1] - child_ptr[v]))
        kept = np.flatnonzero(tags[weights.feature_ptr[v] : weights.feature_ptr[v + 1]] >= 0)
        for feature, w in zip(features[kept].tolist(), W[kept], strict=True):
            tag, q = _integers(w, np.float32(packed.step))
            key = feature * int(HASH_FACTOR) % 2**packed.id_bits
            head = (key % 2**shift) * N_TAGS + tag
            buckets[key >> shift] += _packed(tag, q)
            headers[key >> shift] = head.to_bytes(_header(shift), "little") + headers[key >> shift]
        buckets = [entries + heads for entries, heads in zip(buckets, headers, strict=True)]
        ends = np.cumsum([0, *map(len, buckets)])
        packed.buckets[packed.bucket_ptr[v] : packed.bucket_ptr[v + 1]] = ends
        first = packed.entry_ptr[v]
        packed.entries[first : first + ends[-1]] = np.frombuffer(b"".join(buckets), np.uint8)


def unpack_node(packed, v, arity, features, weights):
    """The features of a node, in the order of its entries, and their weights, float32.

    packed : a PackedWeights.
    features : (n_entries,) int32, out.
    weights : (n_entries, arity) float32, out: step times the integers, zero for those of few that have none.
    """
    shift, inverse = int(packed.shifts[v]), pow(int(HASH_FACTOR), -1, 2**32)
    entries = packed.entries[packed.entry_ptr[v] : packed.entry_ptr[v + 1]].tobytes()
    ends = packed.buckets[packed.bucket_ptr[v] : packed.bucket_ptr[v + 1]].tolist()
    i = 0
    for bucket, (at, head_at) in enumerate(pairwise(ends)):
        while at < head_at:
            head_at -= _header(shift)
            head = int.from_bytes(entries[head_at : head_at + _header(shift)], "little")
            features[i] = (bucket << shift | head // N_TAGS) * inverse % 2**packed.id_bits
            q, n_bytes = _unpacked(entries[at:], arity, head % N_TAGS)
            weights[i] = np.float32(packed.step) * q.astype(np.float32)
            at += n_bytes
            i += 1


def _header(shift):
    """How many bytes hold so many bits and a tag."""
    return 2 if shift <= 13 else 4


def _integers(w, step):
    """The tag of an entry, and what it holds: differences from the commonest integer, if few have another."""
    if np.abs(w).max() < 2 * np.float32(step):
        return -1, None
    most = np.finfo(np.float32).max
    with np.errstate(over="ignore"):
        q = np.clip(np.rint(w / np.float32(step)), -most, most) + np.float32(0)  # -0 is 0
    values, first, counts = np.unique(q, return_index=True, return_counts=True)
    less = q - values[np.lexsort([first, -counts])[0]]
    few = np.count_nonzero(less)
    if few == 0:
        return -1, None
    tag = FEW + int(np.searchsorted(MOST, np.abs(q).max()))
    is_shorter = few <= FEW and 2 * few < len(_packed(tag, q))
    if is_shorter and np.abs(less).max() <= 127 and len(q) <= MOST_CHILDREN:
        return int(few) - 1, less
    return tag, q


def _packed(tag, q):
    if tag < FEW:
        return b"".join(bytes([c, int(q[c]) % 256]) for c in np.flatnonzero(q))
    bits, chunks = BITS[tag - FEW], []
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


def _unpacked(entry, arity, tag):
    """The integers of all children, and how many bytes they take."""
    if tag < FEW:
        pairs = np.frombuffer(entry[: 2 * (tag + 1)], np.uint8).reshape(-1, 2)
        q = np.zeros(arity)
        q[pairs[:, 0]] = pairs[:, 1].view(np.int8)
        return q, pairs.size
    chunks, at = [], 0
    for first in range(0, arity, LINE):
        q, size = _unpacked_chunk(entry[at:], min(LINE, arity - first), BITS[tag - FEW])
        chunks.append(q)
        at += size
    return np.concatenate(chunks), at


def _unpacked_chunk(entry, n, bits):
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
