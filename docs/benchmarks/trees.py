"""What the tree is worth: scores, depth and time of other trees, and of other arities.

``python docs/benchmarks/trees.py --data nextitem_ml100k`` is a first taste, in an environment that has this
package. A tree is written ``huffman``, ``kmeans,arity=64`` or ``kmeans,balance=0,slack=0.7``: its name, and
what differs from the default; balance, n_init, slack, small and frequent are constants of sk_hsm/clusters.py,
dense is one of sk_hsm/centroids.py, ``recurring=1`` that parameter of kmeans_tree, and ``prefixes=0.3`` its
`class_share` where class features are how labels begin. With ``small=1e9`` all nodes are cut in two and in
two again, as those of sparse rows are; with ``frequent=1e9`` no class is cut off first. `C` and the prior
choose themselves for each tree. What is measured is appended to a file at once, and not measured again.
``--across nll p1`` prints what there is, all data sets beside each other, and measures nothing.
"""

import argparse
import contextlib
import io
import json
import re
import statistics
import time
from pathlib import Path
from unittest.mock import patch

import datasets
import numpy as np
from report import FORMATS, load, save
from run_one import load_split, used
from sklearn.feature_extraction.text import CountVectorizer

from sk_hsm import HierarchicalSoftmaxClassifier, LabelTree, centroids, clusters, tree_builders

RESULTS = Path(__file__).parent / "results" / "trees.json"
DATA = ["nextitem_ml100k", "nextword_gcide", "lemma_ru_10k", "lemma_ru", "lemma_pl_noun"]
DATA += ["lemma_ru_dense", "lemma_ru_dense_3"]
BUILDERS = ["kmeans", "huffman", "sorted", "permuted"]
OTHERS = {"arity": 16, "dense": centroids.DENSE, "recurring": 0, "prefixes": 0}
LONGEST_PREFIX = 12
CONSTANTS = {"balance": "0 0.75 1", "n_init": "1", "slack": "0.05 0.7", "small": "1e9", "frequent": "1e9"}
ARITIES = (2, 4, 8, 32, 64, 128)
TREES = [
    *BUILDERS,
    *(f"kmeans,{name}={value}" for name, values in CONSTANTS.items() for value in values.split()),
    *(f"kmeans,arity={arity}" for arity in ARITIES),
    "kmeans,dense=0,small=1e9",
    "kmeans,recurring=1",
]
COLUMNS = {  # heading: (field, digits)
    "P@1": ("p1", 4),
    "R@5": ("r5", 4),
    "NLL": ("nll", 4),
    "mean depth": ("depth", 2),
    "of Huffman's": ("depth_ratio", 2),
    "tree CPU s": ("tree_cpu_s", 1),
    "fit CPU s": ("fit_cpu_s", 1),
}

# -- one tree ---------------------------------------------------------------


def parse_tree(text: str) -> tuple[str, int, dict]:
    """``kmeans,arity=64,balance=0`` as builder, arity, and constants of k-means."""
    builder, *settings = text.split(",")
    values = OTHERS.copy()
    values |= {name: getattr(clusters, name.upper()) for name in CONSTANTS}
    values |= {name: json.loads(value) for name, value in (part.split("=") for part in settings)}
    if builder not in BUILDERS or len(values) > len(OTHERS) + len(CONSTANTS):
        known = [*OTHERS, *CONSTANTS]
        raise ValueError(f"{text!r} is no tree: it is one of {BUILDERS} and {known}")
    return builder, values.pop("arity"), {name.upper(): value for name, value in values.items()}


def prefixes(label: str) -> list[str]:
    """How it begins."""
    return [label[:length] for length in range(1, LONGEST_PREFIX + 1)]


def build(tree: str, X, y, labels, seed: int, threads: int) -> LabelTree:
    """The tree over the classes of y, which are numbers of labels."""
    builder, arity, constants = parse_tree(tree)
    classes, counts = np.unique(y, return_counts=True)
    if builder == "huffman":
        return tree_builders.huffman_tree(counts, arity).with_labels(classes)
    if builder == "kmeans":
        dense, share = constants.pop("DENSE"), constants.pop("PREFIXES")
        how = {"recurring": bool(constants.pop("RECURRING")), "random_state": seed, "n_jobs": threads}
        if share:
            features = CountVectorizer(analyzer=prefixes).fit_transform(labels[classes])
            how |= {"class_features": features, "class_share": share}
        with patch.object(centroids, "DENSE", dense), patch.multiple(clusters, **constants):
            return tree_builders.kmeans_tree(X, y, arity, **how)
    order = np.random.default_rng(seed).permutation(classes) if builder == "permuted" else classes
    return tree_builders.balanced_tree(len(classes), arity).with_labels(order)


def depths(label_tree: LabelTree, arity: int, y) -> dict:
    """Mean number of nodes on a row's path, and its ratio to the smallest that the arity allows."""
    counts = np.unique(y, return_counts=True)[1]
    depth = label_tree.mean_depth(counts[np.searchsorted(np.unique(y), label_tree.leaf_labels)])
    least = tree_builders.huffman_tree(counts, arity).mean_depth(counts)
    return {"depth": depth, "depth_ratio": depth / least}


def scores(model, X, y) -> dict:
    """P@1, R@5 and NLL."""
    hits = model.predict_top_k(X, k=5)[0] == y[:, None]
    return {"p1": hits[:, 0].mean(), "r5": hits.any(axis=1).mean(), "nll": -model.log_proba_of(X, y).mean()}


