"""Checks of what users pass in: each once, before any work, each error naming what is wrong."""

from __future__ import annotations

from itertools import chain
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ._kernels.rows import are_plain

MAX_WEIGHT = float(np.finfo(np.float32).max)
CSR = (sparse.csr_array, sparse.csr_matrix)
INTS, FLOATS = (np.int32, np.int64), (np.float32, np.float64)
# Rows to train on keep their zeros where more than this share of the values is not zero. Kernels
# then leave rows where they are, which from here on is faster.
FULL = 0.75
MAX_FEATURES = np.iinfo(np.int32).max  # kernels number features so


def check_structure(X: Any) -> Any:
    """Raise ValueError where a sparse X points outside itself or X has a mask; return X.

    Scipy's conversions, and kernels, trust indices: a crafted matrix would crash the interpreter.
    A sparse X comes back as CSR, CSC, COO or BSR.
    """
    _refuse_mask("X", X)
    if not sparse.issparse(X):
        return X
    if X.ndim != 2:
        raise ValueError(f"X must be 2-D, got a sparse array of shape {X.shape}")
    if X.shape[1] > MAX_FEATURES:
        raise ValueError(f"X must have at most {MAX_FEATURES} features, got {X.shape[1]}: hash them to fewer")
    if X.format == "lil":
        _check_lil(X)
        X = X.tocsr()
    elif X.format == "dia":
        _check_dia(X)
        X = X.tocoo()
    elif X.format == "dok":
        _check_dok(X)
        X = X.tocoo()
    if X.format == "coo":
        _check_coo(X)
    else:
        _check_compressed(X)
    return X


def _refuse_mask(name: str, array: Any) -> None:
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ValueError(
            f"{name} has {np.ma.count_masked(array)} masked values: fill or drop them, masks are not used"
        )


def _check_lil(X: Any) -> None:
    n_columns, n_values = [len(row) for row in X.rows], [len(row) for row in X.data]
    if len(n_columns) != X.shape[0] or n_columns != n_values:
        raise ValueError(
            f"X (lil) of shape {X.shape} has {len(n_columns)} rows of {sum(n_columns)} columns and "
            f"{len(n_values)} rows of {sum(n_values)} values, they must agree"
        )
    _check_range("column indices of X (lil)", np.array(list(chain.from_iterable(X.rows))), X.shape[1])


def _check_dia(X: Any) -> None:
    if X.data.ndim != 2 or X.offsets.shape != X.data.shape[:1]:
        raise ValueError(
            f"X (dia) must have one offset for each row of data, got offsets of shape {X.offsets.shape} "
            f"and data of shape {X.data.shape}"
        )
    if len(np.unique(X.offsets)) < len(X.offsets):
        raise ValueError(f"offsets of X (dia) must not occur twice, got {X.offsets}")


def _check_dok(X: Any) -> None:
    for key in X.keys():
        if not (len(key) == 2 and 0 <= key[0] < X.shape[0] and 0 <= key[1] < X.shape[1]):
            raise ValueError(f"X (dok) has an entry at {key}, outside its shape {X.shape}")


def _check_coo(X: Any) -> None:
    lengths = [len(index) for index in X.coords]
    if len(lengths) != 2 or X.data.ndim != 1 or lengths != [len(X.data)] * 2:
        raise ValueError(
            f"X (coo) must have a row and a column index for each value, got {lengths} indices "
            f"and values of shape {X.data.shape}"
        )
    for name, index, bound in zip(("row", "column"), X.coords, X.shape, strict=True):
        _check_range(f"{name} indices of X (coo)", index, bound)


def _check_compressed(X: Any) -> None:
    name, n_axes = f"X ({X.format})", 3 if X.format == "bsr" else 1
    shapes = [np.shape(array) for array in (X.indptr, X.indices, X.data)]
    if [len(shape) for shape in shapes] != [1, 1, n_axes]:
        raise ValueError(f"indptr, indices and data of {name} must be 1-D, 1-D and {n_axes}-D, got {shapes}")
    major, minor = X.shape if X.format != "csc" else X.shape[::-1]
    if X.format == "bsr":
        major, minor = major // X.blocksize[0], minor // X.blocksize[1]
    indptr = X.indptr
    if len(indptr) != major + 1:
        raise ValueError(f"indptr of {name} must have {major + 1} entries, got {len(indptr)}")
    _check_integer(f"indptr of {name}", indptr)
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if indptr[0] != 0 or len(falls):
        at = falls[0] + 1 if len(falls) else 0
        raise ValueError(
            f"indptr of {name} must rise from 0 and never fall, got {indptr[at]} at position {at}"
        )
    if indptr[-1] > min(len(X.indices), len(X.data)):
        raise ValueError(
            f"indptr of {name} ends at {indptr[-1]}, but X holds "
            f"{len(X.indices)} indices and {len(X.data)} values"
        )
    _check_range(f"indices of {name}", X.indices[: indptr[-1]], minor)


def _check_integer(name: str, index: Any) -> None:
    if np.asarray(index).dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got dtype {np.asarray(index).dtype}")


