"""Every node is the multinomial logistic regression of its rows."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import check_grad
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from sk_hsm import HierarchicalSoftmaxClassifier
from sk_hsm.solvers import _hessian, _objective


def flat(X, y, C, sample_weight=None, fit_intercept=True):
    """scikit-learn's softmax, its intercept a penalised constant feature; its coefficients, proba."""
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    lr = LogisticRegression(C=C, fit_intercept=False, tol=1e-10, max_iter=100_000)
    lr.fit(A, y, sample_weight=sample_weight)
    return lr, lr.predict_proba(A)


def coefficients(clf, node, arity, n_features):
    """Weights and intercepts of a node as (arity, n_features + 1)."""
    features, weights, bias = clf.node_weights_.node(node, arity)
    coef = np.zeros((arity, n_features + 1))
    coef[:, features] = weights.T
    coef[:, -1] = bias
    return coef


@pytest.mark.parametrize("C", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_one_node_is_logistic_regression(C, fit_intercept):
    X, y = load_digits(return_X_y=True)
    X = X / 16
    clf = HierarchicalSoftmaxClassifier(arity=10, C=C, prior=None, fit_intercept=fit_intercept).fit(X, y)
    lr, proba = flat(X, y, C, fit_intercept=fit_intercept)
    assert clf.tree_.n_inner == 1
    np.testing.assert_allclose(clf.predict_proba(X), proba, rtol=0, atol=5e-6)
    coef = coefficients(clf, 0, 10, 64)[:, : lr.coef_.shape[1]]
    np.testing.assert_allclose(coef, lr.coef_, rtol=0, atol=3e-5 * np.abs(lr.coef_).max())


@pytest.mark.parametrize("tree", ["kmeans", "huffman", "balanced"])
def test_two_classes_are_binary_logistic_regression(tree):
    X, y = make_classification(300, 8, random_state=0)
    clf = HierarchicalSoftmaxClassifier(tree, C=1.0, prior=None).fit(X, y)
    lr, proba = flat(X, y, C=1.0)
    coef = coefficients(clf, 0, 2, 8)
    np.testing.assert_allclose(coef[1] - coef[0], lr.coef_[0], rtol=0, atol=2e-6)
    np.testing.assert_allclose(clf.predict_proba(X), proba, rtol=0, atol=2e-6)


@pytest.mark.parametrize("tree", ["kmeans", "huffman", "balanced"])
@pytest.mark.parametrize("arity", [2, 3, 4])
def test_every_node_of_a_deep_tree_is_logistic_regression_of_its_rows(tree, arity):
    X, y = load_digits(return_X_y=True)
    X = X / 16
    clf = HierarchicalSoftmaxClassifier(tree, arity=arity, C=2.0, prior=None, random_state=0).fit(X, y)
    start, stop = clf.tree_._leaf_ranges()
    rank = start[clf.tree_.n_inner :][y]
    for node in range(clf.tree_.n_inner):
        children = clf.tree_.children[clf.tree_.child_ptr[node] : clf.tree_.child_ptr[node + 1]]
        here = (rank >= start[node]) & (rank < stop[node])
        child = np.searchsorted(start[children], rank[here], side="right") - 1
        lr, _ = flat(X[here], child, 2.0)
        ours = coefficients(clf, node, len(children), 64)
        theirs = lr.coef_ if len(children) > 2 else np.vstack([-lr.coef_, lr.coef_]) / 2
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("arity", [3, 16, 30])
def test_dual_ascent_reaches_the_same_optimum_as_newton(arity, monkeypatch):
    X, y = load_digits(return_X_y=True)
    X = sparse.csr_array(X / 16)
    exact = HierarchicalSoftmaxClassifier(arity=arity, C=1.0, prior=None, random_state=0).fit(X, y)
    monkeypatch.setattr("sk_hsm.solvers.NEWTON_BUDGET", 0)
    ascended = HierarchicalSoftmaxClassifier(arity=arity, C=1.0, prior=None, tol=1e-5, random_state=0).fit(
        X, y
    )
    # the objective is within the duality gap that tol allows of the least possible
    for node in range(exact.tree_.n_inner):
        k = exact.tree_.child_ptr[node + 1] - exact.tree_.child_ptr[node]
        start, stop = exact.tree_._leaf_ranges()
        children = exact.tree_.children[exact.tree_.child_ptr[node] :][:k]
        rank = start[exact.tree_.n_inner :][y]
        here = np.flatnonzero((rank >= start[node]) & (rank < stop[node]))
        child = np.searchsorted(start[children], rank[here], side="right") - 1
        A = np.column_stack([X[here].toarray(), np.ones(len(here))])
        values = []
        for clf in (exact, ascended):
            theta = coefficients(clf, node, k, 64).T
            costs = np.full(len(A), 1.0 if k > 2 else 0.5)
            values.append(_objective(theta, log_softmax(A @ theta, axis=1), child, costs))
        assert -1e-6 * values[0] <= values[1] - values[0] <= 1e-5 * costs.sum() + 1e-6 * values[0]


def test_gradient_and_hessian_are_those_of_the_objective():
    rng = np.random.default_rng(0)
    A, child, costs = rng.normal(size=(30, 4)), rng.integers(0, 3, 30), rng.random(30)

    def value(flat_theta):
        theta = flat_theta.reshape(3, 4).T
        return _objective(theta, log_softmax(A @ theta, axis=1), child, costs)

    def gradient(flat_theta):
        theta = flat_theta.reshape(3, 4).T
        errors = softmax(A @ theta, axis=1) - np.eye(3)[child]
        return (theta + A.T @ (costs[:, None] * errors)).T.ravel()

    at = rng.normal(size=12)
    assert check_grad(value, gradient, at) < 1e-5
    H = _hessian(A, softmax(A @ at.reshape(3, 4).T, axis=1), costs)
    for i, unit in enumerate(np.eye(12)):
        np.testing.assert_allclose(
            H[i], (gradient(at + 1e-5 * unit) - gradient(at - 1e-5 * unit)) / 2e-5, atol=1e-6
        )


@pytest.mark.parametrize("tree", ["kmeans", "huffman", "balanced"])
@pytest.mark.parametrize("as_sparse", [False, True])
def test_integer_weights_are_repetitions(tree, as_sparse):
    X, y = load_digits(return_X_y=True)
    X, y = X[:600] / 16, y[:600]
    weights = np.random.default_rng(0).integers(0, 4, len(y))
    convert = sparse.csr_array if as_sparse else np.asarray
    clf = HierarchicalSoftmaxClassifier(tree, arity=3, random_state=0)
    weighted = clf.fit(convert(X), y, sample_weight=weights).predict_proba(convert(X))
    repeated = clf.fit(convert(np.repeat(X, weights, axis=0)), np.repeat(y, weights)).predict_proba(
        convert(X)
    )
    np.testing.assert_allclose(weighted, repeated, rtol=1e-6, atol=1e-7)


def test_class_weights_multiply_sample_weights():
    X, y = load_digits(n_class=4, return_X_y=True)
    X = X / 16
    by_class = HierarchicalSoftmaxClassifier(class_weight={1: 3.0}, random_state=0).fit(X, y)
    by_row = HierarchicalSoftmaxClassifier(random_state=0).fit(X, y, sample_weight=np.where(y == 1, 3.0, 1.0))
    np.testing.assert_allclose(by_class.predict_proba(X), by_row.predict_proba(X), rtol=1e-6)
    balanced = HierarchicalSoftmaxClassifier(class_weight="balanced", random_state=0).fit(X, y)
    weights = (len(y) / (4 * np.bincount(y)))[y]
    expected = HierarchicalSoftmaxClassifier(random_state=0).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(balanced.predict_proba(X), expected.predict_proba(X), rtol=1e-6)


def test_a_class_without_weight_has_probability_zero():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    for tree in ("kmeans", "huffman", "balanced"):
        clf = HierarchicalSoftmaxClassifier(tree, arity=3, random_state=0, C=1e-6)
        clf.fit(X, y, sample_weight=np.isin(y, [1, 2, 4, 9]).astype(float))
        proba = clf.predict_proba(X)
        assert (proba[:, [0, 3, 5, 6, 7, 8]] == 0).all()
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-12)
        assert np.isin(clf.predict(X), [1, 2, 4, 9]).all()


