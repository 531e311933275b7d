"""The flat softmax by sampled negatives: what holds for every model, faults, real data."""

import pickle
import sys
import tracemalloc

import joblib
import numpy as np
import pytest
from scipy import sparse
from scipy.special import log_softmax, softmax
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, normalize

import sk_hsm.flat_softmax
import sk_hsm.inference
from sk_hsm import SampledSoftmaxClassifier
from sk_hsm._kernels.reference.sampling import class_probabilities
from sk_hsm.metrics import log_loss, top_k_accuracy
from sk_hsm.multi_index import MultiIndex
from sk_hsm.neighbours import LIBRARIES, NeighbourIndex

SAMPLERS = ["midx", "midx-rq", "unigram", "uniform", None]
QUICK = {"dim": 8, "n_negatives": 10, "n_codewords": 4, "n_epochs": 20, "random_state": 0}


def rows_of_classes(n=400, n_classes=24, n_features=60, share=0.7, size=6, seed=0):
    """Rows of a few features, of which a share are those of the label."""
    rng = np.random.default_rng(seed)
    y = np.minimum(rng.geometric(0.15, n) - 1, n_classes - 1)
    own, any_one = rng.integers(0, n_features, (n_classes, size)), rng.integers(0, n_features, (n, size))
    columns = np.where(rng.random((n, size)) < share, own[y], any_one)
    indptr = size * np.arange(n + 1)
    X = sparse.csr_array((np.ones(columns.size), columns.ravel(), indptr), shape=(n, n_features))
    X.sum_duplicates()
    return X, y


def fitted(**params):
    X, y = rows_of_classes()
    return SampledSoftmaxClassifier(**QUICK | params).fit(X, y), X, y


# -- one distribution --------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("hidden", [(), (6,), (9, 5)])
@pytest.mark.parametrize("dim", [8, None])
def test_probabilities_are_those_of_the_formula(sampler, hidden, dim):
    clf, X, y = fitted(sampler=sampler, hidden_layer_sizes=hidden, dim=dim, learning_rate=0.03)
    H = normalize(X).toarray()
    H = H if dim is None else H @ clf.embedding_
    for coef, intercept in zip(clf.coefs_, clf.intercepts_, strict=True):
        H = np.maximum(H @ coef + intercept, 0)
    np.testing.assert_allclose(clf.transform(X), H, atol=1e-5)
    expected = log_softmax(H @ clf.class_vectors_.T + clf.class_intercepts_, axis=1)
    np.testing.assert_allclose(clf.predict_log_proba(X), expected, atol=1e-4)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_every_method_gives_the_same_distribution(fit_intercept):
    clf, X, y = fitted(fit_intercept=fit_intercept)
    proba, n_classes = clf.predict_proba(X), len(clf.classes_)
    assert clf.class_intercepts_.any() == fit_intercept
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    labels, top = clf.predict_top_k(X, k=n_classes)
    np.testing.assert_array_equal(top, -np.sort(-proba, axis=1))
    np.testing.assert_array_equal(labels, clf.classes_[np.argsort(-proba, axis=1, kind="stable")])
    np.testing.assert_array_equal(clf.predict(X), labels[:, 0])
    at = np.searchsorted(clf.classes_, y)
    np.testing.assert_array_equal(np.exp(clf.log_proba_of(X, y)), proba[np.arange(len(y)), at])
    assert clf.log_proba_of(X[:1], [99])[0] == -np.inf
    np.testing.assert_allclose(clf.predict_proba_sparse(X, k=n_classes).toarray(), proba, atol=1e-15)
    few = clf.predict_proba_sparse(X, min_proba=0.1).toarray()
    np.testing.assert_array_equal(few, np.where(proba >= 0.1, proba, 0))
    drawn = clf.sample(X[:1], 20_000, random_state=0)
    share = np.bincount(np.searchsorted(clf.classes_, drawn[0]), minlength=n_classes) / 20_000
    assert np.abs(share - proba[0]).max() < 0.02


