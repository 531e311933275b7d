"""Builders: Huffman is optimal, balanced is balanced, k-means finds clusters that are there."""

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import entropy
from sklearn.preprocessing import normalize

from sk_hsm import centroids
from sk_hsm.centroids import class_centroids, with_class_features
from sk_hsm.tree_builders import balanced_tree, huffman_tree, kmeans_tree


def huffman_cost(counts, arity):
    """The least sum of count * depth, by merging with a heap: Huffman's own argument."""
    heap = list(counts) + [0] * (-(len(counts) - 1) % (arity - 1))
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        merged = sum(heapq.heappop(heap) for _ in range(arity))
        cost += merged
        heapq.heappush(heap, merged)
    return cost


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=80), st.integers(2, 20))
def test_huffman_is_optimal(counts, arity):
    tree = huffman_tree(counts, arity)
    assert tree.arity <= arity
    assert int(np.dot(counts, tree.depths())) == huffman_cost(counts, arity)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=200), st.integers(2, 20))
def test_huffman_mean_depth_is_within_one_of_the_entropy(counts, arity):
    depth = huffman_tree(counts, arity).mean_depth(counts)
    H = entropy(counts, base=arity)
    assert H - 1e-9 <= depth < H + 1


def test_huffman_of_a_million_classes():
    counts = 1e7 / np.arange(1, 10**6 + 1)
    tree = huffman_tree(counts, 16)
    assert tree.n_classes == 10**6
    assert entropy(counts, base=16) <= tree.mean_depth(counts) < entropy(counts, base=16) + 1


def test_huffman_as_deep_as_can_be():
    # powers of two give a chain, beyond 2**53 too
    counts = [1.0, *2.0 ** np.arange(89)]
    assert huffman_tree(counts).max_depth == 89


@pytest.mark.parametrize("n_classes", [1, 2, 3, 15, 16, 17, 255, 257, 1000])
@pytest.mark.parametrize("arity", [2, 3, 16, 1000])
def test_balanced_depths_are_the_least_possible(n_classes, arity):
    tree = balanced_tree(n_classes, arity)
    depths = tree.depths()
    least = 0
    while arity**least < n_classes:
        least += 1
    assert depths.max() == least
    assert depths.max() - depths.min() <= 1
    assert tree.arity <= arity


def planted(n_groups=4, group_size=16, rows=3, d=64, seed=0):
    """Classes that lie in orthogonal groups: class c is in group c % n_groups."""
    rng = np.random.default_rng(seed)
    n = n_groups * group_size
    y = np.repeat(np.arange(n), rows)
    X = rng.normal(scale=0.05, size=(len(y), d))
    X[np.arange(len(y)), y % n_groups] += 1
    return X, y


@pytest.mark.parametrize("as_sparse", [False, True])
def test_kmeans_finds_planted_groups(as_sparse):
    X, y = planted()
    tree = kmeans_tree(sparse.csc_matrix(X) if as_sparse else X, y, arity=4, random_state=0)
    first = np.array([tree.path(label)[1][0] for label in tree.leaf_labels])
    for group in range(4):
        assert len(set(first[tree.leaf_labels % 4 == group])) == 1
    assert len(set(first)) == 4


@pytest.mark.parametrize("arity", [2, 3, 5, 16, 30, 64, 100])
def test_kmeans_takes_any_arity(arity):
    X, y = planted()
    tree = kmeans_tree(X, y, arity=arity, random_state=0)
    assert tree.n_classes == 64
    assert tree.arity <= arity
    assert (tree.n_inner == 1) == (arity >= 64)
    np.testing.assert_array_equal(tree.leaf_labels, np.unique(y))


def test_kmeans_tree_depends_on_the_seed_alone():
    X, y = planted(n_groups=7, group_size=40)
    shuffle = np.random.default_rng(1).permutation(len(y))
    tree = kmeans_tree(X, y, arity=4, random_state=0)
    for other in (
        kmeans_tree(X, y, arity=4, random_state=0, n_jobs=2),
        kmeans_tree(sparse.coo_array(X), y, arity=4, random_state=0),
        kmeans_tree(X[shuffle], y[shuffle], arity=4, random_state=0),
    ):
        np.testing.assert_array_equal(other.parents, tree.parents)
    assert not np.array_equal(kmeans_tree(X, y, arity=4, random_state=1).parents, tree.parents)


def test_kmeans_weights_are_repetitions():
    X, y = planted(rows=2)
    weights = np.random.default_rng(0).integers(1, 6, len(y))
    weighted = kmeans_tree(X, y, arity=3, sample_weight=weights, random_state=0)
    repeated = kmeans_tree(np.repeat(X, weights, axis=0), np.repeat(y, weights), arity=3, random_state=0)
    np.testing.assert_array_equal(weighted.parents, repeated.parents)


