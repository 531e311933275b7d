"""The classes that a tree finds likely, scored again by how near a row is to their centroids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize

from ._kernels.rescoring import rescore, similarities
from ._kernels.rows import keep_large, unit_rows
from .blas import one_blas_thread
from .centroids import ClassSums, scaled_sums, unit_sums
from .inference import Models, path_log_proba, top_k
from .label_tree import LabelTree
from .node_weights import FlatArrays, NodeWeights
from .packed_weights import PackedWeights
from .row_sums import column_counts
from .validation import index_array, kernel_rows, row_starts
from .whitening import whitened

Trees = Sequence[tuple[LabelTree, NodeWeights | PackedWeights]]

# How many classes are scored again, the log-probability that they have in the tree, and its smoothing.
FEW, MORE = (64.0, float(np.log(1e-3)), 0.0), (256.0, float(np.log(1e-4)), 0.0)
MORE_SMOOTHED = (*MORE[:2], 0.03)
# A feature that counts for less than this share of a class's largest tells of a row more than of the class.
KEPT = 0.2


class Rescoring(FlatArrays):
    """How similar rows are to classes, and what that counts.

    Nodes of logits z have ``(1 - smoothing) * softmax(z) + smoothing * softmax(z / 3)``, so that no row is
    wholly lost where one of them is sure of the wrong branch. Classes of at least the log-probability
    `least` in the tree, up to `most` of them, divide what they have together in proportion to
    ``p^power * exp(weight * s)``. The similarity s of a row x and a class is

    - the cosine of x and the sum of the class's rows, each of length one, features counting by their
      idf, ``log((1 + n_classes) / (1 + n_classes with the feature)) + 1``;
    - where rows are made white, the product of the white x and the direction of the class's mean.

    Class c has `features` and `values` from ``starts[c]`` to ``starts[c + 1]``, all features where there are
    none, and a bias: s is their product with x; or, if there are `feature_weights` w, with
    ``w * x / sqrt(sum(w * x^2))``. Values have been divided by the class's one of `lengths`. If it is pruned,
    as shrunken centroids are [1]_, a class lacks the features whose value times ``sqrt(w)`` is less than the
    share `kept` of its largest.

    .. [1] Robert Tibshirani et al., "Diagnosis of multiple cancer types by shrunken centroids of gene
       expression", 2002.
    """

    __slots__ = (
        "starts",
        "features",
        "values",
        "biases",
        "lengths",
        "feature_weights",
        "coefficients",
        "reach",
        "kept",
    )

    starts: NDArray[np.int64]
    features: NDArray[np.int32]
    values: NDArray[np.float32]
    biases: NDArray[np.float32]
    lengths: NDArray[np.float64]
    feature_weights: NDArray[np.float32]
    coefficients: NDArray[np.float64]
    reach: NDArray[np.float64]
    kept: NDArray[np.float64]

    @property
    def power(self) -> float:
        """Of the tree's probability."""
        return float(self.coefficients[0])

    @property
    def weight(self) -> float:
        """Of the similarity."""
        return float(self.coefficients[1])

    @property
    def most(self) -> int:
        """Classes that are scored again."""
        return int(self.reach[0])

    @property
    def least(self) -> float:
        """Log-probability that they have in the tree."""
        return float(self.reach[1])

    @property
    def smoothing(self) -> float:
        """The share of nodes' probabilities that are those of a higher temperature."""
        return float(self.reach[2])

    @property
    def is_pruned(self) -> bool:
        """Whether centroids lack what counts for little."""
        return bool(self.kept[0] > 0)

    @property
    def is_full(self) -> bool:
        """Whether every class has every feature: none is rare in one."""
        return len(self.values) == len(self.biases) * self.n_features

    @property
    def n_features(self) -> int:
        return len(self.feature_weights) or int(self.starts[1])

    def matrix(self) -> sparse.csr_array:
        """The values, (n_classes, n_features)."""
        shape = len(self.biases), self.n_features
        if len(self.feature_weights):
            starts = index_array(self.starts)
            return sparse.csr_array((self.values, self.features, starts), shape=shape)
        return sparse.csr_array(self.values.reshape(shape))

    def with_coefficients(self, power: float, weight: float) -> Rescoring:
        return Rescoring(self.to_arrays() | {"coefficients": np.array([power, weight])})

    def with_reach(self, most: float, least: float, smoothing: float) -> Rescoring:
        return Rescoring(self.to_arrays() | {"reach": np.array([most, least, smoothing])})

    def chosen_as(self, other: Rescoring) -> Rescoring:
        """With the other's coefficients, reach and share that is kept; `updated` then keeps that share."""
        return Rescoring(
            self.to_arrays() | {name: getattr(other, name) for name in ("coefficients", "reach", "kept")}
        )

    def pruned(self) -> Rescoring:
        """With features only that count for KEPT of the class's largest or more; not of white rows."""
        counts = np.empty(len(self.biases), np.int64)
        features, values = np.empty_like(self.features), np.empty_like(self.values)
        rows = self.starts, self.features, self.values, self.feature_weights
        # those at the bound are kept whichever way sums were rounded
        keep_large(*rows, (1 - 1e-4) * KEPT, counts, features, values)
        n = counts.sum()
        sums = (values[:n].copy(), features[:n].copy(), row_starts(counts))
        sums = sparse.csr_array(sums, shape=(len(counts), self.n_features))
        new = _of_sums(sums, np.zeros(len(counts), np.int32), self.feature_weights).chosen_as(self)
        lengths = new.lengths * self.lengths
        return Rescoring(new.to_arrays() | {"lengths": lengths, "kept": np.array([KEPT])})

    def apply(
        self,
        rows: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]],
        classes: NDArray[np.int32],
        log_proba: NDArray[np.float64],
    ) -> None:
        """Score a tree's likely classes again, in place, and put them in order."""
        rescore(self, *rows, classes, log_proba)


