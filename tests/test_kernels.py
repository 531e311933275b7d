"""Each kernel against its twin in _kernels/reference, which is its specification."""

import gc
import inspect
import math
import operator
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.special import logsumexp, xlogy
from sklearn.preprocessing import normalize

from sk_hsm import LabelTree, node_weights
from sk_hsm._kernels import (
    ascent,
    clusters,
    cuts,
    embedding,
    flat,
    forests,
    nodes,
    packing,
    pairs,
    paths,
    priors,
    ranks,
    reference,
    rescoring,
    rows,
    sampling,
    scan,
    trees,
    trials,
)
from sk_hsm.node_weights import LINE, NO_CHILD, NodeWeights, n_lines, nearest_with_features, offsets
from sk_hsm.packed_weights import PackedWeights
from sk_hsm.priors import PRIORS, Penalties, Penalty
from sk_hsm.rescoring import FEW, Rescoring
from sk_hsm.solvers import Problem
from sk_hsm.tree_builders import balanced_tree, huffman_tree
from sk_hsm.validation import full_csr

ARITIES = [2, 3, 16, 17, 40]
SEEDS = st.integers(0, 2**32 - 1)
MODULES = [
    ascent,
    clusters,
    cuts,
    embedding,
    flat,
    forests,
    nodes,
    packing,
    pairs,
    paths,
    priors,
    ranks,
    rescoring,
    rows,
    sampling,
    scan,
    trees,
    trials,
]


def kernel_functions(module):
    """Functions of a module, and methods of its classes, by name."""
    kernels = {}
    for name, value in vars(module).items():
        if inspect.isroutine(value) and not name.startswith("_"):
            kernels[name] = value
        elif inspect.isclass(value) and value.__module__.startswith(module.__name__):
            kernels |= {f"{name}.{m}": f for m, f in vars(value).items() if m[0] != "_"}
    return kernels


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_kernel_has_a_twin_with_its_parameters(module):
    kernels = kernel_functions(module)
    assert kernels
    for name, kernel in kernels.items():
        twin = operator.attrgetter(name)(reference)
        assert list(inspect.signature(twin).parameters) == list(inspect.signature(kernel).parameters), name
        assert twin.__doc__, name


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_kernels_are_those_of_the_source(module):
    name = module.__name__.rsplit(".")[-1] + ".pyx"
    source = Path(nodes.__file__).with_name(name).read_text(encoding="utf-8")
    found = re.findall(r"^ *def ([a-z]\w*)\((.*?)\):$", source, flags=re.MULTILINE | re.DOTALL)
    defined = {name: parameters.replace("self", "object self") for name, parameters in found}
    kernels = {name.split(".")[-1]: kernel for name, kernel in kernel_functions(module).items()}
    assert set(defined) == set(kernels)
    for function, parameters in defined.items():
        names = [p.split()[-1] for p in re.sub(r"\[.*?\]", "", parameters).split(",") if p.strip()]
        assert names == list(inspect.signature(kernels[function]).parameters), function


def test_every_public_twin_has_a_kernel():
    twins = {
        name for name, f in kernel_functions(reference).items() if f.__module__.startswith(reference.__name__)
    }
    assert twins == {name for module in MODULES for name in kernel_functions(module)}


# -- random inputs ----------------------------------------------------------


def random_rows(rng, n_rows, n_features, scale=1.0):
    """Rows with no, one or many non-zeros, in CSR; about half of the features are used."""
    used = rng.permutation(n_features)[: max(1, n_features // 2)]
    indptr, indices, data = [0], [], []
    for _ in range(n_rows):
        size = min(len(used), rng.choice([0, 1, 2, 5, 20]))
        indices.extend(np.sort(rng.permutation(used)[:size]))
        data.extend(scale * rng.normal(size=size))
        indptr.append(len(indices))
    return np.array(indptr, np.int64), np.array(indices, np.int32), np.array(data, np.float32)


def random_tree(rng, kind, n_classes, arity):
    if kind == "huffman":
        return huffman_tree(rng.pareto(0.7, n_classes), arity)
    if kind == "balanced":
        return balanced_tree(n_classes, arity)
    if kind == "deep":  # each node has one leaf, and all the others below
        inner = np.arange(n_classes - 1)
        return LabelTree.from_parents(np.concatenate([[-1], inner[:-1], inner, inner[-1:]]))
    parents, free = [-1], [0]  # open a random leaf, until there are enough
    while len(free) < n_classes:
        node = free.pop(rng.integers(len(free)))
        for _ in range(min(rng.integers(2, arity + 1), n_classes - len(free))):
            free.append(len(parents))
            parents.append(node)
    return LabelTree.from_parents(parents)


TREES = ["huffman", "balanced", "deep", "random"]


def random_weights(rng, tree, n_features, scale=1.0, p_dead=0.0):
    """Weights of random features; children without rows, but never all of a node's."""
    arities = np.diff(tree.child_ptr)
    has = [rng.random(n_features) < rng.choice([0, 0.3, 1]) for _ in arities]
    weights = NodeWeights.of_sizes(np.array([here.sum() for here in has], np.int64), arities)
    weights.lines[:] = 0
    for v, (arity, here) in enumerate(zip(arities, has, strict=True)):
        weights.features[weights.feature_ptr[v] : weights.feature_ptr[v + 1]] = np.flatnonzero(here)
        lines = weights.lines[weights.line_ptr[v] : weights.line_ptr[v + 1]].reshape(here.sum() + 1, -1)
        lines[:, :arity] = scale * rng.normal(size=(len(lines), arity))
        dead = rng.random(arity) < p_dead
        dead[rng.integers(arity)] = False
        lines[0, arity:] = NO_CHILD
        lines[0, :arity][dead] = NO_CHILD
        lines[1:, :arity][:, dead] = 0
    return weights.nested(tree, n_features)


def model(seed, kind, n_classes, arity, smoothing=0.0, n_rows=6, n_features=30, **options):
    """A tree, its weights, their smoothing and rows."""
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, kind, n_classes, arity)
    weights = random_weights(rng, tree, n_features, **options)
    return tree, weights, smoothing, *random_rows(rng, n_rows, n_features)


def log_proba_of(module, tree, *args):
    out = np.full((len(args[2]) - 1, tree.n_classes), np.nan)
    module.all_log_proba(tree, *args, out)
    return out


def top_k_of(module, args, k, min_log_proba=-np.inf, beam_width=0, rescored=None):
    shape = (len(args[3]) - 1, k)
    classes, log_proba = np.full(shape, -7, np.int32), np.full(shape, np.nan)
    module.top_k(*args, min_log_proba, beam_width, rescored, classes, log_proba)
    return classes, log_proba


def assert_log_proba_close(actual, expected):
    """Sums of float32 along a path; -inf where, and only where, it is expected."""
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def assert_answers(classes, log_proba, of_all, rows, min_log_proba, rescored):
    """They are the best of all classes, of which the likely ones have been scored again."""
    every = np.tile(np.arange(of_all.shape[1], dtype=np.int32), (len(of_all), 1))
    if rescored is not None:
        order = np.lexsort((every, -of_all))
        likely = order[:, : rescored.most].astype(np.int32)
        before = np.take_along_axis(of_all, likely, axis=1)
        is_likely = before >= rescored.least
        likely, before = np.where(is_likely, likely, -1), np.where(is_likely, before, -np.inf)
        rescoring.rescore(rescored, *rows, likely, before)
        of_all = of_all.copy()
        for row, found, log_p in zip(of_all, likely, before, strict=True):
            row[found[found >= 0]] = log_p[found >= 0]
    for a, b in zip(
        (classes, log_proba), sorted_classes(of_all, classes.shape[1], min_log_proba), strict=True
    ):
        np.testing.assert_array_equal(a, b)


# -- rescoring.pyx ----------------------------------------------------------


def random_similarities(rng, n_classes, n_features, is_white):
    """Of classes with few features, with many, with all and with none."""
    has = rng.random((n_classes, n_features)) < rng.choice([0, 0.05, 0.5, 1], (n_classes, 1))
    has |= is_white
    starts = np.concatenate([[0], np.cumsum(has.sum(axis=1))]).astype(np.int64)
    features = np.nonzero(has)[1].astype(np.int32)
    arrays = dict(
        starts=starts,
        features=features[:0] if is_white else features,
        values=rng.normal(size=len(features)).astype(np.float32),
        biases=rng.normal(size=n_classes).astype(np.float32) * is_white,
        lengths=np.ones(n_classes),
        feature_weights=rng.random(0 if is_white else n_features).astype(np.float32) + 0.5,
        coefficients=np.ones(2),
        reach=np.array(FEW),
        kept=np.zeros(1),
    )
    return Rescoring(arrays)


def random_rescoring(rng, n_classes, n_features, most, least):
    similarities = random_similarities(rng, n_classes, n_features, rng.random() < 0.5)
    return similarities.with_coefficients(0.7, 2.0).with_reach(most, least, 0.0)


@settings(max_examples=80, deadline=None)
@given(
    SEEDS, st.booleans(), st.booleans(), st.sampled_from([1, 3, 20, 300]), st.integers(1, 30),
    st.sampled_from([1e-20, 1.0, 1e30]),
)  # fmt: skip
def test_rescore_and_similarities(seed, is_white, is_full, n_features, n_classes, scale):
    rng = np.random.default_rng(seed)
    centroids = random_similarities(rng, n_classes, n_features, is_white).with_coefficients(0.7, 2.0)
    rows = random_rows(rng, 6, n_features)
    if is_full:
        rows = full_csr(rng.normal(size=(6, n_features)).astype(np.float32))
        rows = rows.indptr.astype(np.int64), rows.indices, rows.data
    width = rng.integers(1, n_classes + 3)
    # as a search answers: sorted, ties in order of class, and room for more
    log_p = -rng.integers(0, 9, (6, n_classes)) / 2
    classes = np.lexsort((np.tile(np.arange(n_classes), (6, 1)), -log_p), axis=1)[:, :width].astype(np.int32)
    log_p = np.take_along_axis(log_p, classes, axis=1)
    classes = np.pad(classes, ((0, 0), (0, width - classes.shape[1])), constant_values=-1)
    log_p = np.pad(log_p, ((0, 0), (0, width - log_p.shape[1])), constant_values=-np.inf)
    results, similarity = [], []
    for module in (rescoring, reference):
        results.append((classes.copy(), log_p.copy()))
        similarity.append(np.full(classes.shape, -7.0))
        if scale != 1 and not is_white:  # lengths do not matter
            data = (rows[2] * np.float32(scale)) if module is rescoring else rows[2]
        else:
            data = rows[2]
        module.similarities(centroids, *rows[:2], data, classes, similarity[-1])
        module.rescore(centroids, *rows[:2], data, *results[-1])
    size = np.abs(similarity[1]).max()
    np.testing.assert_allclose(*similarity, rtol=1e-4, atol=1e-6 * size)
    (actual, actual_log_p), (expected, expected_log_p) = results
    np.testing.assert_allclose(actual_log_p, expected_log_p, rtol=1e-4, atol=1e-4)
    # answers that are equal but for rounding may change places
    swapped = actual != expected
    for i, j in np.argwhere(swapped):
        assert np.any(np.abs(np.delete(expected_log_p[i], j) - expected_log_p[i, j]) < 1e-4)
    np.testing.assert_array_equal(np.sort(actual, axis=1), np.sort(expected, axis=1))
    np.testing.assert_allclose(np.exp(actual_log_p).sum(axis=1), np.exp(log_p).sum(axis=1), rtol=1e-12)


# -- forests.pyx ------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    SEEDS, st.integers(1, 4), st.integers(1, 40), st.sampled_from([2, 5, 17]),
    st.integers(1, 8), st.sampled_from([-np.inf, -3.0, -0.5]), st.sampled_from([0.0, 0.1, 3.0, 300.0]),
    st.sampled_from([None, (1, -2.0), (4, -3.0), (50, -4.0)]), st.sampled_from([0.0, 0.01]),
)  # fmt: skip
def test_average_top_k(seed, n_trees, n_classes, arity, k, min_log_proba, scale, reach, smoothing):
    rng = np.random.default_rng(seed)
    models = []
    for _ in range(n_trees):
        tree = random_tree(rng, rng.choice(TREES), n_classes, arity)
        models.append((tree, random_weights(rng, tree, 20, scale=scale, p_dead=0.1), smoothing))
    rows, k = random_rows(rng, 5, 20), min(k, n_classes)
    rescored = reach and random_rescoring(rng, n_classes, 20, *reach)
    results = []
    for module in (forests, reference):
        results.append((np.full((5, k), -7, np.int32), np.full((5, k), np.nan)))
        module.average_top_k(models, *rows, min_log_proba, rescored, *results[-1])
    (classes, log_proba), (_, expected_log_proba) = results
    # to the last bit what the other kernels give
    total = np.full((5, n_classes), -np.inf)
    for model in models:
        log_p = np.zeros((5, n_classes))
        paths.all_log_proba(*model, *rows, log_p)
        forests.add_log_proba(log_p, total)
    total -= math.log(n_trees)  # as C has it: numpy 1 differs in the last bit
    assert_answers(classes, log_proba, total, rows, min_log_proba, rescored)
    # and nearly what the formula does; logits are float32, and grow with the scale
    near = 1e-4 * max(1, scale)
    bounds = [min_log_proba] + ([] if reach is None else [reach[1]])
    finite = total[total > -np.inf]
    if all(np.all(np.abs(finite - bound) > near) for bound in bounds):
        is_unsure = expected_log_proba < min_log_proba + near  # rounding decides whether it is answered
        after = np.where(is_unsure, log_proba, expected_log_proba)
        np.testing.assert_allclose(log_proba, after, rtol=1e-4, atol=near)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 4), st.integers(0, 6))
