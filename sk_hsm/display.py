"""A label tree as text and as a picture, for people to look at."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from .label_tree import LabelTree
from .predictions import Predictions, TreePredictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .classifier import HierarchicalSoftmaxClassifier

# Paul Tol's "light" scheme: made for cells with black text, safe for colour-blind readers.
_PALETTE = ("#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00")
_ROOT_COLOR = "#DDDDDD"
_LONGEST_LABEL = 40  # characters
_THINNEST = 2.0  # points: thinner boxes run together
_PADDING = 4.0  # points between a box's left side and its text


def export_text(
    est: HierarchicalSoftmaxClassifier | LabelTree,
    *,
    max_depth: int = 3,
    max_children: int = 5,
    max_labels: int = 3,
    counts: ArrayLike | None = None,
) -> str:
    """The top of a label tree as indented text.

    Parameters
    ----------
    est : HierarchicalSoftmaxClassifier, HierarchicalSoftmaxEmbedding or LabelTree
        A fitted classifier, or a tree. For other names of the classes give
        ``clf.tree_.with_labels(names)``.
    max_depth : int, default=3
        Nodes deeper than this are left out; the root has depth 0.
    max_children : int, default=5
        Most children of a node that get their own line; the others share one.
    max_labels : int, default=3
        Most labels that an inner node gives as examples.
    counts : array-like of shape (n_classes,), default=None
        Frequency of each class, in the order of `classes_`, for instance
        ``np.unique(y, return_counts=True)[1]``. Where given, the most frequent children and
        labels come first, and every line says its share. None keeps the order of the tree.

    Returns
    -------
    str
        One line a node, each ended by a newline.

    Raises
    ------
    NotFittedError, ValueError
        If the classifier is not fitted, or a parameter wrong; the message names it.

    See Also
    --------
    LabelTreeDisplay : The same as a picture.

    Examples
    --------
    >>> from sk_hsm import LabelTree
    >>> from sk_hsm.display import export_text
    >>> print(export_text(LabelTree.from_nested([["cat", "dog"], "car"])), end="")
    3 classes: cat, dog, car
    |--- 2 classes: cat, dog
    |   |--- class: cat
    |   |--- class: dog
    |--- class: car
    """
    max_depth = _check_limit("max_depth", max_depth)
    max_children = _check_limit("max_children", max_children)
    max_labels = _check_limit("max_labels", max_labels)
    view = _TreeView(_as_tree(est), counts)
    lines = []
    for depth, nodes, hidden in _walk(view, max_depth, max_children):
        text = view.summary(nodes) if hidden else view.describe(nodes[0], max_labels)
        lines.append("|   " * (depth - 1) + "|--- " * (depth > 0) + text + "\n")
    return "".join(lines)


class LabelTreeDisplay:
    """Picture of the top of a label tree.

    Every node is a box, with its children to its right. A box is as wide (from top to
    bottom) as its node has classes below, so that the widths of children add up to their
    parent's. Pale boxes are classes. Nodes too thin to be drawn run together in one hatched
    box; text is there where it fits.

    Make one with :meth:`from_estimator`.

    Parameters
    ----------
    tree : LabelTree
        The tree to draw.
    max_depth : int, default=3
        Nodes deeper than this are left out; the root has depth 0.
    counts : array-like of shape (n_classes,), default=None
        Frequency of each class, in the order of ``tree.leaf_labels``. Where given, boxes are
        as wide as the classes below are frequent.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        The figure around it.
    boxes_ : matplotlib PolyCollection
        The boxes of one node each, depth by depth, those of a depth from top to bottom.
    runs_ : matplotlib PolyCollection
        The hatched boxes of several nodes, in the same order.
    texts_ : list of matplotlib Text
        The texts in them.

    See Also
    --------
    export_text : The same as text.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sk_hsm import LabelTree
    >>> from sk_hsm.display import LabelTreeDisplay
    >>> tree = LabelTree.from_nested([["cat", "dog"], "car"])
    >>> LabelTreeDisplay.from_estimator(tree)
    <...>
    >>> plt.show()
    """

    def __init__(self, tree: LabelTree, *, max_depth: int = 3, counts: ArrayLike | None = None) -> None:
        self.tree = tree
        self.max_depth = max_depth
        self.counts = counts

    @classmethod
    def from_estimator(
        cls,
        est: HierarchicalSoftmaxClassifier | LabelTree,
        max_depth: int = 3,
        *,
        counts: ArrayLike | None = None,
        ax: Axes | None = None,
        fontsize: float = 9.0,
    ) -> LabelTreeDisplay:
        """Draw the tree of a fitted classifier.

        Parameters
        ----------
        est : HierarchicalSoftmaxClassifier, HierarchicalSoftmaxEmbedding or LabelTree
            A fitted classifier, or a tree. For other names of the classes give
            ``clf.tree_.with_labels(names)``.
        max_depth : int, default=3
            Nodes deeper than this are left out; the root has depth 0.
        counts : array-like of shape (n_classes,), default=None
            Frequency of each class, in the order of `classes_`. Where given, boxes are as
            wide as the classes below are frequent.
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.
        fontsize : float, default=9
            Size of the text, in points.

        Returns
        -------
        LabelTreeDisplay
            The display, drawn.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the classifier is not fitted.
        ValueError
            If a parameter is wrong; the message names it.
        ImportError
            If matplotlib is not installed.
        """
        return cls(_as_tree(est), max_depth=max_depth, counts=counts).plot(ax=ax, fontsize=fontsize)

    def plot(self, ax: Axes | None = None, *, fontsize: float = 9.0) -> LabelTreeDisplay:
        """Draw the tree.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.
        fontsize : float, default=9
            Size of the text, in points.

        Returns
        -------
        self : LabelTreeDisplay

        Raises
        ------
        ValueError
            If a parameter is wrong; the message names it.
        ImportError
            If matplotlib is not installed.
        """
        max_depth = _check_limit("max_depth", self.max_depth)
        if not isinstance(fontsize, Real) or not 0 < fontsize < np.inf:
            raise ValueError(f"fontsize must be a number above 0, got {fontsize!r}")
        view = _TreeView(_as_tree(self.tree), self.counts)
        plt = _import_pyplot()
        if ax is None:
            margins = dict(left=0.02, right=0.98, bottom=0.06, top=0.89)
            _, ax = plt.subplots(figsize=(8, 5), gridspec_kw=margins)
        self.ax_, self.figure_ = ax, ax.figure
        levels = [np.zeros(1, dtype=np.int64), *islice(view.tree._levels(), max_depth)]
        _prepare_axes(ax, view, levels, fontsize)
        height = _box_size(ax, 0, view.total)[1]
        boxes = list(_make_boxes(view, levels, _THINNEST * view.total / height))
        self.boxes_ = _draw_boxes(ax, view, [box for box in boxes if len(box.nodes) == 1])
        self.runs_ = _draw_boxes(ax, view, [box for box in boxes if len(box.nodes) > 1], hatch="-----")
        texts = (_draw_text(ax, view, box, fontsize) for box in boxes)
        self.texts_ = [text for text in texts if text is not None]
        return self


# -- what is in the tree ------------------------------------------------------


class _TreeView:
    """A tree with the leaves in depth-first order, where each node's are side by side."""

    def __init__(self, tree: LabelTree, counts: ArrayLike | None) -> None:
        self.tree = tree
        self.counts = None if counts is None else _check_counts(counts, tree.n_classes)
        self.start, self.stop = tree._leaf_ranges()
        self.order = np.argsort(self.start[tree.n_inner :], kind="stable")
        weights = np.ones(tree.n_classes) if self.counts is None else self.counts[self.order]
        self.before = np.concatenate([[0.0], np.cumsum(weights)])
        self.total = self.before[-1]

    def is_leaf(self, node: int) -> bool:
        return bool(node >= self.tree.n_inner)

    def children(self, node: int) -> NDArray[np.int32]:
        children = self.tree.children[self.tree.child_ptr[node] : self.tree.child_ptr[node + 1]]
        if self.counts is None:
            return children
        mass = self.before[self.stop[children]] - self.before[self.start[children]]
        return children[np.argsort(-mass, kind="stable")]

    def labels(self, node: int, k: int) -> list[str]:
        """Texts of at most k labels below a node."""
        leaves = self.order[self.start[node] : self.stop[node]]
        if self.counts is not None:
            leaves = leaves[np.argsort(-self.counts[leaves], kind="stable")]
        return [_label_text(self.tree.leaf_labels[leaf]) for leaf in leaves[:k]]

    def n_classes(self, nodes: Any) -> int:
        return int(np.sum(self.stop[nodes] - self.start[nodes]))

    def share(self, nodes: Any) -> str:
        if self.counts is None:
            return ""
        mass = np.sum(self.before[self.stop[nodes]] - self.before[self.start[nodes]])
        return f" ({mass / self.total:.1%})"

    def describe(self, node: int, max_labels: int) -> str:
        labels = self.labels(node, max_labels)
        if self.is_leaf(node):
            return f"class: {labels[0]}{self.share(node)}"
        n = self.n_classes([node])
        return f"{n} classes{self.share(node)}: {_join(labels, n)}"

    def summary(self, nodes: NDArray[Any]) -> str:
        return f"... {len(nodes)} more: {_plural(self.n_classes(nodes), 'class')}{self.share(nodes)}"


