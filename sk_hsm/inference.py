"""Paths through a fitted tree for many rows: chunks of rows, over threads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray
from scipy import sparse
from sklearn import get_config

from ._kernels import forests, paths
from .label_tree import LabelTree
from .node_weights import LINE, NodeWeights
from .packed_weights import PackedWeights
from .threads import over_threads
from .validation import OneRow, float_csr, kernel_rows

MIN_ROWS = 64  # fewer rows than this are not worth a thread of their own
LINE_BYTES = 16 * LINE + 8  # a line of children of an opened node, see frontier.h
SMALL = 2**20  # bytes that are there without a look at the system, which takes longer than a row

Model = tuple[LabelTree, NodeWeights | PackedWeights, float]  # the last is the smoothing of its nodes
Models = Sequence[Model]  # of the same classes; their probabilities are averaged
Rows = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]
Answers = tuple[NDArray[np.int32], NDArray[np.float64]]


class Rescoring(Protocol):
    """Up to `most` classes of at least the log-probability `least` in smoothed trees are scored again.

    The other attributes are read by kernels: what they mean is said where they are made.
    """

    most: int
    least: float
    smoothing: float
    power: float
    weight: float
    n_features: int
    starts: NDArray[np.int64]
    features: NDArray[np.int32]
    values: NDArray[np.float32]
    biases: NDArray[np.float32]
    feature_weights: NDArray[np.float32]

    def apply(self, rows: Rows, classes: NDArray[np.int32], log_proba: NDArray[np.float64]) -> None:
        """Score answers again, in place, and put them in order."""


def top_k(
    models: Models,
    X: Any,
    k: int,
    n_jobs: int | None,
    min_log_proba: float = -np.inf,
    beam_width: int | None = None,
    rescoring: Rescoring | None = None,
) -> Answers:
    """The k most probable classes of each row and their log-probabilities, (n_samples, k) each.

    Class -1 stands where fewer than k classes reach min_log_proba, or are in the beam.
    """
    check_search_fits_in_memory(models, X.shape[0], k)
    classes = np.empty((X.shape[0], k), dtype=np.int32)
    log_proba = np.empty((X.shape[0], k))

    def run(lo: int, hi: int, rows: Rows) -> None:
        # a beam may not have all that are likely
        again = rescoring if beam_width is None else None
        _search(models, rows, min_log_proba, beam_width, again, classes[lo:hi], log_proba[lo:hi])

    _over_chunks(X, n_jobs, run)
    return classes, log_proba


def _rescored(models: Models, rows: Rows, rescoring: Rescoring) -> Answers:
    """The classes that are scored again, and their new log-probabilities; -1 and -inf for no more."""
    shape = len(rows[0]) - 1, rescoring.most
    answers = np.empty(shape, dtype=np.int32), np.empty(shape)
    _search(models, rows, rescoring.least, None, None, *answers)
    rescoring.apply(rows, *answers)
    return answers


def _search(
    models: Models,
    rows: Rows,
    min_log_proba: float,
    beam_width: int | None,
    rescoring: Rescoring | None,
    classes: NDArray[np.int32],
    log_proba: NDArray[np.float64],
) -> None:
    if len(models) > 1:
        forests.average_top_k(models, *rows, min_log_proba, rescoring, classes, log_proba)
    else:
        paths.top_k(*models[0], *rows, min_log_proba, beam_width or 0, rescoring, classes, log_proba)


def sparse_proba(
    top_k: Callable[[Any], tuple[NDArray[np.int32], NDArray[np.float64]]], X: Any, k: int, n_classes: int
) -> sparse.csr_array:
    """The k probabilities that are above zero among those that top_k gives, (n_samples, n_classes)."""
    size = rows_at_a_time(24 * k)
    parts = []
    for lo in range(0, X.shape[0], size):
        classes, log_proba = top_k(X if size >= X.shape[0] else X[lo : lo + size])
        kept = log_proba > -np.inf
        indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(kept, axis=1))])
        parts.append(
            sparse.csr_array(
                (np.exp(log_proba[kept]), classes[kept], indptr), shape=(len(classes), n_classes)
            )
        )
    proba = parts[0] if len(parts) == 1 else sparse.csr_array(sparse.vstack(parts, format="csr"))
    proba.sort_indices()
    return proba


def all_log_proba(
    models: Models, X: Any, n_jobs: int | None, rescoring: Rescoring | None = None
) -> NDArray[np.float64]:
    """Log-probability of every class, (n_samples, n_classes)."""
    n_classes = models[0][0].n_classes
    check_fits_in_memory(
        f"predict_proba of {n_classes} classes",
        X.shape[0],
        8 * n_classes * min(len(models), 2),
        "predict_top_k, predict_proba_sparse or log_proba_of, which never make the dense matrix",
    )
    log_proba = np.zeros((X.shape[0], n_classes))

    def run(lo: int, hi: int, rows: Rows) -> None:
        _average(models, log_proba[lo:hi], lambda model, out: paths.all_log_proba(*model, *rows, out))
        if rescoring is not None:
            classes, scored = _rescored(models, rows, rescoring)
            row, at = np.nonzero(classes >= 0)
            log_proba[lo + row, classes[row, at]] = scored[row, at]

    if n_classes > 1:
        _over_chunks(X, n_jobs, run, 0 if rescoring is None else 12 * rescoring.most)
    return log_proba


def path_log_proba(
    models: Models,
    X: Any,
    classes: NDArray[np.int32],
    n_jobs: int | None,
    rescoring: Rescoring | None = None,
) -> NDArray[np.float64]:
    """Log-probability of one class a row, (n_samples,); -inf for class -1."""
    log_proba = np.empty((X.shape[0], 1))
    known = np.maximum(classes, 0)

    def run(lo: int, hi: int, rows: Rows) -> None:
        _average(
            models,
            log_proba[lo:hi],
            lambda model, out: paths.path_log_proba(*model, *rows, known[lo:hi], out[:, 0]),
        )
        if rescoring is not None:
            found, scored = _rescored(models, rows, rescoring)
            row, at = np.nonzero(found == known[lo:hi, None])
            log_proba[lo + row, 0] = scored[row, at]

    _over_chunks(X, n_jobs, run, 0 if rescoring is None else 12 * rescoring.most)
    log_proba[classes < 0] = -np.inf
    return log_proba[:, 0]


def _average(
    models: Models, out: NDArray[np.float64], write: Callable[[Model, NDArray[np.float64]], None]
) -> None:
    """Write a model's log-probabilities into out; of several, the logarithms of their means."""
    if len(models) == 1:
        write(models[0], out)
        return
    out.fill(-np.inf)
    one = np.zeros(out.shape)
    for model in models:
        write(model, one)
        forests.add_log_proba(one, out)
    out -= math.log(len(models))


