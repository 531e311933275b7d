"""LabelTree: what it says of itself, and what it refuses."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage

from sk_hsm import LabelTree
from sk_hsm.tree_builders import balanced_tree


@st.composite
def random_parents(draw):
    """Parents of a random tree whose inner nodes have two or more children, in any numbering."""
    parents = [-1]
    leaves = [0]
    for _ in range(draw(st.integers(0, 12))):
        node = leaves.pop(draw(st.integers(0, len(leaves) - 1)))
        for _ in range(draw(st.integers(2, 5))):
            leaves.append(len(parents))
            parents.append(node)
    shuffle = np.array(draw(st.permutations(range(len(parents)))))
    renumbered = np.full(len(parents), -1)
    for child, parent in enumerate(parents):
        renumbered[shuffle[child]] = -1 if parent < 0 else shuffle[parent]
    return renumbered


@given(random_parents())
def test_paths_lead_up_the_given_parents(parents):
    tree = LabelTree.from_parents(parents)
    childless = np.setdiff1d(np.arange(len(parents)), parents)
    assert tree.n_classes == len(childless)
    assert tree.n_nodes == len(parents)
    for label, node in enumerate(childless):
        depth = 0
        while parents[node] >= 0:
            node, depth = parents[node], depth + 1
        nodes, positions = tree.path(label)
        assert len(nodes) == len(positions) == depth == tree.depths()[label]
        # walking down by the positions ends at the label's leaf
        at = 0
        for expected, position in zip(nodes, positions, strict=True):
            assert at == expected
            at = tree.children[tree.child_ptr[at] + position]
        assert at == tree.n_inner + label
    assert tree.max_depth == tree.depths().max()
    assert tree.mean_depth() == pytest.approx(tree.depths().mean())


@given(random_parents())
def test_leaf_ranges_nest_and_partition(parents):
    tree = LabelTree.from_parents(parents)
    start, stop = tree._leaf_ranges()
    assert sorted(start[tree.n_inner :]) == list(range(tree.n_classes))
    for v in range(tree.n_inner):
        children = tree.children[tree.child_ptr[v] : tree.child_ptr[v + 1]]
        bounds = np.append(start[children], stop[children[-1]])
        assert bounds[0] == start[v]
        assert bounds[-1] == stop[v]
        np.testing.assert_array_equal(stop[children], bounds[1:])


def test_inner_nodes_are_breadth_first():
    tree = LabelTree.from_nested([["a", ["b", "c"]], ["d", "e"]])
    inner = tree.parents[: tree.n_inner]
    assert (np.diff(inner) >= 0).all()
    assert inner.tolist() == [-1, 0, 0, 1]


def test_ways_to_make_the_same_tree():
    by_parents = LabelTree.from_parents([-1, 0, 0, 1, 1], ["car", "cat", "dog"])
    by_dict = LabelTree.from_parents([-1, 0, 0, 1, 1], {2: "car", 3: "cat", 4: "dog"})
    by_paths = LabelTree.from_paths({"car": "1", "cat": "00", "dog": "01"})
    nested = LabelTree.from_nested([["cat", "dog"], "car"])
    merged = LabelTree.from_linkage([[1, 2, 0.5, 2], [0, 3, 1.0, 3]], ["car", "cat", "dog"])
    for tree in (by_dict, by_paths, nested, merged):
        assert repr(tree) == repr(by_parents)
        for label in ("car", "cat", "dog"):
            np.testing.assert_array_equal(tree.path(label)[0], by_parents.path(label)[0])


def test_scipy_linkage():
    points = np.random.default_rng(0).normal(size=(30, 3))
    tree = LabelTree.from_linkage(linkage(points, "ward"))
    assert (tree.n_classes, tree.n_nodes, tree.arity) == (30, 59, 2)


def test_a_single_leaf_is_a_tree():
    tree = LabelTree.from_parents([-1], ["only"])
    assert (tree.n_classes, tree.n_nodes, tree.max_depth, tree.arity) == (1, 1, 0, 0)
    assert [len(part) for part in tree.path("only")] == [0, 0]


def test_a_chain_of_10000_nodes_needs_no_recursion():
    n = 10_000
    parents = np.concatenate([[-1], np.repeat(np.arange(0, 2 * n, 2), 2)])
    assert LabelTree.from_parents(parents).max_depth == n


@pytest.mark.parametrize(
    ("parents", "labels", "message"),
    [
        ([-1, 0, 0, 4, 3], None, "node 3 has one child"),
        ([-1, 0, 0, 4, 4, 3, 3], None, "node 3 is not below the root"),
        ([1, 0], None, "cycle"),
        ([-1, -1], None, "node 0 and node 1 are both roots"),
        ([-1, 0, 0, 7], None, "parent of node 3 is 7"),
        ([-1, 0, 0, -2], None, "parent of node 3 is -2"),
        ([-1, 0], None, "node 0 has one child"),
        ([-1, 0, 0], ["a"], "node 2 has neither children nor a label"),
        ([-1, 0, 0], ["a", "b", "c"], "label 'c' has no leaf"),
        ([-1, 0, 0], ["a", "a"], "label 'a' is at two leaves: node 1 and node 2"),
        ([-1, 0, 0, 1, 1], {2: "a", 3: "b"}, "node 4 is an inner node without children"),
        ([-1, 0, 0], {0: "a", 1: "b", 2: "c"}, "node 0 is a leaf, with a label, but has children"),
        ([-1, 0, 0], {1: "a", 5: "b"}, "node 5"),
        ([], None, "non-empty"),
        ([[-1, 0]], None, "1-D"),
        ([-1, 0, np.nan], None, "parent of node 2 must be a node, got nan"),
        ([-1, 0, 0.5], None, "parent of node 2 must be a node, got 0.5"),
        (["a", "b"], None, "dtype"),
    ],
)
def test_a_bad_tree_is_named(parents, labels, message):
    with pytest.raises(ValueError, match=message):
        LabelTree.from_parents(parents, labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelTree.from_paths([(0, 0), (0, 0), (1,)]), r"path \(0, 0\)"),
        (
            lambda: LabelTree.from_paths([(0,), (0, 1), (0, 2), (1,)]),
            r"path \(0,\) is a leaf, .* but has children",
        ),
        (lambda: LabelTree.from_paths([(0, 1), (1,)]), r"path \(0,\) has one child"),
        (lambda: LabelTree.from_paths([]), "at least one leaf"),
        (lambda: LabelTree.from_nested([["a", []], "b"]), "without children"),
        (lambda: LabelTree.from_nested([["a"], "b"]), "one child"),
        (lambda: LabelTree.from_nested([["a", "b"], "a"]), "'a' is at two leaves"),
        (lambda: LabelTree.from_linkage(np.zeros((3, 3))), r"shape \(3, 3\)"),
        (lambda: LabelTree.from_linkage([[0, 1, 1, 2], [0, 2, 1, 3]]), "node 0 twice"),
        (lambda: LabelTree.from_linkage([[0, 9, 1, 2]]), r"Z\[0\] merges 9"),
        (lambda: LabelTree.from_linkage([[0, 1, 1, 2]], np.arange(3)), "merges 2 observations, .* 3 labels"),
        (lambda: LabelTree.from_linkage([[0, 1, 1, 2]], ["a"]), "merges 2 observations, .* 1 labels"),
        (lambda: LabelTree(), "from_parents"),
    ],
)
def test_other_bad_trees_are_named(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_nothing_can_be_changed():
    tree = balanced_tree(10, 3)
    with pytest.raises(AttributeError, match="immutable"):
        tree.parents = np.zeros(3)
    with pytest.raises(ValueError, match="read-only"):
        tree.parents[0] = 3
    assert copy.deepcopy(tree) is tree


def test_pickles_as_plain_arrays():
    tree = balanced_tree(100, 7).with_labels(np.arange(100).astype(str))
    state = tree.__getstate__()
    assert all(type(array) is np.ndarray for array in state.values())
    assert all(array.dtype == np.int32 for name, array in state.items() if name != "leaf_labels")
    for protocol in range(2, 6):
        again = pickle.loads(pickle.dumps(tree, protocol))
        for name, array in state.items():
            np.testing.assert_array_equal(getattr(again, name), array)
            assert not getattr(again, name).flags.writeable


def test_labels_keep_their_type():
    labels = [2**63, -1, 2**63 + 1]
    assert LabelTree.from_nested(labels).leaf_labels.tolist() == labels
    assert LabelTree.from_nested([1, "1"]).leaf_labels.tolist() == [1, "1"]
    with pytest.raises(ValueError, match="not a leaf"):
        LabelTree.from_nested([1, 2]).path(3)


def test_a_tree_does_not_change_with_the_labels_that_it_was_given():
    labels, parents = np.arange(6), np.array([-1, 0, 0])
    trees = [
        LabelTree.from_nested([[0, 1, 2], [3, 4, 5]]).with_labels(labels),
        LabelTree.from_parents(parents, labels[:2]),
    ]
    labels[:], parents[:] = 5, 7
    assert [tree.leaf_labels.tolist() for tree in trees] == [[0, 1, 2, 3, 4, 5], [0, 1]]
    assert trees[1].path(1)[1].tolist() == [1]


def test_labels_may_be_tuples():
    tree = LabelTree.from_paths({("a", 1): "00", ("a", 2): "01", ("b", 1): "1"})
    assert [tree.path(label)[1].tolist() for label in tree.leaf_labels] == [[0, 0], [0, 1], [1]]
    for unknown in (("b", 2), ["a"], ("a", 1, 2), None):
        with pytest.raises(ValueError, match="is not a leaf of this tree"):
            tree.path(unknown)
    with pytest.raises(ValueError, match="is not a leaf of this tree"):
        LabelTree.from_nested(["a", "b"]).path(["a"])


NESTED = LabelTree.from_nested([["a", "b"], "c"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NESTED.mean_depth([1, 2]), r"counts must be 3 finite numbers .* got shape \(2,\) and 1 at"),
        (lambda: NESTED.mean_depth([1, 2, -3]), r"counts must be 3 finite numbers .* and -3 at the least"),
        (lambda: NESTED.mean_depth([1, 2, np.nan]), "counts must be 3 finite numbers"),
        (lambda: NESTED.mean_depth([0, 0, 0]), "counts must hold a number above zero"),
        (lambda: NESTED.with_labels(np.eye(3)), r"labels must be 1-D, got shape \(3, 3\)"),
        (lambda: LabelTree.from_nested([{1}, "c"]), r"node 1 .*, \{1\}, has the label \{1\} of type set"),
        (lambda: LabelTree.from_parents([-1, 0, 0], {1.7: "a", 2.2: "b"}), "nodes by integers, got 1.7"),
        (
            lambda: LabelTree.from_parents([-1, 0, 0], pd.Series(list("abc"), index=[7, 8, 9])),
            "label 'c' has no leaf: parents has 2 childless nodes",
        ),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_mean_depth_is_the_mean_of_depths():
    assert NESTED.mean_depth() == pytest.approx(5 / 3)
    assert NESTED.leaf_labels.tolist() == ["c", "a", "b"] and NESTED.mean_depth([3, 1, 0]) == 1.25


@pytest.mark.parametrize("n_classes", [np.uint8(200), np.int16(200), 200])
def test_a_number_of_classes_of_any_width(n_classes):
    assert balanced_tree(n_classes, 7).n_classes == 200
