"""scikit-learn's own checks: none excused, none skipped."""

import warnings

import pytest
from sklearn.utils.estimator_checks import check_estimator

from sk_hsm import HierarchicalSoftmaxClassifier


@pytest.mark.parametrize(
    "estimator",
    [
        HierarchicalSoftmaxClassifier(),
        HierarchicalSoftmaxClassifier("huffman", arity=2),
        HierarchicalSoftmaxClassifier("balanced", arity=2),
        HierarchicalSoftmaxClassifier(n_trees=2, arity=2),
        HierarchicalSoftmaxClassifier(arity="auto"),
        HierarchicalSoftmaxClassifier(arity=2, rounding=0.01),
    ],
    ids=str,
)
def test_every_check_of_scikit_learn_passes(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) > 40
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] != "passed"] == []


@pytest.mark.parametrize(
    "method", ["fit", "predict", "predict_proba", "predict_top_k", "log_proba_of", "sample"]
)
def test_public_methods_have_a_numpydoc_docstring(method):
    doc = getattr(HierarchicalSoftmaxClassifier, method).__doc__
    assert "Parameters\n        ----------" in doc
    assert "Returns\n        -------" in doc
