"""Batches of checked rows, and gradient descent on them, whatever the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple, Protocol

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import normalize

from .node_weights import LINE, aligned_empty
from .progress import Progress
from .validation import OneRow, check_classes, encode_known, encode_labels, float_csr

# Rows between two looks at the clock and at the keyboard, each worth some microseconds; and less where an
# epoch has less than PIECES of them, but not less than this.
PIECE = 2**18
PIECES = 8
LEAST_PIECE = 2**12
# Of n_epochs="auto": so many, or more, but not more than MOST_EPOCHS, where rows are so few that less than
# VISITS would be made.
EPOCHS = 5
MOST_EPOCHS = 1000
VISITS = 100_000
# Numbers that are no trouble as float32, nor their inverses; and those whose squares are none.
LARGE = 1e30
LARGE_ROOT = 1e15
OVERFLOW = "learning_rate={} made the embeddings overflow: decrease it, or divide sample_weight by its mean"


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


class Model(Protocol):
    """What learns from pieces."""

    def train(self, piece: Piece, params: dict[str, Any], first_rate: float, last_rate: float) -> float:
        """A step for each row, the rate falling from the first to the last; the sum of weight * log-loss."""

    @property
    def is_finite(self) -> bool:
        """Whether no number has overflowed."""


def first_embeddings(n_features: int, dim: int, size: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Drawn evenly between -1 / 2 size and 1 / 2 size, padded."""
    embedding = padded(rng.random((n_features, dim), dtype=np.float32))
    embedding[:, :dim] -= 0.5
    embedding /= size
    return embedding


def is_finite(array: NDArray[np.float32]) -> bool:
    """Whether no number of it has overflowed, or is about to."""
    with np.errstate(over="ignore", invalid="ignore"):  # the caller says it better
        return bool(np.isfinite(array.sum()))


