import re
import sys
import time

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.tree import DecisionTreeClassifier

from sk_hsm import HierarchicalSoftmaxClassifier, LabelTree
from sk_hsm.display import LabelTreeDisplay, export_text
from sk_hsm.tree_builders import balanced_tree, huffman_tree

ZIPF = 1e6 / np.arange(1, 5001)
TREES = {
    "nested": LabelTree.from_nested([["cat", "dog", ["emu", "owl"]], "car", ["bus", "van"]]),
    "balanced": balanced_tree(100, 4),
    "huffman": huffman_tree(1 / np.arange(1, 200), 5),
    "one class": balanced_tree(1),
}
everything = dict(max_depth=1000, max_children=1000, max_labels=1000)
tree_of_each_kind = pytest.mark.parametrize("tree", TREES.values(), ids=TREES)


@pytest.fixture
def plt():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    yield pyplot
    pyplot.close("all")


@pytest.fixture(scope="module")
def clf():
    X = np.repeat(np.eye(6), 3, axis=0)
    y = np.repeat(["ant", "bee", "cow", "dog", "eel", "fox"], 3)
    return HierarchicalSoftmaxClassifier(arity=2, random_state=0).fit(X, y)


def parse(text):
    """Depth and number of classes of each line."""
    for line in text.splitlines():
        depth = line.count("|")
        found = re.search(r"(\d+) class(es)?( \(.*?\))?(:|$)", line)
        yield depth, int(found[1]) if found and "--- class:" not in line else 1


def sums_of_children(lines):
    """Of each line that has lines below it: its number, and the sum of its children's."""
    for i, (depth, n) in enumerate(lines):
        below = []
        for child_depth, m in lines[i + 1 :]:
            if child_depth <= depth:
                break
            below += [m] * (child_depth == depth + 1)
        if below:
            yield n, sum(below)


