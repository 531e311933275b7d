"""The estimator that learns embeddings of features through the tree; no maths, no loops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from numbers import Integral, Real
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
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._state import as_before_on_error, pack_state, unpack_state
from .embedding_training import (
    Embedding,
    LabelledRows,
    Piece,
    Pieces,
    check_batches,
    choose_n_epochs,
    count_labels,
    embedded_row,
    in_pieces,
    learn,
    piece_starts,
    start_model,
    unit_rows,
    visit,
    with_rows,
)
from .inference import check_fits_in_memory
from .label_tree import LabelTree
from .node_weights import LINE
from .predictions import TreePredictions
from .progress import Progress
from .validation import OneRow, check_first_classes, check_same_classes, one_row


class HierarchicalSoftmaxEmbedding(
    TreePredictions, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    """Embeddings of features, learned through a tree of the classes.

    A row x becomes the vector ``h = sum(x[f] * embedding_[f]) / norm(x)``, and a softmax at each node
    of the tree makes of h the probability of a class, as in
    :class:`~sk_hsm.HierarchicalSoftmaxClassifier`. Embeddings and nodes are learned together. Rows with
    one feature, and labels that occur near it, give word2vec's skip-gram [1]_; bags of words give
    fastText's classifier [2]_; histories give vectors of users.

    Read more in the :ref:`user guide <embeddings>`.

    Parameters
    ----------
    dim : int, default=100
        Length of the embeddings.
    tree : {"huffman", "kmeans", "balanced"}, LabelTree or array-like of int, default="huffman"
        "kmeans" learns for a fifth of the epochs with a Huffman tree, clusters the mean vectors of
        the classes, and goes on with that tree. Otherwise as in
        :class:`~sk_hsm.HierarchicalSoftmaxClassifier`.
    arity : int, default=2
        Most children of a node. A node with two is a sigmoid, one with more a softmax.
    norm : {"l2", "l1"}, default="l2"
        What rows are divided by. "l1" makes h the weighted mean of embeddings, as in fastText. With
        "l2" a step moves h equally far whether a row has one feature or many, so that one
        `learning_rate` suits both.
    fit_intercept : bool, default=True
        Whether nodes have an intercept. word2vec and fastText have none.
    learning_rate : float, default=0.1
        Length of the first steps of gradient descent. It falls to zero in a line. Clean texts want
        0.1 to 0.3, noisy rows 0.05.
    n_epochs : int or "auto", default="auto"
        How often each row is visited. "auto" is 5, or more where there are less than 20,000 rows.
    lock_free : bool, default=False
        Whether `n_jobs` threads learn at the same time, without waiting for each other [3]_. That is
        faster, but the result is then another one each time.
    n_jobs : int, default=None
        Number of threads, in joblib's sense, for predictions and for k-means; for learning
        only if `lock_free`.
    random_state : int, RandomState instance or None, default=None
        Draws the first embeddings and the order of rows.
    verbose : int, default=0
        1 prints the log-loss of each epoch and, every few seconds, how far it is; 2 every second.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted distinct labels of y.
    tree_ : LabelTree
        The tree, with ``tree_.leaf_labels`` equal to `classes_`.
    embedding_ : ndarray of shape (n_features, dim)
        The vector of each feature, float32.
    node_vectors_ : ndarray of shape (n_vectors, dim)
        Vectors of the inner nodes, float32: one for each child, or of two children only one for the
        second.
    node_intercepts_ : ndarray of shape (n_vectors,)
        Their intercepts.
    loss_curve_ : list of float
        Mean log-loss of each epoch, of each row just before its step. Not kept by `partial_fit`.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X had string column names.

    See Also
    --------
    HierarchicalSoftmaxClassifier : Weights of features at each node, no embeddings: more accurate where
        rows tell much of their label, larger.
    SkipGramPairs : Rows and labels from texts.

    Notes
    -----
    A step costs ``O(dim * (non-zeros + arity * depth))``. Its error signal at a child is
    ``e = p - [child is on the path]``; the child's vector v moves by ``-rate * e * h``, and the
    features' embeddings by ``-rate * x[f] * sum(e * v)``. One thread gives the same bits each time.

    References
    ----------
    .. [1] T. Mikolov, K. Chen, G. Corrado, J. Dean, "Efficient estimation of word representations
       in vector space", 2013. arXiv:1301.3781.
    .. [2] A. Joulin, E. Grave, P. Bojanowski, T. Mikolov, "Bag of tricks for efficient text
       classification", EACL 2017.
    .. [3] B. Recht, C. Re, S. Wright, F. Niu, "Hogwild!: a lock-free approach to parallelizing
       stochastic gradient descent", NIPS 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sk_hsm import HierarchicalSoftmaxEmbedding
    >>> X, y = load_digits(return_X_y=True)
    >>> embedding = HierarchicalSoftmaxEmbedding(dim=8, tree="kmeans", random_state=0).fit(X, y)
    >>> embedding.transform(X).shape
    (1797, 8)
    >>> bool(embedding.score(X, y) > 0.95)
    True
    """

    _parameter_constraints: dict = {
        "dim": [Interval(Integral, 1, None, closed="left")],
        "tree": [StrOptions({"huffman", "kmeans", "balanced"}), LabelTree, "array-like"],
        "arity": [Interval(Integral, 2, None, closed="left")],
        "norm": [StrOptions({"l1", "l2"})],
        "fit_intercept": ["boolean"],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "n_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "lock_free": ["boolean"],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        dim: int = 100,
        tree: str | LabelTree | ArrayLike = "huffman",
        *,
        arity: int = 2,
        norm: str = "l2",
        fit_intercept: bool = True,
        learning_rate: float = 0.1,
        n_epochs: int | str = "auto",
        lock_free: bool = False,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.dim = dim
        self.tree = tree
        self.arity = arity
        self.norm = norm
        self.fit_intercept = fit_intercept
        self.learning_rate = learning_rate
        self.n_epochs = n_epochs
        self.lock_free = lock_free
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # -- fit ----------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike | sparse.sparray, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> HierarchicalSoftmaxEmbedding:
        """Learn embeddings and nodes, in `n_epochs` passes over the rows in random order.

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
        self : HierarchicalSoftmaxEmbedding
            The fitted estimator. If `fit` raises, it is as it was before.

        Raises
        ------
        ValueError
            If X, y, the weights, a parameter or the tree is wrong, or steps are so long that numbers
            overflow; the message names which.
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
    ) -> HierarchicalSoftmaxEmbedding:
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
        self : HierarchicalSoftmaxEmbedding
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
            classes, frequency = count_labels(batches, classes, counts)
            X, *_ = next(with_rows(batches))
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
    ) -> HierarchicalSoftmaxEmbedding:
        """One pass over a batch, its rows in the order in which they come, at a constant rate.

        The first call draws the embeddings and builds the tree, by the labels of its rows; later ones
        keep the tree. The rate is `learning_rate`: change it between calls by ``set_params``.

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
        self : HierarchicalSoftmaxEmbedding
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
            if first:
                frequency = np.bincount(rows.y, weights=rows.weights, minlength=len(classes))
                model = self._start(lambda: pieces, len(pieces), 1, classes, frequency)
            else:
                model = Embedding.of_arrays(self.tree_, self.embedding_, self.node_weights_)
            visit(model, pieces, repeat((self.learning_rate, self.learning_rate)), params, progress)
            return self._set_learned(model, classes)

    def _rows(
        self, X: Any, y: Any, sample_weight: Any, classes: NDArray[Any] | None, reset: bool
    ) -> tuple[LabelledRows, NDArray[Any]]:
        """What is learned from, checked, and the classes."""
        X, y, weights, classes = self._labelled_rows(X, y, sample_weight, classes, reset)
        return LabelledRows(unit_rows(X, self.norm), y, weights.astype(np.float32)), classes

    def _start(
        self,
        pieces: Pieces,
        n_pieces: int,
        n_epochs: int,
        classes: NDArray[Any],
        frequency: NDArray[np.float64],
    ) -> Embedding:
        """A model that has its tree."""
        what = f"fit of {self.n_features_in_} features and {len(classes)} classes with dim={self.dim}"
        numbers = self.n_features_in_ + len(classes)
        check_fits_in_memory(what, numbers, 8 * (self.dim + LINE), "a smaller dim, or fewer features")
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        params, progress = self.get_params(deep=False), Progress(self.verbose)
        return start_model(
            pieces, n_pieces, n_epochs, classes, frequency, self.n_features_in_, params, seed, progress
        )

    def _fit(
        self,
        pieces: Pieces,
        n_pieces: int,
        n_epochs: int,
        classes: NDArray[Any],
        frequency: NDArray[np.float64],
    ) -> HierarchicalSoftmaxEmbedding:
        model = self._start(pieces, n_pieces, n_epochs, classes, frequency)
        params, progress = self.get_params(deep=False), Progress(self.verbose)
        loss_curve = learn(model, pieces, n_pieces, n_epochs, params, progress)
        self._set_learned(model, classes)
        self.loss_curve_ = loss_curve
        return self

    def _set_learned(self, model: Embedding, classes: NDArray[Any]) -> HierarchicalSoftmaxEmbedding:
        if not model.is_finite:
            raise ValueError(
                f"learning_rate={self.learning_rate} made the embeddings overflow: decrease it, or "
                "divide sample_weight by its mean"
            )
        self.tree_ = model.tree
        self.embedding_, self.node_weights_ = model.to_arrays()
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
        H : ndarray of shape (n_samples, dim)
            float32. The vectors of single features are `embedding_`.

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
        return np.asarray(unit_rows(X, self.norm) @ self.embedding_)

    @property
    def node_vectors_(self) -> NDArray[np.float32]:
        return self.node_weights_.vectors

    @property
    def node_intercepts_(self) -> NDArray[np.float32]:
        return self.node_weights_.intercepts

    @property
    def _n_features_out(self) -> int:
        return self.embedding_.shape[1]

    def _queries(self, X: Any) -> NDArray[np.float32] | OneRow:
        if not hasattr(self, "classes_"):
            check_is_fitted(self)
        row = None if hasattr(self, "feature_names_in_") else one_row(X, self.n_features_in_)
        return self._embed(X) if row is None else embedded_row(row, self.norm, self.embedding_)

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
