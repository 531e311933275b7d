"""Bad input and faults: a clear exception or the right answer, never a crash or a changed model."""

import re
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.fixes import parse_version

import sk_hsm.classifier
import sk_hsm.inference
import sk_hsm.predictions
import sk_hsm.validation
from sk_hsm import HierarchicalSoftmaxClassifier, LabelTree

rng = np.random.default_rng(0)
# quarters, so that float16 holds them
DENSE = rng.integers(1, 9, (30, 8)) / 4 * (rng.random((30, 8)) < 0.5)
DENSE[0] = [0, 1, 0, 2, 0, 3, 0, 0.5]
Y = np.arange(30) % 5
CLF = HierarchicalSoftmaxClassifier(arity=2, random_state=0).fit(DENSE, Y)


def n_rows(X):
    return X.shape[0] if hasattr(X, "shape") else len(X)


PREDICT = {
    "predict": lambda clf, X: clf.predict(X),
    "predict_proba": lambda clf, X: clf.predict_proba(X),
    "predict_log_proba": lambda clf, X: clf.predict_log_proba(X),
    "predict_top_k": lambda clf, X: np.column_stack(clf.predict_top_k(X, k=3)),
    "beam": lambda clf, X: np.column_stack(clf.predict_top_k(X, k=2, beam_width=2)),
    "log_proba_of": lambda clf, X: clf.log_proba_of(X, np.resize(Y, n_rows(X))),
    "predict_proba_sparse": lambda clf, X: clf.predict_proba_sparse(X, k=2, min_proba=0.01).toarray(),
    "sample": lambda clf, X: clf.sample(X, 2, random_state=0),
}
METHODS = {
    "fit": lambda clf, X: clone(clf).fit(X, np.resize(Y, n_rows(X))).predict_proba(DENSE),
    **PREDICT,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_predict = pytest.mark.parametrize("method", PREDICT.values(), ids=PREDICT)


def check_same(X):
    """X gives the bits of DENSE, at fit and at every predict method."""
    for method in METHODS.values():
        np.testing.assert_array_equal(method(CLF, X), method(CLF, DENSE))


# -- X: values --------------------------------------------------------------


@pytest.mark.parametrize("form", [np.array, sparse.csr_array, sparse.csc_array, pd.DataFrame, list])
@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity"), (1e300, "too large for dtype.'float32'")],
)
@every_method
def test_values_that_are_no_float32_numbers(method, value, message, form):
    X = DENSE.copy()
    X[7, 3] = value
    with pytest.raises(ValueError, match=message):
        method(CLF, form(X))


@pytest.mark.parametrize("form", [np.array, sparse.csr_array])
@pytest.mark.parametrize("value", [np.nan, 1e300])
def test_rows_of_weight_zero_are_checked_as_all_are(form, value):
    X, y = DENSE.copy(), np.arange(len(DENSE)) % 5
    X[7, 3] = value
    with pytest.raises(ValueError, match="NaN|too large"):
        HierarchicalSoftmaxClassifier().fit(form(X), y, np.arange(len(y)) != 7)


@pytest.mark.parametrize("n_features", [1, 8])
def test_values_whose_sum_is_no_float32_number(n_features):
    indptr, indices = np.arange(0, 61, 2), np.zeros(60, np.int32)
    X = sparse.csr_array((np.full(60, 3e38, np.float32), indices, indptr), shape=(30, n_features))
    with pytest.raises(ValueError, match="too large"):
        HierarchicalSoftmaxClassifier().fit(X, np.arange(30) % 5)


SHAPES = {
    "complex": (DENSE + 1j, ValueError, "Complex data"),
    "complex csr": (sparse.csr_array(DENSE + 1j), ValueError, "Complex data"),
    "matrix": (DENSE.view(np.matrix), TypeError, "np.matrix"),
    "3-D": (DENSE[:, :, None], ValueError, "dim 3"),
    "1-D": (DENSE[0], ValueError, "1D array"),
    "1-D coo": (sparse.coo_array(DENSE[0]), ValueError, r"2-D, .* \(8,\)"),
    "no samples": (DENSE[:0], ValueError, "0 sample"),
    "no features": (DENSE[:, :0], ValueError, "0 feature"),
    "no samples csr": (sparse.csr_array((0, 8)), ValueError, "0 sample"),
    "no features csr": (sparse.csr_array((30, 0)), ValueError, "0 feature"),
    "words": (np.full((30, 8), "word"), ValueError, "word"),
    "objects": (np.full((30, 8), {}, dtype=object), TypeError, "dict"),
    "masked": (np.ma.array(DENSE, mask=DENSE > 2), ValueError, r"X has \d+ masked values"),
    "too wide": (sparse.csr_array((30, 2**31)), ValueError, "2147483647 features, got 2147483648"),
}
if parse_version(scipy.__version__) >= parse_version("1.15"):  # before, there are none
    SHAPES["3-D coo"] = (sparse.coo_array(np.ones((2, 2, 2))), ValueError, r"2-D, .* \(2, 2, 2\)")


@pytest.mark.parametrize(("X", "error", "message"), SHAPES.values(), ids=SHAPES)
@every_method
def test_what_is_no_table_of_numbers(method, X, error, message):
    with pytest.raises(error, match=message):
        method(CLF, X)


@pytest.mark.parametrize("X", [DENSE[:, :5], sparse.csr_array(DENSE[:, :5])], ids=type)
@every_predict
def test_another_number_of_features(method, X):
    with pytest.raises(ValueError, match="X has 5 features, .* expecting 8"):
        method(CLF, X)


@every_predict
def test_feature_names(method):
    frame = pd.DataFrame(DENSE, columns=list("abcdefgh"))
    clf = clone(CLF).fit(frame, Y)
    assert clf.feature_names_in_.tolist() == list("abcdefgh")
    np.testing.assert_array_equal(method(clf, frame), method(CLF, DENSE))
    with pytest.raises(ValueError, match="feature names"):
        method(clf, frame[list("bacdefgh")])
    with pytest.warns(UserWarning, match="feature names"):
        method(clf, DENSE)


# -- X: sparse that points outside itself -----------------------------------


