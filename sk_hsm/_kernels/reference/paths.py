"""Paths down a fitted tree.

tree is a LabelTree, weights its NodeWeights, smoothing the share of a node's probabilities
that are those of its softmax at a higher temperature. Class c is the leaf, and the node,
``tree.n_inner + c``.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from ._common import NO_CHILD
from .rescoring import rescore

LARGEST_LOGIT = 1e28
TEMPERATURE = 3


def top_k(
    tree, weights, smoothing, indptr, indices, data, min_log_proba, beam_width, rescoring, classes, log_proba
):  # fmt: skip
    """The k most probable classes of each row, the most probable first, ties in order of class.

    With a rescoring, likely classes, up to ``rescoring.most`` of at least the log-probability
    ``rescoring.least``, are scored again before the best are chosen.

    With a beam_width above 0, only that many of the most probable inner nodes of a level
    are opened (ties in order of node), and leaves below the others are not considered.

    indptr, indices, data : the rows, CSR.
    min_log_proba : float, classes of a smaller log-probability are left out.
    beam_width : int, 0 for an exact answer.
    rescoring : Rescoring or None; None with a beam.
    classes : (n_rows, k) int32, out: -1 where there are fewer.
    log_proba : (n_rows, k) float64, out: -inf where there are fewer.
    """
    for i in range(len(classes)):
        x = _row(indptr, indices, data, i)
        leaves = sorted(_leaves_in_beam(tree, weights, smoothing, x, beam_width or tree.n_nodes))
        found = np.array([node - tree.n_inner for _, node in leaves]), np.array([-cost for cost, _ in leaves])
        answer_row(
            *found, rescoring, indptr[i : i + 2], indices, data, min_log_proba, classes[i], log_proba[i]
        )


def answer_row(found, found_log_proba, rescoring, bounds, indices, data, min_log_proba, classes, log_proba):
    """The best of all classes of a row, which are given in their order."""
    if rescoring is not None:
        n = min(rescoring.most, np.count_nonzero(found_log_proba >= rescoring.least))
        row = bounds - bounds[0], *(x[bounds[0] : bounds[1]] for x in (indices, data))
        likely = found[None, :n].astype(np.int32), found_log_proba[None, :n].copy()
        rescore(rescoring, *row, *likely)
        found = np.append(likely[0], found[n:])
        found_log_proba = np.append(likely[1], found_log_proba[n:])
    best = np.lexsort((found, -found_log_proba))
    best = best[found_log_proba[best] >= min_log_proba][: len(classes)]
    classes[:], log_proba[:] = -1, -np.inf
    classes[: len(best)], log_proba[: len(best)] = found[best], found_log_proba[best]


def _leaves_in_beam(tree, weights, smoothing, x, beam_width):
    """(-log-probability, node) of each leaf below the inner nodes that a beam opens."""
    root = [(0.0, 0)]
    leaves, frontier = ([], root) if tree.n_inner else (root, [])
    while frontier:
        opened, frontier = sorted(frontier)[:beam_width], []
        for cost, node in opened:
            log_p = _children_log_proba(tree, weights, smoothing, x, node)
            for child, child_log_p in zip(_children(tree, node), log_p, strict=True):
                (frontier if child < tree.n_inner else leaves).append((cost - child_log_p, child))
    return leaves


def all_log_proba(tree, weights, smoothing, indptr, indices, data, log_proba):
    """Log-probability of every class: the sum over its path of log P(child | node, x).

    P(. | node, x) is the softmax of the node's logits ``W x + b``, see NodeWeights. Logits
    beyond float32 are cut at 1e28; a child with the bias -1e30 has the probability 0. With a
    smoothing s it is ``(1 - s) * softmax(z) + s * softmax(z / 3)`` of these.

    indptr, indices, data : the rows, CSR.
    log_proba : (n_rows, n_classes) float64, out.
    """
    for i in range(len(log_proba)):
        x = _row(indptr, indices, data, i)
        at = np.zeros(tree.n_nodes)
        for node in range(tree.n_inner):
            at[_children(tree, node)] = at[node] + _children_log_proba(tree, weights, smoothing, x, node)
        log_proba[i] = at[tree.n_inner :]


def path_log_proba(tree, weights, smoothing, indptr, indices, data, classes, log_proba):
    """Log-probability of one class a row.

    indptr, indices, data : the rows, CSR.
    classes : (n_rows,) int32.
    log_proba : (n_rows,) float64, out: the entries of all_log_proba.
    """
    every = np.empty((len(classes), tree.n_classes))
    all_log_proba(tree, weights, smoothing, indptr, indices, data, every)
    log_proba[:] = every[np.arange(len(classes)), classes]


def sample_classes(tree, weights, smoothing, indptr, indices, data, uniforms, classes):
    """Classes drawn from each row's distribution, by inversion of its distribution function.

    At each node, u chooses the child c with ``F[c] <= u < F[c + 1]``, F being the sums of
    the probabilities of the children before c; ``(u - F[c]) / p[c]`` chooses below. A child
    of probability 0 is never chosen, unless all are or are no numbers: then it is the last.

    indptr, indices, data : the rows, CSR.
    uniforms : (n_rows, n_draws) float64, the u at the root, in [0, 1); nothing is drawn for a negative one.
    classes : (n_rows, n_draws) int32, out.
    """
    for i, draw in np.argwhere(uniforms >= 0):
        x, u, node = _row(indptr, indices, data, i), uniforms[i, draw], 0
        while node < tree.n_inner:
            p = np.exp(_children_log_proba(tree, weights, smoothing, x, node))
            F = np.concatenate([[0], np.cumsum(p)])
            c = np.append(len(p) - 1, np.flatnonzero((p > 0) & (F[:-1] <= u)))[-1]
            u = min((u - F[c]) / p[c], 1.0)
            node = _children(tree, node)[c]
        classes[i, draw] = node - tree.n_inner


def _row(indptr, indices, data, i):
    """Row i as a dict from column to value."""
    row = slice(indptr[i], indptr[i + 1])
    return dict(zip(indices[row].tolist(), data[row].tolist(), strict=True))


def _children(tree, node):
    return tree.children[tree.child_ptr[node] : tree.child_ptr[node + 1]]


def _children_log_proba(tree, weights, smoothing, x, node):
    """log P(child | node, x) of each child of an inner node."""
    features, W, b = weights.node(node, len(_children(tree, node)))
    values = np.array([x.get(feature, 0.0) for feature in features.tolist()])
    z = values @ W.astype(np.float64) + b
    z = np.where(b < NO_CHILD / 10, -np.inf, np.clip(z, -LARGEST_LOGIT, LARGEST_LOGIT))
    if not smoothing:
        return log_softmax(z)
    return np.logaddexp(
        np.log1p(-smoothing) + log_softmax(z), np.log(smoothing) + log_softmax(z / TEMPERATURE)
    )
