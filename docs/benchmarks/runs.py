"""What words.py, recommend.py and texts.py share: runs in subprocesses, kept in a file, and a table.

A run is a subprocess in its method's own environment. What it measured is written at once, and not measured
again unless ``--again`` says so.
"""

import argparse
import itertools
import json
import signal
import statistics
import sys
import time
from pathlib import Path

from compare import HERE, limited
from peers import CACHE, install
from report import FORMATS, load, save


def grid(**values) -> list[dict]:
    """All combinations."""
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def parser(description: str, methods, output: str) -> argparse.ArgumentParser:
    """The command line that all share."""
    path = HERE / "results" / output
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--methods", nargs="+", choices=methods, default=list(methods), help="default: all")
    found.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    found.add_argument("--repeats", type=int, default=1, help="runs of each, of which the table has medians")
    found.add_argument("--default-only", action="store_true", help="without the grids")
    found.add_argument("--time-limit", type=float, default=3600, help="seconds a run (default 3600)")
    found.add_argument("--memory-limit", type=float, default=14, help="GiB a run (default 14)")
    found.add_argument("--output", type=Path, default=path, help=f"default {path}")
    found.add_argument("--cache", type=Path, default=CACHE, help=f"default {CACHE}")
    found.add_argument("--again", action="store_true", help="forget what was measured of these methods")
    found.add_argument("--format", choices=FORMATS, default="text", help="of the table")
    return found


def recorded(records: list[dict], key: dict, environment: str, command: list[str], args) -> None:
    """Make a run unless the records have it; `command` is a script of this folder and its arguments."""
    if any(key.items() <= record.items() for record in records):
        return
    print(" ".join([time.strftime("%H:%M:%S"), *map(str, key.values())]), end="  ", flush=True)
    python, limits = install(environment, args.cache), argparse.Namespace(**vars(args))
    limits.threads = key["threads"]
    result = limited([str(python), str(HERE / command[0]), *command[1:]], limits)
    print(result.get("failure") or json.dumps(result), flush=True)
    records.append(key | result)
    save(records, args.output)


def tuned(records: list[dict], key: dict, others: list[dict], score: str, run, args) -> None:
    """The default and `others` on rows for validation, then default and best of them on the test rows.

    ``run(part, params, repeat)`` makes a record that holds key, part and params.
    """
    chosen = [{}]
    if others and not args.default_only:
        for params in [{}, *others]:
            run("valid", params, 0)
        tried = [r for r in records if key.items() <= r.items() and r["part"] == "valid" and score in r]
        chosen.append(max(tried, key=lambda record: record[score])["params"])
    for params, repeat in itertools.product(chosen, range(args.repeats)):
        run("test", params, repeat)


def kept(args, forget: list[dict]) -> list[dict]:
    """The records of the results file; with --again, without those that match one of `forget`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that a run ends with us
    records = load(args.output)
    if not args.again:
        return records
    return [record for record in records if not any(key.items() <= record.items() for key in forget)]


def medians(records: list[dict], by: list[str], columns: dict[str, tuple[str, str]]) -> list[list[str]]:
    """A heading, and a row for each setting: what it is, and the median of each column over its runs."""
    rows = [[*by, *columns]]
    groups = {}
    for record in records:
        groups.setdefault(json.dumps([record[name] for name in by]), []).append(record)
    for group, same in groups.items():
        rows.append([plain(value) for value in json.loads(group)])
        for field, style in columns.values():
            values = [record[field] for record in same if record.get(field) is not None]
            rows[-1].append(format(statistics.median(values), style) if values else "–")
    return rows


def plain(value) -> str:
    """A cell: parameters as ``name=value``."""
    if isinstance(value, dict):
        return " ".join(f"{name}={part}" for name, part in value.items())
    return str(value)
