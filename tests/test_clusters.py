"""Dense rows and narrow ones: nodes divided by k-means, so that a softmax can tell their children apart."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from sk_hsm import clusters
from sk_hsm.clusters import divide, k_means
from sk_hsm.tree_builders import huffman_tree, kmeans_tree
from sk_hsm.validation import kernel_rows


def directions(n=600, d=8, seed=0):
    """Points on the unit sphere without any groups."""
    points = normalize(np.random.default_rng(seed).normal(size=(n, d)))
    return points.astype(np.float32)


def hidden(X, n_features=40):
    """The same cosines, in more features, of which most values are zero."""
    scattered = sparse.lil_array((len(X), n_features * X.shape[1]))
    scattered[:, ::n_features] = X
    return scattered.tocsr()


def children(tree):
    """Which child of the root is above each class."""
    return np.array([tree.path(label)[1][0] for label in tree.leaf_labels])


def points_of(X, mass=None):
    """What kernels need of classes with these centroids."""
    mass = np.ones(len(X)) if mass is None else mass
    return *kernel_rows(sparse.csr_array(X)), mass.astype(np.float32), X.shape[1]


def test_k_means_takes_the_best_start(monkeypatch):
    points = directions(200)

    def score(n_init, seed):
        monkeypatch.setattr(clusters, "N_INIT", n_init)
        cluster = k_means(points_of(points), np.arange(200, dtype=np.int32), 10, np.random.default_rng(seed))
        return sum(np.linalg.norm(points[cluster == c].sum(axis=0)) for c in range(10))

    assert np.mean([score(5, seed) for seed in range(20)]) > np.mean([score(1, seed) for seed in range(20)])


def test_k_means_of_many_points_starts_from_some(monkeypatch):
    monkeypatch.setattr(clusters, "SAMPLE", 100)
    rng = np.random.default_rng(0)
    points = normalize(np.eye(6)[np.arange(3000) % 6] + rng.normal(scale=0.05, size=(3000, 6)))
    cluster = k_means(points_of(points.astype(np.float32)), np.arange(3000, dtype=np.int32), 6, rng)
    assert len(set(cluster[:6])) == 6
    np.testing.assert_array_equal(cluster, cluster[np.arange(3000) % 6])


def share_told_apart(tree, points, node):
    """Of the classes below a node, how many a softmax puts below the child that they are below."""
    child, known = [], []
    for label in tree.leaf_labels:
        nodes, positions = tree.path(label)[:2]
        if node in nodes:
            child.append(positions[list(nodes).index(node)])
            known.append(label)
    rows = points[known]
    return LogisticRegression(C=1e4, max_iter=2000).fit(rows, child).score(rows, child)


@pytest.mark.parametrize("narrow", [False, True])
def test_a_softmax_can_tell_the_children_apart(narrow, monkeypatch):
    points = directions(3000)
    # 8 features that are not zero of 80, and more than MANY classes for each of these; of sparse rows the
    # clusters are those of powers of the values
    X = hidden(points, 10) if narrow else points
    tree = kmeans_tree(X, np.arange(3000), arity=16, random_state=0)
    assert min(share_told_apart(tree, points, node) for node in [0, *inner_children(tree)]) > 0.98
    # not so if they are cut in two, and in two again
    monkeypatch.setattr(clusters, "SMALL", 10**6)
    tree = kmeans_tree(X, np.arange(3000), arity=16, random_state=0)
    assert share_told_apart(tree, points, 0) < 0.95


def inner_children(tree):
    """Those of the root that have more than SMALL times 16 classes below them."""
    child = children(tree)
    nodes = tree.child_ptr[0] + 1 + np.flatnonzero(np.bincount(child) > 64)
    assert len(nodes) > 8
    return nodes[nodes < tree.n_inner].tolist()


def test_dense_rows_of_many_features_are_clustered_too(monkeypatch):
    points = directions(1000, 128)

    def share_nearest_to_their_own():
        child = children(kmeans_tree(points, np.arange(1000), arity=16, random_state=0))
        means = normalize(np.array([points[child == own].sum(axis=0) for own in range(16)]))
        return np.mean((points @ means.T).argmax(axis=1) == child)

    assert share_nearest_to_their_own() > 0.98
    monkeypatch.setattr(clusters, "are_dense", lambda *args: False)
    assert share_nearest_to_their_own() < 0.95


def test_depth_is_near_to_the_least():
    tree = kmeans_tree(directions(5000, 16), np.arange(5000), arity=16, random_state=0)
    assert tree.mean_depth() < 1.15 * huffman_tree(np.ones(5000), 16).mean_depth()


def test_a_class_with_more_than_its_share_is_a_child_by_itself():
    counts = np.ones(1000)
    counts[[3, 500]] = 400, 300
    tree = kmeans_tree(directions(1000), np.arange(1000), arity=8, sample_weight=counts, random_state=0)
    depths = tree.depths()
    assert depths[3] == depths[500] == 1
    assert np.delete(depths, [3, 500]).min() > 1


@pytest.mark.parametrize("alike", [0, 0.6, 1])
def test_classes_that_look_alike_do_not_make_it_deep(alike):
    points = directions(3000)
    points[: int(alike * 3000)] = points[0]
    tree = kmeans_tree(points, np.arange(3000), arity=4, random_state=0)
    assert tree.n_classes == 3000
    assert tree.max_depth <= 12


def test_a_cluster_of_more_than_half_is_cut_in_two():
    points = directions(2000)
    points[:1200] = normalize(points[0] + 0.01 * directions(1200, seed=1))
    order, depth = np.arange(2000, dtype=np.int32), np.zeros(2000, dtype=np.int32)
    left = divide(points_of(points), np.ones(2000), 4, order, depth, 0, None)
    (lo, hi, level), *others = sorted(left, key=lambda node: node[0] - node[1])
    assert level == 1
    assert set(range(1200)) <= set(order[lo:hi].tolist())
    assert max(end - start for start, end, _ in others) <= clusters.SMALL * 4


@pytest.mark.parametrize("n_directions", [1, 2, 5])
def test_few_directions_do_not_cost_a_level(n_directions):
    points = np.repeat(directions(n_directions), 1500 // n_directions, axis=0)
    tree = kmeans_tree(points, np.arange(len(points)), arity=16, random_state=0)
    assert tree.mean_depth() < 1.05 * huffman_tree(np.ones(len(points)), 16).mean_depth()


@pytest.mark.parametrize("factor", [3.0, 0.7])
def test_the_tree_does_not_hang_on_rounding(factor):
    # of rows on a lattice many cosines are equal but for rounding
    rng = np.random.default_rng(0)
    for _ in range(5):
        X, y = rng.integers(-1, 2, size=(300, 10)).repeat(20, axis=0), np.arange(300).repeat(20)
        weights = rng.random(6000)
        tree, scaled, weighted = (
            kmeans_tree(rows, y, arity=4, sample_weight=w, random_state=0)
            for rows, w in ((X, weights), (factor * X, weights), (X, factor * weights))
        )
        np.testing.assert_array_equal(scaled.parents, tree.parents)
        np.testing.assert_array_equal(weighted.parents, tree.parents)


@pytest.mark.parametrize("narrow", [False, True])
def test_threads_and_the_order_of_rows_change_nothing(narrow):
    points = directions(2700, 4)
    X = hidden(points, 8) if narrow else points
    rng = np.random.default_rng(1)
    y, weights, shuffle = np.arange(2700) % 900, rng.random(2700), rng.permutation(2700)
    tree = kmeans_tree(X, y, arity=5, sample_weight=weights, random_state=0)
    shuffled = {"sample_weight": weights[shuffle], "random_state": 0}
    for other in (
        kmeans_tree(X, y, arity=5, sample_weight=weights, random_state=0, n_jobs=2),
        kmeans_tree(X[shuffle], y[shuffle], arity=5, **shuffled),
    ):
        np.testing.assert_array_equal(other.parents, tree.parents)


@pytest.mark.parametrize("exponent", [-1060, -300, 60, 120])
def test_weights_of_any_size_give_the_same_tree(exponent):
    points, counts = directions(1000), np.random.default_rng(0).integers(1, 9, 1000).astype(float)
    tree, other = (
        kmeans_tree(points, np.arange(1000), arity=8, sample_weight=weights, random_state=0)
        for weights in (counts, np.ldexp(counts, exponent))
    )
    np.testing.assert_array_equal(other.parents, tree.parents)


@pytest.mark.parametrize(
    ("frequency", "frequent"),
    [
        ([1] * 20, []),  # more than their share, but as many as others
        ([1] * 100 + [9], []),
        ([1] * 100 + [40, 30], [101, 100]),
        ([1] * 300 + list(range(60, 72)), list(range(304, 312))),  # half as many as a node has children
    ],
)
def test_frequent_classes_have_more_than_their_share_and_than_others(frequency, frequent):
    order, n_frequent = clusters.frequent_last(np.array(frequency, float), 16)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(frequency)))
    assert n_frequent == len(frequent)
    last = order[len(order) - n_frequent :]
    assert set(last) == set(frequent)
    assert (np.diff(np.array(frequency)[last]) >= 0).all() and (
        np.diff(order[: len(order) - n_frequent]) > 0
    ).all()
