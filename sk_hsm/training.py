"""Checked rows and an estimator's parameters -> trained trees."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import entropy
from sklearn.preprocessing import normalize

from .centroids import ClassSums, are_dense, class_centroids, unit_sums
from .clusters import cluster_centroids
from .inference import check_memory, path_log_proba
from .label_tree import LabelTree
from .node_weights import NodeWeights, check_features
from .packed_weights import PackedWeights
from .priors import Penalties, Penalty
from .progress import Progress
from .regularization import choose_penalties, is_held_out, penalties_of, search_penalties
from .rescoring import (
    FEW,
    MORE,
    MORE_SMOOTHED,
    Rescoring,
    choose_coefficients,
    class_similarities,
    likely_classes,
    updated,
)
from .row_keys import count_distinct, distinct, mixed, row_keys
from .row_sums import RowSums, row_sums
from .solvers import Problem, TreeFit, ascend_nodes, fit_nodes
from .tree_builders import balanced_tree, given_tree
from .whitening import are_rows_few, is_even, is_worth_whitening, learn_whitening, to_raw, to_white, whitened

# What arity="auto" chooses between. Wide nodes pay where rows tell much of the label: where a
# narrow tree's log-loss is less than UNCERTAIN of the labels' entropy. Else they cost some.
NARROW, WIDE = 16, 64
UNCERTAIN = 0.8

# A tree of recurring features is tried where at most N_TRIED rows differ (some classes of more say little of
# all), and those held out tell as much as MIN_ASKED rows. It is taken where their log-loss is less than
# BETTER of the usual tree's. Both are trained with the same C and prior, not far off for rows of length one,
# in up to PASSES.
N_TRIED = 2**15
MIN_ASKED = 300
BETTER = 0.85
TRIED_C = 3000.0
TRIED_SCALE = {"naive_bayes": 1.0, "centroid": 8.0}
PASSES = 5

# What a rescoring is worth is asked of about N_HELD rows, MOST_HELD of all at most, if they tell as much as
# MIN_HELD rows of equal weight. Where they are more than NEGLIGIBLE of all, nodes of whose rows they are more
# than AGAIN then learn them, too.
N_HELD = 2048
MOST_HELD = 0.1
MIN_HELD = 200
# Their log-loss must fall by this share, and by NATS over their number, which is also the share of their
# labels that is doubted; again by WORTH_MORE for more classes to be scored, which takes longer.
WORTH = 0.01
WORTH_MORE = 0.06
NATS = 3.0
NEGLIGIBLE = 0.005
AGAIN = 0.03

# Of log-loss, where there is little, a gap is to be as small a part: but of no less than this.
LEAST_LOSS = 0.1

# Rounded weights are float32 in both directions.
MIN_STEP = 2.0**-100


@dataclass
class Rows:
    """What is learned from."""

    X: sparse.csr_array  # float32 data, no duplicates
    y: NDArray[np.int32]
    weights: NDArray[np.float64]  # not negative; rows of weight zero are left out
    classes: NDArray[Any]

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """Those of row_keys."""
        return row_keys(self.X, self.y)

    @cached_property
    def row_sums(self) -> RowSums:
        return row_sums(self.X)

    def of(self, which: NDArray[Any]) -> Rows:
        """Some of them."""
        some = Rows(self.X[which], self.y[which], self.weights[which], self.classes)
        some.keys = self.keys[which]
        return some

    def without(self, which: NDArray[np.bool_]) -> Rows:
        """All but some, which are left out where they are: X is not copied."""
        others = replace(self, weights=np.where(which, 0, self.weights))
        others.keys, others.row_sums = self.keys, self.row_sums
        return others

    def become(self, X: sparse.csr_array) -> None:
        """Have other values, which may hang on the order of rows in their last bits: keys stay."""
        self.X, self.keys = X, self.keys
        vars(self).pop("row_sums", None)


@dataclass
class TrainedTree:
    """A tree, and what was chosen and learned for its nodes."""

    tree: LabelTree
    penalties: Penalties
    weights: NodeWeights | PackedWeights
    n_iter: NDArray[np.int32]
    converged: NDArray[np.bool_]
    tol: float  # the gap that they were trained to


def choose_whitening(rows: Rows, params: dict[str, Any]) -> NDArray[np.float64] | None:
    """The map of learn_whitening, where params ask for it, or it is worth it and they leave it open."""
    whiten, is_open = params["whiten"], params["whiten"] == "auto"
    if is_open:
        whiten = params["C"] == "auto" and params["prior"] != "naive_bayes"
        whiten = whiten and is_worth_whitening(rows.X, len(rows.classes))
    if not whiten:
        return None
    if params["prior"] == "naive_bayes":
        raise ValueError(
            "whiten=True makes features negative, and prior='naive_bayes' needs others: use 'centroid'"
        )
    n, d = rows.X.shape
    if is_open and not are_rows_few(rows.keys, d, len(rows.classes)):
        return None
    if not is_open:  # else rows are about as large already
        check_memory(f"whitening {n} rows of {d} features", 4 * 8 * d * d + 2 * 4 * n * d, "whiten=False")
    whitening = learn_whitening(rows.X, rows.y, rows.weights, rows.keys, params["fit_intercept"])
    return None if is_open and is_even(whitening) else whitening


def train_trees(
    rows: Rows,
    whitening: NDArray[np.float64] | None,
    params: dict[str, Any],
    rng: np.random.RandomState,
    progress: Progress,
) -> tuple[list[TrainedTree], Rescoring | None]:
    """Build and train as many trees as params say, each from random numbers of its own; and their rescoring.

    rows.X is white afterwards where there is a whitening, so that two are not kept.
    """
    step = rounding_step(rows, params["rounding"])
    held = held_for_rescoring(rows, params)
    asked = None if held is None else different_rows(rows.of(held))
    if whitening is not None:
        progress.say(f"whitened by the covariance of {rows.X.shape[1]} features within classes")
        rows.become(whitened(rows.X, whitening))
    known = rows if held is None else rows.without(held)
    params = params | {"recurring": are_recurring_better(known, params, copy.deepcopy(rng))}
    if params["recurring"]:
        progress.say("classes are clustered by features that recur: rows held out are likelier so")
    if params["arity"] == "auto":
        # from the same random numbers as a fit with the arity that comes out
        params = params | {"arity": choose_arity(known, params, copy.deepcopy(rng))}
    similarities = sums = None
    if asked is not None:
        n_classes, n_jobs = len(rows.classes), params["n_jobs"]
        about = known.X, known.y, known.weights, n_classes
        sums = unit_sums(*about, n_jobs, known.row_sums) if whitening is None else None
        similarities = class_similarities(*about, whitening, n_jobs, sums)
    trees = build_trees(known, params, rng, sums)
    del sums
    seeds = [rng.randint(2**31 - 1) for _ in trees]
    trained, by_depth, tol = [], None, params["tol"]
    for tree, seed in zip(trees, seeds, strict=True):
        progress.say(description(tree, known, len(trained) + 1, len(trees)))
        problem = problem_of(known, tree, params, seed)
        if by_depth is None:  # trees are alike
            how = params["C"], params["prior"], params["n_jobs"]
            by_depth, loss = choose_penalties(problem, *how, progress)
            tol = tolerance(problem, loss, progress)
        problem.penalties, problem.tol = penalties_of(tree, by_depth), tol
        trained.append(train_tree(problem, params, progress))
    rescoring = None
    if asked is not None:
        rescoring = learn_rescoring(similarities, asked, trained, whitening, params, progress)
        n_held = rows.weights[held].sum()
        if n_held > NEGLIGIBLE * rows.weights.sum():
            if rescoring is not None:
                more = asked.weights * (n_held / asked.weights.sum())
                known_as = similarities.chosen_as(rescoring)  # whole, so that rows add up before it is pruned
                rescoring = updated(known_as, asked.X, asked.y, more, whitening, params["n_jobs"])
            trained = [
                train_again(rows, held, *each, params, progress) for each in zip(trained, seeds, strict=True)
            ]
    for one in trained:
        if whitening is not None:
            one.weights = to_raw(one.weights, one.tree, whitening)
        if step is not None:
            one.weights = PackedWeights.of(one.weights, one.tree.child_ptr, rows.X.shape[1], step)
        size, passes = one.weights.nbytes / 2**20, one.n_iter.max(initial=0)
        progress.say(f"trained: {size:.1f} MiB, at most {passes} passes")
    return trained, rescoring


def tolerance(problem: Problem, loss: float, progress: Progress) -> float:
    """What gaps are to be below: less than params say where rows held out have less log-loss than one nat."""
    if problem.is_small or loss >= 1:
        return problem.tol
    tol = float(f"{max(loss, LEAST_LOSS) * problem.tol:.2g}")
    progress.say(f"log-loss {loss:.2g} of rows held out: duality gaps are to be below {tol:.2g}")
    return tol


def description(tree: LabelTree, rows: Rows, number: int, n_trees: int) -> str:
    name = "tree" if n_trees == 1 else f"tree {number} of {n_trees}"
    frequency = np.bincount(rows.y, weights=rows.weights, minlength=len(rows.classes))
    return (
        f"{name}: {tree.n_inner} nodes of up to {tree.arity} children, depth {tree.max_depth}, "
        f"mean {tree.mean_depth(frequency):.2f}"
    )


def held_for_rescoring(rows: Rows, params: dict[str, Any]) -> NDArray[np.bool_] | None:
    """Which rows trees are not to see at first, so that they tell what a rescoring is worth; or None."""
    rescore, tree = params["rescore"], params["tree"]
    if not rescore or (rescore == "auto" and params["C"] != "auto"):
        return None
    if has_one_node(tree, params["arity"], len(rows.classes)):
        return None  # it has looked at every class
    keys = mixed(rows.keys)  # keys themselves say what is held out to choose C
    share = min(MOST_HELD, N_HELD / count_distinct(keys))
    held = is_held_out(keys, rows.y, len(rows.classes), share)
    if not held.any() or effective_number(different_rows(rows.of(held))) < MIN_HELD:
        return None
    return held


def has_one_node(tree: Any, arity: int | str, n_classes: int) -> bool:
    """Whether the tree that is given, or is to be built, is the flat softmax."""
    if isinstance(tree, LabelTree):
        return tree.n_inner <= 1
    return n_classes <= (WIDE if arity == "auto" else arity)


def learn_rescoring(
    similarities: Rescoring,
    asked: Rows,
    trained: list[TrainedTree],
    whitening: NDArray[np.float64] | None,
    params: dict[str, Any],
    progress: Progress,
) -> Rescoring | None:
    """What similarities count for rows that neither they nor trees know; None for nothing."""
    n_jobs = params["n_jobs"]
    trees = [(one.tree, one.weights) for one in trained]
    if whitening is not None:
        trees = [(tree, to_raw(weights, tree, whitening)) for tree, weights in trees]
    noise = NATS / effective_number(asked)
    about = asked.X, asked.y, asked.weights, noise, n_jobs
    few = similarities.with_reach(*FEW)
    likely = likely_classes(few, trees, asked.X, n_jobs)
    few, before, after = choose_coefficients(few, likely, trees, *about)
    is_worth_it = before - after > max(WORTH * before, noise)
    if not (is_worth_it or params["rescore"] is True) or few.weight == 0:
        return None
    more = similarities.with_reach(*(MORE if whitening is None else MORE_SMOOTHED))
    more_likely = likely_classes(more, trees, asked.X, n_jobs)
    more, _, after_more = choose_coefficients(more, more_likely, trees, *about)
    fitted, loss = few, after
    if after - after_more > max(WORTH_MORE * after, noise):
        fitted, loss, likely = more, after_more, more_likely
    if not similarities.is_full:
        pruned, _, after_pruned = choose_coefficients(fitted.pruned(), likely, trees, *about)
        fitted = pruned if after_pruned < loss else fitted
    smoothed = ", nodes are smoothed" if fitted.smoothing else ""
    kept, known = len(fitted.values), len(similarities.values)
    progress.say(
        f"up to {fitted.most} likely classes are scored again: power {fitted.power:.3g}, "
        f"weight {fitted.weight:.3g}{smoothed}, {kept} of {known} values kept"
    )
    return fitted


def train_again(
    rows: Rows,
    held: NDArray[np.bool_],
    one: TrainedTree,
    seed: int,
    params: dict[str, Any],
    progress: Progress,
) -> TrainedTree:
    """With all rows, where those that were held out are more than AGAIN of a node's."""
    problem = problem_of(rows, one.tree, params, seed)
    problem.penalties, problem.tol = one.penalties, one.tol
    start, stop = problem.row_ranges
    weights, of_held = (
        np.concatenate([[0.0], np.cumsum(w[problem.row_order])]) for w in (rows.weights, rows.weights * held)
    )
    is_again = of_held[stop] - of_held[start] > AGAIN * (weights[stop] - weights[start])
    nodes = np.flatnonzero(is_again)
    if not len(nodes):
        return one
    fit = fit_to_gap(problem, params, progress, nodes)
    both = one.weights, fit.weights
    weights = NodeWeights.assembled(both, is_again.astype(np.intp), one.tree, rows.X.shape[1])
    return replace(
        one,
        weights=weights,
        n_iter=np.where(is_again, fit.n_iter, one.n_iter),
        converged=np.where(is_again, fit.converged, one.converged),
    )


