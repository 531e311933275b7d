"""
==================
Quickstart: digits
==================

A hierarchical softmax puts the classes into a tree. This page fits one, asks it for
probabilities, and looks at the tree. It uses scikit-learn's handwritten digits: ten classes,
so that the whole tree fits on a screen. With 48,000 classes the calls are the same.
"""

# %%
# Fit
# ---
# The classifier is used like any other of scikit-learn. Pixels go from 0 to 16, so we divide
# them by 16: features of about unit size train fastest.

import tempfile
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from sk_hsm import HierarchicalSoftmaxClassifier
from sk_hsm.display import LabelTreeDisplay, export_text

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)

clf = HierarchicalSoftmaxClassifier(arity=3, random_state=0).fit(X_train, y_train)
print(f"accuracy: {clf.score(X_test, y_test):.3f}")

# %%
# The most probable classes
# -------------------------
# :meth:`~sk_hsm.HierarchicalSoftmaxClassifier.predict_top_k` gives the best classes of each
# row, and how probable they are. It walks down the promising branches only, so that it is
# quick with many classes. The answer is exact all the same.

labels, proba = clf.predict_top_k(X_test[:5], k=3)
for truth, row_labels, row_proba in zip(y_test, labels, proba, strict=False):
    guesses = ", ".join(f"{label} ({p:.3f})" for label, p in zip(row_labels, row_proba, strict=True))
    print(f"this {truth} looks like: {guesses}")

# %%
# All probabilities
# -----------------
# ``predict_proba`` gives a column for each class. Every row sums to one.

table = clf.predict_proba(X_test[:5])
print("truth | " + "  ".join(f"{label:>5}" for label in clf.classes_))
for truth, row in zip(y_test, table, strict=False):
    print(f"{truth:>5} | " + "  ".join(f"{p:5.3f}" for p in row))
print("sums to one:", np.allclose(table.sum(axis=1), 1))

# %%
# The tree
# --------
# The classes are the leaves of the tree. At every inner node a small softmax chooses between
# its children: at most three here, because ``arity=3``. To reach a class we follow its path
# from the root and multiply the probabilities on the way.
#
# Nobody told the classifier which digits go together: it clustered them, so that digits which
# look alike share a path. The root only asks for the group. A node below it asks for the digit.

print(export_text(clf))

# %%
# Here is the path to the digit 9: the nodes that are passed, and which child is taken at each.

nodes, positions = clf.tree_.path(9)
print("nodes:", nodes.tolist(), " children taken:", positions.tolist())

# %%
# The same tree as a picture. Every node is a box, with its children to its right. The more
# classes are below a node, the wider is its box from top to bottom. Pale boxes are classes.

LabelTreeDisplay.from_estimator(clf)
plt.show()

# %%
# Against the flat softmax
# ------------------------
# Multinomial logistic regression has one softmax over all classes. We compare the log-loss,
# which says how good the probabilities are: smaller is better.

models = {
    "arity 3": clf,
    "arity 10": HierarchicalSoftmaxClassifier(arity=10, random_state=0),
    "logistic regression": LogisticRegression(C=10.0, max_iter=1000),
}
for name, model in models.items():
    model.fit(X_train, y_train)
    loss = log_loss(y_test, model.predict_proba(X_test))
    print(f"{name:>19}: log-loss {loss:.3f}, accuracy {model.score(X_test, y_test):.3f}")

# %%
# A node with room for all ten classes is the flat softmax: ``arity=10`` gives what logistic
# regression gives. A small arity can cost some quality, because a question about a group of
# digits may be harder than one about a digit. It is worth trying two or three values; the
# default is 16.
#
# With ten classes, logistic regression is the natural choice. With 48,000 it has to compute
# 48,000 numbers to train on one row. A tree of arity 16 has four levels: 64 numbers do.
#
# Save and load
# -------------
# A fitted classifier is saved like any scikit-learn model. The loaded one gives the very same
# probabilities.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.joblib"
    joblib.dump(clf, path)
    loaded = joblib.load(path)

print("the same:", np.array_equal(loaded.predict_proba(X_test), clf.predict_proba(X_test)))