def test_one_warning_says_how_many_nodes_are_unfinished(monkeypatch):
    monkeypatch.setattr("sk_hsm.solvers.NEWTON_BUDGET", 0)
    X, y = load_digits(return_X_y=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf = HierarchicalSoftmaxClassifier(arity=2, max_iter=1, tol=1e-6)
        clf.fit(X, y)
        clf.partial_fit(X, y)
        HierarchicalSoftmaxClassifier(arity=2, max_iter=1, tol=1e-6).partial_fit(X, y, classes=range(10))
    assert [w.category for w in caught] == [ConvergenceWarning] * 3
    assert all("9 of 9 nodes" in str(warning.message) for warning in caught)
    assert all(warning.filename == __file__ for warning in caught)  # where the user called


def test_small_nodes_that_ascent_leaves_unfinished_are_finished_by_newton(monkeypatch):
    X, y = load_digits(return_X_y=True)
    X = X / 16
    params = dict(arity=2, C=100.0, prior=None, tree="balanced")
    exact = HierarchicalSoftmaxClassifier(**params).fit(X, y)
    unknowns, visits = 2 * (X.shape[1] + 1), exact.tree_.depths()[y].sum()
    # one less than all nodes take: the root, which has the most rows, is left
    monkeypatch.setattr("sk_hsm.solvers.NEWTON_BUDGET", visits * unknowns**2 + 9 * unknowns**3 - 1)
    with pytest.warns(ConvergenceWarning, match=r"1 of 9 nodes"):
        clf = HierarchicalSoftmaxClassifier(**params, max_iter=1, tol=1e-6).fit(X, y)
    for node in range(1, 9):
        expected = coefficients(exact, node, 2, 64)
        np.testing.assert_allclose(coefficients(clf, node, 2, 64), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(coefficients(clf, 0, 2, 64) - coefficients(exact, 0, 2, 64)).max() > 0.1


def test_the_gap_bounds_what_is_left_to_gain(monkeypatch):
    """tol is honest: the mean regularised loss is within tol of the optimum's."""
    monkeypatch.setattr("sk_hsm.solvers.NEWTON_BUDGET", 0)
    X, y = load_digits(return_X_y=True)
    X = X / 16
    A = np.column_stack([X, np.ones(len(X))])
    lr, _ = flat(X, y, 5.0)
    costs = np.full(len(y), 5.0)
    best = _objective(lr.coef_.T, log_softmax(A @ lr.coef_.T, axis=1), y, costs)
    for tol in (0.3, 0.1, 0.03, 0.01, 0.003):
        clf = HierarchicalSoftmaxClassifier(C=5.0, prior=None, tol=tol, random_state=0).fit(X, y)
        theta = coefficients(clf, 0, 10, 64).T
        value = _objective(theta, log_softmax(A @ theta, axis=1), y, costs)
        assert value - best <= tol * costs.sum()