def class_similarities(
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    n_classes: int,
    whitening: NDArray[np.float64] | None,
    n_jobs: int | None,
    sums: ClassSums | None = None,
) -> Rescoring:
    """Of rows with classes like these, which are white where there is a whitening; it counts nothing yet.

    `sums` are those of unit_sums for rows that are not white, where they are known.
    """
    sums, exponent, _ = sums or _sums(X, y, weights, n_classes, whitening, n_jobs)
    if whitening is not None:
        return _of_white(sums.toarray(), exponent, whitening)
    n_with = column_counts(sums)
    idf = np.log((1 + n_classes) / (1 + n_with)) + 1
    return _of_sums(sums, exponent, (idf**2).astype(np.float32))


def updated(
    rescoring: Rescoring,
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    whitening: NDArray[np.float64] | None,
    n_jobs: int | None,
) -> Rescoring:
    """With the rows of another batch, as they are; features keep their weights, and it stays pruned."""
    X = X if whitening is None else whitened(X, whitening)
    sums, exponent, _ = _sums(X, y, weights, len(rescoring.biases), whitening, n_jobs)
    known, met = rescoring.lengths > 0, np.bincount(y, minlength=len(exponent)) > 0
    of_known = np.where(known, np.frexp(rescoring.lengths)[1], exponent)
    exponent = np.where(met, exponent, of_known)
    largest = np.maximum(exponent, of_known)
    more = _scaled(sums, np.ldexp(1.0, exponent - largest))
    before = _scaled(rescoring.matrix(), np.ldexp(rescoring.lengths, -largest))
    if whitening is None:
        both = sparse.csr_array(before + more)
        both.sort_indices()
        new = _of_sums(both, largest, rescoring.feature_weights)
    else:
        with one_blas_thread():
            white = before.toarray() @ np.linalg.inv(whitening[:-1]).T.astype(np.float32)
        white += more.toarray()
        new = _of_white(white, largest, whitening)
    return new.chosen_as(rescoring).pruned() if rescoring.is_pruned else new.chosen_as(rescoring)


def _sums(
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    n_classes: int,
    whitening: NDArray[np.float64] | None,
    n_jobs: int | None,
) -> ClassSums:
    if whitening is None:
        return unit_sums(X, y, weights, n_classes, n_jobs)
    reach = np.frexp(np.abs(X.data).max(initial=0))[1]  # so that no sum is too large for float32
    scale = np.ldexp(weights, -reach)
    sums = scaled_sums(X, y, weights, scale, n_classes, of_dense=True, n_jobs=n_jobs)
    return sums._replace(exponent=sums.exponent + reach)


def _scaled(sums: sparse.csr_array, factors: NDArray[np.float64]) -> sparse.csr_array:
    """Each row times its factor."""
    by_value = np.repeat(factors.astype(np.float32), np.diff(sums.indptr))
    return sparse.csr_array((sums.data * by_value, sums.indices, sums.indptr), shape=sums.shape)


