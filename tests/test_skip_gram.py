"""Pairs of words: against a slow loop over positions, the laws of their draws, faults."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from sk_hsm import HierarchicalSoftmaxEmbedding, SkipGramPairs
from sk_hsm._kernels import pairs as kernels
from sk_hsm._kernels import reference

ALL = dict(min_count=1, subsample=float("inf"))


def texts(seed=0, n=200, n_words=40):
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, n_words + 1)
    return [
        [f"w{word}" for word in rng.choice(n_words, rng.integers(0, 12), p=p / p.sum())] for _ in range(n)
    ]


def all_pairs(pairs):
    """(context, centre) of all batches, in order."""
    return [
        (int(context), int(centre)) for X, y in pairs for context, centre in zip(X.indices, y, strict=True)
    ]


def test_rows_are_one_hot_and_labels_their_neighbours():
    pairs = SkipGramPairs(texts(), **ALL, random_state=0)
    for X, y in pairs:
        assert X.shape == (len(y), len(pairs.vocabulary))
        np.testing.assert_array_equal(X.sum(axis=1), 1)
        np.testing.assert_array_equal(X.data, 1)
        assert X.dtype == np.float32


def test_a_window_of_one_gives_every_neighbour_in_order():
    sentences = texts()
    pairs = SkipGramPairs(sentences, window=1, **ALL, random_state=0)
    expected = []
    for sentence in sentences:
        ids = [pairs.index[word] for word in sentence]
        for i, centre in enumerate(ids):
            expected += [(ids[j], centre) for j in (i - 1, i + 1) if 0 <= j < len(ids)]
    assert all_pairs(pairs) == expected


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 60), window=st.sampled_from([1, 2, 5, 100]))
def test_the_kernel_is_its_twin(seed, n, window):
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 20, n).astype(np.int32)
    sentences = np.sort(rng.integers(0, 8, n)).astype(np.int32)
    windows = rng.integers(1, window, n, endpoint=True)
    found = []
    for function in (kernels.window_pairs, reference.window_pairs):
        contexts, centres = np.full((2, 2 * windows.sum()), -1, dtype=np.int32)
        found.append((function(words, sentences, windows, contexts, centres), contexts, centres))
    for ours, twin in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, twin)


def test_a_window_may_be_far_wider_than_sentences():
    # a smaller one than 3 is drawn once in 2**39 times: each word is paired with all of its sentence
    sentences = [["a", "b", "c", "d"]] * 2500
    pairs = SkipGramPairs(sentences, window=2**40, **ALL, random_state=0)
    assert len(all_pairs(pairs)) == 2500 * 12


def test_windows_are_drawn_evenly():
    # in a long sentence a neighbour at distance d is there with probability (window - d + 1) / window
    sentence = [f"w{i}" for i in range(20_000)]
    pairs = SkipGramPairs([sentence], window=4, **ALL, random_state=0)
    place = np.array([int(word[1:]) for word in pairs.vocabulary])
    distance = np.array([place[context] - place[centre] for context, centre in all_pairs(pairs)])
    assert not (distance == 0).any() and np.abs(distance).max() == 4
    for sign in (-1, 1):
        counts = np.bincount(sign * distance[sign * distance > 0], minlength=5)[1:]
        expected = 20_000 * np.array([1, 3 / 4, 1 / 2, 1 / 4])
        # counts of one distance are binomial
        deviation = (counts - expected) / np.sqrt(expected * (1 - expected / 20_000.1) + 10)
        assert np.abs(deviation).max() < 5


def test_the_vocabulary_is_sorted_by_frequency():
    sentences = texts()
    flat = [word for sentence in sentences for word in sentence]
    words, counts = np.unique(flat, return_counts=True)
    pairs = SkipGramPairs(sentences, min_count=7, random_state=0)
    assert pairs.n_tokens == len(flat)
    assert dict(zip(pairs.vocabulary.tolist(), pairs.counts.tolist(), strict=True)) == {
        word: count for word, count in zip(words.tolist(), counts.tolist(), strict=True) if count >= 7
    }
    key = list(zip(-pairs.counts, pairs.vocabulary, strict=True))
    assert key == sorted(key)
    assert all(pairs.index[word] == i for i, word in enumerate(pairs.vocabulary))


def test_rare_words_are_left_out_before_distances():
    pairs = SkipGramPairs([["a", "rare", "b"], ["a", "b"]], window=1, min_count=2, subsample=1e9)
    a, b = pairs.index["a"], pairs.index["b"]
    assert all_pairs(pairs) == [(b, a), (a, b)] * 2


def test_frequent_words_are_kept_as_often_as_the_formula_says():
    rng = np.random.default_rng(0)
    p = np.array([0.6, 0.3, 0.09, 0.01])
    # of lonely couples both must be kept, one by one
    sentences = [["x" + str(w)] * 2 for w in rng.choice(4, 40_000, p=p)]
    pairs = SkipGramPairs(sentences, window=1, subsample=0.01, random_state=0)
    share = pairs.counts / pairs.counts.sum()
    keep = np.minimum(np.sqrt(0.01 / share) + 0.01 / share, 1)
    seen = np.bincount([centre for _, centre in all_pairs(pairs)], minlength=4) / 2
    expected = pairs.counts / 2 * keep**2
    seen, expected = (np.append(x, pairs.counts.sum() / 2 - x.sum()) for x in (seen, expected))
    assert chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-4


def test_each_iteration_draws_anew_and_random_state_says_what():
    sentences = texts()
    one, other = (SkipGramPairs(sentences, **ALL, random_state=3) for _ in range(2))
    first, second = all_pairs(one), all_pairs(one)
    assert first != second
    assert (all_pairs(other), all_pairs(other)) == (first, second)


@pytest.mark.parametrize("tokens_per_batch", [1, 50, 10**6])
def test_the_length_is_the_number_of_batches(tokens_per_batch):
    sentences = texts()
    pairs = SkipGramPairs(sentences, window=1, tokens_per_batch=tokens_per_batch, **ALL)
    assert len(list(pairs)) == len(pairs)
    whole = SkipGramPairs(sentences, window=1, **ALL)
    assert all_pairs(pairs) == all_pairs(whole)


def test_a_file_is_read_line_by_line(tmp_path):
    sentences = texts()
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(" ".join(sentence) for sentence in sentences), encoding="utf-8")
    for source in (path, str(path)):
        assert all_pairs(SkipGramPairs(source, **ALL, random_state=0)) == all_pairs(
            SkipGramPairs(sentences, **ALL, random_state=0)
        )


def test_words_that_stand_together_get_like_vectors():
    # two languages that never meet
    rng = np.random.default_rng(0)
    sentences = [[f"{'ab'[i % 2]}{word}" for word in rng.integers(0, 20, 10)] for i in range(2000)]
    pairs = SkipGramPairs(sentences, subsample=float("inf"), random_state=0)
    est = HierarchicalSoftmaxEmbedding(10, random_state=0)
    est.fit_batches(pairs, np.arange(40), pairs.counts)
    unit = est.embedding_ / np.linalg.norm(est.embedding_, axis=1, keepdims=True)
    language = np.array([word[0] for word in pairs.vocabulary])
    alike = language[:, None] == language
    assert (unit @ unit.T)[alike].mean() > 0.8
    assert (unit @ unit.T)[~alike].mean() < 0.2
    # half of the words are of the same language: no model can do better than log 20
    assert np.log(20) - 0.02 < est.loss_curve_[-1] < np.log(20) + 0.05


@pytest.mark.parametrize(
    "sentences, params, error, message",
    [
        (["a string"], {}, TypeError, "got the string 'a string': split it"),
        ((s for s in [["a"]]), {}, TypeError, "generator can be read only once"),
        ([["a", "b"]], {}, ValueError, "min_count=5 times, 2 occur at all"),
        ([], {}, ValueError, "0 occur at all"),
        (5, {}, TypeError, "sentences must be the path of a file or an iterable .*, got int"),
        ([1, 2], {}, TypeError, "sentences must be sequences of words, got 1: pass lists"),
        ([["a"]], {"window": 0}, ValueError, "window must be an integer of 1 or more, got 0"),
        ([["a"]], {"subsample": 0}, ValueError, "subsample must be a number above 0"),
        ([["a"]], {"subsample": float("nan")}, ValueError, "subsample must be a number above 0"),
        ([["a"]], {"tokens_per_batch": 2.5}, ValueError, "tokens_per_batch must be an integer"),
    ],
)
def test_faults(sentences, params, error, message):
    with pytest.raises(error, match=message):
        SkipGramPairs(sentences, **params)


def test_a_vocabulary_of_other_texts():
    words = ["b", "a", "never"]
    pairs = SkipGramPairs([["a", "x", "b"]], window=1, subsample=float("inf"), vocabulary=words)
    assert pairs.vocabulary.tolist() == words
    assert pairs.classes.tolist() == [0, 1, 2]
    assert pairs.counts.tolist() == [1, 1, 0]
    assert all_pairs(pairs) == [(0, 1), (1, 0)]
    with pytest.raises(ValueError, match="vocabulary has 2 words, but only 1 different"):
        SkipGramPairs([["a"]], vocabulary=["a", "a"])


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        SkipGramPairs("no such file.txt")


def test_words_that_no_text_has():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pairs = SkipGramPairs([["a"]] * 9, vocabulary=["zz"], subsample=float("inf"), window=2**63)
        assert [X.shape for X, _ in pairs] == [(0, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocabulary": "abc"}, "vocabulary must be a sequence of words, got 'abc': pass a list"),
        ({"vocabulary": 5}, "vocabulary must be a sequence of words, got 5: pass a list"),
        (
            {"sentences": [b"the cat"]},
            "sentences must be sequences of words, got the string b'the cat': split it",
        ),
    ],
)
def test_what_is_no_sequence_of_words_is_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        SkipGramPairs(**{"sentences": [["a"]] * 9, **arguments})
