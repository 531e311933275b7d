"""Inverted multi-indices and the kernels that draw and look up classes by them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import chisquare

from sk_hsm._kernels import reference, sampling, scan
from sk_hsm._kernels.reference.sampling import DEFENSIVE, class_probabilities
from sk_hsm.embedding_training import padded
from sk_hsm.multi_index import MultiIndex, SearchIndex, k_means

KINDS = [False, True]  # residual


def random_vectors(n_classes=200, dim=12, seed=0, size=1.0):
    """Clustered class vectors, an intercept beside each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(7, dim))
    vectors = size * (centres[rng.integers(0, 7, n_classes)] + 0.5 * rng.normal(size=(n_classes, dim)))
    vectors = padded(vectors.astype(np.float32))
    vectors[:, dim] = rng.normal(size=n_classes)
    return vectors


def random_queries(n, dim=12, seed=1):
    H = padded(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))
    H[:, dim] = 1
    return H


def learned(vectors, dim=12, n_codewords=8, residual=False, seed=0):
    return MultiIndex.learn(vectors, dim, n_codewords, residual, np.random.default_rng(seed))


def approximations(index, vectors):
    """The sum of the codewords of each class, with its intercept."""
    first, second = index.codes
    sums = index.codewords[first] + index.codewords[index.n_codewords + second]
    sums[:, 12] += vectors[:, 12]
    return sums


# -- the index ---------------------------------------------------------------


@pytest.mark.parametrize("residual", KINDS)
def test_an_index_holds_every_class_once_and_its_weight(residual):
    vectors = random_vectors()
    index = learned(vectors, residual=residual)
    np.testing.assert_array_equal(np.sort(index.members), np.arange(200))
    sizes = np.diff(index.cell_ptr)
    np.testing.assert_array_equal(index.cells[index.members], np.repeat(np.arange(64), sizes))
    weights = np.exp(vectors[:, 12].astype(np.float64))
    np.testing.assert_allclose(index.weights, weights, rtol=1e-6)
    for cell in np.flatnonzero(sizes):
        members = index.members[index.cell_ptr[cell] : index.cell_ptr[cell + 1]]
        np.testing.assert_allclose(index.cell_weights[divmod(cell, 8)], weights[members].sum(), rtol=1e-6)
        ends = index.cumulated[index.cell_ptr[cell] : index.cell_ptr[cell + 1]]
        np.testing.assert_allclose(ends, np.cumsum(weights[members]), rtol=1e-9)


def test_a_product_quantizer_has_the_nearest_codeword_of_each_half():
    vectors = random_vectors()
    index = learned(vectors)
    assert not index.codewords[:8, 6:].any() and not index.codewords[8:, :6].any()
    for book, columns in enumerate([slice(0, 6), slice(6, 12)]):
        words = index.codewords[8 * book : 8 * book + 8, columns]
        distances = np.linalg.norm(vectors[:, None, columns] - words, axis=2)
        np.testing.assert_array_equal(index.codes[book], distances.argmin(axis=1))


def test_a_residual_quantizer_has_the_nearest_codeword_of_what_is_left():
    vectors = random_vectors()
    index = learned(vectors, residual=True)
    left = vectors[:, :12]
    for book in range(2):
        words = index.codewords[8 * book : 8 * book + 8, :12]
        distances = np.linalg.norm(left[:, None] - words, axis=2)
        np.testing.assert_array_equal(index.codes[book], distances.argmin(axis=1))
        left = left - words[index.codes[book]]


@pytest.mark.parametrize("residual", KINDS)
def test_as_many_codewords_as_classes_are_their_vectors(residual):
    vectors = random_vectors(n_classes=6)
    index = learned(vectors, n_codewords=50, residual=residual)
    assert index.n_codewords == 6
    np.testing.assert_allclose(approximations(index, vectors), vectors, atol=1e-5)


def test_k_means_does_not_get_worse_from_where_it_was():
    X = random_vectors(500)[:, :12]

    def error(found):
        centres, nearest = found
        return np.square(X - centres[nearest]).sum()

    first = k_means(X, 10, None, np.random.default_rng(0))
    again = k_means(X, 10, first[0], np.random.default_rng(1))
    assert error(again) <= error(first)
    assert error(first) < 0.5 * np.square(X - X.mean(axis=0)).sum()


@pytest.mark.parametrize("residual", KINDS)
def test_codewords_that_had_no_class_are_used_once_vectors_differ(residual):
    alike, rng = random_vectors(size=0), np.random.default_rng(0)
    index = MultiIndex.learn(alike, 12, 8, residual, rng)
    assert np.unique(index.cells).size == 1
    for _ in range(3):
        index = MultiIndex.learn(random_vectors(), 12, 8, residual, rng, index)
    for codes in index.codes:
        assert np.unique(codes).size == 8


