"""Training that goes on with further batches of rows."""

import gc
import tracemalloc

import joblib
import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.utils._param_validation import InvalidParameterError

from sk_hsm import HierarchicalSoftmaxClassifier, LabelTree


def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def batches(X, y, n):
    for rows in np.array_split(np.random.default_rng(0).permutation(len(y)), n):
        yield X[rows], y[rows]


def weights_of(clf, n_classes):
    """Of the only node, and last of its intercept: (n_features + fit_intercept, n_classes)."""
    features, W, b = clf.node_weights_.node(0, n_classes)
    theta = np.zeros((clf.n_features_in_ + 1, n_classes))
    theta[features], theta[-1] = W, b
    return theta if clf.fit_intercept else theta[:-1]


@pytest.mark.parametrize("n_trees", [1, 2])
def test_the_first_call_is_fit(n_trees):
    X, y = digits()
    fitted = HierarchicalSoftmaxClassifier(arity=3, n_trees=n_trees, random_state=0).fit(X, y)
    first = HierarchicalSoftmaxClassifier(arity=3, n_trees=n_trees, random_state=0)
    first.partial_fit(X, y, classes=list(range(9, -1, -1)) * 2)
    np.testing.assert_array_equal(first.classes_, fitted.classes_)
    np.testing.assert_array_equal(first.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 10])
def test_a_later_call_pulls_towards_the_weights_that_there_are(n_classes, fit_intercept):
    """One node minimises ||W - W_before||^2 / 2 + C sum of weight * log-loss; two children share it.

    What it reaches is above the minimum by no more than tol for each unit of weight.
    """
    X, y = digits()
    X, y = X[y < n_classes].astype(np.float32), y[y < n_classes]
    X[:100, :20] = 0  # features that are new in the second batch
    weights = np.random.default_rng(0).integers(1, 4, len(y)).astype(float)
    clf = HierarchicalSoftmaxClassifier(
        arity=10, C=0.5, prior=None, fit_intercept=fit_intercept, tol=1e-5, random_state=0
    ).fit(X[:100], y[:100])
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X.astype(float)
    before = weights_of(clf, n_classes)
    A, child, costs = A[100:], y[100:], 0.5 * weights[100:] / (2 if n_classes == 2 else 1)

    def objective(flat):
        theta = flat.reshape(before.shape)
        log_p = log_softmax(A @ theta, axis=1)
        errors = np.exp(log_p) - np.eye(n_classes)[child]
        value = np.sum((theta - before) ** 2) / 2 - costs @ log_p[np.arange(len(A)), child]
        return value, (theta - before + A.T @ (costs[:, None] * errors)).ravel()

    best = minimize(
        objective, before.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15}
    )
    clf.partial_fit(X[100:], y[100:], sample_weight=weights[100:])
    assert best.fun < objective(before)[0] / 2
    assert objective(weights_of(clf, n_classes))[0] <= best.fun + 1e-5 * costs.sum()


def test_batches_come_near_to_fit():
    X, y = digits()
    X_test, y_test, X, y = X[:500], y[:500], X[500:], y[500:]
    fitted = HierarchicalSoftmaxClassifier(arity=4, rescore=False, random_state=0).fit(X, y)
    clf = HierarchicalSoftmaxClassifier(fitted.tree_, C=0.3, random_state=0)
    for X_batch, y_batch in batches(X, y, 10):
        clf.partial_fit(X_batch, y_batch, classes=range(10))
    assert clf.score(X_test, y_test) > fitted.score(X_test, y_test) - 0.02
    loss, fitted_loss = (-model.log_proba_of(X_test, y_test).mean() for model in (clf, fitted))
    assert loss < 1.2 * fitted_loss