def test_add_log_proba(seed, n_rows, n_columns):
    rng = np.random.default_rng(seed)
    log_proba, total = rng.choice([-np.inf, -900.0, -3.0, -0.1, 0.0], (2, n_rows, n_columns))
    actual, expected = total.copy(), total.copy()
    forests.add_log_proba(log_proba, actual)
    reference.add_log_proba(log_proba, expected)
    np.testing.assert_allclose(actual, expected, rtol=1e-14, atol=1e-15)


# -- rows.pyx ---------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 8), st.integers(1, 30))
def test_hash_rows(seed, n_rows, n_features):
    indptr, indices, data = random_rows(np.random.default_rng(seed), n_rows, n_features)
    data[::3] = 0
    out, expected = np.full((2, n_rows), 7, np.uint64)
    rows.hash_rows(indptr, indices, data, out)
    reference.hash_rows(indptr, indices, data, expected)
    np.testing.assert_array_equal(out, expected)
    matrix = sparse.csr_array((data, indices, indptr), shape=(n_rows, n_features))
    matrix.eliminate_zeros()
    rows.hash_rows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data, expected)
    np.testing.assert_array_equal(out, expected)
    assert len(np.unique(out)) == len(np.unique(matrix.toarray(), axis=0))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 8), st.integers(1, 30))
def test_sum_values(seed, n_rows, n_features):
    indptr, _, data = random_rows(np.random.default_rng(seed), n_rows, n_features)
    data[::3] = 0
    results = []
    for module in (rows, reference):
        results.append((np.full(n_rows, -7), *np.full((2, n_rows), np.nan)))
        module.sum_values(indptr, data, *results[-1])
    for result, expected in zip(*results, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-14)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 8), st.integers(1, 30))
def test_count_columns(seed, n_rows, n_features):
    _, indices, data = random_rows(np.random.default_rng(seed), n_rows, n_features)
    data[::3] = 0
    counts = np.full((2, n_features), -7)
    for module, out in zip((rows, reference), counts, strict=True):
        module.count_columns(indices, data, out)
    np.testing.assert_array_equal(*counts)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 8), st.integers(1, 30))
def test_unit_rows(seed, n_rows, n_features):
    rng = np.random.default_rng(seed)
    indptr, indices, data = random_rows(rng, n_rows, n_features)
    data[:: rng.integers(1, 4)] = 0
    weights = rng.choice([0, 0.5, 7], n_features).astype(np.float32)
    results = []
    for module in (rows, reference):
        results.append((np.full(n_rows, np.nan), np.full(len(data), np.nan, np.float32)))
        module.unit_rows(indptr, indices, data, weights, *results[-1])
    for result, expected in zip(*results, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-6)
    out = sparse.csr_array((results[0][1], indices, indptr), shape=(n_rows, n_features)).toarray()
    is_long = results[0][0] > 0
    np.testing.assert_allclose((out[is_long] ** 2 @ weights), 1, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(0, 8), st.integers(1, 30), st.sampled_from([0.0, 0.2, 0.5, 0.999]))
