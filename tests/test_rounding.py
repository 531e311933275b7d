"""Models whose weights are small integers."""

import pickle

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits

from sk_hsm import HierarchicalSoftmaxClassifier
from sk_hsm.node_weights import NodeWeights
from sk_hsm.packed_weights import PackedWeights


def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def many_classes(n_classes=120, n_features=60):
    """More children than a line has, features that are seldom, and some large weights."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(n_classes), 4)
    X = rng.random((n_classes, n_features))[y] * (rng.random((len(y), n_features)) < 0.3)
    X[:, 7] *= 1e-3
    return X, y


def rounded_floats(clf):
    """The same estimator, its rounded weights each a float."""
    other = pickle.loads(pickle.dumps(clf))
    other.node_weights_ = clf.node_weights_.unpacked(clf.tree_, clf.n_features_in_)
    return other


@pytest.mark.parametrize("rounding", [1e-5, 0.01, 0.3, 3.0])
@pytest.mark.parametrize("arity", [2, 3, 16, 17, 40, 200])
def test_predictions_are_those_of_the_rounded_weights(arity, rounding):
    X, y = many_classes()
    clf = HierarchicalSoftmaxClassifier(
        arity=arity, C=100.0, prior=None, rounding=rounding, random_state=0
    ).fit(X, y)
    floats = rounded_floats(clf)
    assert isinstance(clf.node_weights_, PackedWeights) and isinstance(floats.node_weights_, NodeWeights)
    proba = clf.predict_proba(X)
    np.testing.assert_allclose(proba, floats.predict_proba(X), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[proba.argmax(axis=1)])
    np.testing.assert_allclose(np.exp(clf.log_proba_of(X, y)), proba[np.arange(len(y)), y], rtol=1e-9)


def test_weights_are_the_nearest_multiples_of_the_step():
    """Or those of all children less by one multiple, which no softmax tells from them."""
    X, y = digits()
    exact = HierarchicalSoftmaxClassifier(arity=4, C=1.0, prior=None, random_state=0).fit(X, y)
    clf = HierarchicalSoftmaxClassifier(arity=4, C=1.0, prior=None, rounding=0.2, random_state=0).fit(X, y)
    step = 0.2 / np.sqrt(np.mean(np.sum(X**2, axis=1)))
    assert clf.node_weights_.step == pytest.approx(step, rel=1e-6)
    for v, arity in enumerate(np.diff(exact.tree_.child_ptr)):
        features, W, bias = exact.node_weights_.node(v, arity)
        kept, rounded, same_bias = clf.node_weights_.node(v, arity)
        np.testing.assert_array_equal(same_bias, bias)
        dense, close = np.zeros((64, arity)), np.zeros((64, arity))
        dense[features], close[kept] = W, rounded
        large = np.abs(dense).max(axis=1) >= 2 * step
        assert set(kept) == set(np.flatnonzero(large))
        less = (dense - close)[large] / step
        less -= np.rint(less.mean(axis=1, keepdims=True))
        assert np.abs(less).max() <= 1 / 2 * (1 + 1e-5)


def test_a_finer_step_comes_nearer():
    X, y = digits()
    proba = HierarchicalSoftmaxClassifier(arity=4, random_state=0).fit(X, y).predict_proba(X)
    errors, sizes = [], []
    for rounding in (1.0, 0.3, 0.1, 0.01, 1e-4):
        clf = HierarchicalSoftmaxClassifier(arity=4, rounding=rounding, random_state=0).fit(X, y)
        errors.append(np.abs(clf.predict_proba(X) - proba).max())
        sizes.append(clf.node_weights_.nbytes)
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-4
    assert sizes == sorted(sizes)


def test_logits_beyond_float32():
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=4, rounding=0.3, random_state=0).fit(X, y)
    huge = X * np.float32(2.0**120)
    np.testing.assert_allclose(clf.predict_proba(huge), rounded_floats(clf).predict_proba(huge), atol=1e-6)
    assert np.isfinite(clf.predict_proba(huge)).all()


@pytest.mark.parametrize("mmap_mode", [None, "r"])
@pytest.mark.parametrize("n_trees", [1, 2])
def test_it_is_saved_and_loaded(n_trees, mmap_mode, tmp_path):
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=4, n_trees=n_trees, rounding=0.3, random_state=0).fit(X, y)
    joblib.dump(clf, tmp_path / "model")
    loaded = joblib.load(tmp_path / "model", mmap_mode=mmap_mode)
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(loaded.predict_top_k(X, 3)[0], clf.predict_top_k(X, 3)[0])


@pytest.mark.parametrize(
    "name", ["entries", "entry_ptr", "buckets", "bucket_ptr", "lines", "shifts", "scale", "n_entries"]
)
def test_a_damaged_model_is_not_loaded(name):
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=4, rounding=0.3, random_state=0).fit(X, y)
    state = clf.__getstate__()
    state["node_weights_"] |= {name: state["node_weights_"][name][:-1]}
    with pytest.raises(ValueError, match="this model is damaged"):
        HierarchicalSoftmaxClassifier().__setstate__(state)


def test_partial_fit_goes_on_from_the_rounded_weights_and_does_not_round():
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=4, C=1.0, prior=None, rounding=0.3, random_state=0)
    clf.fit(X[:900], y[:900])
    floats = rounded_floats(clf)
    for batch in (slice(900, 901), slice(901, 1797)):
        clf.partial_fit(X[batch], y[batch])
        floats.partial_fit(X[batch], y[batch])
    assert isinstance(clf.node_weights_, NodeWeights)
    np.testing.assert_array_equal(clf.predict_proba(X), floats.predict_proba(X))
    clf.partial_fit(np.zeros((1, 64)), y[:1])
    assert clf.score(X, y) > 0.95


def test_a_first_partial_fit_does_not_round():
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=4, rounding=0.3, random_state=0)
    exact = HierarchicalSoftmaxClassifier(arity=4, random_state=0).fit(X, y)
    np.testing.assert_array_equal(
        clf.partial_fit(X, y, classes=range(10)).predict_proba(X), exact.predict_proba(X)
    )


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_it_does_not_depend_on_the_unit_of_the_features(factor):
    X, y = digits()
    settings = dict(arity=4, prior=None, fit_intercept=False, tol=1e-6, random_state=0)
    clf = HierarchicalSoftmaxClassifier(C=1.0, rounding=0.3, **settings).fit(X, y)
    scaled = HierarchicalSoftmaxClassifier(C=1.0 / factor**2, rounding=0.3, **settings).fit(X * factor, y)
    assert abs(clf.score(X, y) - scaled.score(X * factor, y)) < 0.01


def test_a_step_beyond_float32_is_an_error():
    X, y = digits()
    for rounding in (1e-50, 1e-38, 1e38):
        with pytest.raises(ValueError, match="rounding=.* must be between"):
            HierarchicalSoftmaxClassifier(rounding=rounding).fit(X, y)


def test_weights_that_are_tiny():
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=4, C=1.0, prior=None, rounding=0.3, random_state=0)
    assert np.isfinite(clf.fit(X, y, sample_weight=np.full(len(y), 1e-50)).predict_proba(X)).all()


def test_rows_without_length():
    clf = HierarchicalSoftmaxClassifier(rounding=0.3).fit(np.zeros((4, 3)), [0, 1, 1, 1])
    np.testing.assert_allclose(clf.predict_proba(np.zeros((1, 3))).sum(), 1)


@pytest.mark.parametrize("rounding", [0, -1.0, np.nan, "auto"])
def test_what_is_no_rounding(rounding):
    with pytest.raises(ValueError, match="'rounding' parameter"):
        HierarchicalSoftmaxClassifier(rounding=rounding).fit([[1.0], [2.0]], [0, 1])