@pytest.mark.parametrize("tree", ["kmeans", "huffman", "balanced"])
def test_a_class_has_no_probability_until_it_has_a_row(tree):
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(tree, arity=2, C=1.0, random_state=0)
    few = np.isin(y, [2, 5])
    clf.partial_fit(X[few], y[few], classes=range(10))
    proba = clf.predict_proba(X)
    assert (proba[:, [2, 5]] > 0).all() and not proba[:, [0, 1, 3, 4, 6, 7, 8, 9]].any()
    clf.partial_fit(X[y == 7][:1], [7])
    proba = clf.predict_proba(X)
    assert (proba[:, [2, 5, 7]] > 0).all() and not proba[:, [0, 1, 3, 4, 6, 8, 9]].any()
    clf.partial_fit(X[y != 7], y[y != 7])
    proba = clf.predict_proba(X)
    assert (proba > 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    assert (proba.argmax(axis=1) == clf.predict(X)).all()
    at_once = HierarchicalSoftmaxClassifier(clf.tree_, C=1.0, random_state=0).fit(X, y)
    assert clf.score(X[y != 7], y[y != 7]) > at_once.score(X[y != 7], y[y != 7]) - 0.1


@pytest.mark.parametrize("as_sparse", [True, False])
def test_it_does_not_depend_on_n_jobs_or_format(as_sparse):
    X, y = digits()
    proba = []
    for n_jobs in (1, 2):
        clf = HierarchicalSoftmaxClassifier(arity=3, n_jobs=n_jobs, n_trees=2, random_state=0)
        for X_batch, y_batch in batches(X, y, 4):
            X_batch = sparse.csr_array(X_batch) if as_sparse and n_jobs == 2 else X_batch
            clf.partial_fit(X_batch, y_batch, classes=range(10))
        proba.append(clf.predict_proba(X))
    np.testing.assert_array_equal(*proba)


def test_fit_begins_anew_and_partial_fit_goes_on_after_fit():
    X, y = digits()
    names = np.array(["zero", "one", "two"])
    clf = HierarchicalSoftmaxClassifier(arity=2, random_state=0)
    clf.partial_fit(X, y, classes=range(12))
    clf.fit(X[y < 3], names[y[y < 3]])
    anew = HierarchicalSoftmaxClassifier(arity=2, random_state=0).fit(X[y < 3], names[y[y < 3]])
    np.testing.assert_array_equal(clf.predict_proba(X), anew.predict_proba(X))
    tree = clf.tree_
    clf.partial_fit(X[y == 2], names[y[y == 2]])
    assert clf.tree_ is tree and clf.classes_.tolist() == ["one", "two", "zero"]
    assert (
        clf.log_proba_of(X[y == 2], names[y[y == 2]]).mean()
        > anew.log_proba_of(X[y == 2], names[y[y == 2]]).mean()
    )


def test_a_users_tree_keeps_leaves_without_rows():
    tree = LabelTree.from_nested([["a", "b"], ["c", "d"]])
    clf = HierarchicalSoftmaxClassifier(tree, C=10.0, prior=None, random_state=0)
    clf.partial_fit(np.eye(4)[:2], ["a", "c"], classes=["a", "b", "c", "d"])
    clf.partial_fit(np.eye(4), ["a", "c", "b", "d"])
    assert clf.predict(np.eye(4)).tolist() == ["a", "c", "b", "d"]


WRONG = {
    "a label of no class": ((np.ones((1, 64)), [10]), "y has the label 10, which is none of the 10 classes"),
    "other classes": ((np.ones((1, 64)), [3], range(11)), "classes must be the 10 .* got 11 others"),
    "other features": ((np.ones((1, 63)), [3]), "63 features"),
    "no rows": ((np.ones((0, 64)), []), "0 sample"),
    "lengths": ((np.ones((2, 64)), [3]), "X has 2 rows and y 1 labels"),
    "NaN": ((np.full((1, 64), np.nan), [3]), "NaN"),
    "weights": ((np.ones((1, 64)), [3], None, [-1]), "Negative values"),
    "no weight": ((np.ones((1, 64)), [3], None, [0]), "zero"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_leaves_the_estimator_as_it_was(name):
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=3, random_state=0).partial_fit(X, y, classes=range(10))
    before, proba = dict(vars(clf)), clf.predict_proba(X)
    arguments, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        clf.partial_fit(*arguments)
    assert vars(clf) == before
    np.testing.assert_array_equal(clf.predict_proba(X), proba)


def test_the_first_call_needs_classes():
    clf = HierarchicalSoftmaxClassifier()
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        clf.partial_fit([[1.0]], ["a"])
    with pytest.raises(ValueError, match="y has the label 'b', which is none of the 1 classes"):
        clf.partial_fit([[1.0]], ["b"], classes=["a"])
    assert not hasattr(clf, "classes_") and not hasattr(clf, "n_features_in_")


def test_balanced_classes_need_all_rows():
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(class_weight="balanced")
    with pytest.raises(ValueError, match="class_weight='balanced' is not supported for partial_fit"):
        clf.partial_fit(X, y, classes=range(10))


@pytest.mark.parametrize("prior", ["auto", "naive_bayes"])
def test_features_that_are_negative_only_later(prior):
    """A node that is new then has no guess of naive Bayes, which has none for them."""
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=2, C=1.0, prior=prior, random_state=0)
    clf.partial_fit(X[y < 4], y[y < 4], classes=range(10)).partial_fit(X - 0.5, y)
    assert clf.score(X - 0.5, y) > 0.85


@pytest.mark.parametrize(
    "wrong", [dict(rounding=-1.0), dict(tol=-1), dict(max_iter=0), dict(C="many"), dict(class_weight=[1])]
)
def test_parameters_are_checked_at_each_call(wrong):
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=3, random_state=0).partial_fit(X, y, classes=range(10))
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        clf.set_params(**wrong).partial_fit(X, y)


