"""The package is put together as the contributing guide says."""

import ast
import sys
from pathlib import Path

import pytest

import sk_hsm

ROOT = Path(sk_hsm.__file__).parent

# a module may import those on lines below its own
LAYERS = [
    ["display", "metrics", "model_selection", "neighbours"],
    ["classifier", "embedding", "sampled_softmax", "skip_gram"],
    ["embedding_base", "tree_embedding", "flat_softmax"],
    ["_state", "predictions", "training", "embedding_training"],
    ["scan", "rescoring"],
    ["inference"],
    ["regularization"],
    ["solvers", "whitening"],
    ["packed_weights", "node_vectors", "multi_index"],
    ["tree_builders", "node_weights", "priors"],
    ["clusters"],
    ["centroids"],
    ["row_keys", "row_sums"],
    ["label_tree", "validation", "progress", "blas", "threads", "_version"],
    ["tree_checks"],
    ["_kernels"],
]
ALLOWED = {"sk_hsm", "sklearn", "numpy", "scipy", "joblib", "matplotlib"}


def imports(path):
    """Every module that a file imports, as written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((name.split(".")[0], True) for name in names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0], False
        elif isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], False) for alias in node.names)


MODULES = sorted(path for path in ROOT.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_point_one_way(path):
    layer = {name: i for i, names in enumerate(LAYERS) for name in names}
    for name, is_ours in imports(path):
        if is_ours:
            assert layer[path.stem] < layer[name], f"{path.stem} imports {name}"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_but_the_four_dependencies_is_imported(path):
    for name, is_ours in imports(path):
        assert is_ours or name in ALLOWED or name in sys.stdlib_module_names, name
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    at_top = {getattr(node, "module", None) or node.names[0].name for node in top}
    assert not any(name.startswith("matplotlib") for name in at_top)


@pytest.mark.parametrize(
    "path", sorted([*ROOT.rglob("*.py[xd]"), *ROOT.rglob("*.h")]), ids=lambda path: path.name
)
def test_files_of_kernels_are_short(path):
    assert path.read_text(encoding="utf-8").count("\n") <= 500


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_functions_and_files_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            doc = node.body[0] if ast.get_docstring(node) is not None else None
            documented = doc.end_lineno - doc.lineno + 1 if doc else 0
            assert node.end_lineno - node.lineno + 1 - documented <= 60, node.name