def rectangles(collection):
    """left, low, right, high of each box."""
    corners = np.array([path.vertices[:4] for path in collection.get_paths()]).reshape(-1, 4, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


# -- text ---------------------------------------------------------------------


@tree_of_each_kind
def test_every_label_has_one_line_where_limits_are_large(tree):
    shown = re.findall(r"^.*\bclass: (.*)$", export_text(tree, **everything), flags=re.M)
    assert sorted(shown) == sorted(map(str, tree.leaf_labels))


@tree_of_each_kind
def test_one_line_for_each_node_where_limits_are_large(tree):
    assert len(export_text(tree, **everything).splitlines()) == tree.n_nodes


@tree_of_each_kind
@pytest.mark.parametrize("limits", [dict(), dict(max_children=1), dict(max_depth=1), everything])
def test_children_add_up(tree, limits):
    lines = list(parse(export_text(tree, **limits)))
    assert lines[0] == (0, tree.n_classes)
    assert all(n == total for n, total in sums_of_children(lines))


def test_limits_are_kept():
    text = export_text(balanced_tree(48010, 16), max_depth=2, max_children=4)
    depths = [depth for depth, _ in parse(text)]
    assert max(depths) == 2 and depths.count(1) == 5 and depths.count(2) == 4 * 5
    assert text.count("... 12 more: ") == 5


def test_classifier_and_its_tree_give_the_same_text(clf):
    assert export_text(clf) == export_text(clf.tree_)
    assert export_text(clf).startswith("6 classes: ")


def test_counts_put_frequent_classes_first_and_shares_add_up():
    assert TREES["nested"].leaf_labels.tolist() == ["car", "cat", "dog", "bus", "van", "emu", "owl"]
    text = export_text(TREES["nested"], counts=[70, 1, 2, 10, 10, 3, 4], max_children=10)
    assert text.splitlines()[:3] == [
        "7 classes (100.0%): car, bus, van, ...",
        "|--- class: car (70.0%)",
        "|--- 2 classes (20.0%): bus, van",
    ]
    shares = re.findall(r"class: .* \((.*)%\)", text)
    assert sum(map(float, shares)) == pytest.approx(100)


@pytest.mark.parametrize("label", ["a\nb", "", "  ", "x" * 1000, "\x1b[31m", "$x$", "кот"])
def test_any_label_takes_one_short_line(label):
    text = export_text(LabelTree.from_nested([label, "other"]))
    assert len(text.splitlines()) == 3
    assert all(line.isprintable() and len(line) < 100 for line in text.splitlines())


def test_one_class():
    assert export_text(balanced_tree(1)) == "class: 0\n"


def test_large_tree_is_quick_and_short():
    tree = balanced_tree(48010, 16)
    start = time.perf_counter()
    text = export_text(tree)
    assert time.perf_counter() - start < 2
    assert len(text.splitlines()) < 200


def test_deep_tree_needs_no_recursion():
    n = 3 * sys.getrecursionlimit()
    Z = np.zeros((n - 1, 4))
    Z[:, 0], Z[:, 1] = np.r_[0, n : 2 * n - 2], np.arange(1, n)
    text = export_text(LabelTree.from_linkage(Z), max_depth=n)
    assert text.count("class: ") == n


# -- picture ------------------------------------------------------------------


@tree_of_each_kind
def test_boxes_of_children_fill_their_parent(tree, plt):
    _, ax = plt.subplots(figsize=(4, 40))  # so high that every node has its own box
    display = LabelTreeDisplay.from_estimator(tree, max_depth=10, ax=ax)
    boxes = rectangles(display.boxes_)
    assert len(boxes) == tree.n_nodes and len(rectangles(display.runs_)) == 0
    for _, low, right, high in boxes:
        below = boxes[(boxes[:, 0] == right) & (boxes[:, 1] >= low) & (boxes[:, 3] <= high)]
        widths = below[:, 3] - below[:, 1]
        assert len(below) == 0 or widths.sum() == pytest.approx(high - low)
        assert len(below) > 0 or high - low == 1  # a leaf is as wide as one class
    assert boxes[0].tolist() == [0, 0, 1, tree.n_classes]


def test_widths_follow_counts(plt):
    counts = np.arange(1.0, 8.0)
    display = LabelTreeDisplay.from_estimator(TREES["nested"], counts=counts)
    boxes = rectangles(display.boxes_)
    assert boxes[0, 3] == counts.sum()
    inner, car, bus_van = boxes[boxes[:, 0] == 1]
    assert car[3] - car[1] == 1 and bus_van[3] - bus_van[1] == 4 + 5
    assert inner[3] - inner[1] == 2 + 3 + 6 + 7


@pytest.mark.parametrize(
    "tree, counts",
    [(balanced_tree(48010, 16), None), (huffman_tree(ZIPF, 16), ZIPF), (huffman_tree(ZIPF, 2), None)],
)
def test_large_trees_make_few_boxes_and_no_overlapping_text(tree, counts, plt):
    display = LabelTreeDisplay.from_estimator(tree, max_depth=6, counts=counts)
    display.figure_.canvas.draw()
    assert len(rectangles(display.boxes_)) + len(rectangles(display.runs_)) < 1000
    extents = np.array([text.get_window_extent().extents for text in display.texts_])
    assert len(extents) > 10
    low, high = extents[:, None, :2], extents[:, None, 2:]
    overlap = np.all((low < high.swapaxes(0, 1)) & (low.swapaxes(0, 1) < high), axis=2)
    assert overlap.sum() == len(extents)  # each with itself only


def test_texts_stay_in_their_column(clf, plt):
    for max_depth in (1, 3, 20):
        display = LabelTreeDisplay.from_estimator(clf, max_depth)
        for text in display.texts_:
            right = display.ax_.transData.inverted().transform(text.get_window_extent().max)[0]
            assert right <= text.xy[0] + 1


def test_runs_and_boxes_have_all_nodes_between_them(plt):
    tree = balanced_tree(1000, 10)
    display = LabelTreeDisplay.from_estimator(tree)
    boxes, runs = rectangles(display.boxes_), rectangles(display.runs_)
    assert len(runs) > 0
    for depth in range(3):
        width = sum(np.sum(b[b[:, 0] == depth][:, 3] - b[b[:, 0] == depth][:, 1]) for b in (boxes, runs))
        assert width == pytest.approx(1000)


def test_leaves_show_their_labels_as_they_are(plt):
    tree = LabelTree.from_nested([["$a_b$", "cat"], "x" * 100])
    texts = {text.get_text() for text in LabelTreeDisplay.from_estimator(tree).texts_}
    assert {"$a_b$", "cat"} <= texts
    assert any(re.fullmatch(r"x+\.\.\.", text) for text in texts)


def test_display_convention(clf, plt):
    _, ax = plt.subplots()
    display = LabelTreeDisplay.from_estimator(clf, ax=ax)
    assert display.ax_ is ax and display.figure_ is ax.figure
    assert display.plot() is display and display.ax_ is not ax
    assert display.ax_.get_xticklabels()[0].get_text() == "root\n1 node"


# -- what is refused ----------------------------------------------------------


@pytest.mark.parametrize("show", [export_text, LabelTreeDisplay.from_estimator])
def test_not_fitted(show):
    with pytest.raises(NotFittedError):
        show(HierarchicalSoftmaxClassifier())


@pytest.mark.parametrize("show", [export_text, LabelTreeDisplay.from_estimator])
@pytest.mark.parametrize(
    "params, message",
    [
        (dict(est="tree"), r"est must be .* got 'tree'"),
        (dict(est=HierarchicalSoftmaxClassifier), "est must be"),
        (dict(est=DecisionTreeClassifier().fit([[0], [1]], [0, 1])), "est must be .* got Decision"),
        (dict(max_depth=0), "max_depth must be an integer of 1 or more, got 0"),
        (dict(max_depth=2.5), "max_depth .* got 2.5"),
        (dict(max_depth=True), "max_depth .* got True"),
        (dict(counts=[1, 2]), r"counts must have .* 100 classes, got shape \(2,\)"),
        (dict(counts=np.r_[-1, np.ones(99)]), r"counts\[0\] = -1"),
        (dict(counts=np.r_[np.ones(99), np.nan]), r"counts\[99\] = nan"),
        (dict(counts=np.zeros(100)), "counts must not be zero everywhere"),
        (dict(counts=["a"] * 100), "counts must be an array of numbers"),
    ],
)
def test_wrong_parameters(show, params, message):
    with pytest.raises(ValueError, match=message):
        show(**{"est": TREES["balanced"], **params})


@pytest.mark.parametrize("name", ["max_children", "max_labels"])
def test_wrong_limits_of_text(name):
    with pytest.raises(ValueError, match=f"{name} must be an integer of 1 or more, got -1"):
        export_text(TREES["balanced"], **{name: -1})


@pytest.mark.parametrize("fontsize", [0, -1, np.nan, "large"])
def test_wrong_fontsize(fontsize):
    with pytest.raises(ValueError, match="fontsize must be a number above 0, got"):
        LabelTreeDisplay.from_estimator(TREES["balanced"], fontsize=fontsize)


def test_without_matplotlib(clf, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'sk_hsm[plot]'")):
        LabelTreeDisplay.from_estimator(clf)
    assert export_text(clf)
