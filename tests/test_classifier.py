"""Identities that hold for every fitted model, whatever its tree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import sk_hsm.inference
from sk_hsm import HierarchicalSoftmaxClassifier, LabelTree


def sparse_rows(n=400, d=300, n_classes=60, seed=0):
    """Sparse rows, of which each class prefers some features."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    y[:n_classes] = np.arange(n_classes)
    X = sparse.random_array((n, d), density=0.03, format="csr", random_state=rng)
    return sparse.csr_array(X + sparse.csr_array((np.ones(n), (np.arange(n), y % d)), shape=(n, d))), y


TREES = [
    dict(tree="kmeans", arity=4),
    dict(tree="kmeans", arity=16),
    dict(tree="kmeans", arity=20),
    dict(tree="kmeans", arity=1000),
    dict(tree="huffman", arity=2),
    dict(tree="huffman", arity=5),
    dict(tree="balanced", arity=3),
    dict(tree="balanced", arity=8, fit_intercept=False),
]


@pytest.fixture(scope="module", params=TREES, ids=str)
def fitted(request):
    X, y = sparse_rows()
    return HierarchicalSoftmaxClassifier(random_state=0, **request.param).fit(X, y), X, y


def test_probabilities_sum_to_one(fitted):
    clf, X, _ = fitted
    proba = clf.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert proba.min() >= 0
    np.testing.assert_array_equal(np.exp(clf.predict_log_proba(X)), proba)


def test_top_k_of_all_classes_is_the_sorted_dense_row(fitted):
    clf, X, _ = fitted
    log_proba = clf.predict_log_proba(X)
    order = np.argsort(-log_proba, axis=1, kind="stable")
    labels, proba = clf.predict_top_k(X, k=10**9)
    np.testing.assert_array_equal(labels, clf.classes_[order])
    np.testing.assert_array_equal(proba, np.exp(np.take_along_axis(log_proba, order, axis=1)))


@pytest.mark.parametrize("k", [1, 2, 5, 17])
def test_top_k_is_the_head_of_the_sorted_row(fitted, k):
    clf, X, _ = fitted
    labels, proba = clf.predict_top_k(X, k)
    all_labels, all_proba = clf.predict_top_k(X, 60)
    np.testing.assert_array_equal(labels, all_labels[:, :k])
    np.testing.assert_array_equal(proba, all_proba[:, :k])


def test_predict_is_the_argmax(fitted):
    clf, X, _ = fitted
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[clf.predict_proba(X).argmax(axis=1)])


def test_path_probability_is_the_dense_entry(fitted):
    clf, X, y = fitted
    dense = clf.predict_log_proba(X)[np.arange(len(y)), np.searchsorted(clf.classes_, y)]
    np.testing.assert_allclose(clf.log_proba_of(X, y), dense, rtol=0, atol=1e-12)
    assert clf.log_proba_of(X[:2], [y[0], 10**6])[1] == -np.inf


def test_a_beam_of_infinite_width_is_exact(fitted):
    clf, X, _ = fitted
    for exact, beam in zip(clf.predict_top_k(X), clf.predict_top_k(X, beam_width=10**6), strict=True):
        np.testing.assert_array_equal(exact, beam)


def test_a_narrow_beam_never_beats_exact_search(fitted):
    clf, X, _ = fitted
    labels, proba = clf.predict_top_k(X, k=3, beam_width=1)
    assert (proba <= clf.predict_top_k(X, k=3)[1]).all()
    dense = clf.predict_proba(X)
    found = proba > 0
    at = np.searchsorted(clf.classes_, labels)
    np.testing.assert_array_equal(np.take_along_axis(dense, at, axis=1)[found], proba[found])


