"""Fit one method with one setting on one data set, predict, and print one line of JSON.

Runs in the method's own environment, started by compare.py; so nothing but numpy, scipy and the
library of that method is imported.
"""

import argparse
import importlib
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import sparse

CHUNK = 2000  # rows whose scores for all classes are held at a time
EXPANDED = 2000  # most rows for the log-likelihood of a library that gives no more than its k best
HELD = 2_000_000  # answers of such a library that are held at a time

# -- methods: fit, top5, log_proba, save ------------------------------------


class Method:
    """What all methods share: the library's own forms of rows, training rows and answers.

    Conversions to and from these forms (`rows`, `training`, `ranked`) are not timed, nor is the
    import of `module`.
    """

    module: str

    def __init__(self, params: dict, n_classes: int, threads: int, folder: Path):
        self.params, self.n_classes, self.threads = params, n_classes, threads
        self.folder, self.text = folder / "model", folder / "train.txt"
        self.folder.mkdir()

    def training(self, X, y):
        """The training set as `fit` wants it."""
        return X, y

    def rows(self, X):
        """Rows as `top5` and `log_proba` want them: something that can be indexed by rows."""
        return X

    def ranked(self, answer) -> np.ndarray:
        """The answer of `top5` as classes, best first, -1 where there are fewer than five."""
        return answer

    def log_proba(self, rows, y):
        """The log-probability of each true class, or None where scores are no distribution."""
        return None

    def save(self) -> None:
        """Write the model into its folder."""
        import joblib

        joblib.dump(self.model, self.folder / "model.joblib")


class SkHsm(Method):
    """This package; its parameters are free."""

    module = "sk_hsm"

    def fit(self, training):
        from sk_hsm import HierarchicalSoftmaxClassifier

        params = {"n_jobs": self.threads, "random_state": 0} | self.params
        self.model = HierarchicalSoftmaxClassifier(**params).fit(*training)

    def top5(self, rows):
        return self.model.predict_top_k(rows, k=5)[0]

    def log_proba(self, rows, y):
        return self.model.log_proba_of(rows, y)


class SkHsmEmbedding(SkHsm):
    """The same tree over an embedding of the features, learned by SGD; its parameters are free."""

    def fit(self, training):
        from sk_hsm import HierarchicalSoftmaxEmbedding

        params = {"n_jobs": self.threads, "random_state": 0} | self.params
        self.model = HierarchicalSoftmaxEmbedding(**params).fit(*training)


class Sklearn(Method):
    """A scikit-learn classifier: scores of all classes, in chunks of rows."""

    module = "sklearn"

    def fit(self, training):
        self.model = self.classifier(len(training[1])).fit(*training)

    def chunks(self, rows):
        """Log-probabilities of all classes, some rows at a time."""
        for begin in range(0, rows.shape[0], CHUNK):
            yield self.model.predict_log_proba(rows[begin : begin + CHUNK])

    def top5(self, rows):
        found = []
        for scores in self.chunks(rows):
            best = np.argpartition(scores, -5, axis=1)[:, -5:]
            order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
            found.append(np.take_along_axis(best, order, axis=1))
        return self.model.classes_[np.concatenate(found)]

    def log_proba(self, rows, y):
        column = np.searchsorted(self.model.classes_, y)
        begins = range(0, len(y), CHUNK)
        parts = zip(begins, self.chunks(rows), strict=True)
        return np.concatenate([s[np.arange(len(s)), column[i : i + CHUNK]] for i, s in parts])


class LogisticRegression(Sklearn):
    """The flat softmax of scikit-learn, with L-BFGS."""

    def classifier(self, n_rows):
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(**self.params)


class SGD(Sklearn):
    """One-vs-rest logistic regressions by stochastic gradient descent; C is 1 / (alpha * n_rows)."""

    def classifier(self, n_rows):
        from sklearn.linear_model import SGDClassifier

        params = dict(self.params)
        if "C" in params:
            params["alpha"] = 1 / (params.pop("C") * n_rows)
        return SGDClassifier(loss="log_loss", n_jobs=self.threads, random_state=0, **params)


class MultinomialNB(Sklearn):
    """Naive Bayes."""

    def classifier(self, n_rows):
        from sklearn.naive_bayes import MultinomialNB

        return MultinomialNB(**self.params)