def put(name, at, value):
    def craft(X):
        array = np.array(getattr(X, name))
        array[at] = value
        setattr(X, name, array)

    return craft


def change(name, f):
    return lambda X: setattr(X, name, f(getattr(X, name)))


def change_coords(axis, f):
    def craft(X):
        coords = [np.array(index) for index in X.coords]
        coords[axis] = f(coords[axis])
        X.coords = tuple(coords)

    return craft


def replaced(value):
    return lambda index: np.concatenate([[value], index[1:]])


def change_row(columns, values):
    def craft(X):
        X.rows[0], X.data[0] = columns, values

    return craft


COMPRESSED = {
    "index too large": (put("indices", 0, 10**6), "1000000"),
    "index one too large": (put("indices", 0, 30), "30"),
    "index negative": (put("indices", -1, -1), "-1"),
    "indices float": (change("indices", lambda a: a + 0.5), "float64"),
    "indices bool": (change("indices", lambda a: a > 2), "bool"),
    "indices short": (change("indices", lambda a: a[:3]), "3 indices"),
    "indices 2-D": (change("indices", lambda a: a[:, None]), "1-D"),
    "data short": (change("data", lambda a: a[:3]), "3 values"),
    "data of other dimension": (change("data", lambda a: a[None]), "-D"),
    "indptr falls": (put("indptr", 2, 10**6), "never fall"),
    "indptr negative": (put("indptr", 2, -5), "never fall, got -5"),
    "indptr begins late": (put("indptr", 0, 1), "rise from 0"),
    "indptr ends late": (put("indptr", -1, 10**6), "ends at 1000000"),
    "indptr short": (change("indptr", lambda a: a[:-1]), "entries, got"),
    "indptr long": (change("indptr", lambda a: np.append(a, a[-1])), "entries, got"),
    "indptr empty": (change("indptr", lambda a: a[:0]), "got 0"),
    "indptr 2-D": (change("indptr", lambda a: np.stack([a, a])), "1-D"),
    "indptr float": (change("indptr", lambda a: a + 0.0), "float64"),
    "indptr unsigned": (change("indptr", lambda a: a[::-1].astype(np.uint64)), "never fall"),
}
CRAFTED = {
    **{
        f"{format} {name}": (format, craft, rf"X \({format}\).*{message}")
        for format in ("csr", "csc", "bsr")
        for name, (craft, message) in COMPRESSED.items()
    },
    "coo row too large": ("coo", change_coords(0, replaced(30)), "row indices .* 0 .. 29, got 30"),
    "coo column too large": ("coo", change_coords(1, replaced(8)), "column indices .* 0 .. 7, got 8"),
    "coo row negative": ("coo", change_coords(0, replaced(-1)), "row indices .* got -1"),
    "coo column negative": ("coo", change_coords(1, replaced(-1)), "column indices .* got -1"),
    "coo column float": ("coo", change_coords(1, replaced(0.5)), "column indices .* float64"),
    "coo rows short": ("coo", change_coords(0, lambda a: a[:3]), "index for each value"),
    "coo columns empty": ("coo", change_coords(1, lambda a: a[:0]), "index for each value"),
    "coo data short": ("coo", change("data", lambda a: a[:3]), "index for each value"),
    "coo data 2-D": ("coo", change("data", lambda a: np.stack([a, a], 1)), "index for each value"),
    "lil too large": ("lil", change_row([8], [1.0]), r"X \(lil\) .* 0 .. 7, got 8"),
    "lil negative": ("lil", change_row([-1], [1.0]), r"X \(lil\) .* got -1"),
    "lil beyond int32": ("lil", change_row([2**40], [1.0]), f"got {2**40}"),
    "lil columns long": ("lil", change_row([0, 1, 2] * 1000, [1.0]), "must agree"),
    "lil values long": ("lil", change_row([0], [1.0] * 3000), "must agree"),
    "lil rows short": ("lil", change("rows", lambda a: a[:3]), "must agree"),
    "lil data short": ("lil", change("data", lambda a: a[:3]), "must agree"),
    "dok too large": ("dok", lambda X: X._dict.update({(0, 8): 1.0}), r"\(0, 8\), outside"),
    "dok negative": ("dok", lambda X: X._dict.update({(-1, 0): 1.0}), r"\(-1, 0\), outside"),
    "dok beyond int64": ("dok", lambda X: X._dict.update({(0, 2**70): 1.0}), "outside"),
    "dok 3-D": ("dok", lambda X: X._dict.update({(1, 2, 3): 1.0}), r"\(1, 2, 3\), outside"),
    "dia offsets short": ("dia", change("offsets", lambda a: a[:1]), r"shape \(1,\)"),
    "dia offsets long": ("dia", change("offsets", lambda a: np.append(a, 99)), "one offset for each"),
    "dia offsets twice": ("dia", change("offsets", lambda a: a * 0), "must not occur twice"),
    "dia data short": ("dia", change("data", lambda a: a[:1]), r"shape \(1, 8\)"),
}


@pytest.mark.parametrize(("format", "craft", "message"), CRAFTED.values(), ids=CRAFTED)
@every_method
def test_crafted_sparse_matrices_do_not_crash(method, format, craft, message):
    X = sparse.bsr_array(DENSE, blocksize=(2, 2)) if format == "bsr" else sparse.csr_array(DENSE)
    X = X.asformat(format)
    craft(X)
    with pytest.raises(ValueError, match=message):
        method(CLF, X)


@every_method
def test_a_csr_of_no_values_that_claims_five(method):
    X = sparse.csr_array((2, 8))
    X.indptr = np.array([0, 5, 0])
    with pytest.raises(ValueError, match="never fall, got 0 at position 2"):
        method(CLF, X)
    X.indptr = np.array([0, 5, 5])
    with pytest.raises(ValueError, match="ends at 5, but X holds 0 indices and 0 values"):
        method(CLF, X)


def put_first(name, dtype):
    """Change the first entry of an array, if it has one, and its type."""

    def craft(X, value):
        array = getattr(X, name).astype(dtype)
        array[:1] = value
        setattr(X, name, array)

    return craft


