"""The estimator that learns embeddings of features through the tree; no maths, no loops."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from .embedding_base import EmbeddingEstimator
from .embedding_training import Pieces
from .inference import check_memory
from .label_tree import LabelTree
from .node_weights import LINE
from .predictions import TreePredictions
from .progress import Progress
from .tree_embedding import Embedding, start_model
from .validation import OneRow


class HierarchicalSoftmaxEmbedding(TreePredictions, EmbeddingEstimator):
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
        "kmeans" first learns for a fifth as many epochs more with a Huffman tree, at least one, clusters
        the mean vectors of the classes, and goes on with that tree. Otherwise as in
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
        0.1 to 1, noisy rows 0.05. Steps that would overshoot are shortened.
    n_epochs : int or "auto", default="auto"
        How often each row is visited. "auto" is 5, or where there are less than 20,000 rows more, 1,000 at
        most.
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
    node_weights_ : NodeVectors
        Both, and which of them are those of which node.
    loss_curve_ : list of float
        Mean log-loss of each epoch, of each row just before its step; nan of one in which batches gave no
        row. Not kept by `partial_fit`.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X had string column names.

    See Also
    --------
    HierarchicalSoftmaxClassifier : Weights of features at each node, no embeddings: nothing to
        tune, better likelihoods, larger.
    SkipGramPairs : Rows and labels from texts.

    Notes
    -----
    A step costs ``O(dim * (non-zeros + arity * depth))``. Its error signal at a child is
    ``e = p - [child is on the path]``; the child's vector v moves by ``-rate * e * h``, and the
    features' embeddings by ``-rate * x[f] * sum(e * v)``. The rate of a row is at most ``4 / |h|**2``, beyond
    which steps overshoot, and its embeddings move no further than lowers its log-loss by 4, to first order.
    One thread gives the same bits each time.

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
        n_numbers = (self.n_features_in_ + len(classes)) * (self.dim + LINE)
        check_memory(what, 8 * n_numbers, "a smaller dim, or fewer features")
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        params, progress = self.get_params(deep=False), Progress(self.verbose)
        return start_model(
            pieces, n_pieces, n_epochs, classes, frequency, self.n_features_in_, params, seed, progress
        )

    def _resume(self, frequency: NDArray[np.float64]) -> Embedding:
        return Embedding.of_arrays(self.tree_, self.embedding_, self.node_weights_)

    def _set_learned(self, model: Embedding) -> None:
        self.tree_ = model.tree
        self.embedding_, self.node_weights_ = model.to_arrays()

    def _embed_rows(self, rows: sparse.csr_array) -> NDArray[np.float32]:
        return np.asarray(rows @ self.embedding_)

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
        H = self._vectors_of(X)
        if len(H) != 1:
            return H
        dim = H.shape[1]
        return OneRow(np.array([0, dim], dtype=np.int64), np.arange(dim, dtype=np.int32), H[0], H.shape)
