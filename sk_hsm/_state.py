"""What is saved: a format number, the version, and plain arrays in place of our own objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._version import __version__
from .label_tree import LabelTree
from .multi_index import SearchIndex
from .node_vectors import NodeVectors, vector_offsets
from .node_weights import LINE, NodeWeights, aligned, n_lines, nearest_with_features, offsets, word_offsets
from .packed_weights import MARGIN, PackedWeights
from .rescoring import Rescoring

# Raise it when what is saved changes in a way that older versions cannot read.
FORMAT = 10

RESCORING_TYPES = {
    "starts": np.int64, "features": np.int32, "values": np.float32, "biases": np.float32,
    "lengths": np.float64, "feature_weights": np.float32, "coefficients": np.float64,
    "reach": np.float64, "kept": np.float64,
}  # fmt: skip

# Beyond these, Rescoring.most is no number of classes to score again, and `least` no probability.
MAX_MOST, MIN_LEAST = 2**16, -100

_HEADER = ("_sk_hsm_format", "_sk_hsm_version")


@contextmanager
def as_before_on_error(estimator: Any) -> Iterator[None]:
    """Whatever is raised inside, the estimator's attributes are then what they were."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def pack_state(state: dict[str, Any]) -> dict[str, Any]:
    """An estimator's __dict__ as it is saved."""
    state = {**state, "_sk_hsm_format": FORMAT, "_sk_hsm_version": __version__}
    if "tree_" in state:
        state["tree_"] = state["tree_"].__getstate__()
        state["node_weights_"] = state["node_weights_"].to_arrays()
    for name in ("_index", "rescoring_"):
        if name in state:
            state[name] = state[name].to_arrays()
    if "trees_" in state:
        state["trees_"] = [tree.__getstate__() for tree in state["trees_"]]
        state["node_weights_"] = [weights.to_arrays() for weights in state["node_weights_"]]
    return state


def unpack_state(state: dict[str, Any]) -> dict[str, Any]:
    """The __dict__ again; ValueError where another version saved it in another format."""
    found = state.get("_sk_hsm_format")
    if found != FORMAT:
        raise ValueError(
            f"this model was saved by sk_hsm {state.get('_sk_hsm_version', '(unknown version)')} in "
            f"format {found!r}, but sk_hsm {__version__} reads format {FORMAT}: install the version "
            "that saved it, or fit the model again"
        )
    state = {name: value for name, value in state.items() if name not in _HEADER}
    _check_whitening(state)
    if "tree_" in state:
        _check_widths(state)
        state["tree_"], state["node_weights_"] = _unpack_model(state, state["tree_"], state["node_weights_"])
    if "_index" in state:
        _check_layers(state)
        state["_index"] = _unpack_index(state["_index"], state["_vectors"])
    if "rescoring_" in state:
        state["rescoring_"] = _unpack_rescoring(state)
    if "trees_" in state:
        models = zip(state["trees_"], state["node_weights_"], strict=True)
        models = [_unpack_model(state, *model) for model in models]
        state["trees_"], state["node_weights_"] = map(list, zip(*models, strict=True))
    return state


def _unpack_model(
    state: dict[str, Any], tree: dict[str, NDArray], weights: dict[str, NDArray]
) -> tuple[LabelTree, NodeWeights | PackedWeights | NodeVectors]:
    n_classes, n_leaves = len(state["classes_"]), len(tree["leaf_labels"])
    if n_classes != n_leaves:
        raise ValueError(
            f"this model is damaged: it has {n_classes} classes, but its tree {n_leaves} leaves, save it "
            "again or fit it again"
        )
    _check_offsets(tree, weights)
    _check_sizes(tree, weights, state["n_features_in_"])
    kind = NodeVectors if "vectors" in weights else PackedWeights if "entries" in weights else NodeWeights
    if kind is NodeWeights:  # in place of what was read, so that there are two of them for a moment only
        weights["lines"] = aligned(weights["lines"])
    return LabelTree._from_arrays(tree), kind(weights)


