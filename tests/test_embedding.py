"""The estimator that learns embeddings: what holds for every model, faults, real data."""

import pickle
import tracemalloc
import warnings

import joblib
import numpy as np
import pytest
from scipy import sparse
from scipy.special import log_softmax
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, normalize

from sk_hsm import (
    HierarchicalSoftmaxClassifier,
    HierarchicalSoftmaxEmbedding,
    LabelTree,
    SampledSoftmaxClassifier,
)
from sk_hsm.display import export_text
from sk_hsm.embedding_training import choose_n_epochs, first_pass, unit_rows
from sk_hsm.metrics import log_loss, top_k_accuracy
from sk_hsm.tree_builders import huffman_tree

TREES = [("huffman", 2), ("kmeans", 2), ("kmeans", 4), ("balanced", 3), ("huffman", 40)]


def bags(n=400, n_classes=24, n_features=60, seed=0):
    """Rows of a few features, most of them those of the label."""
    rng = np.random.default_rng(seed)
    y = np.minimum(rng.geometric(0.15, n) - 1, n_classes - 1)
    own = rng.integers(0, n_features, (n_classes, 5))
    columns = np.where(
        rng.random((n, 6)) < 0.7, own[y][:, [0, 1, 2, 3, 4, 0]], rng.integers(0, n_features, (n, 6))
    )
    X = sparse.csr_array((np.ones(columns.size), (np.repeat(np.arange(n), 6), columns.ravel())))
    X.resize((n, n_features))
    return X, y


@pytest.mark.parametrize("tree, arity", TREES)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_every_method_gives_the_same_distribution(tree, arity, fit_intercept):
    X, y = bags()
    est = HierarchicalSoftmaxEmbedding(8, tree, arity=arity, fit_intercept=fit_intercept, random_state=0)
    est.fit(X, y)
    proba = est.predict_proba(X)
    n_classes = len(est.classes_)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    labels, top = est.predict_top_k(X, k=n_classes)
    np.testing.assert_array_equal(top, -np.sort(-proba, axis=1))
    np.testing.assert_array_equal(labels, est.classes_[np.argsort(-proba, axis=1, kind="stable")])
    at = np.searchsorted(est.classes_, y)
    np.testing.assert_array_equal(np.exp(est.log_proba_of(X, y)), proba[np.arange(len(y)), at])
    np.testing.assert_allclose(est.predict_proba_sparse(X, k=n_classes).toarray(), proba, atol=1e-15)
    drawn = est.sample(X[:1], 20_000, random_state=0)
    share = np.bincount(np.searchsorted(est.classes_, drawn[0]), minlength=n_classes) / 20_000
    assert np.abs(share - proba[0]).max() < 0.02


@pytest.mark.parametrize("tree, arity", TREES)
def test_probabilities_are_those_of_the_formula(tree, arity):
    X, y = bags()
    est = HierarchicalSoftmaxEmbedding(8, tree, arity=arity, random_state=0).fit(X, y)
    H = normalize(X).toarray() @ est.embedding_
    np.testing.assert_allclose(est.transform(X), H, atol=1e-5)
    expected, first = np.zeros((len(y), len(est.classes_))), 0
    for node in range(est.tree_.n_inner):
        children = est.tree_.children[est.tree_.child_ptr[node] : est.tree_.child_ptr[node + 1]]
        n = 1 if len(children) == 2 else len(children)
        z = H @ est.node_vectors_[first : first + n].T + est.node_intercepts_[first : first + n]
        first += n
        log_p = log_softmax(z if n > 1 else np.column_stack([np.zeros(len(H)), z]), axis=1)
        for place, child in enumerate(children):
            expected[:, leaves_below(est.tree_, child)] += log_p[:, [place]]
    assert first == len(est.node_vectors_) == len(est.node_intercepts_)
    np.testing.assert_allclose(est.predict_log_proba(X), expected, rtol=1e-4, atol=1e-4)


def leaves_below(tree, node):
    if node >= tree.n_inner:
        return [node - tree.n_inner]
    children = tree.children[tree.child_ptr[node] : tree.child_ptr[node + 1]]
    return [leaf for child in children for leaf in leaves_below(tree, child)]


