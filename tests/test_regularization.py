"""C and the prior: what is minimised, and what is chosen for it."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

import sk_hsm.regularization as regularization
import sk_hsm.solvers as solvers
from sk_hsm import HierarchicalSoftmaxClassifier, LabelTree
from sk_hsm.priors import Penalty
from sk_hsm.row_keys import count_distinct, row_keys
from sk_hsm.tree_builders import balanced_tree


def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def guess(prior, X, y, weights):
    """The centre of the penalty of one node, before it is scaled; from the formula."""
    sums = np.array([weights[y == c] @ X[y == c] for c in range(10)])
    share = np.array([weights[y == c].sum() for c in range(10)]) / weights.sum()
    if prior == "naive_bayes":
        a = 0.5 * (weights @ np.abs(X).sum(axis=1)) / (weights @ (X != 0).sum(axis=1))
        G = np.log((sums + a) / (share[:, None] * sums.sum(axis=0) + a))
    else:
        G = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    b = np.log(share)
    return G - G.mean(axis=0), b - b.mean()


@pytest.mark.parametrize("prior", ["naive_bayes", "centroid"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.01, 10 / 3])
def test_the_penalty_pulls_towards_the_prior(prior, fit_intercept, C):
    """One node minimises ||W - scale G||^2 / 2 + C sum of weight * log-loss."""
    X, y = digits()
    X, y = X[:400].astype(np.float32), y[:400]
    weights = np.random.default_rng(0).integers(1, 4, len(y)).astype(float)
    clf = HierarchicalSoftmaxClassifier(
        arity=10, C=C, prior=prior, fit_intercept=fit_intercept, random_state=0
    ).fit(X, y, sample_weight=weights)
    assert clf.prior_.tolist() == [prior] and clf.C_.tolist() == [C]
    G, b = guess(prior, X.astype(float), y, weights)
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X.astype(float)
    centre = clf.prior_scale_[0] * G
    centre = np.column_stack([centre, b]) if fit_intercept else centre

    def objective(flat):
        W = flat.reshape(centre.shape)
        log_p = log_softmax(A @ W.T, axis=1)
        errors = np.exp(log_p) - np.eye(10)[y]
        value = np.sum((W - centre) ** 2) / 2 - C * weights @ log_p[np.arange(len(y)), y]
        return value, (W - centre + C * (weights[:, None] * errors).T @ A).ravel()

    best = minimize(
        objective, centre.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15}
    )
    proba = np.exp(log_softmax(A @ best.x.reshape(centre.shape).T, axis=1))
    np.testing.assert_allclose(clf.predict_proba(X), proba, rtol=0, atol=2e-5)


def test_without_a_prior_nothing_is_chosen():
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(arity=4, C=2.0, prior=None, random_state=0).fit(X, y)
    assert (clf.C_ == 2.0).all() and (clf.prior_ == "none").all() and (clf.prior_scale_ == 0).all()
    assert len(clf.C_) == len(clf.prior_) == len(clf.prior_scale_) == clf.tree_.n_inner


@pytest.mark.slow
@pytest.mark.parametrize("arity", [4, 10])
def test_what_is_chosen_is_near_the_best_of_a_grid(arity):
    """Over eight splits: log-loss within 2 %, accuracy within half a point of the best C of a grid.

    The best C is that of the least log-loss on the test rows, which no search could know.
    """
    X, y = digits()
    loss, accuracy = [], []
    for seed in range(8):
        test = np.random.default_rng(seed).random(len(y)) < 0.3
        fits = [HierarchicalSoftmaxClassifier(arity=arity, random_state=seed)]
        for C in 10 ** np.arange(-1, 3.1, 0.5):
            fits.append(HierarchicalSoftmaxClassifier(arity=arity, C=C, prior=None, random_state=seed))
        fits = [clf.fit(X[~test], y[~test]) for clf in fits]
        losses = [-clf.log_proba_of(X[test], y[test]).mean() for clf in fits]
        scores = [clf.score(X[test], y[test]) for clf in fits]
        loss.append(losses[0] / min(losses[1:]))
        accuracy.append(scores[0] - scores[1:][np.argmin(losses[1:])])
    assert np.mean(loss) <= 1.02, loss
    assert np.mean(accuracy) >= -0.005, accuracy


def test_the_largest_c_that_is_allowed_is_used():
    X, y = digits()
    C = float(np.finfo(np.float32).max)
    clf = HierarchicalSoftmaxClassifier(C=C, prior="centroid", max_iter=3, random_state=0)
    with pytest.warns(ConvergenceWarning):
        assert clf.fit(X[:300], y[:300]).C_.tolist() == [C]


def test_noise_is_regularised_more_than_clean_rows():
    X, y = digits()
    clean = HierarchicalSoftmaxClassifier(arity=10, prior=None, random_state=0).fit(X, y)
    noisy = HierarchicalSoftmaxClassifier(arity=10, prior=None, random_state=0).fit(
        X, np.where(np.random.default_rng(0).random(len(y)) < 0.5, np.random.default_rng(1).permutation(y), y)
    )
    assert noisy.C_[0] < clean.C_[0]


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_c_follows_the_scale_of_the_features(scale):
    # C ||x||^2 is what counts; other values are held out, so that it is not exactly the same
    X, y = digits()
    near = HierarchicalSoftmaxClassifier(arity=10, fit_intercept=False, random_state=0).fit(X, y)
    far = HierarchicalSoftmaxClassifier(arity=10, fit_intercept=False, random_state=0).fit(scale * X, y)
    assert 0.09 < far.C_[0] * scale**2 / near.C_[0] < 11
    assert np.mean(far.predict(scale * X) == near.predict(X)) > 0.98


def test_the_choice_does_not_depend_on_n_jobs_or_the_order_of_rows():
    X, y = digits()
    fits = [HierarchicalSoftmaxClassifier(arity=3, n_jobs=n, random_state=0).fit(X, y) for n in (1, 2)]
    order = np.random.default_rng(0).permutation(len(y))
    fits.append(
        HierarchicalSoftmaxClassifier(arity=3, random_state=0).fit(sparse.csr_array(X)[order], y[order])
    )
    for other in fits[1:]:
        for name in ("C_", "prior_", "prior_scale_"):
            np.testing.assert_array_equal(getattr(fits[0], name), getattr(other, name))


def test_the_choice_does_not_depend_on_how_work_is_divided(monkeypatch):
    X, y = digits()
    monkeypatch.setattr(regularization, "MIN_ROWS", 600)  # so that there is a large node
    whole = HierarchicalSoftmaxClassifier(arity=3, random_state=0).fit(X, y)
    monkeypatch.setattr(solvers, "TASK_SIZE", 1)
    monkeypatch.setattr(solvers, "MAX_TASKS", 10**9)
    divided = HierarchicalSoftmaxClassifier(arity=3, random_state=0).fit(X, y)
    for name in ("C_", "prior_", "prior_scale_"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(divided, name))


def test_rows_that_are_the_same_are_held_out_together():
    X, y = digits()
    twice = sparse.csr_array(np.repeat(X, 2, axis=0).astype(np.float32))
    keys = row_keys(twice, np.repeat(y, 2).astype(np.int32))
    np.testing.assert_array_equal(keys[::2], keys[1::2])
    assert count_distinct(keys) == len(np.unique(keys)) > 0.99 * len(y)


def test_every_class_keeps_a_row_to_train_on():
    X, y = digits()
    X, y = X[:60], np.repeat(np.arange(30), 2)
    clf = HierarchicalSoftmaxClassifier("balanced", arity=4, random_state=0).fit(X, y)
    assert np.isfinite(clf.log_proba_of(X, y)).all()


def test_one_row_a_class_leaves_nothing_to_hold_out():
    X, _ = digits()
    for prior in (None, "centroid", "auto"):
        clf = HierarchicalSoftmaxClassifier(prior=prior, random_state=0).fit(X[:40], np.arange(40))
        assert (clf.C_ > 0).all()
        np.testing.assert_array_equal(clf.predict(X[:40]), np.arange(40))


def test_naive_bayes_needs_features_that_are_not_negative():
    X, y = digits()
    with pytest.raises(
        ValueError, match="prior='naive_bayes' needs features that are not negative, got -1: use"
    ):
        HierarchicalSoftmaxClassifier(prior="naive_bayes").fit(X - 1, y)
    clf = HierarchicalSoftmaxClassifier(random_state=0).fit(X - 1, y)
    assert np.isin(clf.prior_, ["none", "centroid"]).all()


def test_a_large_node_is_tried_near_the_level_below(monkeypatch):
    X, y = digits()
    monkeypatch.setattr(regularization, "MIN_ROWS", 600)
    clf = HierarchicalSoftmaxClassifier(arity=4, random_state=0).fit(X, y)
    assert clf.tree_.n_inner > 1
    assert clf.prior_[0] == clf.prior_[1]
    assert clf.prior_scale_[0] in (clf.prior_scale_[1], clf.prior_scale_[1] / 2)


@pytest.mark.parametrize("least, most", [(10, 68), (100, 400), (1000, 1797)])
def test_a_large_node_is_tried_with_four_times_the_rows_of_others(monkeypatch, least, most):
    X, y = digits()
    monkeypatch.setattr(regularization, "MIN_ROWS", least)
    problem = regularization.Problem(
        sparse.csr_array(X.astype(np.float32)), y.astype(np.int32), np.ones(len(y), np.float32),
        balanced_tree(10, 4), True, 0.01, 10, 0,
    )  # fmt: skip
    trials, _ = regularization.sample_trials(problem)
    # 4 % of all 1797, or four times the least
    assert len(trials[0].rows) == min(most + 1, len(y))
    assert trials[0].is_large


@pytest.mark.parametrize("n_below, n_tried", [(3, 3), (5, 4), (9, 4)])
def test_of_large_nodes_of_a_level_several_are_tried(monkeypatch, n_below, n_tried):
    monkeypatch.setattr(regularization, "MIN_ROWS", 100)
    y = np.repeat(np.arange(3 * n_below), 200).astype(np.int32)
    X = sparse.csr_array(np.random.default_rng(0).random((len(y), 5)).astype(np.float32))
    tree = LabelTree.from_parents([-1] + [0] * n_below + [1 + c // 3 for c in range(3 * n_below)])
    problem = regularization.Problem(X, y, np.ones(len(y), np.float32), tree, True, 0.01, 10, 0)
    trials, _ = regularization.sample_trials(problem)
    below = {trial.v: len(trial.rows) for trial in trials if trial.v > 0}  # the same in each turn
    assert len(below) == n_tried
    # together as many rows as the root, to within the last of each
    assert abs(sum(below.values()) - 400) <= n_tried


@pytest.mark.parametrize("seed", range(5))
def test_one_large_node_among_small_ones_is_tried_with_all_the_rows_of_large_ones(monkeypatch, seed):
    monkeypatch.setattr(regularization, "MIN_ROWS", 100)
    y = np.repeat(np.arange(30), [500] * 3 + [9] * 27).astype(np.int32)
    X = sparse.csr_array(np.random.default_rng(0).random((len(y), 5)).astype(np.float32))
    tree = LabelTree.from_parents([-1] + [0] * 10 + [1 + c // 3 for c in range(30)])
    problem = regularization.Problem(X, y, np.ones(len(y), np.float32), tree, True, 0.01, 10, seed)
    below = {trial.v: trial for trial in regularization.sample_trials(problem)[0] if trial.v > 0}
    large = [trial for trial in below.values() if trial.is_large]
    assert [len(trial.rows) for trial in large] in ([], [401])
    assert large or len(below) >= 4


@pytest.mark.parametrize("tree, n_trees", [("kmeans", 1), ("kmeans", 2), ("huffman", 1), ("balanced", 1)])
@pytest.mark.parametrize("told_apart", [True, False])
def test_auto_arity_is_wide_where_classes_can_be_told_apart(told_apart, tree, n_trees):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(200), 10)
    X = (np.eye(200)[y] if told_apart else 0) + 0.1 * rng.random((len(y), 200))
    clf = HierarchicalSoftmaxClassifier(tree, arity="auto", n_trees=n_trees, random_state=0).fit(X, y)
    trees = clf.trees_ if n_trees > 1 else [clf.tree_]
    assert all(tree.arity > 16 if told_apart else tree.arity <= 16 for tree in trees)


@pytest.mark.parametrize("n_trees", [1, 2])
def test_auto_arity_is_the_fit_with_that_arity(n_trees):
    rng = np.random.default_rng(0)
    X, y = rng.random((800, 20)), np.repeat(np.arange(80), 10)
    fits = [
        HierarchicalSoftmaxClassifier(arity=arity, n_trees=n_trees, random_state=0).fit(X, y)
        for arity in ("auto", 16)
    ]
    np.testing.assert_array_equal(*(clf.predict_proba(X) for clf in fits))


def test_auto_arity_of_few_classes_is_the_flat_softmax():
    X, y = digits()
    auto = HierarchicalSoftmaxClassifier(arity="auto", random_state=0).fit(X, y)
    flat = HierarchicalSoftmaxClassifier(arity=10, random_state=0).fit(X, y)
    np.testing.assert_array_equal(auto.predict_proba(X), flat.predict_proba(X))


def test_auto_arity_leaves_a_given_tree_as_it_is():
    X, y = digits()
    tree = HierarchicalSoftmaxClassifier(arity=3, random_state=0).fit(X, y).tree_
    assert HierarchicalSoftmaxClassifier(tree, arity="auto", random_state=0).fit(X, y).tree_.arity == 3


def test_another_goal_changes_nothing_that_is_known_of_the_rows():
    X, y = digits()
    rows = sparse.csr_array(X.astype(np.float32)), y.astype(np.int32), np.ones(len(y), np.float32)
    goals = [(0.01, 10), (0.5, 0)]
    problem, fresh = (regularization.Problem(*rows, balanced_tree(10, 4), True, *goal, 0) for goal in goals)
    other = problem.with_goal(*goals[1])
    assert [(p.tol, p.max_iter) for p in (problem, other)] == goals
    assert other.row_order is problem.row_order
    for name in (
        "csr",
        "square_norms",
        "smoothing",
        "row_order",
        "row_ranges",
        "keys",
        "newton_work",
        "is_small",
    ):
        np.testing.assert_equal(getattr(other, name), getattr(fresh, name))


def search_of_digits(monkeypatch, loss_of):
    """A search of four levels at most, where a penalty's loss is what a function says; and what it tried."""
    X, y = digits()
    problem = regularization.Problem(
        sparse.csr_array(X.astype(np.float32)), y.astype(np.int32), np.ones(len(y), np.float32),
        balanced_tree(10, 4), True, 0.01, 10, 0,
    )  # fmt: skip
    trials, levels = regularization.sample_trials(problem)
    search, tried = regularization.Search(problem, trials, levels, True, None), []

    def by_level(penalties, levels, problem):
        tried.extend(penalties)
        loss = [loss_of(penalty) for penalty in penalties]
        return np.tile(np.array(loss)[:, None] / len(search.best), (1, len(search.best)))

    monkeypatch.setattr(search, "_by_level", by_level)
    return search, tried


