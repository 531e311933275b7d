"""
===============================
Hierarchical softmax, from zero
===============================

A model that guesses a word has to give every word of its vocabulary a probability. This page
begins with the plain way to do so, shows what it costs, and arrives step by step at trees of
words: what they compute, how they learn, how fast they are, and which tree to take. The order
is that of the classic texts: Goodman [1]_, Morin and Bengio [2]_, Mikolov and others [3]_ [4]_,
and Rong's explanation of word2vec [5]_. All numbers and pictures are computed on this page.
"""

# %%
# A small world
# -------------
# We need texts. Here are some sentences with sixteen different words. Animals sleep, see each
# other, eat and drink; what is eaten is bread or cheese, what is drunk is milk or water.

# sphinx_gallery_thumbnail_number = 3
import ast
import copy
import re
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import sklearn
from scipy import sparse

from sk_hsm import HierarchicalSoftmaxEmbedding, SkipGramPairs
from sk_hsm.display import LabelTreeDisplay, export_text
from sk_hsm.tree_builders import balanced_tree, huffman_tree

rng = np.random.default_rng(0)
animals = ["cat", "dog", "bird", "mouse"]
objects = {"sees": animals, "eats": ["bread", "cheese"], "drinks": ["milk", "water"]}


def draw(words):
    """One of the words, the first ones more often."""
    p = 1 / np.arange(1, len(words) + 1)
    return words[rng.choice(len(words), p=p / p.sum())]


def sentence():
    verb = draw(list(objects))
    words = ["the", draw(["small", ""]), draw(animals), verb, draw(["the", "a"]), draw(objects[verb])]
    words += draw([[], ["and", "sleeps"]])
    return [word for word in words if word]


sentences = [sentence() for _ in range(2000)]
for words in sentences[:4]:
    print(*words)

# %%
# Word2vec's skip-gram learns from pairs of near words: given one, guess the other.
# :class:`~sk_hsm.SkipGramPairs` makes the pairs. A row has a one in the column of the word that
# is given, the *context*, and the label is the number of the word to guess. Words are numbered
# by falling frequency.

pairs = SkipGramPairs(sentences, window=2, min_count=1, subsample=np.inf, random_state=0)
words = pairs.vocabulary
n_words = len(words)
print(n_words, "words:", *words)

X, y = next(iter(pairs))
for context, word in zip(X.indices[:5], y[:5], strict=True):
    print(f"given '{words[context]}', guess '{words[word]}'")

# %%
# 1. The flat softmax
# -------------------
# The context becomes a vector :math:`h`, its *embedding*. Every word :math:`w` has a vector
# :math:`v_w` of its own. The *score* of a word is the product of both, and the softmax makes
# probabilities of the scores:
#
# .. math::
#
#    P(w \mid h) = \frac{\exp(v_w \cdot h)}{\sum_{w'} \exp(v_{w'} \cdot h)}
#
# In this package, that is a tree of a single node with room for all words. ``fit_intercept=False``
# makes it the formula above, without a constant added to each score. word2vec has none.

settings = dict(dim=8, fit_intercept=False, n_epochs=30, random_state=0)
flat = HierarchicalSoftmaxEmbedding(tree=balanced_tree(n_words, arity=n_words), **settings)
flat.fit_batches(pairs, range(n_words), pairs.counts)

X_words = np.eye(n_words)  # one row for each word, as context
drinks = pairs.index["drinks"]
h = flat.embedding_[drinks]
scores = flat.node_vectors_ @ h
proba = np.exp(scores) / np.exp(scores).sum()
print("as predict_proba:", np.allclose(proba, flat.predict_proba(X_words[[drinks]])))
print("near 'drinks':", ", ".join(f"{words[w]} {proba[w]:.2f}" for w in np.argsort(-proba)[:6]))

