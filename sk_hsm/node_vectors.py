"""The vectors of all nodes, where features are dense: one for each child."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .node_weights import FlatArrays, offsets


class NodeVectors(FlatArrays):
    """Dense weights of every inner node, for rows of few features that are all there.

    Node ``v`` has the vectors number ``vector_ptr[v]`` up to the next entry: one for each child, whose
    logits are the products with the row, plus the intercept. Of two children only the second has
    one, and the logit of the first is zero: a sigmoid.
    """

    __slots__ = ("vectors", "intercepts", "vector_ptr")

    vectors: NDArray[np.float32]
    intercepts: NDArray[np.float32]
    vector_ptr: NDArray[np.int64]

    step = 0.0  # they are not rounded, see PackedWeights


def vector_offsets(child_ptr: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where each inner node's vectors begin, and the last ends."""
    arities = np.diff(child_ptr).astype(np.int64)
    return offsets(np.where(arities == 2, 1, arities))
