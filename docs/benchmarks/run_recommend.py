"""Recommend items with one method and one setting, measure, and print one line of JSON.

Runs in the method's own environment, started by recommend.py; so nothing but numpy, scipy and the library of
that method is imported. Each tested user has one item held out; items of the user's history are not
recommended, by any method.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
from run_one import peak_mb, rounded, used
from scipy import sparse

K = 20
CHUNK = 2000  # users at a time
AT_ONCE = 200  # of those that are compared with all others

# -- methods: fit(histories, X, y), best(users, histories, X) ---------------


class Popularity:
    """The items of most users."""

    def __init__(self, params: dict, threads: int):
        pass

    def fit(self, histories, X, y):
        self.order = np.argsort(-np.bincount(histories.indices, minlength=histories.shape[1]), kind="stable")

    def best(self, users, histories, X):
        longest = int(np.diff(histories[users].indptr).max())
        candidates = np.tile(self.order[: K + longest], (len(users), 1))
        return without_seen(candidates, histories[users])


class Implicit:
    """A model of the library implicit; parameters are its own."""

    def __init__(self, params: dict, threads: int):
        self.params, self.threads = params, threads

    def fit(self, histories, X, y):
        from threadpoolctl import threadpool_limits

        self.model = self.make()
        threadpool_limits(1, "blas")  # as it asks for: its own threads are over users
        self.model.fit(histories, show_progress=False)

    def best(self, users, histories, X):
        return self.model.recommend(users, histories[users], N=K, filter_already_liked_items=True)[0]


class ItemKnn(Implicit):
    """Items like those of the history, by cosine."""

    def make(self):
        from implicit.nearest_neighbours import CosineRecommender

        return CosineRecommender(num_threads=self.threads, **self.params)


class ALS(Implicit):
    """Matrix factorization by alternating least squares."""

    def make(self):
        from implicit.als import AlternatingLeastSquares

        return AlternatingLeastSquares(num_threads=self.threads, random_state=0, **self.params)


class BPR(Implicit):
    """Matrix factorization by Bayesian personalized ranking."""

    def make(self):
        from implicit.bpr import BayesianPersonalizedRanking

        return BayesianPersonalizedRanking(num_threads=self.threads, random_state=0, **self.params)


class Markov:
    """Which item follows the last one, smoothed by popularity; for sets in order."""

    def __init__(self, params: dict, threads: int):
        self.prior = params.get("prior", 10)

    def fit(self, histories, X, y):
        n_items = histories.shape[1]
        last = X[:, n_items:].indices
        self.counts = sparse.csr_matrix((np.ones(len(y)), (last, y)), shape=(n_items, n_items))
        self.popularity = self.prior * np.bincount(y, minlength=n_items) / len(y)

    def best(self, users, histories, X):
        last = X[:, histories.shape[1] :].indices
        scores = self.counts[last].toarray() + self.popularity
        return without_seen(np.argsort(-scores, axis=1, kind="stable"), histories[users])


class Classifier:
    """HierarchicalSoftmaxClassifier: from a bag of items to the item that belongs to them."""

    def __init__(self, params: dict, threads: int):
        self.model = self.estimator()(**{"n_jobs": threads, "random_state": 0} | params)

    def estimator(self):
        from sk_hsm import HierarchicalSoftmaxClassifier

        return HierarchicalSoftmaxClassifier

    def fit(self, histories, X, y):
        self.model.fit(X, y)

    def best(self, users, histories, X):
        seen = histories[users]
        k = min(K + int(np.diff(seen.indptr).max()), len(self.model.classes_))
        return without_seen(self.model.predict_top_k(X, k=k)[0], seen)


class Embedding(Classifier):
    """HierarchicalSoftmaxEmbedding: the same task through an embedding of items, by SGD."""

    def estimator(self):
        from sk_hsm import HierarchicalSoftmaxEmbedding

        return partial(HierarchicalSoftmaxEmbedding, tree="kmeans")


class NearestUsers(Embedding):
    """What the users with the nearest vectors have had; the vector of a user is that of the history."""

    def __init__(self, params: dict, threads: int):
        params = {"neighbours": 200, "power": 8} | params
        self.neighbours, self.power = params.pop("neighbours"), params.pop("power")
        super().__init__(params, threads)

    def fit(self, histories, X, y):
        super().fit(histories, X, y)
        # where rows have more columns than items, the others say which one was the last: it is left out
        arrays = histories.data, histories.indices, histories.indptr
        rows = sparse.csr_matrix(arrays, (histories.shape[0], X.shape[1]))
        self.vectors = unit(self.model.transform(rows))

    def best(self, users, histories, X):
        parts = np.array_split(users, -(-len(users) // AT_ONCE))
        scores = sparse.vstack([self.nearest(part) @ histories for part in parts])
        return best_unseen(scores.toarray(), histories[users])

    def cosines(self, users):
        """Of these users' vectors with all."""
        return self.vectors[users] @ self.vectors.T

    def nearest(self, users):
        """A row for each user: similarities in the columns of the nearest users."""
        cosines = self.cosines(users)
        n = min(self.neighbours + 1, cosines.shape[1])  # one of them is the user
        nearest = np.argpartition(cosines, -n, axis=1)[:, -n:]
        weights = np.maximum(np.take_along_axis(cosines, nearest, axis=1), 0) ** self.power
        ends = np.arange(len(users) + 1) * n
        return sparse.csr_matrix((weights.ravel(), nearest.ravel(), ends), (len(users), cosines.shape[1]))


