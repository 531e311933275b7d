"""What each node's penalty is to be, from the log-loss of rows held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._kernels.trials import TrialTrainer
from .label_tree import LabelTree
from .priors import PRIORS, Penalties, Penalty
from .progress import Progress
from .row_keys import count_distinct, distinct, mixed
from .solvers import Problem, tasks_of_sizes
from .threads import over_threads
from .validation import MAX_WEIGHT

# The share of rows held out, and of all rows that are tried at a level of the tree,
# but at least MIN_ROWS of them, and of SEVERAL nodes, as one may be unlike the others. Of nodes that have
# more, LARGE times as many are tried together, and only with penalties near those of the level below: the
# fewer rows, the better a prior looks.
HELD_OUT = 0.2
TRIED = 1 / 100
MIN_ROWS = 8000
LARGE = 4
SEVERAL = 4
# Where fewer than ENOUGH distinct rows are held out, others are, too, in FOLDS turns: few errors mislead. Not
# where fits are exact, which take long and are of few features.
ENOUGH = 2000
FOLDS = 2
# A level whose nodes hold out fewer distinct rows is decided with the level above.
MIN_HELD_OUT = 100
# With fewer in all, nothing is chosen: C is the last of those below.
MIN_DECISIVE = 10

# C is first tried at these powers of sqrt(10), over the mean square norm of a row: at the last where the
# best prior is better with it.
FIRST_C = (1, 4)
C_STEP = 10**0.5
# A large level also starts from half the scale below and at least this power, with each prior that is as NEAR
# there: where a small C and a strong prior are best for fewer rows below, a larger C may look worse for long.
LARGE_C = 3
# The scales of a prior, over the root of that, which are tried with C near zero; a half of
# the best begins the search.
SCALES = 4.0 ** np.arange(-4, 5)
ROUNDS = 5
# Steps are made from the best start of a prior if its loss is at most NEAR times the least.
NEAR = 1.03
# A step must gain this share of the log-loss: less is noise, and a larger C takes longer. In a tree that rows
# held out have helped to build, they are easier than new ones, and the more so the fewer rows a class has and
# the more a node is left to them. So at a large level a smaller C may lose LITTLE of the log-loss over the
# number of different rows of a class, or MOST_LITTLE, and half the scale must gain MUCH times that.
WORTH = 0.005
LITTLE = 0.08
MOST_LITTLE = 0.01
MUCH = 5
# Weights of a class are numbers of copies only if this share of its different rows has one; what may be a
# whole number is so far from it, of itself: weights are float32.
FAIR = 0.25
ROUNDED = 1e-6
MAX_PASSES = 400  # a fit cut short looks worse than it is, and a smaller C better
TOL_EXACT = 1e-4  # where fits are exact: with 1e-3 choices are noise, and 1e-7 takes twice as long


@dataclass
class Trial:
    """Rows of one node: the first n_train to train, the others, n_held distinct ones, to be predicted.

    A row may be one of both: it is predicted with all its weight, and trained with that of its other copies.
    """

    v: int
    level: int
    rows: NDArray[np.int64]
    weights: NDArray[np.float32]
    n_train: int
    n_held: int
    is_large: bool
    taken: Any = None  # by a TrialTrainer


def choose_penalties(
    problem: Problem, C: float | str, prior: str | None, n_jobs: int | None, progress: Progress
) -> tuple[list[Penalty], float]:
    """The penalty at each depth of the tree, as given, and what is left open by held-out log-loss; and that.

    C may be "auto", and prior "auto", None or a name; the scale of a prior is always open. A
    pattern search finds one penalty for all levels: from the best of a few, by steps of
    sqrt(10) in C and 2 in scale, for as long as one gains. Then a level may take another of
    those tried, if that is worth it. The log-loss is infinite where nothing was to be chosen, or could be.
    """
    if C != "auto" and prior is None:
        return [Penalty(float(C), "none", 0.0)], np.inf
    search = search_penalties(problem, C, prior, n_jobs)
    if search is None:
        prior = _open_priors(problem, prior)[0]
        return [Penalty(_first_C(problem, C)[-1], prior, float(prior != "none"))], np.inf
    for level, (best, loss) in enumerate(zip(search.best, search.loss, strict=True)):
        prior = f"{best.scale:.3g} * {best.prior}"
        progress.say(f"level {level}: C={best.C:.3g}, prior {prior}, held-out log-loss {loss:.4f}")
    return [search.best[level] for level in search.level_of_depth], float(search.loss.sum())


def penalties_of(tree: LabelTree, by_depth: list[Penalty]) -> Penalties:
    """What is chosen for each depth at the nodes of a tree; deeper ones have that of the last."""
    return Penalties.of_nodes([by_depth[min(depth, len(by_depth) - 1)] for depth in node_depths(tree)])


def search_penalties(
    problem: Problem, C: float | str, prior: str | None, n_jobs: int | None
) -> Search | None:
    """The search, at its end; None where too few rows can be held out to decide anything."""
    if problem.is_small:  # where fits are exact, choices are to be the same, too
        problem = of_distinct_rows(problem)
    trials, level_of_depth = sample_trials(problem)
    if sum(trial.n_held for trial in trials) < MIN_DECISIVE:
        return None
    search = Search(problem, trials, level_of_depth, C == "auto", n_jobs)
    scaled = [(prior, search.best_scale(prior) / 2) for prior in _open_priors(problem, prior)]
    search.choose_for_all(search.starts(scaled, _first_C(problem, C)))
    search.choose_for_each()
    return search


def _first_C(problem: Problem, C: float | str) -> list[float]:
    return [_power_C(_usual_C(problem), k) for k in FIRST_C] if C == "auto" else [float(C)]


def _open_priors(problem: Problem, prior: str | None) -> list[str]:
    if prior == "naive_bayes" and problem.has_negative:
        raise ValueError(
            f"prior='naive_bayes' needs features that are not negative, got {problem.X.data.min():.3g}: "
            "use prior='centroid'"
        )
    if prior == "auto":
        return ["none", "centroid"] if problem.has_negative else list(PRIORS)
    return [prior or "none"]


def _mean_square_norm(problem: Problem) -> float:
    known = problem.row_order  # rows left out may be infinite
    square_norms, weights = (x[known].astype(float) for x in (problem.square_norms, problem.row_weights))
    return max(float(np.average(square_norms, weights=weights)), 1e-30)


def _usual_C(problem: Problem) -> float:
    """1 / (mean square norm of a row), or as much less as leaves room to move."""
    room = MAX_WEIGHT / float(problem.row_weights.max()) / C_STEP ** FIRST_C[-1]
    return min(max(1 / _mean_square_norm(problem), 1e-30), room)


def _power_C(usual_C: float, k: int) -> float:
    """As many steps from the usual C, by whatever way."""
    return _rounded(usual_C * C_STEP**k)


def _rounded(x: float) -> float:
    """Six digits of x, so that the order of rows does not show."""
    return float(f"{x:.6g}")


class Search:
    """Held-out log-loss of penalties at each level of the tree, and the best of them.

    Losses are per unit of weight of the fit, so that those of the levels add up to the tree's.
    """

    def __init__(
        self, problem: Problem, trials: list[Trial], level_of_depth: NDArray, move_C: bool, n_jobs: int | None
    ) -> None:
        tol = TOL_EXACT if problem.is_small else problem.tol
        self.problem = problem.with_goal(tol, min(problem.max_iter, MAX_PASSES))
        self.trials, self.move_C, self.n_jobs = trials, move_C, n_jobs
        self.level_of_depth = level_of_depth
        n_levels = int(level_of_depth.max()) + 1
        self.scale = self._shares()
        for level in range(n_levels):
            held = [t.weights[t.n_train :] for t in trials if t.level == level]
            self.scale[level] /= max(sum(weights.sum(dtype=float) for weights in held), 1e-30)
        self.scales = [_rounded(s) for s in SCALES / np.sqrt(_mean_square_norm(problem))]
        self.large = {trial.level for trial in trials if trial.is_large} - {n_levels - 1}
        self.small = [level for level in range(n_levels) if level not in self.large]
        self.usual_C = _usual_C(problem)
        n_rows = count_distinct(problem.keys[problem.row_order])
        self.little = min(LITTLE * problem.tree.n_classes / n_rows, MOST_LITTLE)
        self.table: dict[Penalty, NDArray[np.float64]] = {}
        self.best = [Penalty(1.0, "none", 0.0)] * n_levels
        self.loss = np.full(n_levels, np.inf)

    def _shares(self) -> NDArray[np.float64]:
        """The weight of the rows that come to each level, over that of all."""
        level_of_node = self.level_of_depth[node_depths(self.problem.tree)]
        order, (start, stop) = self.problem.row_order, self.problem.row_ranges
        before = np.concatenate([[0], np.cumsum(self.problem.row_weights[order], dtype=float)])
        return np.bincount(level_of_node, weights=before[stop] - before[start]) / before[-1]

    def best_scale(self, prior: str) -> float:
        """Which of the scales gives a prior alone the least log-loss, over the small levels."""
        if prior == "none":
            return 0.0
        untrained = self.problem.with_goal(self.problem.tol, 0)
        losses = self._by_level([Penalty(1.0, prior, scale) for scale in self.scales], self.small, untrained)
        return self.scales[np.argmin(losses[:, self.small].sum(axis=1))]

    def starts(self, scaled: list[tuple[str, float]], first_C: list[float]) -> list[Penalty]:
        """Each prior and scale with the first C, and with others where that is better for the best one."""
        found = [Penalty(first_C[0], *each) for each in scaled]
        self._evaluate(found, self.small)
        best = min(found, key=self._loss_of_all)
        for C in first_C[1:]:
            self._evaluate([best._replace(C=C)], self.small)
            if self._loss_of_all(best._replace(C=C)) < self._loss_of_all(best):
                found += [Penalty(C, *each) for each in scaled]
        self._evaluate(found, self.small)
        return found

    def choose_for_all(self, starts: list[Penalty]) -> None:
        """The penalty best for all small levels together, by steps from the best start of each prior."""
        self._evaluate(starts, self.small)
        by_loss = sorted(starts, key=self._loss_of_all)
        first = {start.prior: start for start in reversed(by_loss)}
        ends = [self._walk(by_loss[0])]
        for start in by_loss[1:]:
            is_near = not self._loss_of_all(start) > NEAR * self._loss_of_all(by_loss[0])
            if start.prior != by_loss[0].prior and start == first[start.prior] and is_near:
                ends.append(self._walk(self._better_of(start, start._replace(C=ends[0].C))))
        best = min(ends, key=self._loss_of_all)
        for level in self.small:
            self.best[level], self.loss[level] = best, self.table[best][level]

    def _better_of(self, *penalties: Penalty) -> Penalty:
        self._evaluate(list(penalties), self.small)
        return min(penalties, key=self._loss_of_all)

    def _walk(self, best: Penalty) -> Penalty:
        """Where steps that gain enough lead from here."""
        for _ in range(ROUNDS - 1):
            near = self._neighbours(best, True)
            self._evaluate(near, self.small)
            nearest = min(near, key=self._loss_of_all, default=best)
            if not (1 + WORTH) * self._loss_of_all(nearest) < self._loss_of_all(best):
                break
            best = nearest
        return best

    def _loss_of_all(self, penalty: Penalty) -> float:
        return float(self.table[penalty][self.small].sum())

    def choose_for_each(self) -> None:
        """At a level, the penalty that gains enough over the common one; large ones from the bottom up."""
        worth = WORTH * self.loss[self.small].sum()
        for level in self.small:
            self._improve(level, worth)
        for level in sorted(self.large, reverse=True):
            starts = self._starts_from(level + 1)
            self._evaluate(starts, [level])
            self._improve(level, 0.0)
            least = min(p.scale for p in starts if p.prior == self.best[level].prior) / 2
            while self.best[level].scale > least and self._halve_scale(level):
                pass
            for _ in range(ROUNDS):
                if not self._step(level):
                    break

    def _starts_from(self, level: int) -> list[Penalty]:
        """What the large level above this one is first tried with."""
        best = self.best[level]
        if not best.scale:
            return [best]
        by_loss = sorted(self.table, key=lambda penalty: self.table[penalty][level], reverse=True)
        of_prior = {p.prior: p for p in by_loss if p.scale} | {best.prior: best}
        near = [p for p in of_prior.values() if self.table[p][level] <= NEAR * self.loss[level] or p == best]
        return [best] + [self._for_more_rows(penalty) for penalty in near]

    def _for_more_rows(self, penalty: Penalty) -> Penalty:
        C = max(penalty.C, _power_C(self.usual_C, LARGE_C)) if self.move_C else penalty.C
        return penalty._replace(C=C, scale=penalty.scale / 2)

    def _improve(self, level: int, worth: float) -> None:
        best = min(self.table, key=lambda penalty: self.table[penalty][level])
        if self.table[best][level] < self.loss[level] - worth:
            self.best[level], self.loss[level] = best, self.table[best][level]

    def _halve_scale(self, level: int) -> bool:
        """At a large level, take half the scale if that gains much; whether it does."""
        now = self.best[level]
        half = now._replace(scale=now.scale / 2)
        self._evaluate([half], [level])
        gains = bool(self.table[half][level] < (1 - MUCH * self.little) * self.loss[level])
        if gains:
            self.best[level], self.loss[level] = half, self.table[half][level]
        return gains

    def _step(self, level: int) -> bool:
        """At a large level, take the least C here and near that loses little; whether that is another."""
        now = self.best[level]
        near = self._neighbours(now, False)
        self._evaluate(near, [level])
        losses = {p: loss[level] for p, loss in self.table.items() if p._replace(C=now.C) == now}
        most = (1 + self.little) * min(losses.values())
        best = min((p for p in (now, *near) if losses[p] <= most), key=lambda p: p.C, default=now)
        self.best[level], self.loss[level] = best, losses[best]
        return best != now

    def _neighbours(self, penalty: Penalty, move_scale: bool) -> list[Penalty]:
        C, prior, scale = penalty
        largest_C = MAX_WEIGHT / float(self.problem.row_weights.max())
        near = []
        if self.move_C:
            k = round(np.log(C / self.usual_C) / np.log(C_STEP))
            moved = (_power_C(self.usual_C, k + step) for step in (1, -1))
            near = [Penalty(c, prior, scale) for c in moved if c <= largest_C]
        return near + ([Penalty(C, prior, scale * f) for f in (2.0, 0.5)] if move_scale and scale else [])

    def _evaluate(self, penalties: list[Penalty], levels: list[int]) -> None:
        """Put the losses of penalties that are not there into the table; infinite at other levels."""
        blank = np.full(len(self.best), np.inf)
        new = [p for p in dict.fromkeys(penalties) if np.isinf(self.table.get(p, blank)[levels]).any()]
        losses = self._by_level(new, levels, self.problem) if new else []
        for penalty, loss in zip(new, losses, strict=True):
            self.table[penalty] = self.table.get(penalty, blank).copy()
            self.table[penalty][levels] = loss[levels]

    def _by_level(self, penalties: list[Penalty], levels: list[int], problem: Problem) -> NDArray[np.float64]:
        """Held-out log-loss at each of these levels, zero at others: (n_penalties, n_levels)."""
        tried = Penalties.of_nodes(penalties)
        trials = [trial for trial in self.trials if trial.level in levels]
        losses = np.zeros((len(trials), len(penalties)))

        def prepare(some: NDArray[np.int64]) -> None:
            trainer = TrialTrainer(problem)
            for trial in (trials[i] for i in some):
                if trial.taken is None:
                    child = problem.children_of(trial.v, trial.rows)
                    trial.taken = trainer.take(trial.v, trial.rows, child, trial.weights, trial.n_train)
                for prior in set(tried.code.tolist()):
                    trainer.make_guess(trial.taken, prior)

        def run(task: tuple[NDArray[np.int64], slice]) -> None:
            some, which = task
            trainer = TrialTrainer(problem)
            for i in some:
                about = tried.C[which], tried.code[which], tried.scale[which]
                trainer.held_out_losses(trials[i].taken, *about, losses[i, which])

        n_values = self.problem.X.nnz / len(self.problem.y) * np.array([len(trial.rows) for trial in trials])
        over_threads(prepare, tasks_of_sizes(n_values + 1), self.n_jobs)
        over_threads(run, self._tasks(n_values, len(penalties)), self.n_jobs)
        total = np.zeros((len(penalties), len(self.best)))
        for trial, loss in zip(trials, losses, strict=True):
            total[:, trial.level] += loss * self.scale[trial.level]
        return total

    def _tasks(
        self, n_values: NDArray[np.float64], n_penalties: int
    ) -> Iterator[tuple[NDArray[np.int64], slice]]:
        """Trials of so many values, and penalties, for a thread: one of each where there are many values."""
        for some in tasks_of_sizes(n_penalties * n_values + 1):
            step = 1 if len(some) == 1 else n_penalties
            yield from ((some, slice(k, k + step)) for k in range(0, n_penalties, step))


# -- which rows -------------------------------------------------------------


def of_distinct_rows(problem: Problem) -> Problem:
    """Equal rows are one with the sum of their weights, in the order of keys, whatever order they had."""
    known = problem.row_order
    first, _, weights = distinct(problem.keys[known], problem.row_weights[known])
    rows, weights = known[first], weights.clip(max=MAX_WEIGHT).astype(np.float32)
    return replace(problem, X=problem.X[rows], y=problem.y[rows], row_weights=weights)


def node_depths(tree: LabelTree) -> NDArray[np.int64]:
    """Depth of each inner node."""
    depths = np.zeros(tree.n_inner, dtype=np.int64)
    for depth, children in enumerate(tree._levels(), start=1):
        depths[children[children < len(depths)]] = depth
    return depths


def sample_trials(problem: Problem) -> tuple[list[Trial], NDArray[np.int64]]:
    """Trials of some nodes of each level; and for each depth the level whose penalty it takes."""
    keys, known, depths = problem.keys, problem.row_order, node_depths(problem.tree)
    n_held = HELD_OUT * count_distinct(keys[known])
    n_folds = 1 if problem.is_small or n_held >= ENOUGH else FOLDS
    folds = np.zeros((n_folds, len(keys)), dtype=bool)
    for fold, held in enumerate(folds):
        held[known] = is_held_out(keys[known], problem.y[known], problem.tree.n_classes, fold=fold)
    trials: list[Trial] = []
    levels = np.zeros(depths.max(initial=0) + 1, dtype=np.int64)
    for depth in range(len(levels)):
        nodes = np.flatnonzero(depths == depth)
        here = [trial for held in folds for trial in _trials_of_level(problem, nodes, keys, held)]
        if depth > 0:
            levels[depth] = levels[depth - 1] + (sum(trial.n_held for trial in here) >= MIN_HELD_OUT)
        trials += [replace(trial, level=int(levels[depth])) for trial in here]
    return trials, levels


def _trials_of_level(
    problem: Problem, nodes: NDArray[np.int64], keys: NDArray[np.uint64], held: NDArray[np.bool_]
) -> list[Trial]:
    """Of nodes drawn at random until they have as many rows as are to be tried, but SEVERAL of a kind."""
    many = max(MIN_ROWS, int(TRIED * len(problem.row_order)))
    nodes = nodes[np.argsort(mixed(nodes.astype(np.uint64) + np.uint64(problem.seed)))]
    start, stop = problem.row_ranges
    sizes = (stop - start)[nodes]
    is_large, is_drawn = sizes > many, np.cumsum(sizes) - sizes < many
    is_like = is_large == (is_large & is_drawn).any()
    is_drawn |= is_like & (np.cumsum(is_like) <= SEVERAL)
    most = LARGE * many // max(np.count_nonzero(is_large & is_drawn), 1)
    trials = [_trial(problem, int(v), keys, held, many, most) for v in nodes[is_drawn]]
    return [trial for trial in trials if trial is not None]


def _trial(
    problem: Problem, v: int, keys: NDArray[np.uint64], held: NDArray[np.bool_], many: int, most: int
) -> Trial | None:
    """Up to `most` rows of node v, which is large with more than `many`; None where none can be held out."""
    rows = problem.rows_of(v)
    is_large = len(rows) > many
    order = mixed(keys[rows])
    by_key = np.argsort(order)  # so that the order of rows does not show
    rows, order = rows[by_key], order[by_key]
    if len(rows) > most:
        rows = rows[order <= order[most]]
    left_out = held[rows] * share_of_copy(keys[rows], problem.ranks[rows], problem.row_weights[rows])
    train, test = rows[left_out < 1], rows[left_out > 0]
    is_known = np.zeros(problem.arity(v), dtype=bool)
    is_known[problem.children_of(v, train)] = True
    test = test[is_known[problem.children_of(v, test)]]
    if not len(test) or np.count_nonzero(is_known) < 2:
        return None
    both = np.concatenate([train, test])
    weights = problem.row_weights[both]
    weights[: len(train)] *= 1 - left_out[left_out < 1]
    return Trial(v, 0, both, weights, len(train), count_distinct(keys[test]), is_large)


def is_held_out(
    keys: NDArray[np.uint64], y: NDArray[np.int32], n_classes: int, share: float = HELD_OUT, fold: int = 0
) -> NDArray[np.bool_]:
    """A share of the rows by their keys, others for each fold, but of no class the one with the largest key.

    Rows that are the same are held out together, so that a row of weight 2 is the same as two rows.
    """
    last = np.zeros(n_classes, dtype=np.uint64)
    np.maximum.at(last, y, keys)
    first, end = (np.uint64(k * share * 2**64) for k in (fold, fold + 1))
    return (keys >= first) & (keys < end) & (keys < last[y])


def share_of_copy(
    keys: NDArray[np.uint64], classes: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Of each row and its equals, the share of their weight that is one copy's: (n_rows,), 1 for one alone.

    Where all different rows of a class weigh a multiple of the lightest one, and a FAIR share of them weighs
    just that, they are as many copies: what is held out should be known as often as new rows will be. Other
    weights are not taken for numbers of copies.
    """
    if count_distinct(keys) == len(keys) and (weights == weights[:1]).all():
        return np.ones(len(keys))
    first, which, total = distinct(keys, weights)
    classes = classes[first] - classes.min()
    lightest = np.full(classes.max() + 1, np.inf)
    np.minimum.at(lightest, classes, total)
    ratio = total / lightest[classes]
    copies = ratio.round()
    is_odd = np.abs(ratio - copies) > np.minimum(ROUNDED * ratio, 0.01)
    n_odd, n_single, n_all = (np.bincount(classes, weights=w) for w in (is_odd, copies == 1, None))
    has_copies = (n_odd == 0) & (n_single >= FAIR * n_all)
    return np.where(has_copies[classes], 1 / copies, 1)[which]
