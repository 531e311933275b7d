"""Scores without the dense matrix equal those from it."""

import pickle

import numpy as np
import pytest
import sklearn.metrics
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, Normalizer

from sk_hsm import HierarchicalSoftmaxClassifier
from sk_hsm.metrics import log_loss, log_loss_scorer, top_k_accuracy, top_k_accuracy_scorer
from sk_hsm.model_selection import KeepClassesKFold

X, Y = load_digits(return_X_y=True)
X_TRAIN, X_TEST, Y_TRAIN, Y_TEST = X[:400] / 16, X[400:800] / 16, Y[:400], Y[400:800]
WEIGHTS = np.random.default_rng(0).integers(0, 4, 400)
WORDS = ["run", "runs", "running", "cat", "cats", "dog", "dogs", "doggy"] * 4
LEMMAS = ["run", "run", "run", "cat", "cat", "dog", "dog", "dog"] * 4


@pytest.fixture(scope="module", params=[1, 3], ids="n_trees={}".format)
def clf(request):
    clf = HierarchicalSoftmaxClassifier(arity=3, n_trees=request.param, C=0.1, random_state=0)
    return clf.fit(X_TRAIN, Y_TRAIN)


@pytest.fixture
def no_dense(monkeypatch):
    """The dense matrix is an error."""

    def refuse(self, X):
        raise AssertionError("the dense matrix was made")

    for name in ("predict_proba", "predict_log_proba"):
        monkeypatch.setattr(HierarchicalSoftmaxClassifier, name, refuse)


# -- top-k accuracy -----------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 10, 99])
def test_top_k_is_that_of_the_sorted_dense_row(clf, k):
    best = clf.classes_[np.argsort(-clf.predict_proba(X_TEST), axis=1, kind="stable")[:, :k]]
    hits = (best == Y_TEST[:, None]).any(axis=1)
    assert top_k_accuracy(clf, X_TEST, Y_TEST, k) == hits.mean()
    assert top_k_accuracy(clf, X_TEST, Y_TEST, k, WEIGHTS) == np.average(hits, weights=WEIGHTS)


def test_top_k_is_that_of_predict_top_k(clf):
    hits = [label in row for label, row in zip(Y_TEST, clf.predict_top_k(X_TEST, k=2)[0], strict=True)]
    assert top_k_accuracy(clf, X_TEST, Y_TEST, k=2) == np.mean(hits)


def test_top_one_is_accuracy_and_top_all_is_one(clf):
    assert top_k_accuracy(clf, X_TEST, Y_TEST, k=1) == clf.score(X_TEST, Y_TEST) < 1
    assert top_k_accuracy(clf, X_TEST, Y_TEST, k=10) == 1


def test_top_k_is_that_of_scikit_learn(clf):
    theirs = sklearn.metrics.top_k_accuracy_score(
        Y_TEST, clf.predict_proba(X_TEST), k=3, sample_weight=WEIGHTS
    )
    assert top_k_accuracy(clf, X_TEST, Y_TEST, 3, WEIGHTS) == pytest.approx(theirs, abs=1e-12)


def test_a_label_that_training_did_not_see_is_wrong(clf):
    y = Y_TEST.copy()
    y[::4] = 77
    share = np.average(Y_TEST[y != 77] >= 0) * np.mean(y != 77)
    assert top_k_accuracy(clf, X_TEST, y, k=10) == share == 0.75
    assert top_k_accuracy(clf, X_TEST, np.full(400, "x"), k=10) == 0


def test_large_integers_are_not_mixed_up():
    y = [2**53, 2**53 + 1] * 10
    clf = HierarchicalSoftmaxClassifier(random_state=0).fit(np.eye(2).repeat(10, axis=0), sorted(y))
    rows = np.eye(2)
    assert top_k_accuracy(clf, rows, np.array(y[:2], dtype=np.uint64), k=1) == 1
    assert top_k_accuracy(clf, rows, np.array(y[1::-1], dtype=np.uint64), k=1) == 0


# -- log-loss -----------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_log_loss_is_that_of_the_dense_matrix(clf, weights):
    dense = sklearn.metrics.log_loss(Y_TEST, clf.predict_proba(X_TEST), sample_weight=weights)
    assert log_loss(clf, X_TEST, Y_TEST, weights) == pytest.approx(dense, rel=1e-9)