def test_keep_large(seed, n_rows, n_features, share):
    rng = np.random.default_rng(seed)
    indptr, indices, data = random_rows(rng, n_rows, n_features)
    weights = rng.choice([0.5, 1, 7], n_features).astype(np.float32)
    results = []
    for module in (rows, reference):
        room = np.full(len(data), -7, np.int32), np.full(len(data), -7, np.float32)
        results.append((np.full(n_rows, -7), *room))
        module.keep_large(indptr, indices, data, weights, share, *results[-1])
    for result, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(result, expected)
    assert np.all(results[0][0][np.diff(indptr) > 0] > 0)  # the largest is always there


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 9), st.integers(0, 5), st.sampled_from([1, 30, 64, 65, 5000, 9000]))
def test_sum_rows(seed, n_rows, n_groups, n_features):
    rng = np.random.default_rng(seed)
    matrix = sparse.random_array(
        (n_rows, n_features),
        density=rng.choice([0.3, 0.9, 1]),
        random_state=rng,
        format="csr",
        dtype=np.float32,
    )
    matrix.data[::3] *= -1
    matrix.data[::7] = 0
    arrays = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data
    group_ptr = np.concatenate([[0], np.cumsum(rng.integers(0, 4, n_groups))])
    members = rng.integers(0, n_rows, group_ptr[-1])
    scale = rng.normal(size=len(members))
    room = int(np.diff(arrays[0])[members].sum())
    results = []
    for module in (rows, reference):
        sums = np.full(room, -7, np.int32), np.full(room, np.nan, np.float32)
        results.append((np.full(n_groups, -7), *sums))
        module.sum_rows(group_ptr, members, scale, *arrays, n_features, *results[-1])
    counts, columns, sums = results[0]
    np.testing.assert_array_equal(counts, results[1][0])
    np.testing.assert_array_equal(columns, results[1][1])
    np.testing.assert_allclose(sums, results[1][2], rtol=1e-6, atol=1e-12)
    of = sparse.csr_array((scale, members, group_ptr), shape=(n_groups, n_rows))
    n = counts.sum()
    summed = sparse.csr_array((sums[:n], columns[:n], offsets(counts)), shape=(n_groups, n_features))
    np.testing.assert_allclose(summed.toarray(), of @ matrix.toarray(), rtol=1e-6, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    SEEDS,
    st.integers(1, 4),
    st.sampled_from([-1, 0, 1, 7, 8, 2**31 - 1]),
    st.sampled_from([np.nan, np.inf, -np.inf, 3e38, 0]),
)
def test_are_plain(seed, n_rows, column, value):
    rng = np.random.default_rng(seed)
    indptr, columns, values = random_rows(rng, n_rows, 8)
    assert rows.are_plain(indptr, columns, values, 8)
    changed = [(columns[::-1].copy(), values)]
    if len(values):
        at = rng.integers(len(values))
        for array, new in ((0, column), (1, value)):
            changed.append((columns.copy(), values.copy()))
            changed[-1][array][at] = new
    for columns, values in changed:
        expected = reference.are_plain(indptr, columns, values, 8)
        assert rows.are_plain(indptr, columns, values, 8) == expected


# -- nodes.pyx --------------------------------------------------------------


def random_problem(seed, arity, fit_intercept=True, n_classes=40, n_features=20, **settings):
    """A problem of a random tree, some of whose classes have no rows."""
    rng = np.random.default_rng(seed)
    indptr, indices, data = random_rows(rng, 60, n_features, scale=0.7)
    X = sparse.csr_array((np.abs(data), indices, indptr), shape=(60, n_features))
    tree = random_tree(rng, "random", n_classes, arity)
    y = rng.choice(rng.permutation(n_classes)[:25], 60).astype(np.int32)
    weights = rng.choice([0.5, 1, 3], 60).astype(np.float32)
    goal = dict(tol=1e-9, max_iter=2) | settings
    problem = Problem(X, y, weights, tree, fit_intercept, goal["tol"], goal["max_iter"], seed)
    drawn = zip(rng.choice(PRIORS, tree.n_inner), rng.choice([0.3, 2], (tree.n_inner, 2)), strict=True)
    problem.penalties = Penalties.of_nodes([Penalty(C, str(name), scale) for name, (C, scale) in drawn])
    return problem


def trained(module, problem, inner):
    """Numbers of features, weights, passes and whether nodes converged."""
    trainer, n_inner = module.NodeTrainer(problem), problem.tree.n_inner
    n_features = np.zeros(n_inner, np.int64)
    trainer.count_features(inner, n_features)
    weights = NodeWeights.of_sizes(n_features, np.diff(problem.tree.child_ptr))
    for array in (weights.lines, weights.features):
        array[:] = 7
    n_iter, converged = np.full(n_inner, -7, np.int32), np.full(n_inner, 7, np.uint8)
    trainer.train(inner, problem.penalties, weights, n_iter, converged)
    return weights, n_iter, converged


def after_earlier_rows(problem, seed):
    """The problem with some of its rows, after training with the others."""
    drawn = np.random.default_rng(seed).permutation(len(problem.y))

    def part(rows):
        return replace(problem, X=problem.X[rows], y=problem.y[rows], row_weights=problem.row_weights[rows])

    earlier, _, _ = trained(nodes, part(drawn[:30]), np.arange(problem.tree.n_inner))
    return replace(part(drawn[30:]), earlier=earlier)


@settings(max_examples=80, deadline=None)
@given(SEEDS, st.sampled_from(ARITIES), st.booleans(), st.sampled_from([0, 1]), st.booleans())
def test_node_trainer(seed, arity, fit_intercept, max_iter, had_rows):
    # the kernel's gap is good to 1e-7: below that, who is done is chance
    problem = random_problem(seed, arity, fit_intercept, max_iter=max_iter, tol=1e-4)
    problem = after_earlier_rows(problem, seed) if had_rows else problem
    n = problem.tree.n_inner
    inner = np.random.default_rng(seed).permutation(n)[: max(1, n - 1)]  # one is left alone
    actual, expected = trained(nodes, problem, inner), trained(reference, problem, inner)
    for name, array in actual[0].to_arrays().items():
        other = expected[0].to_arrays()[name]
        if name == "lines":
            np.testing.assert_allclose(array, other, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(array, other)
    np.testing.assert_array_equal(actual[1], expected[1])
    np.testing.assert_array_equal(actual[2], expected[2])


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(ARITIES), st.booleans())
def test_full_rows_are_trained_where_they_are_as_they_would_be_copied(seed, arity, had_rows):
    problem = random_problem(seed, arity, max_iter=3)
    values = problem.X.toarray()
    full = replace(problem, X=full_csr(values))
    wider = replace(problem, X=full_csr(values))
    wider.X.resize(values.shape[0], values.shape[1] + 1)  # no row has the last feature
    if had_rows:
        full, wider = (after_earlier_rows(each, seed) for each in (full, wider))
    inner = np.arange(problem.tree.n_inner)
    (weights, *rest), (expected, *others) = (trained(nodes, each, inner) for each in (full, wider))
    for name, array in weights.to_arrays().items():
        np.testing.assert_array_equal(array, expected.to_arrays()[name])
    np.testing.assert_array_equal(rest, others)
    rows, penalties = full.rows_of(0), (np.array([2.0]), np.array([2], np.int32), np.array([0.5]))
    losses = np.full((2, 1), np.nan)
    for each, out in zip((full, wider), losses, strict=True):
        trainer = trials.TrialTrainer(each)
        trainer.held_out_losses(
            trainer.take(0, rows, problem.children_of(0, rows), problem.row_weights[rows], len(rows) - 5),
            *penalties,
            out,
        )
    np.testing.assert_array_equal(*losses)


def test_node_trainer_is_the_same_for_any_tasks():
    problem = random_problem(3, 5, max_iter=50)
    everything = np.arange(problem.tree.n_inner)
    at_once, n_iter, _ = trained(nodes, problem, everything)
    weights = NodeWeights.of_sizes(np.diff(at_once.feature_ptr), np.diff(problem.tree.child_ptr))
    for v in everything[::-1]:
        done = np.zeros(len(everything), np.uint8)
        nodes.NodeTrainer(problem).train(everything[v : v + 1], problem.penalties, weights, n_iter, done)
    for name, array in at_once.to_arrays().items():
        np.testing.assert_array_equal(array, weights.to_arrays()[name])


class Node:
    """A random node to train, and what its training has reached."""

    def __init__(self, seed, arity, fit_intercept, n_rows=30, n_features=24):
        rng = np.random.default_rng(seed)
        self.arity, self.fit_intercept, self.n_features = arity, fit_intercept, n_features
        self.rows = random_rows(rng, n_rows, n_features, scale=0.7)
        indptr, indices, data = self.rows
        self.x = sparse.csr_array((data, indices, indptr), shape=(n_rows, n_features)).toarray().astype(float)
        self.square_norms = (np.sum(self.x**2, axis=1) + fit_intercept).astype(np.float32)
        self.costs = rng.choice([0.5, 1, 3], n_rows).astype(np.float32)
        width = LINE * n_lines(arity)
        self.child = rng.integers(arity, size=n_rows)
        self.dual = np.zeros((n_rows, width), np.float32)
        self.dual[np.arange(n_rows), self.child] = 1
        self.weights = np.zeros((n_features, width), np.float32)
        self.bias = np.full(width, NO_CHILD)
        self.bias[np.unique(self.child)] = 0
        self.total = float(self.costs.sum())

    def ascend(self, module, max_iter, tol=1e-9):
        return module.ascend_dual(
            *self.rows, self.square_norms, self.costs, self.dual,
            self.weights, self.bias, self.fit_intercept, tol, max_iter, 7,
        )  # fmt: skip

    def weights_of_dual(self):
        """sum of cost * (child's unit vector - q) (x) x; the last row is the intercept's."""
        x = np.column_stack([self.x, np.full(len(self.x), self.fit_intercept)])
        errors = -self.dual.astype(float)
        errors[np.arange(len(x)), self.child] += 1
        return x.T @ (self.costs[:, None] * errors)

    def dual_objective(self):
        q = self.dual.astype(float)
        return -np.sum(self.weights_of_dual() ** 2) / 2 - self.costs @ np.sum(xlogy(q, q), axis=1)

    def primal_objective(self):
        W, b = self.weights.astype(float), self.bias.astype(float)
        z = self.x @ W + b
        losses = logsumexp(z, axis=1) - z[np.arange(len(z)), self.child]
        return (np.sum(W**2) + np.sum(b[b > NO_CHILD] ** 2)) / 2 + self.costs @ losses

    def duality_gap(self):
        return self.primal_objective() - self.dual_objective()


