"""The tree of labels: flat arrays, checked once, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .tree_checks import as_labels, as_parents, breadth_first, check_leaves, checked_counts, plain

_ARRAYS = ("parents", "positions", "child_ptr", "children", "leaf_labels")


class LabelTree:
    """An immutable tree whose leaves are the classes.

    Make one with :meth:`from_parents`, :meth:`from_paths`, :meth:`from_nested` or
    :meth:`from_linkage`, or with the functions of ``sk_hsm.tree_builders``.
    Every inner node has at least two children. Inner nodes are numbered
    ``0 .. n_inner - 1`` in breadth-first order, the root being 0; leaf ``i`` is node
    ``n_inner + i``. A tree of one class is a single leaf.

    Attributes
    ----------
    leaf_labels : ndarray of shape (n_classes,)
        The label of each leaf.
    parents : ndarray of shape (n_nodes,), int32
        The parent of each node, -1 for the root.
    positions : ndarray of shape (n_nodes,), int32
        The place of each node among its parent's children, -1 for the root.
    child_ptr : ndarray of shape (n_inner + 1,), int32
        The children of inner node ``v`` are ``children[child_ptr[v]:child_ptr[v + 1]]``.
    children : ndarray of shape (n_nodes - 1,), int32
        Child nodes, parent by parent.

    Examples
    --------
    >>> from sk_hsm import LabelTree
    >>> tree = LabelTree.from_nested([["cat", "dog"], "car"])
    >>> tree
    LabelTree(n_classes=3, n_nodes=5, max_depth=2, arity=2)
    >>> nodes, positions = tree.path("dog")
    >>> nodes.tolist(), positions.tolist()
    ([0, 1], [0, 1])
    """

    leaf_labels: NDArray[Any]
    parents: NDArray[np.int32]
    positions: NDArray[np.int32]
    child_ptr: NDArray[np.int32]
    children: NDArray[np.int32]

    def __init__(self) -> None:
        raise TypeError(
            "LabelTree() takes no direct call: use LabelTree.from_parents, from_paths, "
            "from_nested or from_linkage"
        )

    # -- making one ---------------------------------------------------------

    @classmethod
    def from_parents(
        cls, parents: ArrayLike, leaf_labels: Sequence[Any] | Mapping[int, Any] | None = None
    ) -> LabelTree:
        """Tree from the parent of each node.

        Parameters
        ----------
        parents : array-like of shape (n_nodes,), int
            The parent of each node, in any order; -1 for the one root.
        leaf_labels : sequence of shape (n_classes,) or dict {node: label}, default=None
            The labels of the childless nodes, in ascending order of node. None numbers
            them from 0.

        Returns
        -------
        LabelTree

        Raises
        ------
        ValueError
            If the array is no tree: a cycle, an orphan, several roots, a childless or
            one-child inner node, a duplicate or missing label. The message names the node.

        Examples
        --------
        >>> LabelTree.from_parents([-1, 0, 0, 1, 1], ["car", "cat", "dog"]).leaf_labels.tolist()
        ['car', 'cat', 'dog']
        """
        parents = as_parents(parents)
        childless = np.flatnonzero(np.bincount(parents[parents >= 0], minlength=len(parents)) == 0)
        if leaf_labels is None:
            leaf_labels = np.arange(len(childless))
        if isinstance(leaf_labels, Mapping):
            leaves, labels = np.array(list(leaf_labels)), list(leaf_labels.values())
            if labels and leaves.dtype.kind not in "iu":
                raise ValueError(
                    f"leaf_labels must name nodes by integers, got {next(iter(leaf_labels))!r:.60}"
                )
            leaves = leaves.astype(np.int64)
            outside = leaves[(leaves < 0) | (leaves >= len(parents))]
            if len(outside):
                raise ValueError(f"leaf_labels names node {outside[0]}, but parents has {len(parents)} nodes")
        else:
            leaves, labels = childless, leaf_labels
            if len(leaves) > len(labels):
                raise ValueError(
                    f"node {leaves[len(labels)]} has neither children nor a label: parents has "
                    f"{len(leaves)} childless nodes and leaf_labels {len(labels)} labels"
                )
            if len(leaves) < len(labels):
                raise ValueError(
                    f"label {plain(list(labels)[len(leaves)])!r} has no leaf: parents has {len(leaves)} "
                    f"childless nodes and leaf_labels {len(labels)} labels"
                )
        return cls._from_nodes(parents, leaves, labels)

    @classmethod
    def from_paths(
        cls,
        paths: Sequence[Sequence[Any]] | Mapping[Any, Sequence[Any]],
        leaf_labels: Sequence[Any] | None = None,
    ) -> LabelTree:
        """Tree from the path to each leaf.

        Parameters
        ----------
        paths : sequence of sequences, or dict {label: path}
            One path a leaf: the branch taken at the root, at the next node, and so on. Any
            hashable values name branches; paths with a common beginning share those nodes.
        leaf_labels : sequence of shape (n_classes,), default=None
            The label at the end of each path. None numbers them from 0, or takes the dict's keys.

        Returns
        -------
        LabelTree

        Raises
        ------
        ValueError
            If a path ends inside another one, occurs twice, or a node has one child only.

        Examples
        --------
        >>> LabelTree.from_paths({"cat": "00", "dog": "01", "car": "1"}).n_nodes
        5
        """
        if isinstance(paths, Mapping):
            if leaf_labels is not None:
                raise ValueError("leaf_labels must be None where paths is a dict: its keys are the labels")
            paths, leaf_labels = list(paths.values()), list(paths)
        if leaf_labels is None:
            leaf_labels = np.arange(len(paths))
        if len(paths) != len(leaf_labels):
            raise ValueError(f"paths has {len(paths)} entries and leaf_labels {len(leaf_labels)}")
        parents, node_of, leaves = [-1], {}, []
        for path in paths:
            node = 0
            for branch in path:
                child = node_of.setdefault((node, branch), len(parents))
                if child == len(parents):
                    parents.append(node)
                node = child
            leaves.append(node)
        prefix = {child: branch for (_, branch), child in node_of.items()}

        def name(node: int) -> str:
            path = []
            while node > 0:
                path.append(prefix[node])
                node = parents[node]
            return f"the node at path {tuple(path[::-1])!r}"

        return cls._from_nodes(np.array(parents), np.array(leaves, dtype=np.int64), leaf_labels, name)

    @classmethod
    def from_nested(cls, nested: Sequence[Any]) -> LabelTree:
        """Tree from nested lists: a list or tuple is an inner node, all else a label.

        Parameters
        ----------
        nested : list
            For instance ``[["cat", "dog"], "car"]``.

        Returns
        -------
        LabelTree

        Raises
        ------
        ValueError
            If a list is empty or has one entry, or a label occurs twice.
        """
        parents, leaves, labels = [], [], []
        entries: list[tuple[Any, int]] = [(nested, -1)]
        for entry, parent in entries:  # grows while it is walked: breadth first
            node = len(parents)
            parents.append(parent)
            if isinstance(entry, list | tuple):
                entries.extend((child, node) for child in entry)
            else:
                leaves.append(node)
                labels.append(entry)
        return cls._from_nodes(
            np.array(parents),
            np.array(leaves, dtype=np.int64),
            labels,
            lambda node: f"node {node} (breadth first), {entries[node][0]!r:.60},",
        )

    @classmethod
    def from_linkage(cls, Z: ArrayLike, labels: Sequence[Any] | None = None) -> LabelTree:
        """Binary tree from a linkage matrix of :func:`scipy.cluster.hierarchy.linkage`.

        Parameters
        ----------
        Z : array-like of shape (n_classes - 1, 4)
            Row ``i`` merges nodes ``Z[i, 0]`` and ``Z[i, 1]`` into node ``n_classes + i``.
        labels : sequence of shape (n_classes,), default=None
            The labels of the merged observations. None numbers them from 0.

        Returns
        -------
        LabelTree

        Raises
        ------
        ValueError
            If Z is no linkage matrix, or labels are not as many as it merges.
        """
        Z = np.asarray(Z, dtype=np.float64)
        if Z.ndim != 2 or Z.shape[1] != 4:
            raise ValueError(f"Z must be a linkage matrix of shape (n - 1, 4), got shape {Z.shape}")
        n = len(Z) + 1
        merged = Z[:, :2].ravel()
        wrong = np.flatnonzero(~((merged >= 0) & (merged < 2 * n - 1) & (merged == np.floor(merged))))
        if len(wrong):
            raise ValueError(
                f"Z[{wrong[0] // 2}] merges {merged[wrong[0]]}, which is no node of this linkage"
            )
        merged = merged.astype(np.int64)
        nodes, n_merges = np.unique(merged, return_counts=True)
        if np.any(n_merges > 1):
            raise ValueError(f"Z merges node {nodes[n_merges > 1][0]} twice")
        parents = np.full(2 * n - 1, -1)
        parents[merged] = n + np.repeat(np.arange(n - 1), 2)
        labels = np.arange(n) if labels is None else labels
        if len(labels) != n:
            raise ValueError(
                f"Z merges {n} observations, but there are {len(labels)} labels: pass one for each"
            )
        return cls._from_nodes(parents, np.arange(n), labels)

    @classmethod
    def _from_boundaries(cls, order: NDArray[Any], depth: NDArray[Any]) -> LabelTree:
        """Tree of classes 0 .. n - 1 from their depth-first order.

        ``depth[i]`` is the depth of the node that begins between order[i - 1] and order[i]
        (depth[0] is ignored).
        """
        n = len(order)
        parents, leaf_of = [np.array([-1])], np.empty(n, dtype=np.int64)
        starts, nodes, n_nodes, level = np.array([0]), np.array([0]), 1, 0
        inside = np.arange(n)  # positions below a node that is still to be divided
        if n == 1:
            leaf_of[:] = 0
            inside = inside[:0]
        while len(inside):
            level += 1
            begins = depth[inside] == level
            begins[np.searchsorted(inside, starts)] = True
            new_starts = inside[begins]
            parent = nodes[np.searchsorted(starts, new_starts, side="right") - 1]
            new_nodes = n_nodes + np.arange(len(new_starts))
            n_nodes += len(new_starts)
            parents.append(parent)
            group = np.cumsum(begins) - 1
            alone = np.bincount(group) == 1
            leaf_of[order[new_starts[alone]]] = new_nodes[alone]
            inside = inside[~alone[group]]
            starts, nodes = new_starts[~alone], new_nodes[~alone]
        return cls._from_nodes(np.concatenate(parents), leaf_of, np.arange(n))

    @classmethod
    def _from_nodes(cls, parents, leaves, labels, name=lambda node: f"node {node}") -> LabelTree:
        """Check, and renumber: inner nodes breadth first, then leaves in the order of labels."""
        if len(labels) == 0:
            raise ValueError(
                "a label tree needs at least one leaf, got none"
                + (": its nodes form a cycle" if len(parents) > 1 else "")
            )
        check_leaves(parents, leaves, labels, name)
        order = breadth_first(parents, name)
        is_leaf = np.zeros(len(parents), dtype=bool)
        is_leaf[leaves] = True
        inner = order[~is_leaf[order]]
        number = np.empty(len(parents), dtype=np.int32)
        number[inner] = np.arange(len(inner))
        number[leaves] = len(inner) + np.arange(len(leaves))
        counts = np.bincount(parents[order[1:]], minlength=len(parents))[inner]
        child_ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        children = number[order[1:]]
        new_parents = np.full(len(parents), -1, dtype=np.int32)
        new_parents[children] = np.repeat(np.arange(len(inner)), counts)
        positions = np.full(len(parents), -1, dtype=np.int32)
        positions[children] = np.arange(len(children)) - np.repeat(child_ptr[:-1], counts)
        return cls._from_arrays(
            dict(
                parents=new_parents,
                positions=positions,
                child_ptr=child_ptr,
                children=children,
                leaf_labels=as_labels(labels),
            )
        )

    @classmethod
    def _from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> LabelTree:
        tree = cls.__new__(cls)
        tree.__setstate__(arrays)
        return tree

    # -- never changed ------------------------------------------------------

    def __getstate__(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in _ARRAYS}

    def __setstate__(self, state: dict[str, NDArray[Any]]) -> None:
        for name in _ARRAYS:
            array = state[name].view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"LabelTree is immutable: cannot set {name!r}; build another tree")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"LabelTree is immutable: cannot delete {name!r}")

    def __copy__(self) -> LabelTree:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> LabelTree:
        return self

    def __repr__(self) -> str:
        return (
            f"LabelTree(n_classes={self.n_classes}, n_nodes={self.n_nodes}, "
            f"max_depth={self.max_depth}, arity={self.arity})"
        )

    def with_labels(self, labels: ArrayLike) -> LabelTree:
        """The same tree with other labels at its leaves, which keep their order.

        Parameters
        ----------
        labels : array-like of shape (n_classes,)
            Several leaves may have the same one, to look at; `fit` takes no such tree.

        Returns
        -------
        LabelTree
        """
        labels = as_labels(labels)
        if len(labels) != self.n_classes:
            raise ValueError(f"labels has {len(labels)} entries, the tree {self.n_classes} leaves")
        return self._from_arrays({**self.__getstate__(), "leaf_labels": labels})

    def _reorder_leaves(self, order: NDArray[np.int64], labels: NDArray[Any]) -> LabelTree:
        """The same tree with leaf order[i] as leaf i, and its label labels[i]."""
        leaves = self.n_inner + order
        number = np.arange(self.n_nodes, dtype=np.int32)
        number[leaves] = self.n_inner + np.arange(self.n_classes)
        return self._from_arrays(
            dict(
                parents=np.concatenate([self.parents[: self.n_inner], self.parents[leaves]]),
                positions=np.concatenate([self.positions[: self.n_inner], self.positions[leaves]]),
                child_ptr=self.child_ptr,
                children=number[self.children],
                leaf_labels=labels,
            )
        )

    # -- looking at it ------------------------------------------------------

    @property
    def n_classes(self) -> int:
        """Number of leaves."""
        return len(self.parents) - self.n_inner

    @property
    def n_inner(self) -> int:
        """Number of inner nodes."""
        return len(self.child_ptr) - 1

    @property
    def n_nodes(self) -> int:
        """Number of nodes, inner nodes and leaves."""
        return len(self.parents)

    @cached_property
    def arity(self) -> int:
        """The most children that a node has."""
        return int(np.diff(self.child_ptr).max(initial=0))

    @cached_property
    def max_depth(self) -> int:
        """Edges from the root to the deepest leaf."""
        return int(self.depths().max())

    def path(self, label: Any) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The way from the root to a label's leaf.

        Parameters
        ----------
        label : one of leaf_labels

        Returns
        -------
        nodes : ndarray of shape (depth,), int32
            The inner nodes passed, the root first.
        positions : ndarray of shape (depth,), int32
            Which child is taken at each.

        Raises
        ------
        ValueError
            If the label is not in the tree.
        """
        if self.leaf_labels.dtype == object:  # tuples may be labels
            wanted = np.empty((), dtype=object)
            wanted[()] = label
        else:
            wanted = np.asarray(label)
        found = np.flatnonzero(self.leaf_labels == wanted) if wanted.ndim == 0 else []
        if len(found) != 1:
            raise ValueError(f"label {label!r} is not a leaf of this tree")
        nodes = [self.n_inner + int(found[0])]
        while self.parents[nodes[-1]] >= 0:
            nodes.append(int(self.parents[nodes[-1]]))
        nodes = np.array(nodes[::-1], dtype=np.int32)
        return nodes[:-1], self.positions[nodes[1:]]

    def depths(self) -> NDArray[np.int32]:
        """Edges from the root to each leaf, ndarray of shape (n_classes,)."""
        depth = np.zeros(self.n_nodes, dtype=np.int32)
        for level, children in enumerate(self._levels(), start=1):
            depth[children] = level
        return depth[self.n_inner :]

    def mean_depth(self, counts: ArrayLike | None = None) -> float:
        """Expected number of nodes on a row's path.

        Parameters
        ----------
        counts : array-like of shape (n_classes,), default=None
            Weight of each leaf, in the order of leaf_labels. None weighs them alike.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If counts are not as many, negative, not finite or all zero.
        """
        if counts is not None:
            counts = checked_counts(counts, self.n_classes)
        return float(np.average(self.depths(), weights=counts))

    def _levels(self):
        """The children of each level's inner nodes, level after level."""
        lo, hi = 0, min(1, self.n_inner)
        while lo < hi:
            children = self.children[self.child_ptr[lo] : self.child_ptr[hi]]
            yield children
            lo, hi = hi, hi + int(np.count_nonzero(children < self.n_inner))

    def _leaf_ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Start and stop of each node's leaves in depth-first order, (n_nodes,) each."""
        n_leaves = np.ones(self.n_nodes, dtype=np.int64)
        levels = list(self._levels())
        n_leaves[: self.n_inner] = 0
        for children in reversed(levels):
            np.add.at(n_leaves, self.parents[children], n_leaves[children])
        start = np.zeros(self.n_nodes, dtype=np.int64)
        before = np.concatenate([[0], np.cumsum(n_leaves[self.children])])
        before_child = np.empty(self.n_nodes, dtype=np.int64)
        before_child[self.children] = before[:-1]
        for children in levels:
            parent = self.parents[children]
            start[children] = start[parent] + before_child[children] - before[self.child_ptr[parent]]
        return start, start + n_leaves