ONE_ROW = {
    "values": (put_first("data", np.float32), [np.nan, np.inf, 0.0, 3e38]),
    "wide values": (put_first("data", np.float64), [np.nan, 1e39, 1e-60, 3e38]),
    "other values": (put_first("data", np.int64), [2**40, 0]),
    "columns": (put_first("indices", np.int32), [-1, 0, 3, 7, 8]),
    "wide columns": (put_first("indices", np.int64), [-1, 2**32, 2**32 + 1, 7, 8]),
    "columns of floats": (put_first("indices", np.float64), [0.5, np.nan]),
    "start": (put_first("indptr", np.int32), [-1, 1, 2]),
    "end": (lambda X, value: setattr(X, "indptr", np.array([0, value])), [-1, 0, 2, 3, 5, 2**40]),
    "rows": (lambda X, value: setattr(X, "indptr", np.zeros(value, np.int32)), [0, 1, 3]),
    "lists": (lambda X, value: setattr(X, value, getattr(X, value).tolist()), ["data", "indices", "indptr"]),
    "shapes": (
        lambda X, value: setattr(X, value, getattr(X, value)[:, None]),
        ["data", "indices", "indptr"],
    ),
    "strides": (
        lambda X, value: setattr(X, value, np.repeat(getattr(X, value), 2)[::2]),
        ["data", "indices", "indptr"],
    ),
    "byte order": (lambda X, value: setattr(X, "data", X.data.astype(value)), [">f4", ">f8"]),
    "read only": (lambda X, value: getattr(X, value).setflags(write=False), ["data", "indices", "indptr"]),
}
CRAFTED_ROWS = [
    pytest.param(make, craft, value, id=f"{make.__name__} {name} {value}")
    for make in (sparse.csr_array, sparse.csr_matrix)
    for name, (craft, values) in ONE_ROW.items()
    for value in values
] + [
    pytest.param(make, lambda X, value: None, None, id=name)
    for name, make in {
        "array": np.array,
        "float32": lambda X: X.astype(np.float32),
        "nan": lambda X: X * np.nan,
        "overflow": lambda X: X * 1e39,
        "columns first": lambda X: np.asfortranarray(np.repeat(X, 2, axis=0))[::2],
        "masked": lambda X: np.ma.masked_equal(X, 2),
        "integers": lambda X: X.astype(int),
        "1-D": lambda X: X[0],
        "list": lambda X: X.tolist(),
        "too wide": lambda X: np.hstack([X, X]),
        "too narrow": lambda X: X[:, :7],
        "no rows": lambda X: X[:0],
        "frame": pd.DataFrame,
        "csc": sparse.csc_array,
    }.items()
]


@pytest.mark.parametrize(("make", "craft", "value"), CRAFTED_ROWS)
@every_predict
def test_one_row_is_taken_or_refused_as_any_rows(method, make, craft, value, monkeypatch):
    """What looks at one row fast agrees with what looks at all others."""

    def outcome():
        X = make(DENSE[:1])
        craft(X, value)
        try:
            return method(CLF, X)
        except Exception as error:
            return type(error), str(error)

    fast = outcome()
    monkeypatch.setattr(sk_hsm.predictions, "one_row", lambda X, n_features: None)
    slow = outcome()
    if isinstance(slow, tuple):
        assert fast == slow
    else:
        np.testing.assert_array_equal(fast, slow)


def test_one_row_is_looked_at_fast():
    for X in (DENSE[:1], sparse.csr_array(DENSE[:1]), sparse.csr_matrix(DENSE[:1]).astype(np.float32)):
        assert sk_hsm.validation.one_row(X, 8) is not None


# -- X: the same rows in another form ---------------------------------------


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"])
def test_every_sparse_format_gives_the_same_bits(format, kind):
    check_same(getattr(sparse, f"{format}_{kind}")(DENSE))


def csr(changed):
    """DENSE as CSR of (rows, columns, values), changed."""
    rows, columns = np.nonzero(DENSE)
    rows, columns, values = changed(rows, columns, DENSE[rows, columns])
    order = np.argsort(rows, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=30))])
    return sparse.csr_array((values[order], columns[order], indptr), shape=DENSE.shape)


def with_stale_flags():
    X = sparse.csr_array(DENSE)
    assert X.has_canonical_format
    for row in range(30):
        here = slice(X.indptr[row], X.indptr[row + 1])
        X.indices[here], X.data[here] = X.indices[here][::-1].copy(), X.data[here][::-1].copy()
    return X


def with_int64():
    X = sparse.csr_array(DENSE)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def with_strided_arrays():
    X = sparse.csr_array(DENSE.astype(np.float32))  # others are converted, which copies
    X.indices, X.indptr, X.data = (np.repeat(array, 2)[::2] for array in (X.indices, X.indptr, X.data))
    return X


SPARSE = {
    "unsorted": lambda: csr(lambda i, j, x: (i[::-1], j[::-1], x[::-1])),
    "duplicates": lambda: csr(lambda i, j, x: (np.tile(i, 4), np.tile(j, 4), np.tile(x / 4, 4))),
    "explicit zeros": lambda: csr(
        lambda i, j, x: (np.append(i, [3, 9]), np.append(j, [0, 0]), np.append(x, [0, 0]))
    ),
    "all explicit": lambda: sparse.csr_array(
        (DENSE.ravel(), np.tile(np.arange(8), 30), np.arange(31) * 8), shape=DENSE.shape
    ),
    "stale flags": with_stale_flags,
    "int64": with_int64,
    "strided": with_strided_arrays,
    "float32": lambda: sparse.csr_array(DENSE.astype(np.float32)),
}


@pytest.mark.parametrize("make", SPARSE.values(), ids=SPARSE)
def test_sparse_rows_equal_dense_rows(make):
    X = make()
    before = X.indices.copy(), X.data.copy()
    check_same(X)
    # the user's matrix is not tidied up behind their back
    np.testing.assert_array_equal(X.indices, before[0])
    np.testing.assert_array_equal(X.data, before[1])


def test_empty_rows_and_columns():
    X = DENSE.copy()
    X[[0, 10, 29]] = 0
    X[:, [0, 4, 7]] = 0
    dense, other = clone(CLF).fit(X, Y), clone(CLF).fit(sparse.csr_array(X), Y)
    for method in METHODS.values():
        np.testing.assert_array_equal(method(other, sparse.csr_array(X)), method(dense, X))


