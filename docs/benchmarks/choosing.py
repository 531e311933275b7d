"""What `C` and prior that choose themselves are worth: the default against a grid of C, for few classes.

``python docs/benchmarks/choosing.py`` needs an environment that has this package. The larger sets are cut to
their most frequent classes and to so many rows. A third of the rows is for testing, over several splits; the
best of the grid is the best on these test rows, which no choice in training can know.
"""

import argparse
import statistics
from pathlib import Path

import datasets
import numpy as np
from report import FORMATS
from run_one import load, used
from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from sk_hsm import HierarchicalSoftmaxClassifier

C_GRID = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]
N_ROWS = 20_000


def digits(cache: Path) -> tuple:
    """1,797 images of 64 pixels, 10 classes."""
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def synthetic(cache: Path) -> tuple:
    """20 overlapping classes of dense rows, a tenth of the labels wrong."""
    X, y = make_classification(
        10_000, 50, n_informative=20, n_classes=20, n_clusters_per_class=2, flip_y=0.1, random_state=0
    )
    return StandardScaler().fit_transform(X) / 50**0.5, y


def most_frequent(name: str, n_classes: int):
    """The n_classes with most rows of a public set, and N_ROWS of their rows."""

    def build(cache: Path) -> tuple:
        X, y = load(datasets.build(name, cache), "train")
        kept = np.flatnonzero(np.isin(y, np.argsort(-np.bincount(y), kind="stable")[:n_classes]))
        kept = np.sort(np.random.default_rng(0).permutation(kept)[:N_ROWS])
        return X[kept], y[kept]

    return build


SETS = {
    "digits": digits,
    "synthetic, 20 classes": synthetic,
    "20 words": most_frequent("nextword_gcide", 20),
    "300 words": most_frequent("nextword_gcide", 300),
    "20 films": most_frequent("nextitem_ml100k", 20),
    "300 films": most_frequent("nextitem_ml100k", 300),
    "300 lemmas": most_frequent("lemma_ru", 300),
}


def measure(X, y, arity: int, C: float | str, prior: str | None, seed: int, threads: int) -> tuple:
    """Log-loss, accuracy, and CPU seconds of the fit."""
    X, X_test, y, y_test = train_test_split(X, y, test_size=1 / 3, random_state=seed, stratify=y)
    params = {"arity": arity, "C": C, "prior": prior, "rescore": False}
    model = HierarchicalSoftmaxClassifier(**params, n_jobs=threads, random_state=seed)
    begin = used()[0]
    model.fit(X, y)
    seconds = used()[0] - begin
    return -model.log_proba_of(X_test, y_test).mean(), model.score(X_test, y_test), seconds


def compare(X, y, arity: int, args: argparse.Namespace) -> list[str]:
    """Of one set and arity: NLL and P@1 of the default, and how far the best of the grid is."""
    rows = []
    for seed in range(args.splits):
        nll, p1, seconds = measure(X, y, arity, "auto", "auto", seed, args.threads)
        grid = [measure(X, y, arity, C, None, seed, args.threads) for C in C_GRID]
        best = min(grid)
        most_accurate = max(score for _, score, _ in grid)
        rows.append((nll, nll / best[0] - 1, p1, p1 - best[1], p1 - most_accurate, seconds / best[2]))
    means = [statistics.fmean(column) for column in zip(*rows, strict=True)]
    formats = (".3f", "+.1%", ".4f", "+.4f", "+.4f", ".1f")
    return [format(value, style) for value, style in zip(means, formats, strict=True)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="default: all")
    parser.add_argument("--arities", nargs="+", type=int, default=[4, 16])
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--cache", type=Path, default=datasets.CACHE, help=f"default {datasets.CACHE}")
    args = parser.parse_args()
    heading = ["set", "arity", "NLL", "of the grid's", "P@1", "of that C", "of any C", "times the fit"]
    rows = []
    for name in args.sets:
        X, y = SETS[name](args.cache)
        for arity in args.arities:
            rows.append([name, str(arity), *compare(X, y, arity, args)])
            print(*rows[-1], sep="  ", flush=True)
    print(f"\n{FORMATS[args.format]([heading, *rows])}")


if __name__ == "__main__":
    main()
