"""A saved model predicts the same bits, and says which version it needs."""

import copy
import io
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sk_hsm import HierarchicalSoftmaxClassifier, LabelTree
from sk_hsm._state import FORMAT
from sk_hsm._version import __version__
from sk_hsm.node_weights import nearest_with_features, offsets, word_offsets

try:
    import cloudpickle
except ImportError:  # before 1.6, joblib brought its own
    from joblib.externals import cloudpickle

rng = np.random.default_rng(0)
X = rng.random((40, 8)) * (rng.random((40, 8)) < 0.6)
N_CLASSES = 7
LABELS = {
    "int": np.arange(40) % N_CLASSES,
    "str": np.array(list("abcdefg"))[np.arange(40) % N_CLASSES],
    "object": np.array(["a", "bb", "c", "d", "e", "f", "g"], dtype=object)[np.arange(40) % N_CLASSES],
    "huge": [2**63 - 1 + i % N_CLASSES * 3 - 9 * (i % N_CLASSES == 0) * 2**61 for i in range(40)],
    "one class": np.zeros(40),
}


def fit(y=LABELS["int"], **params):
    return HierarchicalSoftmaxClassifier(**{"arity": 3, "random_state": 0, **params}).fit(X, y)


@pytest.fixture(scope="module", params=LABELS)
def fitted(request):
    return fit(LABELS[request.param])


def assert_same(loaded, clf):
    assert loaded.classes_.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(loaded.classes_, clf.classes_)
    np.testing.assert_array_equal(loaded.predict_log_proba(X), clf.predict_log_proba(X))
    for again, before in zip(loaded.predict_top_k(X, 3), clf.predict_top_k(X, 3), strict=True):
        np.testing.assert_array_equal(again, before)
    np.testing.assert_array_equal(loaded.log_proba_of(X, clf.predict(X)), clf.log_proba_of(X, clf.predict(X)))
    np.testing.assert_array_equal(loaded.sample(X, 3, random_state=0), clf.sample(X, 3, random_state=0))
    assert loaded.tree_.leaf_labels.tolist() == loaded.classes_.tolist()
    assert set(vars(loaded)) == set(vars(clf))


def through_joblib(compress):
    def copy_of(clf):
        file = io.BytesIO()
        joblib.dump(clf, file, compress=compress)
        file.seek(0)
        return joblib.load(file)

    return copy_of


COPIES = {
    **{f"pickle {p}": lambda clf, p=p: pickle.loads(pickle.dumps(clf, protocol=p)) for p in range(2, 6)},
    "joblib": through_joblib(0),
    "joblib zlib": through_joblib(3),
    "joblib lzma": through_joblib(("lzma", 1)),
    "cloudpickle": lambda clf: cloudpickle.loads(cloudpickle.dumps(clf)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}
every_copy = pytest.mark.parametrize("copy_of", COPIES.values(), ids=COPIES)


@every_copy
def test_a_copy_predicts_the_same_bits(fitted, copy_of):
    assert_same(copy_of(fitted), fitted)


@every_copy
def test_a_copy_of_an_unfitted_estimator_is_unfitted(copy_of):
    clf = HierarchicalSoftmaxClassifier("huffman", arity=5, C=2.0, class_weight={1: 2.0}, random_state=3)
    loaded = copy_of(clf)
    assert loaded.get_params() == clf.get_params()
    with pytest.raises(NotFittedError):
        loaded.predict(X)
    loaded.fit(X, LABELS["int"])
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.fit(X, LABELS["int"]).predict_proba(X))


