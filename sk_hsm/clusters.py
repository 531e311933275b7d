"""Class centroids -> :class:`~sk_hsm.LabelTree`, by k-means."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import sparse

from ._kernels.cuts import kmeans_split
from ._kernels.trees import contract_binary
from .blas import one_blas_thread
from .centroids import is_dense, with_class_features
from .label_tree import LabelTree
from .validation import as_array, kernel_rows

# A class counts with its frequency to this power when k-means balances its
# clusters: 0 balances the number of classes, 1 the number of rows.
BALANCE = 0.5
# k-means ends after ITERATIONS rounds, or when a round moves less than TOL of the classes. Of more than
# SAMPLE classes it starts from the best of N_INIT results for SAMPLE of them.
ITERATIONS = 10
TOL = 0.003
N_INIT = 3
SAMPLE = 2000
# Cuts in two are many, and have less time: more than CUT_SAMPLE classes start from an eighth of them, at most
# CUT_SAMPLE. One half may be up to SLACK lighter than its share.
CUT_ITERATIONS = 4
CUT_TOL = 0.02
CUT_SAMPLE = 500
SLACK = 0.5
# A softmax can always tell apart what k-means divides, but what was cut in two and in two again only with
# features enough. Where centroids are dense, or there is less than one feature in MANY classes, nodes of more
# than SMALL times `arity` classes are therefore divided into `arity` clusters at once.
MANY = 10
SMALL = 4
# Cuts of more than one class in PARTS are handed to threads one by one, smaller ones with all below them.
PARTS = 16
# Cosines that are computed in one go; and closer than TIE they are equal: the tree must not hang on rounding.
AT_ONCE = 2**22
TIE = 1e-6
# Of fewer points times clusters, sums are a product of full matrices: to make a sparse one takes longer.
PRODUCT = 2**18

Rows = NDArray[np.float32] | sparse.csr_array
Node = tuple[int, int, int]  # first and last position of its classes, depth


@dataclass
class Classes:
    """The centroid of each class, of length one, its mass and its summed row weight."""

    points: Rows
    mass: NDArray[np.float32]
    frequency: NDArray[np.float64]


def cluster_centroids(
    centroids: sparse.csr_array,
    frequency: NDArray[np.float64],
    arity: int,
    seeds: Sequence[int],
    n_jobs: int | None,
    class_features: sparse.csr_array | None = None,
    class_share: float = 0.0,
) -> list[LabelTree]:
    """A tree of centroids and summed weights for each seed, as kmeans_tree says."""
    at_once = are_divided_at_once(centroids, frequency, arity)
    if class_features is not None and class_share > 0:
        centroids = with_class_features(centroids, class_features, class_share)
    points = None
    if at_once:
        points = centroids.toarray() if is_dense(centroids, frequency) else centroids
    with one_blas_thread() if isinstance(points, np.ndarray) else nullcontext():
        if len(seeds) == 1:
            return [cluster_once(centroids, points, frequency, arity, seeds[0], n_jobs)]
        return Parallel(n_jobs=n_jobs, require="sharedmem")(
            delayed(cluster_once)(centroids, points, frequency, arity, seed, 1) for seed in seeds
        )


def are_divided_at_once(centroids: sparse.csr_array, frequency: NDArray[np.float64], arity: int) -> bool:
    """Whether nodes of many classes are: those of dense centroids, and of narrow ones."""
    n_classes = len(frequency)
    if arity == 2 or n_classes <= SMALL * arity:
        return False
    if is_dense(centroids, frequency):
        return True
    return MANY * np.count_nonzero(np.bincount(centroids.indices)) < n_classes


def cluster_once(
    centroids: sparse.csr_array,
    points: Rows | None,
    frequency: NDArray[np.float64],
    arity: int,
    seed: int,
    n_jobs: int | None,
) -> LabelTree:
    """A tree; the points are the centroids where nodes are divided at once, dense ones as an array."""
    n_classes, n_features = centroids.shape
    order = np.arange(n_classes, dtype=np.int32)
    depth = np.zeros(n_classes, dtype=np.int32)
    # times a power of two, which changes no digit, so that no sum leaves float32
    frequency = np.ldexp(frequency, -np.frexp(frequency.max())[1])
    mass = np.maximum(frequency**BALANCE, 1e-3 * frequency.max() ** BALANCE).astype(np.float32)
    settings = seed, CUT_ITERATIONS, CUT_TOL, N_INIT, CUT_SAMPLE, SLACK
    nodes = [(0, n_classes, 0)]
    with Parallel(n_jobs=n_jobs, require="sharedmem") as parallel:
        if points is not None:
            nodes = divide(Classes(points, mass, frequency), arity, order, depth, seed, parallel)
        halve(nodes, (*kernel_rows(centroids), mass, n_features, order, depth), settings, parallel)
    for lo, hi, level in nodes:
        contract_binary(depth[lo:hi], frequency[order[lo:hi]], arity)
        depth[lo + 1 : hi] += level
    return LabelTree._from_boundaries(order, depth)


def divide(
    classes: Classes,
    arity: int,
    order: NDArray[np.int32],
    depth: NDArray[np.int32],
    seed: int,
    parallel: Parallel,
) -> list[Node]:
    """Divide nodes of more than SMALL * arity classes by k-means, and their children; return what is left.

    So that no tree is deep, nodes of few clusters are left, and clusters of more than half of a node.
    """
    left, nodes = [], [(0, len(order), 0)]
    while nodes:
        left += [(lo, hi, level) for lo, hi, level in nodes if hi - lo <= SMALL * arity]
        large = [(lo, hi, level) for lo, hi, level in nodes if hi - lo > SMALL * arity]
        found = parallel(
            delayed(divide_node)(classes, arity, order[lo:hi], [seed, lo, hi]) for lo, hi, _ in large
        )
        nodes = []
        for (lo, hi, level), sizes in zip(large, found, strict=True):
            if len(sizes) <= arity / 2:
                left.append((lo, hi, level))
                continue
            bounds = np.cumsum([lo, *sizes]).tolist()
            depth[bounds[1:-1]] = level + 1
            for start, end in pairwise(bounds):
                most = end - start > (hi - lo) / 2
                (left if most else nodes).append((start, end, level + 1))
    return left


def divide_node(
    classes: Classes, arity: int, order: NDArray[np.int32], seed: Sequence[int]
) -> NDArray[np.int64]:
    """Sort the classes of a node by clusters, and return the clusters' sizes.

    A class that has more than its share of the rows is a child by itself.
    """
    frequency = classes.frequency[order]
    alone = frequency > frequency.sum() / arity
    rest = order[~alone]
    n_clusters = arity - np.count_nonzero(alone)
    cluster = k_means(classes.points[rest], classes.mass[rest], n_clusters, np.random.default_rng(seed))
    order[:] = np.concatenate([rest[np.argsort(cluster, kind="stable")], order[alone]])
    sizes = np.bincount(cluster)
    return np.concatenate([sizes[sizes > 0], np.ones(np.count_nonzero(alone), dtype=np.int64)])


def k_means(
    points: Rows, mass: NDArray[np.float32], n_clusters: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Spherical k-means of points of length one, the best of N_INIT: the cluster of each point."""
    n, n_sample = points.shape[0], max(SAMPLE, SMALL * n_clusters)
    some = rng.choice(n, n_sample, replace=False) if n > n_sample else np.arange(n)
    sample, sample_mass = points[some], mass[some]
    starts = (as_array(sample[rng.choice(len(some), n_clusters, replace=False)]) for _ in range(N_INIT))
    _, centers, cluster = max((lloyd(sample, sample_mass, start) for start in starts), key=itemgetter(0))
    return lloyd(points, mass, centers)[2] if n > n_sample else cluster