def measure(tree: str, seed: int, split: tuple, args: argparse.Namespace) -> dict:
    """Build, fit, predict. held_out is the loss by which `fit` has chosen C and the prior."""
    X, y, X_test, y_test, labels = split
    begin = used()[0]
    label_tree = build(tree, X, y, labels, seed, args.threads)
    built = used()[0]
    # of rows as they are, of which the trees here are built, too
    model = HierarchicalSoftmaxClassifier(
        label_tree, whiten=False, rescore=args.rescore, n_jobs=args.threads, random_state=seed, verbose=1
    )
    with contextlib.redirect_stdout(io.StringIO()) as said:
        model.fit(X, y)
    result = {"tree_cpu_s": built - begin, "fit_cpu_s": used()[0] - begin}
    result["held_out"] = sum(map(float, re.findall(r"held-out log-loss ([\d.]+)", said.getvalue())))
    result["model_mb"] = model.node_weights_.nbytes / 1e6
    result |= depths(label_tree, parse_tree(tree)[1], y) | scores(model, X_test, y_test)
    return {name: float(f"{value:.5g}") for name, value in result.items()}


# -- all of them ------------------------------------------------------------


def load_rows(data: str, args: argparse.Namespace) -> tuple:
    """Rows to train and to test, of no more than so many to train and their classes only; and labels."""
    folder = datasets.build(data, args.cache)
    X, y, X_test, y_test = load_split(folder, "test", args.max_test)
    if args.max_train and args.max_train < len(y):
        chosen = np.sort(np.random.default_rng(0).permutation(len(y))[: args.max_train])
        X, y = X[chosen], y[chosen]
        seen = np.isin(y_test, y)
        X_test, y_test = X_test[seen], y_test[seen]
    return X, y, X_test, y_test, np.load(folder / "labels.npy")


def seeds_of(tree: str, args: argparse.Namespace) -> range:
    """Only k-means and a permutation are random."""
    return range(args.seeds if tree.startswith(("kmeans", "permuted")) else 1)


def measure_missing(data: str, records: list[dict], args: argparse.Namespace) -> None:
    """Measure what the file does not have."""
    known = {(r["tree"], r["seed"]) for r in of_data(records, data, args)}
    split = None
    for tree in args.trees:
        for seed in seeds_of(tree, args):
            if (tree, seed) in known:
                continue
            split = split or load_rows(data, args)
            print(time.strftime("%H:%M:%S"), data, tree, seed, end="  ", flush=True)
            result = measure(tree, seed, split, args)
            print(" ".join(f"{name} {result[name]:g}" for name in ("p1", "nll", "depth", "fit_cpu_s")))
            key = {"data": data, "max_train": args.max_train, "tree": tree, "seed": seed}
            key |= {"rescore": True} if args.rescore else {}
            rows = {"n_train": len(split[1]), "n_test": len(split[3]), "n_classes": len(np.unique(split[1]))}
            records.append(key | rows | result)
            save(records, args.output)


# -- tables -----------------------------------------------------------------


def of_data(records: list[dict], data: str, args: argparse.Namespace) -> list[dict]:
    """The records of a data set with so many rows, of trees alone or not."""
    key = data, args.max_train, args.rescore
    return [r for r in records if (r["data"], r["max_train"], r.get("rescore", False)) == key]


def cell(values: list[float], digits: int) -> str:
    """The mean over seeds, and their standard deviation."""
    mean = format(statistics.fmean(values), f".{digits}f")
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 and digits > 2 else mean


def figures(records: list[dict], tree: str, heading: str) -> str:
    """One figure of a tree, or that it has not been measured."""
    name, digits = COLUMNS[heading]
    values = [record[name] for record in records if record["tree"] == tree]
    return cell(values, digits) if values else "–"


def spaced(tree: str) -> str:
    """A tree as it is printed."""
    return tree.replace(",", ", ").replace("=", " = ")


def table(records: list[dict], trees: list[str]) -> list[list[str]]:
    """Of one data set: a row for each tree, a column for each figure."""
    measured = {record["tree"] for record in records}
    rows = [
        [spaced(tree), *(figures(records, tree, x) for x in COLUMNS)] for tree in trees if tree in measured
    ]
    return [["tree", *COLUMNS], *rows]


def across(records: list[dict], heading: str, args: argparse.Namespace) -> list[list[str]]:
    """One figure: a row for each tree, a column for each data set."""
    sets = [of_data(records, data, args) for data in args.data]
    return [
        [heading, *args.data],
        *([spaced(tree), *(figures(mine, tree, heading) for mine in sets)] for tree in args.trees),
    ]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=DATA, help=f"default: {' '.join(DATA)}")
    parser.add_argument("--trees", nargs="+", default=TREES, help=f"default: {' '.join(TREES)}")
    parser.add_argument("--seeds", type=int, default=3, help="of trees that are random (default 3)")
    parser.add_argument("--rescore", action="store_true", help="and likely classes scored again")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-train", type=int, help="most training rows (default all)")
    parser.add_argument("--max-test", type=int, default=50_000, help="most test rows (default 50000)")
    names = {name: heading for heading, (name, _) in COLUMNS.items()}
    parser.add_argument("--across", nargs="+", choices=names, default=[], help="print these, measure nothing")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default {RESULTS}")
    parser.add_argument("--cache", type=Path, default=datasets.CACHE, help=f"default {datasets.CACHE}")
    args = parser.parse_args()
    for tree in args.trees:
        parse_tree(tree)
    args.across = [names[name] for name in args.across]
    return args


def main() -> None:
    """Measure what is missing and print the tables."""
    args = parse()
    records = load(args.output)
    for heading in args.across:
        print(f"\n{FORMATS[args.format](across(records, heading, args))}")
    for data in args.data if not args.across else []:
        measure_missing(data, records, args)
        rows = table(of_data(records, data, args), args.trees)
        print(f"\n{data}\n\n{FORMATS[args.format](rows)}\n", flush=True)


if __name__ == "__main__":
    main()