def _check_range(name: str, index: NDArray[Any], bound: int) -> None:
    if not index.size:
        return
    _check_integer(name, index)
    if index.min() < 0 or index.max() >= bound:
        wrong = index[(index < 0) | (index >= bound)][0]
        raise ValueError(f"{name} must be in 0 .. {bound - 1}, got {wrong}")


def float_csr(X: Any) -> sparse.csr_array:
    """Checked rows as float32 CSR: columns sorted, no duplicates, no zeros.

    So dense and sparse rows give the same bits.
    """
    with np.errstate(over="ignore"):
        if sparse.issparse(X):
            X = sparse.csr_array(X, copy=False)
            values = X.data.astype(np.float32, copy=False)  # X.astype would add up duplicates
            rows = sparse.csr_array((values, X.indices, X.indptr), shape=X.shape)
        else:
            values = np.asarray(X).astype(np.float32, copy=False)
            columns = np.broadcast_to(np.arange(X.shape[1], dtype=np.int32), values.shape)
            n_values = np.count_nonzero(values, axis=1)
            mask = slice(None) if n_values.sum() == values.size else values != 0
            arrays = values[mask].ravel(), columns[mask].ravel(), row_starts(n_values)
            rows = sparse.csr_array(arrays, shape=X.shape)
    if are_plain(*kernel_rows(rows), rows.shape[1]):
        return rows
    if not rows.has_canonical_format:
        rows = X.copy()
        with np.errstate(over="ignore"):
            rows.sum_duplicates()
            rows = rows.astype(np.float32, copy=False)
    if np.count_nonzero(rows.data) < rows.nnz:
        rows = rows.copy()
        rows.eliminate_zeros()
    return _finite(rows)


def full_csr(values: NDArray[np.float32]) -> sparse.csr_array:
    """All values as CSR, zeros too; they stay where they are."""
    n, d = values.shape
    columns = np.tile(np.arange(d, dtype=np.int32), n)
    starts = row_starts(np.full(n, d, dtype=np.int64))
    return sparse.csr_array((values.ravel(), columns, starts), shape=(n, d))


def as_view(X: sparse.csr_array) -> NDArray[np.float32] | sparse.csr_array:
    """The values of X as an array where all are stored, as full_csr does; else X."""
    n, d = X.shape
    return X.data.reshape(n, d) if X.nnz == n * d and X.has_sorted_indices else X


def as_array(X: NDArray | sparse.csr_array) -> NDArray:
    """X with its zeros."""
    return X.toarray() if sparse.issparse(X) else X


def training_csr(X: Any) -> sparse.csr_array:
    """float_csr, or full_csr of more than FULL non-zeros, whether X is sparse or not."""
    n, d = X.shape
    if sparse.issparse(X):
        rows = float_csr(X)
        return full_csr(rows.toarray()) if FULL * n * d < rows.nnz < n * d else rows
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(X, dtype=np.float32)
    return _finite(full_csr(values)) if np.count_nonzero(values) > FULL * n * d else float_csr(values)


def row_starts(n_values: NDArray[np.int64]) -> NDArray[np.integer]:
    """Where the rows of so many values begin."""
    return index_array(np.concatenate([[0], np.cumsum(n_values)]))


def index_array(indptr: NDArray[np.int64]) -> NDArray[np.integer]:
    """In the type that does not make scipy copy the columns."""
    return indptr.astype(np.int32) if indptr[-1] < 2**31 else indptr


def _finite(rows: sparse.csr_array) -> sparse.csr_array:
    if not np.isfinite(rows.data).all():
        raise ValueError("Input X contains infinity or a value too large for dtype('float32').")
    return rows


def kernel_rows(X: sparse.csr_array) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """The arrays of such rows in the types that kernels take, whatever X's number of values."""
    arrays = (X.indptr, np.int64), (X.indices, np.int32), (X.data, np.float32)
    return tuple(np.ascontiguousarray(array, dtype) for array, dtype in arrays)


