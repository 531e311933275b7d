"""What can be asked of a fitted estimator: the prediction methods; no maths, no loops."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from . import inference
from .validation import (
    check_count,
    check_structure,
    check_weights,
    encode_all,
    encode_known,
    encode_labels,
    one_row,
)


class Predictions:
    """The methods of an estimator with classes_ and n_jobs.

    A subclass has `_queries`, which checks X, and methods that get what that returns: `_all_log_proba`,
    `_class_log_proba`, `_sample` and `_top_k`.
    """

    def predict(self, X: ArrayLike | sparse.sparray) -> NDArray[Any]:
        """The most probable label of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            The exact argmax of `predict_proba`.
        """
        best, _ = self._top_k(self._queries(X), 1)
        return self.classes_[best[:, 0]]

    def predict_proba(self, X: ArrayLike | sparse.sparray) -> NDArray[np.float64]:
        """The probability of every class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Columns as in `classes_`; rows sum to one.

        Raises
        ------
        MemoryError
            If the matrix cannot fit in memory; nothing has been allocated then. See
            `predict_top_k`, `predict_proba_sparse` and `log_proba_of`.

        Notes
        -----
        ``O(non-zeros * n_classes)`` a row, like a flat softmax.
        """
        proba = self.predict_log_proba(X)
        return np.exp(proba, out=proba)

    def predict_log_proba(self, X: ArrayLike | sparse.sparray) -> NDArray[np.float64]:
        """The log-probability of every class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
            Minus infinity only where the probability is truly zero.

        Raises
        ------
        MemoryError
            As `predict_proba`.
        """
        return self._all_log_proba(self._queries(X))

    def log_proba_of(self, X: ArrayLike | sparse.sparray, y: ArrayLike) -> NDArray[np.float64]:
        """The log-probability of one given label for each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Labels; minus infinity is returned for one that `fit` has not seen.

        Returns
        -------
        log_proba : ndarray of shape (n_samples,)
            Equal to the entries of `predict_log_proba`; of a tree at the cost of one path a row,
            and of a search for likely classes where these are scored again.
        """
        X = self._queries(X)
        classes = encode_known(y, self.classes_)
        if len(classes) != X.shape[0]:
            raise ValueError(f"X has {X.shape[0]} rows and y {len(classes)} labels, they must agree")
        return self._class_log_proba(X, classes)

    def predict_proba_sparse(
        self, X: ArrayLike | sparse.sparray, k: int | None = None, min_proba: float | None = None
    ) -> sparse.csr_array:
        """The largest probabilities of each row, the others left out.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        k : int, default=None
            Keep the k most probable classes.
        min_proba : float, default=None
            Keep classes of at least this probability, in (0, 1]. Either k or min_proba, or
            both, must be given.

        Returns
        -------
        proba : csr_array of shape (n_samples, n_classes)
            Columns as in `classes_`. The dense matrix is never made.
        """
        if k is None and min_proba is None:
            raise ValueError("predict_proba_sparse needs k or min_proba, got neither")
        check_is_fitted(self)
        k = len(self.classes_) if k is None else min(check_count("k", k), len(self.classes_))
        floor = -np.inf
        if min_proba is not None:
            if not (isinstance(min_proba, Real) and 0 < min_proba <= 1):
                raise ValueError(f"min_proba must be a number in (0, 1], got {min_proba!r}")
            floor = float(np.log(float(min_proba)))
            k = int(min(k, 1 / float(min_proba) + 1))  # no more can have such a probability
        X = self._queries(X)
        return inference.sparse_proba(lambda part: self._top_k(part, k, floor), X, k, len(self.classes_))

    def sample(
        self,
        X: ArrayLike | sparse.sparray,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> NDArray[Any]:
        """Labels drawn from the predicted distribution of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_rows, n_features)
        n_samples : int, default=1
            Number of independent draws for each row.
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        labels : ndarray of shape (n_rows, n_samples)
            In a tree one walk down each, and one search a row where likely classes are scored again.
        """
        n_samples = check_count("n_samples", n_samples)
        X = self._queries(X)
        inference.check_fits_in_memory(f"sample of {n_samples} labels", X.shape[0], 24 * n_samples, "fewer")
        rng = check_random_state(random_state)
        return self.classes_[self._sample(X, lambda: rng.random_sample((X.shape[0], n_samples)))]

    def _queries(self, X: Any) -> Any:
        """What is asked about, checked: X, or its only row as kernels take it."""
        if not hasattr(self, "classes_"):
            check_is_fitted(self)
        row = None if hasattr(self, "feature_names_in_") else one_row(X, self.n_features_in_)
        return self._validate_rows(X) if row is None else row

    def _labelled_rows(
        self, X: Any, y: Any, sample_weight: Any, classes: NDArray[Any] | None, reset: bool
    ) -> tuple[Any, NDArray[np.int32], NDArray[np.float64], NDArray[Any]]:
        """What is learned from, checked: rows, numbers of labels, weights; and the classes, of y if None."""
        if y is None:
            encode_labels(y)
        X = self._validate_rows(X, reset=reset)
        if classes is None:
            classes, y = encode_labels(y)
        else:
            y = encode_all(y, classes)
        if len(y) != X.shape[0]:
            raise ValueError(f"X has {X.shape[0]} rows and y {len(y)} labels, they must agree")
        return X, y, check_weights(sample_weight, len(y)), classes

    def _validate_rows(self, X: Any, reset: bool = False) -> Any:
        return validate_data(
            self, check_structure(X), reset=reset, accept_sparse="csr", dtype=[np.float64, np.float32]
        )


class TreePredictions(Predictions):
    """The methods of an estimator with node_weights_ and tree_, or trees_; and rescoring_, or not."""

    def predict_top_k(
        self, X: ArrayLike | sparse.sparray, k: int = 5, beam_width: int | None = None
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """The k most probable labels of each row, and their probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        k : int, default=5
            Number of labels; at most n_classes are returned.
        beam_width : int, default=None
            None searches best first and is exact. A number keeps that many nodes at each
            level of the tree: an approximation, of bounded cost, that gives fewer than k
            labels where the beam holds fewer (probability 0, the first class, stands in).
            For one tree only; probabilities are then those before likely classes are scored
            again, see `rescore`.

        Returns
        -------
        labels : ndarray of shape (n_samples, min(k, n_classes))
            Most probable first; ties in the order of `classes_`.
        proba : ndarray of shape (n_samples, min(k, n_classes))
        """
        k = check_count("k", k)
        if beam_width is not None:
            beam_width = check_count("beam_width", beam_width)
        X = self._queries(X)
        if beam_width is not None and len(self._models) > 1:
            raise ValueError(
                f"beam_width is for one tree, got {len(self._models)} trees: leave it None, which is exact"
            )
        if beam_width is not None:
            beam_width = min(beam_width, len(self.classes_))  # no level has more
        classes, log_proba = self._top_k(X, min(k, len(self.classes_)), beam_width=beam_width)
        return self.classes_[np.maximum(classes, 0)], np.exp(log_proba, out=log_proba)

    @property
    def _models(self) -> inference.Models:
        smoothing = 0.0 if self._rescoring is None else self._rescoring.smoothing
        if hasattr(self, "tree_"):
            return [(self.tree_, self.node_weights_, smoothing)]
        return [(*model, smoothing) for model in zip(self.trees_, self.node_weights_, strict=True)]

    @property
    def _averaged(self) -> inference.Models:
        """The models whose mean is asked for: of a single class one, as a mean of ones is rounded."""
        return self._models[: None if len(self.classes_) > 1 else 1]

    @property
    def _rescoring(self) -> inference.Rescoring | None:
        return getattr(self, "rescoring_", None)

    def _top_k(
        self, X: Any, k: int, min_log_proba: float = -np.inf, beam_width: int | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        models, rescoring = self._averaged, self._rescoring
        return inference.top_k(models, X, k, self.n_jobs, min_log_proba, beam_width, rescoring)

    def _all_log_proba(self, X: Any) -> NDArray[np.float64]:
        return inference.all_log_proba(self._averaged, X, self.n_jobs, self._rescoring)

    def _class_log_proba(self, X: Any, classes: NDArray[np.int32]) -> NDArray[np.float64]:
        return inference.path_log_proba(self._averaged, X, classes, self.n_jobs, self._rescoring)

    def _sample(self, X: Any, draw: Callable[[], NDArray[np.float64]]) -> NDArray[np.int32]:
        classes = inference.sample_classes(self._models, X, draw(), self.n_jobs)
        if self._rescoring is not None:
            inference.draw_again(self._models, X, classes, draw(), self.n_jobs, self._rescoring)
        return classes
