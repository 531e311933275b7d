"""How near fits and answers come to what the machine allows: the time to touch the lines of weights.

``python docs/benchmarks/roofline.py`` needs an environment that has this package, and a C compiler as ``cc``.
A line is the sixteen weights of a feature in a node. A visit of a row reads the line of each of its
non-zeros, and where the row still moves, updates it. ``touches.c`` goes through the same visits again without
anything else, and measures lines drawn at random from blocks of many sizes. Pin it to one core:
``taskset -c 0``.
"""

import argparse
import contextlib
import ctypes
import json
import subprocess
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import datasets
import numpy as np
from report import FORMATS
from run_one import load, peak_mb, used
from scipy.special import log_softmax

import sk_hsm
from sk_hsm import HierarchicalSoftmaxClassifier, training
from sk_hsm.node_weights import LINE, WORD, aligned_empty
from sk_hsm.progress import Progress
from sk_hsm.solvers import ascend_nodes

RESULTS = Path(__file__).parent / "results" / "roofline.json"
KERNELS = Path(sk_hsm.__file__).parent / "_kernels"
# as in pyproject.toml; contracted to fused multiply-adds, sums would have other bits
FLAGS = "-O3 -fopenmp-simd -fno-loop-unroll-and-jam -fno-trapping-math -ffp-contract=off".split()
FITS = {"default": {}, "C=300, prior=None": {"C": 300.0, "prior": None}}
STAGES = "build_trees", "choose_penalties", "fit_nodes"
SIZES = 2 ** np.arange(4, 23)  # lines of a block
LEVELS = {"L1": 2**8, "L2": 2**12, "L3": 2**17, "memory": 2**22}  # of these sizes, one in each
ROW, N_ROWS, N_VISITS = 36, 4000, 20_000  # of the random ones
WORDS = 8  # in a cache line
N_QUERIES, K = 20_000, 5
REPEATS = 5
CACHED = 2**15  # as in ascent.pyx: of more floats, weights are fetched ahead

# -- touches ----------------------------------------------------------------


def compiled(folder: Path, *flags: str) -> ctypes.CDLL:
    """touches.c, with its arguments declared."""
    path = folder / f"touches{len(flags)}.so"
    command = ["cc", *FLAGS, *flags, "-shared", "-fPIC", f"-I{KERNELS}", "-o", str(path)]
    subprocess.run([*command, str(Path(__file__).with_name("touches.c")), "-lm"], check=True)
    library = ctypes.CDLL(str(path))
    floats, ints, longs = (np.ctypeslib.ndpointer(t, flags="C") for t in (np.float32, np.int32, np.int64))
    long, double, number = ctypes.c_int64, ctypes.c_double, ctypes.c_int
    rows = [longs, ints, floats]
    library.touch.argtypes = [floats, *rows, longs, long, number, number]
    library.touch.restype = double
    dual = [floats, floats, floats, long, number, number]
    library.record.argtypes = [floats, floats, *rows, *dual, double, number, ctypes.c_uint64, longs, ints]
    library.record.restype = long
    return library


def seconds_of(library: ctypes.CDLL, weights, rows, visits, ahead: bool, repeats: int = REPEATS) -> float:
    """The median time of these visits."""
    rest = visits, len(visits), weights.shape[1], int(ahead)
    return float(np.median([library.touch(weights, *rows, *rest) for _ in range(repeats)]))


def curve(library: ctypes.CDLL) -> dict[str, np.ndarray]:
    """Nanoseconds to read, and to update after that, a random line of blocks of each size."""
    rng = np.random.default_rng(0)
    read, update = [], []
    for size in SIZES:
        weights = aligned_empty(size * LINE).reshape(-1, LINE)
        weights[:] = 1
        indices = rng.integers(size, size=N_ROWS * ROW, dtype=np.int32)
        rows = np.arange(0, len(indices) + 1, ROW), indices, np.ones(len(indices), np.float32)
        visits = 2 * rng.integers(N_ROWS, size=N_VISITS)
        # a machine can do what the faster way does
        reads, both = (
            min(seconds_of(library, weights, rows, visits + moves, ahead) for ahead in (False, True))
            for moves in (0, 1)
        )
        read.append(reads / visits.size / ROW * 1e9)
        update.append(max(both - reads, 0) / visits.size / ROW * 1e9)
    return {"read": np.array(read), "update": np.array(update)}


