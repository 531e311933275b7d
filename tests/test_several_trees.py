"""Several trees are one distribution: the mean of theirs, and every method agrees on it."""

import io
import pickle

import joblib
import numpy as np
import pytest
from scipy import sparse
from scipy.special import logsumexp
from scipy.stats import chisquare
from sklearn.base import clone
from sklearn.datasets import load_digits

from sk_hsm import HierarchicalSoftmaxClassifier, inference
from sk_hsm.display import export_text

X, y = load_digits(return_X_y=True)
X, y = X / 16, y * 3 + 7
X_test = X[1::2]


def fit(n_trees=3, **params):
    params = {"arity": 2, "C": 1.0, "prior": None, "random_state": 0, **params}
    return HierarchicalSoftmaxClassifier(n_trees=n_trees, **params).fit(X[::2], y[::2])


@pytest.fixture(scope="module", params=[2, 3, 5])
def clf(request):
    return fit(request.param)


def test_the_trees_are_over_the_same_classes_and_differ(clf):
    assert len(clf.trees_) == len(clf.node_weights_) == len(clf.C_) == clf.n_trees
    assert not hasattr(clf, "tree_")
    for tree in clf.trees_:
        np.testing.assert_array_equal(tree.leaf_labels, clf.classes_)
    paths = {tuple(len(tree.path(label)[0]) for label in clf.classes_) for tree in clf.trees_}
    assert len(paths) > 1 or len({tree.parents.tobytes() for tree in clf.trees_}) > 1


def test_probabilities_are_the_mean_of_the_trees(clf):
    each = [inference.all_log_proba([model], X_test, None) for model in clf._models]
    expected = logsumexp(each, axis=0) - np.log(len(each))
    np.testing.assert_allclose(clf.predict_log_proba(X_test), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(clf.predict_proba(X_test).sum(axis=1), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10, 99])
def test_top_k_is_the_sorted_dense_row(clf, k):
    proba = clf.predict_proba(X_test)
    order = np.argsort(-proba, axis=1, kind="stable")[:, :k]
    labels, top = clf.predict_top_k(X_test, k)
    np.testing.assert_array_equal(labels, clf.classes_[order])
    np.testing.assert_array_equal(top, np.take_along_axis(proba, order, axis=1))
    np.testing.assert_array_equal(clf.predict(X_test), clf.classes_[order[:, 0]])


def test_the_probability_of_one_label_is_its_dense_entry(clf):
    log_proba = clf.predict_log_proba(X_test)
    at = np.searchsorted(clf.classes_, y[1::2])
    np.testing.assert_array_equal(clf.log_proba_of(X_test, y[1::2]), log_proba[np.arange(len(at)), at])
    assert (clf.log_proba_of(X_test[:3], [-1, 0, 1]) == -np.inf).all()


@pytest.mark.parametrize("min_proba", [0.5, 0.05, 1e-6])
def test_sparse_probabilities_are_the_large_dense_ones(clf, min_proba):
    proba = clf.predict_proba(X_test)
    found = clf.predict_proba_sparse(X_test, min_proba=min_proba).toarray()
    np.testing.assert_array_equal(found, np.where(np.log(proba) >= np.log(min_proba), proba, 0))
    two = clf.predict_proba_sparse(X_test, k=2)
    np.testing.assert_array_equal(np.sort(two.toarray(), axis=1)[:, -2:], np.sort(proba, axis=1)[:, -2:])


def test_samples_follow_the_mean(clf):
    proba = clf.predict_proba(X_test[:4])
    drawn = clf.sample(X_test[:4], 20_000, random_state=0)
    for labels, p in zip(drawn, proba, strict=True):
        likely = p > 1e-3
        counts = np.array([(labels == label).sum() for label in clf.classes_])
        rest = max(p[~likely].sum(), 1e-12)
        observed = np.append(counts[likely], counts[~likely].sum())
        share = np.append(p[likely], rest)
        assert chisquare(observed, 20_000 * share / share.sum()).pvalue > 1e-4


