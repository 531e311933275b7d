"""What makes an array of parents a label tree: checks that name the node at fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def plain(label: Any) -> Any:
    """A label as a user writes it: 3, not np.int64(3)."""
    return label.item() if isinstance(label, np.generic) else label


def as_parents(parents: ArrayLike) -> NDArray[np.int64]:
    """Parents as int64, or ValueError naming the first node whose parent is no node."""
    parents = np.asarray(parents)
    if parents.ndim != 1 or parents.size == 0:
        raise ValueError(f"parents must be a non-empty 1-D array, got shape {parents.shape}")
    if parents.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(parents) | (parents != np.floor(parents)))
        if len(wrong):
            raise ValueError(f"the parent of node {wrong[0]} must be a node, got {parents[wrong[0]]}")
    elif parents.dtype.kind not in "iu":
        raise ValueError(f"parents must be an array of integers, got dtype {parents.dtype}")
    wrong = np.flatnonzero((parents < -1) | (parents >= len(parents)))
    if len(wrong):
        raise ValueError(
            f"the parent of node {wrong[0]} is {parents[wrong[0]]}, which is none of the "
            f"{len(parents)} nodes (-1 marks the root)"
        )
    return parents.astype(np.int64)


def as_labels(labels: Sequence[Any]) -> NDArray[Any]:
    """Labels as a 1-D array of their own."""
    array = np.array(labels)
    if isinstance(labels, np.ndarray) and labels.ndim != 1:
        raise ValueError(f"labels must be 1-D, got shape {labels.shape}: pass one for each leaf")
    if array.ndim != 1 or (array.dtype.kind in "fUS" and not isinstance(labels, np.ndarray)):
        # a list keeps its labels as they are: 2**63 beside -1, 1 beside "a"
        if not all(isinstance(label, str if array.dtype.kind == "U" else float) for label in labels):
            array = np.empty(len(labels), dtype=object)
            array[:] = labels
    return array


def checked_counts(counts: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Weights of leaves, or ValueError."""
    counts = np.asarray(counts, dtype=np.float64)
    if counts.shape != (n_classes,) or not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError(
            f"counts must be {n_classes} finite numbers that are not negative, got shape {counts.shape} and "
            f"{counts.min(initial=np.inf):g} at the least"
        )
    if not counts.any():
        raise ValueError("counts must hold a number above zero, all are zero")
    return counts


def check_leaves(parents, leaves, labels, name) -> None:
    """Raise ValueError, naming the node, unless there is one root and every leaf has its own label."""
    if not are_distinct(leaves):
        nodes, times = np.unique(leaves, return_counts=True)
        raise ValueError(f"{name(nodes[times > 1][0])} has {times.max()} labels, a leaf has one")
    check_labels(leaves, labels, name)
    roots = np.flatnonzero(parents < 0)
    if len(roots) == 0:
        raise ValueError(f"no node is the root (parent -1): {name(0)} and its ancestors form a cycle")
    if len(roots) > 1:
        raise ValueError(f"{name(roots[0])} and {name(roots[1])} are both roots (parent -1), a tree has one")
    n_children = np.bincount(parents[parents >= 0], minlength=len(parents))
    is_leaf = np.zeros(len(parents), dtype=bool)
    is_leaf[leaves] = True
    for wrong, says in (
        (is_leaf & (n_children > 0), "is a leaf, with a label, but has children"),
        (~is_leaf & (n_children == 0), "is an inner node without children, and has no label"),
        (~is_leaf & (n_children == 1), "has one child only, an inner node needs two or more"),
    ):
        if wrong.any():
            raise ValueError(f"{name(np.flatnonzero(wrong)[0])} {says}")


def are_distinct(numbers: NDArray) -> bool:
    ascending = np.sort(numbers)
    return not np.any(ascending[1:] == ascending[:-1])


def check_labels(leaves, labels, name) -> None:
    """Raise ValueError, naming both nodes, where a label is at two leaves."""
    if isinstance(labels, np.ndarray):
        if labels.dtype.kind in "iu" and are_distinct(labels):
            return  # of a million, in a tenth of the time
        labels = labels.tolist()
    seen: dict[Any, int] = {}
    for node, label in zip(leaves, labels, strict=True):
        try:
            first = seen.setdefault(label, node)
        except TypeError as error:
            raise ValueError(
                f"{name(node)} has the label {label!r:.60} of type {type(label).__name__}, which cannot be "
                "one: take numbers, strings or tuples of them"
            ) from error
        if first != node:
            raise ValueError(f"label {label!r} is at two leaves: {name(seen[label])} and {name(node)}")


def breadth_first(parents, name) -> NDArray[np.int64]:
    """All nodes, level by level, siblings in ascending order."""
    by_parent = np.argsort(parents, kind="stable")
    n_children = np.bincount(parents[parents >= 0], minlength=len(parents))
    first = np.concatenate([[0], np.cumsum(n_children)]) + 1  # the root sorts first
    levels = [by_parent[:1]]
    while len(levels[-1]):
        level = levels[-1]
        counts = n_children[level]
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        levels.append(by_parent[np.repeat(first[level], counts) + offsets])
    order = np.concatenate(levels)
    if len(order) < len(parents):
        missing = np.setdiff1d(np.arange(len(parents)), order)[0]
        raise ValueError(f"{name(missing)} is not below the root: its ancestors form a cycle")
    return order
