"""Tree or flat softmax: accuracy, cost of a step, and serving, of trees and of the sampled softmax.

``python docs/benchmarks/roads.py`` needs an environment that has this package, and for ``--stage serve`` any
of hnswlib, faiss-cpu and usearch. Each run is a process of its own (run_roads.py); what the results file has
is not measured again. ``--stage rates`` chooses learning rates, on rows held out.
"""

import argparse
import json
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import datasets
import interactions
from report import FORMATS, load, save

HERE = Path(__file__).parent
TREES, SAMPLERS = ["tree, linear", "tree, embedding"], ["uniform", "unigram", "midx", "midx-rq"]
GENES, WORDS = "genes", "nextword_gcide"
# of genes and words, to train on and to score; of words, to search for
ROWS = {"max_train": 300_000, "max_test": 20_000}
SERVED_ROWS = {"max_train": 1_500_000, "max_test": 2000}
# negatives; epochs; whether the full softmax is trained too
SETS = {
    "nextitem_ml100k": ([20, 50], [1, 2, 3, 5], True),
    GENES: ([20, 50], [1, 2, 3, 5], False),
    "lemma_ru_10k": ([20, 50], [1, 2, 3, 5, 10], True),
    "lemma_ru": ([20, 50], [1, 2, 3, 5], False),
    WORDS: ([5, 20, 50], [1, 2, 3, 5], False),
}
RATES = [0.02, 0.05, 0.1, 0.3, 1]
# rows on which they are tried
RATE_ROWS = {"max_train": 200_000, "max_test": 2000}
SIZES = [1000, 10_000, 100_000, 1_000_000]
TABLES = {
    "train": {
        "negatives": ("n_negatives", "d"),
        "rate": ("rate", "g"),
        "train CPU s": ("train_cpu_s", ".1f"),
        "P@1": ("p1", ".3f"),
        "recall@20": ("recall20", ".3f"),
        "nDCG@20": ("ndcg20", ".3f"),
        "NLL": ("nll", ".3f"),
        "one row, µs": ("single_us", ".0f"),
        "batch, µs": ("batch_us", ".0f"),
    },
    "cost": {
        "rows": ("n_rows", "d"),
        "a row, µs": ("step_us", ".1f"),
        "fit CPU s": ("fit_cpu_s", ".1f"),
        "peak MB": ("peak_mb", ".0f"),
    },
    "serve": {
        "setting": ("setting", "d"),
        "recall of the 20 best": ("recall", ".3f"),
        "one row, µs": ("single_us", ".0f"),
        "batch, µs": ("batch_us", ".0f"),
    },
}
STYLES = dict(zip([*TREES, "full", *SAMPLERS], "C7 C5 k C1 C2 C0 C3".split(), strict=True))

# -- what is run ------------------------------------------------------------


def rows_for(data: str) -> dict:
    """Which rows of a set are trained on and scored."""
    return {"split": "test"} | (ROWS if data in (GENES, WORDS) else {"max_test": 10_000})


def rate_runs(records: list[dict]):
    """Rates for each set, on a part of its rows."""
    for data, method, rate in product(SETS, ["tree, embedding", *SAMPLERS], RATES):
        key = {"data": data, "method": method, "params": {"learning_rate": rate, "n_epochs": 3}}
        yield key, {"split": "heldout"} | RATE_ROWS


def rate_of(records: list[dict], data: str, method: str) -> float:
    """That of the best likelihood in the stage rates; the full softmax has that of midx-rq."""
    method = "midx-rq" if method == "full" else method
    tried = [r for r in records if (r["stage"], r.get("data"), r["method"]) == ("rates", data, method)]
    return min(tried, key=lambda record: record["nll"])["params"]["learning_rate"]


def train_runs(records: list[dict]):
    """Every method on every set, samplers after each number of epochs."""
    for data, (negatives, epochs, full) in SETS.items():
        spec = rows_for(data)
        yield {"data": data, "method": "tree, linear", "params": {}}, spec
        for n_epochs, n, method in product(reversed(epochs), negatives, SAMPLERS):
            params = {"learning_rate": rate_of(records, data, method), "n_epochs": n_epochs}
            yield {"data": data, "method": method, "params": params | {"n_negatives": n}}, spec
        for method in ["tree, embedding", "full"][: 1 + full]:
            rate = rate_of(records, data, method)
            yield {"data": data, "method": method, "params": {"learning_rate": rate, "n_epochs": 5}}, spec