class Pecos(Method):
    """PECOS XR-Linear: hierarchical k-means of the labels, L2-SVMs, no probabilities."""

    module = "pecos.xmc.xlinear.model"

    def training(self, X, y):
        shape = (len(y), self.n_classes)
        Y = sparse.csr_matrix((np.ones(len(y), np.float32), y, np.arange(len(y) + 1)), shape=shape)
        return X, Y

    def fit(self, training):
        from pecos.xmc import Indexer, LabelEmbeddingFactory
        from pecos.xmc.xlinear.model import XLinearModel

        X, Y = training
        params = {"Cp": self.params["C"], "Cn": self.params["C"]} if "C" in self.params else {}
        embedding = LabelEmbeddingFactory.create(Y, X, method="pifa", threads=self.threads)
        chain = Indexer.gen(embedding, indexer_type="hierarchicalkmeans", threads=self.threads)
        self.model = XLinearModel.train(X, Y.tocsc(), C=chain, threads=self.threads, **params)

    def save(self):
        self.model.save(str(self.folder))
        # as loaded for prediction only, it is several times faster
        self.model = type(self.model).load(str(self.folder), is_predict_only=True)

    def top5(self, rows):
        return self.model.predict(rows, only_topk=5, beam_size=10, threads=self.threads)

    def ranked(self, answer):
        rows = [slice(*ends) for ends in zip(answer.indptr, answer.indptr[1:], strict=False)]
        return padded([answer.indices[row][np.argsort(-answer.data[row])] for row in rows])


class NapkinXC(Method):
    """napkinXC's hierarchical softmax over its k-means tree. (Its own Huffman tree is broken: there,
    the tree must be passed back as tree_structure.)"""

    module = "napkinxc.models"

    def rows(self, X):
        return sparse.csr_matrix(X)

    def training(self, X, y):
        return sparse.csr_matrix(X), y.tolist()

    def fit(self, training):
        from napkinxc.models import HSM

        self.model = HSM(str(self.folder), seed=0, threads=self.threads, **self.params)
        self.model.fit(*training)

    def save(self):
        self.model.load()  # fit has written it

    def top5(self, rows):
        return self.model.predict(rows, top_k=5)

    def ranked(self, answer):
        return padded(answer)

    def log_proba(self, rows, y):
        def best(numbers, k):
            for row in self.model.predict_proba(rows[numbers], top_k=k):
                yield dict(row)

        return expanded(best, y, self.n_classes)


class Omikuji(Method):
    """omikuji's Parabel: three trees, no probabilities. Trains from a file, predicts a row a call."""

    module = "omikuji"

    def training(self, X, y):
        header = f"{X.shape[0]} {X.shape[1]} {self.n_classes}\n"
        # it refuses rows without a feature
        return write_lines(self.text, X, y, lambda label, row: f"{label} {weighted(row) or '0:0'}", header)

    def fit(self, training):
        import omikuji

        settings = omikuji.Model.default_hyper_param()
        for name, value in self.params.items():
            setattr(settings, name, value)
        self.model = omikuji.Model.train_on_data(str(training), settings, self.threads)
        self.model.init_prediction_thread_pool(self.threads)

    def save(self):
        self.model.save(str(self.folder))

    def rows(self, X):
        return [list(zip(indices, values, strict=True)) for indices, values in csr_rows(X)]

    def top5(self, rows):
        return [self.model.predict(row, top_k=5) for row in rows]

    def ranked(self, answer):
        return padded([[label for label, _ in row] for row in answer])


class FastText(Method):
    """fastText, with -loss hs unless told otherwise. Its features are words: their values are lost."""

    module = "fasttext"

    def training(self, X, y):
        if not sparse.issparse(X):
            raise ValueError("without values dense rows are all alike")
        return write_lines(self.text, X, y, lambda label, row: f"__label__{label} {bag_of_words(row)}")

    def fit(self, training):
        import fasttext

        params = {"loss": "hs", "minCount": 1, "verbose": 0, "thread": self.threads} | self.params
        self.model = fasttext.train_supervised(str(training), **params)

    def save(self):
        self.model.save_model(str(self.folder / "model.bin"))

    def rows(self, X):
        return np.array([bag_of_words(row) for row in csr_rows(X)], dtype=object)

    def top5(self, rows):
        return self.model.predict(list(rows), k=5)[0]

    def ranked(self, answer):
        return padded([[class_of(label) for label in row] for row in answer])

    def log_proba(self, rows, y):
        def best(numbers, k):
            # it adds 1e-5 before taking logarithms: this threshold cuts nothing off
            for labels, proba in zip(*self.model.predict(list(rows[numbers]), k, -1e-5), strict=True):
                yield dict(zip(map(class_of, labels), proba, strict=True))

        return expanded(best, y, self.n_classes)