def read_only(X):
    X.flags.writeable = False
    return X


DENSE_FORMS = {
    "F-order": np.asfortranarray,
    "strided": lambda X: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
    "negative strides": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": lambda X: read_only(X.copy()),
    "object": lambda X: X.astype(object),
    "numeric strings": lambda X: X.astype(str),
    "float16": lambda X: X.astype(np.float16),
    "float32": lambda X: X.astype(np.float32),
    "longdouble": lambda X: X.astype(np.longdouble),
    "big-endian": lambda X: X.astype(">f8"),
    "lists": lambda X: X.tolist(),
    "unmasked": lambda X: np.ma.array(X, mask=False),
    "frame": pd.DataFrame,
    "sparse frame": lambda X: pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(X)),
}


@pytest.mark.filterwarnings("ignore:pandas.DataFrame with sparse columns")
@pytest.mark.parametrize("form", DENSE_FORMS.values(), ids=DENSE_FORMS)
def test_every_dense_form_gives_the_same_bits(form):
    check_same(form(DENSE))


def test_memmap_gives_the_same_bits(tmp_path):
    np.save(tmp_path / "X.npy", DENSE)
    check_same(np.load(tmp_path / "X.npy", mmap_mode="r"))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64])
def test_integers_equal_their_floats(dtype):
    X = (DENSE if dtype is bool else np.ceil(DENSE)).astype(dtype)
    clf, other = clone(CLF).fit(X.astype(float), Y), clone(CLF).fit(X, Y)
    for method in METHODS.values():
        np.testing.assert_array_equal(method(other, X), method(clf, X.astype(float)))


DEGENERATE = {
    "all zeros": np.zeros((30, 8)),
    "constant": np.full((30, 8), 3.0),
    "one feature": DENSE[:, :1],
    "one sample": DENSE[:1],
    "every class once": DENSE[:5],
    "tiny": DENSE * 1e-40,
    "large": DENSE * 1e18,
}


