"""Class frequencies or class centroids -> :class:`~sk_hsm.LabelTree`."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils import check_random_state

from ._kernels import trees
from .centroids import class_centroids
from .clusters import cluster_centroids
from .label_tree import LabelTree
from .tree_checks import are_distinct, check_labels, plain
from .validation import check_count, check_rows, check_weights, encode_known, encode_labels


def check_arity(arity: Any) -> int:
    """Return arity as an int, or raise ValueError."""
    if not isinstance(arity, Integral) or isinstance(arity, bool) or arity < 2:
        raise ValueError(f"arity must be an integer of 2 or more, got {arity!r}")
    return int(min(arity, 2**30))


def huffman_tree(counts: ArrayLike, arity: int = 2) -> LabelTree:
    """Huffman tree: frequent classes near the root.

    Of all trees with at most `arity` children a node it has the smallest
    ``sum(counts * depths)``. If no count is zero its mean depth lies in ``[H, H + 1)``, H the
    entropy of the class distribution to base `arity` [1]_.

    Parameters
    ----------
    counts : array-like of shape (n_classes,)
        Frequency of each class, finite and not negative.
    arity : int, default=2
        Most children a node may have.

    Returns
    -------
    LabelTree
        With leaf labels ``0 .. n_classes - 1``.

    Raises
    ------
    ValueError
        If a count is negative or not finite, or arity below 2.

    Notes
    -----
    O(n_classes log n_classes). The first merge takes
    ``2 + (n_classes - 2) mod (arity - 1)`` classes so that every later one is full.

    References
    ----------
    .. [1] D. A. Huffman, "A Method for the Construction of Minimum-Redundancy Codes",
       Proceedings of the IRE 40(9), 1952.

    Examples
    --------
    >>> from sk_hsm.tree_builders import huffman_tree
    >>> huffman_tree([8, 4, 2, 1, 1]).depths().tolist()
    [1, 2, 3, 4, 4]
    """
    arity = check_arity(arity)
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or counts.size == 0:
        raise ValueError(f"counts must be a non-empty 1-D array, got shape {counts.shape}")
    wrong = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
    if len(wrong):
        raise ValueError(
            f"counts must be finite and not negative, got counts[{wrong[0]}] = {counts[wrong[0]]}"
        )
    n = len(counts)
    n_inner = -(-(n - 1) // (arity - 1))
    ascending = np.argsort(counts, kind="stable")
    parents = np.full(n + n_inner, -1, dtype=np.int32)
    if n > 1:
        trees.huffman_parents(counts[ascending], min(arity, n), parents)
    leaves = np.empty(n, dtype=np.int64)
    leaves[ascending] = np.arange(n)
    return LabelTree._from_nodes(parents.astype(np.int64), leaves, np.arange(n))


def balanced_tree(n_classes: int, arity: int = 2) -> LabelTree:
    """Balanced tree: classes in their order, every node divided as evenly as can be.

    Parameters
    ----------
    n_classes : int
        Number of leaves.
    arity : int, default=2
        Most children a node may have.

    Returns
    -------
    LabelTree
        With leaf labels ``0 .. n_classes - 1``, of depth ``ceil(log(n_classes, arity))``.

    Raises
    ------
    ValueError
        If n_classes is below 1 or arity below 2.
    """
    arity = check_arity(arity)
    n_classes = check_count("n_classes", n_classes)
    depth = np.zeros(n_classes, dtype=np.int32)
    starts, sizes, level = np.array([0]), np.array([n_classes]), 0
    while len(starts := starts[sizes > 1]):
        level += 1
        sizes = sizes[sizes > 1]
        parts = np.minimum(arity, sizes)
        part = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
        size, of = np.repeat(sizes, parts), np.repeat(parts, parts)
        low, high = part * size // of, (part + 1) * size // of
        starts = np.repeat(starts, parts) + low
        depth[starts[part > 0]] = level
        sizes = high - low
    return LabelTree._from_boundaries(np.arange(n_classes), depth)


def kmeans_tree(
    X: ArrayLike | sparse.sparray,
    y: ArrayLike,
    arity: int = 16,
    *,
    sample_weight: ArrayLike | None = None,
    recurring: bool = False,
    class_features: ArrayLike | sparse.sparray | None = None,
    class_share: float = 0.3,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> LabelTree:
    """Tree from spherical k-means of the class centroids.

    A class is the mean direction of its rows; of sparse rows, with what only some of them have
    raised, or lowered where rows are few a class or with `recurring`. Very frequent classes are cut off one
    by one, the others cut in two by spherical 2-means with both halves of like mass, and again, down to
    single classes; a class weighs (its summed sample weight) ** 0.5. Then nodes of this binary tree are
    merged into their parents so that none has more than `arity` children and the mean depth, each class by
    its weight, is as small as it can be: frequent classes come near to the root.

    Where the means are dense, or there are less than one feature in ten classes, and `arity` is not 2, nodes
    of more than 4 `arity` classes are first divided into `arity` clusters at once, which a softmax of
    few features can tell apart. Of such nodes only what k-means leaves together is cut in two.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
    y : array-like of shape (n_samples,)
        The label of each row.
    arity : int, default=16
        Most children a node may have.
    sample_weight : array-like of shape (n_samples,), default=None
    recurring : bool, default=False
        Whether features count by how surely they come again in other rows of a class. That is better
        where rows of a class have much that differs by chance.
        :class:`~sk_hsm.HierarchicalSoftmaxClassifier` finds out which is.
    class_features : {array-like, sparse matrix} of shape (n_classes, n_class_features), default=None
        What else is known of each class, in the order of ``np.unique(y)``: words of its name, its place
        in a catalogue, a vector of its description. Two classes are then as alike as
        ``(1 - class_share) * cosine of their means + class_share * cosine of their class features``.
        A class that has none, only zeros, goes by its mean alone.
    class_share : float, default=0.3
        From 0 to 1. With 1 it is class features alone that count.
    random_state : int, RandomState instance or None, default=None
        Draws the classes from which k-means starts.
    n_jobs : int or None, default=None
        Number of joblib threads. The tree does not depend on it.

    Returns
    -------
    LabelTree
        With leaf labels ``np.unique(y)``.

    Raises
    ------
    ValueError
        If X and y are of different length or hold NaN, arity is below 2, `class_features` are not those
        of the classes of y, or `class_share` is not from 0 to 1.

    Notes
    -----
    O(iterations * log2(n_classes) * non-zeros of the centroids), or for clusters at once
    O(iterations * arity * log_arity(n_classes) * non-zeros of the centroids).
    """
    X = check_rows(X)
    classes, y = encode_labels(y)
    if len(y) != X.shape[0]:
        raise ValueError(f"X has {X.shape[0]} rows and y {len(y)} labels, they must agree")
    weights = check_weights(sample_weight, len(y))
    arity = check_arity(arity)
    known = check_class_features(class_features, class_share, len(classes))
    if len(classes) <= arity:
        return balanced_tree(len(classes), arity).with_labels(classes)
    seed = check_random_state(random_state).randint(2**31 - 1)
    centroids = class_centroids(X, y, weights, len(classes), n_jobs, recurring)
    frequency = np.bincount(y, weights=weights, minlength=len(classes))
    [tree] = cluster_centroids(centroids, frequency, arity, [seed], n_jobs, known, class_share)
    return tree.with_labels(classes)


def check_class_features(features: Any, share: Any, n_classes: int) -> sparse.csr_array | None:
    """Return float_csr of class_features, or None for None, or raise ValueError."""
    if not (isinstance(share, Real) and not isinstance(share, bool) and 0 <= share <= 1):
        raise ValueError(f"class_share must be a number from 0 to 1, got {share!r}")
    if features is None:
        return None
    try:
        features = check_rows(features)
    except (TypeError, ValueError) as error:
        raise ValueError(f"class_features, as X, are wrong: {error}") from error
    if features.shape[0] != n_classes:
        raise ValueError(
            f"class_features must have a row for each class, in the order of np.unique(y): it has "
            f"{features.shape[0]}, y {n_classes} classes"
        )
    return features


def given_tree(
    kind: Any, arity: int, classes: NDArray[Any], frequency: NDArray[np.float64]
) -> LabelTree | None:
    """The checked_tree, or the one that is named, its leaves in the order of classes; None for "kmeans"."""
    if isinstance(kind, LabelTree):
        return kind
    if kind == "balanced":
        return balanced_tree(len(classes), arity).with_labels(classes)
    return huffman_tree(frequency, arity).with_labels(classes) if kind == "huffman" else None


def checked_tree(kind: Any, classes: NDArray[Any]) -> LabelTree | str:
    """A tree or parents as a tree with its leaves in the order of classes; a name as it is."""
    if isinstance(kind, str):
        return kind
    if isinstance(kind, LabelTree):
        return match_leaves(kind, classes)
    return LabelTree.from_parents(kind, classes)


def match_leaves(tree: LabelTree, classes: NDArray[Any]) -> LabelTree:
    """The user's tree with its leaves in the order of classes; the labels must be the same."""
    at = encode_known(tree.leaf_labels, classes)
    if (at < 0).any():
        leaf = np.flatnonzero(at < 0)[0]
        raise ValueError(
            f"leaf {plain(tree.leaf_labels[leaf])!r} (node {tree.n_inner + leaf}) of tree "
            "is none of the classes in y"
        )
    if not are_distinct(at):
        check_labels(range(tree.n_inner, tree.n_nodes), classes[at], lambda node: f"node {node} of tree")
    if tree.n_classes < len(classes):
        missing = np.setdiff1d(np.arange(len(classes)), at)[0]
        raise ValueError(
            f"tree has no leaf for class {plain(classes[missing])!r}: it has {tree.n_classes} leaves, "
            f"y {len(classes)} classes"
        )
    return tree._reorder_leaves(np.argsort(at), classes)
