"""How costs grow with classes, rows, features and non-zeros: fit, one row's answer, memory, model.

``python docs/benchmarks/growth.py`` needs an environment that has this package. Each point is a process of
its own. Classes are a random choice of those of lemma_multi. The others are lemma_ru with fewer rows of each
class, with columns added up by hashing, and with non-zeros left out at random. The exponent is the slope of
a line through the last points in log-log: 1 is proportional, 0 constant.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
from dense import parts_of
from report import FORMATS
from run_one import load, peak_mb, used
from scipy import sparse

from sk_hsm import HierarchicalSoftmaxClassifier

RESULTS = Path(__file__).parent / "results" / "growth.json"
SIZES = {
    "classes": [1000, 3000, 10_000, 30_000, 100_000, 300_000, 845_544],
    "rows": [1, 2, 3, 5, 8, 10],
    "features": [1000, 3000, 10_000, 30_000, 100_000, 183_886],
    "non-zeros": [0.1, 0.2, 0.4, 0.7, 1.0],
}
# figure: what it is divided by, its digits
COLUMNS = {
    "n_classes": 0, "n_rows": 0, "n_features": 0, "nnz": 1, "fit_cpu_s": 2, "fit_us_row": 1, "single_us": 0,
    "batch_us": 1, "peak_mb": 0, "model_mb": 1, "p1": 4,
}  # fmt: skip
FITTED = ["fit_us_row", "single_us", "batch_us", "peak_mb", "model_mb"]


def of_classes(cache: Path, n: float) -> tuple:
    """A random choice of the classes of lemma_multi."""
    folder = datasets.build("lemma_multi", cache)
    (X, y), (X_test, y_test) = load(folder, "train"), load(folder, "test")
    kept = np.random.default_rng(0).permutation(y.max() + 1)[: int(n)]
    train, test = np.isin(y, kept), np.isin(y_test, kept)
    return X[train], y[train], X_test[test], y_test[test]


def of_rows(cache: Path, n: float) -> tuple:
    """At most n rows of each class of lemma_ru."""
    folder = datasets.build("lemma_ru", cache)
    (X, y), test = load(folder, "train"), load(folder, "test")
    order = np.random.default_rng(0).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    rank = np.arange(len(y)) - np.searchsorted(y[order], y[order])
    kept = np.sort(order[rank < n])
    return X[kept], y[kept], *test


def of_features(cache: Path, n: float) -> tuple:
    """The columns of lemma_ru added up to n."""
    folder = datasets.build("lemma_ru", cache)
    (X, y), (X_test, y_test) = load(folder, "train"), load(folder, "test")
    columns = np.random.default_rng(0).permutation(X.shape[1]) % int(n)
    shape = X.shape[1], int(n)
    hashed = sparse.csr_matrix((np.ones(len(columns), np.float32), (np.arange(len(columns)), columns)), shape)
    return (X @ hashed).sorted_indices(), y, (X_test @ hashed).sorted_indices(), y_test


def of_non_zeros(cache: Path, share: float) -> tuple:
    """That share of the non-zeros of lemma_ru."""
    folder = datasets.build("lemma_ru", cache)
    (X, y), (X_test, y_test) = load(folder, "train"), load(folder, "test")
    rng = np.random.default_rng(0)
    for matrix in (X, X_test):
        matrix.data[rng.random(matrix.nnz) >= share] = 0
        matrix.eliminate_zeros()
    return X, y, X_test, y_test


MAKERS = dict(zip(SIZES, (of_classes, of_rows, of_features, of_non_zeros), strict=True))


def measure(what: str, size: float, args: argparse.Namespace) -> dict:
    """Fit and predict."""
    X, y, X_test, y_test = MAKERS[what](args.cache, size)
    X_test, y_test = X_test[:20_000], y_test[:20_000]
    model = HierarchicalSoftmaxClassifier(n_jobs=args.threads, random_state=0)
    begin = used()[0]
    model.fit(X, y)
    seconds = used()[0] - begin
    result = {
        "n_classes": len(model.classes_), "n_rows": len(y), "n_features": X.shape[1], "nnz": X.nnz / len(y),
        "fit_cpu_s": seconds, "fit_us_row": seconds / len(y) * 1e6, "peak_mb": peak_mb(),
        "model_mb": sum(part.nbytes for part in parts_of(model)) / 1e6,
    }  # fmt: skip
    begin = time.perf_counter()
    labels = model.predict_top_k(X_test, k=5)[0]
    result["batch_us"] = (time.perf_counter() - begin) / len(y_test) * 1e6
    rows, times = [X_test[i : i + 1] for i in range(min(1000, len(y_test)))], []
    for row in rows:
        begin = time.perf_counter()
        model.predict_top_k(row, k=5)
        times.append(time.perf_counter() - begin)
    result |= {"single_us": np.median(times) * 1e6, "p1": (labels[:, 0] == y_test).mean()}
    return {name: float(f"{value:.5g}") for name, value in result.items()}


def exponent(records: list[dict], name: str) -> float:
    """The slope of log figure over log size, of the last four points."""
    size, value = (np.log([record[key] for record in records[-4:]]) for key in ("size", name))
    return float(np.polyfit(size, value, 1)[0])


def table(records: list[dict]) -> list[list[str]]:
    """A row for each size, and the exponents."""
    rows = [["", *COLUMNS]]
    for record in records:
        rows.append(["", *(f"{record[name]:.{digits}f}" for name, digits in COLUMNS.items())])
    fitted = {name: f"{exponent(records, name):.2f}" for name in FITTED}
    return [*rows, ["exponent", *(fitted.get(name, "") for name in COLUMNS)]]


def draw(records: list[dict], path: Path) -> None:
    """A panel for each figure, against the number of classes."""
    import matplotlib.pyplot as plt

    titles = "fit, µs a row", "one row, µs", "a row of a batch, µs", "peak, MB", "model, MB"
    figure, panels = plt.subplots(1, len(FITTED), figsize=(14, 2.8), layout="constrained")
    for axes, name, title in zip(panels, FITTED, titles, strict=True):
        size, value = (np.array([record[key] for record in records]) for key in ("size", name))
        axes.plot(size, value, marker=".")
        axes.set(xscale="log", title=title, xlabel="classes")
        if value.max() > 10 * value.min():
            axes.set(yscale="log")
        else:
            axes.set(ylim=(0, None))
    figure.savefig(path, dpi=100)


def main() -> None:
    """Measure what is missing, print the tables, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", nargs="+", choices=SIZES, default=list(SIZES), help="default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--picture", type=Path, help="where to draw what classes cost, needs matplotlib")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default {RESULTS}")
    parser.add_argument("--cache", type=Path, default=datasets.CACHE, help=f"default {datasets.CACHE}")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], float(args.one[1]), args)))
        return
    records = json.loads(args.output.read_text()) if args.output.exists() else []
    everything = {}
    for what in args.what:
        for size in SIZES[what]:
            if any((record["what"], record["size"]) == (what, size) for record in records):
                continue
            command = [sys.executable, __file__, "--one", what, str(size), "--threads", str(args.threads)]
            output = subprocess.run([*command, "--cache", str(args.cache)], check=True, capture_output=True)
            records.append({"what": what, "size": size} | json.loads(output.stdout.splitlines()[-1]))
            args.output.write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")
        everything[what] = [record for record in records if record["what"] == what]
        print(f"{what}\n\n{FORMATS[args.format](table(everything[what]))}\n", flush=True)
    if args.picture:
        draw(everything["classes"], args.picture)


if __name__ == "__main__":
    main()