def nanoseconds(of: np.ndarray, n_lines: int) -> float:
    """A curve at this size."""
    return float(np.interp(np.log2(max(n_lines, 1)), np.log2(SIZES), of))


# -- fit --------------------------------------------------------------------


def timed_fit(X, y, params: dict) -> tuple:
    """Seconds of a fit and of each stage, and the peak in MB until then; its model, problem and passes."""
    figures, found = {}, {}

    def timed(name: str, function, *args):
        begin, result = used(), function(*args)
        found.setdefault(name, (args, result))  # a second call is for some nodes only
        cpu, wall = (end - start for end, start in zip(used(), begin, strict=True))
        figures[name] = figures.get(name, 0) + cpu
        figures[f"{name}_wall"] = figures.get(f"{name}_wall", 0) + wall
        figures[f"{name}_peak_mb"] = peak_mb()
        return result

    with contextlib.ExitStack() as stack:
        for name in STAGES:
            watched = partial(timed, name, getattr(training, name))
            stack.enter_context(mock.patch.object(training, name, watched))
        model = HierarchicalSoftmaxClassifier(**{"n_jobs": 1, "random_state": 0, "rescore": False} | params)
        timed("fit", model.fit, X, y)
    (problem, *_), fit = found["fit_nodes"]
    return figures, model, problem, fit.n_iter


def in_order_of_appearance(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct columns, numbered as a node's kernel does, and the number of each."""
    distinct, first, inverse = np.unique(columns, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order))
    return distinct[order], number[inverse]


