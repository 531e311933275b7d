"""Word vectors by skip-gram: this package beside gensim's Word2Vec, on the English texts of corpora.py.

``python docs/benchmarks/words.py`` builds the texts (which needs this package's requirements), installs the
libraries, and prints a table: seconds of training, running words a second, the share of WordNet's synonyms
among nearest neighbours, and the negative log-likelihood of held-out pairs.
"""

import json
import subprocess
import sys

from compare import HERE
from peers import install
from report import FORMATS
from runs import kept, medians, parser, recorded

SETTINGS = {  # name: (method, parameters beside run_words.COMMON)
    "gensim_hs": ("gensim", {"hs": 1, "negative": 0, "alpha": 0.025}),
    "gensim_hs_.05": ("gensim", {"hs": 1, "negative": 0, "alpha": 0.05}),
    "gensim_negative": ("gensim", {"hs": 0, "negative": 5, "alpha": 0.025}),
    "huffman_2": ("sk_hsm", {"learning_rate": 0.05}),
    "huffman_2_.1": ("sk_hsm", {"learning_rate": 0.1}),
    "kmeans_2": ("sk_hsm", {"learning_rate": 0.05, "tree": "kmeans"}),
    "kmeans_16": ("sk_hsm", {"learning_rate": 0.05, "tree": "kmeans", "arity": 16}),
    "huffman_2_lock_free": ("sk_hsm", {"learning_rate": 0.05, "lock_free": True}),
}
COLUMNS = {
    "CPU s": ("train_cpu_s", ".0f"),
    "wall s": ("train_wall_s", ".0f"),
    "words/CPU s": ("words_per_cpu_s", ",.0f"),
    "words/s": ("words_per_s", ",.0f"),
    "counting s": ("count_wall_s", ".1f"),
    "synonyms@10": ("synonyms10", ".4f"),
    "NLL": ("nll_all", ".3f"),
    "NLL as trained": ("nll_as_trained", ".3f"),
    "peak MB": ("peak_mb", ".0f"),
}


def build(args) -> str:
    """Build the texts in our environment unless they are there; their folder."""
    folder = args.cache / "data" / "english"
    if not folder.exists():
        command = [str(install("sk_hsm", args.cache)), str(HERE / "corpora.py"), "--cache", str(args.cache)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return str(folder)


def main() -> None:
    """Run what is missing and print the table."""
    shared = parser(__doc__.splitlines()[0], SETTINGS, "words.json")
    shared.add_argument("--epochs", type=int, default=2)
    args = shared.parse_args()
    records = kept(args, [{"setting": name, "epochs": args.epochs} for name in args.methods])
    folder = build(args)
    for repeat in range(args.repeats):
        for setting in args.methods:
            method, params = SETTINGS[setting]
            for threads in args.threads:
                key = {"setting": setting, "epochs": args.epochs, "threads": threads, "repeat": repeat}
                command = ["run_words.py", method, folder, "--threads", str(threads)]
                command += ["--params", json.dumps(params | {"epochs": args.epochs})]
                recorded(records, key, method, command, args)
    print(FORMATS[args.format](medians(records, ["setting", "epochs", "threads"], COLUMNS)))


if __name__ == "__main__":
    main()
