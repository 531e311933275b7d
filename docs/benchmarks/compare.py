"""The comparison: build data, install peers, run every method on every data set, print a table for each.

``python docs/benchmarks/compare.py --default-only --data nextitem_ml100k`` is a first taste. Each run is a
subprocess in its method's own environment, one after the other. What is measured is appended to a file
at once: an interrupted comparison goes on where it stopped. Needs Linux or macOS, and no package.

A grid is tried on rows held out from the training rows, in full or, with ``--climb``, from the default to its
neighbours as long as they are better, for data on which a run takes long. The best setting, by log-likelihood
or else by P@1, is then trained on all rows and measured on the test rows, like the default.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from peers import CACHE, GIB, METHODS, install, too_large
from report import RESULTS, as_text, best_of, load, save, table

HERE = Path(__file__).parent
DATA = ["nextitem_ml100k", "lemma_ru", "lemma_ru_10k", "lemma_ru_dense", "lemma_pl_noun", "nextword_gcide"]


def build(data: str, args: argparse.Namespace) -> dict:
    """Build a data set, which takes our environment; its shape."""
    path = args.cache / "data" / data / "shape.json"
    if not path.exists():
        python = install("sk_hsm", args.cache)
        script = str(HERE / "datasets.py")
        subprocess.run([python, script, "--data", data, "--cache", str(args.cache)], check=True)
    return json.loads(path.read_text())


def limited(command: list[str], args: argparse.Namespace) -> dict:
    """Run a command within the limits of time and memory: its last line as JSON, or why it failed."""

    def limit_memory():
        limit = int(args.memory_limit * GIB)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict.fromkeys(names, str(args.threads)),
        start_new_session=True,
        preexec_fn=limit_memory,
    )
    try:
        output, errors = process.communicate(timeout=args.time_limit)
    except BaseException as stop:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(stop, subprocess.TimeoutExpired):
            return {"failure": f"more than {args.time_limit:g} s"}
        raise
    if process.returncode:
        return {"failure": (errors.strip().splitlines() or [f"ended with {process.returncode}"])[-1][:200]}
    return json.loads(output.strip().splitlines()[-1])


def run(key: dict, fixed: dict, shape: dict, args: argparse.Namespace) -> dict:
    """One run: what it measured, or why it cannot be run."""
    method = METHODS[key["method"]]
    if reason := too_large(method, shape, args.memory_limit):
        return {"failure": reason}
    python = str(install(method.environment, args.cache))
    command = [python, str(HERE / "run_one.py"), key["method"], str(args.cache / "data" / key["data"])]
    command += ["--params", json.dumps(fixed | key["params"]), "--split", key["split"]]
    return limited([*command, "--threads", str(args.threads), "--max-test", str(args.max_test)], args)


def recorded(records: list[dict], key: dict, default: bool, shape: dict, args: argparse.Namespace) -> dict:
    """The record of a run, made now unless the file has it."""
    for record in records:
        if key.items() <= record.items():
            return record
    print(" ".join([time.strftime("%H:%M:%S"), *map(str, key.values())]), end="  ", flush=True)
    result = run(key, METHODS[key["method"]].fixed, shape, args)
    print(
        result.get("failure")
        or " ".join(f"{x} {result[x]:g}" for x in ("p1", "nll", "train_cpu_s") if x in result)
    )
    records.append(key | {"default": default} | result)
    save(records, args.output)
    return records[-1]


def climb(settings: list[dict], held_out) -> list[dict]:
    """The record of the default, and of its neighbours upwards and downwards as long as they are better."""
    at = settings.index({})
    tried = [held_out(settings[at])]
    for step in (1, -1):
        best = best_of(tried)
        while 0 <= at + step < len(settings):
            tried.append(held_out(settings[at + step]))
            if best_of(tried) is best:
                break
            best, at = best_of(tried), at + step
    return tried


def compare(method: str, data: str, records: list[dict], args: argparse.Namespace) -> None:
    """The default, then the grid on held-out rows and the best of it."""
    shape = build(data, args)
    key = {"method": method, "data": data, "threads": args.threads}
    recorded(records, key | {"params": {}, "split": "test"}, True, shape, args)
    if args.default_only or too_large(METHODS[method], shape, args.memory_limit):
        return

    def held_out(params):
        return recorded(records, key | {"params": params, "split": "heldout"}, not params, shape, args)

    settings = METHODS[method].settings
    tried = climb(settings, held_out) if args.climb else list(map(held_out, settings))
    if best := best_of(tried):
        recorded(records, key | {"params": best["params"], "split": "test"}, not best["params"], shape, args)


def forget(records: list[dict], args: argparse.Namespace) -> list[dict]:
    """The records without those to be made again."""
    return [
        record
        for record in records
        if not (args.again and record["method"] in args.methods and record["data"] in args.data)
        and not (args.retry and "failure" in record)
    ]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=DATA, help=f"default: {' '.join(DATA)}")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--grid", action="store_true", help="default and grid (this is the default)")
    which.add_argument("--climb", action="store_true", help="default, and the grid as long as it gets better")
    which.add_argument("--default-only", action="store_true")
    parser.add_argument("--time-limit", type=float, default=1800, help="seconds a run (default 1800)")
    parser.add_argument("--memory-limit", type=float, default=14, help="GiB a run (default 14)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-test", type=int, default=50_000, help="most test rows (default 50000)")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default {RESULTS}")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"default {CACHE}")
    parser.add_argument(
        "--again", action="store_true", help="forget what was measured of these methods and data"
    )
    parser.add_argument("--retry", action="store_true", help="forget failures")
    return parser.parse_args()


def main() -> None:
    """Run what is missing and print the tables."""
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that a run ends with us
    records = forget(load(args.output), args)
    for data in args.data:
        for method in args.methods:
            compare(method, data, records, args)
        mine = [record for record in records if record["data"] == data and record["threads"] == args.threads]
        print(f"\n{data}\n\n{as_text(table(mine))}\n", flush=True)


if __name__ == "__main__":
    main()