@pytest.mark.parametrize("residual", KINDS)
def test_no_class_scores_more_than_the_bound_of_its_cell(residual):
    vectors = random_vectors()
    index = SearchIndex.of_index(learned(vectors, residual=residual), vectors, 12)
    H = random_queries(100).astype(np.float64)
    scores = H @ vectors.T.astype(np.float64)
    first, second = index.codes
    bounds = H @ index.codewords.T.astype(np.float64)
    bounds = bounds[:, first] + bounds[:, 8 + second] + index.tops[first, second]
    bounds += np.linalg.norm(H[:, :12], axis=1)[:, None] * index.radii[first, second]
    assert (scores <= bounds).all()
    lengths = np.linalg.norm(H[:, :12], axis=1)[:, None] * np.linalg.norm(vectors[:, :12], axis=1)
    assert bounds.mean() < (lengths + vectors[:, 12]).mean()  # without codewords


# -- drawing -----------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_classes=st.integers(1, 80),
    n_codewords=st.sampled_from([1, 3, 16, 17]),
    residual=st.booleans(),
    size=st.sampled_from([0, 0.1, 1, 30]),
)
def test_the_probability_of_a_draw_is_that_of_the_formula(seed, n_classes, n_codewords, residual, size):
    vectors = random_vectors(n_classes, seed=seed, size=size)
    index, H = learned(vectors, n_codewords=n_codewords, residual=residual), random_queries(3, seed=seed)
    classes, probabilities = np.empty((3, 40), dtype=np.int32), np.empty((3, 40))
    sampling.draw_classes(index, H, seed, classes, probabilities)
    expected = np.array([class_probabilities(index, h) for h in H])
    np.testing.assert_allclose(expected.sum(axis=1), 1)
    np.testing.assert_allclose(probabilities, np.take_along_axis(expected, classes, axis=1), rtol=2e-4)


@pytest.mark.parametrize("residual", KINDS)
def test_draws_are_those_of_the_twin(residual):
    vectors = random_vectors()
    index, H = learned(vectors, residual=residual), random_queries(20)
    drawn = [(np.empty((20, 50), dtype=np.int32), np.empty((20, 50))) for _ in range(2)]
    sampling.draw_classes(index, H, 7, *drawn[0])
    reference.draw_classes(index, H, 7, *drawn[1])
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    np.testing.assert_allclose(drawn[0][1], drawn[1][1], rtol=1e-5)


@pytest.mark.parametrize("index", ["midx", "midx-rq", "one cell"])
def test_a_million_draws_have_the_distribution_that_they_say(index):
    vectors = random_vectors()
    if index == "one cell":
        index = MultiIndex.one_cell(np.arange(1.0, 201.0), vectors.shape[1])
    else:
        index = learned(vectors, residual=index == "midx-rq")
    h = random_queries(1)
    classes, probabilities = np.empty((1, 10**6), dtype=np.int32), np.empty((1, 10**6))
    sampling.draw_classes(index, h, 3, classes, probabilities)
    expected = np.zeros(200)
    expected[classes[0]] = probabilities[0]
    assert expected.sum() == pytest.approx(1, abs=1e-4)  # classes that are never drawn are as rare
    often = expected * 1e6 > 10
    counts = np.bincount(classes[0], minlength=200)
    rare = counts[~often].sum(), (1 - expected[often].sum()) * 1e6
    counts = np.append(counts[often], rare[0])[: often.sum() + (rare[1] > 10)]
    expected = np.append(expected[often] * 1e6, rare[1])[: len(counts)]
    assert chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


def test_classes_of_one_cell_are_drawn_by_their_weights():
    index, weights = MultiIndex.one_cell(np.arange(1.0, 11.0), 16), np.arange(1.0, 11.0) / 55
    for h in random_queries(3):
        np.testing.assert_allclose(class_probabilities(index, h), weights, rtol=1e-6)


def test_huge_weights_of_one_cell():
    """Powers of two change no bit; float32 holds neither these, nor their sum."""
    weights = np.array([1e40, 3e40, 6e40, 1.0])
    h, big = random_queries(1)[0], MultiIndex.one_cell(weights, 16)
    assert all(np.isfinite(array).all() and array.all() for array in (big.weights, big.cell_weights[0, 0]))
    np.testing.assert_allclose(class_probabilities(big, h), [0.1, 0.3, 0.6, 0], atol=1e-6)
    small = np.array([3.0, 1.0, 100.0])
    one, other = (MultiIndex.one_cell(small * 2.0**k, 16) for k in (0, 90))
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.weights / one.weights[1], small)


