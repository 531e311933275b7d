"""Build the public interactions of recommend.py from packages; nothing is redistributed.

``python docs/benchmarks/interactions.py [--data NAME ...]`` writes for each, into CACHE/data/NAME/test:
histories.npz (users by items, binary), users.npy and y_test.npy (who is tested, and the item held out),
X_train.npz, y_train.npy and X_test.npz (bags of items, and the item that belongs to them) and shape.json. In
CACHE/data/NAME/valid there is the same without the held-out items: the item before is the target, for tuning.
"""

import argparse
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import CACHE, HISTORY, debian, one_hot, wheel
from scipy import sparse
from sklearn.preprocessing import normalize

LEAST_USERS = 5  # of a gene
LONGEST = 100  # genes of a paper: longer ones are screens of the whole genome
N_TESTED = 20_000
LEAST_TESTED = 4  # items of a user who is tested: two stay when two are held out

# -- sets: a sequence of items for each user, and whether its order means something --


def films(cache: Path) -> tuple[list[np.ndarray], bool]:
    """MovieLens 100k: the films of a user by time. Features are those of nextitem_ml100k."""
    archive = wheel("recbole==1.2.1", cache)
    lines = archive.read("recbole/dataset_example/ml-100k/ml-100k.inter").decode().splitlines()[1:]
    user, item, _, when = np.array([line.split("\t") for line in lines], dtype=float).astype(int).T
    order = np.lexsort((when, user))  # stable: ties stay in the order of the file
    item = np.unique(item[order], return_inverse=True)[1]
    return np.split(item, np.flatnonzero(np.diff(user[order])) + 1), True


def genes(cache: Path) -> tuple[list[np.ndarray], bool]:
    """Papers and the human genes they are about, as NCBI links them; in random order, as there is none."""
    folder = debian("r-bioc-org.hs.eg.db", cache)
    path = folder / "usr" / "lib" / "R" / "site-library" / "org.Hs.eg.db" / "extdata" / "org.Hs.eg.sqlite"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT DISTINCT pubmed_id, _id FROM pubmed ORDER BY pubmed_id, _id")
        paper, gene = np.array(list(rows), dtype=np.int64).T
    paper = np.unique(paper, return_inverse=True)[1]
    kept = np.bincount(paper)[paper] <= LONGEST
    paper, gene = paper[kept], gene[kept]
    kept = np.bincount(gene)[gene] >= LEAST_USERS
    paper, gene = paper[kept], np.unique(gene[kept], return_inverse=True)[1]
    order = np.lexsort((np.random.default_rng(0).random(len(paper)), paper))
    sequences = np.split(gene[order], np.flatnonzero(np.diff(paper[order])) + 1)
    return [sequence for sequence in sequences if len(sequence) > 1], False


SETS = {"films": films, "genes": genes}

# -- rows -------------------------------------------------------------------


def bags(sequences: list[np.ndarray], n_items: int) -> sparse.csr_matrix:
    """Bags of length 1."""
    return normalize(one_hot(sequences, n_items))


def rows_in_order(history: list[np.ndarray], n_items: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """A row for each item but a first one, from those before."""
    pairs = [(items[max(0, i - HISTORY) : i], items[i]) for items in history for i in range(1, len(items))]
    return before(list(zip(*pairs, strict=True))[0], n_items), np.array([item for _, item in pairs])


def before(sequences, n_items: int) -> sparse.csr_matrix:
    """The last items of each sequence as a bag, beside the one-hot of the last one."""
    last = np.array([sequence[-1] for sequence in sequences])[:, None]
    bag = bags([sequence[-HISTORY:] for sequence in sequences], n_items)
    return sparse.hstack([bag, one_hot(last, n_items)]).tocsr()


def rows_of_others(history: list[np.ndarray], n_items: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """A row for each item, from the others of its user."""
    long = [items for items in history if len(items) > 1]
    others = [np.delete(items, i) for items in long for i in range(len(items))]
    return bags(others, n_items), np.concatenate(long)


# -- files ------------------------------------------------------------------


def held_out(sequences: list[np.ndarray], users: np.ndarray, n: int) -> Iterator[tuple]:
    """Who is tested, by what, and all histories, when n items of each of `users` are for testing."""
    history = list(sequences)
    for user in users:
        history[user] = sequences[user][:-n]
    seen = np.zeros(max(map(max, sequences)) + 1, dtype=bool)
    seen[np.concatenate(history)] = True
    targets = np.array([sequences[user][-n] for user in users])
    return history, users[seen[targets]], targets[seen[targets]]


def write(folder: Path, sequences: list[np.ndarray], ordered: bool, users: np.ndarray, n: int) -> None:
    """The arrays of one part."""
    folder.mkdir()
    n_items = max(map(max, sequences)) + 1
    history, users, targets = held_out(sequences, users, n)
    X, y = (rows_in_order if ordered else rows_of_others)(history, n_items)
    tested = [history[user] for user in users]
    arrays = {"X_train": X, "X_test": (before if ordered else bags)(tested, n_items)}
    arrays["histories"] = one_hot(history, n_items)
    for name, matrix in arrays.items():
        sparse.save_npz(folder / f"{name}.npz", sparse.csr_matrix(matrix, dtype=np.float32), compressed=False)
    for name, array in {"users": users, "y_test": targets, "y_train": y}.items():
        np.save(folder / f"{name}.npy", array.astype(np.int32))
    shape = {"n_users": len(history), "n_items": int(n_items), "n_interactions": sum(map(len, history))}
    shape |= {"n_tested": len(users), "n_train": len(y), "nnz_per_row": round(X.nnz / len(y), 1)}
    (folder / "shape.json").write_text(json.dumps(shape))


def build(name: str, cache: Path) -> Path:
    """Build a set unless it is there; its folder."""
    folder = cache / "data" / name
    if not folder.exists():
        unfinished = folder.with_name(name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        sequences, ordered = SETS[name](cache)
        users = np.flatnonzero([len(items) >= LEAST_TESTED for items in sequences])
        users = np.sort(np.random.default_rng(0).permutation(users)[:N_TESTED])
        for n, part in enumerate(("test", "valid"), start=1):
            write(unfinished / part, sequences, ordered, users, n)
        unfinished.rename(folder)
    return folder


def main() -> None:
    """Build them and print their shapes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS), help="default: all")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"default {CACHE}")
    args = parser.parse_args()
    for name in args.data:
        print(name, (build(name, args.cache) / "test" / "shape.json").read_text(), flush=True)


if __name__ == "__main__":
    main()
