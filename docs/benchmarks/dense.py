"""A million classes of dense rows, drawn from known probabilities: time, memory, and how near to the best.

``python docs/benchmarks/dense.py`` needs an environment that has this package, and 24 GB for the largest
size. Each size is a process of its own. A class is a point: the sum of one of its own, one of the ten classes
that it is among, one of the hundred that these are among, and so on, all Gaussian. A row is the point of its
class plus Gaussian noise, so that the probability of each class is known. Every class has five rows.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from report import FORMATS
from roofline import STAGES, timed_fit
from scipy.special import logsumexp

RESULTS = Path(__file__).parent / "results" / "dense.json"
SIZES = [10_000, 100_000, 300_000, 1_000_000]
N_FEATURES, N_ROWS, N_TEST = 128, 5, 20_000  # rows a class, and test rows
SPREAD = 0.6  # of each of the parts of a point; noise has 1
N_SCANNED, CHUNK = 1000, 10_000  # test rows compared with all classes; classes at a time

# -- data -------------------------------------------------------------------


def points(n_classes: int, branches: int) -> np.ndarray:
    """The points of the classes."""
    rng = np.random.default_rng(0)
    point = np.zeros((n_classes, N_FEATURES), np.float32)
    size = 1  # of a group
    while size < n_classes:
        parts = rng.standard_normal((-(-n_classes // size), N_FEATURES), dtype=np.float32)
        for lo in range(0, n_classes, CHUNK):
            some = point[lo : lo + CHUNK]
            some += parts[np.arange(lo, lo + len(some)) // size]
        size *= branches
    point *= SPREAD
    return point


def draw(point: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """A row of each of these classes."""
    rng = np.random.default_rng(seed)
    X = np.empty((len(y), N_FEATURES), np.float32)
    for lo in range(0, len(y), CHUNK):
        part = X[lo : lo + CHUNK]
        rng.standard_normal(out=part, dtype=np.float32)
        part += point[y[lo : lo + CHUNK]]
    return X


def make(n_classes: int, branches: int) -> tuple[np.ndarray, ...]:
    """Training rows and classes, test rows and classes."""
    rng = np.random.default_rng(1)
    y = rng.permutation(np.repeat(np.arange(n_classes, dtype=np.int32), N_ROWS))
    y_test = rng.integers(n_classes, size=N_TEST, dtype=np.int32)
    point = points(n_classes, branches)
    return draw(point, y, 2), y, draw(point, y_test, 3), y_test


def means(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The mean row of each class."""
    order = np.argsort(y, kind="stable").reshape(-1, N_ROWS)
    mean = np.zeros((len(order), N_FEATURES), np.float32)
    for rows in order.T:
        mean += X[rows]
    return mean / N_ROWS


def scan(point: np.ndarray, variance: float, X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """P@1 and NLL of rows where classes are Gaussian around these points: of each row against all classes."""
    logits = np.empty((len(point), len(X)), np.float32)
    for lo in range(0, len(point), CHUNK):
        some = point[lo : lo + CHUNK]
        logits[lo : lo + CHUNK] = some @ X.T - (some**2).sum(axis=1, keepdims=True) / 2
    logits /= variance
    own = logits[y, np.arange(len(y))]
    totals = [logsumexp(logits[:, i].astype(float)) for i in range(len(y))]
    return float((logits.argmax(axis=0) == y).mean()), float(np.mean(totals - own))


def parts_of(model) -> list:
    """What takes memory."""
    return [model.node_weights_, *([model.rescoring_] if hasattr(model, "rescoring_") else [])]


# -- measuring --------------------------------------------------------------


def measure(n_classes: int, branches: int, params: dict) -> dict:
    """Fit, predict, and scan."""
    X, y, X_test, y_test = make(n_classes, branches)
    figures, model, problem, n_iter = timed_fit(X, y, {"rescore": "auto"} | params)
    rows = np.subtract(*problem.row_ranges[::-1])
    figures |= {"n_classes": n_classes, "n_rows": len(y), "data_mb": X.nbytes / 1e6}
    figures["passes"] = float((rows * n_iter).sum() / len(y))  # of a row, over the nodes of its path
    del problem
    figures["model_mb"] = sum(part.nbytes for part in parts_of(model)) / 1e6
    model.predict_top_k(X_test[:1000], k=5)
    begin = time.perf_counter()
    labels = model.predict_top_k(X_test, k=5)[0]
    figures["top5_us"] = (time.perf_counter() - begin) / N_TEST * 1e6
    figures["p1"] = float((labels[:, 0] == y_test).mean())
    figures["nll"] = float(-model.log_proba_of(X_test, y_test).mean())
    del model
    scanned = X_test[:N_SCANNED], y_test[:N_SCANNED]
    figures["best_p1"], figures["best_nll"] = scan(points(n_classes, branches), 1.0, *scanned)
    # a mean of five rows is off by a fifth of their variance
    figures["means_p1"], figures["means_nll"] = scan(means(X, y), 1 + 1 / N_ROWS, *scanned)
    return {name: float(f"{value:.5g}") for name, value in figures.items()}


def table(records: list[dict]) -> list[list[str]]:
    """A column for each size."""
    named = dict(zip(STAGES, ("tree", "choosing", "nodes"), strict=True))
    lines = {"classes": ("n_classes", 1, ",.0f"), "rows": ("n_rows", 1, ",.0f")}
    lines |= {"fit, wall s": ("fit_wall", 1, ".1f"), "fit, CPU s": ("fit", 1, ".1f")}
    lines |= {f"of these: {title}": (name, 1, ".1f") for name, title in named.items()}
    lines |= {"rows, GB": ("data_mb", 1e3, ".2f"), "peak, GB": ("fit_peak_mb", 1e3, ".2f")}
    lines |= {"model, GB": ("model_mb", 1e3, ".2f"), "top 5, µs a row": ("top5_us", 1, ".0f")}
    for title, name in (("", ""), (" of the true points", "best_"), (" of the classes' means", "means_")):
        lines |= {f"P@1{title}": (f"{name}p1", 1, ".3f"), f"NLL{title}": (f"{name}nll", 1, ".3f")}
    return [
        [title, *(f"{r[name] / unit:{form}}" for r in records)] for title, (name, unit, form) in lines.items()
    ]


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="numbers of classes")
    parser.add_argument("--params", type=json.loads, default={}, help="of the classifier, JSON")
    parser.add_argument("--branches", type=int, default=10, help="parts of a group (default 10)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default {RESULTS}")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.branches, {"n_jobs": args.threads} | args.params)))
        return
    records = json.loads(args.output.read_text()) if args.output.exists() else []
    key = {"params": args.params, "threads": args.threads, "branches": args.branches}
    for size in args.sizes:
        if not any(r["n_classes"] == size and r | key == r for r in records):
            command = [sys.executable, __file__, "--one", str(size), "--threads", str(args.threads)]
            command += ["--params", json.dumps(args.params), "--branches", str(args.branches)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            records.append(key | json.loads(output.splitlines()[-1]))
            args.output.write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")
    shown = [r for r in records if r | key == r and r["n_classes"] in args.sizes]
    print(FORMATS[args.format](table(sorted(shown, key=lambda r: r["n_classes"]))))


if __name__ == "__main__":
    main()