def test_weights_too_large_for_the_C_of_the_first_call():
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=3, C=10.0, random_state=0).partial_fit(X, y, classes=range(10))
    clf.set_params(C=1e38).partial_fit(X, y, sample_weight=np.full(len(y), 10.0))  # C_ is 10
    with pytest.raises(ValueError, match="C times sample_weight times class_weight must be at most"):
        clf.partial_fit(X, y, sample_weight=np.full(len(y), 3e38))


@pytest.mark.parametrize("classes", [[], None, "abc", [1, None], [[1], [2, 3]], [0.5, np.nan]])
def test_what_are_no_classes(classes):
    with pytest.raises(ValueError, match="^classes must be"):
        HierarchicalSoftmaxClassifier().partial_fit([[1.0]], [1], classes=classes)


def test_a_model_that_is_only_mapped_into_memory_goes_on_as_a_copy(tmp_path):
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=3, random_state=0).fit(X, y)
    joblib.dump(clf, tmp_path / "model")
    saved = (tmp_path / "model").read_bytes()
    mapped = joblib.load(tmp_path / "model", mmap_mode="r").partial_fit(X[:50], y[:50])
    np.testing.assert_array_equal(mapped.predict_proba(X), clf.partial_fit(X[:50], y[:50]).predict_proba(X))
    assert (tmp_path / "model").read_bytes() == saved


def test_a_damaged_model_is_not_trained():
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=3, random_state=0).fit(X, y)
    clf.node_weights_.features[0] = 123456789
    with pytest.raises(ValueError, match="this model is damaged"):
        clf.partial_fit(X, y)


def test_a_damaged_rounded_model_is_not_trained():
    X, y = digits()
    X = X[:, 16:56]  # 40 features, whose names have bits for 64: most random entries of a node name another
    clf = HierarchicalSoftmaxClassifier(arity=3, rounding=0.3, random_state=0).fit(X, y)
    clf.node_weights_.entries[:-64] = np.random.default_rng(0).integers(
        256, size=len(clf.node_weights_.entries) - 64
    )
    with pytest.raises(ValueError, match="this model is damaged"):
        clf.partial_fit(X, y)


def test_a_node_that_is_open_only_now_has_what_its_children_have_had():
    tree = LabelTree.from_nested([[["a", "b"], ["c", "d"]], ["e", "f"]])
    rng = np.random.default_rng(0)
    X = rng.random((40, 12)) * (rng.random((40, 12)) < 0.7)
    X[20:, :6] = 0  # later rows do not have what the first have
    y = np.array(list("ab") * 10 + list("cdef") * 5)
    for rounding in (None, 1e-6):
        clf = HierarchicalSoftmaxClassifier(tree=tree, C=1.0, prior=None, rounding=rounding)
        clf.partial_fit(X[:20], y[:20], classes=list("abcdef"))
        before = clf.predict_proba(X)[:, :2]
        np.testing.assert_allclose(before.sum(axis=1), 1)
        clf.partial_fit(X[20:], y[20:])
        after = clf.predict_proba(X)
        np.testing.assert_allclose(after.sum(axis=1), 1)
        # nothing is new for the node of a and b
        share = before / before.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(after[:, :2] / after[:, :2].sum(axis=1, keepdims=True), share, rtol=1e-4)


def test_a_thousand_calls_take_no_more_memory_than_ten():
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=4, C=1.0, prior=None, random_state=0)
    clf.partial_fit(X[:500], y[:500], classes=range(10))

    def go_on(n):
        for i in range(n):
            clf.partial_fit(X[500 + i % 1000 :][:1], y[500 + i % 1000 :][:1])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        few = go_on(10)
        assert go_on(1000) < few + 100_000
    finally:
        tracemalloc.stop()
    assert clf.score(X, y) > 0.85
