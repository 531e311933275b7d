"""Texts -> rows and labels: the pairs of near words that word2vec's skip-gram learns from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import chain, repeat
from numbers import Real

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import check_random_state

from ._kernels.pairs import window_pairs
from .validation import check_count

Sentence = Sequence[str]


class SkipGramPairs:
    """Batches of (context, centre) pairs of words from texts, as many as there is disk.

    A pair is a row with a one in the column of the context word, and as its label the number of
    the word that it stands near to, as word2vec trains them. The texts are read once to count the
    words, and once for each iteration over the batches; only one batch is in memory.

    Parameters
    ----------
    sentences : path, or iterable of sequences of str
        A text file, UTF-8, one sentence a line, words separated by white space; or sentences as
        lists of words, given anew each time it is iterated over.
    window : int, default=5
        Most words between a word and its context, plus one. For each word a smaller window is drawn,
        evenly from 1 to this, so that near words count more.
    min_count : int, default=5
        Rarer words are left out, before distances are counted.
    subsample : float, default=1e-3
        A word that makes up a share f of the words that are not left out is kept with probability
        ``sqrt(subsample / f) + subsample / f``, drawn for each occurrence; inf keeps all.
    tokens_per_batch : int, default=10000
        A batch ends with the sentence that reaches so many words.
    vocabulary : sequence of str, default=None
        The words, such as those of other texts that a model has learned from. None takes all of at
        least `min_count`.
    random_state : int, RandomState instance or None, default=None
        Draws windows and subsamples, anew for each iteration: it is the first iterations of two objects
        that are the same, and their second ones, and so on.

    Attributes
    ----------
    vocabulary : ndarray of shape (n_words,), str
        The words, unless given by falling frequency, ties in the order of the alphabet. Word i is
        column i of the rows and label i.
    classes : ndarray of shape (n_words,), int32
        The labels: 0, 1, ... n_words - 1.
    counts : ndarray of shape (n_words,), int64
        How often each occurs.
    index : dict
        The number of each word.
    n_tokens : int
        Words in the texts, rare ones included.

    See Also
    --------
    HierarchicalSoftmaxEmbedding : Learns from them, by `fit_batches`.

    References
    ----------
    .. [1] T. Mikolov, I. Sutskever, K. Chen, G. Corrado, J. Dean, "Distributed representations of words
       and phrases and their compositionality", NIPS 2013.

    Examples
    --------
    >>> from sk_hsm import HierarchicalSoftmaxEmbedding, SkipGramPairs
    >>> texts = [["the", "cat", "sat"], ["the", "dog", "sat"]] * 50
    >>> pairs = SkipGramPairs(texts, window=2, subsample=float("inf"), random_state=0)
    >>> pairs.vocabulary.tolist(), pairs.counts.tolist()
    (['sat', 'the', 'cat', 'dog'], [100, 100, 50, 50])
    >>> embedding = HierarchicalSoftmaxEmbedding(dim=4, random_state=0)
    >>> embedding = embedding.fit_batches(pairs, pairs.classes, pairs.counts)
    >>> embedding.embedding_[pairs.index["cat"]].shape
    (4,)
    """

    def __init__(
        self,
        sentences: str | os.PathLike | Iterable[Sentence],
        *,
        window: int = 5,
        min_count: int = 5,
        subsample: float = 1e-3,
        tokens_per_batch: int = 10_000,
        vocabulary: Sequence[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.window = check_count("window", window)
        self.min_count = check_count("min_count", min_count)
        self.tokens_per_batch = check_count("tokens_per_batch", tokens_per_batch)
        if not isinstance(subsample, Real) or not subsample > 0:
            raise ValueError(f"subsample must be a number above 0, or inf to keep all, got {subsample!r}")
        self.subsample = float(subsample)
        if isinstance(vocabulary, str | bytes) or not isinstance(vocabulary, Iterable | None):
            raise TypeError(f"vocabulary must be a sequence of words, got {vocabulary!r:.40}: pass a list")
        if not isinstance(sentences, str | os.PathLike | Iterable):
            raise TypeError(
                "sentences must be the path of a file or an iterable of lists of words, got "
                f"{type(sentences).__name__}"
            )
        if not isinstance(sentences, str | os.PathLike) and iter(sentences) is sentences:
            raise TypeError(
                "sentences must give the same texts each time, and a "
                f"{type(sentences).__name__} can be read only once: pass a list or the path of a file"
            )
        self._sentences = sentences
        self._seed = check_random_state(random_state).randint(2**31 - 1)
        self._n_iterations = 0
        self._count_words(vocabulary)

    def __len__(self) -> int:
        """Number of batches."""
        return self._n_batches

    def __iter__(self) -> Iterator[tuple[sparse.csr_array, NDArray[np.int32]]]:
        """The batches: rows (n_pairs, n_words) and labels (n_pairs,)."""
        self._n_iterations += 1
        rng = np.random.default_rng([self._seed, self._n_iterations])
        for batch in self._batches():
            yield self._pairs(batch, rng)

    def _count_words(self, vocabulary: Sequence[str] | None) -> None:
        counter: Counter[str] = Counter()
        self._n_batches = 0
        for batch in self._batches():
            self._n_batches += 1
            counter.update(chain.from_iterable(batch))
        self.n_tokens = counter.total()
        words = self._frequent(counter) if vocabulary is None else list(vocabulary)
        self.vocabulary = np.array(words)
        self.classes = np.arange(len(words), dtype=np.int32)
        self.counts = np.array([counter[word] for word in words], dtype=np.int64)
        self.index = {word: i for i, word in enumerate(words)}
        if len(self.index) < len(words):
            raise ValueError(f"vocabulary has {len(words)} words, but only {len(self.index)} different ones")
        with np.errstate(over="ignore"):
            ratio = self.subsample * (max(self.counts.sum(), 1) / np.maximum(self.counts, 1))
        self._keep = np.sqrt(ratio) + ratio

    def _frequent(self, counter: Counter[str]) -> list[str]:
        kept = sorted((-count, word) for word, count in counter.items() if count >= self.min_count)
        if not kept:
            raise ValueError(
                f"no word of sentences occurs min_count={self.min_count} times, {len(counter)} occur at all: "
                "pass more text, or a smaller min_count"
            )
        return [word for _, word in kept]

    def _batches(self) -> Iterator[list[Sentence]]:
        """Lists of sentences."""
        batch, n_tokens = [], 0
        for sentence in self._read():
            if isinstance(sentence, str | bytes):
                raise TypeError(
                    f"sentences must be sequences of words, got the string {sentence[:40]!r}: split it"
                )
            if not isinstance(sentence, Sized):
                raise TypeError(f"sentences must be sequences of words, got {sentence!r:.40}: pass lists")
            batch.append(sentence)
            n_tokens += len(sentence)
            if n_tokens >= self.tokens_per_batch:
                yield batch
                batch, n_tokens = [], 0
        if n_tokens:
            yield batch

    def _read(self) -> Iterable[Sentence]:
        if not isinstance(self._sentences, str | os.PathLike):
            yield from self._sentences
            return
        with open(self._sentences, encoding="utf-8") as file:
            for line in file:
                yield line.split()

    def _pairs(
        self, batch: list[Sentence], rng: np.random.Generator
    ) -> tuple[sparse.csr_array, NDArray[np.int32]]:
        """All pairs of a batch, centre by centre."""
        word, sentence = self._encode(batch)
        kept = rng.random(len(word)) < self._keep[word]
        word, sentence = word[kept], sentence[kept]
        windows = rng.integers(1, min(self.window, 2**31), len(word), endpoint=True)
        windows = np.minimum(windows, np.bincount(sentence)[sentence])  # whole sentences may be asked for
        contexts, centres = np.empty((2, 2 * windows.sum()), dtype=np.int32)
        n = window_pairs(word, sentence, windows, contexts, centres)
        rows = np.ones(n, dtype=np.float32), contexts[:n], np.arange(n + 1, dtype=np.int32)
        return sparse.csr_array(rows, shape=(n, len(self.vocabulary))), centres[:n]

    def _encode(self, batch: list[Sentence]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The numbers of the words that are known, and of the sentences that they are in."""
        lengths = [len(sentence) for sentence in batch]
        tokens = chain.from_iterable(batch)
        word = np.fromiter(map(self.index.get, tokens, repeat(-1)), np.int32, sum(lengths))
        sentence = np.repeat(np.arange(len(batch), dtype=np.int32), lengths)
        known = word >= 0
        return word[known], sentence[known]
