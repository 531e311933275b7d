"""The methods of the comparison: what each needs, its grid, and its virtual environment.

``python docs/benchmarks/peers.py`` makes the environments and installs into them; one that is
up to date is left alone. Only the standard library is needed.
"""

import argparse
import functools
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path.home() / ".cache" / "sk_hsm_benchmarks"
GIB = 2**30

# -- environments -----------------------------------------------------------

TESTED = (3, 11)  # the Python for which all these peers have wheels
OURS = "the sources of this repository"
# name: (Python version or None for any, arguments of one `pip install` after the other)
ENVIRONMENTS = {
    "sk_hsm": (None, [[OURS]]),
    "sklearn": (None, [["scikit-learn>=1.6"]]),
    "napkinxc": (TESTED, [["napkinxc==0.7.2", "numpy<2", "scipy<1.14", "scikit-learn"]]),
    "omikuji": (TESTED, [["omikuji==0.5.2", "numpy", "scipy"]]),
    # its own requirements include PyTorch, which XR-Linear does not use
    "pecos": (TESTED, [["numpy<2", "scipy<1.14", "scikit-learn"], ["--no-deps", "libpecos==1.2.8"]]),
    # 0.9.3 trains to NaN
    "fasttext": (TESTED, [["fasttext-wheel==0.9.2", "numpy<2", "scipy"]]),
    "vw": (TESTED, [["vowpalwabbit==9.11.9", "numpy", "scipy"]]),
    "gensim": (TESTED, [["gensim==4.4.0"]]),
    "implicit": (TESTED, [["implicit==0.7.3"]]),
}


def find_python(version: tuple[int, int] | None) -> str:
    """An interpreter of that version."""
    if version is None or sys.version_info[:2] == version:
        return sys.executable
    name = "python{}.{}".format(*version)
    path = shutil.which(name)
    if path is None or subprocess.run([path, "--version"], capture_output=True).returncode:
        raise RuntimeError(f"{name} is needed and was not found")
    return path


def fingerprint(name: str) -> str:
    """What an environment was made from; ours changes with the sources."""
    digest = hashlib.sha256(json.dumps(ENVIRONMENTS[name]).encode())
    if name == "sk_hsm":
        for path in [ROOT / "pyproject.toml", *sorted((ROOT / "sk_hsm").rglob("*.*"))]:
            if path.suffix in {".py", ".pyx", ".pxd", ".h", ".toml"}:
                digest.update(path.read_bytes())
    return digest.hexdigest()


def install_ours(pip: list[str]) -> None:
    """Install from a copy, so that building leaves nothing in the sources."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "source"
        copy.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copy)
        ignore = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
        shutil.copytree(ROOT / "sk_hsm", copy / "sk_hsm", ignore=ignore)
        subprocess.run([*pip, str(copy)], check=True)


@functools.cache  # so that sources edited during a comparison do not change what is compared
def install(name: str, cache: Path) -> Path:
    """Make the environment unless it is up to date; its interpreter."""
    folder = cache / "environments" / name
    python, done = folder / "bin" / "python", folder / "made_from"
    if done.exists() and done.read_text() == fingerprint(name):
        return python
    version, steps = ENVIRONMENTS[name]
    if not python.exists():
        subprocess.run([find_python(version), "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    made_from = fingerprint(name)
    for step in steps:
        if step == [OURS]:
            install_ours(pip)
        else:
            subprocess.run([*pip, *step], check=True)
    done.write_text(made_from)
    return python


# -- methods ----------------------------------------------------------------

C_GRID = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]


def grid(name: str, values: list) -> list[dict]:
    """One dict of parameters for each value."""
    return [{name: value} for value in values]


def no_matrix(shape: dict) -> float:
    """Memory of methods without a dense matrix: never the reason to skip one."""
    return 0


def matrices(per_weight: int, per_score: int) -> Callable[[dict], float]:
    """Bytes for each (class, feature) and for each (row, class)."""
    return lambda shape: (
        shape["n_classes"] * (per_weight * shape["n_features"] + per_score * shape["n_train"])
    )


@dataclass
class Method:
    """How a method is run: environment, parameters always set, grid, bytes needed, its default of it."""

    environment: str
    grid: list[dict]
    fixed: dict = field(default_factory=dict)
    memory: Callable[[dict], float] = no_matrix
    default: dict = field(default_factory=dict)

    @property
    def settings(self) -> list[dict]:
        """The grid with {} for the default, which comes first where the grid does not have it."""
        found = [{} if setting == self.default else setting for setting in self.grid]
        return found if {} in found else [{}, *found]


METHODS = {
    "sk_hsm": Method("sk_hsm", grid("C", C_GRID)),
    "sk_hsm_tree_alone": Method("sk_hsm", grid("C", C_GRID), {"rescore": False}),
    "sk_hsm_3_trees": Method("sk_hsm", grid("C", C_GRID), {"n_trees": 3}),
    "sk_hsm_flat": Method("sk_hsm", grid("C", C_GRID), {"arity": 2**31 - 1, "prior": None}, matrices(16, 4)),
    "napkinxc_hsm": Method("napkinxc", grid("liblinear_c", C_GRID), default={"liblinear_c": 10}),
    "pecos": Method("pecos", grid("C", C_GRID), default={"C": 1}),
    "omikuji": Method("omikuji", grid("linear_c", C_GRID), default={"linear_c": 1}),
    "fasttext_hs": Method(
        "fasttext", [{"lr": lr, "epoch": n} for n in (5, 25) for lr in (0.05, 0.2, 0.5, 1)]
    ),
    "vw_plt": Method("vw", [{"learning_rate": lr, "passes": n} for n in (1, 5) for lr in (0.1, 0.5, 2)]),
    # the memory of L-BFGS, of rows times classes, and of the one-hot labels of naive Bayes
    "logistic_regression": Method("sklearn", grid("C", C_GRID), memory=matrices(8 * 25, 8 * 3)),
    "sgd": Method("sklearn", grid("C", C_GRID), memory=matrices(8 * 2, 0)),
    "multinomial_nb": Method("sklearn", grid("alpha", [0.01, 0.03, 0.1, 0.3, 1, 3]), memory=matrices(24, 16)),
}


def too_large(method: Method, shape: dict, limit_gib: float) -> str | None:
    """Why a method cannot run on a data set, or None."""
    need = method.memory(shape) / GIB
    return f"needs about {need:.0f} GiB" if need > limit_gib else None


def main() -> None:
    """Make the environments named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS))
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"default {CACHE}")
    args = parser.parse_args()
    for name in args.environments:
        print(name, install(name, args.cache), flush=True)


if __name__ == "__main__":
    main()
