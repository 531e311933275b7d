"""Where features of the node above are among a node's own, see NodeWeights."""

from __future__ import annotations

import numpy as np


def rank_features(features, feature_ptr, above, nodes, n_features, words, word_ptr, is_loose):
    """Write the words of some nodes.

    Bit ``i % 32`` of word ``i // 32`` is 1 if the node has the i-th feature of the node above it, or where
    that is -1 feature i. The upper 32 bits are the number of such bits in the words before. A node that has
    features which the one above has not is loose; these have no bit.

    features, feature_ptr : of NodeWeights.
    above : (n_inner,) int32, the nearest ancestor with any features.
    nodes : int64, in the order of `above`.
    words : uint64, zeros, out.
    word_ptr : (n_inner + 1,) int64.
    is_loose : (n_inner,) uint8, zeros, out.
    """
    for v in nodes:
        own, others = (features[feature_ptr[i] : feature_ptr[i + 1]] for i in (v, above[v]))
        if above[v] < 0:
            others = np.arange(n_features)
        has = np.isin(others, own)
        is_loose[v] = len(own) > has.sum()
        bits = np.resize(np.append(has, np.zeros(-len(has) % 32, bool)), (-(-len(has) // 32), 32))
        before = np.cumsum(bits.sum(axis=1)) - bits.sum(axis=1)
        values = bits.astype(np.uint64) @ (np.uint64(1) << np.arange(32, dtype=np.uint64))
        words[word_ptr[v] : word_ptr[v + 1]] = values | before.astype(np.uint64) << np.uint64(32)