@pytest.mark.filterwarnings("error")
def test_rows_sum_to_one_as_scorers_want_it():
    X, y = load_digits(return_X_y=True)
    losses = cross_val_score(SampledSoftmaxClassifier(8, random_state=0), X, y, scoring="neg_log_loss", cv=2)
    assert losses.min() > -1


def test_one_row_has_the_bits_that_it_has_among_others():
    clf, X, _ = fitted()
    together = clf.predict_proba(X)
    for i in range(20):
        for row in (X[[i]], X[[i]].toarray()):
            np.testing.assert_array_equal(clf.predict_proba(row), together[[i]])


def test_wide_layers_are_made_for_as_many_rows_as_working_memory_holds():
    clf, X, _ = fitted(hidden_layer_sizes=(500, 5), n_epochs=1)
    expected = clf.transform(X)
    tracemalloc.start()
    with config_context(working_memory=0.1):
        found = clf.transform(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)  # BLAS may add up in another order
    assert peak < len(expected) * 500 * 4  # the wide layer of all rows


def test_threads_do_not_change_predictions():
    clf, X, _ = fitted()
    proba, top = clf.predict_proba(X), clf.predict_top_k(X, 3, n_probe=4)
    clf.set_params(n_jobs=2)
    np.testing.assert_array_equal(clf.predict_proba(X), proba)
    for one, two in zip(top, clf.predict_top_k(X, 3, n_probe=4), strict=True):
        np.testing.assert_array_equal(one, two)


# -- learning ----------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_gives_the_same_bits(sampler):
    one, X, y = fitted(sampler=sampler)
    two = clone(one).fit(X, y)
    np.testing.assert_array_equal(one.class_vectors_, two.class_vectors_)
    other = clone(one).set_params(random_state=1).fit(X, y)
    assert not np.array_equal(one.class_vectors_, other.class_vectors_)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_digits_are_learned(sampler):
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    clf = SampledSoftmaxClassifier(16, sampler, random_state=0).fit(X, y)
    assert clf.score(X_test, y_test) > 0.95
    assert clf.loss_curve_[-1] < 0.1 * clf.loss_curve_[0]


def test_without_embedding_it_is_a_logistic_regression():
    """Of rows as they are, by the full softmax, up to the penalty that the other has."""
    X, y = load_digits(return_X_y=True)
    X = normalize(X)
    clf = SampledSoftmaxClassifier(None, None, learning_rate=1, n_epochs=200, random_state=0).fit(X, y)
    regression = LogisticRegression(C=1e4, max_iter=2000).fit(X, y)
    theirs = -regression.predict_log_proba(X)[np.arange(len(y)), y].mean()
    assert log_loss(clf, X, y) == pytest.approx(theirs, abs=0.02)
    assert np.mean(clf.predict(X) == regression.predict(X)) > 0.99


def test_midx_needs_fewer_negatives():
    """Many classes, each of a few features: the others that a row could be mistaken for are few."""
    rng = np.random.default_rng(0)
    n_classes, n = 2000, 12_000
    y = np.arange(n) % n_classes
    own, any_one = rng.integers(0, 600, (n_classes, 4)), rng.integers(0, 600, (n, 4))
    columns = np.where(rng.random((n, 4)) < 0.9, own[y], any_one)
    X = sparse.csr_array((np.ones(4 * n), columns.ravel(), 4 * np.arange(n + 1)), shape=(n, 600))
    X.sum_duplicates()
    losses = {}
    for sampler in ("midx", "midx-rq", "unigram", "uniform"):
        clf = SampledSoftmaxClassifier(
            32, sampler, n_negatives=5, learning_rate=0.3, n_epochs=8, random_state=0
        )
        losses[sampler] = log_loss(clf.fit(X[2000:], y[2000:]), X[:2000], y[:2000])
    assert max(losses["midx"], losses["midx-rq"]) < 0.8 * min(losses["unigram"], losses["uniform"])