class NearestHistories(NearestUsers):
    """What the users with the nearest histories have had: the same without an embedding."""

    def fit(self, histories, X, y):
        lengths = np.sqrt(np.maximum(np.diff(histories.indptr), 1))
        self.vectors = sparse.diags(1 / lengths).tocsr() @ histories

    def cosines(self, users):
        return super().cosines(users).toarray()


class NearestMeans(Embedding):
    """The items whose training rows have the nearest mean vector."""

    def fit(self, histories, X, y):
        super().fit(histories, X, y)
        members = sparse.csr_matrix((np.ones(len(y)), (y, np.arange(len(y)))), (histories.shape[1], len(y)))
        self.means = unit(members @ unit(self.model.transform(X)))

    def best(self, users, histories, X):
        return best_unseen(unit(self.model.transform(X)) @ self.means.T, histories[users])


METHODS = {
    "popularity": Popularity,
    "markov": Markov,
    "item_knn": ItemKnn,
    "als": ALS,
    "bpr": BPR,
    "sk_hsm": Classifier,
    "sk_hsm_embedding": Embedding,
    "nearest_histories": NearestHistories,
    "nearest_users": NearestUsers,
    "nearest_means": NearestMeans,
}


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1, or 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def best_unseen(scores: np.ndarray, seen: sparse.csr_matrix) -> np.ndarray:
    """The K items of the highest score, without those that the user has had."""
    k = min(K + int(np.diff(seen.indptr).max()), scores.shape[1])
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return without_seen(np.take_along_axis(best, order, axis=1), seen)


def without_seen(candidates: np.ndarray, seen: sparse.csr_matrix) -> np.ndarray:
    """The first K of each row of candidates that the user has not had; -1 where there are fewer."""
    found = np.full((len(candidates), K), -1)
    for row, items in enumerate(candidates):
        known = seen.indices[seen.indptr[row] : seen.indptr[row + 1]]
        kept = items[~np.isin(items, known)][:K]
        found[row, : len(kept)] = kept
    return found


# -- measuring --------------------------------------------------------------


def load(folder: Path) -> dict:
    """The arrays of a part that interactions.py has written."""
    data = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    return data | {path.stem: sparse.csr_matrix(sparse.load_npz(path)) for path in folder.glob("*.npz")}


def measure(method, data: dict) -> dict:
    """Seconds of training, and how high the held-out items are ranked."""
    cpu, wall = used()
    method.fit(data["histories"], data["X_train"], data["y_train"])
    end_cpu, end_wall = used()
    users, targets, hits = data["users"], data["y_test"], []
    for begin in range(0, len(users), CHUNK):
        rows = slice(begin, begin + CHUNK)
        best = np.asarray(method.best(users[rows], data["histories"], data["X_test"][rows]))
        hits.append(best[:, :K] == targets[rows, None])
    hits = np.concatenate(hits)
    gains = 1 / np.log2(np.arange(hits.shape[1]) + 2)
    result = {"train_cpu_s": end_cpu - cpu, "train_wall_s": end_wall - wall}
    result |= {"predict_s": used()[1] - end_wall, "n_test": len(users)}
    return result | {
        "recall20": hits.any(axis=1).mean(),
        "ndcg20": (hits @ gains).mean(),
        "peak_mb": peak_mb(),
    }


def main() -> None:
    """Fit, recommend, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("data", type=Path, help="folder that interactions.py has written")
    parser.add_argument("--params", type=json.loads, default={}, help="JSON")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    result = measure(METHODS[args.method](args.params, args.threads), load(args.data))
    print(json.dumps({name: rounded(value) for name, value in result.items()}))


if __name__ == "__main__":
    main()
