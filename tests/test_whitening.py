"""Rows that are made round before nodes are trained, and weights that are those of rows as they were."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits

from sk_hsm import HierarchicalSoftmaxClassifier
from sk_hsm.row_keys import row_keys
from sk_hsm.validation import float_csr
from sk_hsm.whitening import LEAST_SHARE, learn_whitening, to_raw, to_white, whitened


def few_rows_a_class(n_classes=150, n_rows=4, n_features=24, quiet=0.1, seed=0):
    """Points that differ a little in all directions; rows of a class differ much in half of these."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
    noise = np.where(np.arange(n_features) < n_features // 2, 3.0, quiet)
    points = rng.normal(size=(n_classes, n_features))

    def draw(n):
        y = np.tile(np.arange(n_classes), n)
        return (points[y] + noise * rng.normal(size=(len(y), n_features))) @ turn + 5, y

    return *draw(n_rows), *draw(5)


def covariance_by_hand(X, y, weights):
    """Of features within classes, and their variances over all rows; from the formula."""
    within, mean = np.zeros((X.shape[1],) * 2), np.average(X, axis=0, weights=weights)
    for label in np.unique(y):
        rows, w = X[y == label], weights[y == label]
        centred = rows - np.average(rows, axis=0, weights=w)
        within += (w[:, None] * centred).T @ centred
    return within / weights.sum(), np.average((X - mean) ** 2, axis=0, weights=weights)


def whitening_of(X, y, weights=None, center=True):
    weights = np.ones(len(y)) if weights is None else weights
    X, y = float_csr(X), y.astype(np.int32)
    return learn_whitening(X, y, weights, row_keys(X, y), center)


def test_of_very_many_rows_those_of_some_classes_are_looked_at(monkeypatch):
    X, y, *_ = few_rows_a_class()
    y, some = 3 * y + 1, y % 3 == 0  # classes without a row do not count
    weights = np.random.default_rng(1).uniform(0.1, 3, len(y))
    expected = whitening_of(X[some], y[some], weights[some])
    monkeypatch.setattr("sk_hsm.whitening.ENOUGH", len(y) // 3 + 1)
    np.testing.assert_allclose(whitening_of(X, y, weights), expected, rtol=1e-12)
    # but not those of fewer classes than there are features
    few = y % 40
    monkeypatch.undo()
    expected = whitening_of(X, few, weights)
    monkeypatch.setattr("sk_hsm.whitening.ENOUGH", len(y) // 3 + 1)
    np.testing.assert_array_equal(whitening_of(X, few, weights), expected)


@pytest.mark.parametrize("center", [True, False])
def test_it_is_the_inverse_root_of_the_formula(center, monkeypatch):
    monkeypatch.setattr("sk_hsm.whitening.BLOCK", 24 * 50)  # several blocks
    X, y, *_ = few_rows_a_class()
    X, weights = X.astype(np.float32).astype(np.float64), np.random.default_rng(1).uniform(0.1, 3, len(y))
    A = whitening_of(X, y, weights, center)
    within, total = covariance_by_hand(X, y, weights)
    scale = np.sqrt(np.diag(within) + LEAST_SHARE * total)
    share = X.shape[1] / (len(y) - 150)  # of rows beyond one a class
    shrunk = (1 - share) * within / np.outer(scale, scale)
    np.fill_diagonal(shrunk, 1)
    np.testing.assert_allclose(
        np.linalg.inv(A[:-1] @ A[:-1].T), shrunk * np.outer(scale, scale), rtol=1e-7, atol=1e-9
    )
    np.testing.assert_allclose(A[-1], -center * np.average(X, axis=0, weights=weights) @ A[:-1], atol=1e-9)


def test_rows_of_a_class_then_differ_alike_in_all_directions():
    X, y, *_ = few_rows_a_class(n_rows=100, quiet=1.0)
    white = whitened(float_csr(X), whitening_of(X, y)).toarray()
    within, _ = covariance_by_hand(white.astype(np.float64), y, np.ones(len(y)))
    np.testing.assert_allclose(within, np.eye(len(within)), atol=0.05)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-5)


def test_weights_are_repetitions():
    X, y, *_ = few_rows_a_class()
    times = np.random.default_rng(0).integers(1, 4, len(y))
    one, other = (
        whitening_of(X, y, times.astype(float)),
        whitening_of(np.repeat(X, times, 0), np.repeat(y, times)),
    )
    np.testing.assert_allclose(one @ one.T, other @ other.T, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "params", [{"arity": 3}, {"tree": "huffman", "arity": 2}, {"n_trees": 2, "arity": 20}]
)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_nodes_are_those_of_white_rows(params, fit_intercept):
    X, y, X_test, _ = few_rows_a_class()
    if not fit_intercept:
        X, X_test = X - 5, X_test - 5
    params = params | {
        "C": 0.01,
        "prior": "centroid",
        "fit_intercept": fit_intercept,
        "tol": 1e-4,
        "random_state": 0,
    }
    ours = HierarchicalSoftmaxClassifier(whiten=True, **params).fit(X, y)
    white, white_test = (whitened(float_csr(rows), ours.whitening_) for rows in (X, X_test))
    right = HierarchicalSoftmaxClassifier(whiten=False, **params).fit(white, y)
    np.testing.assert_allclose(
        ours.predict_proba(X_test), right.predict_proba(white_test), rtol=1e-3, atol=1e-6
    )
    assert not hasattr(right, "whitening_")
    # and as they go on
    new = np.random.default_rng(0).permutation(len(y))[:200]
    ours.partial_fit(X[new] + 0.1, y[new])
    right.partial_fit(whitened(float_csr(X[new] + 0.1), ours.whitening_), y[new])
    np.testing.assert_allclose(
        ours.predict_proba(X_test), right.predict_proba(white_test), rtol=1e-2, atol=5e-3
    )


def test_there_and_back():
    X, y, *_ = few_rows_a_class()
    clf = HierarchicalSoftmaxClassifier(arity=5, C=1.0, prior=None, whiten=True, random_state=0).fit(X, y)
    arities = np.diff(clf.tree_.child_ptr)
    again = to_raw(to_white(clf.node_weights_, clf.tree_, clf.whitening_), clf.tree_, clf.whitening_)
    for v, arity in enumerate(arities):
        for one, other in zip(clf.node_weights_.node(v, arity), again.node(v, arity), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_few_noisy_rows_a_class_are_told_apart_much_better():
    X, y, X_test, y_test = few_rows_a_class()
    plain = HierarchicalSoftmaxClassifier(whiten=False, random_state=0).fit(X, y)
    ours = HierarchicalSoftmaxClassifier(random_state=0).fit(X, y)
    assert hasattr(ours, "whitening_")
    assert ours.score(X_test, y_test) > 0.9 > 0.6 > plain.score(X_test, y_test)
    same = HierarchicalSoftmaxClassifier(random_state=0).fit(sparse.csr_array(X), y)
    np.testing.assert_array_equal(same.predict_proba(X_test), ours.predict_proba(X_test))
    loaded = pickle.loads(pickle.dumps(ours)).partial_fit(X, y)
    np.testing.assert_array_equal(loaded.predict_proba(X_test), ours.partial_fit(X, y).predict_proba(X_test))
    with pytest.raises(ValueError, match=r"damaged: its whitening has the shape \(24, 24\), not \(25, 24\)"):
        HierarchicalSoftmaxClassifier().__setstate__(
            ours.__getstate__() | {"whitening_": ours.whitening_[:-1]}
        )


FITS_AT_ONCE = """
import time
from concurrent.futures import ThreadPoolExecutor
from sk_hsm.blas import one_blas_thread
from sklearn.utils.parallel import _get_threadpool_controller

def n_threads():
    return {each["num_threads"] for each in _get_threadpool_controller().info() if each["user_api"] == "blas"}

def limit(_):
    with one_blas_thread():
        assert n_threads() == {1}
        time.sleep(0.001)

assert n_threads() == {2}
with ThreadPoolExecutor(8) as pool:
    list(pool.map(limit, range(100)))
assert n_threads() == {2}
"""


def test_fits_at_once_leave_blas_its_threads(tmp_path):
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
    command = [sys.executable, "-c", FITS_AT_ONCE]
    subprocess.run(command, cwd=tmp_path, env=os.environ | threads, check=True, timeout=60)


def test_it_is_left_alone_where_it_is_not_worth_it():
    X, y, *_ = few_rows_a_class()
    digits = load_digits(return_X_y=True)
    holes = X * (np.random.default_rng(0).random(X.shape) < 0.4)
    few = X[:160], y[:160]  # more classes than rows
    for rows, params in (
        ((X, y), {"C": 1.0}),
        ((X, y), {"whiten": False}),
        (digits, {"arity": 4}),  # few classes
        ((np.tile(X, (1, 7)), y), {}),  # more features than classes
        (few_rows_a_class(quiet=3.0)[:2], {}),  # alike in all directions
        ((holes, y), {}),
        (few, {}),
    ):
        clf = HierarchicalSoftmaxClassifier(random_state=0, **params).fit(*rows)
        assert not hasattr(clf, "whitening_")
    X = np.abs(X)
    assert not hasattr(HierarchicalSoftmaxClassifier(prior="naive_bayes").fit(X, y), "whitening_")
    with pytest.raises(ValueError, match="whiten=True makes features negative, and prior='naive_bayes'"):
        HierarchicalSoftmaxClassifier(prior="naive_bayes", whiten=True).fit(X, y)
    with pytest.raises(MemoryError, match="whitening 2 rows of 3000000 features needs .* use whiten=False$"):
        HierarchicalSoftmaxClassifier(whiten=True).fit(sparse.csr_array((2, 3_000_000)), [0, 1])


@pytest.mark.parametrize("n_rows", [1, 2])
def test_nothing_to_learn_from(n_rows):
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(30), n_rows)
    X = rng.normal(size=(30, 4))[y] * [1, 1e6, 1e-6, 0]  # rows of a class are the same, a feature is nil
    for params in ({}, {"C": 1.0}, {"fit_intercept": False}):
        clf = HierarchicalSoftmaxClassifier(whiten=True, arity=4, random_state=0, **params).fit(X, y)
        proba = clf.predict_proba(X)
        assert np.isfinite(clf.whitening_).all()
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    one = HierarchicalSoftmaxClassifier(whiten=True).fit(X, np.zeros(len(y)))
    np.testing.assert_array_equal(one.predict_proba(X), 1)
    nil = HierarchicalSoftmaxClassifier(whiten=True, random_state=0).fit(0 * X, y)
    np.testing.assert_allclose(nil.predict_proba(X).sum(axis=1), 1, rtol=1e-12)


def test_rounding_is_by_the_length_of_rows_as_they_were():
    X, y, X_test, _ = few_rows_a_class()
    exact = HierarchicalSoftmaxClassifier(random_state=0).fit(X, y)
    clf = HierarchicalSoftmaxClassifier(random_state=0, rounding=1e-3).fit(X, y)
    assert clf.node_weights_.step == pytest.approx(1e-3 / np.sqrt(np.mean(np.sum(X**2, axis=1))), rel=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X_test), exact.predict_proba(X_test), atol=0.02)


def test_the_order_of_rows_chooses_nothing():
    """Of nearly equal columns the last bits of white rows hang on the order in which they were added up."""
    rng = np.random.default_rng(208)
    d, n_classes, n_each = int(rng.choice([10, 20, 40, 64])), rng.integers(65, 256), rng.integers(2, 8)
    y = np.tile(np.arange(n_classes), n_each)
    spread = np.repeat([0.1, 3], d // 2)
    X = rng.normal(size=(n_classes, d))[y] + 0.5 * spread * rng.normal(size=(len(y), d))
    X[:, 1] = X[:, 0] + 1e-3 * X[:, 1]
    fits = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(y))
        fits.append(HierarchicalSoftmaxClassifier(whiten=True, random_state=0).fit(X[order], y[order]))
    for other in fits[1:]:
        np.testing.assert_array_equal(other.C_, fits[0].C_)
        np.testing.assert_array_equal(other.prior_scale_, fits[0].prior_scale_)
        np.testing.assert_allclose(other.predict_proba(X), fits[0].predict_proba(X), atol=0.05)