def test_one_feature_rows_give_embeddings():
    X, y = bags()
    est = HierarchicalSoftmaxEmbedding(8, random_state=0).fit(X, y)
    np.testing.assert_array_equal(est.transform(3.0 * np.eye(X.shape[1])), est.embedding_)
    assert list(est.get_feature_names_out()[:2]) == [
        "hierarchicalsoftmaxembedding0",
        "hierarchicalsoftmaxembedding1",
    ]


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_rows_that_are_nearly_one_hot_are_divided_by_their_norm_too(norm):
    for rows in ([[1, 0, 0]], [[2, 0, 0]], [[0, 0, 0], [1, 1, 0]], [[-1, 0, 0]], [[1, 0, 0], [0, 0.5, 0]]):
        X = np.array(rows, dtype=float)
        unit = unit_rows(sparse.csr_array(X), norm)
        assert unit.dtype == np.float32
        np.testing.assert_array_equal(unit.toarray(), normalize(X, norm).astype(np.float32))


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_rows_are_divided_by_their_norm(norm):
    X, y = bags()
    est = HierarchicalSoftmaxEmbedding(8, norm=norm, random_state=0).fit(X, y)
    np.testing.assert_allclose(est.transform(X), normalize(X, norm) @ est.embedding_, atol=1e-5)
    for factor in (1e-30, 1e30, 1e300):
        np.testing.assert_allclose(est.transform(X * factor), est.transform(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_one_row_at_a_time_is_the_same(norm):
    X, y = bags()
    X = sparse.vstack([X * 1.7, sparse.csr_array((1, X.shape[1])), 1e-30 * X[:1]]).tocsr()
    est = HierarchicalSoftmaxEmbedding(8, norm=norm, random_state=0).fit(X[:400], y)
    est.set_output(transform="pandas")
    together = est.predict_proba(X)
    for i in [*range(20), 400, 401]:
        for row in (X[[i]], X[[i]].toarray()):
            np.testing.assert_allclose(est.predict_proba(row), together[[i]], atol=1e-6)
            np.testing.assert_array_equal(est.predict_top_k(row, 3)[0], est.predict_top_k(X, 3)[0][[i]])


def test_formats_of_x_do_not_matter():
    X, y = bags()
    fits = [
        HierarchicalSoftmaxEmbedding(5, random_state=0).fit(rows, y).embedding_
        for rows in (X, X.toarray(), X.tocsc(), sparse.csr_matrix(X), np.asfortranarray(X.toarray()))
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(other, fits[0])


def test_one_thread_gives_the_same_bits_and_n_jobs_alone_changes_nothing():
    X, y = bags()
    one, same, two = (
        HierarchicalSoftmaxEmbedding(8, "kmeans", arity=4, n_jobs=n_jobs, random_state=0).fit(X, y)
        for n_jobs in (1, 1, 2)
    )
    for other in (same, two):
        np.testing.assert_array_equal(other.embedding_, one.embedding_)
        np.testing.assert_array_equal(other.node_vectors_, one.node_vectors_)
        np.testing.assert_array_equal(other.predict_proba(X), one.predict_proba(X))


def test_lock_free_learning_learns_as_much():
    X, y = bags(2000)
    settings = dict(dim=8, random_state=0)
    alone = HierarchicalSoftmaxEmbedding(**settings).fit(X, y)
    together = HierarchicalSoftmaxEmbedding(**settings, lock_free=True, n_jobs=2).fit(X, y)
    assert log_loss(together, X, y) == pytest.approx(log_loss(alone, X, y), rel=0.1)


def test_fit_batches_of_one_batch_is_partial_fit_with_a_falling_rate():
    X, y = bags()
    batches = [(X[lo : lo + 100], y[lo : lo + 100]) for lo in range(0, 400, 100)]
    est = HierarchicalSoftmaxEmbedding(8, n_epochs=3, random_state=0).fit_batches(batches)
    assert len(est.loss_curve_) == 3
    assert est.loss_curve_[2] < est.loss_curve_[0]
    np.testing.assert_array_equal(est.classes_, np.unique(y))
    counted = HierarchicalSoftmaxEmbedding(8, n_epochs=3, random_state=0)
    counted.fit_batches(batches, *np.unique(y, return_counts=True))
    np.testing.assert_array_equal(counted.embedding_, est.embedding_)
    weighted = HierarchicalSoftmaxEmbedding(8, n_epochs=3, random_state=0)
    weighted.fit_batches([(X, y, np.ones(len(y))) for X, y in batches])
    np.testing.assert_array_equal(weighted.embedding_, est.embedding_)


def test_the_order_of_classes_and_counts_goes_together():
    X, y = bags()
    classes, counts = np.unique(y, return_counts=True)
    trees = [
        HierarchicalSoftmaxEmbedding(4, n_epochs=1, random_state=0)
        .fit_batches([(X, y)], classes[order], counts[order])
        .tree_.parents
        for order in (np.arange(len(classes)), np.arange(len(classes))[::-1])
    ]
    np.testing.assert_array_equal(*trees)


def test_partial_fit_goes_on_from_where_it_was():
    X, y = bags()
    classes = np.arange(30)
    est = HierarchicalSoftmaxEmbedding(8, random_state=0).partial_fit(X, y, classes)
    losses, tree = [log_loss(est, X, y)], est.tree_
    for _ in range(15):
        est.partial_fit(X, y)
        losses.append(log_loss(est, X, y))
    assert losses[-1] < 0.8 * losses[0]
    assert est.tree_ is tree
    np.testing.assert_array_equal(est.classes_, classes)
    # no step, no change
    before = est.embedding_
    est.set_params(learning_rate=1e-30).partial_fit(X, y)
    np.testing.assert_array_equal(est.embedding_, before)


def test_weights_of_zero_move_nothing():
    X, y = bags()
    weights = np.where(np.arange(len(y)) < 200, 0.0, 1.0)
    one = HierarchicalSoftmaxEmbedding(4, huffman_tree(np.ones(30)), random_state=0)
    other = clone(one)
    one.partial_fit(X, y, range(30), weights)
    other.partial_fit(X[200:], y[200:], range(30))
    np.testing.assert_array_equal(one.embedding_, other.embedding_)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "est",
    [HierarchicalSoftmaxEmbedding(4), SampledSoftmaxClassifier(4), SampledSoftmaxClassifier(4, "unigram")],
)
def test_weights_at_the_ends_of_float32(est):
    X, y = bags()
    est = clone(est).set_params(n_epochs=2, random_state=0).fit(X, y)
    before = est.predict_proba(X)
    for method in (est.fit, est.partial_fit):
        with pytest.raises(ValueError, match="sample_weight must hold .* got 1e-50 at most: divide it"):
            method(X, y, sample_weight=np.full(len(y), 1e-50))
    np.testing.assert_array_equal(est.predict_proba(X), before)
    for weight in (1e-40, 3e38):
        assert np.isfinite(est.fit(X, y, np.full(len(y), weight)).loss_curve_).all()


def test_a_tree_of_ones_own():
    X, y = bags(n_classes=4)
    tree = LabelTree.from_nested([[0, 1], [2, 3]])
    est = HierarchicalSoftmaxEmbedding(4, tree, random_state=0).fit(X, y)
    assert est.tree_.path(3)[0].tolist() == tree.path(3)[0].tolist()
    parents = HierarchicalSoftmaxEmbedding(4, tree.parents, random_state=0).fit(X, y)
    np.testing.assert_array_equal(parents.tree_.parents, tree.parents)


def test_one_class_and_two():
    X, y = bags()
    one = HierarchicalSoftmaxEmbedding(4).fit(X, np.zeros(len(y)))
    np.testing.assert_array_equal(one.predict_proba(X), 1)
    assert one.node_vectors_.shape == (0, 4)
    two = HierarchicalSoftmaxEmbedding(4, random_state=0).fit(X, y > 2)
    assert two.node_vectors_.shape == (1, 4)
    assert two.score(X, y > 2) > 0.8


def test_rows_without_features_have_the_intercepts_alone():
    X, y = bags()
    est = HierarchicalSoftmaxEmbedding(4, random_state=0).fit(X, y)
    nothing = est.predict_proba(sparse.csr_array((1, X.shape[1])))
    np.testing.assert_array_equal(est.transform(sparse.csr_array((1, X.shape[1]))), 0)
    root = est.tree_.children[: est.tree_.child_ptr[1]]
    second = nothing[0, leaves_below(est.tree_, root[1])].sum()
    assert second == pytest.approx(1 / (1 + np.exp(-float(est.node_intercepts_[0]))), rel=1e-5)


def test_it_learns_digits():
    X, y = load_digits(return_X_y=True)
    train = np.arange(len(y)) % 3 > 0
    est = HierarchicalSoftmaxEmbedding(16, "kmeans", random_state=0).fit(X[train], y[train])
    assert est.score(X[~train], y[~train]) > 0.93
    assert top_k_accuracy(est, X[~train], y[~train], 3) > 0.98


def test_in_a_pipeline_and_a_grid():
    X, y = bags()
    search = GridSearchCV(HierarchicalSoftmaxEmbedding(n_epochs=5, random_state=0), {"dim": [1, 8]}, cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rare classes
        assert search.fit(X, y).best_params_ == {"dim": 8}
    pipe = make_pipeline(FunctionTransformer(), HierarchicalSoftmaxEmbedding(3, random_state=0))
    assert pipe.fit(X, y).transform(X).shape == (400, 3)
    classifier = make_pipeline(
        HierarchicalSoftmaxEmbedding(8, random_state=0), HierarchicalSoftmaxClassifier()
    )
    assert classifier.fit(X, y).score(X, y) > 0.6


def test_saved_and_loaded_it_answers_the_same(tmp_path):
    X, y = bags()
    est = HierarchicalSoftmaxEmbedding(8, "kmeans", arity=3, random_state=0).fit(X, y)
    joblib.dump(est, tmp_path / "model")
    copies = [pickle.loads(pickle.dumps(est)), joblib.load(tmp_path / "model", mmap_mode="r")]
    for copy in copies:
        np.testing.assert_array_equal(copy.predict_proba(X), est.predict_proba(X))
        np.testing.assert_array_equal(clone(copy).fit(X, y).embedding_, est.embedding_)
        copy.partial_fit(X, y)
    np.testing.assert_array_equal(copies[0].embedding_, copies[1].embedding_)


def test_a_damaged_model_is_refused():
    X, y = bags()
    est = HierarchicalSoftmaxEmbedding(8, random_state=0).fit(X, y)
    for name, cut in (("vectors", 1), ("intercepts", 2), ("vector_ptr", 1)):
        state = est.__getstate__()
        state["node_weights_"][name] = state["node_weights_"][name][:-cut]
        with pytest.raises(ValueError, match="damaged"):
            HierarchicalSoftmaxEmbedding().__setstate__(state)
    embedding = est.embedding_
    for wrong in (np.hstack([embedding, embedding]), embedding[:, :3], embedding[:-1]):
        with pytest.raises(ValueError, match="this model is damaged: its embeddings"):
            HierarchicalSoftmaxEmbedding().__setstate__(est.__getstate__() | {"embedding_": wrong})


@pytest.mark.parametrize("tree, arity", TREES)
@pytest.mark.parametrize("rate", [1, 1e3, 1e30])
def test_no_rate_diverges(tree, arity, rate):
    X, y = bags()
    est = HierarchicalSoftmaxEmbedding(8, tree=tree, arity=arity, learning_rate=rate, random_state=0).fit(
        X, y
    )
    assert est.loss_curve_[-1] < 1 and -est.log_proba_of(X, y).mean() < 1


def test_a_failed_fit_changes_nothing():
    X, y = bags()
    est = HierarchicalSoftmaxEmbedding(8, random_state=0).fit(X, y)
    before = est.predict_proba(X)
    empty = sparse.csr_array(X.shape)  # nothing shortens the steps of such rows
    for method in (est.set_params(learning_rate=1e200, fit_intercept=False).fit, est.partial_fit):
        with pytest.raises(ValueError, match=r"learning_rate=1e.200 made the embeddings overflow"):
            method(empty, y)
    with pytest.raises(ValueError, match="none of the"):
        est.partial_fit(X, y + 1000)
    with pytest.raises(ValueError, match="features"):
        est.set_params(learning_rate=0.1).fit_batches([(X, y), (X[:, :5], y)])
    np.testing.assert_array_equal(est.predict_proba(X), before)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"dim": 0}, "dim"),
        ({"arity": 1}, "arity"),
        ({"norm": None}, "norm"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": np.nan}, "learning_rate"),
        ({"n_epochs": 0}, "n_epochs"),
        ({"tree": "oak"}, "tree"),
        ({"lock_free": 2}, "lock_free"),
    ],
)
def test_wrong_parameters_are_named(params, message):
    X, y = bags()
    with pytest.raises(ValueError, match=f"'{message}' parameter"):
        HierarchicalSoftmaxEmbedding(**params).fit(X, y)
    est = HierarchicalSoftmaxEmbedding(4).partial_fit(X, y, classes=range(24))
    with pytest.raises(ValueError, match=f"'{message}' parameter"):
        est.set_params(**params).partial_fit(X, y)


