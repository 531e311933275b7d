"""Text classification by an embedding and a tree: this package beside fastText, on some sets of datasets.py.

``python docs/benchmarks/texts.py`` tries each method's grid on rows held out from training, takes the setting
of the highest P@1, and measures it and the default on the test rows.
"""

import argparse
import itertools
import json

from compare import build
from report import FORMATS
from runs import grid, kept, medians, parser, recorded, tuned

OF_EMBEDDING = grid(learning_rate=[0.05, 0.1, 0.3, 1, 3], arity=[2, 16])
# None: not run, as the softmax takes time that grows with classes: days for these words.
GRIDS = {
    "lemma_ru": {
        "fasttext_hs": grid(lr=[0.5, 1, 2], epoch=[25, 50]),
    },
    "lemma_ru_10k": {
        "fasttext_hs": grid(lr=[0.2, 0.5], epoch=[25, 100]),
    },
    "nextitem_ml100k": {
        "fasttext_hs": grid(lr=[0.05, 0.2, 0.5], epoch=[5, 25]),
        "fasttext_softmax": grid(lr=[0.05, 0.2, 0.5], epoch=[5]),
    },
    "nextword_gcide": {
        "fasttext_hs": grid(lr=[0.05, 0.2, 0.5, 1], epoch=[5]),
        "fasttext_softmax": None,
    },
}
# What takes too long for a grid is tested at one setting: a rate that fits its hierarchical softmax.
UNTUNED = {
    "lemma_ru": {"fasttext_softmax": {"lr": 1, "epoch": 1}},
    "lemma_ru_10k": {"fasttext_softmax": {"lr": 0.5, "epoch": 10, "dim": 50}},
}
ENVIRONMENTS = {
    "fasttext_hs": "fasttext",
    "fasttext_softmax": "fasttext",
    "sk_hsm": "sk_hsm",
    "sk_hsm_embedding": "sk_hsm",
}
FIXED = {"fasttext_softmax": {"loss": "softmax"}, "sk_hsm_embedding": {"tree": "kmeans"}}
COLUMNS = {
    "P@1": ("p1", ".4f"),
    "R@5": ("r5", ".4f"),
    "NLL": ("nll", ".3f"),
    "train CPU s": ("train_cpu_s", ".1f"),
    "wall s": ("train_wall_s", ".1f"),
    "batch µs": ("batch_us", ".0f"),
    "model MB": ("model_mb", ".0f"),
}


def compare(data: str, method: str, threads: int, records: list[dict], args) -> None:
    """Tune one method and test it."""
    untuned = UNTUNED.get(data, {}).get(method)
    others = GRIDS[data].get(method, OF_EMBEDDING if method == "sk_hsm_embedding" else [])
    if others is None:
        return
    key = {"data": data, "method": method, "threads": threads}

    def run(part: str, params: dict, repeat: int) -> None:
        command = ["run_one.py", method, str(args.cache / "data" / data), "--threads", str(threads)]
        command += ["--split", {"valid": "heldout", "test": "test"}[part]]
        command += ["--params", json.dumps(FIXED.get(method, {}) | params)]
        of = key | {"part": part, "params": params, "repeat": repeat}
        recorded(records, of, ENVIRONMENTS[method], command, args)

    if untuned:
        run("test", untuned, 0)
    else:
        tuned(records, key, others, "p1", run, args)


def main() -> None:
    """Run what is missing and print the table."""
    shared = parser(__doc__.splitlines()[0], ENVIRONMENTS, "texts.json")
    shared.add_argument("--data", nargs="+", choices=GRIDS, default=list(GRIDS), help="default: all")
    shared.set_defaults(threads=[2])
    args = shared.parse_args()
    records = kept(args, [{"data": d, "method": m} for d in args.data for m in args.methods])
    for data in args.data:
        build(data, argparse.Namespace(cache=args.cache))
    for data, method, threads in itertools.product(args.data, args.methods, args.threads):
        compare(data, method, threads, records, args)
    shown = [record for record in records if record["part"] == "test"]
    print(FORMATS[args.format](medians(shown, ["data", "method", "threads", "params"], COLUMNS)))


if __name__ == "__main__":
    main()