def test_trained_vectors_are_nearer_to_the_softmax_by_codewords():
    clf, X, _ = fitted(n_codewords=8, n_epochs=10)
    H = clf._queries(X[:50])
    counts = MultiIndex.one_cell(clf.class_count_ + 1, H.shape[1])
    evenly = MultiIndex.one_cell(np.ones(len(clf.classes_)), H.shape[1])

    def divergence(index):
        scores = H.astype(np.float64) @ clf._vectors.T
        q = np.array([class_probabilities(index, h) for h in H])
        return (softmax(scores, axis=1) * (log_softmax(scores, axis=1) - np.log(q))).sum(axis=1).mean()

    assert divergence(clf._index) < 0.5 * min(divergence(counts), divergence(evenly))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_partial_fit_goes_on(sampler):
    X, y = rows_of_classes()
    clf = SampledSoftmaxClassifier(**QUICK | {"sampler": sampler})
    losses = []
    for _ in range(15):
        for lo in range(0, len(y), 100):
            clf.partial_fit(X[lo : lo + 100], y[lo : lo + 100], classes=np.arange(24))
        losses.append(log_loss(clf, X, y))
    assert losses[-1] < 0.7 * losses[0]
    assert clf.class_count_.sum() == 15 * len(y)
    again = SampledSoftmaxClassifier(**QUICK | {"sampler": sampler})
    for _ in range(15):
        for lo in range(0, len(y), 100):
            again = pickle.loads(pickle.dumps(again))
            again.partial_fit(X[lo : lo + 100], y[lo : lo + 100], classes=np.arange(24))
    np.testing.assert_array_equal(again.class_vectors_, clf.class_vectors_)


@pytest.mark.parametrize("params", [{"dim": 15}, {"dim": 16}, {"dim": 8, "hidden_layer_sizes": (31,)}])
def test_partial_fit_goes_on_from_the_intercepts_too(params):
    clf, X, y = fitted(**params)
    vectors, intercepts = clf.class_vectors_.copy(), clf.class_intercepts_.copy()
    clf.set_params(learning_rate=1e-12).partial_fit(X[:1], y[:1])
    np.testing.assert_allclose(clf.class_vectors_, vectors, atol=1e-6)
    np.testing.assert_allclose(clf.class_intercepts_, intercepts, atol=1e-6)
    assert np.abs(intercepts).max() > 0.1


def test_batches_in_order_are_partial_fit_with_a_falling_rate():
    X, y = rows_of_classes()
    batches = [(X[lo : lo + 100], y[lo : lo + 100]) for lo in range(0, 400, 100)]
    clf = SampledSoftmaxClassifier(**QUICK).fit_batches(batches)
    assert len(clf.loss_curve_) == 20
    assert log_loss(clf, X, y) < 0.7 * np.log(24)


@pytest.mark.parametrize("sampler", ["midx-rq", "unigram"])
def test_one_batch_is_as_good_as_many(monkeypatch, sampler):
    monkeypatch.setattr(sk_hsm.flat_softmax, "LEAST_ROWS", 50)  # so few are codebooks of use for
    X, y = rows_of_classes()
    params = QUICK | {"sampler": sampler, "n_epochs": 3}
    one = SampledSoftmaxClassifier(**params).fit_batches([(X, y)])
    batches = [(X[lo : lo + 50], y[lo : lo + 50]) for lo in range(0, 400, 50)]
    many = SampledSoftmaxClassifier(**params).fit_batches(batches)
    np.testing.assert_allclose(one.predict_log_proba(X), many.predict_log_proba(X), rtol=1e-5)


def test_threads_learn_together_if_they_may():
    X, y = load_digits(return_X_y=True)
    clf = SampledSoftmaxClassifier(16, lock_free=True, n_jobs=2, random_state=0).fit(X, y)
    assert clf.score(X, y) > 0.95


def test_weights_of_rows_count():
    """Rows of weight zero teach nothing, but for the order in which the others come."""
    X, y = rows_of_classes()
    X2, wrong = sparse.vstack([X, X]).tocsr(), np.concatenate([y, (y + 1) % 24])
    weights = np.repeat([1.0, 0.0], len(y))
    clf = SampledSoftmaxClassifier(**QUICK).fit(X2, wrong, weights)
    assert log_loss(clf, X, y) < 1 < log_loss(clf, X, (y + 1) % 24)
    np.testing.assert_array_equal(clf.class_count_, np.bincount(y, minlength=24))