def test_wrong_batches_are_named():
    X, y = bags()
    est = HierarchicalSoftmaxEmbedding(4)
    with pytest.raises(TypeError, match="batches must have a length .* got generator: use a list"):
        est.fit_batches((X, y) for _ in range(3))
    with pytest.raises(ValueError, match="at least one batch"):
        est.fit_batches([])
    with pytest.raises(TypeError, match=r"tuples \(X, y\) or \(X, y, sample_weight\), got tuple of 1"):
        est.fit_batches([(X,)])
    with pytest.raises(TypeError, match=r"tuples \(X, y\) .*, got ndarray"):
        est.fit_batches([X.toarray()])
    with pytest.raises(ValueError, match="counts must have one number for each of classes"):
        est.fit_batches([(X, y)], range(30), [1, 2])
    with pytest.raises(ValueError, match="counts must have one number .* pass both"):
        est.fit_batches([(X, y)], counts=[1, 2])
    with pytest.raises(ValueError, match="not negative"):
        est.fit_batches([(X, y)], [0, 1], [1, -2])
    for wrong in (None, 3):
        with pytest.raises(ValueError, match=f"y of each batch must be an array of labels, got {wrong}"):
            est.fit_batches([(X, wrong)])
    for shares in (np.full(24, 1 / 24), np.zeros(24)):
        with pytest.raises(ValueError, match="counts must be numbers of rows, got a sum of [01]"):
            est.fit_batches([(X, y)], range(24), shares)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        est.partial_fit(X, y)
    assert not hasattr(est, "classes_")
    with pytest.raises(NotFittedError):
        est.transform(X)