def test_threads_and_sparse_rows_change_nothing():
    one, two, by_sparse = fit(), fit(n_jobs=2), clone(fit()).fit(sparse.csr_array(X[::2]), y[::2])
    for other in (two, by_sparse):
        np.testing.assert_array_equal(one.predict_log_proba(X_test), other.predict_log_proba(X_test))
        np.testing.assert_array_equal(one.predict_top_k(X_test)[0], other.predict_top_k(X_test)[0])


def test_a_copy_predicts_the_same_bits(tmp_path):
    clf = fit()
    file = io.BytesIO()
    joblib.dump(clf, tmp_path / "model.joblib")
    joblib.dump(clf, file, compress=3)
    file.seek(0)
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert isinstance(mapped.node_weights_[2].lines, np.memmap)
    for copied in (pickle.loads(pickle.dumps(clf)), mapped, joblib.load(file)):
        np.testing.assert_array_equal(copied.predict_log_proba(X_test), clf.predict_log_proba(X_test))
        np.testing.assert_array_equal(copied.sample(X_test, 2, 0), clf.sample(X_test, 2, 0))


@pytest.mark.parametrize("part", ["trees_", "node_weights_"])
def test_a_damaged_tree_does_not_load(part):
    state = fit().__getstate__()
    name = {"trees_": "children", "node_weights_": "features"}[part]
    state[part][1] = {**state[part][1], name: state[part][1][name][:1]}
    with pytest.raises(ValueError, match="this model is damaged"):
        HierarchicalSoftmaxClassifier().__setstate__(state)


@pytest.mark.parametrize("n_trees", [1, 3])
def test_a_model_of_more_classes_than_leaves_does_not_load(n_trees):
    state = fit(n_trees=n_trees).__getstate__()
    state["classes_"] = np.arange(10**6)
    with pytest.raises(ValueError, match="this model is damaged: it has 1000000 classes, but its tree 10"):
        HierarchicalSoftmaxClassifier().__setstate__(state)


def test_one_tree_more_is_better_than_one():
    one, several = fit(1, C="auto"), fit(5, C="auto")
    assert several.log_proba_of(X_test, y[1::2]).mean() > one.log_proba_of(X_test, y[1::2]).mean()


def test_attributes_are_those_of_the_last_fit():
    clf = fit(3)
    assert clf.set_params(n_trees=1).fit(X[::2], y[::2]).tree_.n_classes == 10
    assert not hasattr(clf, "trees_")
    clf.set_params(n_trees=2).fit(X[::2], y[::2])
    assert len(clf.trees_) == 2 and not hasattr(clf, "tree_")


@pytest.mark.parametrize("tree", ["huffman", "balanced", [-1, 0, 0]])
def test_trees_that_cannot_differ_are_refused(tree):
    with pytest.raises(ValueError, match="n_trees=2 needs trees that differ, and only those of"):
        HierarchicalSoftmaxClassifier(tree, n_trees=2).fit(X, y)


def test_what_is_for_one_tree_says_so(clf):
    with pytest.raises(ValueError, match=f"beam_width is for one tree, got {clf.n_trees} trees"):
        clf.predict_top_k(X_test, beam_width=3)
    with pytest.raises(ValueError, match=f"est has {clf.n_trees} trees: give one of est.trees_"):
        export_text(clf)


@pytest.mark.parametrize("n_trees", [2, 3, 6])
def test_one_class_and_no_rows(n_trees):
    clf = HierarchicalSoftmaxClassifier(n_trees=n_trees).fit(X[:5], np.zeros(5))
    assert (clf.log_proba_of(X[:3], np.zeros(3)) == 0).all()
    assert clf.predict_proba_sparse(X[:3], min_proba=1.0).nnz == 3
    assert len(clf.partial_fit(X[:2], np.zeros(2)).trees_) == n_trees
    assert (clf.predict_proba(X[:3]) == 1).all()
    assert clf.predict_top_k(X[:3])[1].tolist() == [[1.0]] * 3
    assert (clf.sample(X[:3], 4) == 0).all()
