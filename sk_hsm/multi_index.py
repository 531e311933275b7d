"""Vectors of classes -> an inverted multi-index: two codebooks, and the classes of each pair of codewords."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .node_weights import LINE, FlatArrays, aligned_empty, offsets

# Vectors that are compared with codewords at a time, and that each codeword is moved by at most.
CHUNK = 2**16
SAMPLE = 256
# Steps of k-means from codewords drawn at random, and from those of a while ago.
FIRST_STEPS = 10
STEPS = 2
# Bounds are wider than they need be by more than float32 rounds.
ROUNDING = 1e-5
# Weights are exp of at most this, so that float32 holds their sums; or of one cell at least this.
MOST = 60
LEAST = 1e-30


class MultiIndex(FlatArrays):
    """Cells of classes, each of two codewords that add up to nearly the vectors of its classes [1]_.

    Row k of `codewords` and row ``K + l`` make the cell ``k * K + l``; its classes are those of
    `members` from ``cell_ptr[cell]`` up to the next entry, and `cells` has the cell of each class.
    For a vector h a class is drawn with a probability proportional to ``weight * exp(codewords[k] . h +
    codewords[K + l] . h)``, and once in ten times by its weight alone. `cell_weights` has the sums of
    weights by (k, l), `cumulated` those of members from the first of their cell on.

    .. [1] A. Babenko, V. Lempitsky, "The inverted multi-index", CVPR 2012.
    """

    __slots__ = ("codewords", "cell_weights", "cell_ptr", "members", "cumulated", "cells", "weights")

    codewords: NDArray[np.float32]
    cell_weights: NDArray[np.float32]
    cell_ptr: NDArray[np.int64]
    members: NDArray[np.int32]
    cumulated: NDArray[np.float64]
    cells: NDArray[np.int32]
    weights: NDArray[np.float32]

    @property
    def n_codewords(self) -> int:
        """Of each of the two codebooks."""
        return len(self.codewords) // 2

    @property
    def codes(self) -> NDArray[np.int32]:
        """The codeword of each class in both codebooks, (2, n_classes)."""
        return np.stack(np.divmod(self.cells, self.n_codewords))

    @classmethod
    def of_codes(
        cls, codewords: NDArray[np.float32], codes: NDArray[np.intp], weights: NDArray[np.float64]
    ) -> MultiIndex:
        """From the codewords of each class, (2, n_classes), and weights above 0."""
        K = len(codewords) // 2
        cells = codes[0] * K + codes[1]
        members = np.argsort(cells, kind="stable")
        cell_ptr = offsets(np.bincount(cells, minlength=K * K))
        sums = np.concatenate([[0.0], np.cumsum(weights[members])])
        cell_weights = np.zeros((K, LINE * -(-K // LINE)), dtype=np.float32)
        cell_weights[:, :K] = np.bincount(cells, weights, minlength=K * K).reshape(K, K)
        arrays = dict(
            codewords=codewords,
            cell_weights=cell_weights,
            cell_ptr=cell_ptr,
            members=members.astype(np.int32),
            cumulated=sums[1:] - np.repeat(sums[cell_ptr[:-1]], np.diff(cell_ptr)),
            cells=cells.astype(np.int32),
            weights=weights.astype(np.float32),
        )
        return cls(arrays)

    @classmethod
    def one_cell(cls, weights: NDArray[np.float64], width: int) -> MultiIndex:
        """All classes in one cell: they are drawn by their weights, whatever the row."""
        # by a power of two, which changes no bit, so that float32 holds them and their sum
        weights = np.maximum(np.ldexp(weights, -int(np.frexp(weights.max())[1])), LEAST)
        return cls.of_codes(zeros(2, width), np.zeros((2, len(weights)), dtype=np.intp), weights)

    @classmethod
    def learn(
        cls,
        vectors: NDArray[np.float32],
        dim: int,
        n_codewords: int,
        residual: bool,
        rng: np.random.Generator,
        before: MultiIndex | None = None,
    ) -> MultiIndex:
        """Codewords of vectors with an intercept in column dim, by k-means from those of an index before.

        They are of the vectors' halves (product quantization), or if residual of the vectors and then of
        what is left of them. The weight of a class is exp(intercept).
        """
        K, left = min(n_codewords, len(vectors)), vectors[:, :dim]
        codewords, codes = zeros(2 * K, vectors.shape[1]), np.empty((2, len(vectors)), dtype=np.intp)
        halves = [slice(0, dim)] * 2 if residual else [slice(0, dim // 2), slice(dim // 2, dim)]
        for book, columns in enumerate(halves):
            rows = slice(K * book, K * (book + 1))
            known = before is not None and before.n_codewords == K
            start = before.codewords[rows, columns] if known else None
            codewords[rows, columns], codes[book] = k_means(left[:, columns], K, start, rng)
            if residual and book == 0:
                left = left - codewords[codes[0], :dim]
        intercepts = np.clip(vectors[:, dim], -MOST, MOST)
        return cls.of_codes(codewords, codes, np.exp(intercepts.astype(np.float64)))


class SearchIndex(MultiIndex):
    """A MultiIndex that knows how far the vectors of a cell are from its codewords, at most.

    For all classes of a cell (k, l), ``vector . h + intercept`` is at most ``codewords[k] . h +
    codewords[K + l] . h + tops[k, l] + radii[k, l] * norm(h)``.
    """

    __slots__ = (*MultiIndex.__slots__, "radii", "tops")

    radii: NDArray[np.float32]
    tops: NDArray[np.float32]

    @classmethod
    def of_index(cls, index: MultiIndex, vectors: NDArray[np.float32], dim: int) -> SearchIndex:
        """Of the vectors that the index is of."""
        K, n_cells = index.n_codewords, index.n_codewords**2
        radii, tops = np.zeros(n_cells), np.full(n_cells, -np.inf)
        for lo in range(0, len(vectors), CHUNK):
            part, cells = vectors[lo : lo + CHUNK, :dim], index.cells[lo : lo + CHUNK]
            first, second = np.divmod(cells, K)
            left = part - index.codewords[first, :dim] - index.codewords[K + second, :dim]
            norms = np.linalg.norm(left, axis=1) + ROUNDING * np.linalg.norm(part, axis=1)
            np.maximum.at(radii, cells, norms * (1 + ROUNDING))
        np.maximum.at(tops, index.cells, vectors[:, dim])
        shaped = {"radii": radii, "tops": tops}
        shaped = {name: array.reshape(K, K).astype(np.float32) for name, array in shaped.items()}
        return cls({name: getattr(index, name) for name in MultiIndex.__slots__} | shaped)


def zeros(n: int, width: int) -> NDArray[np.float32]:
    """Vectors that begin where cache lines do, as kernels like them."""
    out = aligned_empty(n * width).reshape(n, width)
    out.fill(0)
    return out


def k_means(
    X: NDArray[np.float32], K: int, start: NDArray[np.float32] | None, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Centres (K, n_columns) of a sample of rows, from those of start, and the nearest one of each row."""
    sample = X if len(X) <= SAMPLE * K else X[rng.choice(len(X), SAMPLE * K, replace=False)]
    centres = sample[rng.choice(len(sample), K, replace=False)] if start is None else start.copy()
    for _ in range(FIRST_STEPS if start is None else STEPS):
        nearest = nearest_centres(sample, centres)
        sizes = np.bincount(nearest, minlength=K)
        members = (np.ones(len(sample), np.float32), (nearest, np.arange(len(sample))))
        sums = sparse.csr_array(members, shape=(K, len(sample))) @ sample
        some = sizes > 0
        centres[some] = sums[some] / sizes[some, None]
        # centres of no row, of which there are most while vectors are all alike, begin anew
        centres[~some] = sample[rng.choice(len(sample), K - some.sum(), replace=False)]
    return centres, nearest_centres(X, centres)


def nearest_centres(X: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.intp]:
    """The number of the nearest centre of each row."""
    half_squares = 0.5 * np.square(centres).sum(axis=1)
    chunks = (X[lo : lo + CHUNK] for lo in range(0, len(X), CHUNK))
    return np.concatenate([(chunk @ centres.T - half_squares).argmax(axis=1) for chunk in chunks])