@pytest.mark.parametrize(("start", "expected"), [(1.01, "naive_bayes"), (1.2, "none")])
def test_starts_nearly_as_good_as_the_best_are_followed(monkeypatch, start, expected):
    # steps gain with naive Bayes only, and with smaller scales
    search, _ = search_of_digits(monkeypatch, lambda p: 1.0 if p.prior == "none" else start * p.scale**0.5)
    search.choose_for_all([Penalty(1.0, "none", 0.0), Penalty(1.0, "naive_bayes", 1.0)])
    assert {search.best[level].prior for level in search.small} == {expected}
    # as far as the rounds lead
    assert {search.best[level].scale for level in search.small} == ({2.0**-4} if start < 1.1 else {0.0})


@pytest.mark.parametrize(("C_of_best", "n_tried"), [(1.0, 4), (100.0, 6)])
def test_a_large_C_is_tried_for_all_priors_where_the_best_is_better_with_it(monkeypatch, C_of_best, n_tried):
    priors = {"none": 1.2, "centroid": 1.1, "naive_bayes": 1.0}
    search, tried = search_of_digits(
        monkeypatch, lambda p: priors[p.prior] + 0.01 * (p.prior == "naive_bayes" and p.C != C_of_best)
    )
    starts = search.starts([(prior, 1.0) for prior in priors], [1.0, 100.0])
    assert len(tried) == len(set(tried)) == n_tried
    assert set(tried) - set(starts) == (set() if n_tried == 6 else {Penalty(100.0, "naive_bayes", 1.0)})
    assert len(starts) == (6 if n_tried == 6 else 3)


