"""The weights of all nodes as flat arrays: for each node its features and their lines."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LINE = 16  # floats to a line, 64 bytes: one cache line
NO_CHILD = np.float32(-1e30)  # the bias of a child that is padding, or has no rows
HASH_FACTOR = np.uint32(2654435769)  # odd, so that feature -> key can be inverted


def n_lines(arity: NDArray[np.int64] | int) -> NDArray[np.int64] | int:
    """Lines that one feature takes in a node of so many children."""
    return -(-arity // LINE)


def key_features(keys: NDArray[np.uint32]) -> NDArray[np.int32]:
    """The feature ids of keys."""
    return (keys * np.uint32(pow(int(HASH_FACTOR), -1, 2**32))).astype(np.int32)


class FlatArrays:
    """Named arrays, and nothing else, so that they are saved and mapped as they are."""

    __slots__ = ()

    def __init__(self, arrays: dict[str, NDArray]) -> None:
        for name in self.__slots__:
            setattr(self, name, arrays[name])

    def to_arrays(self) -> dict[str, NDArray]:
        """The arrays that from a call of the constructor give the same again."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def nbytes(self) -> int:
        """Size in memory and, uncompressed, on disk."""
        return sum(array.nbytes for array in self.to_arrays().values())


class NodeWeights(FlatArrays):
    """Sparse weights of every inner node, made for looking up one feature of one node.

    Node ``v`` keeps the keys of its features, sorted, in
    ``keys[key_ptr[v]:key_ptr[v + 1]]``. A key's leading bits name its bucket:
    bucket ``b`` of node ``v`` holds keys number ``buckets[bucket_ptr[v] + b]`` up to the
    next entry. Lines of node ``v`` begin at ``line_ptr[v]``: first the bias, then one
    weight per child for each key; a node of more than 16 children takes several lines.
    """

    __slots__ = ("lines", "line_ptr", "keys", "key_ptr", "buckets", "bucket_ptr", "shifts")

    lines: NDArray[np.float32]
    line_ptr: NDArray[np.int64]
    keys: NDArray[np.uint32]
    key_ptr: NDArray[np.int64]
    buckets: NDArray[np.int32]
    bucket_ptr: NDArray[np.int64]
    shifts: NDArray[np.int32]

    step = 0.0  # they are not rounded, see PackedWeights

    @classmethod
    def of_sizes(cls, n_features: NDArray[np.int64], arities: NDArray[np.int64]) -> NodeWeights:
        """With room, not yet filled, for the features and the children of each node."""
        bits = np.ceil(np.log2(np.maximum(n_features, 1))).astype(np.int32)
        key_ptr = offsets(n_features)
        line_ptr = offsets((n_features + 1) * n_lines(arities))
        bucket_ptr = offsets((1 << bits.astype(np.int64)) + 1)
        return cls(
            dict(
                lines=aligned_empty(line_ptr[-1] * LINE).reshape(-1, LINE),
                line_ptr=line_ptr,
                keys=np.empty(key_ptr[-1], dtype=np.uint32),
                key_ptr=key_ptr,
                buckets=np.empty(bucket_ptr[-1], dtype=np.int32),
                bucket_ptr=bucket_ptr,
                shifts=32 - bits,
            )
        )

    def replaced(self, others: NodeWeights, by_other: NDArray[np.bool_]) -> NodeWeights:
        """With the others' weights of the nodes for which by_other is true."""
        new = {"shifts": np.where(by_other, others.shifts, self.shifts)}
        runs = np.flatnonzero(np.diff(by_other, prepend=not by_other[:1].all()))
        for name, ptr_name in (("lines", "line_ptr"), ("keys", "key_ptr"), ("buckets", "bucket_ptr")):
            ptrs = [getattr(weights, ptr_name) for weights in (self, others)]
            ptr = offsets(np.where(by_other, np.diff(ptrs[1]), np.diff(ptrs[0])))
            array = getattr(self, name)
            shape = ptr[-1], *array.shape[1:]
            out = aligned_empty(int(np.prod(shape)), array.dtype).reshape(shape)
            for lo, hi in pairwise([*runs, len(by_other)]):
                source, at = (others, ptrs[1]) if by_other[lo] else (self, ptrs[0])
                out[ptr[lo] : ptr[hi]] = getattr(source, name)[at[lo] : at[hi]]
            new[name], new[ptr_name] = out, ptr
        return NodeWeights(new)

    def node(self, v: int, arity: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Features, weights (n_features_of_node, arity) and bias (arity,) of one node."""
        keys = self.keys[self.key_ptr[v] : self.key_ptr[v + 1]]
        block = self.lines[self.line_ptr[v] : self.line_ptr[v + 1]].reshape(len(keys) + 1, -1)
        return key_features(keys), block[1:, :arity], block[0, :arity]

    def fill(
        self, v: int, features: NDArray[np.int32], weights: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> None:
        """Set one node; the arrays are those that `node` gives, in any order of features."""
        keys = features.view(np.uint32) * HASH_FACTOR
        order = np.argsort(keys)
        self.keys[self.key_ptr[v] : self.key_ptr[v + 1]] = keys[order]
        block = self.lines[self.line_ptr[v] : self.line_ptr[v + 1]].reshape(len(keys) + 1, -1)
        block[:], block[0] = 0, NO_CHILD
        block[0, : len(bias)], block[1:, : len(bias)] = bias, weights[order]
        ends = np.arange(2 ** (32 - int(self.shifts[v])) + 1) << int(self.shifts[v])
        self.buckets[self.bucket_ptr[v] : self.bucket_ptr[v + 1]] = np.searchsorted(
            keys[order].astype(np.int64), ends
        )


def aligned_empty(size: int, dtype: type = np.float32) -> NDArray:
    """Uninitialised 1-D array that starts where a cache line does."""
    itemsize = np.dtype(dtype).itemsize
    memory = np.empty(size * itemsize + 64, dtype=np.uint8)
    skip = -memory.ctypes.data % 64
    return memory[skip : skip + size * itemsize].view(dtype)


def offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each begins, and the last ends, of parts of these sizes."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
