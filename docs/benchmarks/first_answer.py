"""How long a fresh process takes until its first answer: to import, to load a saved model, to answer one row.

``python docs/benchmarks/first_answer.py`` needs an environment that has this package. Models of lemma_ru are
saved by joblib and loaded with ``mmap_mode="r"``; each measurement is a process of its own. The file of the
model is in the system's cache, or has just been put out of it (on Linux).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import joblib
import numpy as np
from report import FORMATS
from run_one import load
from scipy import sparse

RESULTS = Path(__file__).parent / "results" / "first_answer.json"
REPEATS = 5
STEPS = "import", "load", "first answer", "second answer", "whole process"
# the row is there before the clock starts: it comes from elsewhere; numpy and scipy come with the import
CODE = """
import time; begin = time.perf_counter(); times = []
import joblib, sk_hsm; times.append(time.perf_counter())
model = joblib.load({model!r}, mmap_mode="r"); times.append(time.perf_counter())
from scipy import sparse; row = sparse.load_npz({row!r})
for _ in range(2):
    times.append(time.perf_counter()); model.predict_top_k(row); times.append(time.perf_counter())
print(times[0] - begin, times[1] - times[0], times[3] - times[2], times[5] - times[4])
"""


def forget(path: Path) -> None:
    """Put a file out of the system's cache."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fresh(model: Path, row: Path, cached: bool) -> list[float]:
    """Seconds of each step in a process of its own."""
    if not cached:
        forget(model)
    begin = time.perf_counter()
    code = CODE.format(model=str(model), row=str(row))
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return [*map(float, output.split()), time.perf_counter() - begin]


def measure(cache: Path) -> list[dict]:
    """Median seconds of each step, for weights as they are and for rounded ones."""
    from sk_hsm import HierarchicalSoftmaxClassifier

    folder = datasets.build("lemma_ru", cache)
    (X, y), (X_test, _) = load(folder, "train"), load(folder, "test")
    records = []
    with tempfile.TemporaryDirectory() as temporary:
        model, row = Path(temporary) / "model.joblib", Path(temporary) / "row.npz"
        sparse.save_npz(row, X_test[:1])
        for rounding in (None, 0.3):
            joblib.dump(HierarchicalSoftmaxClassifier(rounding=rounding, random_state=0).fit(X, y), model)
            for cached in (True, False):
                fresh(model, row, True)  # so that whatever else it reads is in the cache
                medians = np.median([fresh(model, row, cached) for _ in range(REPEATS)], axis=0).round(5)
                record = {"rounding": rounding, "cached": cached, "MB": model.stat().st_size / 1e6}
                records.append(record | dict(zip(STEPS, medians.tolist(), strict=True)))
    return records


def main() -> None:
    """Measure, unless it is there, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default {RESULTS}")
    parser.add_argument("--cache", type=Path, default=datasets.CACHE, help=f"default {datasets.CACHE}")
    args = parser.parse_args()
    if not args.output.exists():
        args.output.write_text(json.dumps(measure(args.cache), indent=1) + "\n")
    rows = [["rounding", "cached", "model MB", *(f"{step}, ms" for step in STEPS)]]
    for record in json.loads(args.output.read_text()):
        times = (f"{record[step] * 1e3:.1f}" for step in STEPS)
        rows.append(
            [str(record["rounding"]), "yes" if record["cached"] else "no", f"{record['MB']:.0f}", *times]
        )
    print(FORMATS[args.format](rows))


if __name__ == "__main__":
    main()
