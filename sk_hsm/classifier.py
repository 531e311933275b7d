"""The estimator: parameters, validation, fit and partial_fit; no maths, no loops."""

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

from ._state import as_before_on_error, pack_state, unpack_state
from .label_tree import LabelTree
from .predictions import TreePredictions
from .priors import Penalties
from .progress import Progress
from .rescoring import updated
from .training import Rows, TrainedTree, choose_whitening, train_trees, update_tree
from .tree_builders import checked_tree
from .validation import (
    MAX_WEIGHT,
    check_class_weight,
    check_first_classes,
    check_same_classes,
    float_csr,
    training_csr,
)


class HierarchicalSoftmaxClassifier(TreePredictions, ClassifierMixin, BaseEstimator):
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
        classes which look alike share a path. Of up to 32,768 sparse rows, some are held out to decide
        which features count most: those that only some rows of a class have, or those that recur.
        "huffman" puts frequent classes near the root; "balanced" divides the sorted labels
        evenly. A :class:`~sk_hsm.LabelTree` is used as
        it is: its labels must be those of y. An array is the parents for
        :meth:`LabelTree.from_parents`, its leaves taken in the order of the sorted labels.
    arity : int or "auto", default=16
        Most children of a node, 2 or more, where the tree is built here. At least n_classes
        gives one node, which is the flat softmax (multinomial logistic regression). Up to 16
        children cost the same. "auto" is 64 where rows tell much of their label, else 16, by
        the log-loss of rows held out from a first tree; up to 64 classes get one node.
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
    whiten : bool or "auto", default="auto"
        Whether rows are made round first: linearly mapped so that rows of a class differ alike in all
        directions, as in linear discriminant analysis [4]_. The tree is built of such rows, and
        ``||W||^2`` becomes ``sum(w @ S @ w)`` over the columns w of W, S being the covariance within
        classes, so that directions in which rows of a class differ anyway count less. "auto" does so
        where `C` is "auto" and the prior not "naive_bayes", at least half of X is not zero, features are at
        most 1024, fewer than the classes, fewer than the different rows beyond one a class and more than the
        rows of a class, on average, and rows of a class differ twice as much in one direction as in another.
    rescore : bool or "auto", default="auto"
        Whether classes that the tree finds likely, those of a probability of 1/1000 or more, up to 64, or
        where rows held out are likelier by 6 % then, 1/10,000 and up to 256, are scored
        again by how similar the row is to their rows, and divide their probability anew: see Notes.
        "auto" does so where `C` is "auto", the tree has more than one node, and rows held out are
        likelier then; True also where `C` is a number, or they gain little. Neither does where rows held out
        would count for less than 200, or the best weight of similarity is zero. What it takes is little time
        and one vector for each class, and up to three times as long to predict with the wider bounds; what it
        gives is much of what a flat softmax has over a tree.
    fit_intercept : bool, default=True
        Whether each node has an intercept. It is the weight of a constant feature 1, and
        penalised like any other weight.
    class_weight : dict {label: weight} or "balanced", default=None
        Weights of classes, which multiply sample_weight. "balanced" gives a class
        ``sum(weights) / (n_classes * sum of the class's weights)``. Labels that a dict does
        not name have weight 1.
    max_iter : int, default=3000
        Most passes over a node's rows.
    tol : float, default=1e-2
        Training of a node ends when its duality gap is found to be at most `tol` for each unit of
        weight: an upper bound, in nats, of how much its mean regularised loss could still fall. In the
        first passes the gap is estimated, later it is measured, of many rows by a sixteenth of them.
        Where `fit` holds rows out to choose C or the prior, and their log-loss is less than one nat, it is
        `tol` times that log-loss, a tenth of `tol` at least.
        `fit` finishes small problems to float64 precision whatever `tol` is, and small nodes of
        larger ones that have not ended in `max_iter` passes; later calls of `partial_fit` do not.
    rounding : float, default=None
        None keeps weights as float32. A number rounds them to multiples of ``rounding / r``,
        r being the root mean square length of rows, drops features of a node whose weights are
        all below two of them, and stores the others as integers of 4 bits or more. 0.3 makes
        weights six times smaller, or more, at a cost of about 1 % of log-loss; 0.1 costs next
        to none. For `fit`; `partial_fit` does not round.
    n_jobs : int, default=None
        Number of threads, in joblib's sense. The model does not depend on it.
    random_state : int, RandomState instance or None, default=None
        Draws the first centroids of "kmeans", the nodes with which C is chosen, and the order in which rows
        are visited.
    verbose : int, default=0
        1 prints the stages of `fit` and, every few seconds, how far it is; 2 every second.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted distinct labels of y.
    tree_ : LabelTree
        The tree, with ``tree_.leaf_labels`` equal to `classes_`. Of several trees: `trees_`, a
        list. The four attributes below are then lists, too, one entry for each tree.
    node_weights_ : NodeWeights or PackedWeights
        The weights of its inner nodes.
    C_ : ndarray of shape (n_inner_nodes,)
        The C of each inner node of the tree.
    prior_ : ndarray of shape (n_inner_nodes,)
        Its prior: "none", "naive_bayes" or "centroid".
    prior_scale_ : ndarray of shape (n_inner_nodes,)
        The multiple of the prior.
    whitening_ : ndarray of shape (n_features + 1, n_features)
        Where rows were made round: nodes were trained with ``[x, 1] @ whitening_`` in place of x. Weights
        are those of x all the same.
    rescoring_ : Rescoring
        Where likely classes are scored again: its `power` and `weight` are those of the Notes.
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
    Softmaxes at the nodes of a tree of classes go back to [1]_ and [2]_. Here they are trained by
    proximal dual coordinate ascent on the simplex [3]_; weights are float32. A class whose rows all have
    weight zero has probability zero.

    Classes that are scored again divide what they have together in proportion to
    ``p ** power * exp(weight * s)``, p being the tree's probability and s a similarity: the cosine of the
    row and the class's mean row, features counting by their inverse document frequency; or, of rows that
    are made round, the product with the direction of the class's mean. Power and weight are fitted, as in
    Platt scaling, to about 2048 rows, at most a tenth of all, which are held out while the tree is built and
    trained. If they are more than 0.5 % of all, nodes of whose rows they are more than 3 % are then
    trained again with them. Mean rows lose the features that count for less than a fifth of their largest,
    if rows held out are likelier then. With 1/10,000 and 256, 3 % of the probabilities of nodes of round
    rows are those of a temperature of 3, so that a row that one node takes for another branch's is not lost.
    Probabilities still sum to one, and every method gives the same ones.

    Any number of threads may predict with a fitted model, none while another calls `fit`.

    References
    ----------
    .. [1] Joshua Goodman, "Classes for fast maximum entropy training", ICASSP 2001.
    .. [2] F. Morin, Y. Bengio, "Hierarchical probabilistic neural network language model",
       AISTATS 2005.
    .. [3] S. Shalev-Shwartz, T. Zhang, "Accelerated proximal stochastic dual coordinate
       ascent for regularized loss minimization", ICML 2014.
    .. [4] R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of
       Eugenics 7, 1936.

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
        "arity": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
        "n_trees": [Interval(Integral, 1, None, closed="left")],
        "C": [Interval(Real, 0, MAX_WEIGHT, closed="right"), StrOptions({"auto"})],
        "prior": [StrOptions({"auto", "naive_bayes", "centroid"}), None],
        "whiten": ["boolean", StrOptions({"auto"})],
        "rescore": ["boolean", StrOptions({"auto"})],
        "fit_intercept": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "max_iter": [Interval(Integral, 1, 2**31 - 1, closed="both")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "rounding": [Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        tree: str | LabelTree | ArrayLike = "kmeans",
        *,
        arity: int | str = 16,
        n_trees: int = 1,
        C: float | str = "auto",
        prior: str | None = "auto",
        whiten: bool | str = "auto",
        rescore: bool | str = "auto",
        fit_intercept: bool = True,
        class_weight: dict | str | None = None,
        max_iter: int = 3000,
        tol: float = 1e-2,
        rounding: float | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.tree = tree
        self.arity = arity
        self.n_trees = n_trees
        self.C = C
        self.prior = prior
        self.whiten = whiten
        self.rescore = rescore
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        self.rounding = rounding
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
        floats for each feature that a node has seen. Where more than three quarters of the values
        of X are not zero, zeros count as the others do.
        """
        with as_before_on_error(self):
            return self._fit(X, y, sample_weight)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike | sparse.sparray,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> HierarchicalSoftmaxClassifier:
        """Build the tree and train its nodes with a first batch of rows; then go on with others.

        Later calls keep the tree, `C_` and what else the first call, or `fit`, has chosen: `tree`,
        `arity`, `n_trees`, `C`, `prior`, `whiten` and `rescore` are not looked at again. Rows are added to
        the centroids of `rescoring_`. Weights are not rounded, and
        if `fit` has rounded them they become float32 again. A node then minimises
        ``||W - W_before||^2 / 2 + C * sum(weight * log-loss)`` over the rows of the batch, as in
        [1]_. The first batch should hold rows of as many classes as it can; a class has
        probability zero until it has a row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows; kept as float32.
        y : array-like of shape (n_samples,)
            The label of each row.
        classes : array-like of shape (n_classes,), default=None
            All labels that any call will see. Needed in the first call, and may be left out later.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts; not negative, not all zero.

        Returns
        -------
        self : HierarchicalSoftmaxClassifier
            The classifier. If `partial_fit` raises, it is as it was before.

        Raises
        ------
        ValueError
            As `fit`; if classes is missing in the first call or not the same as there; if y has
            another label; or if class_weight is "balanced", which needs all rows.

        Notes
        -----
        A call copies the weights: give it thousands of rows at a time.

        References
        ----------
        .. [1] Brian Kulis, Peter Bartlett, "Implicit online learning", ICML 2010.
        """
        self._validate_params()
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight={self.class_weight!r} is not supported for partial_fit, which never sees all "
                "rows: pass the weights as a dict or in sample_weight"
            )
        with as_before_on_error(self):
            if hasattr(self, "classes_"):
                return self._go_on(X, y, classes, sample_weight)
            return self._fit(X, y, sample_weight, check_first_classes(classes))

    def _fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> HierarchicalSoftmaxClassifier:
        progress = Progress(self.verbose)
        self._check_n_trees()
        C = 1.0 if self.C == "auto" else float(self.C)
        rows = self._rows(X, y, sample_weight, classes, C, reset=True)
        n, d = rows.X.shape
        n_values = rows.row_sums.counts.sum()
        progress.say(f"{n} rows, {d} features, {n_values} non-zeros, {len(rows.classes)} classes")
        rng = check_random_state(self.random_state)
        params = self.get_params(deep=False)
        params["tree"] = checked_tree(self.tree, rows.classes)  # before any work
        if classes is not None:
            params["rounding"] = None  # later batches are to move the weights as little as they need to
        whitening = choose_whitening(rows, params)
        trained, rescoring = train_trees(rows, whitening, params, rng, progress)
        self._set_trained(trained)
        self.classes_ = rows.classes
        for name, value in (("whitening_", whitening), ("rescoring_", rescoring)):
            vars(self).pop(name, None)
            if value is not None:
                setattr(self, name, value)
        return self

    def _go_on(self, X: Any, y: Any, classes: Any, sample_weight: Any) -> HierarchicalSoftmaxClassifier:
        check_same_classes(classes, self.classes_)
        largest_C = max(float(penalties.C.max(initial=0)) for penalties in self._penalties)
        rows = self._rows(X, y, sample_weight, self.classes_, largest_C, reset=False)
        progress, params = Progress(self.verbose), self.get_params(deep=False)
        whitening = getattr(self, "whitening_", None)
        rng = check_random_state(self.random_state)
        trained = [
            update_tree(rows, tree, weights, penalties, whitening, params, rng.randint(2**31 - 1), progress)
            for (tree, weights, _), penalties in zip(self._models, self._penalties, strict=True)
        ]
        if hasattr(self, "rescoring_"):
            more = rows.X, rows.y, rows.weights, whitening, self.n_jobs
            self.rescoring_ = updated(self.rescoring_, *more)
        self._set_trained(trained)
        return self

    def _rows(self, X: Any, y: Any, sample_weight: Any, classes: Any, C: float, reset: bool) -> Rows:
        """What is learned from, checked; of the classes in y, or of those given."""
        X, y, weights, classes = self._labelled_rows(X, y, sample_weight, classes, reset)
        frequency = np.bincount(y, weights=weights, minlength=len(classes))
        weights = weights * check_class_weight(self.class_weight, classes, frequency)[y]
        if not weights.any():
            raise ValueError(
                "sample_weight times class_weight must not be zero everywhere: all weights are zero"
            )
        largest = weights.max() * C
        if largest > MAX_WEIGHT:
            raise ValueError(
                f"C times sample_weight times class_weight must be at most {MAX_WEIGHT:.2g}, "
                f"got {largest:.2g}: divide the weights by their mean"
            )
        if not weights.all():
            kept = np.flatnonzero(weights)
            X, y, weights = float_csr(X)[kept], y[kept], weights[kept]
        return Rows(training_csr(X), y, weights, classes)

    @property
    def _penalties(self) -> list[Penalties]:
        chosen = self.C_, self.prior_, self.prior_scale_
        return [Penalties(*chosen)] if hasattr(self, "tree_") else list(map(Penalties, *chosen))

    def _set_trained(self, trained: list[TrainedTree]) -> None:
        """One tree's attributes as they are, those of several as lists."""
        self._warn_if_unfinished(np.concatenate([each.converged for each in trained]))
        self.n_iter_ = max(int(each.n_iter.max(initial=1)) for each in trained)
        one = len(trained) == 1
        for name in ("tree_", "trees_"):
            vars(self).pop(name, None)
        for name, values in (
            ("tree_" if one else "trees_", [each.tree for each in trained]),
            ("node_weights_", [each.weights for each in trained]),
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
                stacklevel=6,
            )

    # -- scikit-learn -------------------------------------------------------

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return pack_state(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(unpack_state(state))
