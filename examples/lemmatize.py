"""
Lemmatise Russian: 48,010 classes
=================================

A word form is a row, described by its character n-grams; its lemma is the class. The
466,339 training forms come with the package ``spacy-lookups-data``. The script fits a
classifier, prints how good and how fast it is, shows five words with their five most
probable lemmas, saves the model, and has a new process load it memory-mapped and predict
the same.

Run it with ``pip install '.[examples]' && python examples/lemmatize.py``; it takes about
two minutes on two cores, most of them for the n-grams.
"""

import argparse
import gzip
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import spacy_lookups_data
from sklearn.feature_extraction.text import TfidfVectorizer

from sk_hsm import HierarchicalSoftmaxClassifier
from sk_hsm.display import export_text

TABLE = Path(spacy_lookups_data.__file__).parent / "data" / "ru_lemma_lookup.json.gz"
WORDS = ["кошками", "программистов", "читающими", "городах", "красивейшей"]


def load_forms(table: Path = TABLE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct lower-case forms, their lemmas, and which of them are for training.

    Lemmas of one form are left out. Each lemma keeps one random form for training; of the
    others one in ten is for testing.
    """
    with gzip.open(table, "rt", encoding="utf-8") as file:
        pairs = dict.fromkeys((form.lower(), lemma) for form, lemma in json.load(file).items())
    forms, lemmas = (np.array(column, dtype=object) for column in zip(*pairs, strict=True))
    _, number, counts = np.unique(lemmas, return_inverse=True, return_counts=True)
    kept = counts[number] >= 2
    forms, lemmas = forms[kept], lemmas[kept]
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(forms))
    first = shuffled[np.unique(lemmas[shuffled], return_index=True)[1]]
    train = rng.random(len(forms)) >= 0.1
    train[first] = True
    return forms, lemmas, train


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_gib() -> float:
    """Most memory this process has held, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def predict_elsewhere(model: str, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """What a new process does: load the model memory-mapped, and predict."""
    vectorizer, clf = joblib.load(model, mmap_mode="r")
    return clf.predict_top_k(vectorizer.transform(words), k=5)


def main() -> None:
    """Fit, measure, show, save, load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--n-jobs", type=int, default=-1, help="threads (default: all)")
    args = parser.parse_args()

    forms, lemmas, train = load_forms()
    print(f"{train.sum()} forms to train on, {(~train).sum()} to test on, {len(set(lemmas))} lemmas")
    begin = time.perf_counter()
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True, lowercase=False, dtype=np.float32
    )
    X, X_test = vectorizer.fit_transform(forms[train]), vectorizer.transform(forms[~train])
    y, y_test = lemmas[train], lemmas[~train]
    seconds = time.perf_counter() - begin
    print(f"{X.shape[1]} character n-grams, {X.nnz / X.shape[0]:.1f} a form ({seconds:.0f} s)\n")

    clf = HierarchicalSoftmaxClassifier(n_jobs=args.n_jobs, random_state=0, verbose=1)
    begin, begin_cpu = time.perf_counter(), cpu_seconds()
    clf.fit(X, y)
    fit, fit_cpu = time.perf_counter() - begin, cpu_seconds() - begin_cpu
    begin = time.perf_counter()
    labels, _ = clf.predict_top_k(X_test, k=5)
    microseconds = (time.perf_counter() - begin) / X_test.shape[0] * 1e6
    rows = [X_test[i : i + 1] for i in range(1000)]
    begin = time.perf_counter()
    for row in rows:
        clf.predict_top_k(row, k=5)
    single = (time.perf_counter() - begin) * 1e3
    hits = labels == y_test[:, None]

    print(f"\n{export_text(clf, max_depth=2, max_children=3)}\n")
    print(f"tree            {clf.tree_}, mean depth {clf.tree_.mean_depth():.2f}")
    print(f"fit             {fit:.1f} s, {fit_cpu:.1f} CPU s")
    print(f"P@1             {hits[:, 0].mean():.4f}")
    print(f"R@5             {hits.any(axis=1).mean():.4f}")
    print(f"NLL             {-clf.log_proba_of(X_test, y_test).mean():.4f}")
    print(f"top-5           {microseconds:.1f} µs a row in a batch, {single:.0f} µs one row at a time")
    print(f"peak memory     {peak_gib():.2f} GiB")

    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "lemmas.joblib")
        joblib.dump((vectorizer, clf), model)
        print(f"model           {Path(model).stat().st_size / 1e6:.0f} MB")
        labels, proba = clf.predict_top_k(vectorizer.transform(WORDS), k=5)
        print()
        for word, found, p in zip(WORDS, labels, proba, strict=True):
            print(f"{word:>16}  " + ", ".join(f"{lemma} {q:.3f}" for lemma, q in zip(found, p, strict=True)))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            again = pool.apply(predict_elsewhere, (model, WORDS))
    np.testing.assert_array_equal(again[0], labels)
    np.testing.assert_array_equal(again[1], proba)
    print("\nA new process loaded the model memory-mapped and predicted the same, bit for bit.")


if __name__ == "__main__":
    main()
