"""scikit-learn's own checks: none excused, none skipped."""

import os
import subprocess
import sys

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sk_hsm import HierarchicalSoftmaxClassifier

ALL_PASS = """
import warnings
from sklearn.utils.estimator_checks import check_estimator
from sk_hsm import HierarchicalSoftmaxClassifier

warnings.simplefilter("ignore")
results = check_estimator(HierarchicalSoftmaxClassifier(), on_fail=None, on_skip=None)
print(len(results), [r["check_name"] for r in results if r["status"] != "passed"])
"""


@parametrize_with_checks(
    [HierarchicalSoftmaxClassifier("huffman", arity=2), HierarchicalSoftmaxClassifier("balanced", arity=2)]
)
def test_scikit_learn_check(estimator, check):
    check(estimator)


def test_every_check_passes_by_default():
    # scikit-learn skips its array API check unless scipy is told of it before it is imported
    env = {**os.environ, "SCIPY_ARRAY_API": "1"}
    run = subprocess.run([sys.executable, "-c", ALL_PASS], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    n_checks, _, not_passed = run.stdout.strip().partition(" ")
    assert not_passed == "[]"
    assert int(n_checks) > 40


@pytest.mark.parametrize("method", ["fit", "predict", "predict_proba", "predict_top_k", "log_proba_of", "sample"])
def test_public_methods_have_a_numpydoc_docstring(method):
    doc = getattr(HierarchicalSoftmaxClassifier, method).__doc__
    assert "Parameters\n        ----------" in doc
    assert "Returns\n        -------" in doc
