"""What is saved: a format number, the version, and plain arrays in place of our own objects."""

from __future__ import annotations

from typing import Any

from ._version import __version__
from .label_tree import LabelTree
from .node_weights import NodeWeights

# Raise it when what is saved changes in a way that older versions cannot read.
FORMAT = 1

_HEADER = ("_sk_hsm_format", "_sk_hsm_version")


def pack_state(state: dict[str, Any]) -> dict[str, Any]:
    """An estimator's __dict__ as it is saved."""
    state = {**state, "_sk_hsm_format": FORMAT, "_sk_hsm_version": __version__}
    if "tree_" in state:
        state["tree_"] = state["tree_"].__getstate__()
        state["node_weights_"] = state["node_weights_"].to_arrays()
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
    if "tree_" in state:
        state["tree_"] = LabelTree._from_arrays(state["tree_"])
        state["node_weights_"] = NodeWeights(state["node_weights_"])
    return state