def test_hidden_layers_learn():
    X, y = load_digits(return_X_y=True)
    assert SampledSoftmaxClassifier(16, hidden_layer_sizes=5, n_epochs=1).fit(X, y).coefs_[0].shape == (16, 5)
    clf = SampledSoftmaxClassifier(16, hidden_layer_sizes=[32, 16], learning_rate=0.03, random_state=0)
    assert clf.fit(X, y).score(X, y) > 0.98
    assert [coef.shape for coef in clf.coefs_] == [(16, 32), (32, 16)]
    assert list(clf.get_feature_names_out()[:1]) == ["sampledsoftmaxclassifier0"]
    assert clf.transform(X).shape == (len(X), 16)


# -- top-k by cells and by libraries ------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_cells_give_the_exact_labels(sampler):
    clf, X, _ = fitted(sampler=sampler)
    exact, proba = clf.predict_top_k(X, 5)
    found, estimated = clf.predict_top_k(X, 5, n_probe=16)
    np.testing.assert_array_equal(found, exact)
    np.testing.assert_allclose(estimated, proba, rtol=0.5)
    first, _ = clf.predict_top_k(X, 1, n_probe=1)
    some, _ = clf.predict_top_k(X, 1, n_probe=4)
    right = [np.mean(labels == exact[:, :1]) for labels in (first, some)]
    assert 0.2 < right[0] <= right[1]


@pytest.mark.parametrize("sampler", ["midx-rq", "midx"])
@pytest.mark.parametrize("scale", [1, 300, -300, 3000])
def test_probabilities_of_cells_neither_overflow_nor_vanish(scale, sampler):
    rng = np.random.default_rng(0)
    y = np.arange(60).repeat(10)
    X = rng.normal(size=(60, 16))[y] + 0.05 * rng.normal(size=(600, 16))
    params = {"sampler": sampler, "n_codewords": 8, "n_epochs": 20, "random_state": 0}
    clf = SampledSoftmaxClassifier(None, norm=None, **params).fit(X, y)
    # the search for 60 ends with all cells, that for 3 before, and what is left is estimated
    for k, error in ((60, 1e-9), (3, {"midx-rq": 2e-3, "midx": 1e-3}[sampler])):
        exact, found = (clf.predict_top_k(scale * X[::10], k, n_probe) for n_probe in (None, 64))
        np.testing.assert_array_equal(found[0], exact[0])
        np.testing.assert_allclose(found[1], exact[1], atol=error)


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_libraries_find_the_best_classes(library):
    clf, X, _ = fitted()
    labels, scores = NeighbourIndex(clf, library).top_k(X, 3)
    exact, proba = clf.predict_top_k(X, 3)
    assert np.mean(labels == exact) > 0.99
    right = (labels == exact).all(axis=1)
    ratios = np.log(proba[:, 1:] / proba[:, :1])
    np.testing.assert_allclose((scores[:, 1:] - scores[:, :1])[right], ratios[right], atol=1e-4)