NODES = pytest.mark.parametrize("arity", ARITIES)
INTERCEPT = pytest.mark.parametrize("fit_intercept", [True, False])


@NODES
@pytest.mark.parametrize(
    ("fit_intercept", "max_iter", "atol"),
    # without intercept, rows without features are done after two passes, but for rounding,
    # on which the order of later visits would hang
    [(True, 0, 0), (True, 1, 1e-5), (True, 2, 1e-4), (True, 5, 3e-3), (False, 1, 1e-5), (False, 2, 1e-4)],
)
@pytest.mark.parametrize("seed", range(3))
def test_ascend_dual(arity, fit_intercept, max_iter, atol, seed):
    # The kernel's KL is a difference of float32 sums, good to 1e-7, so near the optimum it
    # knows a row's step to about the root of that only: ever more so pass by pass.
    kernel, twin = Node(seed, arity, fit_intercept), Node(seed, arity, fit_intercept)
    n_iter, gap, done = kernel.ascend(ascent, max_iter)
    expected_n_iter, expected_gap, expected_done = twin.ascend(reference, max_iter)
    assert n_iter == expected_n_iter == max_iter
    assert done is expected_done is False
    assert gap == pytest.approx(expected_gap, rel=1e-5, abs=1e-5 * kernel.total)
    for name in ("dual", "weights", "bias"):
        np.testing.assert_allclose(getattr(kernel, name), getattr(twin, name), rtol=1e-5, atol=atol)
    objectives = kernel.dual_objective(), twin.dual_objective()
    assert objectives[0] == pytest.approx(objectives[1], abs=1e-5 * kernel.total)


@NODES
@INTERCEPT
@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-3])
def test_ascend_dual_stops_where_its_twin_does(arity, fit_intercept, tol):
    kernel, twin = Node(0, arity, fit_intercept), Node(0, arity, fit_intercept)
    n_iter, gap, done = kernel.ascend(ascent, 1000, tol)
    expected_n_iter, expected_gap, expected_done = twin.ascend(reference, 1000, tol)
    assert n_iter == expected_n_iter
    assert done and expected_done
    assert gap <= tol * kernel.total
    assert gap == pytest.approx(expected_gap, rel=1e-3, abs=1e-5 * kernel.total)


@pytest.mark.parametrize("n_rows", [900, 3000])
@pytest.mark.parametrize("tol", [0.3, 0.03])
def test_some_of_many_rows_measure_the_gap(n_rows, tol):
    # of fewer than 1000 all have to; the passes before are those of a node that is not yet done
    kernel, twin = Node(1, 7, True, n_rows), Node(1, 7, True, n_rows)
    n_iter, gap, done = kernel.ascend(ascent, 1000, tol)
    assert (n_iter, done) == (twin.ascend(reference, 1000, tol)[0], True)
    assert kernel.duality_gap() <= tol * kernel.total
    assert (gap == pytest.approx(kernel.duality_gap(), rel=1e-4)) == (n_rows == 900)
    assert gap == pytest.approx(kernel.duality_gap(), rel=0.3)


def test_a_sixteenth_of_very_many_rows_measures_the_gap():
    kernel, twin = Node(1, 3, True, 20_000, 6), Node(1, 3, True, 20_000, 6)
    gaps = [node.ascend(module, 1000, 0.03)[1] for node, module in ((kernel, ascent), (twin, reference))]
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-3)
    assert gaps[0] != pytest.approx(kernel.duality_gap(), rel=1e-3)


@pytest.mark.parametrize("tol", [0.1, 0.01])
@pytest.mark.parametrize("seed", range(5))
def test_rows_that_outweigh_others_are_all_asked(seed, tol):
    node = Node(seed, 7, True, 3000)
    node.costs[:] = 1
    node.costs[:3] = 1000
    node.total = float(node.costs.sum())
    n_iter, gap, done = node.ascend(ascent, 1000, tol)
    assert done
    assert node.duality_gap() <= (tol + 1e-6) * node.total
    if n_iter > 5:
        assert gap == pytest.approx(node.duality_gap(), rel=1e-3, abs=1e-6 * node.total)


@NODES
@INTERCEPT
@pytest.mark.parametrize("seed", range(2))
def test_the_dual_objective_never_falls(arity, fit_intercept, seed):
    node = Node(seed, arity, fit_intercept)
    objectives = [node.dual_objective()]
    for _ in range(20):
        node.ascend(ascent, 1)
        objectives.append(node.dual_objective())
    assert np.diff(objectives).min() >= -1e-6 * node.total
    assert objectives[1] > objectives[0]


@NODES
@INTERCEPT
@pytest.mark.parametrize("max_iter", [1, 3, 200])
def test_weights_are_those_of_the_dual(arity, fit_intercept, max_iter):
    node = Node(1, arity, fit_intercept)
    node.ascend(ascent, max_iter)
    expected = node.weights_of_dual()
    np.testing.assert_allclose(node.weights, expected[:-1], rtol=1e-5, atol=1e-5)
    exists = node.bias > NO_CHILD
    np.testing.assert_allclose(node.bias[exists], expected[-1, exists], rtol=1e-5, atol=1e-5)
    assert np.abs(node.weights).max() > 0.1


@NODES
@INTERCEPT
@pytest.mark.parametrize("max_iter", [0, 1, 3, 200])
def test_a_pass_that_moves_nothing_finds_the_duality_gap(arity, fit_intercept, max_iter):
    node = Node(2, arity, fit_intercept)
    node.ascend(ascent, max_iter)
    before = [array.copy() for array in (node.dual, node.weights, node.bias)]
    n_iter, gap, done = node.ascend(ascent, 1, tol=1e6)
    for array, same in zip((node.dual, node.weights, node.bias), before, strict=True):
        np.testing.assert_array_equal(array, same)
    assert (n_iter, done) == (1, True)
    assert gap == pytest.approx(node.duality_gap(), rel=1e-5, abs=1e-6 * node.total)


@NODES
@INTERCEPT
@pytest.mark.parametrize("tol", [0.3, 0.1, 1e-2, 1e-3])
def test_training_ends_with_a_duality_gap_within_tol(arity, fit_intercept, tol):
    node = Node(6, arity, fit_intercept)
    n_iter, gap, done = node.ascend(ascent, 1000, tol)
    assert done
    assert node.duality_gap() <= tol * node.total + 1e-6 * node.total
    if n_iter > 5:  # early on it is an estimate, of rows that have moved since
        assert gap == pytest.approx(node.duality_gap(), rel=1e-4, abs=1e-6 * node.total)


@NODES
@INTERCEPT
def test_ascend_dual_reaches_the_optimum(arity, fit_intercept):
    # the primal objective is nowhere below the dual one: where they meet, both are optimal
    node = Node(3, arity, fit_intercept)
    start = node.duality_gap()
    _, _, done = node.ascend(ascent, 1000, tol=1e-5)
    assert done
    assert start > 0.1 * node.total
    assert -1e-6 * node.total <= node.duality_gap() <= 1e-4 * node.total


@NODES
def test_ascend_dual_leaves_alone_what_it_has_no_rows_for(arity):
    node = Node(4, arity, True)
    exists = node.bias > NO_CHILD
    assert exists.sum() < len(exists)
    node.ascend(ascent, 50)
    unused = np.setdiff1d(np.arange(node.n_features), node.rows[1])
    assert len(unused)
    assert not node.weights[unused].any()
    assert not node.weights[:, ~exists].any()
    assert not node.dual[:, ~exists].any()
    assert (node.bias[~exists] == NO_CHILD).all()
    assert node.dual.min() >= 0
    np.testing.assert_allclose(node.dual.sum(axis=1), 1, rtol=1e-5)


