"""The hardest case: dense rows, at most three a class; and what whitening does for them.

``python docs/benchmarks/few_rows.py`` needs an environment that has this package. It trains on six choices
of 2,000 classes of lemma_ru_dense_3, where a flat softmax can be trained, and prints means over them; on all
48,010; and on all rows, lemma_ru_dense. One thread. What is measured is written at once, and not measured
again.
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
from report import FORMATS, load, save
from run_one import calibration, load_split, used
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import normalize

from sk_hsm import HierarchicalSoftmaxClassifier, HierarchicalSoftmaxEmbedding, SampledSoftmaxClassifier

RESULTS = Path(__file__).parent / "results" / "few_rows.json"
MAX_TEST, K, CHUNK = 10_000, 5, 1000
N_BY_LEVEL = 3000
N_CHOICES = 6
COLUMNS = {
    "train CPU s": ("train_cpu_s", ".1f"),
    "P@1": ("p1", ".3f"),
    "R@5": ("r5", ".3f"),
    "NLL": ("nll", ".3f"),
    "calibration error": ("ece", ".3f"),
}


class Centroids:
    """The nearest mean of a class's rows; of rows made white by scikit-learn, if asked for."""

    def __init__(self, whiten: bool):
        self.whiten = LinearDiscriminantAnalysis() if whiten else None

    def fit(self, X, y):
        if self.whiten is not None:
            X = self.whiten.fit(X, y).transform(X)
        self.classes_, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
        self.means = np.zeros((len(self.classes_), X.shape[1]))
        np.add.at(self.means, inverse, X)
        self.means /= counts[:, None]
        return self

    def predict_top_k(self, X, k):
        if self.whiten is not None:
            X = self.whiten.transform(X)
        found = []
        for lo in range(0, len(X), CHUNK):
            scores = 2 * X[lo : lo + CHUNK] @ self.means.T - np.sum(self.means**2, axis=1)
            best = np.argpartition(-scores, k, axis=1)[:, :k]
            order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
            found.append(self.classes_[np.take_along_axis(best, order, axis=1)])
        return np.concatenate(found), None


def classifier(**params):
    return HierarchicalSoftmaxClassifier(n_jobs=1, random_state=0, **params)


METHODS = {
    "nearest centroid": lambda: Centroids(whiten=False),
    "nearest centroid, LDA": lambda: Centroids(whiten=True),
    "flat softmax, as they are": lambda: classifier(arity=10**6, whiten=False),
    "flat softmax": lambda: classifier(arity=10**6),
    "tree alone, as they are": lambda: classifier(whiten=False, rescore=False),
    "tree alone": lambda: classifier(rescore=False),
    "tree": classifier,
    "tree, arity 64": lambda: classifier(arity=64),
    "three trees": lambda: classifier(n_trees=3),
    "tree, embedding": lambda: HierarchicalSoftmaxEmbedding(
        tree="kmeans", arity=16, learning_rate=0.3, n_epochs=10, random_state=0
    ),
    "midx-rq": lambda: SampledSoftmaxClassifier(
        sampler="midx-rq", learning_rate=1, n_epochs=10, random_state=0
    ),
}
# a flat softmax of all classes is too large; scikit-learn's LDA looks at all rows for each class
MANY_CLASSES = [name for name in METHODS if "flat" not in name and "LDA" not in name]
SETS = {
    ("lemma_ru_dense_3", 2000): list(METHODS),
    ("lemma_ru_dense_3", None): MANY_CLASSES,
    ("lemma_ru_dense", None): ["nearest centroid", "tree alone, as they are", "tree alone", "tree"],
}


def rows_of(data: str, n_classes: int | None, choice: int, cache: Path) -> tuple:
    """Rows to train and to test, of length one, of so many classes at random."""
    X, y, X_test, y_test = load_split(datasets.build(data, cache), "test", 10**9)
    if n_classes is not None:
        chosen = np.random.default_rng(choice).permutation(np.unique(y))[:n_classes]
        of, of_test = np.isin(y, chosen), np.isin(y_test, chosen)
        X, y, X_test, y_test = X[of], y[of], X_test[of_test], y_test[of_test]
    some = np.random.default_rng(1).permutation(len(y_test))[:MAX_TEST]
    return normalize(X), y, normalize(X_test[some]), y_test[some]


