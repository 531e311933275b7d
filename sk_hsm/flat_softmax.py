"""Batches of checked rows -> embeddings, hidden layers and vectors of classes, by sampled negatives."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._kernels import flat as kernels
from .embedding_training import OVERFLOW, Piece, first_embeddings, is_finite, padded
from .multi_index import MultiIndex, SearchIndex
from .validation import kernel_rows

# Codebooks are of use for as many rows as there are classes, which take about as long as making them, and
# for so many at least.
LEAST_ROWS = 2**12


@dataclass
class FlatSoftmax:
    """What is learned: rows of whole cache lines, as kernels like them, intercepts beside the vectors."""

    dims: list[int]  # of the vectors that a row becomes, from its embedding to what classes are scored by
    embedding: NDArray[np.float32] | None  # None: a row is its own embedding
    layers: list[NDArray[np.float32]]
    vectors: NDArray[np.float32]
    counts: NDArray[np.float64]  # of classes
    seed: int
    n_drawn: int = 0  # random numbers
    index: MultiIndex | None = None
    n_rows: int = 0  # since the index was made
    lock: Any = field(default_factory=Lock)

    @classmethod
    def start(
        cls, n_features: int, counts: NDArray[np.float64], params: dict[str, Any], seed: int
    ) -> FlatSoftmax:
        """Embeddings and layers are drawn; no class knows anything."""
        rng, dim = np.random.default_rng(seed), params["dim"]
        dims = [dim or n_features, *params["hidden_layer_sizes"]]
        embedding = None if dim is None else first_embeddings(n_features, dim, dim**0.5, rng)
        layers = [first_layer(n_in, n_out, rng) for n_in, n_out in pairwise(dims)]
        vectors = padded(np.zeros((len(counts), dims[-1]), dtype=np.float32))
        return cls(dims, embedding, layers, vectors, counts, seed)

    @classmethod
    def of_arrays(
        cls,
        embedding: NDArray[np.float32] | None,
        coefs: list[NDArray[np.float32]],
        intercepts: list[NDArray[np.float32]],
        vectors: NDArray[np.float32],
        dims: list[int],
        counts: NDArray[np.float64],
        numbers: tuple[int, int],
        index: MultiIndex | None,
    ) -> FlatSoftmax:
        """To be trained further; the arrays are copied."""
        layers = [padded(np.ascontiguousarray(coef.T)) for coef in coefs]
        for layer, coef, intercept in zip(layers, coefs, intercepts, strict=True):
            layer[:, len(coef)] = intercept
        embedding = None if embedding is None else padded(embedding)
        known = padded(vectors[:, : dims[-1]])
        known[:, dims[-1]] = vectors[:, dims[-1]]  # intercepts
        return cls(dims, embedding, layers, known, counts, *numbers, index)

    def to_arrays(self) -> tuple[NDArray[np.float32] | None, list, list, NDArray[np.float32]]:
        """What of_arrays takes first."""
        embedding = (
            None if self.embedding is None else np.ascontiguousarray(self.embedding[:, : self.dims[0]])
        )
        sizes = list(zip(self.layers, self.dims, strict=False))
        coefs = [np.ascontiguousarray(layer[:, :dim].T) for layer, dim in sizes]
        return embedding, coefs, [layer[:, dim].copy() for layer, dim in sizes], self.vectors

    @property
    def is_finite(self) -> bool:
        """Whether no number has overflowed."""
        arrays = [self.vectors, *self.layers] + ([] if self.embedding is None else [self.embedding])
        return all(map(is_finite, arrays))

    @property
    def rows_of_index(self) -> int:
        """How many rows an index is of use for."""
        return max(LEAST_ROWS, len(self.counts))

    def train(self, piece: Piece, params: dict[str, Any], first_rate: float, last_rate: float) -> float:
        """A step for each row; the sum of weight * log-loss of the label among those drawn."""
        rows, order = piece
        data = *kernel_rows(rows.X), rows.y, rows.weights
        n_parts = max(1, -(-len(order) // self.rows_of_index))
        rates = np.linspace(first_rate, last_rate, n_parts + 1).tolist()
        parts = zip(np.array_split(order, n_parts), pairwise(rates), strict=True)
        return sum(self._train_part(data, part, params, *rate) for part, rate in parts)

    def _train_part(
        self,
        data: tuple[NDArray, ...],
        order: NDArray[np.int64],
        params: dict[str, Any],
        first_rate: float,
        last_rate: float,
    ) -> float:
        """That of rows whose negatives are drawn by one index."""
        index, number = self._prepare(len(order), params)
        return kernels.train_flat_rows(
            index,
            *data,
            order,
            np.array(self.dims, dtype=np.int64),
            self.embedding,
            self.layers,
            self.vectors,
            params["fit_intercept"],
            params["n_negatives"],
            number,
            first_rate,
            last_rate,
        )

    def _prepare(self, n_rows: int, params: dict[str, Any]) -> tuple[MultiIndex | None, int]:
        """What negatives of the next rows are drawn by, and the first of their random numbers."""
        with self.lock:
            number = self.seed + self.n_drawn
            self.n_drawn += n_rows * params["n_negatives"]
            if self.index is None or self.n_rows >= self.rows_of_index:
                self.refresh(params)
            self.n_rows += n_rows
            return self.index, number % 2**64

    def refresh(self, params: dict[str, Any]) -> None:
        """Make the index that classes are drawn by; ValueError where a number has overflowed."""
        if not is_finite(self.vectors):
            raise ValueError(OVERFLOW.format(params["learning_rate"]))
        self.n_rows, width = 0, self.vectors.shape[1]
        if params["sampler"] == "uniform":
            self.index = self.index or MultiIndex.one_cell(np.ones(len(self.counts)), width)
        elif params["sampler"] == "unigram":
            self.index = self.index or MultiIndex.one_cell(self.counts + 1, width)
        elif params["sampler"] is not None:
            self.index = self.codebooks(params)

    def codebooks(self, params: dict[str, Any]) -> MultiIndex:
        """Of the class vectors as they are now."""
        rng = np.random.default_rng([self.seed, self.n_drawn])
        residual = params["sampler"] == "midx-rq"
        return MultiIndex.learn(self.vectors, self.dims[-1], params["n_codewords"], residual, rng, self.index)

    def search_index(self, params: dict[str, Any]) -> SearchIndex:
        """Codebooks to look up classes by."""
        return SearchIndex.of_index(self.codebooks(params), self.vectors, self.dims[-1])


def first_layer(n_in: int, n_out: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The weights of each output, and a bias of zero, that on average keep the length of a vector [1]_.

    .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015.
    """
    return padded(rng.normal(0, (2 / n_in) ** 0.5, (n_out, n_in)).astype(np.float32))


def forward(
    H: NDArray[np.float32], coefs: list[NDArray[np.float32]], intercepts: list[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """What ReLU layers make of vectors."""
    for coef, intercept in zip(coefs, intercepts, strict=True):
        H = np.maximum(H @ coef + intercept, 0)
    return H


def check_hidden_layer_sizes(sizes: Any) -> tuple[int, ...]:
    """The sizes as a tuple of ints, or ValueError."""
    sizes = tuple(np.ravel(sizes).tolist()) if np.ndim(sizes) < 2 else sizes
    if not (isinstance(sizes, tuple) and all(type(n) is int and 0 < n < 2**20 for n in sizes)):
        raise ValueError(
            f"hidden_layer_sizes must be numbers of units from 1 to 2**20 - 1, got {sizes!r:.60}"
        )
    return sizes