def test_another_prior_begins_with_the_C_that_the_best_has_come_to(monkeypatch):
    # the loss of "none" falls with C; the centroid is good where that leads, and nearly as good at the start
    def loss(p):
        if p.prior == "none":
            return 1.0 - 0.01 * np.log10(p.C)
        return 0.9 if p.C > 90 else 1.02

    search, _ = search_of_digits(monkeypatch, loss)
    search.usual_C = 1.0
    search.choose_for_all([Penalty(1.0, "none", 0.0), Penalty(1.0, "centroid", 1.0)])
    assert {search.best[level].prior for level in search.small} == {"centroid"}


@pytest.mark.parametrize("n_rows, little", [(1797, 0.08 / 179.7), (30, 0.01)])
def test_little_is_less_where_classes_have_many_different_rows(n_rows, little):
    X, y = digits()
    X, y = X[:n_rows].astype(np.float32), y[:n_rows].astype(np.int32)  # the first 30 are three of each class
    for times in (1, 2):
        about = sparse.csr_array(np.repeat(X, times, axis=0)), np.repeat(y, times)
        weights = np.ones(len(about[1]), np.float32)
        problem = solvers.Problem(*about, weights, balanced_tree(10, 4), True, 0.01, 10, 0)
        search = regularization.Search(problem, *regularization.sample_trials(problem), True, None)
        assert search.little == pytest.approx(little)