@every_copy
def test_a_tree_given_by_the_user_is_saved_with_the_model(copy_of):
    tree = LabelTree.from_nested([[0, 1], [2, [3, 4]], [5, 6]])
    clf = fit(tree=tree)
    loaded = copy_of(clf)
    assert_same(loaded, clf)
    for name in ("parents", "children", "leaf_labels"):
        np.testing.assert_array_equal(getattr(loaded.tree, name), getattr(tree, name))
    assert_same(clone(loaded).fit(X, LABELS["int"]), clf)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_weights_stay_on_disk_with_mmap_mode(fitted, tmp_path, mode):
    joblib.dump(fitted, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib", mmap_mode=mode)
    if len(fitted.classes_) > 1:  # a single class has no weights
        assert isinstance(loaded.node_weights_.lines, np.memmap)
        assert loaded.node_weights_.lines.mode == mode
    assert_same(loaded, fitted)
    assert_same(loaded.fit(X, fitted.predict(X)), clone(fitted).fit(X, fitted.predict(X)))
    assert_same(joblib.load(tmp_path / "model.joblib"), fitted)


@pytest.mark.parametrize("copy_of", [copy_of for name, copy_of in COPIES.items() if name != "copy"])
def test_lines_of_a_copy_in_memory_are_cache_lines(copy_of):
    for _ in range(8):  # an allocator may give such memory anyway
        assert copy_of(fit()).node_weights_.lines.ctypes.data % 64 == 0


def test_memory_that_cannot_be_written_is_shared():
    buffers = []
    pickled = pickle.dumps(fit(), protocol=5, buffer_callback=buffers.append)
    memory = [np.frombuffer(b"\0" * 16 + buffer.raw().tobytes(), np.uint8)[16:] for buffer in buffers]
    loaded = pickle.loads(pickled, buffers=memory)
    assert any(np.shares_memory(loaded.node_weights_.lines, some) for some in memory)
    assert_same(loaded, fit())


def test_mmap_of_a_compressed_file_is_read_into_memory(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "model.joblib", compress=3)
    with pytest.warns(UserWarning, match="mmap_mode"):
        loaded = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert_same(loaded, fitted)


def test_a_fresh_process_predicts_the_same_bits(tmp_path):
    clf = fit(LABELS["str"])
    joblib.dump(clf, tmp_path / "model.joblib")
    np.save(tmp_path / "X.npy", X)
    code = (
        "import joblib, numpy as np; clf = joblib.load('model.joblib', mmap_mode='r'); X = np.load('X.npy');"
        "np.savez('out.npz', log_proba=clf.predict_log_proba(X), labels=clf.predict(X))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["log_proba"], clf.predict_log_proba(X))
        np.testing.assert_array_equal(out["labels"], clf.predict(X))


def test_the_state_is_numbers_strings_and_plain_arrays(fitted):
    def check(value):
        if isinstance(value, dict):
            assert value
            for name, entry in value.items():
                assert type(name) is str
                check(entry)
        else:
            assert type(value) in (int, float, str, np.ndarray)

    state = fitted.__getstate__()
    learned = {name: value for name, value in state.items() if name not in fitted.get_params()}
    assert {"classes_", "tree_", "node_weights_", "n_iter_", "n_features_in_"} < set(learned)
    check(learned)
    assert state["_sk_hsm_format"] == FORMAT
    assert state["_sk_hsm_version"] == __version__
    assert not any(name.startswith("_sk_hsm") for name in vars(fitted))


@pytest.mark.parametrize("is_fitted", [True, False])
@pytest.mark.parametrize("found", [FORMAT + 1, FORMAT - 1, "x", None, "missing"])
def test_an_unknown_format_names_both_versions(found, is_fitted):
    clf = fit() if is_fitted else HierarchicalSoftmaxClassifier()
    state = {**clf.__getstate__(), "_sk_hsm_format": found, "_sk_hsm_version": "9.8.7"}
    if found == "missing":
        del state["_sk_hsm_format"]
        found = None
    with pytest.raises(ValueError, match=r"9\.8\.7") as raised:
        HierarchicalSoftmaxClassifier.__new__(HierarchicalSoftmaxClassifier).__setstate__(state)
    message = str(raised.value)
    assert f"format {found!r}" in message
    assert f"format {FORMAT}" in message
    assert __version__ in message


def test_a_state_without_a_header_is_refused():
    state = {name: value for name, value in fit().__getstate__().items() if not name.startswith("_sk_hsm")}
    with pytest.raises(ValueError, match="unknown version"):
        HierarchicalSoftmaxClassifier.__new__(HierarchicalSoftmaxClassifier).__setstate__(state)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_does_not_load(tmp_path, share):
    path = tmp_path / "model.joblib"
    joblib.dump(fit(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    # what joblib's reader raises depends on where the file ends
    with pytest.raises((EOFError, ValueError, LookupError, pickle.UnpicklingError)):
        joblib.load(path)


@pytest.mark.parametrize(
    ("part", "name"),
    [("tree_", name) for name in ("parents", "positions", "child_ptr", "children", "leaf_labels")]
    + [
        ("node_weights_", name)
        for name in ("lines", "line_ptr", "features", "feature_ptr", "words", "word_ptr")
    ],
)
def test_a_damaged_model_does_not_load(part, name):
    state = fit().__getstate__()
    for damaged in (state[part][name][:1], np.repeat(state[part][name], 2, axis=0)):
        with pytest.raises(ValueError, match="this model is damaged"):
            HierarchicalSoftmaxClassifier.__new__(HierarchicalSoftmaxClassifier).__setstate__(
                {**state, part: {**state[part], name: damaged}}
            )


@pytest.mark.parametrize("name", ["line_ptr", "word_ptr"])
@pytest.mark.parametrize("rounding", [None, 0.3])
def test_offsets_that_do_not_fit_features_do_not_load(name, rounding):
    state = fit(rounding=rounding).__getstate__()
    if name in state["node_weights_"]:
        ptr = state["node_weights_"][name].copy()
        ptr[-2] = ptr[-1]
        with pytest.raises(ValueError, match=f"this model is damaged: the {name} of its nodes is"):
            HierarchicalSoftmaxClassifier().__setstate__(
                {**state, "node_weights_": {**state["node_weights_"], name: ptr}}
            )


def test_a_node_of_more_features_than_the_one_above_does_not_load():
    clf = fit()
    state, weights = clf.__getstate__(), clf.node_weights_
    sizes = np.ones(clf.tree_.n_inner, np.int64)
    sizes[-1] = weights.feature_ptr[-1] - sizes[:-1].sum()
    above = nearest_with_features(sizes, clf.tree_.parents)
    damaged = {"feature_ptr": offsets(sizes), "line_ptr": offsets(sizes + 1)}
    damaged["word_ptr"] = word_offsets(sizes, above, X.shape[1])
    damaged["words"] = np.zeros(damaged["word_ptr"][-1], np.uint64)
    with pytest.raises(ValueError, match="this model is damaged: the feature_ptr of its nodes is"):
        HierarchicalSoftmaxClassifier().__setstate__(
            {**state, "node_weights_": {**state["node_weights_"], **damaged}}
        )


@pytest.mark.parametrize("value", [2**64 - 1, 2**63 - 1, 2**32 - 1, 0])
def test_damaged_words_find_nothing_in_other_memory(value):
    answers = []
    for behind in (0, 2**64 - 1):
        clf = fit()
        words = np.full(len(clf.node_weights_.words) + 1000, behind, np.uint64)
        words[:-1000] = value
        lines = np.full((len(clf.node_weights_.lines) + 1000, 16), float(behind), np.float32)
        lines[:-1000] = clf.node_weights_.lines
        clf.node_weights_.words, clf.node_weights_.lines = words[:-1000], lines[:-1000]
        answers.append(clf.predict_proba(X))
    np.testing.assert_array_equal(*answers)
    np.testing.assert_allclose(answers[0].sum(axis=1), 1, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_features_that_are_none_are_not_read():
    clf = fit()
    weights = clf.node_weights_
    weights.features[:] = -(2**31) + 1000
    weights.lines[weights.lines > -1e29] = 3e30  # so that logits are beyond float32
    assert np.isfinite(clf.predict_proba(X + 1)).all()  # of rows that have all features


@pytest.mark.parametrize("name", ["children", "parents", "positions"])
@pytest.mark.parametrize("value", [-1, 0, 3, 10**6, -(10**6)])
def test_a_damaged_tree_does_not_load(name, value):
    state = fit().__getstate__()
    array = state["tree_"][name]
    for at in range(len(array)):
        damaged = array.copy()
        damaged[at] = value
        if value != array[at]:
            with pytest.raises(ValueError, match="this model is damaged"):
                HierarchicalSoftmaxClassifier().__setstate__(
                    {**state, "tree_": {**state["tree_"], name: damaged}}
                )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_that_are_no_numbers_are_drawn_by_all_the_same(value):
    clf = fit()
    clf.node_weights_.lines[:] = value
    assert set(clf.sample(X, 5, random_state=0).ravel()) <= set(range(N_CLASSES))


def test_clone_and_get_params_keep_the_tree_object():
    tree = LabelTree.from_nested([[0, 1], [2, [3, 4]], [5, 6]])
    clf = fit(tree=tree)
    assert clf.get_params()["tree"] is tree
    assert clone(clf).tree is tree
    assert copy.deepcopy(clf).tree is tree
    assert "LabelTree(n_classes=7" in repr(clf)


def test_a_copy_does_not_share_what_fit_changes():
    clf = fit()
    before = clf.predict_log_proba(X)
    copy.copy(clf).fit(X[::2], LABELS["str"][::2])
    copy.deepcopy(clf).node_weights_.lines[:] = 0
    np.testing.assert_array_equal(clf.predict_log_proba(X), before)
