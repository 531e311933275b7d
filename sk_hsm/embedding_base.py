"""What estimators that embed rows share: fit from rows, from batches and bit by bit, and transform."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted

from ._state import as_before_on_error, pack_state, unpack_state
from .embedding_training import (
    OVERFLOW,
    LabelledRows,
    Model,
    Piece,
    Pieces,
    are_usual,
    check_batches,
    choose_n_epochs,
    first_pass,
    in_pieces,
    learn,
    piece_starts,
    unit_row,
    unit_rows,
    visit,
    with_rows,
)
from .inference import check_fits_in_memory, rows_at_a_time
from .progress import Progress
from .validation import check_first_classes, check_same_classes, one_row

# A value of a row that is divided by its norm, its column and their copies meanwhile.
VALUE_BYTES = 80


class EmbeddingEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator):
    """An estimator that has learned from the vectors of rows what a row's label is.

    A subclass has the parameters norm, learning_rate, n_epochs, lock_free, n_jobs, random_state and
    verbose, the methods of predictions, and those below that raise NotImplementedError.
    """

    def _start(
        self,
        pieces: Pieces,
        n_pieces: int,
        n_epochs: int,
        classes: NDArray[Any],
        frequency: NDArray[np.float64],
    ) -> Model:
        """A model that knows nothing, before all pieces are visited n_epochs times."""
        raise NotImplementedError

    def _resume(self, frequency: NDArray[np.float64]) -> Model:
        """A copy of what has been learned, before rows of labels of this frequency."""
        raise NotImplementedError

    def _set_learned(self, model: Any) -> None:
        """Set the attributes, from a model whose numbers are finite."""
        raise NotImplementedError

    def _embed_rows(self, rows: sparse.csr_array) -> NDArray[np.float32]:
        """The vectors of rows that have been divided by their norm."""
        raise NotImplementedError

    @property
    def _vector_bytes(self) -> int:
        """What _embed_rows takes for each of them."""
        return 4 * self._n_features_out

    # -- fit ----------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike | sparse.sparray, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> EmbeddingEstimator:
        """Learn in `n_epochs` passes over the rows in random order.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows; kept as float32.
        y : array-like of shape (n_samples,)
            The label of each row.
        sample_weight : array-like of shape (n_samples,), default=None
            What the step of a row is multiplied by; not negative, not all zero.

        Returns
        -------
        self : object
            The fitted estimator. If `fit` raises, it is as it was before.

        Raises
        ------
        ValueError
            If X, y, the weights, a parameter or the tree is wrong; the message names which. Or if numbers
            overflow: as steps that would overshoot are shortened, only enormous rates or weights do that.
        MemoryError
            If the embeddings cannot fit in memory; nothing has been allocated then.
        """
        with as_before_on_error(self):
            rows, classes = self._rows(X, y, sample_weight, None, reset=True)
            n_rows = len(rows.y)
            frequency = np.bincount(rows.y, weights=rows.weights, minlength=len(classes))
            rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
            n_epochs, params = choose_n_epochs(self.n_epochs, n_rows), self.get_params(deep=False)
            n_pieces = len(piece_starts(n_rows, params))

            def pieces() -> list[Piece]:
                return in_pieces(rows, rng.permutation(n_rows), params)

            return self._fit(pieces, n_pieces, n_epochs, classes, frequency)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_batches(
        self, batches: Iterable, classes: ArrayLike | None = None, counts: ArrayLike | None = None
    ) -> EmbeddingEstimator:
        """Learn from rows that are too many for memory, in `n_epochs` passes over batches of them.

        Parameters
        ----------
        batches : sized iterable of tuples (X, y) or (X, y, sample_weight)
            Gives the batches anew each time it is iterated over, and their number as its length: a
            list, or :class:`SkipGramPairs`. Rows are visited in the order in which they come.
        classes : array-like of shape (n_classes,), default=None
            All labels. None takes a first pass to collect and count them.
        counts : array-like of shape (n_classes,), default=None
            How often each of the classes occurs. None takes a first pass.

        Returns
        -------
        self : object
            The fitted estimator. If `fit_batches` raises, it is as it was before.

        Raises
        ------
        TypeError
            If batches has no length, can be iterated over only once, or does not give tuples.
        ValueError
            As `fit`, or if a batch has a label that is none of classes.

        Notes
        -----
        What comes out depends on what batches give: :class:`SkipGramPairs` draws anew each time it is
        iterated over, so the same result twice needs an object of its own each time.
        """
        check_batches(batches)
        with as_before_on_error(self):
            X, classes, frequency = first_pass(batches, classes, counts)
            self._validate_rows(X, reset=True)
            n_epochs = choose_n_epochs(self.n_epochs, int(frequency.sum()))

            def pieces() -> Iterator[Piece]:
                for X, y, *weight in with_rows(batches):
                    rows, _ = self._rows(X, y, *weight or [None], classes, reset=False)
                    yield Piece(rows, np.arange(len(rows.y)))

            return self._fit(pieces, len(batches), n_epochs, classes, frequency)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike | sparse.sparray,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> EmbeddingEstimator:
        """One pass over a batch, its rows in the order in which they come, at a constant rate.

        The first call draws the embeddings, and builds the tree, where there is one, by the labels of its
        rows; later ones keep it. (With ``tree="kmeans"`` it first learns from them for an epoch more, with a
        Huffman tree.) The rate is `learning_rate`: change it between calls by ``set_params``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows; kept as float32.
        y : array-like of shape (n_samples,)
            The label of each row.
        classes : array-like of shape (n_classes,), default=None
            All labels that any call will see. Needed in the first call, and may be left out later.
        sample_weight : array-like of shape (n_samples,), default=None
            What the step of a row is multiplied by; not negative, not all zero.

        Returns
        -------
        self : object
            The estimator. If `partial_fit` raises, it is as it was before.

        Raises
        ------
        ValueError
            As `fit`; if classes is missing in the first call or not the same as there; or if y has
            another label.

        Notes
        -----
        A call copies the model: give it thousands of rows at a time, or use `fit_batches`.
        """
        self._validate_params()  # scikit-learn leaves it out where classes_ are known
        with as_before_on_error(self):
            first = not hasattr(self, "classes_")
            if first:
                classes = check_first_classes(classes)
            else:
                check_same_classes(classes, self.classes_)
                classes = self.classes_
            rows, _ = self._rows(X, y, sample_weight, classes, reset=first)
            params, progress = self.get_params(deep=False), Progress(0)
            pieces = in_pieces(rows, np.arange(len(rows.y)), params)
            frequency = np.bincount(rows.y, weights=rows.weights, minlength=len(classes))
            if first:
                model = self._start(lambda: pieces, len(pieces), 1, classes, frequency)
            else:
                model = self._resume(frequency)
            visit(model, pieces, repeat((self.learning_rate, self.learning_rate)), params, progress)
            return self._learned(model, classes)

    def _rows(
        self, X: Any, y: Any, sample_weight: Any, classes: NDArray[Any] | None, reset: bool
    ) -> tuple[LabelledRows, NDArray[Any]]:
        """What is learned from, checked, and the classes."""
        X, y, weights, classes = self._labelled_rows(X, y, sample_weight, classes, reset)
        X = unit_rows(X, self.norm)
        kept = weights.astype(np.float32)
        if not kept.any():
            raise ValueError(
                "sample_weight must hold a number that float32 does not round to zero, got "
                f"{weights.max():g} at most: divide it by its mean"
            )
        return LabelledRows(X, y, kept), classes

    def _fit(
        self,
        pieces: Pieces,
        n_pieces: int,
        n_epochs: int,
        classes: NDArray[Any],
        frequency: NDArray[np.float64],
    ) -> EmbeddingEstimator:
        model = self._start(pieces, n_pieces, n_epochs, classes, frequency)
        params, progress = self.get_params(deep=False), Progress(self.verbose)
        loss_curve = learn(model, pieces, n_pieces, n_epochs, params, progress)
        self._learned(model, classes)
        self.loss_curve_ = loss_curve
        return self

    def _learned(self, model: Model, classes: NDArray[Any]) -> EmbeddingEstimator:
        if not model.is_finite:
            raise ValueError(OVERFLOW.format(self.learning_rate))
        self._set_learned(model)
        self.classes_ = classes
        vars(self).pop("loss_curve_", None)
        return self

    # -- use ----------------------------------------------------------------

    def transform(self, X: ArrayLike | sparse.sparray) -> NDArray[np.float32]:
        """The vector h of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        H : ndarray of shape (n_samples, n_outputs)
            float32; n_outputs is `dim`, or the size of the last hidden layer where there are any.

        Raises
        ------
        MemoryError
            If the matrix cannot fit in memory; nothing has been allocated then.
        """
        check_is_fitted(self)
        return self._embed(X)

    def _embed(self, X: Any) -> NDArray[np.float32]:
        X = self._validate_rows(X)
        what = f"the embedding of {X.shape[0]} rows"
        check_fits_in_memory(what, X.shape[0], 4 * self._n_features_out, "partial batches")
        H = np.empty((X.shape[0], self._n_features_out), dtype=np.float32)
        n_values = X.nnz / max(X.shape[0], 1) if sparse.issparse(X) else X.shape[1]
        for part in gen_batches(len(H), rows_at_a_time(VALUE_BYTES * n_values + self._vector_bytes)):
            H[part] = self._embed_rows(unit_rows(X[part], self.norm))
        return H

    def _vectors_of(self, X: Any) -> NDArray[np.float32]:
        """The vector of each row that is asked about; of one alone sooner."""
        if not hasattr(self, "classes_"):
            check_is_fitted(self)
        row = None if hasattr(self, "feature_names_in_") else one_row(X, self.n_features_in_)
        if row is None or not are_usual(row.data).all():
            return self._embed(X)
        return self._embed_rows(unit_row(row, self.norm))

    # -- scikit-learn -------------------------------------------------------

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return pack_state(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(unpack_state(state))
