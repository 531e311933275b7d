"""Class vectors of a flat softmax, handed to a library for nearest neighbours: hnswlib, faiss or usearch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from .sampled_softmax import SampledSoftmaxClassifier
from .validation import check_count

# The numbers of nearest vectors of each row, and their inner products with it, both (n_rows, k).
Search = Callable[[NDArray[np.float32], int], tuple[NDArray[Any], NDArray[Any]]]


class NeighbourIndex:
    """Finds the labels of the highest scores by a library for approximate nearest neighbours.

    It searches by the inner product of class vectors and their intercepts with h and a one, which is
    the log-probability up to a number that all classes of a row share.

    Parameters
    ----------
    estimator : SampledSoftmaxClassifier
        Fitted. What it learns later is not in the index.
    library : {"hnswlib", "faiss", "usearch"}, default="hnswlib"
        Install it with ``pip install hnswlib``, ``pip install faiss-cpu`` or ``pip install usearch``.
    **parameters
        For hnswlib ``M=16, ef_construction=200, ef=100, num_threads=-1``; for faiss
        ``factory="HNSW32"``, as its index_factory takes it, and parameters of the index such as
        ``nprobe`` or ``efSearch``; for usearch what its Index takes, such as ``connectivity`` and
        ``expansion_search``.

    Raises
    ------
    ImportError
        If the library is not installed.
    TypeError
        If the estimator is another one.
    ValueError
        If there is no such library.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sk_hsm import SampledSoftmaxClassifier
    >>> from sk_hsm.neighbours import NeighbourIndex
    >>> X, y = load_digits(return_X_y=True)
    >>> index = NeighbourIndex(SampledSoftmaxClassifier(dim=16, random_state=0).fit(X, y), "hnswlib")
    >>> labels, scores = index.top_k(X, k=3)
    >>> labels.shape
    (1797, 3)
    """

    def __init__(
        self, estimator: SampledSoftmaxClassifier, library: str = "hnswlib", **parameters: Any
    ) -> None:
        if not isinstance(estimator, SampledSoftmaxClassifier):
            raise TypeError(
                f"estimator must be a SampledSoftmaxClassifier, got {type(estimator).__name__}: others have "
                "no class vectors"
            )
        if library not in LIBRARIES:
            raise ValueError(f"library must be one of {sorted(LIBRARIES)}, got {library!r}")
        check_is_fitted(estimator)
        self.estimator = copy.copy(estimator)  # what it learns later is not in the index
        self.library = library
        width = estimator.class_vectors_.shape[1] + 1
        self._search = LIBRARIES[library](np.ascontiguousarray(estimator._vectors[:, :width]), **parameters)

    def top_k(self, X: ArrayLike | sparse.sparray, k: int = 5) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """The labels of the k highest scores that the library finds for each row, and the scores.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        k : int, default=5
            Number of labels; at most n_classes are returned.

        Returns
        -------
        labels : ndarray of shape (n_samples, min(k, n_classes))
            Highest first.
        scores : ndarray of shape (n_samples, min(k, n_classes))
            ``class_vectors_ @ h + class_intercepts_``; minus infinity, beside the first class, where
            faiss or usearch found fewer.

        Raises
        ------
        ValueError
            If hnswlib found fewer for a row, which it does not hand out.
        """
        k = min(check_count("k", k), len(self.estimator.classes_))
        width = self.estimator.class_vectors_.shape[1] + 1
        queries = np.ascontiguousarray(self.estimator._queries(X)[:, :width])
        found, scores = self._search(queries, k)
        found = np.asarray(found).astype(np.int64).reshape(len(queries), k)
        scores = np.where(found < 0, -np.inf, scores).astype(np.float32).reshape(found.shape)
        return self.estimator.classes_[np.maximum(found, 0)], scores


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"NeighbourIndex needs {module} for this: pip install {package}") from error


def _hnswlib(
    vectors: NDArray[np.float32],
    M: int = 16,
    ef_construction: int = 200,
    ef: int = 100,
    num_threads: int = -1,
) -> Search:
    index = _imported("hnswlib", "hnswlib").Index(space="ip", dim=vectors.shape[1])
    index.init_index(len(vectors), M=M, ef_construction=ef_construction)
    index.set_num_threads(num_threads)
    index.add_items(vectors)

    def search(queries: NDArray[np.float32], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
        index.set_ef(max(ef, k))
        try:
            found, distances = index.knn_query(queries, k)
        except RuntimeError as error:
            raise ValueError(
                f"hnswlib must find k={k} classes for each row, and found fewer with ef={ef} and M={M}: ask "
                "for a smaller k, or make the index with a larger ef or M"
            ) from error
        return found, 1 - distances

    return search


def _faiss(vectors: NDArray[np.float32], factory: str = "HNSW32", **attributes: Any) -> Search:
    faiss = _imported("faiss", "faiss-cpu")
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    for name, value in attributes.items():
        faiss.ParameterSpace().set_index_parameter(index, name, value)

    def search(queries: NDArray[np.float32], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
        scores, found = index.search(queries, k)
        return found, scores

    return search


def _usearch(vectors: NDArray[np.float32], **parameters: Any) -> Search:
    usearch = _imported("usearch.index", "usearch")
    index = usearch.Index(ndim=vectors.shape[1], metric="ip", dtype="f32", **parameters)
    index.add(np.arange(len(vectors), dtype=np.uint64), vectors)

    def search(queries: NDArray[np.float32], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
        matches = index.search(queries, k)
        found, scores = np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf)
        # of one row they are 1-D, and no more than were found
        keys, distances = np.atleast_2d(matches.keys), np.atleast_2d(matches.distances)
        there = np.arange(k) < np.reshape(getattr(matches, "counts", keys.shape[1]), (-1, 1))
        here = there[:, : keys.shape[1]]
        found[there], scores[there] = keys[here], 1 - distances[here]
        return found, scores

    return search


LIBRARIES: dict[str, Callable[..., Search]] = {
    "hnswlib": _hnswlib,
    "faiss": _faiss,
    "usearch": _usearch,
}
