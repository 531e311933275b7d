"""What the penalty of a node pulls towards: zero, or a generative guess at its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._kernels import priors as kernels

PRIORS = ("none", "naive_bayes", "centroid")

# Naive Bayes adds this many occurrences of mean value to each feature of each child.
SMOOTHING = 0.5


class Penalty(NamedTuple):
    """A node minimises ||W - scale * guess||^2 / 2 + C * sum(weight * log-loss)."""

    C: float
    prior: str
    scale: float


@dataclass
class Penalties:
    """One Penalty for each inner node."""

    C: NDArray[np.float64]
    prior: NDArray[np.str_]
    scale: NDArray[np.float64]

    @classmethod
    def of_nodes(cls, penalties: list[Penalty]) -> Penalties:
        C, prior, scale = zip(*penalties, strict=True) if penalties else ((), (), ())
        return cls(np.array(C, float), np.array(prior, "U11"), np.array(scale, float))

    def __getitem__(self, v: int) -> Penalty:
        return Penalty(float(self.C[v]), str(self.prior[v]), float(self.scale[v]))


def smoothing_of(X: sparse.csr_array, row_weights: NDArray) -> float:
    """SMOOTHING in the unit of the features: the mean of the non-zeros, each row by its weight."""
    magnitude = np.abs(X.data, dtype=np.float64)
    before = np.zeros((2, len(magnitude) + 1))
    np.cumsum(magnitude, out=before[0, 1:])
    np.cumsum(magnitude > 0, out=before[1, 1:])  # stored zeros do not count
    total, number = (before[:, X.indptr[1:]] - before[:, X.indptr[:-1]]) @ row_weights.astype(np.float64)
    return float(SMOOTHING * total / number) if number > 0 else SMOOTHING


def write_guess(
    prior: str,
    rows: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]],
    row_weights: NDArray[np.float32],
    child: NDArray[np.int64],
    smoothing: float,
    sums: NDArray[np.float64],
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> None:
    """Write a node's guess into weights (n_features, width) and bias (width,); sums are zeros.

    "naive_bayes": the log-odds of Rennie et al. (2003), smoothed. "centroid": the direction
    of each child's mean row. Both are centred over the children that have rows. The bias is
    the logarithm of each child's share of the weight. Summed in float64 and rounded once, so
    that it does not depend on the order of rows.
    """
    share = np.bincount(child, weights=row_weights, minlength=len(bias))
    share = (share / share.sum()).astype(np.float32)
    present = (share > 0).astype(np.float32)
    kernels.sum_by_child(*rows, row_weights, child, sums)
    if prior == "naive_bayes":
        kernels.log_odds(sums, share, present, smoothing, weights)
    else:
        kernels.directions(sums, present, weights)
    seen = share > 0
    log_share = np.log(share[seen])
    bias[seen] = log_share - log_share.mean()
