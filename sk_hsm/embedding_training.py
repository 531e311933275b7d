"""Batches of checked rows -> embeddings of features and vectors of nodes, by gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import normalize

from ._kernels import embedding as kernels
from .label_tree import LabelTree
from .node_vectors import NodeVectors, vector_offsets
from .node_weights import LINE, aligned_empty
from .progress import Progress
from .tree_builders import cluster_centroids, given_tree
from .validation import OneRow, check_classes, encode_known, encode_labels, float_csr, kernel_rows

# Rows between two looks at the clock and at the keyboard, each worth some microseconds.
PIECE = 2**18
# Of n_epochs="auto": so many, or more where rows are so few that less than VISITS would be made.
EPOCHS = 5
VISITS = 100_000
# Numbers that are no trouble as float32, nor their inverses.
LARGE = 1e30
# The share of the epochs that tree="kmeans" learns for with a Huffman tree first.
FIRST_PHASE = 5


class LabelledRows(NamedTuple):
    """What is learned from."""

    X: sparse.csr_array  # float32, its rows divided by their norm
    y: NDArray[np.int32]
    weights: NDArray[np.float32]


class Piece(NamedTuple):
    """Some rows, and the order in which they are visited."""

    rows: LabelledRows
    order: NDArray[np.int64]


# what is visited in an epoch; and of how many pieces that is
Pieces = Callable[[], Iterable[Piece]]


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
        embedding = padded(rng.random((n_features, dim), dtype=np.float32))
        embedding[:, :dim] -= 0.5
        embedding /= dim
        return cls(tree, dim, embedding, no_vectors(tree, dim))

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
        # a sum of numbers is finite if they are, unless they are about to overflow themselves
        return bool(np.isfinite(self.embedding.sum()) and np.isfinite(self.vectors.sum()))


def padded(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy with zeros to the right, at least one, up to whole lines."""
    n, dim = array.shape
    width = LINE * (dim // LINE + 1)
    out = aligned_empty(n * width).reshape(n, width)
    out[:, :dim], out[:, dim:] = array, 0
    return out


def no_vectors(tree: LabelTree, dim: int) -> NDArray[np.float32]:
    """Vectors of zeros for every node."""
    return padded(np.zeros((vector_offsets(tree.child_ptr)[-1], dim), dtype=np.float32))


def unit_rows(X: Any, norm: str) -> sparse.csr_array:
    """Checked rows as float32 CSR, each divided by its norm."""
    if sparse.issparse(X) and are_one_hot(X):
        return sparse.csr_array(X, dtype=np.float32)
    X = sparse.csr_array(X, dtype=np.float64)
    sizes = np.abs(X.data)
    if not (sizes.max(initial=0) < LARGE and sizes.min(initial=1, where=sizes > 0) > 1 / LARGE):
        X = normalize(X, "max")
    X = X.astype(np.float32).astype(np.float64)  # the values that a row alone has
    return float_csr(normalize(X, norm))


def are_one_hot(X: sparse.csr_array) -> bool:
    """Whether each row is a single one, as those of SkipGramPairs: it is its own unit row."""
    return bool(X.nnz == X.shape[0] and (X.data == 1).all() and (np.diff(X.indptr) == 1).all())


def embedded_row(row: OneRow, norm: str, embedding: NDArray[np.float32]) -> OneRow:
    """The vector of one row, as kernels take it; what unit_rows makes of many, sooner."""
    values = row.data.astype(np.float64)
    # added up one by one, as normalize does
    sums = np.cumsum(values * values if norm == "l2" else np.abs(values))
    length = (np.sqrt(sums[-1]) if norm == "l2" else sums[-1]) if len(sums) else 0
    unit = (values / (length or 1)).astype(np.float32)
    rows = sparse.csr_array((unit, row.indices, row.indptr), shape=row.shape)
    h, dim = (rows @ embedding)[0], embedding.shape[1]
    return OneRow(np.array([0, dim], dtype=np.int64), np.arange(dim, dtype=np.int32), h, (1, dim))


def choose_n_epochs(n_epochs: int | str, n_rows: int) -> int:
    """The number itself, or what "auto" means."""
    return max(EPOCHS, -(-VISITS // max(n_rows, 1))) if n_epochs == "auto" else int(n_epochs)


def check_batches(batches: Any) -> None:
    """Raise TypeError where batches cannot be counted, or be had again and again."""
    if not hasattr(batches, "__len__") or iter(batches) is batches:
        raise TypeError(
            "batches must have a length and give its batches anew for each epoch, as a list does, got "
            f"{type(batches).__name__}: use a list, or a class with __len__ and __iter__"
        )
    if not len(batches):
        raise ValueError("batches must hold at least one batch, got none")


def with_rows(batches: Iterable) -> Iterator[tuple]:
    """The batches that are not empty, which SkipGramPairs can give where few words are kept."""
    some = False
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            raise TypeError(
                "batches must give tuples (X, y) or (X, y, sample_weight), got "
                f"{type(batch).__name__}{f' of {len(batch)}' if isinstance(batch, tuple | list) else ''}"
            )
        if np.shape(batch[1])[0]:
            some = True
            yield batch
    if not some:
        raise ValueError("batches must hold at least one row, got only empty ones")


def count_labels(batches: Iterable, classes: Any, counts: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The sorted classes and how often each occurs: as given, or from a pass over batches."""
    if counts is not None and (classes is None or np.shape(counts) != np.shape(classes)):
        raise ValueError(
            f"counts must have one number for each of classes, got shapes {np.shape(counts)} and "
            f"{np.shape(classes)}: pass both, or neither"
        )
    if counts is None:
        parts = [encode_labels(y) for _, y, *_ in with_rows(batches)]
        labels = np.concatenate([labels for labels, _ in parts])
        counts = np.concatenate([np.bincount(y, minlength=len(labels)) for labels, y in parts])
    else:
        labels, counts = np.asarray(classes), np.asarray(counts, dtype=np.float64)
        if counts.ndim != 1 or not (np.isfinite(counts) & (counts >= 0)).all():
            raise ValueError("counts must be a 1-D array of finite numbers that are not negative")
    classes = check_classes(labels if classes is None else classes)
    at = encode_known(labels, classes)
    return classes, np.bincount(at[at >= 0], weights=counts[at >= 0], minlength=len(classes))


def n_threads_of(params: dict[str, Any]) -> int:
    """How many threads may learn at the same time."""
    return effective_n_jobs(params["n_jobs"]) if params["lock_free"] else 1


def piece_starts(n_rows: int, params: dict[str, Any]) -> range:
    """Where pieces begin: of so many rows that every thread has several."""
    n_threads = n_threads_of(params)
    return range(0, n_rows, PIECE if n_threads == 1 else min(PIECE, -(-n_rows // (8 * n_threads))))


def in_pieces(rows: LabelledRows, order: NDArray[np.int64], params: dict[str, Any]) -> list[Piece]:
    """Rows in an order."""
    starts = piece_starts(len(order), params)
    return [Piece(rows, order[lo : lo + starts.step]) for lo in starts]


def learn(
    model: Embedding,
    pieces: Pieces,
    n_pieces: int,
    n_epochs: int,
    params: dict[str, Any],
    progress: Progress,
) -> list[float]:
    """Visit all pieces n_epochs times, the rate falling to zero in a line; the mean log-loss of each."""
    losses, last = [], n_epochs * n_pieces
    progress.start("learning", last)

    def rate(done: int) -> float:
        return params["learning_rate"] * max(0.0, 1 - done / last)

    for epoch in range(n_epochs):
        rates = ((rate(done), rate(done + 1)) for done in count(epoch * n_pieces))
        losses.append(visit(model, pieces(), rates, params, progress))
        progress.say(f"epoch {epoch + 1} of {n_epochs}: mean log-loss {losses[-1]:.4g}")
    return losses


def visit(
    model: Embedding,
    pieces: Iterable[Piece],
    rates: Iterable[tuple[float, float]],
    params: dict[str, Any],
    progress: Progress,
) -> float:
    """A step for each row, from the first rate of its piece to the last; the mean log-loss before them.

    With lock_free each thread takes a piece, and none waits for another [1]_. Meanwhile one of them makes
    the next piece.

    .. [1] B. Recht, C. Re, S. Wright, F. Niu, "Hogwild!", NIPS 2011.
    """
    ptr = vector_offsets(model.tree.child_ptr)
    learned = model.embedding, model.vectors, model.dim, params["fit_intercept"]

    def run(piece: Piece, first_rate: float, last_rate: float) -> tuple[float, float]:
        rows, order = piece
        arrays = ptr, *kernel_rows(rows.X), rows.y, rows.weights, order
        loss = kernels.train_rows(model.tree, *arrays, *learned, first_rate, last_rate)
        progress.advance(1)
        return loss, float(rows.weights[order].sum(dtype=np.float64))

    tasks = zip(pieces, rates, strict=False)
    n_threads = n_threads_of(params)
    if n_threads == 1:  # of few rows there may be thousands of epochs, each faster than joblib
        done = [run(piece, *rate) for piece, rate in tasks]
    else:
        done = Parallel(n_jobs=n_threads, require="sharedmem")(
            delayed(run)(piece, *rate) for piece, rate in tasks
        )
    loss, weight = np.sum(done, axis=0)
    return float(loss / weight)


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
    tree = given_tree(params["tree"], params["arity"], classes, frequency)
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
    tree = cluster_centroids(centroids, frequency, params["arity"], seed, params["n_jobs"])
    return tree.with_labels(model.tree.leaf_labels)