@pytest.mark.parametrize("tree", ["kmeans", "huffman", "balanced"])
@pytest.mark.parametrize("X", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_degenerate_rows_train(X, tree, fit_intercept):
    y = Y[: len(X)]
    for rows in (X, sparse.csr_array(X)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            clf = HierarchicalSoftmaxClassifier(
                tree, arity=2, random_state=0, fit_intercept=fit_intercept
            ).fit(rows, y)
            proba = clf.predict_proba(rows)
        assert np.isfinite(clf.predict_log_proba(rows)).all()
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-12)
        assert clf.classes_.tolist() == np.unique(y).tolist()


def test_more_classes_than_rows_that_weigh():
    clf = clone(CLF).fit(DENSE, Y, sample_weight=(Y < 2) * 1.0)
    proba = clf.predict_proba(DENSE)
    assert (proba[:, 2:] == 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert set(clf.predict(DENSE)) <= {0, 1}


# -- labels -----------------------------------------------------------------


def test_one_class_is_certain():
    clf = clone(CLF).fit(DENSE, ["a"] * 30)
    assert clf.predict(DENSE).tolist() == ["a"] * 30
    assert clf.predict_proba(DENSE).tolist() == [[1.0]] * 30
    assert clf.sample(DENSE[:2], 2).tolist() == [["a", "a"]] * 2
    assert clf.log_proba_of(DENSE[:2], ["a", "b"]).tolist() == [0, -np.inf]
    assert clf.predict_proba_sparse(DENSE, k=3).toarray().tolist() == [[1.0]] * 30
    assert clf.predict_top_k(DENSE[:1])[0].tolist() == [["a"]]


@pytest.mark.parametrize("n_classes", [2, 30])
def test_two_classes_and_every_class_once(n_classes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = clone(CLF).fit(DENSE, np.arange(30) % n_classes)
        assert clf.predict_proba(DENSE).shape == (30, n_classes)


IDS = {
    "sparse": [0, 50_000_000, 10**15, -7, 3],
    "beyond 2**53": [2**53 + i for i in range(5)],
    "uint64": np.array([2**63 + i for i in range(5)], dtype=np.uint64),
    "both ends": [-1, 2**63, 2**63 + 1, 2**63 + 2, 0],
    "both ends, tuple": (-1, 2**63, 2**63 + 1, 2**63 + 2, 0),
    "numpy integers": [np.int64(-1), np.uint64(2**63), np.uint64(2**63 + 1), np.int64(0), np.int8(1)],
    "beyond 64 bits": [2**70, 2**70 + 1, -(2**70), 5, 6],
    "nullable": pd.Series([2**53 + i for i in range(5)], dtype="Int64"),
    "bool": [False, True, False, True, False],
    "nullable bool": pd.Series([False, True, False, True, False], dtype="boolean"),
    "int8": np.arange(-2, 3, dtype=np.int8),
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_ids_stay_apart_however_large(ids):
    if isinstance(ids, list | tuple):
        y = ids * 6
    else:
        y = pd.concat([ids] * 6) if isinstance(ids, pd.Series) else np.tile(ids, 6)
    clf = clone(CLF).fit(np.tile(np.eye(8)[:5], (6, 1)), y)
    exact = [int(label) for label in list(ids)]
    assert [int(label) for label in clf.classes_] == sorted(set(exact))
    X = np.eye(8)[:5]
    if len(set(exact)) == 5:
        assert [int(label) for label in clf.predict(X)] == exact
    proba = clf.predict_proba(X)
    columns = [sorted(set(exact)).index(label) for label in exact]
    np.testing.assert_allclose(np.exp(clf.log_proba_of(X, ids)), proba[np.arange(5), columns], rtol=1e-12)
    assert clf.predict_top_k(X, k=2)[0].dtype == clf.classes_.dtype


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.uint64, np.int64])
@pytest.mark.parametrize("end", ["least", "most"])
def test_consecutive_labels_at_the_ends_of_their_type(dtype, end):
    bounds, n = np.iinfo(dtype), 200
    first = int(bounds.min) if end == "least" else int(bounds.max) - n + 1
    classes = np.array([first + i for i in range(n)], dtype=dtype)
    np.testing.assert_array_equal(sk_hsm.validation.encode_known(classes, classes), np.arange(n))
    other = np.array([bounds.max if end == "least" else bounds.min], dtype=dtype)
    assert sk_hsm.validation.encode_known(other, classes) == -1


@pytest.mark.parametrize("asked", [[2**53 + 1], np.array([2**53 + 1]), [2**53 + 1, -1], [2**53 + 1, 2.0]])
@pytest.mark.parametrize("dtype", [np.uint64, np.int64, object])
def test_neighbours_are_not_taken_for_each_other(asked, dtype):
    clf = clone(CLF).fit(np.eye(8)[:2], np.array([2**53, 2**53 + 1]).astype(dtype))
    if isinstance(asked[-1], float):
        asked = np.array(asked, dtype=object)
    log_proba = clf.log_proba_of(np.eye(8)[1 : 1 + len(asked)], asked)
    assert log_proba[0] == clf.predict_log_proba(np.eye(8)[1:2])[0, 1]
    assert (log_proba[1:] == -np.inf).all()


def test_labels_of_another_type_are_unknown():
    assert (CLF.log_proba_of(DENSE, ["a"] * 30) == -np.inf).all()
    assert (CLF.log_proba_of(DENSE, [None] * 30) == -np.inf).all()
    assert (CLF.log_proba_of(DENSE, [np.nan] * 30) == -np.inf).all()
    assert (CLF.log_proba_of(DENSE, [0.5] * 30) == -np.inf).all()
    np.testing.assert_array_equal(CLF.log_proba_of(DENSE, Y * 1.0), CLF.log_proba_of(DENSE, Y))


def test_an_unused_category_is_no_class():
    y = pd.Series(pd.Categorical(list("ab") * 15, categories=list("zbac")))
    clf = clone(CLF).fit(DENSE, y)
    assert clf.classes_.tolist() == ["a", "b"]
    assert set(clf.predict(DENSE)) <= {"a", "b"}


def outcome(estimator, y):
    """The classes, or the exception's class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return estimator.fit(DENSE, y).classes_.tolist()
        except Exception as error:
            return type(error)


LABELS = {
    "bytes": np.array([b"a", b"b"] * 15),
    "bytes objects": np.array([b"a", b"b"] * 15, dtype=object),
    "None": [None, 1] * 15,
    "None among strings": np.array([None, "a"] * 15, dtype=object),
    "NaN": [np.nan, 1.0] * 15,
    "NaN among objects": np.array([np.nan, "a"] * 15, dtype=object),
    "inf": [np.inf, 1.0] * 15,
    "mixed": np.array([1, "a"] * 15, dtype=object),
    "mixed list": [1, "a"] * 15,
    "tuples": [(1, 2), (3, 4)] * 15,
    "tuple objects": np.array([(1,), (2,)] * 15 + [None], dtype=object)[:30],
    "(n, 1)": Y[:, None],
    "(n, 2)": np.column_stack([Y, Y]),
    "continuous": np.linspace(0, 1, 30),
    "continuous late": np.append(np.arange(29.0), 0.5),
    "complex": Y + 1j,
    "integers in floats": Y * 1.0,
    "0-D": 3,
    "dict": {1: 2},
    "text": "abc",
    "sparse": sparse.csr_array(Y[:, None]),
    "longer": np.arange(31) % 5,
    "shorter": np.arange(29) % 5,
    "empty": [],
    "NA": pd.array([1, None] * 15, dtype="Int64"),
    "pandas strings": pd.Series(["a", "b"] * 15, dtype="string"),
    "strings": np.array(["b", "abc"] * 15),
    "datetime": np.array(["2020-01-01", "2020-01-02"] * 15, dtype="M8[D]"),
    "bool": Y > 2,
    "frame": pd.DataFrame({"y": Y}),
}
if hasattr(np.dtypes, "StringDType"):  # of numpy 2
    LABELS["StringDType"] = np.array(["b", "abc"] * 15, dtype=np.dtypes.StringDType())


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_labels_are_taken_or_refused_as_by_logistic_regression(y):
    assert outcome(clone(CLF), y) == outcome(LogisticRegression(), y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "y is None"),
        ([None, 1] * 15, r"y\[0\] is None"),
        (np.array(["a", pd.NA] * 15, dtype=object), r"y\[1\] is <NA>, but every row needs a label"),
        ([1.0, np.nan] * 15, "NaN.* row 1"),
        ([1] * 31, "X has 30 rows and y 31 labels"),
        ([1] * 29, "X has 30 rows and y 29 labels"),
        ("abc", r"shape \(\)"),
        (np.zeros((30, 2)), r"shape \(30, 2\)"),
        (np.ma.array(Y, mask=Y == 0), "y has 6 masked values"),
    ],
)
def test_bad_labels_are_named(y, message):
    with pytest.raises(ValueError, match=message):
        clone(CLF).fit(DENSE, y)
    if y is not None and len(np.shape(y)) == 1 and len(y) != 30:
        with pytest.raises(ValueError, match=message):
            CLF.log_proba_of(DENSE, y)


# -- weights ----------------------------------------------------------------


@pytest.mark.parametrize("tree", ["kmeans", "huffman", "balanced"])
@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (np.where(Y == 3, -1.0, 1.0), ValueError, r"sample_weight\[3\] = -1"),
        (np.where(Y == 3, np.nan, 1.0), ValueError, "sample_weight contains NaN"),
        (np.where(Y == 3, np.inf, 1.0), ValueError, "sample_weight contains infinity"),
        (np.zeros(30), ValueError, "weight.*zero"),
        (0, ValueError, "weight.*zero"),
        (np.ones(29), ValueError, r"\(30,\).* \(29,\)"),
        (np.ones((30, 1)), ValueError, r"\(30,\).* \(30, 1\)"),
        (np.ones((30, 2)), ValueError, r"\(30,\).* \(30, 2\)"),
        (np.full(30, 1e300), ValueError, "sample_weight must be at most 3.4e.38, got 1e.300"),
        (np.full(30, 1e38), ValueError, "C times .* at most 3.4e.38, got 1e.39"),
        (np.full(30, 1j), ValueError, "Complex data"),
        (np.ma.array(np.ones(30), mask=Y == 0), ValueError, "sample_weight has 6 masked values"),
        (sparse.csr_array(np.ones((30, 1))), TypeError, "Sparse data was passed for sample_weight"),
        (["a"] * 30, ValueError, "could not convert string"),
    ],
)
def test_bad_sample_weights(weight, error, message, tree):
    with pytest.raises(error, match=message):
        HierarchicalSoftmaxClassifier(tree, C=10.0).fit(DENSE, Y, sample_weight=weight)


@pytest.mark.parametrize("weight", [1e-30, 1e-6, 1e6, 1e30, 1e38])
@pytest.mark.parametrize("scale", [1e-18, 1e-3, 1e3, 1e18])
def test_extreme_weights_and_features_leave_a_choice_of_c(weight, scale):
    X, y = np.repeat(DENSE, 20, axis=0) * rng.random((600, 8)), np.repeat(Y, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf = HierarchicalSoftmaxClassifier(max_iter=20, random_state=0)
        clf.fit(X * scale, y, sample_weight=np.full(len(y), weight))
    assert np.isfinite(clf.C_).all() and (clf.C_ > 0).all()
    np.testing.assert_allclose(clf.predict_proba(X * scale).sum(axis=1), 1)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ({0: np.nan}, r"class_weight\[0\].* nan"),
        ({0: np.inf}, r"class_weight\[0\].* inf"),
        ({0: -1}, r"class_weight\[0\].* -1"),
        ({0: "a"}, r"class_weight\[0\].* 'a'"),
        ({0: None}, r"class_weight\[0\].* None"),
        ({0: 1e300}, r"class_weight\[0\].* 1e\+300"),
        ({0: 10**400}, r"class_weight\[0\]"),
        ({9: 1}, "class_weight names 9"),
        ({"0": 1}, "class_weight names '0'"),
        ({None: 1}, "class_weight names None"),
        (dict.fromkeys(range(5), 0), "weight.*zero"),
        ([1, 1, 1, 1, 1], "'class_weight' parameter"),
        ("unbalanced", "'class_weight' parameter"),
    ],
    ids=str,
)
def test_bad_class_weights(weight, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalSoftmaxClassifier(class_weight=weight).fit(DENSE, Y)


def test_a_class_that_class_weight_does_not_name_has_weight_one():
    some, all_named = (
        clone(CLF).set_params(class_weight=weight).fit(DENSE, Y).predict_proba(DENSE)
        for weight in ({0: 3}, {0: 3, 1: 1, 2: 1, 3: 1, 4: 1})
    )
    np.testing.assert_array_equal(some, all_named)


# -- parameters -------------------------------------------------------------

WRONG = {
    "tree": [None, 5, "other", np.nan],
    "arity": [1, 0, -1, 2.0, np.nan, np.inf, None, "2"],
    "C": [0, -1, np.nan, np.inf, 1e300, 10**400, None, "1", [1.0]],
    "fit_intercept": [None, "yes", 2, np.nan],
    "max_iter": [0, -1, 1.5, np.nan, np.inf, 10**30, None, "9"],
    "tol": [0, -1, np.nan, np.inf, None, "1"],
    "n_jobs": [1.5, np.nan, np.inf, "2"],
    "random_state": [-1, 2**40, 0.5, "0", np.random.default_rng(0)],
    "verbose": [-1, 0.5, None, "1"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=str
)
def test_a_wrong_parameter_is_named_at_fit(name, value):
    clf = HierarchicalSoftmaxClassifier(**{name: value})  # nothing is checked here
    assert clf.get_params()[name] is value
    with pytest.raises(InvalidParameterError, match=f"'{name}' parameter"):
        clf.fit(DENSE, Y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (dict(n_jobs=0), "n_jobs"),
        (dict(tree=[]), r"parents .* \(0,\)"),
        (dict(tree=[[1, 2]]), r"parents .* \(1, 2\)"),
        (dict(tree=[np.nan, 0]), "node 0 must be a node, got nan"),
        (dict(tree=["a", "b"]), "integers, got dtype <U1"),
        (dict(tree=[-1, 0, 0, 9, 0, 0]), "node 3 is 9"),
        (dict(tree=[-1, -1, 0, 0, 0, 1, 1]), "both roots"),
        (dict(tree=[1, 0, 0, 0, 1, 1, 1]), "cycle"),
        (dict(tree=[-1, 0, 0]), "label 2 has no leaf"),
        (dict(tree=LabelTree.from_nested([0, 1, 2, 3])), "no leaf for class 4"),
        (dict(tree=LabelTree.from_nested([0, 1, 2, 3, 4, 5])), "leaf 5 .* none of the classes"),
        (
            dict(tree=LabelTree.from_nested([0, 1, 2, 3, 4]).with_labels([0, 1, 2, 1, 4])),
            "label 1 is at two leaves: node 2 of tree and node 4 of tree",
        ),
    ],
    ids=str,
)
def test_a_wrong_tree_or_number_of_threads(params, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalSoftmaxClassifier(**params).fit(DENSE, Y)


@pytest.mark.parametrize("arity", [2, 5, 6, 10**30])
@pytest.mark.parametrize("tree", ["kmeans", "huffman", "balanced"])
def test_any_arity_of_two_or_more(tree, arity):
    clf = HierarchicalSoftmaxClassifier(tree, arity=arity, random_state=0).fit(DENSE, Y)
    assert clf.tree_.arity == min(arity, 5)


BAD_COUNTS = [0, -1, 1.5, np.nan, np.inf, "1", True, [1]]


@pytest.mark.parametrize("value", BAD_COUNTS, ids=str)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("k", lambda value: CLF.predict_top_k(DENSE, k=value)),
        ("k", lambda value: CLF.predict_proba_sparse(DENSE, k=value)),
        ("beam_width", lambda value: CLF.predict_top_k(DENSE, beam_width=value)),
        ("n_samples", lambda value: CLF.sample(DENSE, n_samples=value)),
    ],
)
def test_counts_are_integers_of_one_or_more(name, call, value):
    with pytest.raises(ValueError, match=f"{name} must be an integer .*{re.escape(repr(value))}"):
        call(value)


@pytest.mark.parametrize("value", [0, -1, 1.1, np.nan, np.inf, "a", [0.5], 1j], ids=str)
def test_min_proba_is_in_0_to_1(value):
    with pytest.raises(ValueError, match=rf"min_proba .*\(0, 1\], got {re.escape(repr(value))}"):
        CLF.predict_proba_sparse(DENSE, min_proba=value)


def test_predict_proba_sparse_needs_a_bound():
    with pytest.raises(ValueError, match="k or min_proba"):
        CLF.predict_proba_sparse(DENSE)


def test_counts_without_bound():
    dense = CLF.predict_proba(DENSE)
    np.testing.assert_array_equal(CLF.predict_proba_sparse(DENSE, min_proba=5e-324).toarray(), dense)
    np.testing.assert_array_equal(CLF.predict_proba_sparse(DENSE, k=10**30).toarray(), dense)
    exact = CLF.predict_top_k(DENSE, k=10**30)
    for a, b in zip(exact, CLF.predict_top_k(DENSE, k=10**30, beam_width=10**30), strict=True):
        np.testing.assert_array_equal(a, b)
    assert exact[0].shape == (30, 5)


# -- faults -----------------------------------------------------------------


@every_predict
def test_predict_before_fit(method):
    with pytest.raises(NotFittedError):
        method(HierarchicalSoftmaxClassifier(), DENSE)


def raise_(error):
    def call(*args, **kwargs):
        raise error

    return call


FAILURES = {
    "X": (lambda clf: clf.fit(np.full((30, 4), np.nan), Y), ValueError),
    "names": (lambda clf: clf.fit(pd.DataFrame(DENSE[:, :3], columns=list("xyz")), Y[:3]), ValueError),
    "y": (lambda clf: clf.fit(DENSE[:, :4], np.linspace(0, 1, 30)), ValueError),
    "weight": (lambda clf: clf.fit(DENSE[:, :4], Y, np.zeros(30)), ValueError),
    "late": (lambda clf: clf.fit(DENSE[:, :4], Y), KeyboardInterrupt),
}


@pytest.mark.parametrize(("fail", "error"), FAILURES.values(), ids=FAILURES)
def test_a_failed_fit_changes_nothing(fail, error, monkeypatch):
    clf = clone(CLF).fit(pd.DataFrame(DENSE, columns=list("abcdefgh")), Y)
    frame = pd.DataFrame(DENSE, columns=list("abcdefgh"))
    before, proba = dict(vars(clf)), clf.predict_proba(frame)
    unfitted = clone(CLF)
    if error is KeyboardInterrupt:
        monkeypatch.setattr(sk_hsm.training, "fit_nodes", raise_(KeyboardInterrupt()))
    for estimator in (clf, unfitted):
        with pytest.raises(error):
            fail(estimator)
    assert vars(clf).keys() == before.keys()
    assert all(vars(clf)[name] is value for name, value in before.items())
    np.testing.assert_array_equal(clf.predict_proba(frame), proba)
    assert set(vars(unfitted)) == set(unfitted.get_params())
    with pytest.raises(NotFittedError):
        unfitted.predict(DENSE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CLF.predict_proba(DENSE), "30 rows needs .* GiB, .* GiB are available.* predict_top_k"),
        (lambda: CLF.predict_log_proba(DENSE), "30 rows needs .* GiB, .* GiB are available.* predict_top_k"),
        (lambda: CLF.predict_top_k(DENSE, k=4), "predict_top_k with k=4 for 30 rows .* GiB.* smaller k"),
        (lambda: CLF.sample(DENSE, 7), "sample of 7 labels for 30 rows .* GiB.* fewer"),
    ],
    ids=["predict_proba", "predict_log_proba", "predict_top_k", "sample"],
)
def test_what_cannot_fit_in_memory_is_not_allocated(call, message, monkeypatch):
    monkeypatch.setattr(sk_hsm.inference, "SMALL", 50)
    monkeypatch.setattr(sk_hsm.inference, "available_memory", lambda: 100)
    monkeypatch.setattr(sk_hsm.inference, "_over_chunks", raise_(AssertionError("work was begun")))
    with pytest.raises(MemoryError, match=message):
        call()


def test_a_sample_that_no_memory_holds():
    with pytest.raises(MemoryError, match="GiB"):
        CLF.sample(DENSE, n_samples=10**14)


@pytest.mark.parametrize("memory", [30 * 5 * 8, 10**9])
def test_what_fits_in_memory_is_computed(memory, monkeypatch):
    expected = CLF.predict_proba(DENSE)
    monkeypatch.setattr(sk_hsm.inference, "SMALL", 0)
    monkeypatch.setattr(sk_hsm.inference, "available_memory", lambda: memory)
    np.testing.assert_array_equal(CLF.predict_proba(DENSE), expected)


def test_available_memory_is_a_size_of_this_machine():
    assert 2**20 < sk_hsm.inference.available_memory() <= 2**62


@pytest.mark.parametrize("random_state", [None, 0, np.random.RandomState(0)], ids=str)
def test_the_global_random_state_is_untouched(random_state):
    if random_state is None:
        np.random.seed(0)  # None draws from it, by scikit-learn's convention
        CLF.sample(DENSE)
        drawn = np.random.random_sample()
        np.random.seed(0)
        assert drawn != np.random.random_sample()
        return
    before = np.random.get_state()[1].tolist()
    clf = HierarchicalSoftmaxClassifier(random_state=random_state).fit(DENSE, Y)
    for method in PREDICT.values():
        method(clf, DENSE)
    clf.sample(DENSE, random_state=random_state)
    assert np.random.get_state()[1].tolist() == before


def test_eight_threads_predict_as_one():
    X = sparse.csr_array(np.tile(DENSE, (20, 1)))
    expected = {name: method(CLF, X) for name, method in PREDICT.items()}
    start, wrong, done = threading.Barrier(8), [], []

    def work():
        start.wait(timeout=30)
        for name, method in PREDICT.items():
            if not np.array_equal(method(CLF, X), expected[name]):
                wrong.append(name)
            done.append(name)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(done) == 8 * len(PREDICT)


# -- fuzz -------------------------------------------------------------------


def reference(clf, X):
    """Log-probabilities from the weights of each node and the path to each class, float64."""
    X = np.asarray(X, dtype=np.float64)
    log_proba = np.zeros((len(X), len(clf.classes_)))
    for column, label in enumerate(clf.classes_):
        for v, position in zip(*clf.tree_.path(label), strict=True):
            arity = clf.tree_.child_ptr[v + 1] - clf.tree_.child_ptr[v]
            features, weights, bias = clf.node_weights_.node(v, arity)
            scores = X[:, features] @ weights.astype(np.float64) + bias
            log_proba[:, column] += log_softmax(scores, axis=1)[:, position]
    return log_proba


FORMS = {
    **{f: lambda X, f=f: sparse.csr_array(X).asformat(f) for f in ("csr", "csc", "coo", "bsr", "lil", "dok")},
    "dense": np.asarray,
    "F": np.asfortranarray,
    "list": lambda X: X.tolist(),
    "frame": pd.DataFrame,
}
KINDS = {
    "int": lambda y: y,
    "negative": lambda y: -y * 10**12,
    "str": lambda y: np.array([f"label {i}" for i in y]),
    "object": lambda y: np.array([f"{i}" for i in y], dtype=object),
    "float": lambda y: y * 2.0,
    "huge": lambda y: [2**64 + int(i) for i in y],
    "categorical": lambda y: pd.Categorical([f"c{i}" for i in y]),
}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(["f2", "f4", "f8", "i1", "i8", "?"]),
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(["none", "random", "zeros", "balanced"]),
    st.sampled_from(["kmeans", "huffman", "balanced", "parents", "nested"]),
    st.integers(2, 20),
    st.booleans(),
)
def test_any_input_gives_the_product_along_its_path(seed, form, dtype, kind, weight, tree, arity, intercept):
    rng = np.random.default_rng(seed)
    n, d, n_classes = rng.integers(3, 40), rng.integers(1, 12), int(rng.integers(2, 25))
    X = (rng.integers(-4, 5, (n, d)) * (rng.random((n, d)) < 0.5)).astype(dtype)
    if form not in ("dense", "F", "list", "frame") and dtype == "f2":
        X = X.astype("f4")  # scipy has no sparse float16
    codes = rng.integers(0, n_classes, n)
    y = KINDS[kind](codes)
    present = np.unique(codes)
    if len(present) < 3:
        tree = "balanced"
    if tree == "parents":
        tree = np.concatenate([[-1, 0], np.full(len(present) - 1, 1), [0]])
    elif tree == "nested":
        labels = np.unique(np.asarray(y, dtype=object if kind == "huge" else None)).tolist()
        tree = LabelTree.from_nested([labels[:1] + labels[2:], labels[1]])
    sample_weight = {"random": rng.random(n), "zeros": np.append(1.0, rng.integers(0, 2, n - 1))}.get(weight)
    clf = HierarchicalSoftmaxClassifier(
        tree,
        arity=arity,
        fit_intercept=intercept,
        class_weight="balanced" if weight == "balanced" else None,
        random_state=seed,
    )
    clf.fit(FORMS[form](X), y, sample_weight)
    expected = reference(clf, X)
    rows = FORMS[form](X)
    log_proba = clf.predict_log_proba(rows)
    likely = expected > -100
    np.testing.assert_allclose(log_proba[likely], expected[likely], rtol=1e-4, atol=1e-4)
    assert (log_proba[~likely] < -50).all()
    np.testing.assert_allclose(np.exp(log_proba).sum(axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(clf.predict(rows), clf.classes_[log_proba.argmax(axis=1)])
    at = [clf.classes_.tolist().index(label) for label in (y.tolist() if hasattr(y, "tolist") else y)]
    of_label = clf.log_proba_of(rows, y)
    np.testing.assert_allclose(of_label, log_proba[np.arange(n), at], rtol=0, atol=1e-12)
    sampled = clf.sample(rows, 3, random_state=seed)
    assert np.isin(sampled, clf.classes_[(log_proba > -np.inf).any(axis=0)]).all()


def test_duplicates_are_added_up_before_they_are_rounded():
    X = sparse.csr_array(([1e8 + 1, -1e8, 0.3, 1e39, -1e39], [1, 1, 2, 3, 3], [0, 5]), shape=(1, 8))
    clf = clone(CLF).fit(DENSE, Y)
    expected = clf.predict_log_proba(X.toarray())
    assert X.toarray()[0, 1] == 1
    for same in (X, X.tocoo(), sparse.vstack([X, X]).tocsr()):
        np.testing.assert_array_equal(clf.predict_log_proba(same)[:1], expected)
    assert not X.has_canonical_format


@pytest.mark.parametrize("scale", [1e-38, 1e-40, 1e-45])
def test_a_feature_that_float32_hardly_holds_changes_no_other(scale):
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(40), 4)
    X = rng.normal(size=(40, 12))[y] + 0.3 * rng.normal(size=(len(y), 12)) @ rng.normal(size=(12, 12))
    X[:, 0] = scale * rng.normal(size=len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        clf = HierarchicalSoftmaxClassifier(whiten=True, random_state=0).fit(X, y)
        without = HierarchicalSoftmaxClassifier(whiten=True, random_state=0).fit(X[:, 1:], y)
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1, rtol=1e-6)
    assert clf.score(X, y) > without.score(X[:, 1:], y) - 0.05


def test_what_newton_finds_is_left_where_float32_cannot_hold_it():
    X = np.array([1, 0, 0, 0, 0, 2e-40, 0, 1e37, 2e19, 1e30])[:, None]
    w = [1e10, 1e20, 1, 1, 1e20, 1e10, 1, 1e20, 1, 1e20]
    clf = HierarchicalSoftmaxClassifier(C=1.0, arity=20, random_state=0, max_iter=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf.fit(X, [0, 1, 2, 3, 0, 1, 3, 3, 0, 1], w)
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("prior", ["naive_bayes", "centroid", None])
def test_very_large_values_leave_probabilities(prior):
    rng = np.random.default_rng(0)
    X, y = rng.random((30, 7)), np.arange(30) % 5
    X[:3] *= 3e37
    clf = HierarchicalSoftmaxClassifier(C=100.0, prior=prior, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf.fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1, rtol=1e-6)