def by_level(model, X, y) -> list[list[float]]:
    """Of the first rows, on the paths of their classes, at each depth: number, share going right, log-loss.

    A row goes right where the most probable child is the right one.
    """
    tree, weights, levels = model.tree_, model.node_weights_, []
    for x, label in zip(X[:N_BY_LEVEL], y, strict=False):
        path = [tree.n_inner + np.searchsorted(tree.leaf_labels, label)]
        while path[-1] > 0:
            path.append(tree.parents[path[-1]])
        for depth, (child, node) in enumerate(reversed(list(pairwise(path)))):
            features, W, bias = weights.node(node, tree.child_ptr[node + 1] - tree.child_ptr[node])
            log_p = log_softmax((x[features] @ W + bias).astype(float))
            right = tree.positions[child]
            if depth == len(levels):
                levels.append([0, 0.0, 0.0])
            levels[depth][0] += 1
            levels[depth][1] += log_p.argmax() == right
            levels[depth][2] -= log_p[right]
    return [[n, float(hits / n), float(loss / n)] for n, hits, loss in levels]


def measure(method: str, X, y, X_test, y_test) -> dict:
    """Accuracy, likelihood and the error of the first answer's probability."""
    model, begin = METHODS[method](), used()[0]
    model.fit(X, y)
    seconds = used()[0] - begin
    labels, proba = model.predict_top_k(X_test, k=K)
    hit = labels == y_test[:, None]
    found = {
        "train_cpu_s": seconds,
        "p1": hit[:, 0].mean(),
        "r5": hit.any(axis=1).mean(),
        "n_test": len(y_test),
    }
    if hasattr(model, "log_proba_of"):
        found["nll"] = -model.log_proba_of(X_test, y_test).mean()
        found["ece"] = calibration(proba[:, 0], hit[:, 0])["ece"]
    found = {name: float(value) for name, value in found.items()}
    if method == "tree alone":
        found["levels"] = {"training": by_level(model, X, y), "test": by_level(model, X_test, y_test)}
    return found


def levels_table(levels: dict) -> list[list[str]]:
    """A line for each depth."""
    lines = [["depth", "test rows", "right child", "log-loss", "right child, training", "log-loss, training"]]
    for depth, (new, old) in enumerate(zip(levels["test"], levels["training"], strict=False)):
        lines.append([str(depth), f"{new[0]:,}", *(f"{x:.3f}" for x in (*new[1:], *old[1:]))])
    return lines


def measure_missing(records: list[dict], key: dict, methods: list[str], args: argparse.Namespace) -> None:
    """Add records of a choice of classes for the methods that have none."""
    rows = None
    for method in methods:
        if not any((key | {"method": method}).items() <= record.items() for record in records):
            rows = rows or rows_of(**key, cache=args.cache)
            records.append(key | {"method": method} | measure(method, *rows))
            print(time.strftime("%H:%M:%S"), records[-1], flush=True)
            save(records, args.output)


def table(records: list[dict], methods: list[str]) -> list[list[str]]:
    """A line for each method, means over the choices of classes."""
    lines = [["method", *COLUMNS]]
    for method in methods:
        of = [record for record in records if record["method"] == method]
        cells = [
            (np.mean([r[field] for r in of]) if field in of[0] else None, form)
            for field, form in COLUMNS.values()
        ]
        lines.append([method, *("" if value is None else format(value, form) for value, form in cells)])
    return lines


def main() -> None:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default {RESULTS}")
    parser.add_argument("--cache", type=Path, default=datasets.CACHE, help=f"default {datasets.CACHE}")
    args = parser.parse_args()
    records = load(args.output)
    for (data, n_classes), methods in SETS.items():
        methods = [method for method in methods if method in args.methods]
        for choice in range(N_CHOICES if n_classes else 1):
            key = {"data": data, "n_classes": n_classes, "choice": choice}
            measure_missing(records, key, methods, args)
        measured = [r for r in records if (r["data"], r["n_classes"]) == (data, n_classes)]
        print(
            f"\n{data}, {n_classes or 'all'} classes\n",
            FORMATS[args.format](table(measured, methods)),
            sep="\n",
        )
        for record in (r for r in measured if r["choice"] == 0 and "levels" in r):
            print("", FORMATS[args.format](levels_table(record["levels"])), sep="\n")


if __name__ == "__main__":
    main()
