"""Class centroids -> :class:`~sk_hsm.LabelTree`, by k-means."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._kernels.clusters import kmeans_clusters
from ._kernels.cuts import kmeans_split
from ._kernels.trees import contract_binary
from .centroids import are_dense, with_class_features
from .label_tree import LabelTree
from .row_sums import row_sums
from .threads import over_threads
from .validation import kernel_rows

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
# Else classes of more than FREQUENT / arity of all rows, and of more than MANIFOLD average ones, are cut off
# first; at most half as many as a node has children.
FREQUENT = 0.5
MANIFOLD = 10
# Cuts of more than one class in PARTS are handed to threads one by one, smaller ones with all below them, in
# at most MAX_TASKS.
PARTS = 16
MAX_TASKS = 1000

Node = tuple[int, int, int]  # first and last position of its classes, depth


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
    centroids = of_used_columns(centroids)
    at_once = are_divided_at_once(centroids, frequency, arity)
    if class_features is not None and class_share > 0:
        centroids = of_used_columns(with_class_features(centroids, class_features, class_share))
    if len(seeds) == 1:
        return [cluster_once(centroids, at_once, frequency, arity, seeds[0], n_jobs)]
    return over_threads(
        lambda seed: cluster_once(centroids, at_once, frequency, arity, seed, 1), seeds, n_jobs
    )


def of_used_columns(centroids: sparse.csr_array) -> sparse.csr_array:
    """Without columns that no class has: sums are as long as rows."""
    is_used = np.bincount(centroids.indices, minlength=centroids.shape[1]) > 0
    if is_used.all():
        return centroids
    columns = (np.cumsum(is_used, dtype=np.int32) - np.int32(1))[centroids.indices]
    shape = len(centroids.indptr) - 1, max(np.count_nonzero(is_used), 1)
    return sparse.csr_array((centroids.data, columns, centroids.indptr), shape=shape)


def are_divided_at_once(centroids: sparse.csr_array, frequency: NDArray[np.float64], arity: int) -> bool:
    """Whether nodes of many classes are: of centroids that are dense, or narrow, in used columns."""
    n_classes = len(frequency)
    if arity == 2 or n_classes <= SMALL * arity:
        return False
    n_features = centroids.shape[1]
    return are_dense(row_sums(centroids), frequency, n_features) or MANY * n_features < n_classes


def cluster_once(
    centroids: sparse.csr_array,
    at_once: bool,
    frequency: NDArray[np.float64],
    arity: int,
    seed: int,
    n_jobs: int | None,
) -> LabelTree:
    """A tree: nodes are divided at once if they are large, or frequent classes cut off before others."""
    n_classes, n_features = centroids.shape
    order = np.arange(n_classes, dtype=np.int32)
    depth = np.zeros(n_classes, dtype=np.int32)
    # times a power of two, which changes no digit, so that no sum leaves float32
    frequency = np.ldexp(frequency, -np.frexp(frequency.max())[1])
    mass = np.maximum(frequency**BALANCE, 1e-3 * frequency.max() ** BALANCE).astype(np.float32)
    settings = seed, CUT_ITERATIONS, CUT_TOL, N_INIT, CUT_SAMPLE, SLACK
    points = (*kernel_rows(centroids), mass, n_features)
    if at_once:
        nodes = divide(points, frequency, arity, order, depth, seed, n_jobs)
        halve(nodes, (*points, order, depth), settings, n_jobs)
    else:
        order, n_frequent = frequent_last(frequency, arity)
        n_others = n_classes - n_frequent
        halve([(0, n_others, 0)], (*points, order, depth), settings, n_jobs)
        depth[1:n_others] += n_frequent
        depth[n_others:] = np.arange(n_frequent, 0, -1)
        nodes = [(0, n_classes, 0)]
    for lo, hi, level in nodes:
        contract_binary(depth[lo:hi], frequency[order[lo:hi]], arity)
        depth[lo + 1 : hi] += level
    return LabelTree._from_boundaries(order, depth)


def frequent_last(frequency: NDArray[np.float64], arity: int) -> tuple[NDArray[np.int32], int]:
    """Classes in their order, but frequent ones last, the most frequent at the end; how many those are."""
    frequency = frequency.astype(np.float32)  # so that the order of rows does not show
    least = max(FREQUENT / arity, MANIFOLD / len(frequency)) * frequency.sum()
    last = np.argsort(frequency, kind="stable")[-(arity // 2) :]
    last = last[frequency[last] > least]
    others = np.delete(np.arange(len(frequency)), last)
    return np.concatenate([others, last]).astype(np.int32), len(last)


def divide(
    points: tuple,
    frequency: NDArray[np.float64],
    arity: int,
    order: NDArray[np.int32],
    depth: NDArray[np.int32],
    seed: int,
    n_jobs: int | None,
) -> list[Node]:
    """Divide nodes of more than SMALL * arity classes by k-means, and their children; return what is left.

    So that no tree is deep, nodes of few clusters are left, and clusters of more than half of a node.
    """
    left, nodes = [], [(0, len(order), 0)]
    while nodes:
        left += [(lo, hi, level) for lo, hi, level in nodes if hi - lo <= SMALL * arity]
        large = [(lo, hi, level) for lo, hi, level in nodes if hi - lo > SMALL * arity]

        def divided(node: Node) -> NDArray[np.int64]:
            lo, hi, _ = node
            return divide_node(points, frequency, arity, order[lo:hi], [seed, lo, hi])

        found = over_threads(divided, large, n_jobs)
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
    points: tuple, frequency: NDArray[np.float64], arity: int, order: NDArray[np.int32], seed: Sequence[int]
) -> NDArray[np.int64]:
    """Sort the classes of a node by clusters, and return the clusters' sizes.

    A class that has more than its share of the rows is a child by itself.
    """
    here = frequency[order]
    alone = here > here.sum() / arity
    rest = order[~alone]
    cluster = k_means(points, rest, arity - np.count_nonzero(alone), np.random.default_rng(seed))
    order[:] = np.concatenate([rest[np.argsort(cluster, kind="stable")], order[alone]])
    sizes = np.bincount(cluster)
    return np.concatenate([sizes[sizes > 0], np.ones(np.count_nonzero(alone), dtype=np.int64)])


def k_means(
    points: tuple, classes: NDArray[np.int32], n_clusters: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """The cluster of each of these classes; the points are what kernels need of all classes."""
    n, n_sample = len(classes), max(SAMPLE, SMALL * n_clusters)
    sample = classes if n <= n_sample else classes[rng.choice(n, n_sample, replace=False)]
    starts = [sample[rng.choice(len(sample), n_clusters, replace=False)] for _ in range(N_INIT)]
    cluster = np.empty(n, dtype=np.int32)
    kmeans_clusters(*points, classes, sample, np.array(starts), ITERATIONS, TOL, cluster)
    return cluster


def halve(nodes: list[Node], arrays: tuple, settings: tuple, n_jobs: int | None) -> None:
    """Cut the classes of each node in two by 2-means, and these again, down to single ones."""
    depth = arrays[-1]
    large = max(len(depth) // PARTS, SAMPLE)
    ranges = [(lo, hi, 1) for lo, hi, _ in nodes if hi - lo > 1]

    def cut(some: list[Node]) -> None:
        for lo, hi, level in some:
            kmeans_split(*arrays, lo, hi, level, hi - lo <= large, *settings)

    while ranges:
        step = 1 + len(ranges) // MAX_TASKS
        over_threads(cut, [ranges[first : first + step] for first in range(0, len(ranges), step)], n_jobs)
        # where a large one was cut, there is the only depth inside it
        cuts = [
            (lo, lo + 1 + int(depth[lo + 1 : hi].argmax()), hi, level + 1)
            for lo, hi, level in ranges
            if hi - lo > large
        ]
        ranges = [half for lo, cut, hi, level in cuts for half in ((lo, cut, level), (cut, hi, level))]