def _check_offsets(tree: dict[str, NDArray], weights: dict[str, NDArray]) -> None:
    """Raise ValueError where arrays of a damaged model do not fit together: kernels trust offsets."""
    n_inner, n_nodes = len(tree["child_ptr"]) - 1, len(tree["parents"])
    offsets = [(tree["child_ptr"], len(tree["children"]))]
    offsets += _weight_offsets(weights, n_inner)
    for ptr, n in offsets:
        if len(ptr) != n_inner + 1 or ptr[0] != 0 or ptr[-1] != n or np.any(ptr[1:] < ptr[:-1]):
            raise ValueError(
                f"this model is damaged: offsets {ptr} of {n_inner} nodes do not fit {n} entries, "
                "save it again or fit it again"
            )
    sizes = len(tree["children"]) + 1, len(tree["positions"]), n_inner + len(tree["leaf_labels"])
    n_shifts = len(weights.get("shifts", tree["child_ptr"][1:]))
    if sizes != (n_nodes,) * 3 or n_shifts != n_inner:
        raise ValueError(
            f"this model is damaged: its tree has {n_nodes} nodes, but other arrays have {sizes} and "
            f"{n_shifts} for {n_inner} inner nodes, save it again or fit it again"
        )
    _check_nodes(**{name: tree[name] for name in ("child_ptr", "children", "parents", "positions")})


def _check_nodes(child_ptr: NDArray, children: NDArray, parents: NDArray, positions: NDArray) -> None:
    """Raise ValueError where nodes are not each other's children and parents: kernels go where they say."""
    n_inner, n_nodes, arities = len(child_ptr) - 1, len(parents), np.diff(child_ptr)
    wrong = np.flatnonzero((children < 1) | (children >= n_nodes))
    if not len(wrong):
        parent = np.repeat(np.arange(n_inner), arities)
        position = np.arange(len(children)) - child_ptr[parent]
        wrong = np.flatnonzero((parents[children] != parent) | (positions[children] != position))
    # each node but the root is then the child of one, and none its own ancestor if that is numbered before
    inner = np.arange(1, n_inner)
    is_root = parents[0] == positions[0] == -1
    if len(wrong) or not is_root or np.any(parents[inner] >= inner) or np.any(arities < 2):
        raise ValueError(
            f"this model is damaged: children, parents and positions of its {n_inner} inner nodes do not "
            "fit, save it again or fit it again"
        )


def _check_sizes(tree: dict[str, NDArray], weights: dict[str, NDArray], n_features: int) -> None:
    """Raise ValueError where nodes have other lines or words than their features ask for."""
    if "lines" not in weights:
        return
    arities, expected = np.diff(tree["child_ptr"]), {}
    sizes = np.diff(weights["feature_ptr"]) if "words" in weights else np.zeros(len(arities), np.int64)
    expected["line_ptr"] = offsets((sizes + 1) * n_lines(arities))
    if "words" in weights:
        above = nearest_with_features(sizes, tree["parents"])
        expected["word_ptr"] = word_offsets(sizes, above, n_features)
        expected["feature_ptr"] = offsets(np.minimum(sizes, np.where(above >= 0, sizes[above], n_features)))
    for name, array in expected.items():
        if not np.array_equal(weights[name], array):
            raise ValueError(
                f"this model is damaged: the {name} of its nodes is {weights[name]}, not {array}, save it "
                "again or fit it again"
            )


def _check_whitening(state: dict[str, Any]) -> None:
    """Raise ValueError where rows cannot be mapped."""
    d = state.get("n_features_in_", 0)
    shape = state["whitening_"].shape if "whitening_" in state else (d + 1, d)
    if shape != (d + 1, d):
        raise ValueError(
            f"this model is damaged: its whitening has the shape {shape}, not {(d + 1, d)}, save it again or "
            "fit it again"
        )


def _check_widths(state: dict[str, Any]) -> None:
    """Raise ValueError where embeddings and vectors of nodes are not as many, or as long, as they must be."""
    weights = state["node_weights_"]
    if "vectors" not in weights:
        return
    ptr = vector_offsets(state["tree_"]["child_ptr"])
    found = [state["embedding_"].shape[0], weights["vectors"].shape]
    expected = [state["n_features_in_"], (ptr[-1], state["embedding_"].shape[1])]
    if found != expected or not np.array_equal(weights["vector_ptr"], ptr):
        raise ValueError(
            f"this model is damaged: its embeddings and vectors have the sizes {found}, not {expected}, save "
            "it again or fit it again"
        )