@NODES
def test_rows_without_features_train_the_intercept_only(arity):
    node = Node(5, arity, True)
    n_rows = len(node.costs)
    node.rows = (np.zeros(n_rows + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    node.x[:], node.square_norms[:] = 0, 1
    node.ascend(ascent, 1000, tol=1e-6)
    assert not node.weights.any()
    assert node.duality_gap() <= 1e-5 * node.total
    without = Node(5, arity, False)
    without.rows, without.square_norms[:] = node.rows, 0
    without.ascend(ascent, 1000, tol=1e-6)
    seen = without.bias > NO_CHILD
    np.testing.assert_array_equal(without.bias, np.where(seen, 0, NO_CHILD))
    expected = np.broadcast_to(seen / seen.sum(), without.dual.shape)
    np.testing.assert_allclose(without.dual, expected, atol=1e-3)


# -- trials.pyx -------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(ARITIES), st.booleans(), st.sampled_from([0, 1]))
def test_held_out_losses(seed, arity, fit_intercept, max_iter):
    problem = random_problem(seed, arity, fit_intercept, max_iter=max_iter)
    v = 0
    drawn = np.random.default_rng(seed).permutation(problem.rows_of(v))
    child = problem.children_of(v, drawn)
    train, held = drawn[:40], drawn[40:][np.isin(child[40:], child[:40])]
    penalties = np.array([0.3, 2, 2, 0.3]), np.array([2, 2, 0, 1], np.int32), np.array([0.5, 2, 1, 1])
    losses = []
    for module in (trials, reference):
        losses.append(np.full((2, 4), np.nan))
        trainer = module.TrialTrainer(problem)
        # a row of which copies are to train, too, is there twice
        rows = np.concatenate([train, held, train[:3]])
        weights = np.random.default_rng(seed).uniform(0.5, 2, len(rows)).astype(np.float32)
        taken = trainer.take(v, rows, problem.children_of(v, rows), weights, len(train))
        for out in losses[-1]:  # the second time with the same guesses
            trainer.held_out_losses(taken, *penalties, out)
        np.testing.assert_array_equal(*losses[-1])
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_taken_rows_outlive_their_problem(index):
    # kernels number features by int32, of which a problem then makes a copy of its own
    problem = random_problem(0, 7, max_iter=3)
    penalties = (np.array([2.0]), np.array([2], np.int32), np.array([0.5]))
    values, rows, losses = problem.X.toarray(), problem.rows_of(0), np.full((2, 1), np.nan)
    for out, is_old in zip(losses, (True, False), strict=True):
        X = full_csr(values)
        X.indices = X.indices.astype(index)
        full = replace(problem, X=X)
        child = full.children_of(0, rows)
        taken = trials.TrialTrainer(replace(full)).take(0, rows, child, full.row_weights[rows], len(rows) - 5)
        gc.collect()
        others = [np.full(X.nnz, 2**30, np.int32) for _ in range(50 * is_old)]
        trials.TrialTrainer(full).held_out_losses(taken, *penalties, out)
        assert all((other == 2**30).all() for other in others)
    np.testing.assert_array_equal(*losses)


# -- packing.pyx ------------------------------------------------------------

STEPS = [1e-6, 1e-4, 0.01, 0.2, 1.0, 5.0]


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.sampled_from(ARITIES), st.sampled_from(STEPS), st.sampled_from([20, 1 << 17, 2**31 - 1]))
def test_packing(seed, arity, step, n_features):
    """Entries are those of the twin, and give the rounded weights back, a feature's less by one number."""
    problem = random_problem(seed, arity, max_iter=1)
    weights, _, _ = trained(nodes, problem, np.arange(problem.tree.n_inner))
    weights.lines *= np.random.default_rng(seed).choice([0, 1, 30], (len(weights.lines), 1))
    child_ptr, counts = problem.tree.child_ptr, np.zeros((2, problem.tree.n_inner, 8), np.int64)
    tags = np.empty((2, len(weights.features)), dtype=np.int8)
    for module, *out in zip((packing, reference), tags, counts, strict=True):
        module.choose_tags(weights, child_ptr, step, *out)
    np.testing.assert_array_equal(*tags)
    np.testing.assert_array_equal(*counts)
    packed = PackedWeights.of(weights, child_ptr, n_features, step)
    twin = PackedWeights({name: array.copy() for name, array in packed.to_arrays().items()})
    twin.entries[:], twin.buckets[:] = 0, 7
    reference.pack_weights(weights, child_ptr, tags[0], twin)
    np.testing.assert_array_equal(packed.entries, twin.entries)
    np.testing.assert_array_equal(packed.buckets, twin.buckets)
    for v, n_children in enumerate(np.diff(child_ptr)):
        features, W, bias = weights.node(v, n_children)
        integers = np.rint(W / np.float32(step)).astype(np.float64)
        got, got_W, got_bias = packed.node(v, n_children)
        differ = np.ptp(integers, axis=1) > 0
        kept = np.flatnonzero((np.abs(W).max(axis=1, initial=0) >= 2 * np.float32(step)) & differ)
        kept = kept[np.argsort(features[kept])]
        np.testing.assert_array_equal(np.sort(got), features[kept])
        some = got_W[np.argsort(got)]
        is_same = (some == np.float32(step) * integers[kept].astype(np.float32)).all(axis=1)
        less = integers[kept] - np.rint(some / np.float32(step))
        assert np.all(is_same | (np.ptp(less, axis=1) == 0))
        np.testing.assert_array_equal(got_bias, bias)
        out = np.empty_like(got), np.empty_like(got_W)
        reference.unpack_node(packed, v, int(n_children), *out)
        np.testing.assert_array_equal(out[0], got)
        np.testing.assert_array_equal(out[1], got_W)


@pytest.mark.parametrize("n_children", [2, 16, 17, 255, 256, 257, 300])
def test_packing_of_few_children(n_children):
    """The last of many children, too, and the largest difference that a byte holds."""
    child_ptr = np.array([0, n_children], dtype=np.int32)
    weights = NodeWeights.of_sizes(np.array([6]), np.array([n_children]))
    W = np.full((6, n_children), -3, dtype=np.float32)
    W[0, -1], W[1, -1], W[2, -1], W[4, [0, -1]], W[5] = 124, 125, -130, (3e38, 5), 0
    W[5, n_children // 2] = -3e38
    weights.fill(0, np.arange(6, dtype=np.int32), W, np.zeros(n_children, dtype=np.float32))
    for step in (1.0, 1e-3):
        packed = PackedWeights.of(weights, child_ptr, 6, step)
        twin = PackedWeights({name: array.copy() for name, array in packed.to_arrays().items()})
        tags, counts = np.empty(6, np.int8), np.zeros((1, 8), np.int64)
        reference.choose_tags(weights, child_ptr, step, tags, counts)
        reference.pack_weights(weights, child_ptr, tags, twin)
        np.testing.assert_array_equal(packed.entries, twin.entries)
        features, got, _ = packed.node(0, n_children)
        assert set(features) == {0, 1, 2, 4, 5}  # all children have the same of feature 3
        less = W[:3] - got[np.argsort(features)][:3]
        np.testing.assert_allclose(less - less[:, [1]], 0, atol=1e-4)


# -- ranks.pyx --------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(SEEDS, st.integers(1, 30), st.sampled_from([1, 31, 32, 33, 200]), st.booleans())
def test_rank_features(seed, n_classes, n_features, are_nested):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, "random", n_classes, 4)
    has = rng.random((tree.n_inner, n_features)) < rng.choice([0, 0.1, 0.9, 1], (tree.n_inner, 1))
    above = nearest_with_features(has.sum(axis=1), tree.parents)
    for v in range(tree.n_inner):
        if above[v] >= 0 and are_nested:
            has[v] &= has[above[v]]
    above = nearest_with_features(has.sum(axis=1), tree.parents)
    features, feature_ptr = np.nonzero(has)[1].astype(np.int32), offsets(has.sum(axis=1))
    words, word_ptr, is_loose = node_weights.ranks(features, feature_ptr, above, n_features)
    assert not (are_nested and is_loose.any())
    twin, twin_loose = np.zeros_like(words), np.zeros(tree.n_inner, np.uint8)
    nodes = np.flatnonzero(has.any(axis=1))
    reference.rank_features(features, feature_ptr, above, nodes, n_features, twin, word_ptr, twin_loose)
    np.testing.assert_array_equal(words, twin)
    np.testing.assert_array_equal(is_loose, twin_loose)


def test_the_nearest_ancestor_with_features():
    parents = np.array([-1, 0, 1, 2, 2, 0, 5], dtype=np.int32)
    expected = {(): [-1] * 7, (0,): [-1, 0, 0, 0, 0, 0, 0], (1, 5): [-1, -1, 1, 1, 1, -1, 5]}
    for with_features, above in expected.items():
        sizes = np.isin(np.arange(7), with_features).astype(np.int64)
        np.testing.assert_array_equal(nearest_with_features(sizes, parents), above)


# -- paths.pyx --------------------------------------------------------------

CASES = pytest.mark.parametrize(
    ("kind", "arity", "smoothing"),
    [
        (kind, arity, smoothing)
        for kind in TREES
        for arity in ARITIES
        for smoothing in (0.0, 0.01)
        if kind != "deep" or arity == 2
    ],
)
N_CLASSES = 60


@CASES
@pytest.mark.parametrize("p_dead", [0, 0.6])
def test_log_proba(kind, arity, smoothing, p_dead):
    args = model(0, kind, N_CLASSES, arity, smoothing, p_dead=p_dead)
    actual, expected = (log_proba_of(module, *args) for module in (paths, reference))
    assert_log_proba_close(actual, expected)
    np.testing.assert_allclose(np.exp(actual).sum(axis=1), 1, rtol=1e-10)
    assert np.isneginf(actual).any() == (p_dead > 0)
    assert actual.max() <= 0  # a node of one child that has rows, too


@CASES
@pytest.mark.parametrize("n_known", [30, 29, 12, 1])  # nodes have up to 30 features
def test_rows_of_all_features_up_to_some(kind, arity, smoothing, n_known):
    known = model(13, kind, N_CLASSES, arity, smoothing, p_dead=0.1)[:3]
    rows = np.random.default_rng(13).normal(size=(5, n_known)).astype(np.float32)
    rows = full_csr(rows)
    args = *known, rows.indptr.astype(np.int64), rows.indices, rows.data
    actual, expected = (log_proba_of(module, *args) for module in (paths, reference))
    assert_log_proba_close(actual, expected)


@CASES
def test_path_log_proba(kind, arity, smoothing):
    args = model(1, kind, N_CLASSES, arity, smoothing, n_rows=20, p_dead=0.1)
    classes = np.random.default_rng(1).permutation(N_CLASSES)[:20].astype(np.int32)
    actual, expected = np.full(20, np.nan), np.full(20, np.nan)
    paths.path_log_proba(*args, classes, actual)
    reference.path_log_proba(*args, classes, expected)
    assert_log_proba_close(actual, expected)
    # to the bit what the other methods say
    np.testing.assert_array_equal(actual, log_proba_of(paths, *args)[np.arange(20), classes])


def sorted_classes(log_proba, k, min_log_proba):
    """The k best of known log-probabilities: classes and log-probabilities."""
    n = len(log_proba)
    order = np.lexsort([np.broadcast_to(np.arange(log_proba.shape[1]), log_proba.shape), -log_proba])[:, :k]
    best = np.take_along_axis(log_proba, order, axis=1)
    kept = best >= min_log_proba
    assert order.shape == (n, k)
    return np.where(kept, order, -1), np.where(kept, best, -np.inf)


@settings(max_examples=60, deadline=None)
@given(
    SEEDS, st.sampled_from(TREES), st.integers(2, 40), st.sampled_from(ARITIES),
    st.sampled_from([0.0, 0.01, 1.0]), st.data(),
)  # fmt: skip
def test_top_k_is_all_log_proba_sorted(seed, kind, n_classes, arity, smoothing, data):
    args = model(seed, kind, n_classes, arity, smoothing, n_rows=3, n_features=10, p_dead=0.1)
    k = data.draw(st.integers(1, n_classes))
    log_proba = log_proba_of(paths, *args)
    # a floor that a class reaches exactly, or that none bounds
    floor = data.draw(st.sampled_from([-np.inf, -1.0, 0.0, float(log_proba[0, 0])]))
    for a, b in zip(top_k_of(paths, args, k, floor), sorted_classes(log_proba, k, floor), strict=True):
        np.testing.assert_array_equal(a, b)
    # some of which are scored again
    rng = np.random.default_rng(seed)
    least = data.draw(st.sampled_from([-0.5, -2.0, -5.0, float(log_proba[0, 0])]))
    rescored = random_rescoring(rng, n_classes, 10, data.draw(st.integers(1, n_classes + 2)), least)
    answers = top_k_of(paths, args, k, floor, 0, rescored)
    assert_answers(*answers, log_proba, args[3:], floor, rescored)
    # rounding decides whether a class at the floor is answered, or at the bound is scored again
    known = log_proba[log_proba > -np.inf]
    if smoothing < 1 and all(np.abs(known - bound).min() > 1e-3 for bound in (floor, least)):
        _, expected = top_k_of(reference, args, k, floor, 0, rescored)
        is_unsure = expected < floor + 1e-3
        np.testing.assert_allclose(
            np.where(is_unsure, 0, answers[1]), np.where(is_unsure, 0, expected), atol=1e-3
        )


@CASES
@pytest.mark.parametrize("k", [1, 5, N_CLASSES])
@pytest.mark.parametrize("beam_width", [0, 1, 3, N_CLASSES])
def test_top_k(kind, arity, smoothing, k, beam_width):
    args = model(2, kind, N_CLASSES, arity, smoothing, n_rows=8)
    rescored = random_rescoring(np.random.default_rng(2), N_CLASSES, 30, 7, -3.0)
    hows = [(-np.inf, beam_width), (-4.0, beam_width)]
    for how in hows if beam_width else [*hows, (-np.inf, 0, rescored)]:
        classes, log_proba = top_k_of(paths, args, k, *how)
        expected_classes, expected = top_k_of(reference, args, k, *how)
        np.testing.assert_array_equal(classes, expected_classes)
        assert_log_proba_close(log_proba, expected)


@pytest.mark.parametrize("kind", TREES)
def test_a_beam_as_wide_as_the_tree_is_exact(kind):
    args = model(3, kind, N_CLASSES, 3, p_dead=0.2)
    exact, beam = (top_k_of(paths, args, 10, beam_width=width) for width in (0, N_CLASSES))
    for a, b in zip(exact, beam, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("module", [paths, reference])
@pytest.mark.parametrize("arity", [2, 4])
@pytest.mark.parametrize("k", [1, 7, 64])
@pytest.mark.parametrize("beam_width", [0, 64])
def test_ties_are_in_the_order_of_classes(module, arity, k, beam_width):
    rng = np.random.default_rng(0)
    tree = balanced_tree(64, arity)._reorder_leaves(rng.permutation(64), np.arange(64))
    args = tree, random_weights(rng, tree, 10, scale=0), 0.0, *random_rows(rng, 4, 10)
    classes, log_proba = top_k_of(module, args, k, beam_width=beam_width)
    np.testing.assert_array_equal(classes, np.broadcast_to(np.arange(k), (4, k)))
    np.testing.assert_allclose(log_proba, -np.log(64), rtol=1e-12)
    # and all of them reach what they have
    np.testing.assert_array_equal(top_k_of(module, args, k, log_proba.max(), beam_width)[0], classes)


@pytest.mark.parametrize("module", [paths, reference])
def test_a_narrow_beam_breaks_ties_by_node(module):
    # a beam of one follows the first of equal nodes, whatever classes lie below
    tree = LabelTree.from_parents([-1, 0, 0, 1, 1, 2, 2])
    tree = tree._reorder_leaves(np.array([2, 3, 0, 1]), np.arange(4))
    rng = np.random.default_rng(0)
    args = tree, random_weights(rng, tree, 3, scale=0), 0.0, *random_rows(rng, 1, 3)
    classes, log_proba = top_k_of(module, args, 4, beam_width=1)
    np.testing.assert_array_equal(classes, [[2, 3, -1, -1]])
    np.testing.assert_allclose(log_proba, [[np.log(0.25), np.log(0.25), -np.inf, -np.inf]])


@CASES
def test_min_log_proba_keeps_the_classes_that_reach_it(kind, arity, smoothing):
    args = model(4, kind, N_CLASSES, arity, smoothing)
    log_proba = log_proba_of(paths, *args)
    floor = float(np.median(log_proba))
    classes, best = top_k_of(paths, args, N_CLASSES, floor)
    np.testing.assert_array_equal(np.sum(classes >= 0, axis=1), np.sum(log_proba >= floor, axis=1))
    assert 0 < np.sum(classes >= 0) < classes.size
    np.testing.assert_array_equal(np.isneginf(best), classes < 0)
    assert best[classes >= 0].min() >= floor


@CASES
def test_k_of_all_classes_is_a_permutation(kind, arity, smoothing):
    args = model(5, kind, N_CLASSES, arity, smoothing, p_dead=0.4)
    classes, log_proba = top_k_of(paths, args, N_CLASSES)
    every = np.broadcast_to(np.arange(N_CLASSES), classes.shape)
    np.testing.assert_array_equal(np.sort(classes, axis=1), every)
    # classes of probability 0 come last, in their order
    for row, row_log_proba in zip(classes, log_proba, strict=True):
        dead = row[np.isneginf(row_log_proba)]
        assert len(dead)
        np.testing.assert_array_equal(row[-len(dead) :], np.sort(dead))


def test_a_child_without_rows_has_probability_zero():
    tree = LabelTree.from_nested([["a", "b"], "c"])
    args = list(model(0, "balanced", 3, 2, n_features=5))
    weights = random_weights(np.random.default_rng(0), tree, 5)
    weights.lines[0, 0], weights.lines[1 : weights.line_ptr[1], 0] = NO_CHILD, 0
    dead = np.arange(3) != tree.leaf_labels.tolist().index("c")
    for module in (paths, reference):
        log_proba = log_proba_of(module, tree, weights, *args[2:])
        np.testing.assert_array_equal(log_proba, np.broadcast_to(np.where(dead, -np.inf, 0), log_proba.shape))
        classes = np.full((len(log_proba), 20), -7, np.int32)
        uniforms = np.broadcast_to(np.linspace(0, 1, 20, endpoint=False), classes.shape).copy()
        module.sample_classes(tree, weights, *args[2:], uniforms, classes)
        assert not dead[classes].any()


@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_logits_beyond_float32(arity, smoothing):
    *known, data = model(6, "random", N_CLASSES, arity, smoothing, scale=1e10, p_dead=0.2)
    args = *known, np.sign(data) * np.float32(1e30)
    actual, expected = (log_proba_of(module, *args) for module in (paths, reference))
    assert not np.isnan(actual).any()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    assert (actual[actual > -np.inf] < -1e27).any()
    np.testing.assert_allclose(np.exp(actual).sum(axis=1), 1, rtol=1e-10)
    log_proba = np.sort(actual, axis=1)[:, ::-1]
    np.testing.assert_array_equal(top_k_of(paths, args, N_CLASSES)[1], log_proba)


def missing_classes(tree, weights):
    """Whether a class has a child with the bias NO_CHILD on its path."""
    missing = np.zeros(tree.n_nodes, dtype=bool)
    for v in range(tree.n_inner):
        children = tree.children[tree.child_ptr[v] : tree.child_ptr[v + 1]]
        missing[children] = missing[v] | (weights.node(v, len(children))[2] == NO_CHILD)
    return missing[tree.n_inner :]


@pytest.mark.parametrize("module", [paths, reference])
@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("value", [1, 1e20, 1e28, 1e30, 1e38])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_only_missing_children_have_probability_zero(module, arity, value, smoothing):
    # whatever the logits: they may be on either side of the -1e30 of a missing child
    *known, data = model(7, "random", N_CLASSES, arity, smoothing, p_dead=0.2)
    log_proba = log_proba_of(module, *known, np.sign(data) * np.float32(value))
    missing = missing_classes(*known[:2])
    assert 0 < missing.sum() < N_CLASSES
    np.testing.assert_array_equal(np.isneginf(log_proba), np.broadcast_to(missing, log_proba.shape))
    np.testing.assert_allclose(np.exp(log_proba).sum(axis=1), 1, rtol=1e-10)


@pytest.mark.parametrize("kind", TREES)
def test_rows_without_features_have_the_logits_of_the_bias(kind):
    tree, weights, *_ = model(8, kind, N_CLASSES, 3)
    empty = np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    actual, expected = (log_proba_of(module, tree, weights, 0.0, *empty) for module in (paths, reference))
    assert_log_proba_close(actual, expected)
    np.testing.assert_array_equal(actual[0], actual[1])
    best = top_k_of(paths, (tree, weights, 0.0, *empty), 5)
    for a, b in zip(best, sorted_classes(actual, 5, -np.inf), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", TREES)
def test_features_that_no_node_knows_change_nothing(kind):
    *known, indptr, indices, data = model(9, kind, N_CLASSES, 3)
    tree, weights, _ = known
    weights.ranked(tree, 2000)
    unknown = np.arange(len(indptr) - 1) + 1000
    wider = np.insert(indices, indptr[1:], unknown).astype(np.int32)
    values = np.insert(data, indptr[1:], 5).astype(np.float32)
    np.testing.assert_array_equal(
        log_proba_of(paths, *known, indptr + np.arange(len(indptr)), wider, values),
        log_proba_of(paths, *known, indptr, indices, data),
    )


@CASES
def test_sample_classes(kind, arity, smoothing):
    args = model(10, kind, N_CLASSES, arity, smoothing, n_rows=4, p_dead=0.2)
    uniforms = np.random.default_rng(10).random((4, 50))
    actual, expected = np.full((4, 50), -7, np.int32), np.full((4, 50), -7, np.int32)
    paths.sample_classes(*args, uniforms, actual)
    reference.sample_classes(*args, uniforms, expected)
    np.testing.assert_array_equal(actual, expected)


@CASES
@pytest.mark.parametrize("module", [paths, reference])
def test_samples_follow_the_distribution(module, kind, arity, smoothing):
    # u on a grid: each class gets its share of the points, give or take one
    args = model(11, kind, N_CLASSES, arity, smoothing, n_rows=2, p_dead=0.1)
    n = 200
    uniforms = np.tile((np.arange(n) + 0.5) / n, (2, 1))
    classes = np.full((2, n), -7, np.int32)
    module.sample_classes(*args, uniforms, classes)
    counts = np.stack([np.bincount(row, minlength=N_CLASSES) for row in classes])
    assert np.abs(counts - n * np.exp(log_proba_of(paths, *args))).max() <= 1 + 1e-6


@pytest.mark.parametrize("module", [paths, reference])
def test_the_largest_uniform_draws_a_class_that_is_possible(module):
    args = model(12, "random", N_CLASSES, 17, p_dead=0.4)
    uniforms = np.full((6, 1), np.nextafter(1, 0))
    classes = np.full((6, 1), -7, np.int32)
    module.sample_classes(*args, uniforms, classes)
    assert (np.take_along_axis(log_proba_of(paths, *args), classes.astype(np.int64), axis=1) > -np.inf).all()


@pytest.mark.parametrize("module", [paths, reference])
@pytest.mark.parametrize("beam_width", [0, 1])
def test_a_tree_of_one_class(module, beam_width):
    tree = balanced_tree(1)
    args = (
        tree,
        NodeWeights.of_sizes(np.zeros(0, np.int64), np.zeros(0, np.int64)),
        0.1,
        *random_rows(np.random.default_rng(0), 3, 5),
    )
    classes, log_proba = top_k_of(module, args, 2, beam_width=beam_width)
    np.testing.assert_array_equal(classes, [[0, -1]] * 3)
    np.testing.assert_array_equal(log_proba, [[0, -np.inf]] * 3)
    of_class, drawn = np.full(3, np.nan), np.full((3, 2), -7, np.int32)
    module.path_log_proba(*args, np.zeros(3, np.int32), of_class)
    module.sample_classes(*args, np.full((3, 2), 0.5), drawn)
    assert not of_class.any()
    assert not drawn.any()


# -- trees.pyx --------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    SEEDS, st.sampled_from(ARITIES), st.sampled_from([1, 2]), st.sampled_from([1e-6, 0.1, 1e6]),
    st.sampled_from([1e-30, 1, 1e37]),
)  # fmt: skip
def test_write_guess(seed, arity, prior, smoothing, weight):
    rng = np.random.default_rng(seed)
    x = random_rows(rng, 12, 30)
    x = x if prior == 2 else (*x[:2], np.abs(x[2]))
    child = rng.choice(rng.permutation(arity)[: rng.integers(1, arity + 1)], 12)
    row_weights = (weight * rng.uniform(0.1, 3, 12)).astype(np.float32)
    smoothing *= weight
    results = []
    for module in (priors, reference):
        width = LINE * n_lines(arity)
        results.append((np.full((30, width), np.nan, np.float32), np.zeros(width, np.float32)))
        module.write_guess(*x, row_weights, child, prior, smoothing, *results[-1])
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    weights, bias = results[0]
    absent = np.setdiff1d(np.arange(len(bias)), child)
    assert not weights[:, absent].any() and not bias[absent].any()
    np.testing.assert_allclose(weights.sum(axis=1), 0, atol=1e-4)


def huffman_of(module, counts, arity):
    n = len(counts)
    parents = np.full(n + -(-(n - 1) // (arity - 1)), -7, np.int32)
    module.huffman_parents(np.sort(counts), arity, parents)
    return parents


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=60), st.integers(2, 40))
def test_huffman_parents(counts, arity):
    counts, arity = np.array(counts, float), min(arity, len(counts))  # integers: ties are exact
    parents = huffman_of(trees, counts, arity)
    np.testing.assert_array_equal(parents, huffman_of(reference, counts, arity))
    assert parents[-1] == -1
    n_children = np.bincount(parents[:-1], minlength=len(parents))
    assert (n_children[: len(counts)] == 0).all()
    assert (n_children[len(counts) + 1 :] == arity).all()
    assert 2 <= n_children[len(counts)] <= arity


@pytest.mark.parametrize("arity", ARITIES)
def test_huffman_parents_of_real_counts(arity):
    counts = np.random.default_rng(arity).pareto(0.7, 300)
    np.testing.assert_array_equal(huffman_of(trees, counts, arity), huffman_of(reference, counts, arity))


def random_centroids(rng, n_classes, n_features, n_copies=0):
    """Unit rows, CSR, some of them empty, some the same; and masses."""
    dense = rng.random((n_classes, n_features)) * (rng.random((n_classes, n_features)) < 0.3)
    dense[rng.integers(n_classes, size=n_copies)] = dense[0]
    dense[rng.random(n_classes) < 0.05] = 0
    lengths = np.linalg.norm(dense, axis=1, keepdims=True)
    x = sparse.csr_array(np.divide(dense, lengths, out=dense, where=lengths > 0).astype(np.float32))
    mass = np.sqrt(rng.pareto(1, n_classes) + 0.1).astype(np.float32)
    return x.indptr.astype(np.int64), x.indices.astype(np.int32), x.data, mass, n_features


def kmeans_of(
    module, centroids, lo, hi, whole, seed=0, n_init=1, slack=0.3, n_sample=30, max_iter=20, tol=0.02
):
    n_classes = len(centroids[3])
    order = np.random.default_rng(0).permutation(n_classes).astype(np.int32)
    boundary_depth = np.full(n_classes, -7, np.int32)
    module.kmeans_split(
        *centroids, order, boundary_depth, lo, hi, 3, whole, seed, max_iter, tol, n_init, n_sample, slack
    )
    return order, boundary_depth


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("slack", "n_copies"), [(0, 10), (0, 0), (0.05, 0), (0.3, 0), (1, 0)])
@pytest.mark.parametrize(("n_classes", "n_sample"), [(41, 30), (150, 30), (41, 2), (150, 9)])
def test_kmeans_split(seed, whole, slack, n_copies, n_classes, n_sample):
    # the same class many times scores zero but for rounding: with slack, its sign decides
    centroids = random_centroids(np.random.default_rng(seed), n_classes, 40, n_copies)
    args = centroids, 4, n_classes - 3, whole, 2**63 + seed, 1, slack, n_sample
    for a, b in zip(kmeans_of(cuts, *args), kmeans_of(reference, *args), strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 60), st.booleans(), st.sampled_from([0.0, 0.5, 1.0]))
