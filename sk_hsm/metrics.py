"""Scores of a fitted classifier that never make the dense matrix of probabilities, and their scorers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import _num_samples, check_is_fitted

from .validation import check_count, check_weights, encode_known

_UNSEEN = ("infinite", "uniform", "drop")


def top_k_accuracy(
    est: Any, X: ArrayLike, y: ArrayLike, k: int = 5, sample_weight: ArrayLike | None = None
) -> float:
    """How often the label of a row is among the k most probable ones.

    Parameters
    ----------
    est : HierarchicalSoftmaxClassifier, Pipeline or search
        A fitted classifier, or a pipeline or search such as GridSearchCV that ends in one.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows, as `est` takes them.
    y : array-like of shape (n_samples,)
        The label of each row. One that training did not see counts as wrong.
    k : int, default=5
        Number of labels that are looked at; 1 is accuracy.
    sample_weight : array-like of shape (n_samples,), default=None
        How often each row counts; not negative, not all zero.

    Returns
    -------
    accuracy : float
        A share in [0, 1]: more is better.

    Raises
    ------
    TypeError
        If `est` does not end in a classifier that has `predict_top_k`.

    See Also
    --------
    top_k_accuracy_scorer : The same, for `scoring` in a search.
    sklearn.metrics.top_k_accuracy_score : For other classifiers, from the dense matrix.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sk_hsm import HierarchicalSoftmaxClassifier
    >>> from sk_hsm.metrics import top_k_accuracy
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = HierarchicalSoftmaxClassifier(random_state=0).fit(X[:900], y[:900])
    >>> top_k_accuracy(clf, X[900:], y[900:], k=3) > 0.95
    True
    """
    k = check_count("k", k)
    est, X, weights = _prepare(est, X, y, sample_weight, "predict_top_k")
    known = encode_known(y, est.classes_)
    labels, _ = est.predict_top_k(X, k=k)
    found = (labels == est.classes_[np.maximum(known, 0)][:, None]).any(axis=1)
    return float(np.average(found & (known >= 0), weights=weights))


def log_loss(
    est: Any,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    unseen: str = "infinite",
) -> float:
    """The mean negative log-probability of the labels, in nats.

    Parameters
    ----------
    est : HierarchicalSoftmaxClassifier, Pipeline or search
        A fitted classifier, or a pipeline or search such as GridSearchCV that ends in one.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows, as `est` takes them.
    y : array-like of shape (n_samples,)
        The label of each row.
    sample_weight : array-like of shape (n_samples,), default=None
        How often each row counts; not negative, not all zero.
    unseen : {"infinite", "uniform", "drop"}, default="infinite"
        What a row counts whose label training did not see (a HierarchicalSoftmaxClassifier: or saw
        with weight zero only): its probability is zero. "infinite" is the truth; "uniform" counts
        the row as if its label had probability 1 / n_classes, with the number of classes in
        training; "drop" leaves it out of the mean.

    Returns
    -------
    loss : float
        Less is better: for a search give `log_loss_scorer`, not this function.

    Raises
    ------
    TypeError
        If `est` does not end in a classifier that has `log_proba_of`.
    ValueError
        If a parameter is wrong, or ``unseen="drop"`` leaves no row.

    See Also
    --------
    log_loss_scorer : The negative log-loss, for `scoring` in a search.
    sklearn.metrics.log_loss : For other classifiers, from the dense matrix.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sk_hsm import HierarchicalSoftmaxClassifier
    >>> from sk_hsm.metrics import log_loss
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = HierarchicalSoftmaxClassifier(random_state=0).fit(X[:900], y[:900])
    >>> log_loss(clf, X[900:], y[900:]) < 0.5
    True
    """
    _check_unseen(unseen)
    est, X, weights = _prepare(est, X, y, sample_weight, "log_proba_of")
    log_proba = est.log_proba_of(X, y)
    is_unseen = np.isneginf(log_proba)
    if unseen == "uniform":
        log_proba[is_unseen] = -np.log(len(est.classes_))
    elif unseen == "drop":
        weights[is_unseen] = 0
    counted = weights > 0  # zero times infinity is no number
    if not counted.any():
        raise ValueError(
            f"unseen='drop' leaves none of the {len(weights)} rows, training saw no label of y: "
            "give unseen='uniform', or split with KeepClassesKFold"
        )
    return float(np.average(-log_proba[counted], weights=weights[counted]))


def top_k_accuracy_scorer(k: int = 5) -> Callable[..., float]:
    """A scorer that is the top-k accuracy.

    Parameters
    ----------
    k : int, default=5
        Number of labels that are looked at.

    Returns
    -------
    scorer : callable
        ``scorer(est, X, y, sample_weight=None)``, to be given as `scoring`.

    See Also
    --------
    top_k_accuracy : What it computes.

    Examples
    --------
    >>> from sk_hsm.metrics import top_k_accuracy_scorer
    >>> top_k_accuracy_scorer(k=3)
    top_k_accuracy_scorer(k=3)
    """
    return _Scorer(top_k_accuracy, 1, {"k": check_count("k", k)})


def log_loss_scorer(unseen: str = "uniform") -> Callable[..., float]:
    """A scorer that is the negative log-loss.

    Parameters
    ----------
    unseen : {"infinite", "uniform", "drop"}, default="uniform"
        What a row counts whose label training did not see, as in `log_loss`. "uniform" keeps
        every fold finite and adds the same to all candidates of a search, so that it never
        changes which is the best, while "drop" would favour a model that saw fewer classes.

    Returns
    -------
    scorer : callable
        ``scorer(est, X, y, sample_weight=None)``, to be given as `scoring`.

    See Also
    --------
    log_loss : What it computes, with the other sign.
    sk_hsm.model_selection.KeepClassesKFold : Folds in which training sees every label.

    Examples
    --------
    >>> from sk_hsm.metrics import log_loss_scorer
    >>> log_loss_scorer()
    log_loss_scorer(unseen='uniform')
    """
    _check_unseen(unseen)
    return _Scorer(log_loss, -1, {"unseen": unseen})


class _Scorer(BaseEstimator):
    """Sign times a metric; as an estimator it can be cloned, and asks for sample_weight."""

    __metadata_request__score = {"est": UNUSED}

    def __init__(self, metric: Callable[..., float], sign: int, options: dict[str, Any]) -> None:
        self.metric = metric
        self.sign = sign
        self.options = options

    def score(self, est: Any, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        return self.sign * self.metric(est, X, y, sample_weight=sample_weight, **self.options)

    __call__ = score

    def _accept_sample_weight(self) -> bool:
        return True  # scikit-learn asks where several scorers are given

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.metric.__name__}_scorer({options})"


# -- checks -------------------------------------------------------------------


def _prepare(
    est: Any, X: Any, y: Any, sample_weight: Any, method: str
) -> tuple[Any, Any, NDArray[np.float64]]:
    """The classifier that est ends in, X as it comes there, and the weights."""
    classifier, transformers = _unwrap(est)
    if not hasattr(classifier, method):
        raise TypeError(
            "est must be a classifier of sk_hsm, or a Pipeline or fitted search that ends in one, "
            f"got {type(classifier).__name__}, which has no {method}: use sklearn.metrics for others"
        )
    check_is_fitted(classifier)
    n_rows, n_labels = _num_samples(X), _num_samples(y)
    if n_rows != n_labels:
        raise ValueError(f"X has {n_rows} rows and y {n_labels} labels, they must agree")
    weights = check_weights(sample_weight, n_rows).copy()
    for transformer in transformers:
        X = transformer.transform(X)
    return classifier, X, weights


def _unwrap(est: Any) -> tuple[Any, list[Pipeline]]:
    """The last step of pipelines and searches, and the steps before it, which transform."""
    transformers = []
    while isinstance(est, Pipeline) or hasattr(est, "best_estimator_"):
        if not isinstance(est, Pipeline):
            est = est.best_estimator_
            continue
        if len(est) > 1:
            transformers.append(est[:-1])
        est = est[-1]
    return est, transformers


def _check_unseen(unseen: Any) -> None:
    if unseen not in _UNSEEN:
        raise ValueError(f"unseen must be one of {', '.join(map(repr, _UNSEEN))}, got {unseen!r}")
