"""Cuts of classes in two."""

from __future__ import annotations

import numpy as np

from ._common import dense, mix

TIE = 1e-6  # cosines closer than this are equal
LEFT, RIGHT = 1, 2  # the sides of a cut
PART = 8  # a sample of many classes is one in so many at most


def kmeans_split(
    indptr, indices, data, mass, n_features, order, boundary_depth, lo, hi, depth,
    whole_subtree, seed, max_iter, tol, n_init, n_sample, slack,
):  # fmt: skip
    """Cut the classes order[lo:hi] in two of like mass by 2-means, and each half again.

    A cut is found by _two_means from two classes drawn at random. If there are more than
    n_sample classes, it starts instead from the best of n_init such cuts of an eighth of them,
    at most n_sample, evenly spaced: the one with the largest
    ``||sum of mass * x on the left|| + ||... right||``. Its left holds the classes that score
    above zero, but at least ``(1 - slack) / 2`` of the mass and at most ``(1 + slack) / 2``.
    Classes keep their order within a half.

    indptr, indices, data : the class centroids x, CSR with a row a class.
    mass : (n_classes,) float32, positive.
    order : (n_classes,) int32, in and out: the classes; those of the slice are rearranged.
    boundary_depth : (n_classes,) int32, out: at each place where a right half begins, the
        depth of the halves.
    lo, hi : the slice.
    depth : int, of the first two halves.
    whole_subtree : whether halves are cut again, down to single classes.
    seed, max_iter, tol, n_init, n_sample, slack : see above and _two_means; n_sample is at least 2.
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


def _bisect(x, mass, slack, seed, max_iter, tol, n_init, n_sample):
    """Which rows are on the left."""
    n = len(x)
    limits = np.array([1 - slack, 1 + slack]) / 2
    if n <= n_sample:
        return _best_start(x, mass, limits, seed, max_iter, tol, 1)
    n_sample = min(n_sample, max(n // PART, 2))
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
