"""What `rounding` costs and saves: size of the saved model, accuracy and time of answers.

``python docs/benchmarks/rounding.py`` needs an environment that has this package. Each model is saved by
joblib, loaded again and measured.
"""

import argparse
import tempfile
from pathlib import Path

import datasets
import joblib
from report import FORMATS, load, save
from run_one import load_split, used

from sk_hsm import HierarchicalSoftmaxClassifier

RESULTS = Path(__file__).parent / "results" / "rounding.json"
DATA = ["nextitem_ml100k", "lemma_ru_10k", "lemma_ru", "lemma_pl_noun"]
ROUNDINGS = [None, 0.1, 0.3, 0.5, 0.7]
REPEATS = 3
COLUMNS = {
    "model MB": ("model_mb", ".1f"),
    "P@1": ("p1", ".4f"),
    "NLL": ("nll", ".4f"),
    "a row, µs": ("batch_us", ".0f"),
}


def measure(params: dict, split: tuple) -> dict:
    """Fit, save, load, predict; one thread."""
    X, y, X_test, y_test = split
    model = HierarchicalSoftmaxClassifier(**params, random_state=0).fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.joblib"
        joblib.dump(model, path)
        size, model = path.stat().st_size / 1e6, joblib.load(path)
    times = []
    for _ in range(REPEATS):
        begin = used()[0]
        labels = model.predict_top_k(X_test, k=5)[0]
        times.append((used()[0] - begin) / len(y_test) * 1e6)
    p1, nll = (labels[:, 0] == y_test).mean(), -model.log_proba_of(X_test, y_test).mean()
    figures = {"model_mb": size, "p1": p1, "nll": nll, "batch_us": sorted(times)[REPEATS // 2]}
    return {name: float(f"{value:.5g}") for name, value in figures.items()}


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=DATA, help=f"default: {' '.join(DATA)}")
    parser.add_argument("--max-test", type=int, default=50_000, help="most test rows (default 50000)")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default {RESULTS}")
    parser.add_argument("--cache", type=Path, default=datasets.CACHE, help=f"default {datasets.CACHE}")
    args = parser.parse_args()
    records = load(args.output)
    rows = [["data", "rescore", "rounding", *COLUMNS]]
    for data in args.data:
        split = load_split(datasets.build(data, args.cache), "test", args.max_test)
        for rescore in ("auto", False):
            for rounding in ROUNDINGS:
                key = {"data": data, "rescore": rescore, "rounding": rounding}
                record = next((r for r in records if r | key == r), None)
                if record is None:
                    params = {"rescore": rescore, "rounding": rounding}
                    records.append(record := key | measure(params, split))
                    save(records, args.output)
                figures = (format(record[name], style) for name, style in COLUMNS.values())
                rows.append([*map(str, key.values()), *figures])
    print(FORMATS[args.format](rows))


if __name__ == "__main__":
    main()
