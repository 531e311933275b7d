"""Learn word vectors with one method, measure them, and print one line of JSON.

Runs in the method's own environment, started by words.py; so nothing but numpy, scipy and the library of
that method is imported.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from run_one import peak_mb, rounded, used
from scipy import sparse

NEIGHBOURS = 10
CHUNK = 2000  # words or pairs at a time
COMMON = {"dim": 100, "epochs": 2, "window": 5, "min_count": 5, "subsample": 1e-3}

# -- methods: prepare (count words), train, vocabulary, vectors, log_proba --


class Gensim:
    """gensim's Word2Vec; parameters are its own."""

    def __init__(self, train: Path, params: dict, threads: int):
        from gensim.models import Word2Vec

        self.file, self.epochs = str(train), params.pop("epochs")
        names = {"dim": "vector_size", "subsample": "sample"}
        params = {names.get(name, name): value for name, value in params.items()}
        self.model = Word2Vec(sg=1, workers=threads, seed=1, **params)

    def prepare(self):
        self.model.build_vocab(corpus_file=self.file)

    def train(self):
        total = self.model.corpus_total_words
        self.model.train(corpus_file=self.file, total_words=total, epochs=self.epochs)

    def vocabulary(self) -> list[str]:
        return self.model.wv.index_to_key

    def vectors(self) -> np.ndarray:
        return self.model.wv.vectors

    def log_proba(self, context: np.ndarray, centre: np.ndarray) -> np.ndarray | None:
        """From its Huffman tree: a word has the inner nodes above it, and which way to go at each."""
        if not self.model.hs:
            return None
        points, codes = (
            [self.model.wv.get_vecattr(int(word), name) for word in centre] for name in ("point", "code")
        )
        pair = np.repeat(np.arange(len(centre)), list(map(len, points)))
        inner = self.model.syn1[np.concatenate(points)]
        scores = np.einsum("ij,ij->i", inner, self.model.wv.vectors[context][pair])
        signs = 1 - 2.0 * np.concatenate(codes)
        return np.bincount(pair, -np.logaddexp(0, -signs * scores), len(centre))


class SkHsm:
    """This package; parameters but the common ones are those of HierarchicalSoftmaxEmbedding."""

    def __init__(self, train: Path, params: dict, threads: int):
        from sk_hsm import HierarchicalSoftmaxEmbedding

        self.file = str(train)
        self.of_pairs = {name: params.pop(name) for name in ("window", "min_count", "subsample")}
        epochs = params.pop("epochs")
        self.model = HierarchicalSoftmaxEmbedding(n_epochs=epochs, n_jobs=threads, random_state=0, **params)

    def prepare(self):
        from sk_hsm import SkipGramPairs

        self.pairs = SkipGramPairs(self.file, random_state=0, **self.of_pairs)

    def train(self):
        classes = np.arange(len(self.pairs.vocabulary))
        self.model.fit_batches(self.pairs, classes=classes, counts=self.pairs.counts)

    def vocabulary(self) -> list[str]:
        return self.pairs.vocabulary.tolist()

    def vectors(self) -> np.ndarray:
        return self.model.embedding_

    def log_proba(self, context: np.ndarray, centre: np.ndarray) -> np.ndarray:
        ends = np.arange(len(context) + 1)
        shape = (len(context), len(self.pairs.vocabulary))
        X = sparse.csr_matrix((np.ones(len(context), np.float32), context, ends), shape=shape)
        return self.model.log_proba_of(X, centre)


METHODS = {"gensim": Gensim, "sk_hsm": SkHsm}

# -- measuring --------------------------------------------------------------


def timed(call) -> tuple[float, float]:
    """CPU and wall seconds of a call."""
    begin = used()
    call()
    return tuple(end - start for end, start in zip(used(), begin, strict=True))


def synonyms_found(vectors: np.ndarray, folder: Path, number: dict[str, int]) -> float:
    """The mean share of a word's synonyms, or of ten of them, among its ten nearest neighbours by cosine."""
    of = json.loads((folder / "synonyms.json").read_text())
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    queries = np.array([number[word] for word in of])
    wanted = [{number[word] for word in synonyms} for synonyms in of.values()]
    shares = []
    for begin in range(0, len(queries), CHUNK):
        rows = queries[begin : begin + CHUNK]
        scores = vectors[rows] @ vectors.T
        scores[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(scores, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
        for found, synonyms in zip(nearest, wanted[begin : begin + CHUNK], strict=True):
            shares.append(len(synonyms.intersection(found.tolist())) / min(len(synonyms), NEIGHBOURS))
    return float(np.mean(shares))


def likelihoods(method, folder: Path, number: dict[str, int]) -> dict:
    """The mean negative log-likelihood of the held-out pairs, of all and of those drawn as in training."""
    known = np.array([number[word] for word in np.load(folder / "words.npy")])
    found = {}
    for kind, pairs in np.load(folder / "pairs.npz").items():
        log_proba = method.log_proba(*known[pairs].T)
        if log_proba is not None:
            found[f"nll_{kind}"] = float(-np.mean(log_proba))
    return found


def measure(method, folder: Path, epochs: int) -> dict:
    """Train, and all that is reported."""
    count_cpu, count_wall = timed(method.prepare)
    cpu, wall = timed(method.train)
    tokens = epochs * json.loads((folder / "shape.json").read_text())["train_tokens"]
    result = {"count_cpu_s": count_cpu, "count_wall_s": count_wall, "train_cpu_s": cpu, "train_wall_s": wall}
    result |= {"words_per_cpu_s": tokens / cpu, "words_per_s": tokens / wall, "peak_mb": peak_mb()}
    number = {word: i for i, word in enumerate(method.vocabulary())}
    result["synonyms10"] = synonyms_found(np.asarray(method.vectors()), folder, number)
    return result | likelihoods(method, folder, number)


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("data", type=Path, help="folder that corpora.py has written")
    parser.add_argument("--params", type=json.loads, default={}, help="JSON")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    params = COMMON | args.params
    epochs = params["epochs"]
    method = METHODS[args.method](args.data / "train.txt", params, args.threads)
    result = measure(method, args.data, epochs)
    print(json.dumps({name: rounded(value) for name, value in result.items()}))


if __name__ == "__main__":
    main()
