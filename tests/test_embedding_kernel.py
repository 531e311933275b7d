"""The kernel that learns embeddings, against its twin, finite differences and the published rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax

from sk_hsm import LabelTree
from sk_hsm._kernels import embedding as kernels
from sk_hsm._kernels import reference
from sk_hsm._kernels.reference.embedding import REACH
from sk_hsm.embedding_training import padded
from sk_hsm.node_vectors import vector_offsets
from sk_hsm.tree_builders import huffman_tree


def random_problem(seed, arity=2, n_classes=9, dim=5, n_rows=12, n_features=7):
    """Arguments of the kernel up to dim: a tree, rows, and numbers of ordinary size to start from."""
    rng = np.random.default_rng(seed)
    tree = huffman_tree(rng.integers(1, 50, n_classes), arity)
    ptr = vector_offsets(tree.child_ptr)
    n_values = rng.integers(0, 4, n_rows)
    indptr = np.concatenate([[0], np.cumsum(n_values)])
    indices = [rng.permutation(n_features)[:n] for n in n_values]
    indices = np.concatenate([*indices, np.empty(0)]).astype(np.int32)
    data = rng.normal(size=len(indices)).astype(np.float32)
    classes = rng.integers(0, n_classes, n_rows).astype(np.int32)
    weights = rng.uniform(0, 2, n_rows).astype(np.float32)
    embedding = padded(rng.normal(size=(n_features, dim)).astype(np.float32))
    vectors = padded(rng.normal(size=(ptr[-1], dim)).astype(np.float32))
    vectors[:, dim] = rng.normal(size=len(vectors))
    return [
        tree,
        ptr,
        indptr,
        indices,
        data,
        classes,
        weights,
        rng.permutation(n_rows),
        embedding,
        vectors,
        dim,
    ]


def copied(problem):
    return [part.copy() if isinstance(part, np.ndarray) else part for part in problem]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    arity=st.sampled_from([2, 3, 5, 16, 17, 40]),
    n_classes=st.integers(1, 60),
    dim=st.sampled_from([1, 5, 15, 16, 17, 100]),
    fit_intercept=st.booleans(),
    rate=st.sampled_from([0.2, 20.0]),
)
def test_the_kernel_is_its_twin(seed, arity, n_classes, dim, fit_intercept, rate):
    problem = random_problem(seed, arity, n_classes, dim)
    problem[8] /= dim**0.5
    problem[9] /= dim**0.5
    if rate > 1:  # steps that are cut short; from many of them float32 goes its own ways
        problem[7] = problem[7][:1]
    ours, twin = copied(problem), copied(problem)
    rates = fit_intercept, rate, rate / 4
    loss = kernels.train_rows(*ours, *rates)
    expected = reference.train_rows(*twin, *rates)
    assert loss == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for learned, right in zip(ours[8:10], twin[8:10], strict=True):
        np.testing.assert_allclose(learned, right, rtol=1e-3, atol=2e-4)
    assert not ours[8][:, dim:].any() and not ours[9][:, dim + 1 :].any()


def log_loss_of(problem, row, fit_intercept):
    """-log P(class | x) of one row, from the formula; a child without a vector has logit zero."""
    tree, ptr, indptr, indices, data, classes, _, _, embedding, vectors, dim = problem
    at = slice(indptr[row], indptr[row + 1])
    h = data[at].astype(np.float64) @ embedding[indices[at]].astype(np.float64)
    h[dim] = fit_intercept
    nodes, positions = tree.path(classes[row])
    loss = 0.0
    for node, child in zip(nodes, positions, strict=True):
        z = vectors[ptr[node] : ptr[node + 1]].astype(np.float64) @ h
        loss -= log_softmax(np.concatenate([[0.0], z]) if len(z) == 1 else z)[child]
    return loss


@pytest.mark.parametrize("arity", [2, 3, 20])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_a_step_is_the_rate_times_the_gradient(arity, fit_intercept):
    problem = random_problem(1, arity, n_classes=30)
    row = int(np.argmax(np.diff(problem[2])))
    problem[7], rate = np.array([row]), 1e-3
    problem[6][:] = 1
    before, after = copied(problem), copied(problem)
    kernels.train_rows(*after, fit_intercept, rate, rate)
    # numbers that may move: all but what fills up lines, and the intercept of embeddings
    for which, n_columns in ((8, problem[10]), (9, problem[10] + fit_intercept)):
        for number in np.ndindex(len(problem[which]), n_columns):
            ahead, behind = copied(problem), copied(problem)
            for moved, by in ((ahead, 1e-4), (behind, -1e-4)):
                moved[which] = moved[which].astype(np.float64)
                moved[which][number] += by
            slope = (log_loss_of(ahead, row, fit_intercept) - log_loss_of(behind, row, fit_intercept)) / 2e-4
            step = (before[which][number] - after[which][number]) / rate
            assert step == pytest.approx(slope, abs=1e-3), (which, number)


@pytest.mark.parametrize("arity", [2, 3, 20])
@pytest.mark.parametrize("rate", [1.0, 1e3, 1e9])
def test_no_step_goes_too_far(arity, rate):
    # a rate of at most 2 over the curvature lowers the loss, which vectors of nodes are separate parts of
    for seed in range(20):
        problem = random_problem(seed, arity, n_classes=30)
        row = int(np.argmax(np.diff(problem[2])))
        problem[7], problem[6][:] = np.array([row]), 1
        after = copied(problem)
        kernels.train_rows(*after, True, rate, rate)
        loss = log_loss_of(problem, row, True)
        assert log_loss_of([*problem[:9], after[9], problem[10]], row, True) <= loss * (1 + 1e-6)
        # embeddings go down the slope of the loss, no further than where it would have fallen by REACH
        moved = after[8].astype(np.float64) - problem[8]
        near = [*problem[:8], problem[8] + 1e-4 * moved, *problem[9:]]
        assert (loss - log_loss_of(near, row, True)) / 1e-4 <= REACH * 1.01


def word2vec(pairs, codes, points, syn0, syn1, rate):
    """Skip-gram with hierarchical softmax as published: error signals, node updates, input gradient."""
    for context, centre in pairs:
        accumulated = np.zeros(syn0.shape[1])
        for code, point in zip(codes[centre], points[centre], strict=True):
            error = 1 - code - expit(syn0[context] @ syn1[point])
            accumulated += rate * error * syn1[point]
            syn1[point] += rate * error * syn0[context]
        syn0[context] += accumulated


def test_a_binary_huffman_model_follows_word2vec_step_by_step():
    text = "the cat sat on the mat and the dog sat on the log while the cat and the dog ran".split()
    words, text = np.unique(text, return_inverse=True)
    n = len(text)
    pairs = [(text[j], text[i]) for i in range(n) for j in range(max(0, i - 2), min(n, i + 3)) if j != i] * 5
    tree, dim, rng = huffman_tree(np.bincount(text)), 10, np.random.default_rng(0)
    ptr = vector_offsets(tree.child_ptr)
    embedding = padded(((rng.random((len(words), dim)) - 0.5) / dim).astype(np.float32))
    vectors = padded(np.zeros((ptr[-1], dim), dtype=np.float32))
    syn0, syn1 = embedding[:, :dim].astype(np.float64), np.zeros((len(words) - 1, dim))
    paths = [tree.path(word) for word in range(len(words))]
    # their sigmoid is of code 0, ours of the second child
    codes, points = [1 - positions for _, positions in paths], [nodes for nodes, _ in paths]
    for lo in range(0, len(pairs), 7):
        some = pairs[lo : lo + 7]
        word2vec(some, codes, points, syn0, syn1, 0.5)
        contexts, centres = np.array(some, dtype=np.int32).T.copy()
        n, ones = len(some), np.ones(len(some), dtype=np.float32)
        rows = np.arange(n + 1), contexts, ones, centres, ones, np.arange(n)
        kernels.train_rows(tree, ptr, *rows, embedding, vectors, dim, False, 0.5, 0.5)
        np.testing.assert_allclose(embedding[:, :dim], syn0, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(vectors[:, :dim], syn1, rtol=1e-3, atol=1e-5)
    assert np.abs(syn1).max() > 0.5  # they have gone somewhere


def test_a_sigmoid_is_a_softmax_of_two():
    # a vector for each of two children, of which only the difference tells: v and 0
    rng = np.random.default_rng(0)
    v, h = rng.normal(size=(2, 8))
    two = log_softmax(np.array([0.0, v @ h]))
    assert two[1] == pytest.approx(np.log(expit(v @ h)), abs=1e-12)
    tree = LabelTree.from_nested(["a", "b"])
    embedding, vectors = (padded(x[None].astype(np.float32)) for x in (h, v))
    one, at = np.ones(1, dtype=np.float32), np.zeros(1, dtype=np.int32)
    ptr = vector_offsets(tree.child_ptr)
    for child in (0, 1):
        row = np.array([0, 1]), at, one, at + np.int32(child), one, np.zeros(1, dtype=np.int64)
        loss = kernels.train_rows(tree, ptr, *row, embedding, vectors, 8, False, 0.0, 0.0)
        assert -loss == pytest.approx(two[child], rel=1e-5)


def test_extreme_scores_give_finite_steps():
    problem = random_problem(3, arity=3)
    problem[9] *= 1e4
    loss = kernels.train_rows(*problem, True, 0.1, 0.1)
    assert np.isfinite(loss) and np.isfinite(problem[8]).all() and np.isfinite(problem[9]).all()


def test_long_paths_do_not_underflow():
    # 2,000 sigmoids of one half
    n = 2001
    # a caterpillar: inner node i has the leaf n - 1 + i and the next inner node, the last one two leaves
    parents = np.concatenate([np.arange(-1, n - 2), np.arange(n - 1), [n - 2]])
    tree = LabelTree.from_parents(parents)
    assert tree.max_depth == n - 1
    ptr = vector_offsets(tree.child_ptr)
    one, at = np.ones(1, dtype=np.float32), np.zeros(1, dtype=np.int32)
    row = np.array([0, 1]), at, one, np.array([n - 1], dtype=np.int32), one, np.zeros(1, dtype=np.int64)
    vectors = padded(np.zeros((ptr[-1], 3), dtype=np.float32))
    loss = kernels.train_rows(
        tree, ptr, *row, padded(np.ones((1, 3), np.float32)), vectors, 3, True, 0.0, 0.0
    )
    assert loss == pytest.approx(2000 * np.log(2), rel=1e-5)
