"""Whether a second look at the tree pays: classes moved, or given two leaves, after a first fit.

``python docs/benchmarks/refine.py`` needs an environment that has this package. The children of the root
are groups of classes. Two models of the groups, each of half of the rows, say for the other half how likely
each group is. *Moved*: each class goes to the group in which its rows are likeliest together, and the trees
below are built anew. *Two leaves*: a class of which a tenth of the rows are likelier in one other group, and
two at least, has a leaf there too, with these rows; its probability is the sum.
"""

import argparse
import json
import statistics
from pathlib import Path

import datasets
import numpy as np
from report import FORMATS, load, save
from run_one import load_split, used
from scipy import sparse

from sk_hsm import HierarchicalSoftmaxClassifier, LabelTree
from sk_hsm.tree_builders import kmeans_tree

RESULTS = Path(__file__).parent / "results" / "refine.json"
ARITY = {"nextitem_ml100k": 16, "lemma_ru_10k": 64}  # those that "auto" takes
ROUNDS = 2
SHARE, LEAST = 0.1, 2  # of rows that are likelier elsewhere, for a second leaf
UNSEEN = -30.0  # log-probability of a group that a half does not have
CHUNK = 500
COLUMNS = {"P@1": ("p1", 4), "R@5": ("r5", 4), "NLL": ("nll", 4), "classes": ("changed", 0)}


def groups_of(tree: LabelTree) -> np.ndarray:
    """Which child of the root is above each class; the labels are 0 .. n_classes - 1."""
    top = np.arange(len(tree.parents))
    while (above := tree.parents[top] > 0).any():
        top[above] = tree.parents[top[above]]
    group = np.empty(tree.n_classes, dtype=int)
    group[tree.leaf_labels] = np.unique(top[tree.n_inner :], return_inverse=True)[1]
    return group


def tree_of(group: np.ndarray, labels: np.ndarray, X, y, arity: int, seed: int) -> LabelTree:
    """The root above these groups of labels, and a k-means tree in each."""
    below = []
    for number in range(group.max() + 1):
        rows = np.isin(y, labels[group == number])
        below.append(kmeans_tree(X[rows], y[rows], arity, random_state=seed))
    first_leaf = 1 + sum(tree.n_inner for tree in below)
    parents, next_inner = np.full(first_leaf + len(labels), -1), 1
    for tree in below:
        inner = next_inner + np.arange(tree.n_inner)
        nodes = np.concatenate([inner, first_leaf + np.searchsorted(labels, tree.leaf_labels)])
        parents[nodes] = np.where(tree.parents < 0, 0, nodes[tree.parents])
        next_inner += tree.n_inner
    return LabelTree.from_parents(parents, labels)


def log_proba_of_groups(group: np.ndarray, X, y, seed: int) -> np.ndarray:
    """Of each row, by a model of the other half of the rows."""
    half = np.random.default_rng(seed).integers(0, 2, len(y))
    found = np.full((len(y), group.max() + 1), UNSEEN)
    for number in (0, 1):
        model = HierarchicalSoftmaxClassifier(arity=2**30, whiten=False, random_state=seed)
        model.fit(X[half != number], group[y[half != number]])
        rows = np.flatnonzero(half == number)
        found[np.ix_(rows, model.classes_)] = model.predict_log_proba(X[rows])
    return found


def scores(model, owner: np.ndarray, X, y) -> dict:
    """P@1, R@5 and NLL, where leaf i belongs to class owner[i]."""
    p1 = r5 = loss = 0
    to_class = sparse.csr_array((np.ones(len(owner)), (np.arange(len(owner)), owner)))
    for lo in range(0, len(y), CHUNK):
        proba, label = model.predict_proba(X[lo : lo + CHUNK]) @ to_class, y[lo : lo + CHUNK]
        best = np.argsort(-proba, axis=1)[:, :5]
        hits = best == label[:, None]
        p1, r5 = p1 + hits[:, 0].sum(), r5 + hits.sum()
        loss -= np.log(proba[np.arange(len(label)), label]).sum()
    return {"p1": p1 / len(y), "r5": r5 / len(y), "nll": loss / len(y)}