def choose_arity(rows: Rows, params: dict[str, Any], rng: np.random.RandomState) -> int:
    """WIDE where rows tell much of the label, or classes are few, else NARROW."""
    if not isinstance(params["tree"], str) or len(rows.classes) <= WIDE:
        return WIDE
    [tree] = build_trees(rows, params | {"arity": NARROW, "n_trees": 1}, rng)
    problem = problem_of(rows, tree, params, rng.randint(2**31 - 1))
    search = search_penalties(problem, params["C"], params["prior"], params["n_jobs"])
    frequency = np.bincount(rows.y, weights=rows.weights)
    return WIDE if search and search.loss.sum() < UNCERTAIN * entropy(frequency) else NARROW


def are_recurring_better(rows: Rows, params: dict[str, Any], rng: np.random.RandomState) -> bool:
    """Whether a k-means tree of recurring features foretells more of rows that it was not built of."""
    arity = NARROW if params["arity"] == "auto" else params["arity"]
    if not isinstance(params["tree"], str) or params["tree"] != "kmeans" or len(rows.classes) <= arity:
        return False
    if count_distinct(rows.keys) > N_TRIED or are_dense(rows.row_sums, rows.weights, rows.X.shape[1]):
        return False
    rows = different_rows(rows.of(rows.weights > 0))
    rows = Rows(normalize(rows.X), rows.y, rows.weights, rows.classes)
    held = is_held_out(rows.keys, rows.y, len(rows.classes))
    known, asked = rows.of(~held), rows.of(held)
    if effective_number(asked) < MIN_ASKED:
        return False
    how = params | {"arity": arity, "n_trees": 1, "max_iter": PASSES}
    seed, losses = rng.randint(2**31 - 1), []
    for recurring in (False, True):
        [tree] = build_trees(known, how | {"recurring": recurring}, copy.deepcopy(rng))
        problem = problem_of(known, tree, how, seed)
        prior = "centroid" if problem.has_negative else "naive_bayes"
        penalty = Penalty(TRIED_C, prior, TRIED_SCALE[prior])
        problem.penalties = Penalties.of_nodes([penalty] * tree.n_inner)
        fit = ascend_nodes(problem, params["n_jobs"], Progress(0))
        weights = fit.weights.ranked(tree, rows.X.shape[1])
        losses.append(
            -path_log_proba([(tree, weights, 0.0)], asked.X, asked.y, params["n_jobs"]) @ asked.weights
        )
    return bool(losses[1] < BETTER * losses[0])