@pytest.mark.parametrize("score", [top_k_accuracy, log_loss])
def test_a_weight_is_that_many_rows(clf, score):
    repeated = score(clf, X_TEST.repeat(WEIGHTS, axis=0), Y_TEST.repeat(WEIGHTS))
    assert score(clf, X_TEST, Y_TEST, sample_weight=WEIGHTS) == pytest.approx(repeated, rel=1e-12)


def test_unseen_labels_are_infinite_dropped_or_uniform(clf):
    y = Y_TEST.copy()
    y[:100] = 77
    seen = log_loss(clf, X_TEST[100:], Y_TEST[100:])
    assert log_loss(clf, X_TEST, y) == np.inf
    assert log_loss(clf, X_TEST, y, unseen="drop") == pytest.approx(seen, rel=1e-12)
    uniform = 0.75 * seen + 0.25 * np.log(10)
    assert log_loss(clf, X_TEST, y, unseen="uniform") == pytest.approx(uniform, rel=1e-12)
    assert log_loss_scorer()(clf, X_TEST, y) == -log_loss(clf, X_TEST, y, unseen="uniform")
    weights = np.ones(400)
    assert log_loss(clf, X_TEST, y, weights, unseen="drop") == pytest.approx(seen, rel=1e-12)
    assert weights.all()  # untouched


@pytest.mark.parametrize("unseen", ["infinite", "drop", "uniform"])
def test_seen_labels_do_not_depend_on_unseen(clf, unseen):
    assert log_loss(clf, X_TEST, Y_TEST, unseen=unseen) == log_loss(clf, X_TEST, Y_TEST)
    y = np.where(Y_TEST == 3, 77, Y_TEST)
    weights = np.where(Y_TEST == 3, 0, 1)
    seen = log_loss(clf, X_TEST[Y_TEST != 3], Y_TEST[Y_TEST != 3])
    assert log_loss(clf, X_TEST, y, weights, unseen=unseen) == pytest.approx(seen, rel=1e-12)


def test_a_class_of_weight_zero_is_unseen():
    clf = HierarchicalSoftmaxClassifier(arity=3, random_state=0)
    clf = clf.fit(X_TRAIN, Y_TRAIN, sample_weight=(Y_TRAIN != 3).astype(float))
    assert log_loss(clf, X_TEST, Y_TEST) == np.inf
    rest = log_loss(clf, X_TEST[Y_TEST != 3], Y_TEST[Y_TEST != 3])
    assert log_loss(clf, X_TEST, Y_TEST, unseen="drop") == pytest.approx(rest, rel=1e-12)


def test_nothing_seen(clf):
    y = np.full(400, 77)
    assert top_k_accuracy(clf, X_TEST, y) == 0
    assert log_loss(clf, X_TEST, y, unseen="uniform") == pytest.approx(np.log(10))
    with pytest.raises(ValueError, match="unseen='drop' leaves none of the 400 rows"):
        log_loss(clf, X_TEST, y, unseen="drop")


# -- what ends in a classifier ------------------------------------------------


def test_rows_and_labels_of_any_type(clf):
    pandas = pytest.importorskip("pandas")
    frame, series = pandas.DataFrame(X_TEST), pandas.Series(Y_TEST)
    for score in (top_k_accuracy, log_loss):
        expected = score(clf, X_TEST, Y_TEST)
        for rows in (sparse.csr_array(X_TEST), X_TEST.tolist(), frame):
            for y in (Y_TEST.tolist(), series):
                assert score(clf, rows, y) == expected


def test_a_pipeline_scores_as_its_parts(no_dense):
    pipe = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)),
        HierarchicalSoftmaxClassifier(random_state=0),
    ).fit(WORDS, LEMMAS)
    rows = pipe[0].transform(WORDS)
    for score in (top_k_accuracy, log_loss):
        assert score(pipe, WORDS, LEMMAS) == score(pipe[-1], rows, LEMMAS)
    assert top_k_accuracy_scorer(k=2)(pipe, WORDS, LEMMAS) == top_k_accuracy(pipe[-1], rows, LEMMAS, k=2)