def test_empty_batches_are_passed_over():
    X, y = bags()
    one, other = (HierarchicalSoftmaxEmbedding(4, n_epochs=2, random_state=0) for _ in range(2))
    one.fit_batches([(X, y)], *np.unique(y, return_counts=True))
    other.fit_batches([(X, y), (X[:0], y[:0])])
    np.testing.assert_array_equal(one.classes_, other.classes_)
    assert np.isfinite(other.embedding_).all()
    for labels in ((), (range(24), np.full(24, 9))):
        with pytest.raises(ValueError, match="at least one row.* increase subsample"):
            other.fit_batches([(X[:0], y[:0])], *labels)


class Seldom:
    """A batch that has rows only in the first of each three passes."""

    def __init__(self, X, y):
        self.X, self.y, self.n_passes = X, y, 0

    def __len__(self):
        return 1

    def __iter__(self):
        self.n_passes += 1
        n = len(self.y) if self.n_passes % 3 == 1 else 0
        yield self.X[:n], self.y[:n]


@pytest.mark.parametrize("tree", ["huffman", "kmeans"])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("lock_free", [True, False])
def test_an_epoch_that_happens_to_have_no_row_is_skipped(tree, counted, lock_free):
    X, y = bags()
    est = HierarchicalSoftmaxEmbedding(
        4, tree, n_epochs=6, lock_free=lock_free, n_jobs=2, learning_rate=1.0, random_state=0
    )
    est.fit_batches(Seldom(X, y), *(np.unique(y, return_counts=True) if counted else ()))
    assert np.isfinite(est.loss_curve_).sum() == 2 and len(est.loss_curve_) == 6
    assert np.isfinite(est.predict_proba(X)).all()


