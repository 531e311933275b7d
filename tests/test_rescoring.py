"""Likely classes are scored again: what that is, that it helps, and that nothing else changes."""

import copy
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse
from scipy.special import logsumexp, softmax
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import normalize

from sk_hsm import HierarchicalSoftmaxClassifier, LabelTree, training
from sk_hsm.node_weights import NodeWeights
from sk_hsm.progress import Progress
from sk_hsm.regularization import choose_penalties, penalties_of
from sk_hsm.rescoring import (
    FEW,
    KEPT,
    MORE,
    MORE_SMOOTHED,
    Rescoring,
    choose_coefficients,
    class_similarities,
    likely_classes,
    updated,
)
from sk_hsm.solvers import Problem
from sk_hsm.tree_builders import balanced_tree
from sk_hsm.validation import full_csr
from sk_hsm.whitening import whitened

N_CLASSES, N_ROWS = 300, 8


def sparse_rows(seed):
    """Rows with a third of the 9 features of their class, each of which others have, and 6 at random."""
    rng = np.random.default_rng(seed)
    own = np.random.default_rng(99).integers(0, 250, (N_CLASSES, 9))
    y = np.repeat(np.arange(N_CLASSES), N_ROWS)
    X = np.zeros((len(y), 300), dtype=np.float32)
    np.put_along_axis(X, rng.integers(0, 300, (len(y), 6)), 1, axis=1)
    np.put_along_axis(X, rng.permuted(own[y], axis=1)[:, :3], rng.random((len(y), 3)) + 1, axis=1)
    return sparse.csr_array(X), y


def varied_rows(seed):
    """Rows with most of 3 features that many classes have, and a few of 60 that their class alone has."""
    rng, of_classes = np.random.default_rng(seed), np.random.default_rng(94)
    y = np.repeat(np.arange(N_CLASSES), 3 * N_ROWS)
    common = of_classes.integers(0, 40, (N_CLASSES, 3))
    alone = 40 + of_classes.permutation(60 * N_CLASSES).reshape(N_CLASSES, 60)
    X = sparse.lil_array((len(y), 40 + 60 * N_CLASSES), dtype=np.float32)
    for own, share in ((common, 0.9), (alone, 0.05)):
        i, j = np.nonzero(rng.random((len(y), own.shape[1])) < share)
        X[i, own[y[i], j]] = 1
    return sparse.csr_array(X), y


