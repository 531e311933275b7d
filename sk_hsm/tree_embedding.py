"""Batches of checked rows -> embeddings of features and vectors of nodes, by gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import normalize

from ._kernels import embedding as kernels
from .clusters import cluster_centroids
from .embedding_training import Piece, Pieces, first_embeddings, is_finite, learn, padded
from .label_tree import LabelTree
from .node_vectors import NodeVectors, vector_offsets
from .progress import Progress
from .tree_builders import checked_tree, given_tree
from .validation import float_csr, kernel_rows

# The share of the epochs that tree="kmeans" learns for with a Huffman tree first.
FIRST_PHASE = 5


@dataclass
class Embedding:
    """A tree, and what is learned: rows of whole cache lines, longer than dim, as kernels like them."""

    tree: LabelTree
    dim: int
    embedding: NDArray[np.float32]
    vectors: NDArray[np.float32]  # an intercept in column dim

    @classmethod
    def start(cls, tree: LabelTree, n_features: int, dim: int, rng: np.random.Generator) -> Embedding:
        """Embeddings drawn evenly between -1 / 2 dim and 1 / 2 dim; no node knows anything."""
        return cls(tree, dim, first_embeddings(n_features, dim, dim, rng), no_vectors(tree, dim))

    @classmethod
    def of_arrays(cls, tree: LabelTree, embedding: NDArray[np.float32], nodes: NodeVectors) -> Embedding:
        """To be trained further; the arrays are copied."""
        dim = embedding.shape[1]
        vectors = padded(nodes.vectors)
        vectors[:, dim] = nodes.intercepts
        return cls(tree, dim, padded(embedding), vectors)

    def to_arrays(self) -> tuple[NDArray[np.float32], NodeVectors]:
        """What of_arrays takes."""
        arrays = dict(
            vectors=np.ascontiguousarray(self.vectors[:, : self.dim]),
            intercepts=np.ascontiguousarray(self.vectors[:, self.dim]),
            vector_ptr=vector_offsets(self.tree.child_ptr),
        )
        return np.ascontiguousarray(self.embedding[:, : self.dim]), NodeVectors(arrays)

    @property
    def is_finite(self) -> bool:
        """Whether no number has overflowed."""
        return is_finite(self.embedding) and is_finite(self.vectors)

    def train(self, piece: Piece, params: dict[str, Any], first_rate: float, last_rate: float) -> float:
        """A step for each row, the rate falling from the first to the last; the sum of weight * log-loss."""
        rows, order = piece
        return kernels.train_rows(
            self.tree,
            vector_offsets(self.tree.child_ptr),
            *kernel_rows(rows.X),
            rows.y,
            rows.weights,
            order,
            self.embedding,
            self.vectors,
            self.dim,
            params["fit_intercept"],
            first_rate,
            last_rate,
        )


def no_vectors(tree: LabelTree, dim: int) -> NDArray[np.float32]:
    """Vectors of zeros for every node."""
    return padded(np.zeros((vector_offsets(tree.child_ptr)[-1], dim), dtype=np.float32))


def start_model(
    pieces: Pieces,
    n_pieces: int,
    n_epochs: int,
    classes: NDArray[Any],
    frequency: NDArray[np.float64],
    n_features: int,
    params: dict[str, Any],
    seed: int,
    progress: Progress,
) -> Embedding:
    """A model that has its tree; for "kmeans", embeddings of a first phase, too."""
    rng = np.random.default_rng(seed)
    tree = given_tree(checked_tree(params["tree"], classes), params["arity"], classes, frequency)
    first = tree if tree is not None else given_tree("huffman", params["arity"], classes, frequency)
    model = Embedding.start(first, n_features, params["dim"], rng)
    if tree is None and len(classes) > params["arity"]:
        progress.say("first phase, with a Huffman tree")
        learn(model, pieces, n_pieces, -(-n_epochs // FIRST_PHASE), params, progress)
        model.tree = clustered_tree(model, pieces, frequency, params, seed)
        model.vectors = no_vectors(model.tree, model.dim)
    progress.say(
        f"{n_features} features, {len(classes)} classes; tree: {model.tree.n_inner} nodes, "
        f"depth {model.tree.max_depth}, mean {model.tree.mean_depth(frequency):.2f}"
    )
    return model


def clustered_tree(
    model: Embedding, pieces: Pieces, frequency: NDArray[np.float64], params: dict[str, Any], seed: int
) -> LabelTree:
    """The k-means tree of classes, each the mean direction of its embedded rows."""
    n_classes = len(frequency)
    sums = np.zeros((n_classes, model.dim))
    for rows, order in pieces():
        H = normalize(rows.X[order] @ model.embedding[:, : model.dim])
        members = rows.weights[order], (rows.y[order], np.arange(len(order)))
        sums += sparse.csr_array(members, shape=(n_classes, len(order))) @ H
    centroids = float_csr(normalize(sums))
    [tree] = cluster_centroids(centroids, frequency, params["arity"], [seed], params["n_jobs"])
    return tree.with_labels(model.tree.leaf_labels)