def test_kmeans_puts_frequent_classes_nearer_to_the_root():
    rng = np.random.default_rng(0)
    counts = (2000 / np.arange(1, 301)).astype(int) + 1
    y = np.repeat(np.arange(300), counts)
    X = rng.normal(size=(300, 20))[y] + rng.normal(scale=0.1, size=(len(y), 20))
    tree = kmeans_tree(X, y, arity=4, random_state=0)
    assert tree.mean_depth(counts) < tree.mean_depth()


@pytest.mark.parametrize("arity, n_alone", [(4, 1), (8, 3), (16, 3)])
def test_very_frequent_classes_are_children_of_the_root(arity, n_alone):
    rng = np.random.default_rng(0)
    n_rows = np.array([600, 250, 250] + [10] * 100)  # .29 and .12 of all, against .5 / arity
    y = np.repeat(np.arange(len(n_rows)), n_rows)
    X = sparse.random_array((len(y), 3000), density=0.003, random_state=rng)
    depths = kmeans_tree(X, y, arity, random_state=0).depths()
    assert (depths[:n_alone] == 1).all()
    if arity < 16:  # else there is room for others at the root
        assert (depths[3:] > 1).all()


def test_the_order_of_rows_does_not_say_which_of_two_frequent_classes_is_first():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(100), [30] * 3 + [1] * 97)
    X = sparse.random_array((len(y), 3000), density=0.003, random_state=rng, format="csr")
    for _ in range(20):
        weights = np.concatenate([np.tile(rng.random(30), 3), np.full(97, 0.05)])
        order = rng.permutation(len(y))
        known = kmeans_tree(X, y, 8, sample_weight=weights, random_state=0)
        other = kmeans_tree(X[order], y[order], 8, sample_weight=weights[order], random_state=0)
        np.testing.assert_array_equal(known.children, other.children)


def test_kmeans_takes_the_share_of_class_features_that_it_is_given():
    X, y = planted()
    others = np.random.default_rng(1).normal(size=(64, 6))
    X_shuffled = X[np.random.default_rng(2).permutation(len(y))]

    def parents(X, features, share):
        tree = kmeans_tree(X, y, arity=4, class_features=features, class_share=share, random_state=0)
        return tree.parents.tolist()

    assert parents(X, others, 1) == parents(X_shuffled, others, 1)
    assert parents(X, others, 0) == parents(X, None, 0.5)
    assert parents(X, others, 0.5) == parents(X, sparse.csc_matrix(others), 0.5)
    assert parents(X, others, 0.5) != parents(X_shuffled, others, 0.5)
    assert parents(X, others, 0.5) != parents(X, None, 0.5)


@pytest.mark.parametrize("factor", [1e-25, 1e22])
def test_class_features_have_no_length(factor):
    X, y = planted()
    features = np.random.default_rng(1).normal(size=(64, 6)) + 2
    trees = [
        kmeans_tree(X, y, arity=4, class_features=f, random_state=0) for f in (features, factor * features)
    ]
    np.testing.assert_array_equal(trees[0].parents, trees[1].parents)


@pytest.mark.parametrize("share", [0, 0.3])
def test_class_features_that_tell_nothing_change_nothing(share):
    # dense rows are divided at once, whatever stands beside them
    X = np.random.default_rng(0).normal(size=(200, 20))
    nothing = sparse.csr_array((200, 1000), dtype=float)
    how = {"arity": 4, "random_state": 0}
    alone = kmeans_tree(X, np.arange(200), **how)
    tree = kmeans_tree(X, np.arange(200), class_features=nothing, class_share=share, **how)
    np.testing.assert_array_equal(tree.parents, alone.parents)


@pytest.mark.parametrize("share", [0.4, 1])
def test_class_features_tell_groups_that_rows_do_not(share):
    X = np.random.default_rng(0).normal(size=(64, 20))
    features = np.eye(4)[np.arange(64) % 4]
    tree = kmeans_tree(X, np.arange(64), arity=4, class_features=features, class_share=share, random_state=0)
    first = np.array([tree.path(label)[1][0] for label in range(64)])
    assert len(set(zip(first, np.arange(64) % 4, strict=True))) == 4


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_alike_are_classes_by_the_share_of_both_cosines(share):
    rng = np.random.default_rng(0)
    rows, features = (sparse.random_array((9, d), density=0.6, random_state=rng).tocsr() for d in (30, 12))
    rows, features = normalize(rows).astype(np.float32), 7 * features.astype(np.float32)
    of_rows, of_features = rows.toarray(), normalize(features.toarray())
    expected = (1 - share) * of_rows @ of_rows.T + share * of_features @ of_features.T
    both = with_class_features(rows, features, share).toarray()
    np.testing.assert_allclose(both @ both.T, expected, atol=1e-6)
    # a class that has none has a direction all the same
    none = with_class_features(rows, sparse.csr_array(0 * features), 0.3).toarray()
    np.testing.assert_allclose(none[:, :30], of_rows, atol=1e-6)