@pytest.mark.parametrize("wrap", ["one step", "passthrough", "nested", "search", "search in pipeline"])
def test_pipelines_of_all_shapes(wrap):
    clf = HierarchicalSoftmaxClassifier(arity=3, C=0.1, prior=None, random_state=0)
    est = {
        "one step": Pipeline([("clf", clf)]),
        "passthrough": make_pipeline("passthrough", Normalizer(), clf),
        "nested": make_pipeline(MaxAbsScaler(), make_pipeline(Normalizer(), clf)),
        "search": GridSearchCV(make_pipeline(Normalizer(), clf), {}, cv=2),
        "search in pipeline": make_pipeline(Normalizer(), GridSearchCV(clf, {}, cv=2)),
    }[wrap].fit(X_TRAIN, Y_TRAIN)
    dense = sklearn.metrics.log_loss(Y_TEST, est.predict_proba(X_TEST))
    assert log_loss(est, X_TEST, Y_TEST) == pytest.approx(dense, rel=1e-9)
    assert top_k_accuracy(est, X_TEST, Y_TEST, k=1) == est.score(X_TEST, Y_TEST)


# -- scorers ------------------------------------------------------------------


def test_scorers_are_the_scores_greater_better(clf, no_dense):
    assert top_k_accuracy_scorer(k=2)(clf, X_TEST, Y_TEST) == top_k_accuracy(clf, X_TEST, Y_TEST, k=2)
    assert top_k_accuracy_scorer()(clf, X_TEST, Y_TEST, WEIGHTS) == top_k_accuracy(
        clf, X_TEST, Y_TEST, sample_weight=WEIGHTS
    )
    assert log_loss_scorer()(clf, X_TEST, Y_TEST) == -log_loss(clf, X_TEST, Y_TEST)
    assert log_loss_scorer()(clf, X_TEST, Y_TEST, sample_weight=WEIGHTS) == -log_loss(
        clf, X_TEST, Y_TEST, WEIGHTS
    )


@pytest.mark.parametrize("scorer", [top_k_accuracy_scorer(k=2), log_loss_scorer("drop")], ids=repr)
def test_scorers_are_pickled_cloned_and_printed(clf, scorer):
    expected = scorer(clf, X_TEST, Y_TEST)
    for copy in (pickle.loads(pickle.dumps(scorer)), clone(scorer), eval(repr(scorer))):
        assert copy(clf, X_TEST, Y_TEST) == expected
        assert repr(copy) == repr(scorer)
    search = GridSearchCV(clf, {}, scoring=scorer)
    assert repr(scorer) in repr(search)
    assert repr(clone(search).scoring) == repr(scorer)
    assert scorer._repr_html_() and search._repr_html_()


@pytest.mark.parametrize("scorer", [log_loss_scorer(), top_k_accuracy_scorer(k=1)], ids=repr)
def test_a_grid_search_picks_the_best_score(no_dense, scorer):
    pipe = make_pipeline(MaxAbsScaler(), HierarchicalSoftmaxClassifier(arity=3, prior=None, random_state=0))
    grid = {"hierarchicalsoftmaxclassifier__C": [1e-5, 0.3, 1e5]}
    cv = KeepClassesKFold(3, random_state=0)
    search = GridSearchCV(pipe, grid, cv=cv, scoring=scorer, error_score="raise").fit(X_TRAIN, Y_TRAIN)
    means = []
    for C in grid["hierarchicalsoftmaxclassifier__C"]:
        folds = []
        for train, test in cv.split(X_TRAIN, Y_TRAIN):
            fold = clone(pipe).set_params(hierarchicalsoftmaxclassifier__C=C)
            fold.fit(X_TRAIN[train], Y_TRAIN[train])
            folds.append(scorer(fold, X_TRAIN[test], Y_TRAIN[test]))
        means.append(np.mean(folds))
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], means, rtol=1e-12)
    assert search.best_index_ == np.argmax(means)
    assert search.best_params_["hierarchicalsoftmaxclassifier__C"] == 0.3
    assert scorer(search, X_TEST, Y_TEST) == search.score(X_TEST, Y_TEST)


def test_folds_with_unseen_labels_have_finite_scores(no_dense):
    y = np.where(np.arange(400) < 30, 100 + np.arange(400), Y_TRAIN)
    clf = HierarchicalSoftmaxClassifier(C=1, prior=None, random_state=0)
    for scorer in (log_loss_scorer(), log_loss_scorer("drop"), top_k_accuracy_scorer()):
        scores = cross_val_score(clf, X_TRAIN, y, cv=KFold(3), scoring=scorer, error_score="raise")
        assert np.isfinite(scores).all()


