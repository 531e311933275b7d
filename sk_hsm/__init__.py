"""Hierarchical softmax for scikit-learn: classification with thousands to millions of classes."""

from ._version import __version__
from .classifier import HierarchicalSoftmaxClassifier
from .embedding import HierarchicalSoftmaxEmbedding
from .label_tree import LabelTree
from .sampled_softmax import SampledSoftmaxClassifier
from .skip_gram import SkipGramPairs

__all__ = [
    "HierarchicalSoftmaxClassifier",
    "HierarchicalSoftmaxEmbedding",
    "LabelTree",
    "SampledSoftmaxClassifier",
    "SkipGramPairs",
    "__version__",
]
