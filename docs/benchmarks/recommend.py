"""Which item belongs to a user's others: this package beside popularity, item-kNN and matrix factorization.

``python docs/benchmarks/recommend.py`` builds the sets of interactions.py, installs the libraries, tries each
method's grid on one more held-out item of each user, and measures default and best setting on the test items.
"""

import itertools
import json
import subprocess
import sys

from compare import HERE
from peers import install
from report import FORMATS
from runs import grid, kept, medians, parser, recorded, tuned

SETS = {"films": True, "genes": False}  # of interactions.py: whether they have an order
METHODS = {  # name: (environment, grid beside the default)
    "popularity": ("implicit", []),
    "markov": ("implicit", grid(prior=[100, 1000, 3000])),
    "item_knn": ("implicit", grid(K=[50, 200, 1000])),
    "als": ("implicit", grid(factors=[16, 64, 256], regularization=[0.01], alpha=[1, 10, 40])),
    "bpr": ("implicit", grid(factors=[64, 256], learning_rate=[0.01, 0.05], iterations=[100, 300])),
    "sk_hsm": ("sk_hsm", []),
    "sk_hsm_embedding": ("sk_hsm", grid(learning_rate=[0.05, 0.1, 0.2, 0.3], arity=[2, 16])),
    "nearest_histories": ("sk_hsm", grid(neighbours=[500, 2000])),
    "nearest_users": ("sk_hsm", grid(neighbours=[500, 2000])),
    "nearest_means": ("sk_hsm", grid(learning_rate=[0.05, 0.2])),
}
COLUMNS = {
    "recall@20": ("recall20", ".4f"),
    "nDCG@20": ("ndcg20", ".4f"),
    "train CPU s": ("train_cpu_s", ".1f"),
    "wall s": ("train_wall_s", ".1f"),
    "peak MB": ("peak_mb", ".0f"),
}


def build(args) -> None:
    """Build the sets in our environment unless they are there."""
    if not all((args.cache / "data" / name).exists() for name in args.data):
        command = [
            str(install("sk_hsm", args.cache)),
            str(HERE / "interactions.py"),
            "--cache",
            str(args.cache),
        ]
        subprocess.run([*command, "--data", *args.data], check=True, stdout=sys.stderr)


def compare(data: str, method: str, threads: int, records: list[dict], args) -> None:
    """Tune one method and test it."""
    environment, others = METHODS[method]
    key = {"data": data, "method": method, "threads": threads}

    def run(part: str, params: dict, repeat: int) -> None:
        command = ["run_recommend.py", method, str(args.cache / "data" / data / part)]
        command += ["--threads", str(threads), "--params", json.dumps(params)]
        of = key | {"part": part, "params": params, "repeat": repeat}
        recorded(records, of, environment, command, args)

    tuned(records, key, others, "recall20", run, args)


def main() -> None:
    """Run what is missing and print the table."""
    shared = parser(__doc__.splitlines()[0], METHODS, "recommend.json")
    shared.add_argument("--data", nargs="+", choices=SETS, default=list(SETS), help="default: all")
    shared.set_defaults(threads=[2])
    args = shared.parse_args()
    forget = [{"data": data, "method": method} for data in args.data for method in args.methods]
    records = kept(args, forget)
    build(args)
    for data, method, threads in itertools.product(args.data, args.methods, args.threads):
        if method != "markov" or SETS[data]:
            compare(data, method, threads, records, args)
    shown = [record for record in records if record["part"] == "test"]
    print(FORMATS[args.format](medians(shown, ["data", "method", "threads", "params"], COLUMNS)))


if __name__ == "__main__":
    main()