@pytest.mark.parametrize("X", [np.zeros((60, 3)), np.ones((60, 3))])
def test_kmeans_of_classes_that_look_alike(X):
    tree = kmeans_tree(X, np.arange(60), arity=4, random_state=0)
    assert tree.n_classes == 60
    assert tree.max_depth <= 6


def test_centroids_are_mean_directions():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 8)).astype(np.float32)
    y, weights = rng.integers(0, 5, 50).astype(np.int32), rng.random(50)
    expected = np.zeros((5, 8))
    for x, label, weight in zip(X.astype(float), y, weights, strict=True):
        expected[label] += weight * x / np.linalg.norm(x)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    got = class_centroids(sparse.csr_array(X), y, weights, 5)
    np.testing.assert_allclose(got.toarray(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("n_rows", "once"), [(4, 0.22), (5, 0.22), (8, 0.22), (100, 100**-0.7)])
def test_what_one_row_of_a_class_has_counts_a_share_of_what_all_have(n_rows, once):
    rows = np.zeros((n_rows, 12), dtype=np.float32)
    rows[:, 1] = 1
    rows[0, 1:3] = 1, -1
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    X = sparse.csr_array(np.vstack([rows, np.roll(rows, 3, axis=1)]))
    y = np.repeat(np.arange(2, dtype=np.int32), n_rows)
    got = class_centroids(X, y, np.ones(2 * n_rows), 2).toarray()
    np.testing.assert_allclose(got[0], np.roll(got[1], -3), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-6)
    always = n_rows - 1 + 0.5**0.5  # the first row is as long as the others
    power = np.log(once) / -np.log(n_rows)
    np.testing.assert_allclose(got[0, 2] / got[0, 1], -((0.5**0.5 / always) ** power), rtol=1e-5)


def test_centroids_of_weights_in_any_unit():
    rng = np.random.default_rng(0)
    X, y = sparse.csr_array(rng.normal(size=(60, 8)).astype(np.float32)), np.arange(60, dtype=np.int32) % 5
    ones, many, few = (class_centroids(X, y, np.full(60, w), 5).toarray() for w in (1.0, 2.0**400, 2.0**-400))
    np.testing.assert_array_equal(many, ones)
    np.testing.assert_allclose(np.linalg.norm(few, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("density", [0.45, 1.0])
def test_centroids_of_classes_of_very_different_weights(density):
    rng = np.random.default_rng(0)
    X = sparse.random_array((60, 20), density=density, random_state=rng, format="csr", dtype=np.float32)
    y = np.arange(60, dtype=np.int32) % 20
    units = 2.0 ** -np.arange(0, 400, 20)
    got = class_centroids(X, y, units[y], 20).toarray()
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("n_rows", [2, 6])
def test_zeros_that_are_stored_do_not_count(n_rows):
    rng = np.random.default_rng(0)
    X = sparse.random_array((60, 40), density=0.1, random_state=rng, format="csr", dtype=np.float32)
    stored = X.copy()
    stored.indices, stored.indptr = (
        np.tile(np.arange(40, dtype=np.int32), 60),
        np.arange(61, dtype=np.int32) * 40,
    )
    stored.data = X.toarray().ravel()
    y = np.arange(60, dtype=np.int32) // n_rows
    got, expected = (class_centroids(A, y, np.ones(60), 60 // n_rows).toarray() for A in (stored, X))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("n_zeros", "is_power"), [(6, True), (5, False)])
def test_means_of_dense_rows_stay_as_they_are(n_zeros, is_power):
    X = np.random.default_rng(0).random((40, 12)).astype(np.float32) + 0.1
    X[:, :n_zeros] = 0
    y = np.arange(40, dtype=np.int32) % 2
    X_of_weight_0 = np.ones((5, 12), np.float32)
    rows = sparse.csr_array(np.vstack([X, X_of_weight_0]))
    weights = np.concatenate([np.ones(40), np.zeros(5)])
    got = class_centroids(rows, np.append(y, [0] * 5).astype(np.int32), weights, 2).toarray()
    mean = np.array([normalize(X[y == c]).sum(axis=0) for c in (0, 1)])
    np.testing.assert_allclose(got, normalize(mean**0.7 if is_power else mean), rtol=1e-5, atol=1e-7)


def pairs_of_rows(X, y):
    """Of each feature, the sum of products over pairs of rows of a class, and of squares likewise."""
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    products, squares = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for i in range(len(y)):
        for j in range(len(y)):
            if i != j and y[i] == y[j]:
                products += X[i] * X[j]
                squares += X[i] ** 2
    return products, squares


@pytest.mark.parametrize(("least", "power"), [(0.01, 1), (0, 1.5)])
@pytest.mark.parametrize("weights", [np.ones(40), np.arange(40) % 2 + 1.0])
def test_features_of_classes_of_few_rows_count_as_far_as_they_recur(weights, least, power):
    rng = np.random.default_rng(0)
    X = (rng.random((40, 12)) * (rng.random((40, 12)) < 0.4) + least).astype(np.float32)
    X[:, 11] += 0.1  # no row is zero
    X[:, 10] = 0
    X[0, 10] = 1  # in one row only
    y = np.concatenate([np.arange(25), np.arange(15)]).astype(np.int32)
    repeated = np.repeat(np.arange(40), weights.astype(int))
    products, squares = pairs_of_rows(X[repeated].astype(float), y[repeated])
    share = np.clip(products / squares, 0, 1)
    expected = np.zeros((25, 12))
    for x, label, weight in zip(X.astype(float), y, weights, strict=True):
        expected[label] += weight * x / np.linalg.norm(x)
    expected = (expected * share) ** power
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    got = class_centroids(sparse.csr_array(X), y, weights, 25)
    np.testing.assert_allclose(got.toarray(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weight", [1e-3, 0.6, 0.999])
def test_rows_that_count_less_than_one_recur_as_well(weight):
    rng = np.random.default_rng(0)
    X = sparse.csr_array((rng.random((60, 9)) * (rng.random((60, 9)) < 0.5) + 0.01).astype(np.float32))
    y = np.concatenate([np.arange(30), np.arange(30)]).astype(np.int32)
    ones, less = (class_centroids(X, y, np.full(60, w), 30).toarray() for w in (1.0, weight))
    if 2 * weight > 1:  # a class of less than a row has no other
        np.testing.assert_allclose(less, ones, rtol=0.05)
    np.testing.assert_allclose(np.linalg.norm(less, axis=1), 1, rtol=1e-5)


def test_nothing_is_known_to_recur_where_each_class_has_one_row():
    X = np.random.default_rng(0).random((9, 4)).astype(np.float32)
    got = class_centroids(sparse.csr_array(X), np.arange(9, dtype=np.int32), np.ones(9), 9)
    np.testing.assert_allclose(got.toarray(), X / np.linalg.norm(X, axis=1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("n_classes", [25, 1000])
def test_centroids_are_summed_in_parts_of_bounded_memory(monkeypatch, n_classes):
    rng = np.random.default_rng(0)
    X = sparse.random_array((1500, 40), density=0.2, random_state=rng, format="csr", dtype=np.float32)
    y, weights = rng.integers(0, n_classes, 1500).astype(np.int32), rng.random(1500)
    whole = class_centroids(X, y, weights, n_classes)
    monkeypatch.setattr(centroids, "AT_ONCE", 300)
    parts = class_centroids(X, y, weights, n_classes)
    assert np.array_equal(parts.indices, whole.indices)
    # 25 classes have rows enough for their mean
    np.testing.assert_allclose(parts.data, whole.data, rtol=0 if n_classes == 25 else 1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: huffman_tree([1, -1]), r"counts\[1\] = -1"),
        (lambda: huffman_tree([1, np.nan]), r"counts\[1\] = nan"),
        (lambda: huffman_tree([]), "non-empty"),
        (lambda: huffman_tree([1, 2], arity=1), "arity .* got 1"),
        (lambda: balanced_tree(0), "n_classes .* got 0"),
        (lambda: balanced_tree(5, arity=2.5), "arity .* got 2.5"),
        (lambda: kmeans_tree(np.ones((3, 2)), [0, 1]), "3 rows and y 2 labels"),
        (lambda: kmeans_tree([[np.nan]], [0]), "NaN"),
        (lambda: kmeans_tree(np.eye(3), [5, 6, 7], class_features=np.eye(2)), "class_features .* 2, y 3"),
        (lambda: kmeans_tree(np.eye(2), [5, 6], class_features=[[np.nan], [1]]), "class_features.* NaN"),
        (lambda: kmeans_tree(np.eye(2), [5, 6], class_features="words"), "class_features.* 'words'"),
        (lambda: kmeans_tree(np.eye(2), [5, 6], class_features={"a": 1}), "class_features.* 'dict'"),
        (lambda: kmeans_tree(np.eye(2), [5, 6], class_share=1.5), "class_share .* got 1.5"),
        (lambda: kmeans_tree(np.eye(2), [5, 6], class_share=True), "class_share .* got True"),
        (lambda: kmeans_tree(np.eye(2), [5, 6], class_share=None), "class_share .* got None"),
    ],
)
def test_errors_name_the_parameter(make, message):
    with pytest.raises(ValueError, match=message):
        make()
