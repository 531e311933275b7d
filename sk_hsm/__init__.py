"""Hierarchical softmax for scikit-learn: classification with thousands to millions of classes."""

from ._version import __version__
from .classifier import HierarchicalSoftmaxClassifier
from .label_tree import LabelTree

__all__ = ["HierarchicalSoftmaxClassifier", "LabelTree", "__version__"]