@pytest.mark.parametrize("loss_of_half, scale", [(1.0, 4.0), (0.96, 4.0), (0.94, 2.0)])
def test_at_a_large_level_half_the_scale_must_gain_much(monkeypatch, loss_of_half, scale):
    losses = {4.0: 1.0, 2.0: loss_of_half}
    search, _ = search_of_digits(monkeypatch, lambda p: len(search.best) * losses[p.scale])
    search.best[0], search.loss[0], search.little = Penalty(5.0, "centroid", 4.0), 1.0, 0.01
    assert search._halve_scale(0) == (scale == 2.0)
    assert search.best[0] == Penalty(5.0, "centroid", scale)
    assert search.loss[0] == pytest.approx(losses[scale])


def test_a_large_level_may_take_a_quarter_of_the_scale_below_and_no_less(monkeypatch):
    search, tried = search_of_digits(monkeypatch, lambda p: p.scale)
    search.usual_C, search.large, search.small = 1.0, {0}, list(range(1, len(search.best)))
    search.choose_for_all([Penalty(50.0, "centroid", 4.0)])
    below = search.best[1]
    search.choose_for_each()
    assert search.best[0].scale == below.scale / 4
    assert min(penalty.scale for penalty in tried) == below.scale / 4


def test_half_a_scale_that_gains_too_little_does_not_end_the_steps_in_C(monkeypatch):
    losses = {(10.0, 4.0): 1.0, (10.0, 2.0): 0.965, (31.6228, 4.0): 0.98, (3.16228, 4.0): 1.1}
    search, _ = search_of_digits(monkeypatch, lambda p: len(search.best) * losses[p.C, p.scale])
    search.usual_C, now = 1.0, Penalty(10.0, "centroid", 4.0)
    search._evaluate([now], [0])
    search.best[0], search.loss[0], search.little = now, 1.0, 0.01
    assert not search._halve_scale(0)
    assert search.best[0] == now
    assert search._step(0)
    assert search.best[0] == Penalty(31.6228, "centroid", 4.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_choice_does_not_depend_on_the_order_of_rows_where_nodes_are_not_exact(monkeypatch, seed):
    monkeypatch.setattr(solvers, "NEWTON_BUDGET", 0)
    X, y = digits()
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 600, 1200)  # some are there more than once
    X, y = X[rows], y[rows]
    order = rng.permutation(len(y))
    fits = [
        HierarchicalSoftmaxClassifier("balanced", arity=4, rescore=False, random_state=seed).fit(*each)
        for each in ((X, y), (X[order], y[order]))
    ]
    for name in ("C_", "prior_", "prior_scale_"):
        np.testing.assert_array_equal(*(getattr(clf, name) for clf in fits))