def test_sparse_probabilities_are_the_large_dense_ones(fitted):
    clf, X, _ = fitted
    dense = clf.predict_proba(X)
    by_floor = clf.predict_proba_sparse(X, min_proba=0.05)
    np.testing.assert_array_equal(by_floor.toarray(), np.where(dense >= 0.05, dense, 0))
    by_k = clf.predict_proba_sparse(X, k=3)
    assert (np.diff(by_k.indptr) == 3).all()
    np.testing.assert_array_equal(by_k.toarray().max(axis=1), dense.max(axis=1))
    both = clf.predict_proba_sparse(X, k=3, min_proba=0.05)
    np.testing.assert_array_equal(both.toarray(), np.where(by_k.toarray() >= 0.05, by_k.toarray(), 0))


def test_samples_follow_the_probabilities():
    X, y = sparse_rows(n_classes=9)
    clf = HierarchicalSoftmaxClassifier(arity=3, random_state=0, C=1).fit(X, y)
    draws = clf.sample(X[:3], n_samples=200_000, random_state=0)
    for row, proba in zip(draws, clf.predict_proba(X[:3]), strict=True):
        frequency = np.bincount(np.searchsorted(clf.classes_, row), minlength=9) / 200_000
        # five standard deviations
        assert (np.abs(frequency - proba) <= 5 * np.sqrt(proba * (1 - proba) / 200_000) + 1e-12).all()
    np.testing.assert_array_equal(draws, clf.sample(X[:3], n_samples=200_000, random_state=0))


def test_dense_equals_sparse_bit_for_bit(fitted):
    clf, X, y = fitted
    other = clone(clf).fit(X.toarray(), y)
    np.testing.assert_array_equal(other.node_weights_.lines, clf.node_weights_.lines)
    np.testing.assert_array_equal(clf.predict_proba(X.toarray()), clf.predict_proba(X))


@pytest.mark.parametrize("share", [0.05, 0.45, 0.7, 0.8, 1])
def test_dense_equals_sparse_bit_for_bit_whatever_the_share_of_zeros(share):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 12)) * (rng.random((90, 12)) < share)
    y = rng.integers(30, size=90)
    weights = rng.choice([0, 1, 2], 90)
    stored = sparse.csr_array(np.ones(X.shape))
    stored.data[:] = X.ravel()  # zeros, too
    forms = (X, X.astype(np.float32), np.asfortranarray(X), sparse.csr_array(X), sparse.coo_matrix(X), stored)
    fits = [HierarchicalSoftmaxClassifier(arity=4, random_state=0).fit(rows, y, weights) for rows in forms]
    for clf in fits:
        np.testing.assert_array_equal(clf.node_weights_.lines, fits[0].node_weights_.lines)
        np.testing.assert_array_equal(clf.predict_proba(X), fits[0].predict_proba(sparse.csc_array(X)))


def test_the_model_does_not_depend_on_n_jobs(fitted):
    clf, X, y = fitted
    other = clone(clf).set_params(n_jobs=2).fit(X, y)
    for name, array in clf.node_weights_.to_arrays().items():
        np.testing.assert_array_equal(getattr(other.node_weights_, name), array)
    np.testing.assert_array_equal(other.predict_proba(X), clf.predict_proba(X))


def test_a_row_has_the_same_bits_alone_and_in_company(fitted):
    clf, X, _ = fitted
    together = clf.predict_proba(X[:20])
    alone = np.vstack([clf.predict_proba(X[[i]]) for i in range(20)])
    np.testing.assert_array_equal(alone, together)


