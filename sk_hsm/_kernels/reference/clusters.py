"""Clusters of classes."""

from __future__ import annotations

import numpy as np

from ._common import dense

TIE = 1e-6  # cosines closer than this are equal
NOTHING = 1e-12  # a sum that is no longer than this share of all mass is zero


def kmeans_clusters(indptr, indices, data, mass, n_features, classes, sample, starts, max_iter, tol, cluster):
    """Spherical k-means of classes: the best of some results for a sample, and from there for all of them.

    Lloyd's algorithm gives each class to the center of the largest cosine: the first of those within TIE,
    and one in turn where that is zero. Centers then move to the directions of the sums of mass times x of
    their classes, or to zero if those cancel, and classes are given again, max_iter times or until at most
    the share tol of them change. Of the results for the sample, the best has the largest sum of the lengths
    of these sums; a later one must be better by the share TIE. Where the sample is all classes, the best is
    the result.

    indptr, indices, data : the class centroids x, CSR with a row a class, of length one or zero.
    mass : (n_classes,) float32, positive.
    classes : (n,) int32.
    sample : (n_sample,) int32, some of them, or all in the same order.
    starts : (n_starts, n_clusters) int32, the classes that are the first centers.
    cluster : (n,) int32, out.
    """
    x, mass = dense(indptr, indices, data, n_features), mass.astype(np.float64)
    results = [_lloyd(x[sample], mass[sample], x[start], max_iter, tol) for start in starts]
    best = results[0]
    for result in results[1:]:
        best = result if result[0] > best[0] * (1 + TIE) else best
    if len(sample) < len(classes):
        best = _lloyd(x[classes], mass[classes], best[1], max_iter, tol)
    cluster[:] = best[2]


def _lloyd(x, mass, centers, max_iter, tol):
    """The sum of the lengths of the sums, the last centers, and the cluster of each point."""
    cluster, total = _nearest(x, centers), 0.0
    for _ in range(max_iter):
        sums = np.array([mass[cluster == c] @ x[cluster == c] for c in range(len(centers))])
        lengths = np.linalg.norm(sums, axis=1)
        lengths[lengths <= NOTHING * mass.sum()] = 0
        total = lengths.sum()
        centers = np.divide(sums, lengths[:, None], out=np.zeros_like(sums), where=lengths[:, None] > 0)
        former, cluster = cluster, _nearest(x, centers)
        if np.count_nonzero(former != cluster) <= tol * len(x):
            break
    return total, centers, cluster


def _nearest(x, centers):
    cosines = x @ centers.T
    best = cosines.max(axis=1, keepdims=True)
    first = np.argmax(cosines >= best - TIE, axis=1)
    return np.where(np.abs(best[:, 0]) <= TIE, np.arange(len(x)) % len(centers), first)