def sample_classes(
    models: Models, X: Any, uniforms: NDArray[np.float64], n_jobs: int | None
) -> NDArray[np.int32]:
    """One class for each uniform random number, (n_samples, n_draws), by the trees."""
    classes = np.empty(uniforms.shape, dtype=np.int32)
    # a number draws one of the trees, and what is left of it a class
    drawn = np.minimum((uniforms * len(models)).astype(np.int32), len(models) - 1)
    left = np.clip(uniforms * len(models) - drawn, 0, np.nextafter(1, 0))

    def run(lo: int, hi: int, rows: Rows) -> None:
        for number, model in enumerate(models):
            here = np.where(drawn[lo:hi] == number, left[lo:hi], -1.0)
            paths.sample_classes(*model, *rows, here, classes[lo:hi])

    _over_chunks(X, n_jobs, run)
    return classes


def draw_again(
    models: Models,
    X: Any,
    classes: NDArray[np.int32],
    uniforms: NDArray[np.float64],
    n_jobs: int | None,
    rescoring: Rescoring,
) -> None:
    """In place of the classes that are scored again, one of these by its new probability."""

    def run(lo: int, hi: int, rows: Rows) -> None:
        found, scored = _rescored(models, rows, rescoring)
        for i, (some, log_p) in enumerate(zip(found, scored, strict=True), start=lo):
            again = np.isin(classes[i], some[some >= 0])
            if again.any():
                sums = np.cumsum(np.exp(log_p))
                chosen = np.searchsorted(sums, uniforms[i, again] * sums[-1], side="right")
                classes[i, again] = some[np.minimum(chosen, np.count_nonzero(log_p > -np.inf) - 1)]

    _over_chunks(X, n_jobs, run, 12 * rescoring.most)


def _over_chunks(X: Any, n_jobs: int | None, run: Callable[[int, int, Rows], None], scratch: int = 0) -> None:
    """Call run(lo, hi, rows) for chunks of X whose copies fit in scikit-learn's working_memory.

    So do the bytes of scratch that it needs for each row.
    """
    n = X.shape[0]
    if isinstance(X, OneRow):
        run(0, 1, X[:3])
        return
    n_threads = effective_n_jobs(n_jobs) if n > MIN_ROWS else 1
    non_zeros = X.indptr[-1] / max(n, 1) if sparse.issparse(X) else X.shape[1]
    # a chunk's values, columns and mask, and the same again while they are made
    row_bytes = 24 * non_zeros + 64 + scratch
    fit = rows_at_a_time(row_bytes * n_threads)
    size = min(fit, max(MIN_ROWS, -(-n // (4 * n_threads)) if n_threads > 1 else n))

    def chunk(lo: int) -> None:
        hi = min(lo + size, n)
        run(lo, hi, kernel_rows(float_csr(X[lo:hi])))

    over_threads(chunk, range(0, n, size), n_threads)


def rows_at_a_time(row_bytes: float) -> int:
    """How many rows of so many bytes fit in scikit-learn's working_memory, one at least."""
    return max(1, int(get_config()["working_memory"] * 2**20 / row_bytes))


def check_fits_in_memory(what: str, n_rows: int, row_bytes: int, instead: str) -> None:
    """Raise MemoryError, before allocating, where a dense result cannot fit."""
    check_memory(f"{what} for {n_rows} rows", n_rows * row_bytes, f"{instead}, or fewer rows at a time")


def check_search_fits_in_memory(models: Models, n_rows: int, k: int) -> None:
    """The same of k answers, and of what a search has opened when it has them, if trees are balanced."""
    needed = 24 * k * n_rows
    for tree, *_ in models:
        n_lines = tree.n_inner + tree.n_nodes // LINE
        needed += LINE_BYTES * min(n_lines, k * tree.n_classes.bit_length())
    check_memory(
        f"predict_top_k with k={k} for {n_rows} rows", needed, "a smaller k, or fewer rows at a time"
    )


def check_memory(what: str, needed: int, instead: str) -> None:
    """Raise MemoryError where so many bytes are not there."""
    if needed > SMALL and needed > (available := available_memory()):
        raise MemoryError(
            f"{what} needs {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are available: use {instead}"
        )


def available_memory() -> int:
    """Bytes that this process can still take, as far as the system tells; at most 2**62."""
    candidates = [2**62]
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        candidates.append(1024 * int(fields["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            candidates.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            with open(limit) as limit_file, open(used) as used_file:
                candidates.append(max(0, int(limit_file.read()) - int(used_file.read())))
        except (OSError, ValueError):  # no such limit
            pass
    return min(candidates)