def test_chunks_do_not_change_predictions(fitted, monkeypatch):
    clf, X, _ = fitted
    whole = clf.predict_top_k(X)[1], clf.predict_proba_sparse(X, k=4).toarray()
    monkeypatch.setattr(sk_hsm.inference, "get_config", lambda: {"working_memory": 0.01})
    np.testing.assert_array_equal(clf.predict_top_k(X)[1], whole[0])
    np.testing.assert_array_equal(clf.predict_proba_sparse(X, k=4).toarray(), whole[1])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(2, 20),
    st.sampled_from(["kmeans", "huffman", "balanced"]),
    st.integers(0, 99),
)
def test_sums_and_order_for_any_tree(n_classes, arity, tree, seed):
    X, y = sparse_rows(n=80, d=30, n_classes=n_classes, seed=seed)
    clf = HierarchicalSoftmaxClassifier(tree, arity=arity, random_state=seed).fit(X, y)
    proba = clf.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert (np.diff(clf.predict_top_k(X, k=n_classes)[1], axis=1) <= 0).all()


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_extreme_logits(scale):
    X, y = load_digits(return_X_y=True)
    clf = HierarchicalSoftmaxClassifier(arity=3, random_state=0).fit(X / 16, y)
    log_proba = clf.predict_log_proba(X[:50] * scale)
    assert np.isfinite(log_proba).all()
    np.testing.assert_allclose(np.exp(log_proba).sum(axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(clf.predict(X[:50] * scale), clf.classes_[log_proba.argmax(axis=1)])


def test_your_own_tree():
    X, y = load_digits(return_X_y=True)
    tree = LabelTree.from_nested([[3, 5, 8, 9], [[0, 6], [4, 1, 7, 2]]])
    clf = HierarchicalSoftmaxClassifier(tree).fit(X / 16, y)
    assert clf.get_params()["tree"] is tree
    np.testing.assert_array_equal(clf.tree_.leaf_labels, clf.classes_)
    for label in range(10):
        np.testing.assert_array_equal(clf.tree_.path(label)[0], tree.path(label)[0])
        np.testing.assert_array_equal(clf.tree_.path(label)[1], tree.path(label)[1])
    assert clf.score(X / 16, y) > 0.95


def test_an_array_of_parents_takes_leaves_in_the_order_of_labels():
    X, y = load_digits(n_class=4, return_X_y=True)
    by_array = HierarchicalSoftmaxClassifier([-1, 0, 0, 1, 1, 2, 2]).fit(X, y)
    assert by_array.tree_.path(2)[1].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (LabelTree.from_nested([0, 1, 2]), "tree has no leaf for class 3"),
        (LabelTree.from_nested([0, 1, 2, 3, "x"]), r"leaf 'x' \(node 5\)"),
        ([-1, 0, 0], "label .*3.* has no leaf|label .*2.* has no leaf"),
        ([-1, 2, 1, 0, 0, 0, 0], "node 1 has one child"),
    ],
)
def test_a_tree_that_does_not_fit_the_labels(tree, message):
    X, y = load_digits(n_class=4, return_X_y=True)
    with pytest.raises(ValueError, match=message):
        HierarchicalSoftmaxClassifier(tree).fit(X, y)


def test_in_a_pipeline_and_a_grid_search():
    words = ["run", "runs", "running", "cat", "cats", "dog", "dogs", "doggy"] * 4
    lemmas = ["run", "run", "run", "cat", "cat", "dog", "dog", "dog"] * 4
    pipe = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)),
        HierarchicalSoftmaxClassifier(random_state=0),
    )
    search = GridSearchCV(pipe, {"hierarchicalsoftmaxclassifier__C": [1e-3, 10]}, cv=2).fit(words, lemmas)
    assert search.best_score_ == 1
    labels, proba = search.best_estimator_[-1].predict_top_k(
        search.best_estimator_[0].transform(["cats"]), k=2
    )
    assert labels[0, 0] == "cat"
    assert proba[0, 0] > proba[0, 1] > 0


def test_progress_is_printed_on_demand(capsys):
    X, y = load_digits(return_X_y=True)
    HierarchicalSoftmaxClassifier(arity=3).fit(X, y)
    assert capsys.readouterr().out == ""
    clf = HierarchicalSoftmaxClassifier(arity=3, random_state=0, verbose=1).fit(X, y)
    printed = capsys.readouterr().out
    assert "1797 rows, 64 features" in printed
    assert f"depth {clf.tree_.max_depth}," in printed