def test_epochs_of_few_rows():
    assert [choose_n_epochs("auto", n) for n in (1, 100, 1000, 20_000, 10**6)] == [1000, 1000, 100, 5, 5]
    assert choose_n_epochs(3, 1) == 3


def test_embeddings_that_cannot_fit_in_memory_are_refused():
    X = sparse.csr_array((np.ones(2), ([0, 1], [0, 2**31 - 2])), shape=(2, 2**31 - 1))
    with pytest.raises(MemoryError, match="GiB"):
        HierarchicalSoftmaxEmbedding(1000).fit(X, [0, 1])


def test_it_can_be_printed():
    X, y = bags(n_classes=4)
    est = HierarchicalSoftmaxEmbedding(4, random_state=0).fit(X, y)
    assert "3" in export_text(est)
    flat = SampledSoftmaxClassifier(4, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="est is a SampledSoftmaxClassifier, which has no tree: give"):
        export_text(flat)


@pytest.mark.parametrize("estimator", [HierarchicalSoftmaxEmbedding, SampledSoftmaxClassifier])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_rows_of_unusual_size_change_no_others_and_are_the_same_alone(estimator, norm):
    X, y = np.random.default_rng(0).normal(size=(60, 6)), np.arange(60) % 5
    est = estimator(dim=3, norm=norm, random_state=0).fit(X, y)
    usual = est.predict_log_proba(X)
    odd = np.zeros((4, 6))
    odd[0, :2], odd[1, :2], odd[2], odd[3, :2] = (1e-45, 2e-45), (1e-310, -2e-310), 1e31 * X[0], (1e-40, 1)
    together = est.predict_log_proba(np.vstack([X, odd]))
    np.testing.assert_array_equal(together[:60], usual)
    np.testing.assert_array_equal(np.vstack([est.predict_log_proba(row[None]) for row in odd]), together[60:])
    np.testing.assert_allclose(together[62], usual[0], rtol=1e-5)
    np.testing.assert_allclose(together[60], est.predict_log_proba([[1, 2, 0, 0, 0, 0]])[0], rtol=1e-5)