def visits_of(library: ctypes.CDLL, problem, start, v: int, n_iter: int) -> tuple:
    """A node's weights and rows, and the visits of its training, again; start: weights before it."""
    numbers = problem.rows_of(v)
    X, child = problem.X[numbers], problem.children_of(v, numbers)
    distinct, indices = in_order_of_appearance(X.indices)
    width = LINE * -(-problem.arity(v) // LINE)
    features, W, bias = start.node(v, width)
    order = np.argsort(features)
    weights = aligned_empty(len(distinct) * width).reshape(-1, width)
    weights[:] = W[order[np.searchsorted(features[order], distinct)]]
    C = problem.penalties[v].C / (2 if len(np.unique(child)) == 2 else 1)
    dual = np.zeros((len(numbers), width), np.float32)
    dual[np.arange(len(numbers)), child] = 1
    costs = (C * problem.row_weights[numbers].astype(float)).astype(np.float32)
    rows = X.indptr.astype(np.int64), indices, X.data
    visits, passes = np.empty(n_iter * len(numbers), np.int64), np.zeros(1, np.int32)
    goal = problem.fit_intercept, problem.tol, problem.max_iter, problem.seed + v
    state = problem.square_norms[numbers], costs, dual, len(numbers), width
    n = library.record(weights, bias.copy(), *rows, *state, *goal, visits, passes)
    assert passes[0] == n_iter, f"node {v}: {passes[0]} passes, the kernel makes {n_iter}"
    return weights, rows, visits[:n]


def fit_touches(libraries: dict, curves: dict, problem, n_iter: np.ndarray) -> dict:
    """Reads and updates of all nodes, and the seconds that they take at least."""
    start = ascend_nodes(replace(problem, max_iter=0), 1, Progress(0)).weights
    total = dict.fromkeys(["reads", "updates", "all_passes", "random_s", "again_s", "again_plain_s"], 0.0)
    for v in np.flatnonzero(n_iter):
        weights, rows, visits = visits_of(libraries["native"], problem, start, v, n_iter[v])
        n_lines, lengths = weights.size // LINE, np.diff(rows[0]) * (weights.shape[1] // LINE)
        reads, updates = (float(lengths[v // 2].sum()) for v in (visits, visits[visits % 2 == 1]))
        total["reads"] += reads
        total["updates"] += updates
        total["all_passes"] += 2.0 * n_iter[v] * lengths.sum()
        least = {name: nanoseconds(each, n_lines) for name, each in curves.items()}
        total["random_s"] += (reads * least["read"] + updates * least["update"]) / 1e9
        ahead = weights.size > CACHED
        total["again_s"] += seconds_of(libraries["native"], weights, rows, visits, ahead, 3)
        total["again_plain_s"] += seconds_of(libraries["plain"], weights, rows, visits, ahead, 3)
    return total


def seconds_of_setup(problem) -> float:
    """Of taking and numbering rows, priors and storing: training without a pass."""
    times = []
    for _ in range(3):
        begin = used()[0]
        ascend_nodes(replace(problem, max_iter=0), 1, Progress(0))
        times.append(used()[0] - begin)
    return float(np.median(times))


def of_fit(X, y, params: dict, libraries: dict, curves: dict) -> tuple[dict, HierarchicalSoftmaxClassifier]:
    """Stages, touches and limits of a fit."""
    runs = []
    for _ in range(3):
        figures, model, problem, n_iter = timed_fit(X, y, params)
        runs.append(figures)
    record = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
    record["setup"] = seconds_of_setup(problem)
    return record | fit_touches(libraries, curves, problem, n_iter), model


# -- inference --------------------------------------------------------------


def looked_up(weights, v: int, places: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of a node and features found above it: which it has, their ranks; cache lines of words; weights."""
    mine = weights.features[weights.feature_ptr[v] : weights.feature_ptr[v + 1]]
    ranks = np.searchsorted(mine, features)
    there = np.flatnonzero(np.append(mine, -1)[ranks] == features)
    words = (weights.word_ptr[v] + places // WORD) // WORDS if len(mine) else np.zeros(0, int)
    bias = weights.line_ptr[v]
    return there, ranks[there], words, np.append(bias, bias + 1 + ranks[there])


def opened(model: HierarchicalSoftmaxClassifier, X, floor: np.ndarray) -> list[tuple]:
    """Of each node that a search opens: lines, their values, and cache lines of words.

    It opens the nodes that are no less probable than its last answer.
    """
    tree, weights = model.tree_, model.node_weights_
    found = []
    for i in range(X.shape[0]):
        mine = slice(X.indptr[i], X.indptr[i + 1])
        frontier = [(0.0, 0, X.indices[mine], X.indices[mine], X.data[mine])]
        for log_p, v, places, features, values in frontier:
            there, ranks, words, lines = looked_up(weights, v, places, features)
            factors = np.append(np.float32(1), values[there])
            found.append((lines, factors, words))
            children = tree.children[tree.child_ptr[v] : tree.child_ptr[v + 1]]
            below = log_p + log_softmax((factors @ weights.lines[lines])[: len(children)].astype(float))
            here = (ranks, features[there], values[there]) if len(words) else (places, features, values)
            frontier += [
                (log_p_child, child, *here)
                for log_p_child, child in zip(below, children, strict=True)
                if child < tree.n_inner and log_p_child > floor[i]
            ]
    return found


def seconds_again(library: ctypes.CDLL, indices: list, values: list, n_lines: int) -> float:
    """To read these lines, node by node."""
    weights = aligned_empty(n_lines * LINE).reshape(-1, LINE)
    weights[:] = 0
    ends = np.append(0, np.cumsum([len(part) for part in indices]))
    rows = ends, np.concatenate(indices).astype(np.int32), np.concatenate(values).astype(np.float32)
    visits = 2 * np.arange(len(indices))
    return min(seconds_of(library, weights, rows, visits, ahead) for ahead in (False, True))


def of_inference(model: HierarchicalSoftmaxClassifier, X, libraries: dict, curves: dict) -> dict:
    """Time, touches and limits of a batch."""
    times = []
    for _ in range(REPEATS):
        begin = used()[0]
        proba = model.predict_top_k(X, k=K)[1]
        times.append(used()[0] - begin)
    lines, values, words = zip(*opened(model, X, np.log(proba[:, -1]) - 1e-5), strict=True)
    weights = model.node_weights_
    n_lines = len(weights.lines)
    record = {"top_k": float(np.median(times)), "rows": X.shape[0], "nodes": len(lines), "updates": 0.0}
    record |= {"reads": float(sum(map(len, lines))), "non_zeros": float(sum(map(len, words)))}
    record["random_s"] = record["reads"] * nanoseconds(curves["read"], n_lines) / 1e9
    for name, library in (("again_s", libraries["native"]), ("again_plain_s", libraries["plain"])):
        record[name] = seconds_again(library, lines, values, n_lines)
    # the same, and where to look for them: words lie behind the lines
    places = [np.concatenate([w + n_lines, own]) for own, w in zip(lines, words, strict=True)]
    values = [np.ones(len(part)) for part in places]
    size = n_lines + len(weights.words) // WORDS + 1
    record["with_lookups_s"] = seconds_again(libraries["native"], places, values, size)
    return record


# -- tables -----------------------------------------------------------------


def table(records: dict) -> list[list[str]]:
    """What was timed, its touches, and what share of its time they need."""
    rows = [["", "CPU s", "million touches", "ns a touch", "random lines", "share", "same lines", "share"]]
    timed = {
        "nodes alone, C=300": ("C=300, prior=None", "fit_nodes"),
        "nodes of the default fit": ("default", "fit_nodes"),
        "whole default fit": ("default", "fit"),
        f"{N_QUERIES} rows, k={K}": ("inference", "top_k"),
    }
    for title, (name, stage) in timed.items():
        record = records[name]
        touches, seconds = record["reads"] + record["updates"], record[stage]
        cells = [title, f"{seconds:.2f}", f"{touches / 1e6:.0f}", f"{seconds / touches * 1e9:.2f}"]
        for limit in ("random_s", "again_s"):
            cells += [f"{record[limit] / touches * 1e9:.2f}", f"{record[limit] / seconds:.0%}"]
        rows.append(cells)
    return rows


def parts(records: dict) -> list[list[str]]:
    """Where the time of each fit goes."""
    rows = [["CPU s", *FITS]]
    record = {name: records[name] for name in FITS}
    lines = {
        "fit": lambda r: r["fit"],
        "reading and checking": lambda r: r["fit"] - sum(r[name] for name in STAGES),
        "tree": lambda r: r["build_trees"],
        "choosing": lambda r: r["choose_penalties"],
        "nodes": lambda r: r["fit_nodes"],
        "of these: without a pass": lambda r: r["setup"],
        "of these: touches": lambda r: r["again_plain_s"],
        "touches, all instructions of this machine": lambda r: r["again_s"],
    }
    return rows + [[name, *(f"{value(record[fit]):.2f}" for fit in FITS)] for name, value in lines.items()]


def measure(cache: Path) -> dict:
    """Everything."""
    folder = datasets.build("lemma_ru", cache)
    (X, y), (X_test, _) = load(folder, "train"), load(folder, "test")
    with tempfile.TemporaryDirectory() as temporary:
        libraries = {"plain": compiled(Path(temporary)), "native": compiled(Path(temporary), "-march=native")}
        curves = curve(libraries["native"])
        records = {"curve": {name: each.tolist() for name, each in curves.items()}}
        for name, params in reversed(FITS.items()):
            records[name], model = of_fit(X, y, params, libraries, curves)
        records["inference"] = of_inference(model, X_test[:N_QUERIES], libraries, curves)
    return records


def main() -> None:
    """Measure, unless it is there, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default {RESULTS}")
    parser.add_argument("--cache", type=Path, default=datasets.CACHE, help=f"default {datasets.CACHE}")
    args = parser.parse_args()
    if not args.output.exists():
        begin = time.perf_counter()
        records = measure(args.cache)
        args.output.write_text(json.dumps(records, indent=1) + "\n")
        print(f"measured in {time.perf_counter() - begin:.0f} s\n")
    records = json.loads(args.output.read_text())
    curves = {name: np.array(each) for name, each in records["curve"].items()}
    levels = [["ns", *LEVELS]]
    levels += [
        [name, *(f"{nanoseconds(each, n):.2f}" for n in LEVELS.values())] for name, each in curves.items()
    ]
    for rows in (levels, table(records), parts(records)):
        print(f"{FORMATS[args.format](rows)}\n")


if __name__ == "__main__":
    main()