def effective_number(rows: Rows) -> float:
    """As many rows of equal weight tell as much."""
    if not len(rows.y):
        return 0.0
    weights = rows.weights / rows.weights.max()
    return float(weights.sum() ** 2 / np.sum(weights**2))


def different_rows(rows: Rows) -> Rows:
    """Each once, by its class and key, with the weights of all that are the same; of mean weight one."""
    first, _, weights = distinct(rows.keys, rows.weights / rows.weights.max())
    order = np.argsort(rows.y[first], kind="stable")
    some = rows.of(first[order])
    some.weights = weights[order] / weights[order].mean()
    return some


def build_trees(
    rows: Rows, params: dict[str, Any], rng: np.random.RandomState, sums: ClassSums | None = None
) -> list[LabelTree]:
    """The trees that params ask for, their leaves in the order of classes; of unit_sums, if it is known."""
    arity, n_classes = params["arity"], len(rows.classes)
    frequency = np.bincount(rows.y, weights=rows.weights, minlength=n_classes)
    tree = given_tree(params["tree"], arity, rows.classes, frequency)
    if tree is not None:
        return [tree]
    seeds = [rng.randint(2**31 - 1) for _ in range(params["n_trees"])]
    n_jobs = params["n_jobs"]
    if n_classes <= arity:
        trees = [balanced_tree(n_classes, arity) for _ in seeds]
    else:
        about = rows.X, rows.y, rows.weights, n_classes
        centroids = class_centroids(*about, n_jobs, params["recurring"], sums)
        trees = cluster_centroids(centroids, frequency, arity, seeds, n_jobs)
    return [tree.with_labels(rows.classes) for tree in trees]