@pytest.mark.parametrize("estimator", [HierarchicalSoftmaxEmbedding, SampledSoftmaxClassifier])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_predictions_copy_as_many_rows_as_working_memory_holds(estimator, form):
    rng = np.random.default_rng(0)
    X, y = rng.random((4000, 200)).astype(np.float32), np.arange(4000) % 5
    est = estimator(dim=4, n_epochs=1, random_state=0).fit(X, y)
    X, expected = form(X), est.predict(X)
    tracemalloc.start()
    with config_context(working_memory=1):
        found = est.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, expected)
    assert peak < 4 * 2**20  # 3 MiB of values, a quarter of what copies of all would take


def test_batches_of_signed_and_unsigned_labels_stay_integers():
    X, large = np.eye(3), 2**53 + 1
    batches = [(X, np.array([1, 2, large])), (X, np.array([1, 2, 3], dtype=np.uint64))]
    est = HierarchicalSoftmaxEmbedding(dim=2, random_state=0).fit_batches(batches)
    assert est.classes_.tolist() == [1, 2, 3, large] and est.classes_.dtype.kind == "i"
    classes = [2**63, 1, 2, 3, -1]
    _, found, counts = first_pass(batches[1:], classes, [1, 2, 3, 4, 5])
    assert found.tolist() == sorted(classes) and counts.tolist() == [5, 2, 3, 4, 1]
    assert first_pass([(X, [1, 2, 3]), (X, [1.0, 2.0, 4.0])], None, None)[1].tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="labels of one kind in all batches, got <U1 and int64: make all"):
        est.fit_batches([(X, [1, 2, 3]), (X, ["a", "b", "c"])])


@pytest.mark.parametrize("layers", [(), (4,)])
def test_predictions_too_refuse_what_would_overflow(layers):
    X = np.random.default_rng(0).normal(size=(60, 6))
    est = SampledSoftmaxClassifier(3, norm=None, hidden_layer_sizes=layers, random_state=0)
    est.fit(X, np.arange(60) % 5)
    for rows in (np.full((2, 6), 3e38), np.full((1, 6), 3e38), sparse.csr_array(np.full((1, 6), 1e16))):
        for method in (est.predict, est.predict_proba, est.transform):
            with pytest.raises(ValueError, match=r"X must have no value above 1e\+15 where norm=None"):
                method(rows)
