"""The building of label trees."""

from __future__ import annotations

import heapq

import numpy as np

from ._common import dense, mix

TIE = 1e-6  # cosines closer than this are equal
LEFT, RIGHT = 1, 2  # the sides of a cut


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


def kmeans_split(
    indptr, indices, data, mass, n_features, order, boundary_depth, lo, hi, depth,
    whole_subtree, seed, max_iter, tol, n_init, n_sample, slack,
):  # fmt: skip
    """Cut the classes order[lo:hi] in two of like mass by 2-means, and each half again.

    A cut is found by _two_means from two classes drawn at random. If there are more than
    n_sample classes, it starts instead from the best of n_init such cuts of n_sample of them,
    evenly spaced: the one with the largest ``||sum of mass * x on the left|| + ||... right||``.
    Its left holds the classes that score above zero, but at least ``(1 - slack) / 2`` of the
    mass and at most ``(1 + slack) / 2``. Classes keep their order within a half.

    indptr, indices, data : the class centroids x, CSR with a row a class.
    mass : (n_classes,) float32, positive.
    order : (n_classes,) int32, in and out: the classes; those of the slice are rearranged.
    boundary_depth : (n_classes,) int32, out: at each place where a right half begins, the
        depth of the halves.
    lo, hi : the slice.
    depth : int, of the first two halves.
    whole_subtree : whether halves are cut again, down to single classes.
    seed, max_iter, tol, n_init, n_sample, slack : see above and _two_means.
    """
    x = dense(indptr, indices, data, n_features)
    slices = [(int(lo), int(hi), depth)]
    while slices:
        lo, hi, depth = slices.pop()
        if hi - lo < 2:
            continue
        classes = order[lo:hi]
        is_left = _bisect(
            x[classes], mass[classes].astype(np.float64), slack,
            mix(seed ^ mix(lo) ^ hi), max_iter, tol, n_init, n_sample,
        )  # fmt: skip
        order[lo:hi] = np.concatenate([classes[is_left], classes[~is_left]])
        cut = lo + int(np.sum(is_left))
        boundary_depth[cut] = depth
        if whole_subtree:
            slices += [(lo, cut, depth + 1), (cut, hi, depth + 1)]


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


def _bisect(x, mass, slack, seed, max_iter, tol, n_init, n_sample):
    """Which rows are on the left."""
    n = len(x)
    limits = np.array([1 - slack, 1 + slack]) / 2
    if n <= n_sample:
        return _best_start(x, mass, limits, seed, max_iter, tol, 1)
    sample = np.arange(n_sample) * n // n_sample
    side = np.zeros(n, dtype=int)
    side[sample] = np.where(
        _best_start(x[sample], mass[sample], limits, seed, max_iter, tol, n_init), LEFT, RIGHT
    )
    return _two_means(x, mass, limits, side, max_iter, tol)


def _best_start(x, mass, limits, seed, max_iter, tol, n_init):
    """Which rows are on the left of the best of n_init cuts, each from two rows drawn at random."""
    n = len(x)
    best, best_value = None, 0.0
    for run in range(n_init):
        side = np.zeros(n, dtype=int)
        first = mix(mix(seed + run)) % n
        side[first] = LEFT
        side[(first + 1 + mix(mix(seed + run) + 1) % (n - 1)) % n] = RIGHT
        is_left = _two_means(x, mass, limits, side, max_iter, tol)
        value = _length(x, mass, is_left) + _length(x, mass, ~is_left)
        if best is None or value > best_value * (1 + TIE):
            best, best_value = is_left, value
    return best


def _two_means(x, mass, limits, side, max_iter, tol):
    """Spherical 2-means from rows that have a side: which rows are on the left.

    A row scores its cosine to the left centroid less its cosine to the right one. Scores
    up to TIE are zero. The rows that score best are on the left, ties in their order: as many
    as have a mass nearest to the one of the rows above zero, bounded by limits (shares of all
    mass), and neither none nor all. A centroid is the sum of its rows times their masses. It
    ends after max_iter rounds, or when a round changes the side of at most ``tol * n_rows`` rows.
    """
    n = len(x)
    low, high = limits * mass.sum()
    for _ in range(max_iter):
        left, right = (mass[side == s] @ x[side == s] for s in (LEFT, RIGHT))
        score = np.sum(x * (_unit(left) - _unit(right)), axis=1)
        score[np.abs(score) <= TIE] = 0
        target = min(max(mass[score > 0].sum(), low), high)
        best = np.lexsort([np.arange(n), -score])
        middles = np.cumsum(mass[best]) - mass[best] / 2
        before, side = side, np.full(n, RIGHT)
        side[best[: min(max(np.count_nonzero(middles < target), 1), n - 1)]] = LEFT
        if np.sum(before != side) <= tol * n:
            break
    return side == LEFT


def _length(x, mass, side):
    return np.linalg.norm(mass[side] @ x[side])


def _unit(v):
    square = v @ v
    return v / np.sqrt(square) if square > 1e-12 else 0 * v