# %%
# The trouble is the sum below the line. **One probability takes the scores of all words.**
# And one step of training changes the vectors of all words. With sixteen words nobody minds.
# With a million words, it is a million products of vectors for each pair of each sentence.
#
# 2. Two levels
# -------------
# Goodman's idea [1]_: put the words into classes. First guess the class :math:`c`, then the word
# among those of its class:
#
# .. math::
#
#    P(w \mid h) = P(c \mid h) \; P(w \mid c, h)
#
# Each factor is a softmax of its own, and a small one. Sixteen words in four classes of four:

two_levels = balanced_tree(n_words, arity=4)
print(export_text(two_levels.with_labels(words), max_labels=4))

# %%
# The first softmax chooses between four classes, the second between four words: 8 scores, not 16.
# With :math:`V` words and :math:`c` classes of :math:`V / c` words it is :math:`c + V / c` scores.
# Few classes are large, and many classes are a long list themselves. The best number is between:

V = 10_000
n_classes = np.arange(2, V // 2)
n_scores = n_classes + V / n_classes
best = n_classes[n_scores.argmin()]
fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.loglog(n_classes, n_scores)
ax.yaxis.set_minor_formatter("")
ax.plot(best, n_scores.min(), "o", color="C1")
ax.annotate(
    f"{best} classes: {n_scores.min():.0f} scores",
    (best, n_scores.min()),
    (0, -16),
    textcoords="offset points",
    ha="center",
)
ax.set_ylim(n_scores.min() / 2)
ax.set(xlabel="number of classes", ylabel="scores for one probability", title=f"{V:,} words in two levels")
plt.show()

# %%
# It is the square root of :math:`V`, which makes :math:`2 \sqrt V` scores.
#
# 3. A tree
# ---------
# If two levels are good, more are better. Morin and Bengio [2]_ went all the way: split the words
# in two halves, split each half again, and so on down to single words. (They took the halves from a
# thesaurus, WordNet. More on that in section 11.) Every choice is now between two children. One
# score decides it: large means the second child, small the first.

balanced = balanced_tree(n_words, arity=2)
LabelTreeDisplay.from_estimator(balanced.with_labels(words), max_depth=4)
plt.show()

# %%
# A word takes as many scores as its path has nodes: four, which is :math:`\log_2 16`. The same
# count for larger vocabularies. A node with two children costs one score, another one a score for
# each child.


def scores_on_path(tree, label):
    nodes, _ = tree.path(label)
    children = np.diff(tree.child_ptr)[nodes]
    return np.where(children == 2, 1, children).sum()


print("    words      flat  two levels    binary")
for V in (16, 10_000, 1_000_000):
    arities = V, int(np.sqrt(V)), 2
    counts = [scores_on_path(balanced_tree(V, arity), V - 1) for arity in arities]
    print(f"{V:>9,} " + "  ".join(f"{count:>9,}" for count in counts))

# %%
# A tree saves no memory: :math:`V` leaves need :math:`V - 1` inner nodes of two children, each with
# a vector, about as many as the words have in the flat softmax. What it saves is time, as one word
# needs only the nodes on its path.
#
# 4. The probability of a word
# ----------------------------
# A node with vector :math:`v` takes its second child with probability
# :math:`\sigma(v \cdot h)`, where :math:`\sigma(s) = 1 / (1 + e^{-s})`, and its first child with
# what is left: :math:`1 - \sigma(v \cdot h) = \sigma(- v \cdot h)`. So each step of a path is the
# same formula with a *direction sign* :math:`d`, which is +1 for the second child and -1 for the
# first. (Some texts have it the other way round. It makes no difference.) The probability of the
# word is the product along its path:
#
# .. math::
#
#    P(w \mid h) = \prod_{j} \sigma(d_j \, v_j \cdot h), \qquad d_j = \pm 1
#
# We train such a model, and follow the path to "milk" from the context "drinks".


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


model = HierarchicalSoftmaxEmbedding(tree=balanced, **settings)
model.fit_batches(pairs, range(n_words), pairs.counts)

milk = pairs.index["milk"]
h = model.embedding_[drinks]
nodes, positions = model.tree_.path(milk)
signs = 2 * positions - 1
v = model.node_vectors_[nodes]  # in a binary tree, node i has the vector i
factors = sigmoid(signs * (v @ h))

print("node  child  sign   v . h  sign * v . h  sigmoid  product so far")
for row in zip(nodes, positions, signs, v @ h, signs * (v @ h), factors, factors.cumprod(), strict=True):
    print("{:>4}  {:>5}  {:>+4} {:>+7.3f}  {:>+12.3f}  {:>7.3f}  {:>14.4f}".format(*row))
log_proba = model.log_proba_of(X_words[[drinks]], [milk])
print(f"the package says {np.exp(log_proba[0]):.4f}")

# %%
# As a picture: at each node, the probability of both children. The path to "milk" is drawn thick.


def draw_tree(tree, names, p_second, label, ax):
    """A binary tree, the probabilities of both children, and the path to a label drawn thick."""
    x, depth = np.zeros(tree.n_nodes), np.zeros(tree.n_nodes)
    left_to_right = sorted(range(tree.n_classes), key=lambda leaf: tuple(tree.path(leaf)[1]))
    x[tree.n_inner + np.array(left_to_right)] = np.arange(tree.n_classes)
    for node in reversed(range(tree.n_inner)):  # the number of a parent is below those of its children
        x[node] = x[tree.parents == node].mean()
    for node in range(1, tree.n_nodes):
        depth[node] = 1 + depth[tree.parents[node]]
    path = {*tree.path(label)[0].tolist(), tree.n_inner + label}
    edges = dict(color="0.7", linewidth=1), dict(color="C1", linewidth=3)
    white = dict(facecolor="white", edgecolor="none", pad=0.5)
    center = dict(ha="center", va="center")
    for node in range(1, tree.n_nodes):
        parent = tree.parents[node]
        ax.plot(x[[parent, node]], depth[[parent, node]], zorder=1, **edges[node in path])
        p = p_second[parent] if tree.positions[node] else 1 - p_second[parent]
        middle = (0.4 * array[parent] + 0.6 * array[node] for array in (x, depth))
        ax.text(*middle, f"{p:.2f}", fontsize=7, bbox=white, **center)
    for node in range(tree.n_inner):
        circle = dict(boxstyle="circle", facecolor="white", edgecolor=edges[node in path]["color"])
        ax.text(x[node], depth[node], node, fontsize=8, bbox=circle, **center)
    for node, name in enumerate(names, start=tree.n_inner):
        weight = "bold" if node in path else "normal"
        ax.text(x[node] + 0.2, depth[node] + 0.08, name, ha="right", va="top", rotation=45, weight=weight)
    ax.set(ylim=(depth.max() + 0.9, -0.3))
    ax.axis("off")


fig, ax = plt.subplots(figsize=(9, 4.5), layout="constrained")
draw_tree(model.tree_, words, sigmoid(model.node_vectors_ @ h), milk, ax)
ax.set_title("the way from the context 'drinks' to the word 'milk'")
plt.show()

# %%
# 5. They sum to one
# ------------------
# Nothing was divided by a sum over all words, and yet the probabilities of all words sum to one,
# for every context:

print(model.predict_proba(X_words).sum(axis=1))

# %%
# The reason: the root has probability one, and each node hands on what it has to its two children,
# :math:`\sigma(v \cdot h)` to one and the rest to the other. Nothing gets lost on the way down.
# In the next picture, the boxes are as high as their words are probable near "drinks". At each
# depth they fill the whole height. Only the number of pieces grows.

proba = model.predict_proba(X_words[[drinks]])[0]
LabelTreeDisplay.from_estimator(balanced.with_labels(words), max_depth=4, counts=proba)
plt.show()

# %%
# So no vectors, however wrong, can break it. Training only moves the borders.
#
# 6. Huffman codes
# ----------------
# Some words are far more frequent than others. If their paths are short, the mean path is short.
# The tree with the shortest mean path is Huffman's, found in 1952 for codes of bits, and used by
# Mikolov and others in word2vec [4]_. It merges the two rarest words into a node, which then counts
# as one word, and again, until one node is left. The children taken on a word's path are its *code*.

huffman = huffman_tree(pairs.counts)
print("word     count  share  balanced  Huffman")
for w, word in enumerate(words):
    codes = ["".join(map(str, tree.path(w)[1])) for tree in (balanced, huffman)]
    share = pairs.counts[w] / pairs.counts.sum()
    print(f"{word:<7} {pairs.counts[w]:>6}  {share:5.3f}  {codes[0]:<8}  {codes[1]}")

# %%
# No binary tree has a mean depth below the entropy of the word frequencies, :math:`\sum p \log_2 (1 / p)`,
# and Huffman's is less than one above it.

p = pairs.counts / pairs.counts.sum()
print(f"balanced tree: mean depth {balanced.mean_depth(pairs.counts):.3f}")
print(f"Huffman tree:  mean depth {huffman.mean_depth(pairs.counts):.3f}")
print(f"entropy:                  {(p * np.log2(1 / p)).sum():.3f}")

# %%
# The Huffman tree, with the share of the words that take each child. Both are near one half, as far as
# the frequencies allow: then the answer to a question tells most.

mass = np.zeros(huffman.n_nodes)
mass[huffman.n_inner :] = pairs.counts
for node in reversed(range(1, huffman.n_nodes)):
    mass[huffman.parents[node]] += mass[node]
second = np.flatnonzero(huffman.positions == 1)
p_second = np.zeros(huffman.n_inner)
p_second[huffman.parents[second]] = mass[second] / mass[huffman.parents[second]]

fig, ax = plt.subplots(figsize=(9, 6.5), layout="constrained")
draw_tree(huffman, words, p_second, milk, ax)
ax.set_title("the Huffman tree, and the code of 'milk'")
plt.show()

# %%
# 7. The loss
# -----------
# Training makes the observed words probable: it minimises the *log-loss*,
# :math:`-\log P(w \mid h)`. The logarithm makes a sum of the product along the path:
#
# .. math::
#
#    L = -\log P(w \mid h) = -\sum_{j} \log \sigma(d_j \, v_j \cdot h)
#
# Each node on the path contributes a loss of its own, that of a logistic regression with two
# outcomes. Nodes that are not on the path contribute nothing. From here on the tree is Huffman's.


def path_loss(v, h, signs):
    return -np.log(sigmoid(signs * (v @ h))).sum()


def on_path(model, word):
    """The nodes of a word's path, their vectors and signs."""
    nodes, positions = model.tree_.path(word)
    return nodes, model.node_vectors_[nodes].astype(float), 2 * positions - 1


model = HierarchicalSoftmaxEmbedding(tree=huffman, **settings)
model.fit_batches(pairs, range(n_words), pairs.counts)
h = model.embedding_[drinks].astype(float)
nodes, v, signs = on_path(model, milk)
losses = -np.log(sigmoid(signs * (v @ h)))
print("losses on the path:", losses.round(3))
print(f"their sum: {losses.sum():.6f}")
print(f"the package says {-model.log_proba_of(X_words[[drinks]], [milk])[0]:.6f}")

# %%
# 8. Gradients
# ------------
# Let :math:`t_j` be 1 if the path takes the second child of node :math:`j`, and 0 if the first.
# The derivative of a node's loss by its score is the *error signal*
#
# .. math::
#
#    e_j = \frac{\partial L}{\partial (v_j \cdot h)} = \sigma(v_j \cdot h) - t_j ,
#
# what the node said minus what it should have said. From it come both gradients:
#
# .. math::
#
#    \frac{\partial L}{\partial v_j} = e_j \, h , \qquad
#    \frac{\partial L}{\partial h} = \sum_j e_j \, v_j
#
# A formula that one has derived should be checked. We change one number at a time by a little, and
# see how the loss changes.

errors = sigmoid(v @ h) - (signs > 0)
gradient_v = errors[:, None] * h
gradient_h = errors @ v


def finite_differences(function, at, step=1e-5):
    """The gradient of a function at a point, number by number."""
    gradient = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        change = np.zeros_like(at)
        change[i] = step
        gradient[i] = (function(at + change) - function(at - change)) / (2 * step)
    return gradient


difference_v = gradient_v - finite_differences(lambda v: path_loss(v, h, signs), v)
difference_h = gradient_h - finite_differences(lambda h: path_loss(v, h, signs), h)
print(f"gradients are up to {np.abs(gradient_v).max():.2f} and {np.abs(gradient_h).max():.2f}")
for name, difference in {"v": difference_v, "h": difference_h}.items():
    print(f"of {name}, within 1e-6 of finite differences: {np.abs(difference).max() < 1e-6}")

# %%
# A step of training moves the vectors against their gradients, times a *learning rate*. With
# ``partial_fit`` the package makes such a step for each row that it is given. We give it one row, and
# compare. All nodes that are not on the path stay as they are.

rate = 0.1
after = copy.deepcopy(model).set_params(learning_rate=rate)
after.partial_fit(X_words[[drinks]], [milk])
moved_v = (after.node_vectors_ - model.node_vectors_)[nodes]
moved_h = (after.embedding_ - model.embedding_)[drinks]
changed = (after.node_vectors_ != model.node_vectors_).any(axis=1)
print("node vectors moved by -rate * e * h:", np.allclose(moved_v, -rate * gradient_v, atol=1e-5))
print("embedding moved by -rate * sum(e * v):", np.allclose(moved_h, -rate * gradient_h, atol=1e-5))
print("nodes on the path: ", nodes.tolist())
print("nodes that changed:", np.flatnonzero(changed).tolist())

# %%
# 9. Error signals while it learns
# --------------------------------
# All node vectors begin at zero, so that every node says one half, and every error signal is one half,
# too, up or down. We train a model pass by pass, with a rate that falls, and look at the path to "and"
# after each. First with the context "sleeps", which most often stands beside it, then with "eats", which
# is never near it.

and_, sleeps, eats = (pairs.index[word] for word in ("and", "sleeps", "eats"))
learner = HierarchicalSoftmaxEmbedding(tree=huffman, **settings)
learner.set_params(learning_rate=1e-9).partial_fit(X, y, classes=range(n_words))  # as good as untrained
signals = {sleeps: [], eats: []}
n_passes = 15
for i in range(n_passes + 1):
    for context in signals:
        nodes, v, signs = on_path(learner, and_)
        signals[context].append(sigmoid(v @ learner.embedding_[context]) - (signs > 0))
    learner.set_params(learning_rate=0.05 * (1 - i / (n_passes + 1)))
    for X, y in pairs:
        learner.partial_fit(X, y)

fig, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for ax, (context, signal) in zip(axes, signals.items(), strict=True):
    for j, (node, line) in enumerate(zip(nodes, np.transpose(signal), strict=True)):
        ax.plot(line, marker=".", color=plt.cm.viridis(j / len(nodes)), label=f"node {node}")
    ax.axhline(0, color="0.7", linewidth=1, zorder=0)
    ax.set(title=f"given '{words[context]}', on the path to 'and'", xlabel="passes over the pairs")
    ax.set(xticks=range(0, n_passes + 1, 3), ylim=(-1.05, 1.05))
axes[0].set_ylabel("error signal of a node")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
plt.show()

# %%
# The same as a table, before and after:

print("node   given 'sleeps'     given 'eats'")
for j, node in enumerate(nodes):
    numbers = [signals[context][i][j] for context in signals for i in (0, -1)]
    print("{:>4}   {:+.2f} -> {:+.2f}     {:+.2f} -> {:+.2f}".format(node, *numbers))

# %%
# Given "sleeps", the nodes have learned to lead to "and". Given "eats", some of them lead elsewhere, and
# should "and" ever come, they would be told so by error signals near one, up or down.
#
# The error signals of a single pair do not all go to zero. They should not: other words stand near
# "sleeps" as well, and pull the other way. What comes near to zero is their *mean*. Then a node is as often
# too high as too low, which says that its probability is right. Here is the mean over all pairs with
# the context "drinks", at the nodes that they meet most often. "After" is the model of above, which
# was trained with ``fit_batches``: its learning rate falls to zero in the end.

untrained = HierarchicalSoftmaxEmbedding(tree=huffman, learning_rate=1e-9, **settings)
untrained.partial_fit(X, y, classes=range(n_words))
near_drinks = np.concatenate([y[X.indices == drinks] for X, y in pairs])
visits, means = np.zeros(huffman.n_inner, dtype=int), []
for which in (untrained, model):
    p_second = sigmoid(which.node_vectors_ @ which.embedding_[drinks])
    sums = np.zeros(huffman.n_inner)
    visits[:] = 0
    for word in near_drinks:
        nodes, positions = huffman.path(word)
        sums[nodes] += p_second[nodes] - positions
        visits[nodes] += 1
    means.append(sums / np.maximum(visits, 1))

print("node  pairs   mean error signal, before -> after")
for node in np.argsort(-visits)[:7]:
    print(f"{node:>4}  {visits[node]:>5}   {means[0][node]:+.3f} -> {means[1][node]:+.3f}")

# %%
# 10. How fast
# ------------
# Now the point of it all. We measure how long one probability takes in vocabularies from a hundred to a
# million words, whose frequencies fall as those of a language do (Zipf's law), with embeddings of
# length 30: with the flat softmax, two levels, and the Huffman tree. ``log_proba_of`` visits one path, no
# more. A step of training visits the same nodes, and moves their vectors too, so that it grows as fast.


def microseconds(tree, contexts, y):
    """The time of one probability, the best of three."""
    model = HierarchicalSoftmaxEmbedding(dim=30, tree=tree, random_state=0)
    model.partial_fit(contexts[:1], y[:1], classes=tree.leaf_labels)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.log_proba_of(contexts, y)
        seconds.append(time.perf_counter() - start)
    return 1e6 * min(seconds) / len(y)


sizes = [100, 1_000, 10_000, 100_000, 1_000_000]
costs = {"flat": [], "two levels": [], "Huffman": []}
print("    words  tree        scores  microseconds")
for V in sizes:
    zipf = 1 / np.arange(1, V + 1)
    trees = {
        "flat": balanced_tree(V, arity=V),
        "two levels": balanced_tree(V, arity=int(np.ceil(np.sqrt(V)))),
        "Huffman": huffman_tree(zipf),
    }
    drawn = rng.choice(V, size=20_000, p=zipf / zipf.sum())
    for name, tree in trees.items():
        n_scores = np.mean([scores_on_path(tree, word) for word in drawn[:100]])
        n_rows = int(np.clip(5e6 / n_scores, 10, len(drawn)))
        contexts = sparse.identity(1000, format="csr")[rng.integers(1000, size=n_rows)]
        costs[name].append(microseconds(tree, contexts, drawn[:n_rows]))
        print(f"{V:>9,}  {name:<10}  {n_scores:>9,.0f}  {costs[name][-1]:>9,.2f}")

# %%
# Both axes of the picture are logarithmic. Ten times the words take ten times as long with the flat
# softmax, about three times as long with two levels, and a little longer with the tree.

fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for name, cost in costs.items():
    ax.loglog(sizes, cost, marker="o")
    ax.annotate(name, (sizes[-1], cost[-1]), (8, 0), textcoords="offset points", va="center")
ax.set(xlabel="words", ylabel="microseconds", title="time of one probability", xlim=(50, 1e7))
ax.set_xticks(sizes, [f"{V:,}" for V in sizes])
ax.grid(alpha=0.3)
plt.show()

ratio = costs["flat"][-1] / costs["Huffman"][-1]
print(f"with {sizes[-1]:,} words, the Huffman tree is {ratio:,.0f} times faster")

# %%
# 11. Which tree
# --------------
# Every tree gives probabilities that sum to one, and a short path. But not every tree is as easy to
# learn. A node asks: "is the word among these on the left, or among those on the right?" If
# similar words are on the same side, the context answers. If the sides are a random mix, it can not say
# much, and what is learned about one word does not help with the words like it. That is why Morin and
# Bengio began with a thesaurus. This package finds out by itself which words are alike.
#
# To see it we need real texts. There are some where this package is: the docstrings of scikit-learn. We
# shuffle the sentences, and hold out every tenth batch of their pairs.

texts = {}  # a dict, so that each sentence comes once
for path in sorted(Path(sklearn.__file__).parent.rglob("*.py")):
    if "tests" not in path.parts:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for text in re.split(r"\n\s*\n|[.:;]\s", ast.get_docstring(node) or ""):
                    texts[tuple(re.findall("[a-z]+", text.lower()))] = None
sentences = list(texts)
rng = np.random.default_rng(0)
rng.shuffle(sentences)

pairs = SkipGramPairs(sentences, window=2, min_count=20, tokens_per_batch=5000, random_state=0)
words, n_words = pairs.vocabulary, len(pairs.vocabulary)
batches = list(pairs)
held_out = batches[::10]
train = [batch for i, batch in enumerate(batches) if i % 10]
print(f"{pairs.n_tokens} words, {n_words} different ones that occur 20 times or more")
print(f"{sum(len(y) for _, y in train)} pairs to learn from, {sum(len(y) for _, y in held_out)} held out")

# %%
# Three trees. ``tree="kmeans"`` makes one of which similar words share a path: it learns for a while with a
# Huffman tree, and then clusters the words by the contexts that they have. The second is Huffman's. The
# third is the k-means tree again, with the words shuffled: every path is there, but to another word. With
# each of them we learn anew, and for equally long.

y_train = np.concatenate([y for _, y in train])
counts = np.bincount(y_train, minlength=n_words)
settings = dict(dim=10, learning_rate=0.1, n_epochs=5, random_state=0)
clustered = HierarchicalSoftmaxEmbedding(tree="kmeans", **settings)
clustered.fit_batches(train, range(n_words), counts)
trees = {
    "k-means": clustered.tree_,
    "Huffman": huffman_tree(counts),
    "shuffled": clustered.tree_.with_labels(rng.permutation(n_words)),
}
models = {
    name: HierarchicalSoftmaxEmbedding(tree=tree, **settings).fit_batches(train, range(n_words), counts)
    for name, tree in trees.items()
}

# %%
# How probable are the pairs that were held out? We take the mean of their log-probabilities. Zero would be
# perfect. With each pair guessed by the frequency of the word alone, we get what can be had without any
# context.

X_held_out = sparse.vstack([X for X, _ in held_out], format="csr")
y_held_out = np.concatenate([y for _, y in held_out])
by_frequency = np.log((counts[y_held_out] + 1) / (counts.sum() + n_words)).mean()
log_likelihood = {name: model.log_proba_of(X_held_out, y_held_out).mean() for name, model in models.items()}
print(f"{'frequencies':<12} {by_frequency:.3f}")
for name, value in log_likelihood.items():
    print(f"{name:<12} {value:.3f}   mean depth {trees[name].mean_depth(counts):.1f}")

# %%
# Now to the paths. Similar words are words with similar contexts. We compare their contexts by what
# each tells of the word (positive pointwise mutual information), which needs no tree, and take the five
# most similar words of each.

contexts = np.concatenate([X.indices for X, _ in train])
together = np.bincount(y_train * n_words + contexts, minlength=n_words**2).reshape(n_words, n_words)
expected = np.outer(together.sum(axis=1), together.sum(axis=0)) / together.sum()
information = np.log(np.maximum(together, expected) / np.maximum(expected, 1e-9))
information /= np.maximum(np.linalg.norm(information, axis=1, keepdims=True), 1e-9)
similarity = information @ information.T
np.fill_diagonal(similarity, -1)
similar = np.argsort(-similarity, axis=1)[:, :5]
for word in ("mean", "kernel", "train"):
    if word in pairs.index:
        print(f"{word}: {', '.join(words[similar[pairs.index[word]]])}")

# %%
# How much of their path do a word and a similar one share? We count the common nodes, over those of the
# shorter path. For comparison the same with words drawn at random: paths share the root at least.


def shared_path(paths, others):
    """Mean share of common nodes of each word's path and those of others, (n_words, k)."""
    shares = [
        len(paths[word] & paths[other]) / min(len(paths[word]), len(paths[other]))
        for word in range(n_words)
        for other in others[word]
    ]
    return np.mean(shares)


at_random = rng.integers(n_words, size=similar.shape)
paths = {
    name: [set(model.tree_.path(word)[0].tolist()) for word in range(n_words)]
    for name, model in models.items()
}
shared = {name: (shared_path(p, similar), shared_path(p, at_random)) for name, p in paths.items()}

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
gain = [value - by_frequency for value in log_likelihood.values()]
bars = left.bar(list(models), gain, color="C0")
left.bar_label(bars, fmt="%.3f", padding=2)
left.set(ylabel="nats a pair", title="log-likelihood above that of frequencies")
left.margins(y=0.12)
for i, (label, color) in enumerate({"similar words": "C0", "random words": "0.7"}.items()):
    at = np.arange(len(shared)) + 0.4 * i - 0.2
    bars = right.bar(at, [values[i] for values in shared.values()], 0.4, label=label, color=color)
    right.bar_label(bars, fmt="{:.0%}", padding=2)
right.set_xticks(range(len(shared)), list(shared))
right.set(ylabel="share of the path", title="path that two words have in common")
right.margins(y=0.12)
right.legend()
plt.show()

# %%
# In the k-means tree, similar words share much more of their paths than random words do, and what is held
# out is more probable. In the other two, similar words might as well have been drawn at random.
# Huffman's tree hardly differs from the shuffled one: as to what words mean, it is a random tree, too, and
# brings together words of like frequency. It only has shorter paths, which make it faster.
#
# Look at the words below the same node. Here is the lowest node above a word with at least six words:

for word in ("mean", "kernel", "train"):
    if word not in pairs.index:
        continue
    for name, nodes in paths.items():
        for node in models[name].tree_.path(pairs.index[word])[0][::-1]:
            below = [w for w in range(n_words) if node in nodes[w]]
            if len(below) >= 6:
                break
        print(f"{word:<7} {name:<9} {', '.join(words[below][:8])}")

# %%
# Where to go on
# --------------
# - :class:`~sk_hsm.HierarchicalSoftmaxClassifier` uses such trees without embeddings: each node has a
#   weight for each feature. Its trees are of arity 16, as sixteen scores cost it no more than two.
# - :ref:`sphx_glr_auto_examples_plot_digits.py` is a first look at it.
# - The :ref:`user guide <user_guide>` tells how to choose trees and parameters, and all about predictions:
#   the most probable words of a row are found without a look at all of them.
# - :doc:`/mathematics` has proofs, :doc:`/speed` and :doc:`/accuracy` have measurements.
#
# References
# ----------
# .. [1] Joshua Goodman, "Classes for fast maximum entropy training", ICASSP 2001. arXiv:cs/0108006.
# .. [2] Frederic Morin, Yoshua Bengio, "Hierarchical probabilistic neural network language model",
#    AISTATS 2005.
# .. [3] T. Mikolov, K. Chen, G. Corrado, J. Dean, "Efficient estimation of word representations in
#    vector space", 2013. arXiv:1301.3781.
# .. [4] T. Mikolov, I. Sutskever, K. Chen, G. Corrado, J. Dean, "Distributed representations of words
#    and phrases and their compositionality", NIPS 2013. arXiv:1310.4546.
# .. [5] Xin Rong, "word2vec parameter learning explained", 2014. arXiv:1411.2738.