def cost_runs(records: list[dict]):
    """Every method but the linear tree, for each number of classes."""
    for n_classes in SIZES:
        for method in ["tree, embedding", "full", *SAMPLERS]:
            if method != "full" or n_classes <= 10_000:
                yield {"method": method, "n_classes": n_classes, "params": {}}, {}


def serve_runs(records: list[dict]):
    """Searches in the words' classes."""
    for method in ("midx", "midx-rq"):
        params = {"learning_rate": 0.05, "n_epochs": 2}
        spec = {"split": "test", "libraries": method == "midx"} | SERVED_ROWS
        yield {"data": WORDS, "method": method, "params": params}, spec


def folder_of(data: str, spec: dict, cache: Path) -> tuple[Path, dict]:
    """Where a set is, and how to take its rows; what is held out of genes is a set of its own."""
    if data != GENES:
        return datasets.build(data, cache), spec
    part = {"heldout": "valid", "test": "test"}[spec["split"]]
    return interactions.build(data, cache) / part, spec | {"split": "test"}


RUNS = {"rates": rate_runs, "train": train_runs, "cost": cost_runs, "serve": serve_runs}


def measure(stage: str, records: list[dict], args) -> None:
    """Run what the records of a stage lack."""
    for key, spec in RUNS[stage](records):
        key = {"stage": stage} | key
        if key.get("data", args.data[0]) not in args.data or key["method"] not in args.methods:
            continue
        if any(key.items() <= record.items() for record in records):
            continue
        print(" ".join([time.strftime("%H:%M:%S"), *map(str, key.values())]), end="  ", flush=True)
        place = []
        if "data" in key:
            folder, spec = folder_of(key["data"], spec, args.cache)
            place = ["--data", str(folder)]
        command = [sys.executable, str(HERE / "run_roads.py"), stage, json.dumps(key | spec), *place]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result = json.loads(done.stdout.splitlines()[-1])
        print(json.dumps(result)[:300], flush=True)
        records.append(key | result)
        save(records, args.output)


# -- tables -----------------------------------------------------------------


def rows_of(records: list[dict], by: list[str], columns: dict[str, tuple[str, str]]) -> list[list[str]]:
    """A heading, and a row for each record."""
    rows = [[*by, *columns]]
    for record in records:
        fields = record | {"rate": record.get("params", {}).get("learning_rate")}
        fields |= {name: record.get("params", {}).get(name) for name in ("n_negatives", "n_epochs")}
        rows.append([f"{fields[name]:,}" if name == "n_classes" else fields[name] for name in by])
        rows[-1] += [
            "" if fields.get(field) is None else format(to(fields[field], form), form)
            for field, form in columns.values()
        ]
    return rows


def by_epochs(records: list[dict]) -> list[list[str]]:
    """A row for each sampler and number of negatives, P@1 and NLL after each number of epochs."""
    found = {}
    for record in records:
        if record["method"] in SAMPLERS:
            params, cell = record["params"], f"{record['p1']:.3f} / {record['nll']:.3f}"
            found.setdefault((params["n_negatives"], record["method"]), {})[params["n_epochs"]] = cell
    epochs = sorted({n for cells in found.values() for n in cells})
    rows = [[str(n), method, *(found[n, method].get(e, "") for e in epochs)] for n, method in sorted(found)]
    return [["negatives", "method", *map(str, epochs)], *rows]


def to(value: float, form: str) -> float:
    """A number that its format takes."""
    return int(value) if form == "d" else value


def served(records: list[dict]) -> list[dict]:
    """All searches; the exact scan, which is the same for every model, of the first."""
    found = [record["points"] for record in records if record["stage"] == "serve"]
    return [point for i, points in enumerate(found) for point in points[bool(i) :]]


