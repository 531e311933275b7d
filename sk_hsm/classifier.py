"""The estimator: parameters, validation, fit and the prediction methods; no maths, no loops."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from . import inference
from ._state import pack_state, unpack_state
from .label_tree import LabelTree
from .node_weights import NodeWeights
from .progress import Progress
from .training import Rows, TrainedTree, train_trees
from .validation import (
    MAX_WEIGHT,
    check_class_weight,
    check_count,
    check_structure,
    check_weights,
    encode_known,
    encode_labels,
    float_csr,
)


class HierarchicalSoftmaxClassifier(ClassifierMixin, BaseEstimator):
    """Classifier for thousands to millions of classes: a softmax at each node of a label tree.

    The classes are the leaves of a tree. Every inner node is a small multinomial logistic
    regression over its children, and the probability of a class is the product along its
    path, so that probabilities sum to exactly one and cost ``O(arity * log(n_classes))`` for
    each non-zero of a row instead of ``O(n_classes)``.

    Read more in the :ref:`user guide <user_guide>`.

    Parameters
    ----------
    tree : {"kmeans", "huffman", "balanced"}, LabelTree or array-like of int, default="kmeans"
        How the classes are put into a tree. "kmeans" clusters the class centroids, so that
        classes which look alike share a path; "huffman" puts frequent classes near the root;
        "balanced" divides the sorted labels evenly. A :class:`~sk_hsm.LabelTree` is used as
        it is: its labels must be those of y. An array is the parents for
        :meth:`LabelTree.from_parents`, its leaves taken in the order of the sorted labels.
    arity : int, default=16
        Most children of a node, 2 or more, where the tree is built here. At least n_classes
        gives one node, which is the flat softmax (multinomial logistic regression). Up to 16
        children cost the same.
    n_trees : int, default=1
        Number of trees, each from random numbers of its own. Probabilities are averaged, which
        makes them better, at `n_trees` times the cost. More than one needs ``tree="kmeans"``.
    C : float or "auto", default="auto"
        Inverse regularisation, as in :class:`sklearn.linear_model.LogisticRegression`: each
        node minimises ``||W - G||^2 / 2 + C * sum(weight * log-loss)``, or with two children
        ``||w - g||^2 / 2 + ...`` for the difference w of their weights. "auto" chooses a C for
        each level of the tree, by the log-loss of rows held out.
    prior : {"auto", "naive_bayes", "centroid"} or None, default="auto"
        What the penalty pulls towards, G. None is zero, as in LogisticRegression.
        "naive_bayes" is a multiple of the log-odds of naive Bayes, for features that are not
        negative; "centroid" a multiple of the direction of each child's mean row. The multiple
        is chosen as "auto" chooses C, and "auto" is the best of the three at each level.
    fit_intercept : bool, default=True
        Whether each node has an intercept. It is the weight of a constant feature 1, and
        penalised like any other weight.
    class_weight : dict {label: weight} or "balanced", default=None
        Weights of classes, which multiply sample_weight. "balanced" gives a class
        ``sum(weights) / (n_classes * sum of the class's weights)``. Labels that a dict does
        not name have weight 1.
    max_iter : int, default=1000
        Most passes over a node's rows.
    tol : float, default=1e-2
        Training of a node ends when its duality gap is at most `tol` for each unit of weight:
        an upper bound, in nats, of how much its mean regularised loss could still fall.
        Small problems are finished to float64 precision whatever `tol` is.
    n_jobs : int, default=None
        Number of threads, in joblib's sense. The model does not depend on it.
    random_state : int, RandomState instance or None, default=None
        Draws the first centroids of "kmeans" and the order in which rows are visited.
    verbose : int, default=0
        1 prints the stages of `fit` and, every few seconds, how far it is; 2 every second.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted distinct labels of y.
    tree_ : LabelTree
        The tree, with ``tree_.leaf_labels`` equal to `classes_`. Of several trees: `trees_`, a
        list. The four attributes below are then lists, too, one entry for each tree.
    node_weights_ : NodeWeights
        The weights of its inner nodes.
    C_ : ndarray of shape (n_inner_nodes,)
        The C of each inner node of the tree.
    prior_ : ndarray of shape (n_inner_nodes,)
        Its prior: "none", "naive_bayes" or "centroid".
    prior_scale_ : ndarray of shape (n_inner_nodes,)
        The multiple of the prior.
    n_iter_ : int
        Most passes that any node took.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X had string column names.

    See Also
    --------
    LabelTree : The tree of classes, and how to make your own.
    sklearn.linear_model.LogisticRegression : The flat softmax, for up to some thousand classes.

    Notes
    -----
    Nodes are trained by proximal dual coordinate ascent on the simplex [3]_; weights are
    float32. A class whose rows all have weight zero has probability zero.

    Any number of threads may predict with a fitted model, none while another calls `fit`.

    References
    ----------
    .. [1] Joshua Goodman, "Classes for fast maximum entropy training", ICASSP 2001.
    .. [2] F. Morin, Y. Bengio, "Hierarchical probabilistic neural network language model",
       AISTATS 2005.
    .. [3] S. Shalev-Shwartz, T. Zhang, "Accelerated proximal stochastic dual coordinate
       ascent for regularized loss minimization", ICML 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sk_hsm import HierarchicalSoftmaxClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = HierarchicalSoftmaxClassifier(arity=3, random_state=0).fit(X / 16, y)
    >>> clf.tree_.max_depth
    3
    >>> labels, proba = clf.predict_top_k(X[:1] / 16, k=3)
    >>> int(labels[0, 0])
    0
    """

    _parameter_constraints: dict = {
        "tree": [StrOptions({"kmeans", "huffman", "balanced"}), LabelTree, "array-like"],
        "arity": [Interval(Integral, 2, None, closed="left")],
        "n_trees": [Interval(Integral, 1, None, closed="left")],
        "C": [Interval(Real, 0, MAX_WEIGHT, closed="right"), StrOptions({"auto"})],
        "prior": [StrOptions({"auto", "naive_bayes", "centroid"}), None],
        "fit_intercept": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "max_iter": [Interval(Integral, 1, 2**31 - 1, closed="both")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        tree: str | LabelTree | ArrayLike = "kmeans",
        *,
        arity: int = 16,
        n_trees: int = 1,
        C: float | str = "auto",
        prior: str | None = "auto",
        fit_intercept: bool = True,
        class_weight: dict | str | None = None,
        max_iter: int = 1000,
        tol: float = 1e-2,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.tree = tree
        self.arity = arity
        self.n_trees = n_trees
        self.C = C
        self.prior = prior
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # -- fit ----------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike | sparse.sparray, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> HierarchicalSoftmaxClassifier:
        """Build the tree and train its nodes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows; kept as float32.
        y : array-like of shape (n_samples,)
            The label of each row.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts; not negative, not all zero.

        Returns
        -------
        self : HierarchicalSoftmaxClassifier
            The fitted classifier. If `fit` raises, it is as it was before.

        Raises
        ------
        ValueError
            If X, y, the weights, a parameter or the tree is wrong; the message names which.

        Notes
        -----
        ``O(passes * non-zeros * mean depth * arity)`` time, and memory for one line of 16
        floats for each feature that a node has seen.
        """
        before = dict(vars(self))
        try:
            return self._fit(X, y, sample_weight)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> HierarchicalSoftmaxClassifier:
        progress = Progress(self.verbose)
        self._check_n_trees()
        if y is None:
            encode_labels(y)
        X = self._validate_rows(X, reset=True)
        classes, y = encode_labels(y)
        if len(y) != X.shape[0]:
            raise ValueError(f"X has {X.shape[0]} rows and y {len(y)} labels, they must agree")
        weights = check_weights(sample_weight, len(y))
        frequency = np.bincount(y, weights=weights, minlength=len(classes))
        weights = weights * check_class_weight(self.class_weight, classes, frequency)[y]
        if not weights.any():
            raise ValueError(
                "sample_weight times class_weight must not be zero everywhere: all weights are zero"
            )
        largest = weights.max() * (1 if self.C == "auto" else self.C)
        if largest > MAX_WEIGHT:
            raise ValueError(
                f"C times sample_weight times class_weight must be at most {MAX_WEIGHT:.2g}, "
                f"got {largest:.2g}: divide the weights by their mean"
            )
        X = float_csr(X)
        if not weights.all():
            kept = np.flatnonzero(weights)
            X, y, weights = float_csr(X[kept]), y[kept], weights[kept]
        rng = check_random_state(self.random_state)
        progress.say(f"{X.shape[0]} rows, {X.shape[1]} features, {X.nnz} non-zeros, {len(classes)} classes")
        trained = train_trees(Rows(X, y, weights, classes), self.get_params(deep=False), rng, progress)
        self._warn_if_unfinished(np.concatenate([each.fit.converged for each in trained]))
        self.classes_ = classes
        self.n_iter_ = max(int(each.fit.n_iter.max(initial=1)) for each in trained)
        self._set_trained(trained)
        return self

    def _set_trained(self, trained: list[TrainedTree]) -> None:
        """One tree's attributes as they are, those of several as lists."""
        one = len(trained) == 1
        for name in ("tree_", "trees_"):
            vars(self).pop(name, None)
        for name, values in (
            ("tree_" if one else "trees_", [each.tree for each in trained]),
            ("node_weights_", [each.fit.weights for each in trained]),
            ("C_", [each.penalties.C for each in trained]),
            ("prior_", [each.penalties.prior for each in trained]),
            ("prior_scale_", [each.penalties.scale for each in trained]),
        ):
            setattr(self, name, values[0] if one else values)

    def _check_n_trees(self) -> None:
        if self.n_trees > 1 and not (isinstance(self.tree, str) and self.tree == "kmeans"):
            raise ValueError(
                f"n_trees={self.n_trees} needs trees that differ, and only those of tree='kmeans' do: "
                "use it, or n_trees=1"
            )

    def _warn_if_unfinished(self, converged: NDArray[np.bool_]) -> None:
        unfinished = np.count_nonzero(~converged)
        if unfinished:
            warnings.warn(
                f"{unfinished} of {len(converged)} nodes did not reach tol={self.tol} in "
                f"max_iter={self.max_iter} passes: increase max_iter or tol, scale the features, "
                "or decrease C",
                ConvergenceWarning,
                stacklevel=4,
            )

    @property
    def _models(self) -> list[tuple[LabelTree, NodeWeights]]:
        if hasattr(self, "tree_"):
            return [(self.tree_, self.node_weights_)]
        return list(zip(self.trees_, self.node_weights_, strict=True))

    def _validate_rows(self, X: Any, reset: bool = False) -> Any:
        if not reset:
            check_is_fitted(self)
        return validate_data(
            self, check_structure(X), reset=reset, accept_sparse="csr", dtype=[np.float64, np.float32]
        )

    # -- predict ------------------------------------------------------------

    def predict(self, X: ArrayLike | sparse.sparray) -> NDArray[Any]:
        """The most probable label of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            The exact argmax of `predict_proba`, found by best-first search.
        """
        return self.predict_top_k(X, k=1)[0][:, 0]

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
        X = self._validate_rows(X)
        return inference.all_log_proba(self._models, X, self.n_jobs)

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
            For one tree only.

        Returns
        -------
        labels : ndarray of shape (n_samples, min(k, n_classes))
            Most probable first; ties in the order of `classes_`.
        proba : ndarray of shape (n_samples, min(k, n_classes))
        """
        k = check_count("k", k)
        if beam_width is not None:
            beam_width = check_count("beam_width", beam_width)
        X = self._validate_rows(X)
        if beam_width is not None and len(self._models) > 1:
            raise ValueError(
                f"beam_width is for one tree, got {len(self._models)} trees: leave it None, which is exact"
            )
        if beam_width is not None:
            beam_width = min(beam_width, len(self.classes_))  # no level has more
        classes, log_proba = inference.top_k(
            self._models, X, min(k, len(self.classes_)), self.n_jobs, beam_width=beam_width
        )
        return self.classes_[np.maximum(classes, 0)], np.exp(log_proba, out=log_proba)

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
            Equal to the entries of `predict_log_proba`, at the cost of one path a row.
        """
        X = self._validate_rows(X)
        classes = encode_known(y, self.classes_)
        if len(classes) != X.shape[0]:
            raise ValueError(f"X has {X.shape[0]} rows and y {len(classes)} labels, they must agree")
        return inference.path_log_proba(self._models, X, classes, self.n_jobs)

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
        X = self._validate_rows(X)
        return inference.sparse_proba(self._models, X, k, self.n_jobs, floor)

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
            One walk down the tree each.
        """
        n_samples = check_count("n_samples", n_samples)
        X = self._validate_rows(X)
        inference.check_fits_in_memory(f"sample of {n_samples} labels", X.shape[0], 24 * n_samples, "fewer")
        uniforms = check_random_state(random_state).random_sample((X.shape[0], n_samples))
        return self.classes_[inference.sample_classes(self._models, X, uniforms, self.n_jobs)]

    # -- scikit-learn -------------------------------------------------------

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return pack_state(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(unpack_state(state))
