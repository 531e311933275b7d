"""The building of label trees."""

from __future__ import annotations

import heapq

import numpy as np


def huffman_parents(counts, arity, parents):
    """Huffman's tree: merge the `arity` lightest nodes into one until a single node is left.

    Ties are merged in order of node. The first merge takes ``2 + (n - 2) mod (arity - 1)``
    nodes, so that all later ones are full.

    counts : (n,) float64, the weights of the leaves, ascending; nodes 0 .. n - 1.
    arity : int from 2 to n.
    parents : (n_nodes,) int32, out: the parent of each node, -1 for the root, the last one.
    """
    heap = [(count, node) for node, count in enumerate(counts.tolist())]
    take = 2 + (len(heap) - 2) % (arity - 1)
    for new in range(len(counts), len(parents)):
        lightest = [heapq.heappop(heap) for _ in range(take)]
        parents[[node for _, node in lightest]] = new
        heapq.heappush(heap, (sum(count for count, _ in lightest), new))
        take = arity
    parents[-1] = -1


def contract_binary(boundary_depth, mass, arity):
    """Merge nodes of a binary tree into their parents, for the least mean depth at this arity.

    Of all trees of at most `arity` children a node that arise so, the one with the least
    ``sum(mass * depth)`` over the leaves. ``cost(v, 1)`` is the least sum below node v, its own
    edge not counted, and ``cost(v, k)`` that of having it as k siblings, v itself being merged
    into its parent::

        cost(v, k) = min over a of cost(left, a) + cost(right, k - a)
        cost(v, 1) = mass(v) + min over k of cost(v, k)

    boundary_depth : (n_leaves,) int32, in and out: the tree as LabelTree._from_boundaries takes it.
    mass : (n_leaves,) float64, of each leaf.
    arity : int.
    """
    depth, n = boundary_depth.copy(), len(mass)

    def node(lo, hi):
        """Costs of the leaves lo to hi by the number of siblings, each with the depths it gives."""
        if hi - lo == 1:
            return {1: (0.0, {})}
        cut = lo + 1 + int(np.argmin(depth[lo + 1 : hi]))
        left, right = node(lo, cut), node(cut, hi)
        costs = {}
        for a, b in np.ndindex(len(left), len(right)):
            cost = left[a + 1][0] + right[b + 1][0]
            if a + b + 2 <= arity and cost < costs.get(a + b + 2, (np.inf,))[0]:
                costs[a + b + 2] = cost, {cut: 0} | left[a + 1][1] | right[b + 1][1]
        best = min(costs, key=lambda k: (costs[k][0], -k))
        cost, depths = costs[best]
        costs[1] = cost + mass[lo:hi].sum(), {at: d + 1 for at, d in depths.items()}
        return costs

    if n > 1:
        for at, d in node(0, n)[1][1].items():
            boundary_depth[at] = d