def padded(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy with zeros to the right, at least one, up to whole lines."""
    n, dim = array.shape
    width = LINE * (dim // LINE + 1)
    out = aligned_empty(n * width).reshape(n, width)
    out[:, :dim], out[:, dim:] = array, 0
    return out


def unit_rows(X: Any, norm: str | None) -> sparse.csr_array:
    """Checked rows as float32 CSR, each divided by its norm, unless that is None."""
    if sparse.issparse(X) and are_one_hot(X):
        return sparse.csr_array(X, dtype=np.float32)
    if norm is None:
        X = float_csr(X)
        check_sizes(X.data)
        return X
    X = with_usual_values(sparse.csr_array(X, dtype=np.float64))
    X = X.astype(np.float32).astype(np.float64)  # the values that a row alone has
    return float_csr(normalize(X, norm))


def are_usual(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether neither numbers nor their inverses are trouble as float32."""
    sizes = np.abs(values)
    return (sizes < LARGE) & (sizes > 1 / LARGE) | (sizes == 0)


def with_usual_values(X: sparse.csr_array) -> sparse.csr_array:
    """Rows that have others are divided by their largest one, which a norm does not see."""
    usual = are_usual(X.data)
    if usual.all():
        return X
    row = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    which, largest = np.unique(row[~usual]), np.ones(X.shape[0])
    largest[which] = abs(X[which]).max(axis=1).toarray().ravel()
    return sparse.csr_array((X.data / largest[row], X.indices, X.indptr), shape=X.shape)


def check_sizes(values: NDArray[np.float32]) -> None:
    """Raise ValueError where products of rows that are not divided by their norm would overflow."""
    largest = np.abs(values).max(initial=0)
    if largest > LARGE_ROOT:
        raise ValueError(
            f"X must have no value above {LARGE_ROOT:g} where norm=None, got {largest:g}: scale X to values "
            'near 1, or take norm="l2"'
        )


def are_one_hot(X: sparse.csr_array) -> bool:
    """Whether each row is a single one, as those of SkipGramPairs: it is its own unit row."""
    return bool(X.nnz == X.shape[0] and (X.data == 1).all() and (np.diff(X.indptr) == 1).all())


def unit_row(row: OneRow, norm: str | None) -> sparse.csr_array:
    """What unit_rows makes of many, of one of usual values, sooner."""
    if norm is None:
        check_sizes(row.data)
    values = row.data.astype(np.float64)
    # added up one by one, as normalize does
    sums = np.cumsum(values * values if norm == "l2" else np.abs(values))
    length = (np.sqrt(sums[-1]) if norm == "l2" else sums[-1]) if norm and len(sums) else 0
    unit = (values / (length or 1)).astype(np.float32)
    return sparse.csr_array((unit, row.indices, row.indptr), shape=row.shape)


def choose_n_epochs(n_epochs: int | str, n_rows: int) -> int:
    """The number itself, or what "auto" means."""
    if n_epochs != "auto":
        return int(n_epochs)
    return min(MOST_EPOCHS, max(EPOCHS, -(-VISITS // max(n_rows, 1))))


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
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            raise TypeError(
                "batches must give tuples (X, y) or (X, y, sample_weight), got "
                f"{type(batch).__name__}{f' of {len(batch)}' if isinstance(batch, tuple | list) else ''}"
            )
        if not np.ndim(batch[1]):
            raise ValueError(
                f"y of each batch must be an array of labels, got {batch[1]!r:.60}: pass one for each row"
            )
        if np.shape(batch[1])[0]:
            yield batch


def first_pass(batches: Iterable, classes: Any, counts: Any) -> tuple[Any, NDArray[Any], NDArray[np.float64]]:
    """Rows of the first batch; the sorted classes and how often each occurs, as given or from all batches."""
    if counts is not None:
        labels, counts = classes, _given_counts(classes, counts)
        X = next((X for X, *_ in with_rows(batches)), None)
    else:
        X, parts = None, []
        for rows, y, *_ in with_rows(batches):
            X = rows if X is None else X
            parts.append(encode_labels(y))
    if X is None:
        raise ValueError(
            "batches must hold at least one row, got only empty ones: of SkipGramPairs increase subsample, "
            "or pass more text"
        )
    if counts is None:
        labels = _joined([labels for labels, _ in parts])
        counts = np.concatenate([np.bincount(y, minlength=len(labels)) for labels, y in parts])
    classes = check_classes(labels if classes is None else classes)
    at = encode_known(labels, classes)
    return X, classes, np.bincount(at[at >= 0], weights=counts[at >= 0], minlength=len(classes))


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any] | list:
    """The labels of all parts; numpy would make floats of signed and unsigned ones, and strings of others."""
    kinds = {labels.dtype.kind for labels in parts}
    if len(kinds) == 1 or ("f" in kinds and kinds <= set("biuf")):
        return np.concatenate(parts)
    if kinds <= set("biu"):
        return [label for labels in parts for label in labels.tolist()]
    if kinds <= set("OU"):
        return np.concatenate([labels.astype(object) for labels in parts])
    found = " and ".join(sorted({str(labels.dtype) for labels in parts}))
    raise ValueError(f"y must have labels of one kind in all batches, got {found}: make all of them strings")


def _given_counts(classes: Any, counts: Any) -> NDArray[np.float64]:
    if classes is None or np.shape(counts) != np.shape(classes):
        raise ValueError(
            f"counts must have one number for each of classes, got shapes {np.shape(counts)} and "
            f"{np.shape(classes)}: pass both, or neither"
        )
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError("counts must be a 1-D array of finite numbers that are not negative")
    if len(counts) and counts.max() < 1:
        raise ValueError(
            f"counts must be numbers of rows, got a sum of {counts.sum():g} and none of 1 or more: pass how "
            "often each class occurs, not its share"
        )
    return counts


def n_threads_of(params: dict[str, Any]) -> int:
    """How many threads may learn at the same time."""
    return effective_n_jobs(params["n_jobs"]) if params["lock_free"] else 1


def piece_starts(n_rows: int, params: dict[str, Any]) -> range:
    """Where pieces begin: of so many rows that every thread has several."""
    size = -(-n_rows // (PIECES * n_threads_of(params)))
    return range(0, n_rows, min(PIECE, max(LEAST_PIECE, size)))


def in_pieces(rows: LabelledRows, order: NDArray[np.int64], params: dict[str, Any]) -> list[Piece]:
    """Rows in an order."""
    starts = piece_starts(len(order), params)
    return [Piece(rows, order[lo : lo + starts.step]) for lo in starts]


def learn(
    model: Model,
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
    model: Model,
    pieces: Iterable[Piece],
    rates: Iterable[tuple[float, float]],
    params: dict[str, Any],
    progress: Progress,
) -> float:
    """A step for each row, from the first rate of its piece to the last; the mean log-loss before them.

    That is nan where there are none, as SkipGramPairs of a small text can draw. With lock_free each thread
    takes a piece, and none waits for another [1]_. Meanwhile one of them makes the next piece.

    .. [1] B. Recht, C. Re, S. Wright, F. Niu, "Hogwild!", NIPS 2011.
    """

    def run(piece: Piece, first_rate: float, last_rate: float) -> tuple[float, float]:
        loss = model.train(piece, params, first_rate, last_rate)
        progress.advance(1)
        return loss, float(piece.rows.weights[piece.order].sum(dtype=np.float64))

    tasks = zip(pieces, rates, strict=False)
    n_threads = n_threads_of(params)
    if n_threads == 1:  # of few rows there may be thousands of epochs, each faster than joblib
        done = [run(piece, *rate) for piece, rate in tasks]
    else:
        done = Parallel(n_jobs=n_threads, require="sharedmem")(
            delayed(run)(piece, *rate) for piece, rate in tasks
        )
    loss, weight = np.sum(done, axis=0) if done else (np.nan, 1.0)
    return float(loss / weight)