@pytest.mark.parametrize("n_rows", [1, 5])
@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_classes_that_a_library_does_not_find(library, n_rows):
    """Of a graph with hardly an edge some cannot be reached."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 10))
    clf = SampledSoftmaxClassifier(**QUICK | {"n_epochs": 1}).fit(X, np.arange(1, 2001))
    parameters = {
        "hnswlib": {"M": 2, "ef": 3, "ef_construction": 3},
        "faiss": {"factory": "IVF50,Flat", "nprobe": 1},
        "usearch": {"connectivity": 2, "expansion_search": 3},
    }
    index = NeighbourIndex(clf, library, **parameters[library])
    if library == "hnswlib":
        with pytest.raises(ValueError, match="k=1999 classes .* ef=3 and M=2: ask for a smaller k"):
            index.top_k(X[:n_rows], 1999)
        return
    labels, scores = index.top_k(X[:n_rows], 1999)
    n_found = np.isfinite(scores).sum(axis=1)
    assert labels.shape == scores.shape == (n_rows, 1999)
    assert (0 < n_found).all() and (n_found < 1999).all()
    for n, of_row, score in zip(n_found, labels, scores, strict=True):
        assert len(np.unique(of_row[:n])) == n
        assert (of_row[n:] == clf.classes_[0]).all() and (score[n:] == -np.inf).all()


def test_what_libraries_cannot_do_is_said(monkeypatch):
    clf, X, _ = fitted()
    with pytest.raises(ValueError, match="library must be one of .*'faiss'.* got 'annoy'"):
        NeighbourIndex(clf, "annoy")
    with pytest.raises(TypeError, match="must be a SampledSoftmaxClassifier, got LogisticRegression"):
        NeighbourIndex(LogisticRegression())
    with pytest.raises(NotFittedError):
        NeighbourIndex(SampledSoftmaxClassifier())
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match="pip install faiss-cpu"):
        NeighbourIndex(clf, "faiss")


# -- faults ------------------------------------------------------------------


@pytest.mark.parametrize(
    "params, message",
    [
        ({"sampler": "nce"}, "'sampler' parameter .* must be"),
        ({"n_negatives": 0}, "'n_negatives' parameter"),
        ({"n_negatives": 2**40}, "'n_negatives' parameter"),
        ({"hidden_layer_sizes": (True,)}, "hidden_layer_sizes must be"),
        ({"hidden_layer_sizes": -1}, "'hidden_layer_sizes' parameter"),
        ({"n_codewords": 5000}, "'n_codewords' parameter"),
        ({"hidden_layer_sizes": (3, 0)}, r"hidden_layer_sizes must be .* got \(3, 0\)"),
        ({"hidden_layer_sizes": (2.5,)}, r"hidden_layer_sizes must be .* got \(2.5,\)"),
        ({"hidden_layer_sizes": [[3]]}, "hidden_layer_sizes must be"),
        (
            {"hidden_layer_sizes": (2**20,)},
            r"hidden_layer_sizes must be .* from 1 to 2\*\*20 - 1, got \(1048576,\)",
        ),
        ({"dim": 2**50}, "needs .* GiB"),
    ],
)
def test_wrong_parameters_are_named_and_nothing_is_lost(params, message):
    clf, X, y = fitted()
    before = pickle.dumps(clf)
    attributes = {name: value for name, value in vars(clf).items() if name.endswith("_")}
    with pytest.raises((ValueError, MemoryError), match=message):
        clf.set_params(**params).fit(X, y)
    for name, value in attributes.items():
        assert getattr(clf, name) is value
    np.testing.assert_array_equal(pickle.loads(before).class_vectors_, clf.class_vectors_)


@pytest.mark.parametrize(
    "params",
    [{"n_negatives": -5}, {"n_negatives": 0}, {"sampler": "nce"}, {"norm": "max"}, {"learning_rate": 0.0}],
)
def test_parameters_are_checked_at_each_call_of_partial_fit(params):
    X, y = rows_of_classes()
    clf = SampledSoftmaxClassifier(**QUICK).partial_fit(X, y, classes=range(24))
    before = clf.class_vectors_.copy()
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter"):
        clf.set_params(**params).partial_fit(X, y)
    np.testing.assert_array_equal(clf.class_vectors_, before)


def test_memory_of_layers_is_counted_as_it_is(monkeypatch):
    """A wide layer below a narrow one does not make every class as wide."""
    X, y = rows_of_classes()
    layers = {"dim": None, "norm": None, "hidden_layer_sizes": (1000, 3)}
    needed = 8 * (1000 * (60 + 16) + 3 * (1000 + 16) + 24 * (3 + 16))
    monkeypatch.setattr(sk_hsm.inference, "SMALL", 0)
    monkeypatch.setattr(sk_hsm.inference, "available_memory", lambda: needed - 1)
    with pytest.raises(MemoryError, match="fit of 60 features and 24 classes with dim=None needs 0.0 GiB"):
        SampledSoftmaxClassifier(**QUICK | layers).fit(X, y)
    monkeypatch.setattr(sk_hsm.inference, "available_memory", lambda: needed)
    SampledSoftmaxClassifier(**QUICK | layers | {"n_epochs": 1}).fit(X, y)


def test_what_would_overflow_is_said():
    clf, X, y = fitted()
    with pytest.raises(ValueError, match=r"learning_rate=1e.200 made the embeddings overflow"):
        clf.set_params(learning_rate=1e200, fit_intercept=False).fit(0 * X, y)  # nothing shortens their steps
    with pytest.raises(ValueError, match=r"no value above 1e.15 where norm=None, got [1-9].*e.16: scale X"):
        clf.set_params(learning_rate=0.1, norm=None).fit(1e16 * X, y)


def test_arguments_of_predictions_are_checked():
    clf, X, _ = fitted()
    for method in (clf.predict_top_k, clf.predict_proba, clf.predict):
        with pytest.raises(ValueError, match="features"):
            method(X[:, :5])
    with pytest.raises(ValueError, match="n_probe must be an integer of 1 or more, got 0"):
        clf.predict_top_k(X, n_probe=0)
    with pytest.raises(ValueError, match="k must be an integer of 1 or more, got -1"):
        clf.predict_top_k(X, k=-1)
    with pytest.raises(NotFittedError):
        SampledSoftmaxClassifier().predict_top_k(X)


@pytest.mark.parametrize(
    "name", ["cell_ptr", "members", "cells", "cumulated", "codewords", "weights", "radii"]
)
def test_a_damaged_index_does_not_load(name):
    clf, _, _ = fitted()
    state = clf.__getstate__()
    array = state["_index"][name]
    wrong = [array[:1], np.repeat(array, 2, axis=0)]
    if array.dtype.kind == "i":
        wrong += [array + 10_000, array - 10_000]
    for damaged in wrong:
        with pytest.raises(ValueError, match="this model is damaged"):
            SampledSoftmaxClassifier().__setstate__({**state, "_index": {**state["_index"], name: damaged}})


@pytest.mark.parametrize("dim", [8, None])
def test_damaged_layers_do_not_load(dim):
    clf, _, _ = fitted(dim=dim, hidden_layer_sizes=(6, 5), n_epochs=1)
    state = clf.__getstate__()
    wrong = [
        {"_dims": [state["_dims"][0], 6, 16]},
        {"coefs_": state["coefs_"][::-1]},
        {"intercepts_": state["intercepts_"][::-1]},
        {"class_count_": clf.class_count_[:-1]},
        {"classes_": clf.classes_[:-1]},
        {"n_features_in_": 61},
        {"embedding_": np.ones((60, 9), dtype=np.float32)},
    ]
    SampledSoftmaxClassifier().__setstate__(state)
    for part in wrong:
        with pytest.raises(ValueError, match="this model is damaged"):
            SampledSoftmaxClassifier().__setstate__(state | part)


def test_a_saved_model_is_mapped_from_disk(tmp_path):
    clf, X, _ = fitted(hidden_layer_sizes=(5,))
    joblib.dump(clf, tmp_path / "model.joblib")
    for mode in (None, "r"):
        loaded = joblib.load(tmp_path / "model.joblib", mmap_mode=mode)
        np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
        for one, two in zip(loaded.predict_top_k(X, 3, 2), clf.predict_top_k(X, 3, 2), strict=True):
            np.testing.assert_array_equal(one, two)


def test_it_works_in_pipelines_and_grids():
    X, y = rows_of_classes()
    clf = make_pipeline(FunctionTransformer(), SampledSoftmaxClassifier(**QUICK))
    grid = GridSearchCV(clf, {"sampledsoftmaxclassifier__sampler": ["midx", None]}, cv=KFold(2)).fit(X, y)
    assert top_k_accuracy(grid, X, y, k=5) > 0.5


def test_an_index_keeps_what_its_estimator_had_learned():
    clf, X, y = fitted()
    index = NeighbourIndex(clf, "faiss", factory="Flat")
    labels, scores = index.top_k(X, 3)
    clf.partial_fit(X, y)
    clf.set_params(dim=5).fit(X[:50], y[:50])
    for again, before in zip(index.top_k(X, 3), (labels, scores), strict=True):
        np.testing.assert_array_equal(again, before)