def _of_sums(
    sums: sparse.csr_array, exponent: NDArray[np.int32], feature_weights: NDArray[np.float32]
) -> Rescoring:
    starts, features, _ = rows = kernel_rows(sums)
    lengths, values = np.empty(sums.shape[0]), np.empty_like(sums.data)
    unit_rows(*rows, feature_weights, lengths, values)
    biases = np.zeros(len(lengths), dtype=np.float32)
    return _rescoring(starts, features, values, biases, np.ldexp(lengths, exponent), feature_weights)


def _of_white(sums: NDArray, exponent: NDArray[np.int32], whitening: NDArray[np.float64]) -> Rescoring:
    """Of white rows, (n_classes, n_features), but for rows as they are."""
    lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums, dtype=np.float64))
    with one_blas_thread():
        # [x, 1] A m = x . (A[:-1] m) + A[-1] m
        mapped = (sums @ whitening.T.astype(sums.dtype)) / _or_one(lengths)[:, None]
    n, d = sums.shape
    values, biases = mapped[:, :-1].astype(np.float32).ravel(), mapped[:, -1].astype(np.float32)
    starts, none = d * np.arange(n + 1, dtype=np.int64), np.empty(0, dtype=np.int32)
    return _rescoring(starts, none, values, biases, np.ldexp(lengths, exponent), none.astype(np.float32))


def _rescoring(*arrays: NDArray) -> Rescoring:
    arrays = *arrays, np.array([1.0, 0.0]), np.array(FEW), np.array([0.0])
    return Rescoring(dict(zip(Rescoring.__slots__, arrays, strict=True)))


def _or_one(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(lengths > 0, lengths, 1)


# -- coefficients -----------------------------------------------------------


def likely_classes(
    rescoring: Rescoring, trees: Trees, X: sparse.csr_array, n_jobs: int | None
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The classes of each row that are scored again, and their log-probabilities, as of inference.top_k."""
    return top_k(_models(rescoring, trees), X, rescoring.most, n_jobs, rescoring.least)


def choose_coefficients(
    rescoring: Rescoring,
    likely: tuple[NDArray[np.int32], NDArray[np.float64]],
    trees: Trees,
    X: sparse.csr_array,
    y: NDArray[np.int32],
    weights: NDArray[np.float64],
    doubt: float,
    n_jobs: int | None,
) -> tuple[Rescoring, float, float]:
    """With the power and weight of the least log-loss of rows that nothing has seen, of these likely classes.

    It is the log-loss of a softmax with two features, which is convex. A share of each row, `doubt`, is taken
    to have a label that the trees draw: else rows that are all told right would want infinite coefficients,
    as in [1]_. Also the log-loss before, of the trees with its smoothing, and after.

    .. [1] John Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    classes, log_p = likely
    similarity = np.zeros(classes.shape)
    similarities(rescoring, *kernel_rows(X), classes, similarity)
    row, at = np.nonzero(classes >= 0)
    classes, log_p, similarity = classes[row, at], log_p[row, at], similarity[row, at]
    first = np.flatnonzero(np.diff(row, prepend=-1))
    counts = np.diff(first, append=len(row))
    hit = classes == y[row]
    drawn = np.exp(log_p)
    drawn /= np.repeat(np.add.reduceat(drawn, first), counts)
    target = (1 - doubt) * hit + doubt * drawn
    share = np.repeat(np.logical_or.reduceat(hit, first), counts) * weights[row] / weights.sum()
    reach = np.maximum.reduceat(similarity, first) - np.minimum.reduceat(similarity, first)
    unit = max(float(weights[row[first]] @ reach / weights.sum()), 1e-30)
    features = np.stack([log_p, similarity / unit])

    def loss(coefficients: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = coefficients[0] * features[0] + coefficients[1] * features[1]
        scores -= np.repeat(np.maximum.reduceat(scores, first), counts)
        scores -= np.repeat(np.log(np.add.reduceat(np.exp(scores), first)), counts)
        errors = share * (np.exp(scores) - target)
        return float(-np.sum(share * target * scores)), np.sum(features * errors, axis=1)

    start = np.array([1.0, 0.0])
    end = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * 2)
    power, weight = float(end.x[0]), float(end.x[1] / unit)
    before = float(-path_log_proba(_models(rescoring, trees), X, y, n_jobs) @ weights / weights.sum())
    return rescoring.with_coefficients(power, weight), before, before - float(loss(start)[0] - end.fun)


def _models(rescoring: Rescoring, trees: Trees) -> Models:
    return [(*tree, rescoring.smoothing) for tree in trees]
