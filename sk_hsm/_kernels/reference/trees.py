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
    indptr, indices, data, mass, n_features, order, boundary_depth, lo, hi, arity, depth,
    whole_subtree, seed, max_iter, tol, n_init, n_sample, slack,
):  # fmt: skip
    """Divide the classes order[lo:hi] into `arity` children, by 2-means cuts of like mass.

    A slice that is to become several children is cut in two, and each half again, until
    each part is one child; of so many children a half gets its share of the mass, rounded.
    Classes fewer than the children asked for become a child each.

    A cut is found by _two_means from two classes drawn at random. If there are more than
    n_sample classes, it starts instead from the best of n_init such cuts of n_sample of them,
    evenly spaced: the one with the largest ``||sum of mass * x on the left|| + ||... right||``.
    Its left holds the classes that score above zero, but at least ``share - spread`` of the
    mass and at most ``share + spread``: share is half of the children, rounded up, over all of
    them, and ``spread = slack * min(share, 1 - share)``. Classes keep their order within a half.

    indptr, indices, data : the class centroids x, CSR with a row a class.
    mass : (n_classes,) float32, positive.
    order : (n_classes,) int32, in and out: the classes; those of the slice are rearranged.
    boundary_depth : (n_classes,) int32, out: the depth of the node that begins at each
        place of the order but the slice's first, where one does.
    lo, hi : the slice.
    arity, depth : int; the number of children, and their depth.
    whole_subtree : whether children of several classes are divided on, `arity` children each.
    seed, max_iter, tol, n_init, n_sample, slack : see above and _two_means.
    """
    x = dense(indptr, indices, data, n_features)
    slices = [(int(lo), int(hi), arity, depth)]
    while slices:
        lo, hi, parts, depth = slices.pop()
        if hi - lo <= parts:
            boundary_depth[lo + 1 : hi] = depth
        elif parts > 1:
            classes = order[lo:hi]
            is_left = _bisect(
                x[classes], mass[classes].astype(np.float64), parts, slack,
                mix(seed ^ mix(lo) ^ hi), max_iter, tol, n_init, n_sample,
            )  # fmt: skip
            share = mass[classes[is_left]].sum(dtype=np.float64) / mass[classes].sum(dtype=np.float64)
            order[lo:hi] = np.concatenate([classes[is_left], classes[~is_left]])
            cut = lo + int(np.sum(is_left))
            boundary_depth[cut] = depth
            left_parts = _left_parts(parts, share, cut - lo, hi - cut)
            slices += [(lo, cut, left_parts, depth), (cut, hi, min(parts - left_parts, hi - cut), depth)]
        elif whole_subtree:
            slices.append((lo, hi, arity, depth + 1))


def _left_parts(parts, share, n_left, n_right):
    """Children on the left: their share, at least one on either side, no more than classes."""
    wanted = min(max(int(parts * share + 0.5), 1), parts - 1, n_left)
    return min(max(wanted, parts - n_right), n_left)


def _bisect(x, mass, parts, slack, seed, max_iter, tol, n_init, n_sample):
    """Which rows are on the left."""
    n = len(x)
    share = (parts + 1) // 2 / parts
    spread = slack * min(share, 1 - share)
    limits = np.array([share - spread, share + spread])
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