@pytest.mark.parametrize(
    ("loss_of_smaller", "loss_of_larger", "expected"),
    [
        (1.0, 0.991, 10**0.5),  # nothing lost
        (1.009, 0.9995, 10**0.5),  # a hundredth of the least of all
        (1.009, 0.998, 10.0),
        (1.011, 0.991, 10.0),
        (1.011, 0.989, 10**1.5),
        (0.98, 0.98, 10**0.5),
        (2.0, 0.5, 10**1.5),
    ],
)
def test_at_a_large_level_the_least_C_is_taken_that_loses_little(
    monkeypatch, loss_of_smaller, loss_of_larger, expected
):
    losses = {10.0: 1.0, 3.16228: loss_of_smaller, 31.6228: loss_of_larger}
    search, _ = search_of_digits(monkeypatch, lambda p: len(search.best) * losses[p.C])
    search.usual_C, now = 1.0, Penalty(10.0, "none", 0.0)
    search._evaluate([now], [0])
    search.best[0], search.loss[0], search.little = now, 1.0, 0.01
    assert search._step(0) == (expected != 10.0)
    assert search.best[0].C == pytest.approx(expected, rel=1e-5)
    assert search.loss[0] == pytest.approx(losses[search.best[0].C])


@pytest.mark.parametrize("C_below", [0.01, 1000.0])
def test_a_large_level_finds_a_large_C_where_a_small_one_is_best_below(monkeypatch, C_below):
    """With the scale of the level below smaller ones are always better, with half of it about 30."""

    def loss(p):
        return 1.0 + 0.01 * np.log10(p.C) if p.scale == 4.0 else 0.5 + 0.1 * abs(np.log10(p.C / 30))

    search, _ = search_of_digits(monkeypatch, loss)
    search.usual_C, search.large, search.small = 1.0, {0}, list(range(1, len(search.best)))
    below = Penalty(C_below, "centroid", 4.0)
    search._evaluate([below], search.small)
    for level in search.small:
        search.best[level], search.loss[level] = below, 0.0
    search.choose_for_each()
    assert search.best[0] == Penalty(pytest.approx(30, rel=0.1), "centroid", 2.0)