def test_unseen_labels_do_not_change_which_candidate_is_best(clf):
    y = np.where(np.arange(400) % 7, Y_TEST, 77)
    other = HierarchicalSoftmaxClassifier(arity=3, C=10, random_state=1).fit(X_TRAIN, Y_TRAIN)
    uniform = log_loss(clf, X_TEST, y, unseen="uniform") - log_loss(other, X_TEST, y, unseen="uniform")
    drop = log_loss(clf, X_TEST, y, unseen="drop") - log_loss(other, X_TEST, y, unseen="drop")
    assert uniform == pytest.approx(drop * np.mean(y != 77), rel=1e-9)


def test_weights_reach_several_scorers():
    scoring = {"loss": log_loss_scorer(), "top": top_k_accuracy_scorer(k=2)}
    clf = HierarchicalSoftmaxClassifier(C=1, prior=None, random_state=0)
    cv = KeepClassesKFold(2, random_state=0)
    grid = {"C": [1]}
    with config_context(enable_metadata_routing=True):
        weighted = {name: scorer.set_score_request(sample_weight=True) for name, scorer in scoring.items()}
        clf.set_fit_request(sample_weight=True)
        search = GridSearchCV(clf, grid, cv=cv, scoring=weighted, refit=False, error_score="raise")
        search.fit(X_TRAIN, Y_TRAIN, sample_weight=WEIGHTS)
    for name, scorer in scoring.items():
        for i, (train, test) in enumerate(cv.split(X_TRAIN, Y_TRAIN)):
            fold = clone(clf).fit(X_TRAIN[train], Y_TRAIN[train], sample_weight=WEIGHTS[train])
            expected = scorer(fold, X_TRAIN[test], Y_TRAIN[test], WEIGHTS[test])
            assert search.cv_results_[f"split{i}_test_{name}"][0] == expected
    # without routing, scikit-learn passes weights on by itself, or not at all, as its version has it
    search = GridSearchCV(clf, grid, cv=cv, scoring=scoring, refit=False, error_score="raise")
    search.fit(X_TRAIN, Y_TRAIN, sample_weight=WEIGHTS)


# -- errors -------------------------------------------------------------------


@pytest.mark.parametrize("score", [top_k_accuracy, log_loss, top_k_accuracy_scorer(), log_loss_scorer()])
def test_other_estimators_are_refused(score):
    other = LogisticRegression().fit(X_TRAIN, Y_TRAIN)
    for est in (other, make_pipeline(MaxAbsScaler(), other), GridSearchCV(other, {})):
        with pytest.raises(TypeError, match="est must be a classifier of sk_hsm, or a Pipeline"):
            score(est, X_TEST, Y_TEST)
    with pytest.raises(TypeError, match="got str, which has no"):
        score(make_pipeline(MaxAbsScaler(), "passthrough"), X_TEST, Y_TEST)
    unfitted = HierarchicalSoftmaxClassifier()
    for est in (unfitted, make_pipeline(MaxAbsScaler(), unfitted)):
        with pytest.raises(NotFittedError):
            score(est, X_TEST, Y_TEST)


@pytest.mark.parametrize("score", [top_k_accuracy, log_loss])
def test_wrong_rows_labels_and_weights(clf, score):
    with pytest.raises(ValueError, match="X has 400 rows and y 399 labels, they must agree"):
        score(clf, X_TEST, Y_TEST[1:])
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(400,\)"):
        score(clf, X_TEST, Y_TEST, sample_weight=WEIGHTS[1:])
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        score(clf, X_TEST, Y_TEST, sample_weight=WEIGHTS - 1)
    with pytest.raises(ValueError, match="all weights are zero"):
        score(clf, X_TEST, Y_TEST, sample_weight=0 * WEIGHTS)
    with pytest.raises(ValueError, match="X has 3 features"):
        score(clf, X_TEST[:, :3], Y_TEST)


def test_wrong_parameters_are_refused_at_once(clf):
    for k in (0, 2.5, True, None):
        with pytest.raises(ValueError, match="k must be an integer of 1 or more, got"):
            top_k_accuracy_scorer(k=k)
        with pytest.raises(ValueError, match="k must be an integer of 1 or more, got"):
            top_k_accuracy(clf, X_TEST, Y_TEST, k=k)
    for unseen in ("zero", None, 0.5, []):
        with pytest.raises(ValueError, match="unseen must be one of 'infinite', 'uniform', 'drop', got"):
            log_loss_scorer(unseen)
        with pytest.raises(ValueError, match="unseen must be one of"):
            log_loss(clf, X_TEST, Y_TEST, unseen=unseen)
