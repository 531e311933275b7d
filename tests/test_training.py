"""What rows held out decide: the features that k-means trees are made of, and how far nodes are trained."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize

from sk_hsm import HierarchicalSoftmaxClassifier, training
from sk_hsm.centroids import class_centroids, recurrence
from sk_hsm.regularization import is_held_out
from sk_hsm.row_keys import row_keys
from sk_hsm.tree_builders import huffman_tree, kmeans_tree

N_CLASSES = 500


def chance_rows(n_chance, seed, n_rows=5):
    """Rows with three features of their class, each shared by some classes, and others at random."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(N_CLASSES), n_rows)
    X = np.zeros((len(y), 27 + 90), dtype=np.float32)
    np.put_along_axis(X, np.stack([y // 9**k % 9 + 9 * k for k in range(3)], axis=1), 1, axis=1)
    shuffled = rng.permuted(np.tile(np.arange(27, 27 + 90), (len(y), 1)), axis=1)
    np.put_along_axis(X, shuffled[:, :n_chance], 1, axis=1)
    return sparse.csr_array(X), y


def paired_rows(seed, n_rows=10):
    """Rows with a feature that two classes share, and one at random that rows of half of all classes have."""
    y = np.repeat(np.arange(N_CLASSES), n_rows)
    X = np.zeros((len(y), N_CLASSES // 2 + 60), dtype=np.float32)
    X[np.arange(len(y)), y // 2] = 1
    chance = np.random.default_rng(seed).integers(0, 30, len(y))
    X[np.arange(len(y)), N_CLASSES // 2 + 30 * (y % 2) + chance] = 1
    return sparse.csr_array(X), y


def rows_of(X, y):
    return training.Rows(X, y.astype(np.int32), np.ones(len(y)), np.arange(y.max() + 1))


def is_recurring(clf, X, y):
    """Which of the two trees a model has; it must be one of them."""
    trees = [kmeans_tree(X, y, recurring=recurring, random_state=0) for recurring in (False, True)]
    same = [np.array_equal(clf.tree_.parents, tree.parents) for tree in trees]
    assert sum(same) == 1
    return same[1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_chance", [6, 9])
def test_where_rows_differ_by_chance_the_tree_is_of_what_recurs(n_chance, seed):
    X, y = chance_rows(n_chance, seed)
    assert is_recurring(HierarchicalSoftmaxClassifier(rescore=False, random_state=0).fit(X, y), X, y)


@pytest.mark.parametrize("seed", range(4))
def test_where_what_does_not_recur_tells_kinds_of_classes_apart_it_counts(seed):
    X, y = paired_rows(seed)
    assert not is_recurring(HierarchicalSoftmaxClassifier(rescore=False, random_state=0).fit(X, y), X, y)


def test_rows_with_other_values_keep_their_keys_and_forget_their_sums():
    rows = training.Rows(
        sparse.csr_array(np.eye(3, dtype=np.float32)), np.arange(3, dtype=np.int32), np.ones(3), np.arange(3)
    )
    keys, squares = rows.keys, rows.row_sums.squares
    rows.become(sparse.csr_array(2 * np.eye(3, dtype=np.float32)))
    np.testing.assert_array_equal(rows.keys, keys)
    np.testing.assert_array_equal(rows.row_sums.squares, 4 * squares)
    problem = training.problem_of(
        rows, huffman_tree(np.ones(3)), {"fit_intercept": True, "tol": 0.1, "max_iter": 1}, 0
    )
    assert problem.row_sums is rows.row_sums and problem.keys is rows.keys


def test_that_tree_foretells_new_rows_best():
    (X, y), (X_test, y_test) = chance_rows(6, 0), chance_rows(6, 1)
    others = kmeans_tree(X, y, random_state=0), huffman_tree(np.full(N_CLASSES, 5), 16)
    nll = [
        -HierarchicalSoftmaxClassifier(tree, rescore=False, random_state=0)
        .fit(X, y)
        .log_proba_of(X_test, y_test)
        .mean()
        for tree in ("kmeans", *others)
    ]
    assert nll[0] < 0.7 * min(nll[1:])


def test_recurring_features_count_by_the_fourth_power_of_what_recurs():
    X, y = chance_rows(6, 0)
    weights = np.random.default_rng(1).random(len(y)) + 0.5
    lengths = np.sqrt(X.multiply(X).sum(axis=1))
    sums = np.zeros((N_CLASSES, X.shape[1]))
    np.add.at(sums, y, X.toarray() * (weights / lengths)[:, None])
    columns = np.tile(np.arange(X.shape[1], dtype=np.int32), N_CLASSES)
    share = recurrence(X, y.astype(np.int32), weights, columns, sums.ravel())
    expected = sums * share**4
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    got = class_centroids(X, y.astype(np.int32), weights, N_CLASSES, recurring=True)
    np.testing.assert_allclose(got.toarray(), expected, rtol=1e-4, atol=1e-6)


def test_the_choice_does_not_depend_on_the_order_of_rows_or_n_jobs():
    X, y = chance_rows(6, 0)
    order = np.random.default_rng(1).permutation(len(y))
    fits = [
        HierarchicalSoftmaxClassifier(random_state=0, n_jobs=n_jobs).fit(X[rows], y[rows])
        for rows, n_jobs in ((slice(None), 1), (slice(None), 2), (order, 1))
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(other.tree_.parents, fits[0].tree_.parents)


@pytest.mark.parametrize("scale", [1e-15, 0.01, 3, 1e15])
@pytest.mark.parametrize("signed", [False, True])
def test_the_choice_does_not_depend_on_the_scale_or_the_signs_of_features(scale, signed):
    X, y = chance_rows(9, 0)
    X = X * np.float32(scale)
    if signed:
        X = X @ sparse.diags_array(np.float32([-1, 1] * X.shape[1])[: X.shape[1]])
    params = HierarchicalSoftmaxClassifier().get_params()
    assert training.are_recurring_better(rows_of(sparse.csr_array(X), y), params, np.random.RandomState(0))


@pytest.mark.parametrize("weight", [1e-50, 1e-4, 3, 1e30])
def test_the_choice_does_not_depend_on_the_unit_of_weights(weight):
    rows = rows_of(*chance_rows(9, 0))
    params = HierarchicalSoftmaxClassifier().get_params()
    weighted = replace(rows, weights=np.full(len(rows.y), weight))
    assert training.are_recurring_better(weighted, params, np.random.RandomState(0))


def test_one_row_that_counts_for_many_decides_nothing(monkeypatch):
    monkeypatch.setattr(training, "build_trees", None)
    rows = rows_of(*chance_rows(9, 0))
    keys = row_keys(normalize(rows.X), rows.y)
    held = np.flatnonzero(is_held_out(keys, rows.y, N_CLASSES))
    weights = np.where(np.arange(len(rows.y)) == held[0], 1e4, 1)
    params = HierarchicalSoftmaxClassifier().get_params()
    heavy = replace(rows, weights=weights)
    assert not training.are_recurring_better(heavy, params, np.random.RandomState(0))


def test_no_tree_sees_the_rows_that_are_asked_about(monkeypatch):
    built, asked = [], []
    build, ask = training.build_trees, training.path_log_proba
    monkeypatch.setattr(training, "build_trees", lambda rows, *a: built.append(rows) or build(rows, *a))
    monkeypatch.setattr(training, "path_log_proba", lambda m, X, *a: asked.append(X) or ask(m, X, *a))
    params = HierarchicalSoftmaxClassifier().get_params()
    X, y = chance_rows(9, 0)
    training.are_recurring_better(rows_of(X, y), params, np.random.RandomState(0))
    assert len(built) == len(asked) == 2
    for rows, X_asked in zip(built, asked, strict=True):
        assert rows.X.shape[0] + X_asked.shape[0] == len(y)
        known = {row.tobytes() for row in rows.X.toarray()}
        assert not any(row.tobytes() in known for row in X_asked.toarray())


def test_rows_that_are_the_same_are_one_of_their_weight_together():
    X, y = chance_rows(6, 0)
    times = np.random.default_rng(2).integers(1, 4, len(y))
    rows = rows_of(X, y)
    one = training.different_rows(replace(rows, weights=times.astype(float)))
    other = training.different_rows(rows_of(X[np.repeat(np.arange(len(y)), times)], np.repeat(y, times)))
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.X.toarray(), other.X.toarray())
    np.testing.assert_allclose(one.weights, other.weights)


def test_more_rows_that_differ_decide_nothing(monkeypatch):
    X, y = chance_rows(9, 0)
    rows = rows_of(X[np.repeat(np.arange(len(y)), 2)], np.repeat(y, 2))
    params = HierarchicalSoftmaxClassifier().get_params()
    for n, is_tried in ((len(y), True), (len(y) - 1, False)):
        monkeypatch.setattr(training, "N_TRIED", n)
        assert training.are_recurring_better(rows, params, np.random.RandomState(0)) == is_tried


def test_rows_tried_keep_their_labels():
    X, y = chance_rows(6, 0)
    tried = training.different_rows(rows_of(X, y))
    assert tried.X.shape[0] == len(y)
    full = X.toarray()
    of = {label: {row.tobytes() for row in full[y == label]} for label in range(N_CLASSES)}
    assert all(row.tobytes() in of[label] for row, label in zip(tried.X.toarray(), tried.y, strict=True))


def test_the_rows_tried_do_not_depend_on_their_order():
    X, y = chance_rows(6, 0)
    rows, order = rows_of(X, y), np.random.default_rng(1).permutation(len(y))
    one = training.different_rows(rows)
    other = training.different_rows(replace(rows, X=X[order], y=rows.y[order]))
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.X.toarray(), other.X.toarray())


@pytest.mark.parametrize(
    "what",
    [
        {"tree": "huffman"},
        {"tree": "balanced"},
        {"tree": huffman_tree(np.ones(N_CLASSES), 16)},
        {"arity": 512},
    ],
)
def test_nothing_is_tried_where_no_clusters_are_made(monkeypatch, what):
    monkeypatch.setattr(training, "different_rows", None)
    X, y = chance_rows(6, 0)
    params = HierarchicalSoftmaxClassifier(**what).get_params()
    assert not training.are_recurring_better(rows_of(X, y), params, np.random.RandomState(0))


def test_few_rows_and_dense_rows_decide_nothing(monkeypatch):
    monkeypatch.setattr(training, "build_trees", None)
    params = HierarchicalSoftmaxClassifier().get_params()
    X, y = chance_rows(6, 0, n_rows=2)
    assert not training.are_recurring_better(rows_of(X, y), params, np.random.RandomState(0))
    dense = sparse.csr_array(np.random.default_rng(0).random((2500, 20)).astype(np.float32))
    rows = rows_of(dense, np.repeat(np.arange(N_CLASSES), 5))
    assert not training.are_recurring_better(rows, params, np.random.RandomState(0))


def test_several_trees_are_of_one_kind():
    X, y = chance_rows(6, 0)
    one, three = (
        HierarchicalSoftmaxClassifier(n_trees=n, rescore=False, random_state=0).fit(X, y) for n in (1, 3)
    )
    np.testing.assert_array_equal(three.trees_[0].parents, one.tree_.parents)
    assert is_recurring(one, X, y)


def gaps_and_loss(monkeypatch, X, y, **params):
    """What duality gaps a fit asks its nodes for, tree by tree, and the log-loss of rows held out."""
    gaps, losses, fit, choose = [], [], training.fit_nodes, training.choose_penalties

    def remembered_fit(problem, *rest):
        gaps.append(problem.tol)
        return fit(problem, *rest)

    def remembered_choice(*about):
        losses.append(choose(*about)[1])
        return choose(*about)

    monkeypatch.setattr(training, "fit_nodes", remembered_fit)
    monkeypatch.setattr(training, "choose_penalties", remembered_choice)
    HierarchicalSoftmaxClassifier(random_state=0, **params).fit(X, y)
    return gaps, *losses


@pytest.mark.parametrize("params", [{}, {"n_trees": 2, "tol": 0.03}, {"C": 10.0, "rescore": True}], ids=str)
def test_where_rows_tell_nearly_all_gaps_are_a_part_of_the_log_loss(monkeypatch, params):
    X, y = chance_rows(2, 0, n_rows=20)
    gaps, loss = gaps_and_loss(monkeypatch, X, y, **params)
    assert loss < 0.7
    assert len(gaps) >= params.get("n_trees", 1)
    np.testing.assert_allclose(gaps, params.get("tol", 0.01) * max(loss, 0.1), rtol=0.05)


def test_where_rows_tell_little_or_nothing_is_chosen_gaps_are_as_given(monkeypatch):
    X, y = chance_rows(2, 0, n_rows=20)
    of_chance = np.random.default_rng(1).permutation(y)
    gaps, loss = gaps_and_loss(monkeypatch, X, of_chance)
    assert loss > 1 and set(gaps) == {0.01}
    gaps, loss = gaps_and_loss(monkeypatch, X, y, C=10.0, prior=None)
    assert loss == np.inf and set(gaps) == {0.01}


def test_exact_fits_have_no_other_gap(monkeypatch):
    X, y = load_digits(return_X_y=True)
    gaps, loss = gaps_and_loss(monkeypatch, X[:500] / 16, y[:500])
    assert loss < 1 and set(gaps) == {0.01}


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
def test_nodes_that_reach_the_given_gap_alone_have_converged(monkeypatch):
    X, y = chance_rows(2, 0, n_rows=20)
    monkeypatch.setattr(training, "tolerance", lambda problem, *rest: 1e-12)
    HierarchicalSoftmaxClassifier(random_state=0, max_iter=60).fit(X, y)
    with pytest.raises(ConvergenceWarning, match=r"did not reach tol=0\.01 in max_iter=1 passes"):
        HierarchicalSoftmaxClassifier(random_state=0, max_iter=1).fit(X, y)