def _check_layers(state: dict[str, Any]) -> None:
    """Raise ValueError where arrays of a flat softmax do not follow each other."""
    dims, embedding, vectors = state["_dims"], state["embedding_"], state["_vectors"]
    found = [coef.shape for coef in state["coefs_"]] + [b.shape for b in state["intercepts_"]]
    expected = list(pairwise(dims)) + [(n,) for n in dims[1:]]
    n_features, n_classes = state["n_features_in_"], len(state["classes_"])
    found += [
        (n_features, n_features) if embedding is None else embedding.shape,
        vectors.shape,
        state["class_count_"].shape,
    ]
    expected += [(n_features, dims[0]), (n_classes, LINE * (dims[-1] // LINE + 1)), (n_classes,)]
    if found != expected:
        raise ValueError(
            f"this model is damaged: its arrays have the shapes {found}, not {expected}, save it again or "
            "fit it again"
        )


def _weight_offsets(weights: dict[str, NDArray], n_inner: int) -> list[tuple[NDArray, int]]:
    """Offsets of each kind of weights, and how many things they are offsets into."""
    if "vectors" in weights:
        return [(weights["vector_ptr"], len(weights[name])) for name in ("vectors", "intercepts")]
    offsets = [(weights["line_ptr"], len(weights["lines"]))]
    if "entries" in weights:
        offsets.append((weights["bucket_ptr"], len(weights["buckets"])))
        offsets.append((weights["entry_ptr"], len(weights["entries"]) - MARGIN))
        if len(weights["n_entries"]) != n_inner or len(weights["scale"]) != 2:
            raise ValueError(
                f"this model is damaged: it has {len(weights['n_entries'])} numbers of entries for {n_inner} "
                f"nodes and a scale of {len(weights['scale'])} numbers, not 2, save it again or fit it again"
            )
    else:
        offsets.append((weights["feature_ptr"], len(weights["features"])))
        offsets.append((weights["word_ptr"], len(weights["words"])))
    return offsets


def _unpack_rescoring(state: dict[str, Any]) -> Rescoring:
    """ValueError where arrays of a damaged model do not fit together: the kernel trusts them."""
    arrays, n, d = state["rescoring_"], len(state["classes_"]), state["n_features_in_"]
    fit = [
        isinstance(arrays, dict)
        and isinstance(arrays.get(name), np.ndarray)
        and (arrays[name].ndim, arrays[name].dtype) == (1, np.dtype(kind))
        and bool(np.isfinite(arrays[name]).all())
        for name, kind in RESCORING_TYPES.items()
    ]
    if all(fit):
        rescoring = Rescoring({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        starts, features, values = rescoring.starts, rescoring.features, rescoring.values
        is_white = not len(rescoring.feature_weights)
        fit += [len(starts) == n + 1, len(rescoring.biases) == n, len(rescoring.lengths) == n]
        fit += [len(rescoring.coefficients) == 2, np.all(rescoring.coefficients >= 0)]
        fit += [
            len(rescoring.reach) == 3
            and 1 <= rescoring.most == rescoring.reach[0] <= MAX_MOST
            and MIN_LEAST <= rescoring.least < 0 <= rescoring.smoothing < 1
        ]
        fit += [
            len(rescoring.kept) == 1 and 0 <= rescoring.kept[0] < 1 and not (is_white and rescoring.is_pruned)
        ]
        fit += [len(rescoring.feature_weights) in (0, d), np.all(rescoring.feature_weights >= 0)]
    if all(fit):
        fit += [starts[0] == 0, starts[-1] == len(values), np.all(np.diff(starts) >= 0)]
        fit += [
            len(features) == (0 if is_white else len(values)),
            not is_white or np.all(np.diff(starts) == d),
        ]
    if all(fit) and len(features):
        first = np.zeros(len(features) + 1, dtype=bool)
        first[starts] = True  # of a class; others follow a smaller one
        fit += [features.min() >= 0, features.max() < d, np.all((np.diff(features) > 0) | first[1:-1])]
    if not all(fit):
        raise ValueError(
            f"this model is damaged: the centroids of its {n} classes do not fit its {d} features, save it "
            "again or fit it again"
        )
    return rescoring


def _unpack_index(arrays: dict[str, NDArray], vectors: NDArray[np.float32]) -> SearchIndex:
    """ValueError where arrays of a damaged model do not fit together."""
    index = SearchIndex(arrays)
    K, n_classes = index.n_codewords, len(vectors)
    ptr, members, cells = index.cell_ptr, index.members, index.cells
    fit = [len(array) == n_classes for array in (members, cells, index.cumulated, index.weights)]
    fit += [index.codewords.shape == (2 * K, vectors.shape[1]), len(ptr) == K * K + 1]
    fit += [
        array.shape[:1] == (K,) and array.shape[1] >= K
        for array in (index.cell_weights, index.radii, index.tops)
    ]
    fit += [ptr[0] == 0, ptr[-1] == n_classes, np.all(ptr[1:] >= ptr[:-1])]
    fit += [members.min() >= 0, members.max() < n_classes, cells.min() >= 0, cells.max() < K * K]
    if not all(fit):
        raise ValueError(
            f"this model is damaged: the {K} codewords of its {n_classes} classes do not fit their cells, "
            "save it again or fit it again"
        )
    return index