def test_kmeans_split_divides_the_slice(seed, n_classes, whole, slack):
    rng = np.random.default_rng(seed)
    centroids = random_centroids(rng, n_classes, 10, n_copies=n_classes // 3)
    lo, hi = sorted(rng.integers(n_classes + 1, size=2))
    order, depth = kmeans_of(cuts, centroids, lo, hi, whole, seed, 3, slack)
    before = np.random.default_rng(0).permutation(n_classes)
    np.testing.assert_array_equal(order[:lo], before[:lo])
    np.testing.assert_array_equal(order[hi:], before[hi:])
    np.testing.assert_array_equal(np.sort(order), np.arange(n_classes))
    outside = np.concatenate([depth[: lo + 1], depth[max(hi, lo + 1) :]])
    assert (outside == -7).all()
    inside = depth[lo + 1 : hi]
    assert np.sum(inside == 3) == (hi - lo > 1)
    assert ((inside >= 3) if whole else (inside == 3) | (inside == -7)).all()
    if whole and hi - lo > 1:
        tree = LabelTree._from_boundaries(np.arange(hi - lo), depth[lo:hi] - 2)
        assert tree.arity == 2


# -- clusters.pyx -----------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    SEEDS, st.sampled_from([2, 3, 16, 17, 40]), st.integers(1, 3), st.booleans(), st.integers(0, 8),
    st.sampled_from([1, 3, 12]), st.sampled_from([0.3, 1]),
)  # fmt: skip
def test_kmeans_clusters(seed, n_clusters, n_starts, with_sample, max_iter, n_features, density):
    """Of classes some of which are the same, opposite, or zero, so that clusters become empty, or cancel."""
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(150, n_features)) * (rng.random((150, n_features)) < density)
    dense[rng.integers(150, size=30)] = dense[0]
    dense[rng.integers(150, size=10)] = -dense[0]
    dense[rng.random(150) < 0.05] = 0
    x = sparse.csr_array(normalize(dense).astype(np.float32))
    mass = rng.choice([1.0, 0.3], 150).astype(np.float32)
    centroids = x.indptr.astype(np.int64), x.indices, x.data, mass, n_features
    classes = rng.permutation(150)[:120].astype(np.int32)
    sample = rng.permutation(classes)[:60] if with_sample else classes
    starts = np.array([rng.permutation(sample)[:n_clusters] for _ in range(n_starts)])
    found = np.full((2, 120), -7, dtype=np.int32)
    for module, out in zip((clusters, reference), found, strict=True):
        module.kmeans_clusters(*centroids, classes, sample, starts, max_iter, 0.01, out)
    np.testing.assert_array_equal(*found)
    assert found.min() >= 0 and found.max() < n_clusters