def _walk(view: _TreeView, max_depth: int, max_children: int) -> Iterator[tuple[int, NDArray[Any], bool]]:
    """Depth first: depth, and one node, or all the nodes that share a line."""
    root: NDArray[Any] = np.zeros(1, dtype=np.int64)
    stack = [(0, root, False)]  # no recursion: trees may be deep
    while stack:
        depth, nodes, hidden = stack.pop()
        yield depth, nodes, hidden
        if hidden or depth == max_depth or view.is_leaf(nodes[0]):
            continue
        children = view.children(nodes[0])
        if len(children) > max_children:
            stack.append((depth + 1, children[max_children:], True))
        stack.extend((depth + 1, child, False) for child in children[:max_children][::-1, None])


def _label_text(label: Any) -> str:
    text = str(label)
    if not text.strip() or not text.isprintable():
        text = repr(text)
    return _shorten(text, _LONGEST_LABEL)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _join(labels: list[str], n: int) -> str:
    return ", ".join(labels) + ", ..." * (len(labels) < n)


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "es" if word.endswith("s") else "s")


# -- the picture --------------------------------------------------------------


class _Box(NamedTuple):
    depth: int
    low: float
    high: float
    branch: int  # which child of the root it is or is below, -1 for the root
    nodes: NDArray[Any]  # one, or a run of nodes too thin to be drawn one by one


