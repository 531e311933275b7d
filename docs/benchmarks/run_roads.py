"""Fit one estimator for roads.py, measure it, and print one line of JSON.

A process of its own for each, so that its peak of memory is its own. One thread; all times are CPU time.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from run_one import load_split, peak_mb, rounded, used
from scipy import sparse

from sk_hsm import HierarchicalSoftmaxClassifier, HierarchicalSoftmaxEmbedding, SampledSoftmaxClassifier

K = 20
AT_ONCE = 200  # rows whose answer is timed one by one
# of the rows of cost
N_FEATURES, N_NONZEROS, N_ROWS, FULL_ROWS, BATCH = 50_000, 20, 200_000, 10_000, 20_000


def estimator(method: str, params: dict):
    """What a road is called in the tables, made."""
    if method == "tree, linear":
        return HierarchicalSoftmaxClassifier(n_jobs=1, random_state=0)
    if method == "tree, embedding":
        return HierarchicalSoftmaxEmbedding(**{"tree": "kmeans", "arity": 16, "random_state": 0} | params)
    sampler = None if method == "full" else method
    return SampledSoftmaxClassifier(sampler=sampler, random_state=0, **params)


def sample(folder: Path, split: str, max_train: int, max_test: int) -> tuple:
    """At most so many training rows, and rows to score, of labels that have a training row."""
    X, y, X_test, y_test = load_split(folder, split, max_test)
    if len(y) > max_train:
        chosen = np.random.default_rng(1).permutation(len(y))[:max_train]
        X, y = X[chosen], y[chosen]
    known = np.isin(y_test, y)
    return X, y, X_test[known], y_test[known]


def cpu(call, *args, **keywords) -> tuple:
    """CPU seconds of a call, and what it returned."""
    begin = used()[0]
    result = call(*args, **keywords)
    return used()[0] - begin, result


def fit_and_score(spec: dict, folder: Path) -> dict:
    """Accuracy, likelihood, and times."""
    size = spec.get("max_train", 10**9), spec["max_test"]
    X, y, X_test, y_test = sample(folder, spec["split"], *size)
    model = estimator(spec["method"], spec["params"])
    seconds, _ = cpu(model.fit, X, y)
    batch, (labels, _) = cpu(model.predict_top_k, X_test, k=K)
    hit = labels == y_test[:, None]
    discount = 1 / np.log2(np.arange(K) + 2)
    return {
        "n_rows": len(y),
        "n_classes": len(model.classes_),
        "n_test": len(y_test),
        "train_cpu_s": seconds,
        "p1": hit[:, 0].mean(),
        "recall20": hit.any(axis=1).mean(),
        "ndcg20": (hit * discount).sum(axis=1).mean(),
        "nll": -model.log_proba_of(X_test, y_test).mean(),
        "single_us": single_us(lambda row: model.predict_top_k(row, k=K), X_test),
        "batch_us": batch / len(y_test) * 1e6,
        "peak_mb": peak_mb(),
    }


def single_us(call, rows) -> float:
    """Median microseconds of a call with one row."""
    rows, times = [rows[i : i + 1] for i in range(AT_ONCE)], []
    for row in rows:
        begin = time.process_time()
        call(row)
        times.append(time.process_time() - begin)
    return float(np.median(times)) * 1e6


# -- cost -------------------------------------------------------------------


def batches(n_rows: int, n_classes: int) -> list[tuple]:
    """Rows of labels by Zipf's law; half of a row's features are those of its label, the others any."""
    rng, found = np.random.default_rng(0), []
    sums = np.cumsum(1 / np.arange(1, n_classes + 1))
    for begin in range(0, n_rows, BATCH):
        n = min(BATCH, n_rows - begin)
        y = np.searchsorted(sums, rng.random(n) * sums[-1])
        own = (y[:, None] * 7919 + np.arange(N_NONZEROS // 2) * 104_729) % N_FEATURES
        any_ = rng.integers(N_FEATURES, size=(n, N_NONZEROS - N_NONZEROS // 2))
        columns = np.sort(np.hstack([own, any_]), axis=1).astype(np.int32).ravel()
        ends = np.arange(n + 1, dtype=np.int32) * N_NONZEROS
        X = sparse.csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(n, N_FEATURES))
        X.sum_duplicates()
        found.append((X, y.astype(np.int32)))
    return found


def cost(spec: dict, folder: Path) -> dict:
    """Seconds and memory of a fit of one epoch, codebooks or tree included, and what a row of it takes."""
    n_classes, full = spec["n_classes"], spec["method"] == "full"
    n_rows = FULL_ROWS if full else max(N_ROWS, n_classes)
    rows = batches(n_rows, n_classes)
    labels = {"classes": np.arange(n_classes), "counts": 1e6 / np.arange(1, n_classes + 1)}
    model = estimator(spec["method"], spec["params"] | {"n_epochs": 1})
    seconds, _ = cpu(model.fit_batches, rows, **labels)
    return {"n_rows": n_rows, "step_us": seconds / n_rows * 1e6, "fit_cpu_s": seconds, "peak_mb": peak_mb()}


# -- serving ----------------------------------------------------------------


def hnswlib_searches(vectors: np.ndarray) -> tuple:
    """Seconds to build, and a search for each setting."""
    import hnswlib

    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(len(vectors), M=16, ef_construction=200, random_seed=0)
    index.set_num_threads(1)
    seconds, _ = cpu(index.add_items, vectors)

    def search(ef):
        def run(H):
            index.set_ef(ef)
            return index.knn_query(H, k=K)[0]

        return run

    return seconds, {ef: search(ef) for ef in (20, 40, 80, 160, 320, 640, 1280)}


def faiss_searches(vectors: np.ndarray) -> tuple:
    """Seconds to build, and a search for each setting."""
    import faiss

    faiss.omp_set_num_threads(1)
    quantizer = faiss.IndexFlatIP(vectors.shape[1])
    index = faiss.IndexIVFFlat(quantizer, vectors.shape[1], 256, faiss.METRIC_INNER_PRODUCT)

    def build():
        index.train(vectors)
        index.add(vectors)

    def search(n_probe):
        def run(H):
            index.nprobe = n_probe
            return index.search(H, K)[1]

        return run

    return cpu(build)[0], {n: search(n) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)}


def usearch_searches(vectors: np.ndarray) -> tuple:
    """Seconds to build, and a search for each setting."""
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=200)
    seconds, _ = cpu(index.add, np.arange(len(vectors)), vectors, threads=1)

    def search(expansion):
        def run(H):
            index.expansion_search = expansion
            return np.asarray(index.search(H, K, threads=1).keys).reshape(len(H), -1)

        return run

    return seconds, {n: search(n) for n in (20, 40, 80, 160, 320, 640, 1280)}


LIBRARIES = {"hnswlib": hnswlib_searches, "faiss IVF": faiss_searches, "usearch": usearch_searches}


def answers(model, search, X, best: np.ndarray) -> dict:
    """Share of the best classes that a search finds, and its microseconds a row, h included."""
    search(X[:10])  # what is made once
    batch, found = cpu(search, X)
    share = np.mean([len(np.intersect1d(*pair)) / K for pair in zip(found, best, strict=True)])
    return {"recall": share, "batch_us": batch / len(best) * 1e6, "single_us": single_us(search, X)}


def serve(spec: dict, folder: Path) -> dict:
    """All ways to find the K most probable classes of the same rows by the same model."""
    X, y, X_test, _ = sample(folder, spec["split"], spec["max_train"], spec["max_test"])
    model = estimator(spec["method"], spec["params"]).fit(X, y)
    best = model.predict_top_k(X_test, k=K)[0]
    points = [{"search": "exact scan"} | answers(model, lambda r: model.predict_top_k(r, K)[0], X_test, best)]
    for n_probe in 2 ** np.arange(13):
        found = answers(model, lambda r, n=n_probe: model.predict_top_k(r, K, n_probe=n)[0], X_test, best)
        points.append({"search": spec["method"], "setting": int(n_probe)} | found)
    vectors = np.column_stack([model.class_vectors_, model.class_intercepts_]).astype(np.float32)
    built = {}
    for name, searches in LIBRARIES.items() if spec["libraries"] else ():
        try:
            built[name], settings = searches(vectors)
        except ImportError:
            continue
        for setting, search in settings.items():

            def run(rows, search=search):
                H = model._vectors_of(rows)  # transform is slower with one row
                return model.classes_[search(np.column_stack([H, np.ones(len(H), np.float32)]))]

            points.append({"search": name, "setting": setting} | answers(model, run, X_test, best))
    return {"n_classes": len(vectors), "n_test": len(best), "points": points, "build_cpu_s": built}


STAGES = {"rates": fit_and_score, "train": fit_and_score, "cost": cost, "serve": serve}


def digits(value):
    """Five digits of each number, in whatever it is."""
    if isinstance(value, dict):
        return {name: digits(part) for name, part in value.items()}
    if isinstance(value, list):
        return [digits(part) for part in value]
    return value if isinstance(value, str | int) else rounded(value)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("spec", type=json.loads, help="JSON, as roads.py makes it")
    parser.add_argument("--data", type=Path, help="folder that datasets.py has written")
    args = parser.parse_args()
    print(json.dumps(digits(STAGES[args.stage](args.spec, args.data))))


if __name__ == "__main__":
    main()