def tables(stage: str, records: list[dict]):
    """Titles and rows of a stage."""
    mine = [record for record in records if record["stage"] == stage]
    if stage == "cost":
        yield "a step", rows_of(mine, ["n_classes", "method"], TABLES["cost"])
    elif stage == "serve":
        yield "serving", rows_of(served(mine), ["search"], TABLES["serve"])
    elif stage == "rates":
        columns = {name: TABLES["train"][name] for name in ("rate", "P@1", "NLL")}
        yield "rates", rows_of(mine, ["method"], columns)
    else:
        for data in SETS:
            last = [r for r in mine if r["data"] == data and r["params"].get("n_epochs", 5) == 5]
            yield data, rows_of(last, ["method"], TABLES["train"])
            yield f"{data}: P@1 / NLL by epochs", by_epochs([r for r in mine if r["data"] == data])


# -- pictures ---------------------------------------------------------------


def draw_epochs(records: list[dict], path: Path) -> None:
    """For each set a row of panels: likelihood and P@1, against epochs and against CPU time."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    panels = [("n_epochs", "nll"), ("train_cpu_s", "nll"), ("n_epochs", "p1"), ("train_cpu_s", "p1")]
    names = {"n_epochs": "epochs", "train_cpu_s": "training, CPU s", "nll": "NLL", "p1": "P@1"}
    figure, axes = plt.subplots(len(SETS), 4, figsize=(14, 2.9 * len(SETS)), layout="constrained")
    for row, (data, (negatives, *_)) in zip(axes, SETS.items(), strict=True):
        mine = [r for r in records if r["stage"] == "train" and r["data"] == data]
        for ax, (x, y) in zip(row, panels, strict=True):
            for method in dict.fromkeys(record["method"] for record in mine):
                of = [r | r["params"] for r in mine if r["method"] == method]
                curve = [r for r in of if r.get("n_negatives") in (None, negatives[-1])]
                curve.sort(key=lambda record: record.get("n_epochs", 0))
                at = [record.get(x, 1) for record in curve]
                marker = "." if method in SAMPLERS else "*"
                if x == "train_cpu_s" or method in SAMPLERS:
                    values = [record[y] for record in curve]
                    ax.plot(at, values, marker=marker, color=STYLES[method], label=method)
            values = [record[y] for record in mine]
            wide = y == "nll" and bool(values) and max(values) > 10 * min(values)
            ax.set(xlabel=names[x], ylabel=names[y], title=data, yscale="log" if wide else "linear")
            ax.set(xscale="log" if x == "train_cpu_s" else "linear")
            ax.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=len(STYLES))
    figure.savefig(path, dpi=80)


def draw_serving(records: list[dict], path: Path) -> None:
    """Recall against time, one row at a time and in batch."""
    import matplotlib.pyplot as plt

    points = served(records)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    fields = {"single_us": "one row", "batch_us": "a row of a batch"}
    for ax, (field, title) in zip(axes, fields.items(), strict=True):
        for i, name in enumerate(dict.fromkeys(point["search"] for point in points)):
            mine = [point for point in points if point["search"] == name]
            line = "*" if name == "exact scan" else ".-"
            xs, ys = [p[field] for p in mine], [p["recall"] for p in mine]
            ax.plot(xs, ys, line, color=f"C{i}", label=name)
        ax.set(xscale="log", xlabel=f"{title}, µs", ylabel="share of the 20 best that is found")
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=100)


PICTURES = {"train": ("roads_epochs.png", draw_epochs), "serve": ("roads_serving.png", draw_serving)}


def main() -> None:
    """Measure what is missing, print the tables, draw."""
    results = HERE / "results" / "roads.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", nargs="+", choices=RUNS, default=list(RUNS), help="default: all")
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS), help="default: all")
    parser.add_argument("--methods", nargs="+", choices=STYLES, default=list(STYLES), help="default: all")
    parser.add_argument("--show", action="store_true", help="what was measured, without measuring the rest")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--pictures", type=Path, help="folder to draw into, needs matplotlib")
    parser.add_argument("--output", type=Path, default=results, help=f"default {results}")
    parser.add_argument("--cache", type=Path, default=datasets.CACHE, help=f"default {datasets.CACHE}")
    args = parser.parse_args()
    records = load(args.output)
    for stage in args.stage:
        if not args.show:
            measure(stage, records, args)
        for title, rows in tables(stage, records):
            print(f"{title}\n\n{FORMATS[args.format](rows)}\n", flush=True)
        if args.pictures and stage in PICTURES:
            name, draw = PICTURES[stage]
            draw(records, args.pictures / name)


if __name__ == "__main__":
    main()
