"""What the penalty of a node pulls towards: zero, or a generative guess at its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .row_sums import RowSums

PRIORS = ("none", "naive_bayes", "centroid")  # kernels know them by number

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

    @cached_property
    def code(self) -> NDArray[np.int32]:
        """The number of each prior in PRIORS."""
        return np.array([PRIORS.index(name) for name in self.prior.tolist()], dtype=np.int32)

    def without_naive_bayes(self) -> Penalties:
        """The same, but "none" where it is the prior."""
        return Penalties(self.C, np.where(self.prior == "naive_bayes", "none", self.prior), self.scale)

    def __getitem__(self, v: int) -> Penalty:
        return Penalty(float(self.C[v]), str(self.prior[v]), float(self.scale[v]))


def smoothing_of(sums: RowSums, row_weights: NDArray) -> float:
    """SMOOTHING in the unit of the features: the mean of the non-zeros, each row by its weight."""
    number = np.sum(row_weights * sums.counts)  # stored zeros do not count
    return float(SMOOTHING * np.sum(row_weights * sums.magnitudes) / number) if number > 0 else SMOOTHING