def _make_boxes(view: _TreeView, levels: list[NDArray[Any]], thinnest: float) -> Iterator[_Box]:
    """The boxes of each depth; many thin nodes make few boxes."""
    branch = np.full(view.tree.n_nodes, -1)
    for depth, nodes in enumerate(levels):
        if depth:
            parents = view.tree.parents[nodes]
            branch[nodes] = view.tree.positions[nodes] if depth == 1 else branch[parents]
        low, high = view.before[view.start[nodes]], view.before[view.stop[nodes]]
        thin = high - low < thinnest
        joins = thin[1:] & thin[:-1] & (low[1:] - high[:-1] < thinnest)
        joins &= branch[nodes[1:]] == branch[nodes[:-1]]
        bounds = np.concatenate([[0], 1 + np.flatnonzero(~joins), [len(nodes)]])
        for lo, hi in zip(bounds[:-1], bounds[1:], strict=True):
            yield _Box(depth, low[lo], high[hi - 1], int(branch[nodes[lo]]), nodes[lo:hi])


def _prepare_axes(ax: Axes, view: _TreeView, levels: list[NDArray[Any]], fontsize: float) -> None:
    n = len(levels)
    ax.set(xlim=(0, n), ylim=(view.total, 0), yticks=[])
    names = [f"depth {depth}\n{_plural(len(nodes), 'node')}" for depth, nodes in enumerate(levels)]
    ax.set_xticks(np.arange(n) + 0.5, ["root\n1 node", *names[1:]], fontsize=fontsize)
    ax.tick_params(axis="x", top=False, bottom=False, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    deepest = view.tree.max_depth
    if deepest >= n:
        ax.set_xlabel(f"drawn to depth {n - 1} of {deepest}", fontsize=fontsize)


def _draw_boxes(ax: Axes, view: _TreeView, boxes: list[_Box], hatch: str | None = None) -> Any:
    from matplotlib.collections import PolyCollection

    corners = [[(d, low), (d + 1, low), (d + 1, high), (d, high)] for d, low, high, *_ in boxes]
    collection = PolyCollection(
        corners,
        facecolors=[_color(view, box) for box in boxes],
        edgecolors="white",
        linewidths=[_edge_width(ax, box) for box in boxes],
        hatch=hatch,
    )
    return ax.add_collection(collection, autolim=False)


def _color(view: _TreeView, box: _Box) -> Any:
    from matplotlib.colors import to_rgb

    color = np.array(to_rgb(_ROOT_COLOR if box.branch < 0 else _PALETTE[box.branch % len(_PALETTE)]))
    paler = 0.6 if view.is_leaf(box.nodes.min()) else 0.0  # all of them leaves
    return color + (1 - color) * paler


def _edge_width(ax: Axes, box: _Box) -> float:
    return min(1.0, _box_size(ax, box.low, box.high)[1] / 6)


def _box_size(ax: Axes, low: float, high: float) -> tuple[float, float]:
    """Length and width in points of a box between low and high."""
    corners = ax.transData.transform([(0, low), (1, high)])
    length, width = np.abs(corners[1] - corners[0]) * 72 / ax.figure.dpi
    return float(length), float(width)


def _draw_text(ax: Axes, view: _TreeView, box: _Box, fontsize: float) -> Any:
    """The longest text that fits into a box, or None."""
    length, width = _box_size(ax, box.low, box.high)
    n_lines = int(width >= 1.3 * fontsize) + int(width >= 2.9 * fontsize)
    if n_lines == 0:
        return None
    text = ax.annotate(
        "",
        (box.depth, (box.low + box.high) / 2),
        (_PADDING, 0),
        textcoords="offset points",
        va="center_baseline" if n_lines == 1 else "center",
        fontsize=fontsize,
        parse_math=False,
    )
    if len(box.nodes) > 1:  # no hatches behind words
        text.set_bbox(dict(facecolor=_color(view, box), linewidth=0, pad=1))
    for candidate in _texts(view, box, n_lines):
        text.set_text(candidate)
        if text.get_window_extent().width * 72 / ax.figure.dpi <= length - 2 * _PADDING:
            _clip(ax, text, box)
            return text
    text.remove()
    return None


def _clip(ax: Axes, text: Any, box: _Box) -> None:
    """Keep a text in its box, should the figure be made smaller later."""
    from matplotlib.transforms import Bbox, TransformedBbox

    corners = Bbox([(box.depth, box.low), (box.depth + 1, box.high)])
    text.set_clip_box(TransformedBbox(corners, ax.transData))
    text.set_clip_on(True)


def _texts(view: _TreeView, box: _Box, n_lines: int) -> Iterator[str]:
    """What may be written in a box, the longest first."""
    if len(box.nodes) > 1:
        all_leaves = view.is_leaf(box.nodes.min())
        yield _plural(len(box.nodes), "class" if all_leaves else "node")
        return
    node = box.nodes[0]
    labels = view.labels(node, 6)
    if view.is_leaf(node):
        yield from (_shorten(labels[0], length) for length in (_LONGEST_LABEL, 20, 14, 10, 7))
        return
    n = view.n_classes([node])
    for k in range(len(labels), 0, -1):
        yield f"{n} classes" + (": " if n_lines == 1 else "\n") + _join(labels[:k], n)
    yield from (f"{n} classes", str(n))


# -- checks -------------------------------------------------------------------


def _as_tree(est: Any) -> LabelTree:
    if isinstance(est, LabelTree):
        return est
    if hasattr(est, "fit") and not isinstance(est, type):
        check_is_fitted(est)
    if hasattr(est, "trees_"):
        raise ValueError(f"est has {len(est.trees_)} trees: give one of est.trees_")
    if isinstance(est, Predictions) and not isinstance(est, TreePredictions):
        raise ValueError(f"est is a {type(est).__name__}, which has no tree: give an estimator that has one")
    tree = getattr(est, "tree_", None)
    if not isinstance(tree, LabelTree):
        raise ValueError(
            "est must be a fitted estimator of this package or a LabelTree, got "
            f"{est!r:.60}; give the classifier itself where it is a step of a pipeline"
        )
    return tree


def _check_limit(name: str, value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer of 1 or more, got {value!r}")
    return int(value)


def _check_counts(counts: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    try:
        counts = np.asarray(counts, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"counts must be an array of numbers, one a class, got {counts!r:.60}") from None
    if counts.shape != (n_classes,):
        raise ValueError(
            f"counts must have one number for each of the {n_classes} classes, got shape {counts.shape}"
        )
    wrong = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
    if len(wrong):
        raise ValueError(
            f"counts must be finite and not negative, got counts[{wrong[0]}] = {counts[wrong[0]]}"
        )
    if not counts.any():
        raise ValueError("counts must not be zero everywhere; counts=None weighs classes alike")
    return counts


def _import_pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("LabelTreeDisplay.plot needs matplotlib: pip install 'sk_hsm[plot]'") from error
    return plt
