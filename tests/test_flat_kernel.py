"""The kernel that learns a flat softmax, against its twin, finite differences and the full softmax."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from sk_hsm._kernels import flat, reference, scan
from sk_hsm.embedding_training import padded
from sk_hsm.multi_index import MultiIndex

ARRAYS = slice(8, 11)  # of a problem: embedding, layers, vectors


def random_problem(seed, n_classes=9, dims=(5,), n_rows=12, n_features=7, embeds=True):
    """Arguments of the kernel from indptr to vectors."""
    rng = np.random.default_rng(seed)
    if not embeds:
        n_features = dims[0]
    n_values = np.minimum(rng.integers(0, 4, n_rows), n_features)
    indptr = np.concatenate([[0], np.cumsum(n_values)])
    indices = np.concatenate([*(rng.permutation(n_features)[:n] for n in n_values), np.empty(0)])
    weights = rng.uniform(0, 2, n_rows).astype(np.float32)
    embedding = padded(rng.normal(size=(n_features, dims[0])).astype(np.float32)) / dims[0] ** 0.5
    shapes = zip(dims[1:], dims[:-1], strict=True)
    layers = [padded(rng.normal(size=shape).astype(np.float32)) / shape[1] ** 0.5 for shape in shapes]
    for layer, n_in in zip(layers, dims[:-1], strict=True):
        layer[:, n_in] = 0.1 * rng.normal(size=len(layer))
    vectors = padded(rng.normal(size=(n_classes, dims[-1])).astype(np.float32))
    vectors[:, dims[-1]] = rng.normal(size=n_classes)
    return [
        indptr,
        indices.astype(np.int32),
        rng.normal(size=len(indices)).astype(np.float32),
        rng.integers(0, n_classes, n_rows).astype(np.int32),
        weights,
        rng.permutation(n_rows),
        np.array(dims),
        embedding if embeds else None,
        layers,
        vectors,
    ]


def copied(problem):
    *start, embedding, layers, vectors = problem
    return [
        *start,
        None if embedding is None else embedding.copy(),
        [layer.copy() for layer in layers],
        vectors.copy(),
    ]


def learned(problem):
    *_, embedding, layers, vectors = problem
    return [vectors, *layers] + ([] if embedding is None else [embedding])


def index_of(problem, kind):
    vectors, dims = problem[-1], problem[6]
    if kind is None:
        return None
    if kind == "unigram":
        return MultiIndex.one_cell(np.bincount(problem[3], minlength=len(vectors)) + 1.0, vectors.shape[1])
    return MultiIndex.learn(vectors, int(dims[-1]), 4, kind == "midx-rq", np.random.default_rng(0))


@pytest.mark.parametrize("kind", [None, "unigram", "midx", "midx-rq"])
@pytest.mark.parametrize("dims", [(5,), (1,), (16,), (6, 4), (3, 20, 17)])
@pytest.mark.parametrize("embeds", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("rate", [0.1, 20])
def test_the_kernel_is_its_twin(kind, dims, embeds, fit_intercept, rate):
    for seed in range(5):
        problem = random_problem(seed, 3 + 20 * seed, dims, embeds=embeds)
        if not fit_intercept:
            problem[-1][:, dims[-1]] = 0
        if rate > 1:  # steps that are cut short; from many of them float32 goes its own ways
            problem[5] = problem[5][np.diff(problem[0])[problem[5]] > 0][:1]
        index, rates = index_of(problem, kind), (fit_intercept, 6, 1000 * seed, rate, rate / 5)
        ours, twin = copied(problem), copied(problem)
        loss = flat.train_flat_rows(index, *ours, *rates)
        assert loss == pytest.approx(reference.train_flat_rows(index, *twin, *rates), rel=1e-4, abs=1e-5)
        for one, other, before in zip(learned(ours), learned(twin), learned(problem), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-4)
            assert rate > 1 or not before.size or not np.array_equal(one, before)
            assert not one[:, before.any(axis=0).nonzero()[0].max() + 1 :].any() or before.all()


def loss_of(problem, row, fit_intercept):
    """-log P(class | x) of one row by the full softmax, in float64."""
    indptr, indices, data, classes, _, _, dims, embedding, layers, vectors = problem
    at = slice(indptr[row], indptr[row + 1])
    if embedding is None:
        level = np.zeros(dims[0])
        level[indices[at]] = data[at]
    else:
        level = data[at] @ embedding[indices[at], : dims[0]]
    for layer in layers:
        level = np.maximum(layer[:, : len(level)] @ level + layer[:, len(level)], 0)
    scores = vectors[:, : dims[-1]] @ level + fit_intercept * vectors[:, dims[-1]]
    return -log_softmax(scores)[classes[row]]


def in_float64(problem):
    return [
        [layer.astype(np.float64) for layer in part]
        if isinstance(part, list)
        else part.astype(np.float64)
        if part is not None and part.dtype == np.float32
        else part
        for part in problem
    ]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dims=st.sampled_from([(3,), (4, 3)]), embeds=st.booleans())
def test_a_step_of_the_full_softmax_goes_down_the_gradient(seed, dims, embeds):
    problem = random_problem(seed, 5, dims, n_rows=1, embeds=embeds)
    problem[4][:], rate, tiny = 1, 1e-2, 1e-6
    ours = copied(problem)
    flat.train_flat_rows(None, *ours, True, 1, 0, rate, rate)
    exact = in_float64(copied(problem))
    for moved, array in zip(learned(ours), learned(exact), strict=True):
        for at in np.ndindex(array.shape):
            before = array[at]
            losses = []
            for step in (tiny, -tiny):
                array[at] = before + step
                losses.append(loss_of(exact, 0, True))
            array[at] = before
            gradient = (losses[0] - losses[1]) / (2 * tiny)
            assert before - moved[at] == pytest.approx(rate * gradient, rel=1e-3, abs=3e-6)


def gradient(index, problem, n_negatives, number=0):
    """Of the vectors of classes, by a tiny step."""
    ours, rate = copied(problem), 1e-3
    flat.train_flat_rows(index, *ours, True, n_negatives, number, rate, rate)
    return (problem[-1].astype(np.float64) - ours[-1]) / rate


@pytest.mark.parametrize("kind", ["unigram", "midx", "midx-rq"])
def test_the_bias_of_the_gradient_falls_as_samples_grow(kind):
    problem = random_problem(1, n_classes=30, n_rows=1)
    problem[4][:] = 1
    index, exact = index_of(problem, kind), gradient(None, problem, 1)
    errors = []
    for n_negatives in (2, 10, 100):
        draws = [gradient(index, problem, n_negatives, 1000 * i) for i in range(3000)]
        errors.append(np.abs(np.mean(draws, axis=0) - exact).sum())
    assert errors[0] > 2 * errors[1] and errors[1] > 1.5 * errors[2]
    assert np.abs(gradient(index, problem, 10**6) - exact).max() < 0.01 * np.abs(exact).max()


def test_scores_are_those_of_the_twin_and_the_same_in_any_company():
    rng = np.random.default_rng(0)
    for n_classes, dim in [(1, 3), (33, 16), (500, 100)]:
        vectors = padded(rng.normal(size=(n_classes, dim)).astype(np.float32))
        H = padded(rng.normal(size=(20, dim)).astype(np.float32))
        scores, expected = np.empty((2, 20, n_classes), dtype=np.float32)
        scan.score_classes(H, vectors, scores)
        reference.score_classes(H, vectors, expected)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
        for i in range(20):
            alone = np.empty((1, n_classes), dtype=np.float32)
            scan.score_classes(H[i : i + 1], vectors, alone)
            np.testing.assert_array_equal(alone[0], scores[i])