def test_a_center_whose_classes_leave_is_zero():
    """Even where a class of zeros stays: what rounding leaves of the sum has no direction."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        groups = np.repeat(normalize(rng.normal(size=(3, 6))), 4, axis=0)
        x = sparse.csr_array(np.vstack([np.zeros((4, 6)), groups]).astype(np.float32))
        mass = rng.random(16).astype(np.float32)
        centroids = x.indptr.astype(np.int64), x.indices, x.data, mass, 6
        classes, starts = np.arange(16, dtype=np.int32), np.arange(4, dtype=np.int32)[None]
        found = np.empty((2, 16), dtype=np.int32)
        for module, out in zip((clusters, reference), found, strict=True):
            module.kmeans_clusters(*centroids, classes, classes, starts, 8, 0.0, out)
        np.testing.assert_array_equal(*found)


def random_boundaries(rng, n):
    """A binary tree over n leaves in a row, as the depths of its boundaries, and a mass for each leaf."""
    depth, slices = np.zeros(n, np.int32), [(0, n, 1)]
    while slices:
        lo, hi, d = slices.pop()
        if hi - lo > 1:
            cut = rng.integers(lo + 1, hi)
            depth[cut] = d
            slices += [(lo, cut, d + 1), (cut, hi, d + 1)]
    return depth, rng.integers(1, 20, n).astype(float)


def contracted(module, depth, mass, arity):
    depth = depth.copy()
    module.contract_binary(depth, mass, arity)
    return depth


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.integers(1, 60), st.integers(2, 20))
def test_contract_binary(seed, n, arity):
    depth, mass = random_boundaries(np.random.default_rng(seed), n)
    actual = LabelTree._from_boundaries(np.arange(n), contracted(trees, depth, mass, arity))
    twin = LabelTree._from_boundaries(np.arange(n), contracted(reference, depth, mass, arity))
    assert actual.arity <= arity
    assert mass @ actual.depths() == mass @ twin.depths()
    same = LabelTree._from_boundaries(np.arange(n), contracted(trees, depth, mass, 2))
    binary = LabelTree._from_boundaries(np.arange(n), depth)
    np.testing.assert_array_equal(same.parents, binary.parents)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(2, 9), st.integers(2, 5))
def test_no_other_contraction_is_shallower(seed, n, arity):
    depth, mass = random_boundaries(np.random.default_rng(seed), n)
    binary = LabelTree._from_boundaries(np.arange(n), depth)
    least = np.inf
    for merged in range(2 ** (binary.n_inner - 1)):
        kept = np.array([True, *(not merged >> i & 1 for i in range(binary.n_inner - 1)), *[True] * n])
        n_children, depths = np.zeros(binary.n_nodes, int), np.zeros(binary.n_nodes)
        for node in range(1, binary.n_nodes):
            parent = binary.parents[node]
            depths[node] = depths[parent] + kept[node]
            while not kept[parent]:
                parent = binary.parents[parent]
            n_children[parent] += kept[node]
        if n_children.max() <= arity:
            least = min(least, mass @ depths[binary.n_inner :])
    best = LabelTree._from_boundaries(np.arange(n), contracted(trees, depth, mass, arity))
    assert mass @ best.depths() == least


def gained(centroids, classes):
    """The norm of the mass-weighted sum of some classes."""
    indptr, indices, data, mass, n_features = centroids
    x = sparse.csr_array((data, indices, indptr), shape=(len(mass), n_features)).toarray().astype(float)
    return np.linalg.norm(mass[classes] @ x[classes])


def test_kmeans_split_starts_from_the_best_of_its_runs():
    # of runs that are alike but for rounding, either may be taken
    def value(module, seed, n_init):
        centroids = random_centroids(np.random.default_rng(seed), 240, 40)
        order, depth = kmeans_of(module, centroids, 0, 240, False, seed, n_init)
        cut = int(np.flatnonzero(depth == 3)[0])
        return gained(centroids, order[:cut]) + gained(centroids, order[cut:])

    values = [[value(cuts, seed, n_init) for n_init in (1, 2, 8)] for seed in range(30)]
    expected = [[value(reference, seed, n_init) for n_init in (1, 2, 8)] for seed in range(30)]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    one, two, eight = np.mean(values, axis=0)
    assert one < two < eight


def test_kmeans_split_tells_clusters_apart():
    # two groups of classes without a common feature
    dense = np.zeros((20, 6), np.float32)
    dense[:10, :3], dense[10:, 3:] = np.random.default_rng(0).random((2, 10, 3)) + 0.5
    x = sparse.csr_array(dense)
    arrays = x.indptr.astype(np.int64), x.indices.astype(np.int32), x.data, np.ones(20, np.float32), 6
    for module in (cuts, reference):
        order, depth = kmeans_of(module, arrays, 0, 20, False, n_init=8)
        assert depth[10] == 3
        halves = sorted([sorted(order[:10].tolist()), sorted(order[10:].tolist())])
        assert halves == [list(range(10)), list(range(10, 20))]