def measure(split: tuple, arity: int, seed: int):
    """A name and figures of each tree."""
    X, y, X_test, y_test = split
    labels = np.arange(y.max() + 1)

    def scored(group: np.ndarray, owner: np.ndarray, y) -> dict:
        tree = tree_of(group, np.arange(len(owner)), X, y, arity, seed)
        model = HierarchicalSoftmaxClassifier(tree, whiten=False, rescore=False, random_state=seed).fit(X, y)
        return scores(model, owner, X_test, y_test)

    first = group = groups_of(kmeans_tree(X, y, arity, random_state=seed))
    yield "k-means", scored(group, labels, y) | {"changed": 0}
    likely = log_proba_of_groups(first, X, y, seed)
    yield "two leaves", two_leaves(first, likely, y, scored)
    for number in range(1, ROUNDS + 1):
        sums = np.zeros((len(labels), likely.shape[1]))
        np.add.at(sums, y, likely)
        moved = np.unique(sums.argmax(axis=1), return_inverse=True)[1]
        changed = int((sums.argmax(axis=1) != group).sum())
        yield f"moved, {number}", scored(moved, labels, y) | {"changed": changed}
        group, likely = moved, log_proba_of_groups(moved, X, y, seed)


def two_leaves(group: np.ndarray, likely: np.ndarray, y, scored) -> dict:
    """Of a tree with a second leaf for some classes."""
    n, rows = len(group), np.arange(len(y))
    own = likely[rows, group[y]]
    others = likely.copy()
    others[rows, group[y]] = -np.inf
    wrong = others.max(axis=1) > own
    votes = np.zeros((n, likely.shape[1]))
    np.add.at(votes, (y[wrong], others.argmax(axis=1)[wrong]), 1)
    enough = (votes.max(axis=1) >= LEAST) & (votes.max(axis=1) >= SHARE * np.bincount(y, minlength=n))
    second = votes.argmax(axis=1)
    goes = enough[y] & (likely[rows, second[y]] > own)
    twice = np.unique(y[goes])
    # of a class whose rows all go, the first leaf would have none
    twice = twice[np.isin(twice, y[~goes])]
    leaf = np.where(goes & np.isin(y, twice), n + np.searchsorted(twice, y), y)
    owner = np.concatenate([np.arange(n), twice])
    return scored(np.concatenate([group, second[twice]]), owner, leaf) | {"changed": len(twice)}


def table(records: list[dict], data: str) -> list[list[str]]:
    """A row for each tree: means over seeds."""
    mine = [record for record in records if record["data"] == data]
    rows = [["tree", *COLUMNS]]
    for tree in dict.fromkeys(record["tree"] for record in mine):
        of = [record for record in mine if record["tree"] == tree]
        cells = [[record[name] for record in of] for name, _ in COLUMNS.values()]
        digits = [digits for _, digits in COLUMNS.values()]
        rows.append([tree, *(f"{statistics.fmean(c):.{d}f}" for c, d in zip(cells, digits, strict=True))])
    return rows


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=ARITY, default=list(ARITY), help="default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default {RESULTS}")
    parser.add_argument("--cache", type=Path, default=datasets.CACHE, help=f"default {datasets.CACHE}")
    args = parser.parse_args()
    records = load(args.output)
    for data in args.data:
        X, y, X_test, y_test = load_split(datasets.build(data, args.cache), "test", 10_000)
        known = np.isin(y_test, y)
        classes, y = np.unique(y, return_inverse=True)
        split = X, y, X_test[known], np.searchsorted(classes, y_test[known])
        for seed in range(args.seeds):
            if any((r["data"], r["seed"]) == (data, seed) for r in records):
                continue
            begin, found = used()[0], []
            for tree, result in measure(split, ARITY[data], seed):
                found.append({"data": data, "seed": seed, "tree": tree} | result)
                print(json.dumps(found[-1]), f"{used()[0] - begin:.0f} CPU s", flush=True)
            records += found
            save(records, args.output)
        print(f"\n{data}\n\n{FORMATS[args.format](table(records, data))}\n")


if __name__ == "__main__":
    main()