def dense_rows(seed):
    """Rows about the points of their classes, with a noise that is not alike in all directions."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(98).normal(size=(N_CLASSES, 30))
    y = np.repeat(np.arange(N_CLASSES), N_ROWS)
    noise = rng.normal(size=(len(y), 30)) @ np.random.default_rng(97).normal(size=(30, 30)) / 3
    return (means[y] + noise + 3).astype(np.float32), y


def tangled_rows(seed):
    """Rows about the points of 2,000 classes, three each, with more noise in some directions."""
    means = np.random.default_rng(96).normal(size=(2000, 64))
    spread = np.random.default_rng(95).normal(size=(64, 64)) * np.geomspace(0.45, 0.045, 64)[:, None]
    y = np.repeat(np.arange(2000), 3)
    return means[y] + np.random.default_rng(seed).normal(size=(len(y), 64)) @ spread, y


def held_out(X, y):
    rows = training.Rows(sparse.csr_array(X), y.astype(np.int32), np.ones(len(y)), np.arange(N_CLASSES))
    return training.held_for_rescoring(rows, HierarchicalSoftmaxClassifier().get_params())


REACH = pytest.mark.parametrize("reach", [FEW, MORE, MORE_SMOOTHED])
ROWS = {"sparse": sparse_rows, "dense": dense_rows}


@pytest.fixture(scope="module", params=ROWS)
def rows(request):
    return ROWS[request.param]


@pytest.fixture(scope="module")
def fitted(rows):
    clf = HierarchicalSoftmaxClassifier(random_state=0).fit(*rows(0))
    assert hasattr(clf, "whitening_") == (rows is dense_rows)
    return clf


def of_the_tree(clf):
    """The same model without its rescoring."""
    clf = copy.copy(clf)
    del clf.rescoring_
    return clf


def smoothed_proba(tree, weights, X, smoothing):
    """Of the tree alone, from the definition: (n_samples, n_classes)."""
    X = X.toarray() if sparse.issparse(X) else X
    log_p = np.zeros((len(X), tree.n_nodes))
    for v in range(tree.n_inner):
        children = tree.children[tree.child_ptr[v] : tree.child_ptr[v + 1]]
        features, W, bias = weights.node(v, len(children))
        z = X[:, features] @ W.astype(np.float64) + bias
        p = (1 - smoothing) * softmax(z, axis=1) + smoothing * softmax(z / 3, axis=1)
        log_p[:, children] = log_p[:, [v]] + np.log(p)
    return np.exp(log_p[:, tree.n_inner :])


def similarities(clf, X, X_train, y_train):
    """From the definition: (n_samples, n_classes)."""
    Y = sparse.csr_array((np.ones(len(y_train)), (y_train, np.arange(len(y_train)))))
    if hasattr(clf, "whitening_"):
        A = clf.whitening_
        means = normalize(Y @ (X_train @ A[:-1] + A[-1]))
        return (X @ A[:-1] + A[-1]) @ means.T
    sums = Y @ normalize(X_train.astype(np.float64))
    held = held_out(X_train, y_train)
    idf = TfidfTransformer(norm=None).fit(Y[:, ~held] @ X_train[~held]).idf_
    np.testing.assert_allclose(np.sqrt(clf.rescoring_.feature_weights), idf, rtol=1e-5)
    centroids = (sums * idf).toarray()
    if clf.rescoring_.is_pruned:
        centroids[centroids < KEPT * centroids.max(axis=1, keepdims=True)] = 0
    return normalize(X * idf) @ normalize(centroids).T


@REACH
@pytest.mark.parametrize("n_trees", [1, 2])
def test_probabilities_are_those_of_the_definition(rows, fitted, reach, n_trees):
    (X, y), (X_test, _), (most, least, smoothing) = rows(0), rows(1), reach
    if n_trees > 1:
        fitted = HierarchicalSoftmaxClassifier(n_trees=n_trees, random_state=0).fit(X, y)
        models = list(zip(fitted.trees_, fitted.node_weights_, strict=True))
    else:
        fitted = copy.copy(fitted)
        models = [(fitted.tree_, fitted.node_weights_)]
    log_p = np.log(np.mean([smoothed_proba(*model, X_test, smoothing) for model in models], axis=0))
    fitted.rescoring_ = fitted.rescoring_.with_reach(*reach)
    scores = fitted.rescoring_.power * log_p + fitted.rescoring_.weight * similarities(fitted, X_test, X, y)
    order = np.argsort(-log_p, axis=1, kind="stable")
    rank = np.argsort(order, axis=1)
    likely = (rank < most) & (log_p >= least)
    assert (likely.sum(axis=1) > 1).mean() > 0.8
    parts = [np.where(likely, part, -np.inf) for part in (scores, log_p)]
    before, after = (logsumexp(part, axis=1, keepdims=True) for part in parts)
    expected = np.where(likely, scores - before + after, log_p)
    # a class at the bound is likely or not by a rounding
    clear = np.abs(log_p - least) > 1e-4
    assert clear.mean() > 0.999
    np.testing.assert_allclose(fitted.predict_log_proba(X_test)[clear], expected[clear], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n_trees", [1, 3])
@REACH
def test_all_methods_agree(rows, n_trees, reach):
    clf = HierarchicalSoftmaxClassifier(n_trees=n_trees, random_state=0).fit(*rows(0))
    clf.rescoring_ = clf.rescoring_.with_reach(*reach)
    X, y = (part[::40] for part in rows(1))
    proba = clf.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    order = np.argsort(-proba, axis=1, kind="stable")
    for k in (1, 2, 5, 100, N_CLASSES):
        labels, best = clf.predict_top_k(X, k)
        np.testing.assert_allclose(best, np.take_along_axis(proba, order[:, :k], axis=1), rtol=1e-9)
        at = np.take_along_axis(proba, labels, axis=1)
        np.testing.assert_allclose(at, best, rtol=1e-9)
    np.testing.assert_array_equal(clf.predict(X), order[:, 0])
    rows_of = np.arange(len(y))
    np.testing.assert_allclose(np.exp(clf.log_proba_of(X, y)), proba[rows_of, y], rtol=1e-9)
    for floor in (0.3, 1e-3, 1e-5):
        some = clf.predict_proba_sparse(X, min_proba=floor).toarray()
        np.testing.assert_allclose(some, np.where(proba >= floor, proba, 0), rtol=1e-9)
    one = [clf.predict_top_k(X[i : i + 1], 3) for i in rows_of]
    np.testing.assert_array_equal(np.concatenate([labels for labels, _ in one]), clf.predict_top_k(X, 3)[0])


@pytest.mark.parametrize("width", [3, 10**6])
def test_a_beam_gives_what_the_tree_alone_says(rows, fitted, width):
    X, _ = rows(1)
    alone = of_the_tree(fitted).predict_top_k(X, 7, beam_width=width)
    for a, b in zip(fitted.predict_top_k(X, 7, beam_width=width), alone, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_chunks_of_rows_give_what_all_at_once_do(rows, fitted, n_jobs):
    X, y = rows(1)
    clf = copy.copy(fitted).set_params(n_jobs=n_jobs)

    def answers():
        yield from clf.predict_top_k(X, 3)
        yield clf.predict_log_proba(X)
        yield clf.log_proba_of(X, y)
        yield clf.sample(X, 4, random_state=3)

    at_once = list(answers())
    with config_context(working_memory=0.1):
        for a, b in zip(answers(), at_once, strict=True):
            np.testing.assert_array_equal(a, b)


def test_stored_zeros_change_no_bit(rows, fitted):
    X = sparse.csr_array(rows(1)[0][:100]).toarray()
    X[:, ::3] = 0
    stored = full_csr(X.astype(np.float32))
    np.testing.assert_array_equal(fitted.predict_log_proba(stored), fitted.predict_log_proba(X))


@pytest.mark.parametrize("n_trees", [1, 3])
def test_huge_rows_have_probabilities(rows, n_trees):
    X, y = rows(0)
    clf = HierarchicalSoftmaxClassifier(n_trees=n_trees, random_state=0).fit(X, y)
    for scale in (1e15, 1e30):
        proba = clf.predict_proba(rows(1)[0][::23] * np.float32(scale))
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)


def test_samples_depend_on_random_state_alone(rows, fitted):
    X, _ = rows(1)
    one, same, other = (fitted.sample(X, 2, random_state=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_samples_are_as_frequent_as_they_are_probable(rows, fitted):
    X, _ = rows(1)
    n = 40_000
    before_of_all, proba_of_all = of_the_tree(fitted).predict_proba(X), fitted.predict_proba(X)
    for i in np.argsort(np.abs(before_of_all - proba_of_all).max(axis=1))[[-1, -2]]:
        row, before, proba = X[i : i + 1], before_of_all[i], proba_of_all[i]
        share = np.bincount(fitted.sample(row, n, random_state=0)[0], minlength=N_CLASSES) / n
        np.testing.assert_allclose(share, proba, atol=5 * 0.5 / n**0.5)
        assert np.abs(before - proba).max() > 10 / n**0.5  # or the tree's would do


def test_new_rows_are_likelier_than_without(rows, fitted):
    X, y = rows(1)
    plain = HierarchicalSoftmaxClassifier(rescore=False, random_state=0).fit(*rows(0))
    assert -fitted.log_proba_of(X, y).mean() < -0.85 * plain.log_proba_of(X, y).mean()
    assert fitted.score(X, y) > plain.score(X, y) + 0.02


@REACH
def test_no_other_coefficients_make_rows_held_out_likelier(rows, fitted, reach):
    X_test, y_test = rows(1)
    tree = of_the_tree(fitted)
    arguments = [(tree.tree_, tree.node_weights_)], sparse.csr_array(X_test), y_test.astype(np.int32)
    weights = np.random.default_rng(0).random(len(y_test)) + 0.5
    similarities = fitted.rescoring_.with_reach(*reach)
    likely = likely_classes(similarities, *arguments[:2], None)
    best, before, after = choose_coefficients(similarities, likely, *arguments, weights, 0.0, None)

    def loss_of(power, weight):
        tree.rescoring_ = best.with_coefficients(power, weight)
        return -weights @ tree.log_proba_of(X_test, y_test) / weights.sum()

    least = loss_of(best.power, best.weight)
    np.testing.assert_allclose(loss_of(1, 0), before, rtol=1e-9)
    np.testing.assert_allclose(least, after, rtol=1e-9)
    for power, weight in ((1.05, 1), (0.95, 1), (1, 1.05), (1, 0.95), (1.03, 0.97), (0.97, 1.03)):
        assert loss_of(power * best.power, weight * best.weight) > least


def test_trees_do_not_see_the_rows_that_are_asked_about(rows, monkeypatch):
    seen, asked = [], []
    for name in ("build_trees", "train_tree", "are_recurring_better"):
        original = getattr(training, name)
        monkeypatch.setattr(
            training,
            name,
            lambda known, *args, original=original: seen.append(known) or original(known, *args),
        )
    choose = training.choose_coefficients
    monkeypatch.setattr(
        training,
        "choose_coefficients",
        lambda of_known, likely, models, X, *args: (
            asked.append((of_known, X)) or choose(of_known, likely, models, X, *args)
        ),
    )
    X, y = rows(0)
    clf = HierarchicalSoftmaxClassifier(random_state=0).fit(X, y)
    of_known, X_asked = asked[-1]  # pruned, as the model is, or white
    assert of_known.is_pruned == clf.rescoring_.is_pruned
    white = X if not hasattr(clf, "whitening_") else whitened(sparse.csr_array(X), clf.whitening_)
    white_asked = X_asked if not hasattr(clf, "whitening_") else whitened(X_asked, clf.whitening_)
    everything = {bytes(row) for row in sparse.csr_array(white).toarray()}
    of_asked = {bytes(row) for row in white_asked.toarray()}
    assert 100 <= len(of_asked) <= 0.2 * len(y) and of_asked < everything
    for known in seen:
        weights = known.row_weights if isinstance(known, Problem) else known.weights
        of_known_rows = {bytes(row) for row in known.X[weights > 0].toarray()}
        assert not of_known_rows & of_asked
    # and every class is known
    assert len(np.unique(seen[0].y[seen[0].weights > 0])) == N_CLASSES
    # but the model does: similarities are of all rows
    weights = np.ones(len(y))
    whitening = getattr(clf, "whitening_", None)
    of_all = class_similarities(sparse.csr_array(white), y, weights, N_CLASSES, whitening, None)
    assert np.abs(clf.rescoring_.matrix() - of_known.matrix()).max() > 0.05
    if whitening is not None:  # no idf that differs
        difference = clf.rescoring_.matrix().toarray() - of_all.matrix().toarray()
        np.testing.assert_allclose(difference, 0, atol=1e-4)


@pytest.mark.parametrize("arity", [16, "auto"])
@pytest.mark.parametrize("n_rows", [2, N_ROWS])  # where features count by how far they recur, and not
def test_rows_of_weight_zero_are_as_if_they_were_not_there(rows, arity, n_rows):
    X, y = rows(0)
    some = np.arange(len(y)) % N_ROWS < n_rows
    X, y = sparse.csr_array(X)[some], y[some].astype(np.int32)
    known = training.Rows(X, y, np.random.default_rng(1).random(len(y)) + 0.5, np.arange(N_CLASSES))
    out = np.random.default_rng(2).random(len(y)) < 0.3
    out[::n_rows] = False
    fewer = known.of(~out)
    X.data[np.repeat(out, np.diff(X.indptr))] *= -7
    X.indices[np.repeat(out, np.diff(X.indptr))] //= 2
    results = []
    for rows in (known.without(out), fewer):
        # naive Bayes is not asked about rows that are left out
        params = HierarchicalSoftmaxClassifier(arity=arity, prior="centroid").get_params()
        params |= {"recurring": training.are_recurring_better(rows, params, np.random.RandomState(0))}
        if arity == "auto":
            params |= {"arity": training.choose_arity(rows, params, np.random.RandomState(0))}
        [tree] = training.build_trees(rows, params, np.random.RandomState(0))
        problem = training.problem_of(rows, tree, params, 0)
        by_depth, _ = choose_penalties(problem, "auto", "centroid", None, Progress(0))
        problem.penalties = penalties_of(tree, by_depth)
        trained = training.train_tree(problem, {"n_jobs": None, "tol": problem.tol}, Progress(0))
        similarities = class_similarities(rows.X, rows.y, rows.weights, N_CLASSES, None, None)
        results.append((tree, trained, similarities))
    (tree, trained, similarities), (tree_of_fewer, of_fewer, similarities_of_fewer) = results
    np.testing.assert_array_equal(tree.parents, tree_of_fewer.parents)
    np.testing.assert_array_equal(trained.penalties.C, of_fewer.penalties.C)
    np.testing.assert_array_equal(trained.weights.lines, of_fewer.weights.lines)
    np.testing.assert_array_equal(trained.weights.features, of_fewer.weights.features)
    for name, array in similarities.to_arrays().items():
        np.testing.assert_array_equal(array, similarities_of_fewer.to_arrays()[name])


def test_rows_held_out_decide_how_many_classes_are_scored_again_and_by_which_features(monkeypatch):
    tried = []
    choose = training.choose_coefficients

    def recorded(similarities, likely, models, X, y, weights, noise, n_jobs):
        fitted, before, after = choose(similarities, likely, models, X, y, weights, noise, n_jobs)
        tried.append((fitted, after, noise))
        return fitted, before, after

    monkeypatch.setattr(training, "choose_coefficients", recorded)
    reaches, sparser = [], []
    sets = (
        (sparse_rows, 0.06),
        (sparse_rows, 0.01),
        (varied_rows, 0.06),
        (dense_rows, 0.0),
        (tangled_rows, 0.06),
    )
    for rows, worth in sets:
        monkeypatch.setattr(training, "WORTH_MORE", worth)
        tried.clear()
        taken = HierarchicalSoftmaxClassifier(random_state=0).fit(*rows(0)).rescoring_
        (few, loss, noise), (more, loss_of_more, _), *fewer_features = tried
        is_more = loss - loss_of_more > max(worth * loss, noise)
        fitted, loss = (more, loss_of_more) if is_more else (few, loss)
        is_white = rows in (dense_rows, tangled_rows)
        assert [tuple(one.reach) for one in (few, more)] == [FEW, MORE_SMOOTHED if is_white else MORE]
        assert len(fewer_features) == (not is_white)
        for pruned, loss_of_pruned, _ in fewer_features:
            assert len(pruned.values) < len(fitted.values)
            sparser.append(loss_of_pruned < loss)
            fitted = pruned if sparser[-1] else fitted
            assert taken.is_pruned == sparser[-1]
        np.testing.assert_array_equal(taken.reach, fitted.reach)
        np.testing.assert_array_equal(taken.coefficients, fitted.coefficients)
        reaches.append(tuple(taken.reach))
    assert reaches[:2] + reaches[3:] == [FEW, MORE, FEW, MORE_SMOOTHED]
    assert sparser == [True, True, False]


def test_where_every_class_has_every_feature_none_is_left_out(monkeypatch):
    monkeypatch.setattr(Rescoring, "pruned", None)  # is not even tried
    taken = HierarchicalSoftmaxClassifier(random_state=0, whiten=False).fit(*dense_rows(0)).rescoring_
    assert taken.is_full and not taken.is_pruned and len(taken.features) == len(taken.values)


def test_pruned_centroids_keep_what_counts():
    X, y = sparse_rows(0)
    y[y == 7] = 8
    X.data[:50] *= -1
    full = class_similarities(X, y, np.ones(len(y)), N_CLASSES, None, None)
    pruned, root = full.pruned(), np.sqrt(full.feature_weights)
    for c in range(N_CLASSES):
        here, there = slice(*full.starts[c : c + 2]), slice(*pruned.starts[c : c + 2])
        size = np.abs(full.values[here]) * root[full.features[here]]
        kept = size >= KEPT * size.max(initial=0)
        np.testing.assert_array_equal(pruned.features[there], full.features[here][kept])
        values = full.values[here][kept] * full.lengths[c]
        np.testing.assert_allclose(pruned.values[there] * pruned.lengths[c], values, rtol=1e-5)
        length = np.linalg.norm(pruned.values[there] * root[pruned.features[there]])
        assert length == pytest.approx(float(c != 7), abs=1e-5)
    assert len(pruned.values) < 0.8 * len(full.values)


@pytest.mark.parametrize("weight", [0.7, 3.0, 1e30])
def test_the_unit_of_weights_does_not_decide_what_is_kept(weight):
    """Features in one of five rows of a class are just at the bound."""
    y = np.repeat(np.arange(N_CLASSES), 5).astype(np.int32)
    own, others = y, N_CLASSES + np.arange(len(y)) % N_CLASSES
    ones = np.ones(2 * len(y), dtype=np.float32)
    X = sparse.csr_array((ones, np.stack([own, others], axis=1).ravel(), np.arange(0, len(ones) + 1, 2)))
    one, other = (
        class_similarities(X, y, np.full(len(y), w), N_CLASSES, None, None).pruned() for w in (1.0, weight)
    )
    np.testing.assert_array_equal(one.starts, other.starts)
    np.testing.assert_array_equal(one.features, other.features)


def test_nodes_with_many_rows_held_out_are_trained_with_them(rows, monkeypatch):
    """As if they had not been held out."""
    X, y = rows(0)
    tree = balanced_tree(N_CLASSES, 4).with_labels(np.arange(N_CLASSES))
    params = dict(tree=tree, C=0.3, prior=None, whiten=False, random_state=0)
    models = [HierarchicalSoftmaxClassifier(rescore=False, **params).fit(X, y)]
    for again in (0.0, 0.08, 1.0):
        monkeypatch.setattr(training, "AGAIN", again)
        models.append(HierarchicalSoftmaxClassifier(rescore=True, **params).fit(X, y))
    held, paths = held_out(X, y), [tree.path(label)[0] for label in range(N_CLASSES)]
    n_some = 0
    for v, (lo, hi) in enumerate(pairwise(tree.child_ptr)):
        features = [clf.node_weights_.node(v, hi - lo)[0] for clf in models]
        plain, always, some, never = (np.vstack(clf.node_weights_.node(v, hi - lo)[1:]) for clf in models)
        np.testing.assert_array_equal(always, plain)
        below = np.array([v in path for path in paths])[y]
        is_again = held[below].mean() > 0.08
        n_some += is_again
        if not is_again:  # nodes below may have had more features
            is_own = np.append(np.isin(features[2], features[3]), True)
            assert not some[~is_own].any()
            some = some[is_own]
        np.testing.assert_array_equal(some, plain if is_again else never)
        assert not held[below].any() or never.shape != plain.shape or np.abs(never - plain).max() > 1e-4
    assert 20 < n_some < tree.n_inner - 20


def test_a_class_more_rows_later_is_a_class_with_all_of_them_at_once(rows, fitted):
    X, y = sparse.csr_array(rows(0)[0]), rows(0)[1].astype(np.int32)
    weights = np.random.default_rng(0).random(len(y)) * 10.0 ** np.random.default_rng(1).integers(
        -9, 9, len(y)
    )
    whitening = getattr(fitted, "whitening_", None)
    white = X if whitening is None else whitened(X, whitening)
    first = np.random.default_rng(2).random(len(y)) < 0.6
    first &= y != 5  # a class that is new in the second batch
    at_once = class_similarities(white, y, weights, N_CLASSES, whitening, None)
    one = class_similarities(white[first], y[first], weights[first], N_CLASSES, whitening, None)
    if whitening is None:
        one.feature_weights[:] = at_once.feature_weights
        sums = one.matrix() * np.sqrt(at_once.feature_weights)
        lengths = np.sqrt(sums.multiply(sums).sum(axis=1))
        one.values = (one.values / np.repeat(np.where(lengths > 0, lengths, 1), np.diff(one.starts))).astype(
            np.float32
        )
        one.lengths *= lengths
    both = updated(one, X[~first], y[~first], weights[~first], whitening, None)
    difference = both.matrix().toarray() - at_once.matrix().toarray()
    np.testing.assert_allclose(difference, 0, atol=1e-4 * np.abs(at_once.values).max())
    np.testing.assert_allclose(both.biases, at_once.biases, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(both.lengths, at_once.lengths, rtol=1e-4)


@pytest.mark.parametrize("weight", [1e-30, 1e30])
def test_the_unit_of_weights_does_not_matter(rows, fitted, weight):
    X, y = rows(0)
    params = dict(C=float(1 / weight), prior=None, rescore=True, whiten="auto", random_state=0)
    if hasattr(fitted, "whitening_"):
        params["whiten"] = True
    clf = HierarchicalSoftmaxClassifier(**params).fit(X, y, sample_weight=np.full(len(y), weight))
    one = HierarchicalSoftmaxClassifier(**params | {"C": 1.0}).fit(X, y)
    assert (clf.rescoring_.lengths > 0).all()
    np.testing.assert_allclose(clf.rescoring_.lengths, weight * one.rescoring_.lengths, rtol=1e-4)
    np.testing.assert_allclose(clf.rescoring_.values, one.rescoring_.values, rtol=1e-4, atol=1e-6)
    clf.partial_fit(X[:8], y[:8], sample_weight=np.full(8, weight))
    assert (clf.rescoring_.lengths > 0).all()


def test_batches_count_by_their_weights(rows, fitted):
    X, y = (part[:400] for part in rows(1))
    ones, twos, doubled = copy.deepcopy(fitted), copy.deepcopy(fitted), copy.deepcopy(fitted)
    ones.partial_fit(X, y)
    twos.partial_fit(X, y, sample_weight=np.full(400, 2.0))
    both = sparse.vstack([X, X], format="csr") if sparse.issparse(X) else np.vstack([X, X])
    doubled.partial_fit(both, np.concatenate([y, y]))
    np.testing.assert_allclose(twos.rescoring_.values, doubled.rescoring_.values, rtol=1e-3, atol=1e-6)
    assert np.abs(twos.rescoring_.matrix() - ones.rescoring_.matrix()).max() > 1e-3


def test_partial_fit_goes_on_with_it(rows, fitted):
    X, y = rows(1)
    clf = copy.deepcopy(fitted).partial_fit(X, y)
    assert clf.rescoring_.is_pruned == fitted.rescoring_.is_pruned == (rows is sparse_rows)
    if clf.rescoring_.is_pruned:
        assert len(clf.rescoring_.pruned().values) == len(clf.rescoring_.values)
    assert (clf.rescoring_.power, clf.rescoring_.weight) == (
        fitted.rescoring_.power,
        fitted.rescoring_.weight,
    )
    X_test, y_test = rows(2)
    assert clf.log_proba_of(X_test, y_test).mean() > fitted.log_proba_of(X_test, y_test).mean()


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
def test_a_partial_fit_that_fails_leaves_it_as_it_was(rows, fitted):
    X, y = rows(1)
    clf = copy.deepcopy(fitted).set_params(max_iter=1, tol=1e-9)
    with pytest.raises(ConvergenceWarning):
        clf.partial_fit(X, y)
    for name, array in clf.rescoring_.to_arrays().items():
        np.testing.assert_array_equal(array, fitted.rescoring_.to_arrays()[name])
    np.testing.assert_array_equal(clf.node_weights_.lines, fitted.node_weights_.lines)


@pytest.mark.parametrize(
    "params",
    [
        {"rescore": False},
        {"C": 1.0},
        {"arity": N_CLASSES},
        {"arity": "auto", "C": 2},
        {"tree": balanced_tree(N_CLASSES, N_CLASSES)},
        {"tree": [-1] + [0] * N_CLASSES},
    ],
    ids=str,
)
def test_where_there_is_none(rows, params):
    assert not hasattr(HierarchicalSoftmaxClassifier(**params).fit(*rows(0)), "rescoring_")


def test_a_second_fit_forgets_it(rows, fitted):
    clf = copy.deepcopy(fitted).set_params(rescore=False).fit(*rows(0))
    assert not hasattr(clf, "rescoring_")


def test_it_is_there_for_a_given_C_if_asked_for(rows):
    X, y = rows(1)
    with_it, without = (
        HierarchicalSoftmaxClassifier(C=0.3, rescore=rescore, random_state=0)
        .fit(*rows(0))
        .log_proba_of(X, y)
        .mean()
        for rescore in (True, False)
    )
    assert with_it > without


def test_of_chance_it_makes_nothing():
    rng = np.random.default_rng(0)
    X, y = (
        sparse.csr_array(rng.random((3000, 400)) * (rng.random((3000, 400)) < 0.02)),
        rng.integers(0, 40, 3000),
    )
    assert not hasattr(HierarchicalSoftmaxClassifier(random_state=0).fit(X, y), "rescoring_")


def test_one_row_that_weighs_much_does_not_decide(rows):
    X, y = rows(0)
    weights = np.ones(len(y))
    weights[np.flatnonzero(held_out(X, y))[0]] = 1e6
    clf = HierarchicalSoftmaxClassifier(random_state=0)
    assert not hasattr(clf.fit(X, y, sample_weight=weights), "rescoring_")


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_rows_of_any_size(rows, scale):
    X, y = rows(0)
    X = X * np.float32(scale)
    clf = HierarchicalSoftmaxClassifier(C=1e-3 / scale**2 if scale > 1 else 1.0, rescore=True, random_state=0)
    proba = clf.fit(X, y).predict_proba(X[:20])
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)


def test_rows_of_zeros_and_classes_of_zeros():
    X, y = sparse_rows(0)
    X = X.toarray()
    X[y == 3] = 0
    clf = HierarchicalSoftmaxClassifier(random_state=0).fit(X, y)
    proba = clf.predict_proba(np.zeros((1, 300)))
    np.testing.assert_allclose(proba.sum(), 1, rtol=1e-6)
    assert proba.argmax() == 3


def test_rows_that_are_all_told_right_do_not_make_it_sure_of_everything(rows):
    X, y = rows(0)
    clf = HierarchicalSoftmaxClassifier(random_state=0).fit(X, y)
    X, y = sparse.csr_array(X), y.astype(np.int32)
    right = clf.predict(X) == y
    arguments = [(clf.tree_, clf.node_weights_)], X[right], y[right], np.ones(right.sum())
    likely = likely_classes(clf.rescoring_, *arguments[:2], None)
    weights = [
        choose_coefficients(clf.rescoring_, likely, *arguments, doubt, None)[0].weight
        for doubt in (1e-2, 1e-3)
    ]
    assert 0 < weights[0] < weights[1] < 100 * clf.rescoring_.weight


@pytest.mark.parametrize(
    "name",
    ["starts", "features", "values", "biases", "lengths", "feature_weights", "coefficients", "reach", "kept"],
)
def test_a_damaged_model_does_not_load(rows, fitted, name):
    state = fitted.__getstate__()
    array = state["rescoring_"][name]
    damaged = [
        None,
        array.tolist(),
        array.astype(complex),
        array[None],
        np.append(array, np.ones(1, array.dtype)),
    ]
    if len(array):
        damaged.append(array[:0])
    if len(array) and array.dtype.kind == "f":
        damaged += [np.where(np.arange(len(array)) == len(array) - 1, bad, array) for bad in (np.nan, np.inf)]
    wrong_values = [(0, -1), (1, -1), (0, 10**8), (len(array) // 2, 10**8)]
    if name == "reach":
        wrong_values = [(0, -1), (0, 10**8), (0, 64.5), (1, 0), (1, -1e3), (2, -0.1), (2, 1)]
    if name == "kept":
        wrong_values = [(0, -1), (0, 1)] + [(0, 0.2)] * (len(state["rescoring_"]["feature_weights"]) == 0)
    if len(array) and name in ("starts", "features", "coefficients", "reach", "kept", "feature_weights"):
        for at, bad in wrong_values:
            if name in ("starts", "features", "reach", "kept") or bad < 0:
                damaged.append(array.copy())
                damaged[-1][at] = bad
    if name == "features" and len(array):
        damaged.append(array[::-1].copy())
    for wrong in damaged:
        with pytest.raises(ValueError, match="this model is damaged"):
            HierarchicalSoftmaxClassifier().__setstate__(
                {**state, "rescoring_": {**state["rescoring_"], name: wrong}}
            )
    missing = {key: value for key, value in state["rescoring_"].items() if key != name}
    with pytest.raises(ValueError, match="this model is damaged"):
        HierarchicalSoftmaxClassifier().__setstate__({**state, "rescoring_": missing})
    with pytest.raises(ValueError, match="this model is damaged"):
        HierarchicalSoftmaxClassifier().__setstate__({**state, "rescoring_": None})


def test_some_nodes_of_other_weights():
    rng = np.random.default_rng(0)
    tree = LabelTree.from_parents([-1, 0, 0, 1, 1, 3, 3, 3, 5, 5, 2, 2, 4, 4])
    arities, none = np.diff(tree.child_ptr), np.empty(0, np.int32)

    def random_weights(n_features):
        weights = NodeWeights.of_sizes(n_features, arities)
        for v, (n, arity) in enumerate(zip(n_features, arities, strict=True)):
            features = rng.permutation(100)[:n].astype(np.int32)
            weights.fill(v, features, rng.normal(size=(n, arity)), rng.normal(size=arity))
        return weights

    n = tree.n_inner
    sources = [random_weights(rng.choice([0, 1, 5, 50], n)) for _ in range(2)]
    for _ in range(20):
        which = rng.integers(2, size=n)
        both = NodeWeights.assembled(sources, which, tree, 100)
        assert both.lines.ctypes.data % 64 == 0
        below = [none] * n
        for v in range(n)[::-1]:
            features, weights, bias = both.node(v, arities[v])
            own, own_weights, own_bias = sources[which[v]].node(v, arities[v])
            # where it has any, those of all below, too, with zeros
            expected = np.union1d(own, below[v]) if len(own) else none
            np.testing.assert_array_equal(features, expected)
            np.testing.assert_array_equal(bias, own_bias)
            is_own = np.isin(features, own)
            np.testing.assert_array_equal(weights[is_own], own_weights)
            assert not weights[~is_own].any()
            if v:
                up = tree.parents[v]
                below[up] = np.union1d(below[up], np.union1d(features, below[v])).astype(np.int32)


def test_weights_are_not_ranked_where_a_node_alone_has_a_feature():
    tree = LabelTree.from_parents([-1, 0, 0, 1, 1])
    weights = NodeWeights.of_sizes(np.array([1, 1]), np.array([2, 2]))
    for v in range(2):
        weights.fill(v, np.array([v], np.int32), np.ones((1, 2), np.float32), np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="a node has features that the node above it has not"):
        weights.ranked(tree, 2)
