"""Tables and pictures of the results.

``python docs/benchmarks/report.py [--results FILE] [--format text|markdown|rst] [--pictures FOLDER]`` prints
a table for each data set and, with --pictures (needs matplotlib), draws accuracy against training time,
and how far the probabilities of first answers can be relied on.
"""

import argparse
import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "results.json"
COLUMNS = {  # heading: (field, format)
    "train CPU s": ("train_cpu_s", ".1f"),
    "wall s": ("train_wall_s", ".1f"),
    "batch µs": ("batch_us", ".0f"),
    "single µs": ("single_us", ".0f"),
    "P@1": ("p1", ".4f"),
    "R@5": ("r5", ".4f"),
    "NLL": ("nll", ".3f"),
    "ECE": ("ece", ".3f"),
    "model MB": ("model_mb", ".0f"),
    "peak MB": ("peak_mb", ".0f"),
}


def load(path: Path) -> list[dict]:
    """The records of a results file."""
    return json.loads(path.read_text()) if path.exists() else []


def save(records: list[dict], path: Path) -> None:
    """Write a results file, a record a line; it is whole at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")
    unfinished.replace(path)


def best_of(records: list[dict]) -> dict | None:
    """The best setting on held-out rows: by NLL, or by P@1 where scores are no distribution."""
    held = [record for record in records if record["split"] == "heldout" and "p1" in record]
    return min(held, key=lambda record: record.get("nll", -record["p1"])) if held else None


def shown(records: list[dict]) -> list[tuple[str, dict]]:
    """The default of a method and the best of its grid, as measured on the test rows."""
    best = best_of(records)
    found = []
    for record in (record for record in records if record["split"] == "test"):
        is_best = best is not None and record["params"] == best["params"]
        if record["default"] or is_best:
            found.append((" = ".join(["default"] * record["default"] + ["best"] * is_best), record))
    return found


def table(records: list[dict]) -> list[list[str]]:
    """Heading and rows: method, setting, figures; or why there are none."""
    rows = [["method", "setting", *COLUMNS]]
    for method in dict.fromkeys(record["method"] for record in records):
        for name, record in shown([record for record in records if record["method"] == method]):
            setting = " ".join([name, *(f"{key}={value:g}" for key, value in record["params"].items())])
            if "failure" in record:
                rows.append([method, setting, record["failure"]] + [""] * (len(COLUMNS) - 1))
            else:
                figures = ((record.get(key), form) for key, form in COLUMNS.values())
                rows.append(
                    [method, setting, *("–" if x is None else format(x, form) for x, form in figures)]
                )
    return rows


def as_text(rows: list[list[str]]) -> str:
    """In columns; a failure may be longer than its column."""
    widths = [max(len(row[i]) for row in rows if len(row) < 4 or row[3]) for i in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def as_markdown(rows: list[list[str]]) -> str:
    """With pipes."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def as_rst(rows: list[list[str]]) -> str:
    """As a list-table."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        lines += [f"   {'  -' if i else '* -'} {cell}".rstrip() for i, cell in enumerate(row)]
    return "\n".join(lines)


FORMATS = {"text": as_text, "markdown": as_markdown, "rst": as_rst}


def draw(name: str, records: list[dict], folder: Path) -> Path:
    """Accuracy against CPU seconds of training: the whole grid in pale, default and best marked."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for i, method in enumerate(dict.fromkeys(record["method"] for record in records)):
        mine = [record for record in records if record["method"] == method and "p1" in record]
        tried = [record for record in mine if record["split"] == "heldout"]
        final = [record for _, record in shown(mine)]
        style = {"color": f"C{i % 10}", "marker": "osD^v"[i % 5]}
        axes.scatter(*points(tried), **style, s=12, alpha=0.3)
        axes.scatter(*points(final), **style, s=50, label=method)
    axes.set(xscale="log", xlabel="training, CPU seconds", ylabel="P@1", title=name)
    axes.legend(fontsize="small")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(path := folder / f"{name}.png", dpi=150)
    plt.close(figure)
    return path


def draw_reliability(name: str, records: list[dict], folder: Path) -> Path:
    """The share of right first answers against their probability, defaults only."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    largest = 0.0
    for i, record in enumerate(record for record in records if record["default"] and "reliability" in record):
        proba, share = zip(*record["reliability"], strict=True)
        largest = max(largest, *proba, *share)
        label = f"{record['method']}, error {record['ece']:.3f}"
        axes.plot(proba, share, marker="os^vD"[i % 5], markersize=4, label=label)
    axes.set(xlabel="probability of the first answer", ylabel="share that is right", title=name)
    axes.set(xlim=(0, largest * 1.05 or 1), ylim=(0, largest * 1.05 or 1), aspect="equal")
    axes.legend(fontsize="small")
    figure.savefig(path := folder / f"{name}_reliability.png", dpi=150)
    plt.close(figure)
    return path


def points(records: list[dict]) -> tuple[list[float], list[float]]:
    """Training time and accuracy."""
    return [record["train_cpu_s"] for record in records], [record["p1"] for record in records]


def main() -> None:
    """Print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--format", choices=FORMATS, default="markdown")
    parser.add_argument("--pictures", type=Path, help="folder to draw into")
    args = parser.parse_args()
    records = load(args.results)
    for name in dict.fromkeys(record["data"] for record in records):
        mine = [record for record in records if record["data"] == name]
        print(f"{name}\n\n{FORMATS[args.format](table(mine))}\n")
        if args.pictures:
            print(f"{draw(name, mine, args.pictures)}\n")
            print(f"{draw_reliability(name, mine, args.pictures)}\n")


if __name__ == "__main__":
    main()
