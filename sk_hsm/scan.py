"""The classes of a flat softmax for many rows: all of them, or those of the likeliest cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray

from ._kernels import scan as kernels
from .inference import check_fits_in_memory, rows_at_a_time
from .multi_index import SearchIndex
from .threads import over_threads

# Rows that each vector of a class is read for at a time; more make it no faster.
MAX_ROWS = 32


def top_k(
    H: NDArray[np.float32],
    vectors: NDArray[np.float32],
    k: int,
    n_jobs: int | None,
    min_log_proba: float = -np.inf,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The k most probable classes of each row and their log-probabilities, (n_samples, k) each.

    Class -1 stands where fewer than k classes reach min_log_proba.
    """
    check_fits_in_memory(f"predict_top_k with k={k}", len(H), 24 * k, "a smaller k")
    classes, log_proba = np.empty((len(H), k), dtype=np.int32), np.empty((len(H), k))

    def run(rows: slice, scores: NDArray[np.float32]) -> None:
        kernels.best_of_scores(scores, min_log_proba, classes[rows], log_proba[rows])

    _over_scores(H, vectors, n_jobs, run)
    return classes, log_proba


def search(
    H: NDArray[np.float32],
    vectors: NDArray[np.float32],
    index: SearchIndex,
    dim: int,
    k: int,
    n_probe: int,
    n_jobs: int | None,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """As top_k, among the classes of n_probe cells, in order of the most that a class there can score.

    Ends before where no other cell can hold a better one. What the cells that were not opened hold
    of the probability is estimated by their codewords.
    """
    check_fits_in_memory(f"predict_top_k with k={k}", len(H), 24 * k, "a smaller k")
    classes = np.full((len(H), k), -1, dtype=np.int32)
    log_proba = np.full((len(H), k), -np.inf)

    def run(rows: slice) -> None:
        kernels.search_cells(index, H[rows], dim, vectors, n_probe, classes[rows], log_proba[rows])

    n_threads = effective_n_jobs(n_jobs)
    _over_blocks(len(H), -(-len(H) // (4 * n_threads)) or 1, n_threads, run)
    return classes, log_proba


def all_log_proba(
    H: NDArray[np.float32], vectors: NDArray[np.float32], n_jobs: int | None
) -> NDArray[np.float64]:
    """Log-probability of every class, (n_samples, n_classes)."""
    instead = "predict_top_k, predict_proba_sparse or log_proba_of, which never make the dense matrix"
    check_fits_in_memory(f"predict_proba of {len(vectors)} classes", len(H), 8 * len(vectors), instead)
    log_proba = np.empty((len(H), len(vectors)))

    def run(rows: slice, scores: NDArray[np.float32]) -> None:
        log_proba[rows] = scores
        log_proba[rows] -= _log_totals(scores)[:, None]

    _over_scores(H, vectors, n_jobs, run)
    return log_proba


def class_log_proba(
    H: NDArray[np.float32], vectors: NDArray[np.float32], classes: NDArray[np.int32], n_jobs: int | None
) -> NDArray[np.float64]:
    """Log-probability of one class a row, (n_samples,); -inf for class -1."""
    log_proba = np.empty(len(H))

    def run(rows: slice, scores: NDArray[np.float32]) -> None:
        log_proba[rows] = scores[np.arange(len(scores)), classes[rows]]
        log_proba[rows] -= _log_totals(scores)

    _over_scores(H, vectors, n_jobs, run)
    log_proba[classes < 0] = -np.inf
    return log_proba


def sample_classes(
    H: NDArray[np.float32], vectors: NDArray[np.float32], uniforms: NDArray[np.float64], n_jobs: int | None
) -> NDArray[np.int32]:
    """One class for each uniform random number, (n_samples, n_draws)."""
    classes = np.empty(uniforms.shape, dtype=np.int32)

    def run(rows: slice, scores: NDArray[np.float32]) -> None:
        for row, of_row in zip(range(rows.start, rows.stop), scores, strict=True):
            sums = np.cumsum(np.exp(of_row - of_row.max(), dtype=np.float64))
            classes[row] = np.searchsorted(sums, uniforms[row] * sums[-1], side="right")

    _over_scores(H, vectors, n_jobs, run)
    return np.minimum(classes, len(vectors) - 1)


def _log_totals(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    out = np.empty(len(scores))
    kernels.log_totals(scores, out)
    return out


def _over_scores(
    H: NDArray[np.float32],
    vectors: NDArray[np.float32],
    n_jobs: int | None,
    run: Callable[[slice, NDArray[np.float32]], None],
) -> None:
    """Call run(rows, scores) for blocks of rows whose scores fit in scikit-learn's working_memory."""
    n_threads = effective_n_jobs(n_jobs)
    size = min(rows_at_a_time(4 * len(vectors) * n_threads), MAX_ROWS)

    def score(rows: slice) -> None:
        scores = np.empty((rows.stop - rows.start, len(vectors)), dtype=np.float32)
        kernels.score_classes(H[rows], vectors, scores)
        run(rows, scores)

    _over_blocks(len(H), size, n_threads, score)


def _over_blocks(n_rows: int, size: int, n_threads: int, run: Callable[[slice], None]) -> None:
    blocks = [slice(lo, min(lo + size, n_rows)) for lo in range(0, n_rows, size)]
    over_threads(run, blocks, n_threads)
