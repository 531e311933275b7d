"""Every class stays in training, in every split."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score

from sk_hsm import HierarchicalSoftmaxClassifier
from sk_hsm.metrics import log_loss_scorer
from sk_hsm.model_selection import KeepClassesKFold, KeepClassesShuffleSplit, train_test_split

SEEDS = st.integers(0, 2**32 - 1)
# at least one class has two rows
LABELS = st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda y: len(set(y)) < len(y))
LONG_TAIL = np.minimum(np.random.default_rng(0).zipf(1.3, 3000), 10**9)


def parts(cv, y):
    return list(cv.split(np.zeros((len(y), 1)), y))


def check_split(train, test, y):
    """Each row is in one part, every class in training."""
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(y)))
    assert set(np.asarray(y)[train].tolist()) == set(np.asarray(y).tolist())


# -- folds --------------------------------------------------------------------


@given(LABELS, st.integers(2, 6), SEEDS)
def test_folds_keep_every_class_in_training(y, n_splits, seed):
    y = np.array(y)
    has_another = np.bincount(y)[y] > 1
    n_splits = min(n_splits, has_another.sum())
    tested = np.zeros(len(y), dtype=int)
    sizes = []
    for train, test in parts(KeepClassesKFold(n_splits, random_state=seed), y):
        check_split(train, test, y)
        tested[test] += 1
        sizes.append(len(test))
    np.testing.assert_array_equal(tested, has_another)
    assert len(sizes) == n_splits
    assert max(sizes) - min(sizes) <= 1


@given(LABELS, st.integers(2, 6), SEEDS)
def test_folds_have_like_shares_of_each_class(y, n_splits, seed):
    y = np.array(y)
    n_splits = min(n_splits, (np.bincount(y)[y] > 1).sum())
    counts = [np.bincount(y[test], minlength=13) for _, test in parts(KeepClassesKFold(n_splits), y)]
    assert (np.max(counts, axis=0) - np.min(counts, axis=0) <= 1).all()


def test_each_row_is_as_likely_in_each_fold():
    y = np.repeat([0, 1, 2], [2, 3, 5])
    folds = np.zeros((5, len(y)))
    for seed in range(2000):
        for fold, (_, test) in enumerate(parts(KeepClassesKFold(5, random_state=seed), y)):
            folds[fold, test] += 1
    # five standard deviations
    assert (np.abs(folds / 2000 - 0.2) < 5 * np.sqrt(0.16 / 2000)).all()


# -- shuffled splits ----------------------------------------------------------


@given(LABELS, st.integers(1, 4), SEEDS, st.data())
def test_shuffled_splits_keep_every_class_in_training(y, n_splits, seed, data):
    n_free = len(y) - len(set(y))
    n_test = data.draw(st.integers(1, n_free))
    splits = parts(KeepClassesShuffleSplit(n_splits, test_size=n_test, random_state=seed), y)
    assert len(splits) == n_splits
    for train, test in splits:
        check_split(train, test, y)
        assert len(test) == n_test


def test_the_row_that_stays_is_any_row_of_its_class():
    y = np.repeat([0, 1, 2], [1, 2, 5])
    stayed = np.zeros(len(y))
    for train, _ in parts(KeepClassesShuffleSplit(2000, test_size=5, random_state=0), y):
        stayed[train] += 1
    share = 1 / np.bincount(y)[y]
    # five standard deviations
    assert (np.abs(stayed / 2000 - share) <= 5 * np.sqrt(share * (1 - share) / 2000)).all()


def test_a_share_is_rounded_up_as_in_scikit_learn():
    y = np.repeat(np.arange(4), 26)[:101]
    (_, test) = parts(KeepClassesShuffleSplit(1, test_size=0.25), y)[0]
    assert len(test) == 26
    assert len(parts(KeepClassesShuffleSplit(), y)) == 10
    assert len(parts(KeepClassesShuffleSplit(), y)[0][1]) == 11


# -- both ---------------------------------------------------------------------

SPLITTERS = [KeepClassesKFold(3, random_state=0), KeepClassesShuffleSplit(3, test_size=0.2, random_state=0)]


@pytest.mark.parametrize("cv", SPLITTERS, ids=repr)
def test_a_seed_fixes_the_splits(cv):
    first = parts(cv, LONG_TAIL)
    for again in (cv, pickle.loads(pickle.dumps(cv)), clone(cv, safe=False)):
        for one, other in zip(first, parts(again, LONG_TAIL), strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
    other = type(cv)(3, random_state=1)
    assert not np.array_equal(first[0][1], parts(other, LONG_TAIL)[0][1])
    assert not np.array_equal(first[0][1], first[1][1])


@pytest.mark.parametrize("cv", SPLITTERS, ids=repr)
def test_labels_of_any_type(cv):
    pandas = pytest.importorskip("pandas")
    y = LONG_TAIL % 100
    names = np.array([f"class {label:03}" for label in y])
    expected = parts(cv, y)
    assert cv.get_n_splits() == cv.get_n_splits(y, y, None) == len(expected)
    for labels in (
        y.tolist(),
        y.astype(np.uint64),
        y.astype(float),
        names,
        names.astype(object),
        names.tolist(),
    ):
        for one, other in zip(expected, parts(cv, labels), strict=True):
            np.testing.assert_array_equal(one[1], other[1])
    for series in (pandas.Series(y), pandas.Series(names), pandas.Series(names, dtype="category")):
        for one, other in zip(expected, parts(cv, series), strict=True):
            np.testing.assert_array_equal(one[1], other[1])


def test_they_print_as_they_are_made():
    assert repr(KeepClassesKFold(3)) == "KeepClassesKFold(n_splits=3, random_state=None)"
    assert repr(KeepClassesShuffleSplit(2, test_size=7)) == (
        "KeepClassesShuffleSplit(n_splits=2, random_state=None, test_size=7)"
    )


@pytest.mark.parametrize("cv", SPLITTERS, ids=repr)
def test_as_cv_of_scikit_learn(cv):
    X, y = load_digits(return_X_y=True)
    X, y = X[:300] / 16, np.where(np.arange(300) < 20, 100 + np.arange(300), y[:300])
    clf = HierarchicalSoftmaxClassifier(arity=4, C=1, prior=None, random_state=0)
    scoring = log_loss_scorer("infinite")  # finite where every label was seen
    scores = cross_val_score(clf, X, y, cv=cv, scoring=scoring, error_score="raise")
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    search = GridSearchCV(clf, {"C": [1e-4, 1]}, cv=cv, scoring=scoring).fit(sparse.csr_array(X), y)
    assert search.best_score_ == pytest.approx(scores.mean(), rel=1e-12)
    assert search.best_params_ == {"C": 1}


# -- arrays -------------------------------------------------------------------


@given(LABELS, SEEDS, st.data())
def test_arrays_are_split_alike(y, seed, data):
    n_test = data.draw(st.integers(1, len(y) - len(set(y))))
    numbers = np.arange(len(y))
    X = sparse.csr_array(np.stack([numbers, numbers + 1], axis=1))
    split = train_test_split(X, y, numbers, numbers.tolist(), test_size=n_test, random_state=seed)
    X_train, X_test, y_train, y_test, train, test, train_list, test_list = split
    check_split(train, test, y)
    assert (y_train, y_test) == ([y[i] for i in train], [y[i] for i in test])
    assert (train_list, test_list) == (train.tolist(), test.tolist())
    np.testing.assert_array_equal(X_train.toarray()[:, 0], train)
    np.testing.assert_array_equal(X_test.toarray()[:, 1], test + 1)


def test_types_are_kept():
    pandas = pytest.importorskip("pandas")
    y = np.repeat(np.arange(5), 8)
    frame = pandas.DataFrame({"a": np.arange(40), "b": ["x"] * 40}, index=np.arange(40) + 100)
    split = train_test_split(frame, pandas.Series(y, index=frame.index), random_state=0)
    assert [type(part).__name__ for part in split] == ["DataFrame"] * 2 + ["Series"] * 2
    assert [len(part) for part in split] == [30, 10, 30, 10]
    assert split[0].index.equals(split[2].index)
    for matrix in (sparse.csr_array(np.eye(40)), sparse.coo_array(np.eye(40)), sparse.csc_matrix(np.eye(40))):
        rows = train_test_split(matrix, y, random_state=0)[1]
        assert rows.format == "csr"
        np.testing.assert_array_equal(rows.toarray().argmax(axis=1), split[1]["a"])


# -- errors -------------------------------------------------------------------


@pytest.mark.parametrize("test_size", [0, -1, 1.0, 0.0, 1.5, True, "a", None, np.nan])
def test_wrong_test_sizes(test_size):
    for make in (
        lambda: KeepClassesShuffleSplit(test_size=test_size),
        lambda: train_test_split([1, 2, 3], [0, 0, 1], test_size=test_size),
    ):
        with pytest.raises(
            ValueError, match=r"test_size must be a share in \(0, 1\) or a number of rows, got"
        ):
            make()


def test_wrong_numbers_of_splits():
    for n_splits in (0, 2.5, True, None):
        for make in (KeepClassesKFold, KeepClassesShuffleSplit):
            with pytest.raises(ValueError, match="n_splits must be an integer of 1 or more, got"):
                make(n_splits)
    with pytest.raises(ValueError, match="n_splits must be 2 or more, got 1: use KeepClassesShuffleSplit"):
        KeepClassesKFold(1)
    with pytest.raises(ValueError, match="n_splits must be at most 3, the number of rows .*, got 5"):
        parts(KeepClassesKFold(), [1, 1, 1, 2, 3, 4, 5])


def test_more_rows_than_can_be_tested():
    y = [0, 0, 0, 1, 2]
    with pytest.raises(ValueError, match="test_size=3 asks for 3 of 5 rows, but each of the 3 classes keeps"):
        train_test_split(y, y, test_size=3)
    with pytest.raises(ValueError, match="test_size=0.5 asks for 3 of 5 rows, .*: give test_size=2 or less"):
        parts(KeepClassesShuffleSplit(test_size=0.5), y)
    for cv in SPLITTERS:
        with pytest.raises(ValueError, match="y has 3 rows and as many classes, so that none can be tested"):
            parts(cv, ["a", "b", "c"])


def test_wrong_labels_and_groups():
    rows = np.zeros((6, 1))
    for cv in SPLITTERS:
        with pytest.raises(ValueError, match="the target y is None"):
            list(cv.split(rows, None))
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            list(cv.split(rows, [0, 0, 1]))
        with pytest.raises(ValueError, match="NaN"):
            list(cv.split(rows, [0, 0, 0, 0, 1, np.nan]))
        with pytest.warns(UserWarning, match="groups is ignored by KeepClasses"):
            list(cv.split(rows, [0, 0, 0, 0, 1, 1], groups=[0, 0, 0, 1, 1, 1]))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        train_test_split(rows, [0] * 6, [1] * 5)
