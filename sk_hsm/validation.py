"""Checks of what users pass in: each once, before any work, each error naming what is wrong."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

FORMATS = ("csr", "csc", "coo", "bsr")


def check_structure(X: Any) -> Any:
    """Raise ValueError where a sparse X points outside itself; return X, in one of FORMATS if sparse.

    Scipy's conversions, and kernels, trust indices: a crafted matrix would crash the interpreter.
    """
    if not sparse.issparse(X):
        return X
    if X.format not in FORMATS:
        X = X.tocsr() if X.format == "lil" else X.tocoo()
    if X.ndim != 2:
        raise ValueError(f"X must be 2-D, got a sparse array of shape {X.shape}")
    if X.format == "coo":
        for axis, (name, index) in enumerate([("row", X.row), ("column", X.col)]):
            _check_range(f"{name} indices of X (coo)", index, X.shape[axis])
        return X
    major, minor = X.shape if X.format != "csc" else X.shape[::-1]
    if X.format == "bsr":
        major, minor = major // X.blocksize[0], minor // X.blocksize[1]
    indptr = X.indptr
    if len(indptr) != major + 1:
        raise ValueError(f"indptr of X ({X.format}) must have {major + 1} entries, got {len(indptr)}")
    if indptr[0] != 0 or np.any(indptr[1:] < indptr[:-1]):
        raise ValueError(f"indptr of X ({X.format}) must rise from 0 and never fall")
    if indptr[-1] > min(len(X.indices), len(X.data)):
        raise ValueError(
            f"indptr of X ({X.format}) ends at {indptr[-1]}, but X holds "
            f"{len(X.indices)} indices and {len(X.data)} values"
        )
    _check_range(f"indices of X ({X.format})", X.indices[: indptr[-1]], minor)
    return X


def _check_range(name: str, index: NDArray[Any], bound: int) -> None:
    if index.size and (index.min() < 0 or index.max() >= bound):
        wrong = index[(index < 0) | (index >= bound)][0]
        raise ValueError(f"{name} must be in 0 .. {bound - 1}, got {wrong}")


def float_csr(X: Any) -> sparse.csr_array:
    """Checked rows as float32 CSR: columns sorted, no duplicates.

    Zeros of a dense X are left out, so that dense and sparse rows give the same bits.
    """
    with np.errstate(over="ignore"):
        if sparse.issparse(X):
            rows = sparse.csr_array(X, copy=False).astype(np.float32, copy=False)
        else:
            values = np.asarray(X).astype(np.float32)
            mask = values != 0
            columns = np.broadcast_to(np.arange(X.shape[1], dtype=np.int32), mask.shape)
            indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(mask, axis=1))])
            rows = sparse.csr_array((values[mask], columns[mask], indptr), shape=X.shape)
    if not np.isfinite(rows.data).all():
        raise ValueError("Input X contains infinity or a value too large for dtype('float32').")
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def kernel_rows(X: sparse.csr_array) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """The arrays of float_csr in the types that kernels take, whatever X's number of values."""
    return X.indptr.astype(np.int64, copy=False), X.indices.astype(np.int32, copy=False), X.data


def check_rows(X: Any) -> sparse.csr_array:
    """Check X as an estimator's fit does, and return float_csr of it."""
    X = check_array(
        check_structure(X), accept_sparse="csr", accept_large_sparse=True, dtype=[np.float64, np.float32]
    )
    return float_csr(X)


def check_weights(sample_weight: ArrayLike | None, n: int) -> NDArray[np.float64]:
    """Sample weights as float64, ones for None.

    Raises ValueError where they are not of shape (n,), not finite, negative, or all zero.
    """
    if sample_weight is None:
        return np.ones(n)
    if isinstance(sample_weight, Real):
        sample_weight = np.full(n, sample_weight)
    weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.shape != (n,):
        raise ValueError(f"sample_weight must have shape ({n},) as X has rows, got shape {weights.shape}")
    if weights.min() < 0:
        raise ValueError(
            "Negative values in data passed to `sample_weight`: "
            f"sample_weight[{weights.argmin()}] = {weights.min()}"
        )
    if weights.max() == 0:
        raise ValueError("Sample weights must contain at least one non-zero number, all weights are zero")
    return weights


def check_class_weight(
    class_weight: Any, classes: NDArray[Any], frequency: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The weight of each class, float64, from None, "balanced" or a dict."""
    weights = np.ones(len(classes))
    if class_weight is None:
        return weights
    if isinstance(class_weight, str):
        n_seen = np.count_nonzero(frequency)
        return np.divide(frequency.sum(), n_seen * frequency, out=weights, where=frequency > 0)
    number = {label: i for i, label in enumerate(classes.tolist())}
    for label, weight in class_weight.items():
        label = label.item() if isinstance(label, np.generic) else label
        if label not in number:
            raise ValueError(
                f"class_weight names {label!r}, which is none of the {len(classes)} classes in y"
            )
        weights[number[label]] = weight
        if not np.isfinite(weight) or weight < 0:
            raise ValueError(f"class_weight[{label!r}] must be finite and not negative, got {weight!r}")
    return weights


def encode_labels(y: Any) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Sorted distinct labels, and each row's index among them.

    Takes the label types that scikit-learn takes, and raises what it raises for others.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None: pass an array of labels")
    if isinstance(y, list) and y and all(type(label) is int for label in y):
        y = _integers(y)
    y = column_or_1d(y, warn=True)
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise ValueError(
                f"Input y contains NaN or infinity, at row {np.flatnonzero(~np.isfinite(y))[0]}."
            )
        fractional = np.flatnonzero(y != np.floor(y))
        check_classification_targets(y[fractional[:1]] if len(fractional) else y[:1])
    elif y.dtype.kind != "O":
        check_classification_targets(y[:1])
    else:
        _check_objects(y)
    if y.dtype.kind in "OU":
        # strings are told apart faster by hashing than by sorting
        encoder = LabelEncoder().fit(y.astype(object))
        return encoder.classes_.astype(y.dtype), encoder.transform(y.astype(object)).astype(np.int32)
    classes, indices = np.unique(y, return_inverse=True)
    return classes, indices.astype(np.int32)


def _integers(labels: list[int]) -> NDArray[Any]:
    """Python integers as they are: numpy would merge those that only float64 can hold."""
    array = np.asarray(labels)
    if array.dtype.kind == "f":
        array = np.array(labels, dtype=object)
    return array


def _check_objects(y: NDArray[Any]) -> None:
    missing = next((i for i, label in enumerate(y) if label is None or label != label), None)
    if missing is not None:
        raise ValueError(f"y[{missing}] is {y[missing]!r}, but every row needs a label")
    if not all(isinstance(label, int) for label in y):
        check_classification_targets(y[:1])


def encode_known(y: Any, classes: NDArray[Any]) -> NDArray[np.int32]:
    """The index in classes of each label, -1 where it is none of them."""
    y = column_or_1d(y, warn=True)
    if (
        classes.dtype.kind == "O"
        or y.dtype.kind == "O"
        or (classes.dtype.kind in "US") != (y.dtype.kind in "US")
    ):
        number = {label: i for i, label in enumerate(classes.tolist())}
        return np.array([number.get(label, -1) for label in y.tolist()], dtype=np.int32)
    at = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    return np.where(classes[at] == y, at, -1).astype(np.int32)
