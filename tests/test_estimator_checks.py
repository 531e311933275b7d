"""scikit-learn's own checks: none skipped, and only those excused that no gradient descent can pass."""

import inspect
import warnings

import pytest
from sklearn.utils.estimator_checks import check_estimator

from sk_hsm import HierarchicalSoftmaxClassifier, HierarchicalSoftmaxEmbedding, SampledSoftmaxClassifier

# steps in random order: a row of weight two is not the same as two rows, as for SGDClassifier
ORDER = {
    f"check_sample_weight_equivalence_on_{kind}_data": "gradient descent depends on the order of rows"
    for kind in ("dense", "sparse")
}


def check(estimator, excused):
    """All of scikit-learn's checks pass but the excused, which fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None, on_skip=None, expected_failed_checks=excused)
    assert len(results) > 40
    others = [(r["check_name"], r["exception"]) for r in results if r["status"] != "passed"]
    assert {name for name, _ in others} == set(excused), others


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
    check(estimator, {})


@pytest.mark.parametrize(
    "estimator",
    [
        HierarchicalSoftmaxEmbedding(),
        HierarchicalSoftmaxEmbedding(tree="kmeans", arity=3, n_epochs=100),
        HierarchicalSoftmaxEmbedding(7, "balanced", arity=4, norm="l1", fit_intercept=False, n_epochs=100),
        SampledSoftmaxClassifier(n_negatives=5, n_epochs=100),  # less than by default, for time
        SampledSoftmaxClassifier(7, "midx-rq", hidden_layer_sizes=(5,), learning_rate=0.03, n_epochs=50),
        SampledSoftmaxClassifier(None, None, n_epochs=100),
        SampledSoftmaxClassifier(8, "uniform", norm="l1", fit_intercept=False, n_epochs=100),
    ],
    ids=str,
)
def test_all_checks_but_those_of_order_pass_for_gradient_descent(estimator):
    check(estimator, ORDER)


@pytest.mark.parametrize(
    "method", ["fit", "predict", "predict_proba", "predict_top_k", "log_proba_of", "sample"]
)
def test_public_methods_have_a_numpydoc_docstring(method):
    doc = inspect.getdoc(getattr(HierarchicalSoftmaxClassifier, method))
    assert "Parameters\n----------" in doc
    assert "Returns\n-------" in doc