@pytest.mark.parametrize("residual", KINDS)
def test_with_what_quantization_leaves_the_distribution_is_the_softmax(residual):
    """The factor that draws leave out makes them exact, so nothing else does."""
    vectors = random_vectors()
    index, H = learned(vectors, residual=residual), random_queries(30).astype(np.float64)
    left = (vectors - approximations(index, vectors)).astype(np.float64)
    for h in H:
        by_codewords = (class_probabilities(index, h) - DEFENSIVE * index.weights / index.weights.sum()) / (
            1 - DEFENSIVE
        )
        exact = by_codewords * np.exp(left @ h)
        np.testing.assert_allclose(exact / exact.sum(), softmax(vectors @ h), atol=1e-6)


def divergence(p, q):
    return (p * (np.log(p) - np.log(q))).sum()


@pytest.mark.parametrize("residual", KINDS)
def test_codewords_are_nearer_to_the_softmax_than_weights_alone(residual):
    vectors, H = random_vectors(), random_queries(30).astype(np.float64)
    index = learned(vectors, residual=residual)
    by_weights = MultiIndex.one_cell(np.exp(vectors[:, 12].astype(np.float64)), 16)
    near, far = (
        np.mean([divergence(softmax(vectors @ h), class_probabilities(by, h)) for h in H])
        for by in (index, by_weights)
    )
    assert near < 0.6 * far


def test_draws_of_no_number_at_all_are_classes():
    index = learned(random_vectors())
    classes, probabilities = np.empty((2, 100), dtype=np.int32), np.empty((2, 100))
    H = random_queries(2)
    H[0], H[1] = np.nan, np.inf
    sampling.draw_classes(index, H, 0, classes, probabilities)
    assert (classes >= 0).all() and (classes < 200).all()


# -- looking up --------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_classes=st.integers(1, 60),
    k=st.integers(1, 10),
    floor=st.sampled_from([-np.inf, -2.0, 0.0]),
    ties=st.booleans(),
)
def test_the_best_of_scores_are_those_of_the_twin(seed, n_classes, k, floor, ties):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(4, n_classes)) * 10.0 ** rng.integers(-2, 3)
    scores = (scores.round() if ties else scores).astype(np.float32)
    k = min(k, n_classes)
    found = [(np.empty((4, k), dtype=np.int32), np.empty((4, k))) for _ in range(2)]
    scan.best_of_scores(scores, floor, *found[0])
    reference.best_of_scores(scores, floor, *found[1])
    near_floor = np.abs(log_softmax(scores.astype(np.float64), axis=1) - floor).min() < 1e-5
    if not near_floor:
        np.testing.assert_array_equal(found[0][0], found[1][0])
        np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)
    totals = np.empty(4), np.empty(4)
    scan.log_totals(scores, totals[0])
    reference.log_totals(scores, totals[1])
    np.testing.assert_allclose(*totals, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("residual", KINDS)
@pytest.mark.parametrize("n_probe", [1, 3, 20, 64])
@pytest.mark.parametrize("k", [1, 5, 200])
def test_cells_are_looked_up_as_by_the_twin(residual, n_probe, k):
    vectors, H = random_vectors(), random_queries(30)
    index = SearchIndex.of_index(learned(vectors, residual=residual), vectors, 12)
    found = [(np.full((30, k), -1, dtype=np.int32), np.full((30, k), -np.inf)) for _ in range(2)]
    scan.search_cells(index, H, 12, vectors, n_probe, *found[0])
    reference.search_cells(index, H, 12, vectors, n_probe, *found[1])
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-4)


@pytest.mark.parametrize("residual", KINDS)
def test_all_cells_hold_the_best_classes_and_the_total(residual):
    vectors, H = random_vectors(), random_queries(100)
    index = SearchIndex.of_index(learned(vectors, residual=residual), vectors, 12)
    classes, log_proba = np.full((100, 10), -1, dtype=np.int32), np.empty((100, 10))
    scan.search_cells(index, H, 12, vectors, 64, classes, log_proba)
    scores = H.astype(np.float64) @ vectors.T
    np.testing.assert_array_equal(classes, np.argsort(-scores, axis=1)[:, :10])
    everything, log_all = np.full((100, 200), -1, dtype=np.int32), np.empty((100, 200))
    scan.search_cells(index, H, 12, vectors, 64, everything, log_all)
    expected = np.sort(scores - logsumexp(scores, axis=1, keepdims=True), axis=1)[:, ::-1]
    np.testing.assert_allclose(log_all, expected, atol=1e-5)