def test_a_large_level_starts_from_all_priors_that_are_near_below(monkeypatch):
    losses = {
        Penalty(5.0, "centroid", 4.0): 1.0,
        Penalty(50.0, "centroid", 4.0): 0.999,  # not by enough to be taken
        Penalty(1.0, "naive_bayes", 1.0): 1.1,
        Penalty(5.0, "naive_bayes", 2.0): 1.02,
        Penalty(5.0, "none", 0.0): 1.0,
    }
    search, _ = search_of_digits(monkeypatch, lambda p: len(search.best) * losses[p])
    below = len(search.best) - 1
    search._evaluate(list(losses), search.small)
    search.usual_C, search.best[below], search.loss[below] = 1.0, Penalty(5.0, "centroid", 4.0), 1.0
    at_least = regularization._power_C(1.0, regularization.LARGE_C)
    assert set(search._starts_from(below)) == {
        Penalty(5.0, "centroid", 4.0),
        Penalty(at_least, "centroid", 2.0),
        Penalty(at_least, "naive_bayes", 1.0),
    }
    search.move_C = False
    assert Penalty(5.0, "centroid", 2.0) in search._starts_from(below)
    search.table[Penalty(5.0, "naive_bayes", 2.0)][below] = 1.04
    assert {penalty.prior for penalty in search._starts_from(below)} == {"centroid"}
    search.best[below] = Penalty(5.0, "none", 0.0)
    assert search._starts_from(below) == [Penalty(5.0, "none", 0.0)]


def shares(keys, classes, weights):
    return regularization.share_of_copy(
        np.array(keys, np.uint64), np.array(classes), np.array(weights, np.float32)
    )


@pytest.mark.parametrize("factor", [1.0, 0.3, 4.0, 1e30, 1e-30])
@pytest.mark.parametrize(
    "keys, classes, weights, expected",
    [
        ([3, 1, 2], [0, 0, 1], [1, 1, 1], [1, 1, 1]),
        ([3, 1, 3, 3], [5, 5, 5, 5], [1, 1, 1, 1], [1 / 3, 1, 1 / 3, 1 / 3]),
        ([3, 1], [5, 5], [3, 1], [1 / 3, 1]),  # a row of weight 3 is three rows
        ([3, 1, 3], [0, 0, 0], [2, 2, 4], [1 / 3, 1, 1 / 3]),
        ([3, 1, 2, 2], [0, 0, 1, 1], [1, 1.5, 1, 1], [1, 1, 1, 1]),  # of no number of copies; of one row
        ([3, 1, 2, 4], [0, 0, 1, 1], [1, 2, 10, 10], [1, 1 / 2, 1, 1]),  # classes have weights of their own
        ([1, 2, 3, 4, 5], [0] * 5, [1, 2, 3, 4, 5], [1] * 5),  # few are there once
        ([1, 2, 3, 4, 5], [0] * 5, [1e-5, 1, 1, 1, 1], [1] * 5),
        ([1, 2, 3, 4], [0] * 4, [1e-4, 1.23456, 3.14159, 2.71828], [1] * 4),
        ([1, 2, 3], [0] * 3, [1, 1 + 3e-7, 2], [1, 1, 0.5]),
    ],
)
def test_copies_of_a_row_are_known_by_their_weight(keys, classes, weights, expected, factor):
    np.testing.assert_allclose(shares(keys, classes, factor * np.array(weights)), expected, rtol=1e-6)


