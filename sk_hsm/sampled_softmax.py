"""The estimator that learns a flat softmax by sampled negatives; no maths, no loops."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from . import scan
from .embedding_base import EmbeddingEstimator
from .embedding_training import Pieces
from .flat_softmax import FlatSoftmax, check_hidden_layer_sizes, forward
from .inference import check_memory
from .node_weights import LINE
from .predictions import Predictions
from .progress import Progress
from .validation import check_count


class SampledSoftmaxClassifier(Predictions, EmbeddingEstimator):
    """A flat softmax over very many classes, learned by sampled negatives, served by top-N search.

    A row x becomes the vector ``h = sum(x[f] * embedding_[f]) / norm(x)``, which ReLU layers may change,
    and ``P(c | x) = exp(class_vectors_[c] . h + class_intercepts_[c]) / Z``. A step of gradient descent
    does not sum up Z, but estimates it by a few drawn classes: those which the inverted multi-index of
    the class vectors finds likely [1]_, or any. Recommenders are trained so [2]_; the tree of
    :class:`~sk_hsm.HierarchicalSoftmaxEmbedding` is the other road.

    Read more in the :ref:`user guide <sampled_softmax>`.

    Parameters
    ----------
    dim : int or None, default=100
        Length of the embeddings. None: a row is its own h, as dense ones from elsewhere can be.
    sampler : {"midx-rq", "midx", "unigram", "uniform"} or None, default="midx-rq"
        What negatives are drawn by. "midx-rq" and "midx": by the inverted multi-index, of the class
        vectors and what is left of them (residual quantization) or of their halves (product
        quantization), a class of a cell by exp(intercept). "unigram": by how often a class occurs,
        plus one. "uniform": all alike. None: all classes are negatives in every step, the full softmax.
    n_negatives : int, default=50
        How many classes are drawn in a step, 2 ** 20 at most.
    n_codewords : int, default=64
        Of each of the two codebooks; their square is the number of cells.
    hidden_layer_sizes : int or tuple of int, default=()
        Sizes of ReLU layers between the embedding and h, as in [2]_. A `learning_rate` above 0.3 can switch
        all units off for good.
    norm : {"l2", "l1"} or None, default="l2"
        What rows are divided by; None leaves them as they are.
    fit_intercept : bool, default=True
        Whether classes have an intercept, which learns how frequent they are.
    learning_rate : float, default=0.1
        Length of the first steps of gradient descent. It falls to zero in a line. Clean texts want
        0.1 to 1, noisy rows 0.05. Steps that would overshoot are shortened, as those of
        :class:`HierarchicalSoftmaxEmbedding`.
    n_epochs : int or "auto", default="auto"
        How often each row is visited. "auto" is 5, or where there are less than 20,000 rows more, 1,000 at
        most.
    lock_free : bool, default=False
        Whether `n_jobs` threads learn at the same time, without waiting for each other. That is
        faster, but the result is then another one each time.
    n_jobs : int, default=None
        Number of threads, in joblib's sense, for predictions; for learning only if `lock_free`.
    random_state : int, RandomState instance or None, default=None
        Draws the first embeddings, the order of rows, codewords and negatives.
    verbose : int, default=0
        1 prints the loss of each epoch and, every few seconds, how far it is; 2 every second.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted distinct labels of y.
    embedding_ : ndarray of shape (n_features, dim)
        The vector of each feature, float32; None if `dim` is.
    coefs_, intercepts_ : lists of ndarrays of shape (n_inputs, n_outputs) and (n_outputs,)
        The hidden layers, as of scikit-learn's MLPClassifier.
    class_vectors_ : ndarray of shape (n_classes, n_outputs)
        The vector of each class, float32; n_outputs is the size of h.
    class_intercepts_ : ndarray of shape (n_classes,)
        Their intercepts.
    class_count_ : ndarray of shape (n_classes,)
        Rows of each class, by weight.
    loss_curve_ : list of float
        Mean loss of each epoch, of each row just before its step: the log-loss of its class among those
        drawn, which is lower than the log-loss among all; nan of one in which batches gave no row. Not kept
        by `partial_fit`.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X had string column names.

    See Also
    --------
    HierarchicalSoftmaxEmbedding : The same embeddings, with a tree of classes above them.
    sk_hsm.neighbours.NeighbourIndex : Hands class vectors to hnswlib, faiss or usearch.

    Notes
    -----
    Of a row with label y, and n negatives of which class c is drawn m times with probability q each,
    the loss is ``-log(exp(o[y]) / (exp(o[y]) + sum(m / (n q) * exp(o[c]))))``: the sum estimates Z
    without bias, and with all classes as negatives it is Z. Draws of y itself are left out.

    A step costs ``O(dim * (non-zeros + n_negatives + n_codewords) + n_codewords ** 2)``, whatever the
    number of classes; without a sampler ``O(dim * n_classes)``. Codebooks are made anew when as
    many rows have been visited as there are classes, 4096 at least, and at the end. Predictions cost
    ``O(dim * n_classes)`` a row, but for `predict_top_k` with `n_probe`. One thread gives the same
    bits each time.

    References
    ----------
    .. [1] J. Chen, J. Wu, et al., "Adaptive sampled softmax with inverted multi-index: methods, theory
       and applications", 2025. arXiv:2501.08563.
    .. [2] P. Covington, J. Adams, E. Sargin, "Deep neural networks for YouTube recommendations",
       RecSys 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sk_hsm import SampledSoftmaxClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = SampledSoftmaxClassifier(dim=16, random_state=0).fit(X, y)
    >>> clf.predict_proba(X[:1]).shape
    (1, 10)
    >>> bool(clf.score(X, y) > 0.95)
    True
    """

    _parameter_constraints: dict = {
        "dim": [Interval(Integral, 1, None, closed="left"), None],
        "sampler": [StrOptions({"midx-rq", "midx", "unigram", "uniform"}), None],
        "n_negatives": [Interval(Integral, 1, 2**20, closed="both")],
        "n_codewords": [Interval(Integral, 1, 1024, closed="both")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "norm": [StrOptions({"l1", "l2"}), None],
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
        dim: int | None = 100,
        sampler: str | None = "midx-rq",
        *,
        n_negatives: int = 50,
        n_codewords: int = 64,
        hidden_layer_sizes: int | tuple[int, ...] = (),
        norm: str | None = "l2",
        fit_intercept: bool = True,
        learning_rate: float = 0.1,
        n_epochs: int | str = "auto",
        lock_free: bool = False,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.dim = dim
        self.sampler = sampler
        self.n_negatives = n_negatives
        self.n_codewords = n_codewords
        self.hidden_layer_sizes = hidden_layer_sizes
        self.norm = norm
        self.fit_intercept = fit_intercept
        self.learning_rate = learning_rate
        self.n_epochs = n_epochs
        self.lock_free = lock_free
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # -- fit ----------------------------------------------------------------

    def _start(
        self,
        pieces: Pieces,
        n_pieces: int,
        n_epochs: int,
        classes: NDArray[Any],
        frequency: NDArray[np.float64],
    ) -> FlatSoftmax:
        params, n_features = self.get_params(deep=False), self.n_features_in_
        params["hidden_layer_sizes"] = check_hidden_layer_sizes(self.hidden_layer_sizes)
        dims = [self.dim or n_features, *params["hidden_layer_sizes"]]
        n_vectors = [n_features if self.dim else 0, *dims[1:], len(classes)]
        n_numbers = sum(n * (dim + LINE) for n, dim in zip(n_vectors, dims[:1] + dims, strict=True))
        what = f"fit of {n_features} features and {len(classes)} classes with dim={self.dim}"
        check_memory(what, 8 * n_numbers, "a smaller dim or hidden_layer_sizes, or fewer features")
        Progress(self.verbose).say(f"{n_features} features, {len(classes)} classes")
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        return FlatSoftmax.start(n_features, frequency, params, seed)

    def _resume(self, frequency: NDArray[np.float64]) -> FlatSoftmax:
        index = self._index if self.sampler in ("midx", "midx-rq") else None
        arrays = self.embedding_, self.coefs_, self.intercepts_, self._vectors, self._dims
        return FlatSoftmax.of_arrays(*arrays, self.class_count_ + frequency, self._numbers, index)

    def _set_learned(self, model: FlatSoftmax) -> None:
        self._index = model.search_index(self.get_params(deep=False))
        self.embedding_, self.coefs_, self.intercepts_, self._vectors = model.to_arrays()
        self.class_count_, self._dims = model.counts, model.dims
        self._numbers = model.seed, model.n_drawn

    # -- use ----------------------------------------------------------------

    def predict_top_k(
        self, X: ArrayLike | sparse.sparray, k: int = 5, n_probe: int | None = None
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """The k most probable labels of each row, and their probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        k : int, default=5
            Number of labels; at most n_classes are returned.
        n_probe : int, default=None
            None scores all classes. A number opens at most that many of the ``n_codewords ** 2`` cells
            of the inverted multi-index, those first that could hold the best class. It ends sooner where
            no other could, so that the labels of all cells are exact; of fewer there may be better ones
            elsewhere, and less than k (probability 0, the first class, stands in). What the other
            cells hold of the probability is then estimated by their codewords.

        Returns
        -------
        labels : ndarray of shape (n_samples, min(k, n_classes))
            Most probable first; ties in the order of `classes_`.
        proba : ndarray of shape (n_samples, min(k, n_classes))
        """
        k = check_count("k", k)
        n_probe = None if n_probe is None else check_count("n_probe", n_probe)
        H = self._queries(X)
        k = min(k, len(self.classes_))
        if n_probe is None:
            classes, log_proba = self._top_k(H, k)
        else:
            n_probe = min(n_probe, self._index.n_codewords**2)
            classes, log_proba = scan.search(
                H, self._vectors, self._index, self._dims[-1], k, n_probe, self.n_jobs
            )
        return self.classes_[np.maximum(classes, 0)], np.exp(log_proba, out=log_proba)

    def _top_k(
        self, H: NDArray[np.float32], k: int, min_log_proba: float = -np.inf
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        return scan.top_k(H, self._vectors, k, self.n_jobs, min_log_proba)

    def _all_log_proba(self, H: NDArray[np.float32]) -> NDArray[np.float64]:
        return scan.all_log_proba(H, self._vectors, self.n_jobs)

    def _class_log_proba(self, H: NDArray[np.float32], classes: NDArray[np.int32]) -> NDArray[np.float64]:
        return scan.class_log_proba(H, self._vectors, classes, self.n_jobs)

    def _sample(self, H: NDArray[np.float32], draw: Callable[[], NDArray[np.float64]]) -> NDArray[np.int32]:
        return scan.sample_classes(H, self._vectors, draw(), self.n_jobs)

    def _queries(self, X: Any) -> NDArray[np.float32]:
        H, size = self._vectors_of(X), self._dims[-1]
        queries = np.zeros((len(H), self._vectors.shape[1]), dtype=np.float32)
        queries[:, :size], queries[:, size] = H, 1
        return queries

    def _embed_rows(self, rows: sparse.csr_array) -> NDArray[np.float32]:
        H = rows.toarray() if self.embedding_ is None else np.asarray(rows @ self.embedding_)
        return forward(H, self.coefs_, self.intercepts_)

    @property
    def _vector_bytes(self) -> int:
        return 12 * max(self._dims)  # the three vectors that a layer takes

    @property
    def class_vectors_(self) -> NDArray[np.float32]:
        return self._vectors[:, : self._n_features_out]

    @property
    def class_intercepts_(self) -> NDArray[np.float32]:
        return self._vectors[:, self._n_features_out]

    @property
    def _n_features_out(self) -> int:
        return self._dims[-1]