class OneRow(NamedTuple):
    """The only row of an X, as kernels take it."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]
    shape: tuple[int, int]


def one_row(X: Any, n_features: int) -> OneRow | None:
    """The row of an X that has one and nothing wrong or unusual about it, at some microseconds; or None.

    That is what `check_structure`, scikit-learn and `float_csr` look at, and can say what is wrong.
    """
    if type(X) is np.ndarray and X.shape == (1, n_features) and X.dtype in FLOATS:
        indices = np.flatnonzero(X).astype(np.int32)
        data = X[0, indices]
    elif type(X) in CSR and X.shape == (1, n_features):
        indptr, indices, data = X.indptr, X.indices, X.data
        if not all(type(array) is np.ndarray and array.ndim == 1 for array in (indptr, indices, data)):
            return None
        if not (indptr.dtype in INTS and indices.dtype == np.int32 and data.dtype in FLOATS):
            return None
        if len(indptr) != 2 or indptr[0] != 0 or not 0 <= indptr[1] <= min(len(indices), len(data)):
            return None
        indices, data = np.ascontiguousarray(indices[: indptr[1]]), np.ascontiguousarray(data[: indptr[1]])
    else:
        return None
    with np.errstate(over="ignore"):
        data = data.astype(np.float32, copy=False)
    indptr = np.array([0, len(indices)], dtype=np.int64)
    return OneRow(indptr, indices, data, X.shape) if are_plain(indptr, indices, data, n_features) else None


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
    _refuse_mask("sample_weight", sample_weight)
    weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.shape != (n,):
        raise ValueError(f"sample_weight must have shape ({n},) as X has rows, got shape {weights.shape}")
    if weights.min() < 0:
        raise ValueError(
            "Negative values in data passed to `sample_weight`: "
            f"sample_weight[{weights.argmin()}] = {weights.min()}"
        )
    if weights.max() > MAX_WEIGHT:
        raise ValueError(
            f"sample_weight must be at most {MAX_WEIGHT:.2g}, got {weights.max():.2g}: divide it by its mean"
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
        if not (isinstance(weight, Real) and 0 <= weight <= MAX_WEIGHT):
            raise ValueError(f"class_weight[{label!r}] must be finite and not negative, got {weight!r:.60}")
        weights[number[label]] = weight
    return weights


def encode_labels(y: Any) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Sorted distinct labels, and each row's index among them.

    Takes the label types that scikit-learn takes, and raises what it raises for others.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None: pass an array of labels")
    y = _label_array(y)
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


def _label_array(y: Any) -> NDArray[Any]:
    """Labels as a 1-D array; integers as they are, where numpy or scikit-learn would make them float64."""
    _refuse_mask("y", y)
    if isinstance(y, list | tuple) and y and all(isinstance(label, Integral) for label in y):
        array = np.asarray(y)
        y = array if array.dtype.kind in "biu" else np.array([int(label) for label in y], dtype=object)
    elif hasattr(y, "to_numpy"):
        # of pandas, with its own dtypes for integers that may be missing
        dtype = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
        if dtype is not None and dtype.kind in "biu" and not y.isna().any():
            y = y.to_numpy(dtype)
    return column_or_1d(y, warn=True)


def _is_missing(label: Any) -> bool:
    try:
        return label is None or bool(label != label)
    except TypeError:  # pandas.NA
        return True


def _check_objects(y: NDArray[Any]) -> None:
    missing = next((i for i, label in enumerate(y) if _is_missing(label)), None)
    if missing is not None:
        raise ValueError(f"y[{missing}] is {y[missing]!r}, but every row needs a label")
    if not all(isinstance(label, int) for label in y):
        check_classification_targets(y[:1])


def check_classes(classes: Any) -> NDArray[Any]:
    """The sorted distinct labels of partial_fit's classes, or ValueError."""
    try:
        classes = encode_labels(classes)[0]
    except (TypeError, ValueError) as error:
        raise ValueError(f"classes must be an array of all labels: {error}") from error
    if not len(classes):
        raise ValueError("classes must be an array of all labels, got none")
    return classes


def check_first_classes(classes: Any) -> NDArray[Any]:
    """check_classes, which the first call of partial_fit cannot do without."""
    if classes is None:
        raise ValueError("classes must be passed on the first call to partial_fit, got None")
    return check_classes(classes)


def check_same_classes(classes: Any, known: NDArray[Any]) -> None:
    """Raise ValueError where classes are given again, and are others."""
    if classes is not None and not np.array_equal(found := check_classes(classes), known):
        raise ValueError(
            f"classes must be the {len(known)} of the first call, got {len(found)} others: "
            "leave them out, or call fit"
        )


def encode_known(y: Any, classes: NDArray[Any]) -> NDArray[np.int32]:
    """The index in classes of each label, -1 where it is none of them."""
    y = _label_array(y)
    if classes.dtype.kind == "O" or y.dtype.kind != classes.dtype.kind:
        # numpy would compare uint64 and int64 as float64
        number = {label: i for i, label in enumerate(classes.tolist())}
        return np.array([number.get(label, -1) for label in y.tolist()], dtype=np.int32)
    if y.dtype.kind in "iu" and int(classes[-1]) - int(classes[0]) == len(classes) - 1:
        inside = (y >= classes[0]) & (y <= classes[-1])  # of consecutive numbers, faster than a search
        place = y.astype(np.int64) - classes[:1].astype(np.int64)  # modulo 2^64: right of uint64, too
        return np.where(inside, place, -1).astype(np.int32)
    at = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    return np.where(classes[at] == y, at, -1).astype(np.int32)


def encode_all(y: Any, classes: NDArray[Any]) -> NDArray[np.int32]:
    """The index in classes of each label; ValueError where it is none of them."""
    labels, y = (y, slice(None)) if _are_integers(y) else encode_labels(y)
    at = encode_known(labels, classes)
    if (at < 0).any():
        raise ValueError(
            f"y has the label {labels[at < 0].tolist()[0]!r}, which is none of the {len(classes)} "
            "classes: classes must name every label from the first call on, or call fit"
        )
    return at[y]


def _are_integers(y: Any) -> bool:
    """Whether y needs no look at each of its labels."""
    return type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "iu" and len(y) > 0


def check_count(name: str, value: Any) -> int:
    """Return value as an int, or raise ValueError."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer of 1 or more, got {value!r}")
    return int(value)