def test_other_copies_of_what_is_held_out_are_trained_with():
    """Of a row that is there three times two are: with the others, if it is one row of weight 3, too."""
    X, y = digits()
    X, y = X[:300].astype(np.float32), y[:300].astype(np.int32)
    times = np.random.default_rng(0).choice([1, 2, 3], len(y), p=[0.6, 0.3, 0.1])
    repeated = np.repeat(np.arange(len(y)), times)
    found = []
    for rows, weights in ((np.arange(len(y)), times), (repeated, np.ones(len(repeated)))):
        problem = solvers.Problem(
            sparse.csr_array(X[rows]), y[rows], weights.astype(np.float32), balanced_tree(10, 10),
            True, 0.01, 100, 0,
        )  # fmt: skip
        trials, _ = regularization.sample_trials(problem)
        found.append([])
        for trial in trials:
            train, test = np.zeros((2, len(y)))
            np.add.at(train, rows[trial.rows[: trial.n_train]], trial.weights[: trial.n_train])
            np.add.at(test, rows[trial.rows[trial.n_train :]], trial.weights[trial.n_train :])
            assert 20 < np.count_nonzero(test) < 100
            np.testing.assert_allclose(test[test > 0], times[test > 0])
            np.testing.assert_allclose(train, times - (test > 0), rtol=1e-6)
            found[-1] += [train, test]
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_the_smallest_given_C_leaves_priors_to_be_chosen():
    X, y = digits()
    clf = HierarchicalSoftmaxClassifier(
        C=1e-320, prior="centroid", arity=4, fit_intercept=False, rescore=False, random_state=0
    )
    with np.errstate(divide="raise", invalid="raise"):
        clf.fit(X * 1e-10, y)
    assert (clf.prior_ == "centroid").all()


def test_steps_there_and_back_lead_to_the_same_penalty(monkeypatch):
    search, _ = search_of_digits(monkeypatch, lambda p: 1.0)
    for k in range(-6, 7):
        C = regularization._power_C(search.usual_C, k)
        larger, smaller = search._neighbours(Penalty(C, "none", 0.0), False)
        assert C in {p.C for p in search._neighbours(larger, False)}
        assert C in {p.C for p in search._neighbours(smaller, False)}


def test_depths_below_the_last_have_the_penalty_of_the_last():
    by_depth = [Penalty(1.0, "none", 0.0), Penalty(2.0, "centroid", 3.0)]
    C = regularization.penalties_of(balanced_tree(27, 3), by_depth).C
    np.testing.assert_array_equal(C, [1.0] + [2.0] * 12)


def test_few_rows_are_held_out_in_turns(monkeypatch):
    X, y = digits()
    rows = (sparse.csr_array(X.astype(np.float32)), y.astype(np.int32), np.ones(len(y), dtype=np.float32))
    monkeypatch.setattr(solvers, "NEWTON_BUDGET", 0)  # as if there were more features
    for enough, n_folds in ((regularization.ENOUGH, 2), (200, 1)):
        monkeypatch.setattr(regularization, "ENOUGH", enough)
        problem = solvers.Problem(*rows, balanced_tree(10, 10), True, 0.01, 100, 0)
        trials, levels = regularization.sample_trials(problem)
        assert len(trials) == n_folds and levels.tolist() == [0]
        held = [trial.rows[trial.n_train :] for trial in trials]
        # no row twice, and each fold trains with all others
        assert len(np.unique(np.concatenate(held))) == sum(map(len, held))
        for trial in trials:
            assert sorted(trial.rows) == list(range(len(y)))
            assert 0.15 * len(y) < len(trial.rows) - trial.n_train < 0.25 * len(y)


def test_equal_rows_of_the_largest_weights_choose_something():
    X, y = digits()
    X, y = np.tile(X[:400], (2, 1)), np.tile(y[:400], 2)
    clf = HierarchicalSoftmaxClassifier(arity=4, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf.fit(X, y, sample_weight=np.full(len(y), np.finfo(np.float32).max, dtype=np.float64))
    assert np.isfinite(clf.C_).all() and clf.score(X, y) > 0.98