def lloyd(
    points: Rows, mass: NDArray[np.float32], centers: NDArray[np.float32]
) -> tuple[float, NDArray[np.float32], NDArray[np.intp]]:
    """Lloyd's algorithm: the sum of mass times cosine, the last centers, and the cluster of each point."""
    n, cluster = points.shape[0], nearest(points, centers)
    for _ in range(ITERATIONS):
        sums = as_array(members(cluster, mass, len(centers)) @ points)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centers = sums / np.maximum(lengths, np.finfo(np.float32).tiny)
        former, cluster = cluster, nearest(points, centers)
        if np.count_nonzero(cluster != former) <= TOL * n:
            break
    return float(lengths.sum()), centers, cluster


def members(cluster: NDArray[np.intp], mass: NDArray[np.float32], n_clusters: int) -> Rows:
    """The mass of each point in the row of its cluster."""
    n = len(cluster)
    if n * n_clusters >= PRODUCT:
        return sparse.csr_array((mass, (cluster, np.arange(n))), shape=(n_clusters, n))
    full = np.zeros((n_clusters, n), dtype=np.float32)
    full[cluster, np.arange(n)] = mass
    return full


def nearest(points: Rows, centers: NDArray[np.float32]) -> NDArray[np.intp]:
    """Which center has the largest cosine with each point; of those at right angles to it, one in turn."""
    n, n_centers = points.shape[0], len(centers)
    columns, step = np.ascontiguousarray(centers.T), max(1, AT_ONCE // n_centers)
    found = np.empty(n, dtype=np.intp)
    for lo in range(0, n, step):
        cosines = points[lo : lo + step] @ columns
        best = cosines.max(axis=1)
        found[lo : lo + step] = (cosines >= best[:, None] - TIE).argmax(axis=1)
        unlike = np.flatnonzero(np.abs(best) <= TIE)
        found[lo + unlike] = (lo + unlike) % n_centers
    return found


def halve(nodes: list[Node], arrays: tuple, settings: tuple, parallel: Parallel) -> None:
    """Cut the classes of each node in two by 2-means, and these again, down to single ones."""
    depth = arrays[-1]
    large = max(len(depth) // PARTS, SAMPLE)
    ranges = [(lo, hi, 1) for lo, hi, _ in nodes if hi - lo > 1]
    while ranges:
        parallel(
            delayed(kmeans_split)(*arrays, lo, hi, level, hi - lo <= large, *settings)
            for lo, hi, level in ranges
        )
        # where a large one was cut, there is the only depth inside it
        cuts = [
            (lo, lo + 1 + int(depth[lo + 1 : hi].argmax()), hi, level + 1)
            for lo, hi, level in ranges
            if hi - lo > large
        ]
        ranges = [half for lo, cut, hi, level in cuts for half in ((lo, cut, level), (cut, hi, level))]
