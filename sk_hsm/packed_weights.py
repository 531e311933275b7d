"""The weights of all nodes, rounded: small integers times one step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._kernels.packing import choose_tags, pack_weights, unpack_node
from .label_tree import LabelTree
from .node_weights import FlatArrays, NodeWeights, offsets

FEW = 4  # children that an entry may have integers of alone
BITS = np.array([4, 6, 16, 32])  # that integers of all children may have
TAG_BITS = 3  # to tell these apart
FILLED = 4  # entries of a bucket, at most, on average
MARGIN = 64  # kernels read so many bytes beyond the entries


class PackedWeights(FlatArrays):
    """What NodeWeights holds, in a sixth of the memory or less: weights are multiples of `step`.

    An entry is a feature of a node: an integer for each child, of 4, 6 or 16 bits as the largest needs, or 32
    of a float. Where all but one to FEW of up to 256 children have the same, and it is shorter so, the entry
    holds only theirs, less what the others have, if that is 127 at most: a softmax is the same if all logits
    are less by one number. A child then takes a byte for its position and one for its integer. Features whose
    weights are all below two steps, or the same, have none.
    A feature's key is ``feature * HASH_FACTOR`` modulo ``2 ** id_bits``. Its leading bits name the bucket; a
    header of 2 or 4 bytes holds the other ``shifts[v]`` bits and, in the lowest TAG_BITS, which of these an
    entry is. Bucket ``b`` of node ``v`` begins at byte ``entry_ptr[v] + buckets[bucket_ptr[v] + b]`` and ends
    where the next begins. Its entries follow each other from there, and their headers from its end backwards:
    to find a feature, only headers are read.
    Biases are not rounded: they are the `lines` of a NodeWeights without features.
    """

    __slots__ = (
        "lines", "line_ptr", "entries", "entry_ptr", "buckets", "bucket_ptr", "shifts", "n_entries", "scale",
    )  # fmt: skip

    lines: NDArray[np.float32]
    line_ptr: NDArray[np.int64]
    entries: NDArray[np.uint8]
    entry_ptr: NDArray[np.int64]
    buckets: NDArray[np.uint32]
    bucket_ptr: NDArray[np.int64]
    shifts: NDArray[np.int32]
    n_entries: NDArray[np.int64]
    scale: NDArray[np.float64]  # step and id_bits

    @classmethod
    def of(
        cls, weights: NodeWeights, child_ptr: NDArray[np.int32], n_features: int, step: float
    ) -> PackedWeights:
        """Round the weights of nodes with these children to multiples of step."""
        arities = np.diff(child_ptr)
        biases = NodeWeights.of_sizes(np.zeros(len(arities), np.int64), arities)
        biases.lines[:] = weights.lines[_bias_lines(weights.line_ptr[:-1], np.diff(biases.line_ptr))]
        counts = np.zeros((len(arities), FEW + len(BITS)), dtype=np.int64)
        tags = np.empty(len(weights.features), dtype=np.int8)
        choose_tags(weights, child_ptr, step, tags, counts)
        id_bits = max(1, int(n_features - 1).bit_length())
        bits = np.ceil(np.log2(np.maximum(counts.sum(axis=1) / FILLED, 1))).astype(np.int64)
        bits = np.clip(bits, max(0, id_bits + TAG_BITS - 32), id_bits)
        header = np.where(id_bits - bits + TAG_BITS <= 16, 2, 4)
        sizes = np.sum(counts * (header[:, None] + _entry_bytes(arities)), axis=1)
        if sizes.max(initial=0) >= 2**32:
            raise ValueError(
                f"a node of {sizes.max() / 2**30:.1f} GiB is too large to round, 4 GiB is the most: "
                "leave rounding None, or use a smaller arity"
            )
        entry_ptr, bucket_ptr = offsets(sizes), offsets(2**bits + 1)
        packed = cls(
            dict(
                lines=biases.lines,
                line_ptr=biases.line_ptr,
                entries=np.zeros(entry_ptr[-1] + MARGIN, dtype=np.uint8),
                entry_ptr=entry_ptr,
                buckets=np.empty(bucket_ptr[-1], dtype=np.uint32),
                bucket_ptr=bucket_ptr,
                shifts=(id_bits - bits).astype(np.int32),
                n_entries=counts.sum(axis=1),
                scale=np.array([step, id_bits], dtype=np.float64),
            )
        )
        pack_weights(weights, child_ptr, tags, packed)
        return packed

    @property
    def step(self) -> float:
        """What the integers are multiplied by."""
        return float(self.scale[0])

    @property
    def id_bits(self) -> int:
        return int(self.scale[1])

    def node(self, v: int, arity: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Features, weights (n_features_of_node, arity) and bias (arity,) of one node."""
        features = np.empty(self.n_entries[v], dtype=np.int32)
        weights = np.empty((len(features), arity), dtype=np.float32)
        unpack_node(self, v, arity, features, weights)
        return features, weights, self.lines[self.line_ptr[v] : self.line_ptr[v + 1]].ravel()[:arity]

    def unpacked(self, tree: LabelTree, n_features: int) -> NodeWeights:
        """The same weights, each a float again."""
        arities = np.diff(tree.child_ptr)
        weights = NodeWeights.of_sizes(self.n_entries, arities)
        for v, arity in enumerate(arities.tolist()):
            weights.fill(v, *self.node(v, arity))
        return weights.nested(tree, n_features)


def _bias_lines(first: NDArray[np.int64], n_lines: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of n_lines lines from each first one."""
    ends = np.cumsum(n_lines)
    return np.repeat(first - (ends - n_lines), n_lines) + np.arange(ends[-1] if len(ends) else 0)


def _entry_bytes(arities: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of an entry without its header: (n_nodes, FEW + len(BITS)). Each sixteen children begin a byte."""
    full, rest = arities[:, None] // 16, arities[:, None] % 16
    half, quarter = -(-rest // 2), -(-rest // 4)
    few = np.broadcast_to(2 * np.arange(1, FEW + 1), (len(arities), FEW))
    return np.hstack([few, full * 2 * BITS + np.hstack([half, half + quarter, 2 * rest, 4 * rest])])