def fit_to_gap(
    problem: Problem, params: dict[str, Any], progress: Progress, nodes: NDArray[np.int64] | None = None
) -> TreeFit:
    """Train nodes to the problem's gap; one that falls short has converged if it gets to that of params."""
    n_jobs, tol = params["n_jobs"], params["tol"]
    fit = fit_nodes(problem, n_jobs, progress, nodes)
    short = np.flatnonzero(~fit.converged)
    if problem.tol < tol and len(short):
        as_given = problem.with_goal(tol, problem.max_iter)
        fit.converged[short] = ascend_nodes(as_given, n_jobs, Progress(0), short).converged[short]
    return fit


def train_tree(problem: Problem, params: dict[str, Any], progress: Progress) -> TrainedTree:
    """Train every node."""
    fit = fit_to_gap(problem, params, progress)
    weights = fit.weights.ranked(problem.tree, problem.X.shape[1])
    return TrainedTree(problem.tree, problem.penalties, weights, fit.n_iter, fit.converged, problem.tol)


def rounding_step(rows: Rows, rounding: float | None) -> float | None:
    """What weights are to be multiples of: rounding over the root mean square length of rows."""
    if rounding is None:
        return None
    mean = np.average(rows.row_sums.squares, weights=rows.weights)
    step = float(rounding / (mean or 1.0) ** 0.5)
    if not MIN_STEP <= step <= 1 / MIN_STEP:
        raise ValueError(
            f"rounding={rounding} over the root mean square length of rows, {mean**0.5:.3g}, must be between "
            f"{MIN_STEP:.1g} and {1 / MIN_STEP:.1g}, got {step:.3g}: scale the features, or leave it None"
        )
    return step