class VowpalWabbit(Method):
    """vw --plt: a probabilistic label tree. Its probabilities of classes do not sum to one."""

    module = "vowpalwabbit"

    def training(self, X, y):
        return write_lines(self.text, X, y, lambda label, row: f"{label} | {weighted(row)}")

    def fit(self, training):
        from vowpalwabbit import Workspace

        passes = self.params.get("passes", 1)
        options = " ".join(f"--{name} {value}" for name, value in self.params.items())
        cache = f"-c -k --cache_file {self.text}.cache --holdout_off" if passes > 1 else ""
        model = self.folder / "model.vw"
        arguments = f"--plt {self.n_classes} --loss_function logistic -b 26 --quiet {options} {cache}"
        Workspace(f"{arguments} -d {training} -f {model}").finish()
        self.model = Workspace(f"-i {model} -t --top_k 5 --loss_function logistic --quiet")

    def save(self):
        pass  # fit has written it

    def rows(self, X):
        return ["| " + weighted(row) for row in csr_rows(X)]

    def top5(self, rows):
        return [self.model.predict(row) for row in rows]

    def ranked(self, answer):
        return padded(answer)


METHODS = {
    "sk_hsm": SkHsm,
    "sk_hsm_tree_alone": SkHsm,
    "sk_hsm_3_trees": SkHsm,
    "sk_hsm_flat": SkHsm,
    "sk_hsm_embedding": SkHsmEmbedding,
    "napkinxc_hsm": NapkinXC,
    "pecos": Pecos,
    "omikuji": Omikuji,
    "fasttext_hs": FastText,
    "fasttext_softmax": FastText,
    "vw_plt": VowpalWabbit,
    "logistic_regression": LogisticRegression,
    "sgd": SGD,
    "multinomial_nb": MultinomialNB,
}

# -- rows as text, lists of classes -----------------------------------------


def csr_rows(X):
    """Column numbers and values of each row."""
    X = sparse.csr_matrix(X)
    for begin, end in zip(X.indptr, X.indptr[1:], strict=False):
        yield X.indices[begin:end].tolist(), X.data[begin:end].tolist()


def weighted(row) -> str:
    """A row as ``column:value`` pairs."""
    return " ".join(f"{column}:{value:.6g}" for column, value in zip(*row, strict=True))


def bag_of_words(row) -> str:
    """A row as one word a feature."""
    return " ".join(f"f{column}" for column in row[0])


def class_of(label: str) -> int:
    """The class of a label of fastText."""
    return int(label.removeprefix("__label__"))


def write_lines(path: Path, X, y, line, header: str = "") -> Path:
    """A text file of training rows."""
    with open(path, "w") as file:
        file.write(header)
        file.writelines(line(label, row) + "\n" for label, row in zip(y, csr_rows(X), strict=True))
    return path


def padded(lists) -> np.ndarray:
    """Lists of up to five classes as one array, filled with -1."""
    array = np.full((len(lists), 5), -1)
    for row, found in zip(array, lists, strict=True):
        row[: len(found)] = list(found)[:5]
    return array


def expanded(best, y, n_classes: int) -> np.ndarray:
    """log_proba of the first rows: from the 100 best classes, and from all where that is not enough.

    ``best(numbers, k)`` yields a dict from class to probability for each of these rows.
    """
    proba = np.zeros(min(EXPANDED, len(y)))
    for k in (100, n_classes):
        left, size = np.flatnonzero(proba == 0), 1 + HELD // k
        for some in (left[i : i + size] for i in range(0, len(left), size)):
            proba[some] = [found.get(y[i], 0) for i, found in zip(some, best(some, k), strict=True)]
    return np.log(np.maximum(proba, np.finfo(np.float32).tiny))


# -- data -------------------------------------------------------------------


def load(folder: Path, part: str):
    """Rows and classes of a part of a data set."""
    path = folder / f"X_{part}.npz"
    X = sparse.csr_matrix(sparse.load_npz(path)) if path.exists() else np.load(folder / f"X_{part}.npy")
    return X, np.load(folder / f"y_{part}.npy")


