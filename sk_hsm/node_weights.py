"""The weights of all nodes as flat arrays: for each node its features and their lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._kernels.ranks import rank_features
from .label_tree import LabelTree

LINE = 16  # floats to a line, 64 bytes: one cache line
NO_CHILD = np.float32(-1e30)  # the bias of a child that is padding, or has no rows
WORD = 32  # features that a word of `words` is about


def n_lines(arity: NDArray[np.int64] | int) -> NDArray[np.int64] | int:
    """Lines that one feature takes in a node of so many children."""
    return -(-arity // LINE)


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
    """Sparse weights of every inner node, made for looking up the features of a row, from the root down.

    Node ``v`` has the features ``features[feature_ptr[v]:feature_ptr[v + 1]]``, ascending. Its lines begin
    at ``line_ptr[v]``: first the bias, then one weight per child for each feature; a node of more than 16
    children takes several lines. All features of a node are among those of its nearest ancestor that has
    any. ``words[word_ptr[v]:word_ptr[v + 1]]`` say which of these the node has: bit ``i % 32`` of word
    ``i // 32`` is that of the ancestor's i-th, or without such an ancestor of feature i, and the upper 32
    bits of a word are how many the node has before it. They are written by `ranked`, last.
    """

    __slots__ = ("lines", "line_ptr", "features", "feature_ptr", "words", "word_ptr")

    lines: NDArray[np.float32]
    line_ptr: NDArray[np.int64]
    features: NDArray[np.int32]
    feature_ptr: NDArray[np.int64]
    words: NDArray[np.uint64]
    word_ptr: NDArray[np.int64]

    step = 0.0  # they are not rounded, see PackedWeights

    @classmethod
    def of_sizes(cls, n_features: NDArray[np.int64], arities: NDArray[np.int64]) -> NodeWeights:
        """With room, not yet filled, for the features and the children of each node."""
        feature_ptr = offsets(n_features)
        line_ptr = offsets((n_features + 1) * n_lines(arities))
        return cls(
            dict(
                lines=aligned_empty(line_ptr[-1] * LINE).reshape(-1, LINE),
                line_ptr=line_ptr,
                features=np.empty(feature_ptr[-1], dtype=np.int32),
                feature_ptr=feature_ptr,
                words=np.empty(0, dtype=np.uint64),
                word_ptr=np.zeros_like(line_ptr),
            )
        )

    @classmethod
    def assembled(
        cls, sources: Sequence[NodeWeights], which: NDArray[np.intp], tree: LabelTree, n_features: int
    ) -> NodeWeights:
        """Each node's weights from one of some sources, and zeros for features that only nodes below have.

        They can be searched. Of one source that needs no zeros, it is that.
        """
        sizes = np.choose(which, [np.diff(source.feature_ptr) for source in sources])
        parts = [
            sources[i].features[sources[i].feature_ptr[lo] : sources[i].feature_ptr[hi]]
            for i, lo, hi in runs_of(which)
        ]
        features, feature_ptr = np.concatenate([np.empty(0, np.int32), *parts]), offsets(sizes)
        above = nearest_with_features(sizes, tree.parents)
        words, word_ptr, is_loose = ranks(features, feature_ptr, above, n_features)
        more = features_below(features, feature_ptr, above, is_loose)
        if more or len(sources) > 1:
            out = cls.joined(sources, which, sizes, np.diff(tree.child_ptr), more)
        else:
            [out] = sources
        if more:
            return out.ranked(tree, n_features)
        out.words, out.word_ptr = words, word_ptr
        return out

    @classmethod
    def joined(
        cls,
        sources: Sequence[NodeWeights],
        which: NDArray[np.intp],
        sizes: NDArray[np.int64],
        arities: NDArray[np.int64],
        more: dict[int, NDArray[np.int32]],
    ) -> NodeWeights:
        """Each node's weights from one of some sources, without words; zeros for some with more features."""
        sizes, alone = sizes.copy(), np.zeros(len(which), np.intp)
        for v, missing in more.items():
            sizes[v] += len(missing)
            alone[v] = 1 + v  # so that it is a run
        out = cls.of_sizes(sizes, arities)
        for i, lo, hi in runs_of(which + len(sources) * alone):
            source = sources[i % len(sources)]
            if lo in more:
                features, weights, bias = source.node(lo, arities[lo])
                zeros = np.zeros((len(more[lo]), arities[lo]), np.float32)
                out.fill(lo, np.append(features, more[lo]), np.vstack([weights, zeros]), bias)
            else:
                out.copy_nodes(source, lo, hi)
        return out

    def nested(self, tree: LabelTree, n_features: int) -> NodeWeights:
        """These weights, and zeros for features that only nodes below have: they can be searched then."""
        return NodeWeights.assembled([self], np.zeros(tree.n_inner, np.intp), tree, n_features)

    def ranked(self, tree: LabelTree, n_features: int) -> NodeWeights:
        """These weights, which now have words, and can be searched."""
        above = nearest_with_features(np.diff(self.feature_ptr), tree.parents)
        self.words, self.word_ptr, is_loose = ranks(self.features, self.feature_ptr, above, n_features)
        if is_loose.any():
            raise ValueError("a node has features that the node above it has not: fit the model again")
        return self

    def node(self, v: int, arity: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Features, weights (n_features_of_node, arity) and bias (arity,) of one node."""
        features = self.features[self.feature_ptr[v] : self.feature_ptr[v + 1]]
        block = self.lines[self.line_ptr[v] : self.line_ptr[v + 1]].reshape(len(features) + 1, -1)
        return features, block[1:, :arity], block[0, :arity]

    def copy_nodes(self, source: NodeWeights, lo: int, hi: int) -> None:
        """Set nodes lo to hi - 1, which have as many features in the source."""
        for name, ptr_name in (("lines", "line_ptr"), ("features", "feature_ptr")):
            ptr, source_ptr = getattr(self, ptr_name), getattr(source, ptr_name)
            part = getattr(source, name)[source_ptr[lo] : source_ptr[hi]]
            getattr(self, name)[ptr[lo] : ptr[hi]] = part

    def fill(
        self, v: int, features: NDArray[np.int32], weights: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> None:
        """Set one node; the arrays are those that `node` gives, in any order of features."""
        order = np.argsort(features)
        self.features[self.feature_ptr[v] : self.feature_ptr[v + 1]] = features[order]
        block = self.lines[self.line_ptr[v] : self.line_ptr[v + 1]].reshape(len(features) + 1, -1)
        block[:], block[0] = 0, NO_CHILD
        block[0, : len(bias)], block[1:, : len(bias)] = bias, weights[order]


def runs_of(numbers: NDArray[np.intp]) -> Iterator[tuple[int, int, int]]:
    """Each number that stands once or more in a row, and where it begins and ends to do so."""
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    for lo, hi in pairwise([*starts.tolist(), len(numbers)]):
        yield int(numbers[lo]), lo, hi


def nearest_with_features(sizes: NDArray[np.int64], parents: NDArray[np.int32]) -> NDArray[np.int32]:
    """Of each inner node its nearest ancestor that has any features, or -1."""
    above = parents[: len(sizes)].copy()
    while np.any(has_none := (above >= 0) & (sizes[above] == 0)):
        above[has_none] = above[above[has_none]]
    return above


def check_features(features: NDArray[np.int32], n_features: int) -> None:
    """Raise ValueError where there are others: kernels trust them."""
    if np.any(features.view(np.uint32) >= n_features):
        raise ValueError(
            f"this model is damaged: it has weights of more than its {n_features} features, fit it again"
        )


def word_offsets(sizes: NDArray[np.int64], above: NDArray[np.int32], n_features: int) -> NDArray[np.int64]:
    """Where the words of each node begin."""
    n_above = np.where(above >= 0, sizes[above], n_features)
    return offsets(np.where(sizes > 0, -(-n_above // WORD), 0))


def ranks(
    features: NDArray[np.int32], feature_ptr: NDArray[np.int64], above: NDArray[np.int32], n_features: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.bool_]]:
    """Words and where each node's begin, and whether a node has features that the one above has not."""
    check_features(features, n_features)
    sizes = np.diff(feature_ptr)
    word_ptr = word_offsets(sizes, above, n_features)
    words, is_loose = np.zeros(word_ptr[-1], dtype=np.uint64), np.zeros(len(sizes), dtype=bool)
    nodes = np.flatnonzero(sizes)
    nodes = nodes[np.argsort(above[nodes], kind="stable")]
    rank_features(features, feature_ptr, above, nodes, n_features, words, word_ptr, is_loose.view(np.uint8))
    return words, word_ptr, is_loose


def features_below(
    features: NDArray[np.int32],
    feature_ptr: NDArray[np.int64],
    above: NDArray[np.int32],
    is_loose: NDArray[np.bool_],
) -> dict[int, NDArray[np.int32]]:
    """Of nodes that lack features which nodes below them have, these."""
    more: dict[int, NDArray[np.int32]] = {}
    for v in range(len(above) - 1, 0, -1):  # children come after their parents
        if above[v] >= 0 and (is_loose[v] or v in more):
            own, others = (features[feature_ptr[i] : feature_ptr[i + 1]] for i in (v, above[v]))
            own = np.append(own, more.get(v, own[:0]))
            missing = own[np.isin(own, others, assume_unique=True, invert=True)]
            more[above[v]] = np.union1d(more.get(above[v], missing), missing)
    return {v: missing for v, missing in more.items() if len(missing)}


def aligned_empty(size: int, dtype: DTypeLike = np.float32) -> NDArray:
    """Uninitialised 1-D array that starts where a cache line does."""
    itemsize = np.dtype(dtype).itemsize
    memory = np.empty(size * itemsize + 64, dtype=np.uint8)
    skip = -memory.ctypes.data % 64
    return memory[skip : skip + size * itemsize].view(dtype)


def aligned(array: NDArray) -> NDArray:
    """The same values from where a cache line begins, so that no line is in two of them.

    Not of a map, nor of memory that cannot be written: others may have it, too.
    """
    if array.ctypes.data % 64 == 0 or isinstance(array, np.memmap) or not array.flags.writeable:
        return array
    out = aligned_empty(array.size, array.dtype).reshape(array.shape)
    out[...] = array
    return out


def offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each begins, and the last ends, of parts of these sizes."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