def update_tree(
    rows: Rows,
    tree: LabelTree,
    weights: NodeWeights | PackedWeights,
    penalties: Penalties,
    whitening: NDArray[np.float64] | None,
    params: dict[str, Any],
    seed: int,
    progress: Progress,
) -> TrainedTree:
    """Train the nodes that rows come to, from the weights that they have, which penalties pull towards.

    Only where a node has none yet, its prior is asked for a guess. Naive Bayes has none for negative
    features.
    """
    if isinstance(weights, PackedWeights):
        weights = weights.unpacked(tree, rows.X.shape[1])
    check_features(weights.features, rows.X.shape[1])
    if whitening is not None:
        rows = replace(rows, X=whitened(rows.X, whitening))
        weights = to_white(weights, tree, whitening)
    problem = problem_of(rows, tree, params, seed)
    problem.penalties = penalties.without_naive_bayes() if problem.has_negative else penalties
    problem.earlier = weights
    fit = ascend_nodes(problem, params["n_jobs"], progress)
    if whitening is None:
        # a node that is open only now may lack what a child has had
        fit.weights = fit.weights.nested(tree, rows.X.shape[1])
    else:
        fit.weights = to_raw(fit.weights, tree, whitening)
    return TrainedTree(tree, penalties, fit.weights, fit.n_iter, fit.converged, problem.tol)


def problem_of(rows: Rows, tree: LabelTree, params: dict[str, Any], seed: int) -> Problem:
    """What is to be trained, its penalties left open."""
    goal = params["fit_intercept"], params["tol"], params["max_iter"]
    weights = rows.weights.astype(np.float32)
    np.maximum(weights, np.finfo(np.float32).tiny, out=weights, where=rows.weights > 0)
    problem = Problem(rows.X, rows.y, weights, tree, *goal, seed)
    problem.row_sums = rows.row_sums
    if "keys" in vars(rows):
        problem.keys = rows.keys
    return problem