def hold_out(X, y, may_be_held):
    """Training rows without a random tenth, of at most 5,000 rows, and those; every class keeps a row."""
    order = np.random.default_rng(0).permutation(len(y))
    order = order[np.argsort(may_be_held[order], kind="stable")]  # first those that must stay
    others = np.delete(order, np.unique(y[order], return_index=True)[1])
    others = others[may_be_held[others]]
    held = np.zeros(len(y), dtype=bool)
    held[others[: min(5000, len(y) // 10)]] = True
    return X[~held], y[~held], X[held], y[held]


def load_split(folder: Path, part: str, max_test: int):
    """Training rows, and rows to score in random order: the test part, or held out from training."""
    X, y = load(folder, "train")
    if part == "test":
        X_test, y_test = load(folder, "test")
    else:
        path = folder / "held_out.npy"
        may_be_held = np.load(path) if path.exists() else np.ones(len(y), dtype=bool)
        X, y, X_test, y_test = hold_out(X, y, may_be_held)
    chosen = np.random.default_rng(0).permutation(len(y_test))[:max_test]
    return X, y, X_test[chosen], y_test[chosen]


# -- measuring --------------------------------------------------------------


def used() -> tuple[float, float]:
    """CPU seconds of this process, its threads and children; and the wall clock."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages), time.perf_counter()


def peak_mb() -> float:
    """Most memory that this process or a child has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(usage.ru_maxrss for usage in usages) * unit / 1e6


def fit(method: Method, X, y) -> dict:
    """Train, timed, and save."""
    training = method.training(X, y)
    importlib.import_module(method.module)
    begin = used()
    method.fit(training)
    cpu, wall = (end - start for end, start in zip(used(), begin, strict=True))
    method.save()
    size = sum(path.stat().st_size for path in method.folder.rglob("*") if path.is_file())
    return {"train_cpu_s": cpu, "train_wall_s": wall, "model_mb": size / 1e6, "train_peak_mb": peak_mb()}


def seconds(call, *args) -> tuple:
    """Wall time of a call, and what it returned."""
    begin = time.perf_counter()
    result = call(*args)
    return time.perf_counter() - begin, result


def single_speed(method: Method, X) -> dict:
    """Microseconds for the five best of one row a call."""
    rows = [method.rows(X[i : i + 1]) for i in range(min(200, X.shape[0]))]
    return {"single_us": np.median([seconds(method.top5, row)[0] for row in rows]) * 1e6}


def predict(method: Method, X, y) -> dict:
    """P@1, R@5 and the mean negative log-likelihood; microseconds for the five best of a row in a batch."""
    rows = method.rows(X)
    batch, answer = seconds(method.top5, rows)
    if batch < 10:  # a second call does not pay for what is loaded late
        batch = min(batch, seconds(method.top5, rows)[0])
    ranked = method.ranked(answer)
    hits = ranked == y[:, None]
    result = {"n_test": len(y), "p1": hits[:, 0].mean(), "r5": hits.any(axis=1).mean()}
    log_proba = method.log_proba(rows, y)
    if log_proba is not None:
        result |= {"nll": -log_proba.mean(), "nll_rows": len(log_proba)}
        result |= calibration(np.exp(method.log_proba(rows, ranked[:, 0])), hits[:, 0])
    return result | {"batch_us": batch / len(y) * 1e6}


def calibration(proba: np.ndarray, hit: np.ndarray, n_bins: int = 15) -> dict:
    """How far the probability of the first answer is from the share of right ones, in bins of as many rows.

    The expected calibration error is the mean distance; reliability holds both numbers of each bin.
    """
    parts = np.array_split(np.argsort(proba, kind="stable"), n_bins)
    bins = [[float(proba[part].mean()), float(hit[part].mean())] for part in parts if len(part)]
    return {"ece": np.mean([abs(p - share) for p, share in bins]), "reliability": bins}


def rounded(value):
    """Five digits of a number, or of each of a list."""
    return [rounded(part) for part in value] if isinstance(value, list) else float(f"{value:.5g}")


def main() -> None:
    """Fit, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("data", type=Path, help="folder that datasets.py has written")
    parser.add_argument("--params", type=json.loads, default={}, help="JSON")
    parser.add_argument("--split", choices=["test", "heldout"], default="test")
    parser.add_argument("--max-test", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    X, y, X_test, y_test = load_split(args.data, args.split, args.max_test)
    n_classes = len(np.load(args.data / "labels.npy"))
    with tempfile.TemporaryDirectory() as folder:
        method = METHODS[args.method](args.params, n_classes, args.threads, Path(folder))
        result = fit(method, X, y)
        result |= predict(method, X_test, y_test)
        if args.split == "test":
            result |= single_speed(method, X_test)
    result["peak_mb"] = peak_mb()
    print(json.dumps({name: rounded(value) for name, value in result.items()}))


if __name__ == "__main__":
    main()
