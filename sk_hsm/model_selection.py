"""Splits of rows into training and test parts that keep every class in training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import chain
from math import ceil
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import BaseCrossValidator, BaseShuffleSplit
from sklearn.utils import _safe_indexing, check_random_state, indexable

from .validation import check_count, encode_labels

Split = tuple[NDArray[np.intp], NDArray[np.intp]]


class _KeepClasses:
    """What both splitters share: y is needed, groups are not used."""

    def split(self, X: Any, y: ArrayLike, groups: Any = None) -> Iterator[Split]:
        """Row numbers of the training and the test part of each split.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Only its number of rows is used.
        y : array-like of shape (n_samples,)
            The label of each row.
        groups : object
            Always ignored, exists for API compatibility.

        Yields
        ------
        train : ndarray
            Row numbers of the training part.
        test : ndarray
            Row numbers of the test part.
        """
        if groups is not None:
            warnings.warn(f"groups is ignored by {self}: leave it out", UserWarning, stacklevel=2)
        return super().split(X, y, groups)  # type: ignore[misc]


class KeepClassesKFold(_KeepClasses, BaseCrossValidator):
    """K folds, at random, that keep every class in training.

    The rows of a class are dealt to folds in turn: in each split every class has a row in
    training, and folds have like shares of it. A row that is the only one of its class is
    never tested, every other row exactly once.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, 2 or more.
    random_state : int, RandomState instance or None, default=None
        Draws which row comes into which fold.

    See Also
    --------
    KeepClassesShuffleSplit : Test parts of any size, as many as wanted.
    sklearn.model_selection.StratifiedKFold : Tests the only row of a class, too.

    Notes
    -----
    ``O(n_samples * log(n_samples))`` time.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_hsm.model_selection import KeepClassesKFold
    >>> y = np.array(["ant", "bee", "bee", "cat", "cat", "cat"])
    >>> for train, test in KeepClassesKFold(n_splits=2, random_state=0).split(y, y):
    ...     print(np.unique(y[train]), len(test))
    ['ant' 'bee' 'cat'] 2
    ['ant' 'bee' 'cat'] 3
    """

    def __init__(self, n_splits: int = 5, *, random_state: int | np.random.RandomState | None = None) -> None:
        self.n_splits = check_count("n_splits", n_splits)
        if n_splits < 2:
            raise ValueError(
                f"n_splits must be 2 or more, got {n_splits}: use KeepClassesShuffleSplit for one"
            )
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """The number of folds.

        Parameters
        ----------
        X, y, groups : object
            Always ignored, exist for API compatibility.

        Returns
        -------
        n_splits : int
        """
        return self.n_splits

    def _iter_test_indices(self, X: Any = None, y: Any = None, groups: Any = None) -> Iterator[Any]:
        classes, y = encode_labels(y)
        counts = np.bincount(y)
        n_tested = len(y) - np.count_nonzero(counts == 1)
        _check_any_tested(len(y), len(classes))
        if n_tested < self.n_splits:
            raise ValueError(
                f"n_splits must be at most {n_tested}, the number of rows whose class has another row, "
                f"got {self.n_splits}"
            )
        rng = check_random_state(self.random_state)
        order = rng.permutation(len(y))
        order = order[counts[y[order]] > 1]
        place = rng.permutation(len(classes))
        order = order[np.argsort(place[y[order]], kind="stable")]
        # neighbours are in different folds, so two rows of a class are, too
        for fold in rng.permutation(self.n_splits):
            yield order[fold :: self.n_splits]


class KeepClassesShuffleSplit(_KeepClasses, BaseShuffleSplit):
    """Random splits into training and test parts that keep every class in training.

    For each split one row of every class, drawn at random, stays in training. The test part is
    drawn at random from the other rows, and all that is left is training.

    Parameters
    ----------
    n_splits : int, default=10
        Number of splits.
    test_size : float or int, default=0.1
        The test part: its share of all rows, or its number of rows. At most
        n_samples - n_classes rows can be tested.
    random_state : int, RandomState instance or None, default=None
        Draws the splits.

    See Also
    --------
    KeepClassesKFold : Tests a row once.
    train_test_split : One split of arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_hsm.model_selection import KeepClassesShuffleSplit
    >>> y = np.array(["ant", "bee", "bee", "cat", "cat", "cat"])
    >>> cv = KeepClassesShuffleSplit(n_splits=2, test_size=2, random_state=0)
    >>> for train, test in cv.split(y, y):
    ...     print(np.unique(y[train]), len(test))
    ['ant' 'bee' 'cat'] 2
    ['ant' 'bee' 'cat'] 2
    """

    def __init__(
        self,
        n_splits: int = 10,
        *,
        test_size: float | int = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        _check_test_size(test_size)
        super().__init__(check_count("n_splits", n_splits), test_size=test_size, random_state=random_state)

    def _iter_indices(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Split]:
        classes, y = encode_labels(y)
        n_test = _count_tested(self.test_size, len(y), len(classes))
        rng = check_random_state(self.random_state)
        for _ in range(self.n_splits):
            order = rng.permutation(len(y))
            kept = np.empty(len(classes), dtype=np.intp)
            kept[y[order]] = order  # the last row of a class stays
            is_free = np.ones(len(y), dtype=bool)
            is_free[kept] = False
            test = order[is_free[order]][:n_test]
            is_train = np.ones(len(y), dtype=bool)
            is_train[test] = False
            yield order[is_train[order]], test


def train_test_split(
    X: Any,
    y: ArrayLike,
    *others: Any,
    test_size: float | int = 0.25,
    random_state: int | np.random.RandomState | None = None,
) -> list[Any]:
    """Split rows at random into a training and a test part; training keeps every class.

    Parameters
    ----------
    X : array-like, sparse matrix or data frame of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,)
        The label of each row.
    *others : array-like, sparse matrix or data frame of length n_samples
        More to be split alike, such as weights.
    test_size : float or int, default=0.25
        The test part: its share of all rows, or its number of rows. At most
        n_samples - n_classes rows can be tested.
    random_state : int, RandomState instance or None, default=None
        Draws the split.

    Returns
    -------
    splitting : list of length 4 + 2 * len(others)
        X_train, X_test, y_train, y_test, and so on; each of the type that was given, sparse
        matrices as CSR.

    See Also
    --------
    KeepClassesShuffleSplit : The same as row numbers, several times.
    sklearn.model_selection.train_test_split : Without regard to classes, or stratified.

    Examples
    --------
    >>> from sk_hsm.model_selection import train_test_split
    >>> words, lemmas = ["cat", "cats", "runs", "ran"], ["cat", "cat", "run", "run"]
    >>> X_train, X_test, y_train, y_test = train_test_split(words, lemmas, test_size=2, random_state=0)
    >>> sorted(y_train), sorted(y_test)
    (['cat', 'run'], ['cat', 'run'])
    """
    cv = KeepClassesShuffleSplit(1, test_size=test_size, random_state=random_state)
    arrays = indexable(X, y, *others)
    train, test = next(cv.split(arrays[0], arrays[1]))
    return list(chain.from_iterable((_safe_indexing(a, train), _safe_indexing(a, test)) for a in arrays))


# -- checks -------------------------------------------------------------------


def _check_test_size(test_size: Any) -> None:
    if isinstance(test_size, Integral) and not isinstance(test_size, bool):
        is_right = int(test_size) >= 1
    else:
        is_right = (
            isinstance(test_size, Real) and not isinstance(test_size, bool) and 0 < float(test_size) < 1
        )
    if not is_right:
        raise ValueError(f"test_size must be a share in (0, 1) or a number of rows, got {test_size!r}")


def _count_tested(test_size: float | int, n_rows: int, n_classes: int) -> int:
    """How many rows test_size asks for, or ValueError where not so many are free."""
    _check_any_tested(n_rows, n_classes)
    n_test = int(test_size) if isinstance(test_size, Integral) else ceil(test_size * n_rows)
    n_free = n_rows - n_classes
    if n_test > n_free:
        raise ValueError(
            f"test_size={test_size} asks for {n_test} of {n_rows} rows, but each of the {n_classes} classes "
            f"keeps one in training: give test_size={n_free} or less"
        )
    return n_test


def _check_any_tested(n_rows: int, n_classes: int) -> None:
    if n_rows == n_classes:
        raise ValueError(
            f"y has {n_rows} rows and as many classes, so that none can be tested: "
            "a class needs two rows to have one tested"
        )
