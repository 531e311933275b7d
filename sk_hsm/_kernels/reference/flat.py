"""Twin of the kernel of flat.pyx."""

import numpy as np

from .embedding import shorten_step, stable_rate
from .sampling import draw_classes


def train_flat_rows(
    index,
    indptr,
    indices,
    data,
    classes,
    weights,
    order,
    dims,
    embedding,
    layers,
    vectors,
    fit_intercept,
    n_negatives,
    number,
    first_rate,
    last_rate,
):
    """A step of gradient descent for each row in order; returns the sum of weight * loss before it.

    Of row x the vector is ``sum(x[f] * embedding[f])``, or x if there is no embedding; a layer makes of
    a vector v with a 1 behind it ``max(layer @ v, 0)``; the last one, h, has behind it fit_intercept.
    Class c scores ``vectors[c] . h``. With an index, n_negatives classes are drawn, by random numbers
    from `number` on; those that are not the label, drawn m times with probability q, score
    ``log(m / (n_negatives * q))`` more, and the loss is the log-loss of a softmax of them and the label.
    Without one it is that of all classes. Everything moves by ``-rate * gradient``; the rate falls from
    the first to the last in a line, and is multiplied by the row's weight. No step goes too far, see
    stable_rate and shorten_step.
    """
    loss = 0.0
    for i, row in enumerate(order):
        features, x = indices[indptr[row] : indptr[row + 1]], data[indptr[row] : indptr[row + 1]]
        levels = [first_level(features, x, dims[0], embedding)]
        for layer, n_out in zip(layers, dims[1:], strict=True):
            levels.append(
                np.maximum(layer[:, : len(levels[-1]) + 1].astype(np.float64) @ [*levels[-1], 1], 0)
            )
            assert len(levels[-1]) == n_out
        h = np.zeros(vectors.shape[1])
        h[: dims[-1]], h[dims[-1]] = levels[-1], fit_intercept
        label = classes[row]
        drawn, more = np.arange(len(vectors)), np.zeros(len(vectors))
        if index is not None:
            drawn, more = candidates(index, h.astype(np.float32), label, n_negatives, number)
            number += n_negatives
        v = vectors[drawn].astype(np.float64)
        z = v @ h + more
        p = np.exp(z - z.max())
        p /= p.sum()
        loss -= weights[row] * np.log(p[drawn == label][0])
        rate = stable_rate(float(weights[row]) * (first_rate + (last_rate - first_rate) * i / len(order)), h)
        e = rate * (p - (drawn == label))
        vectors[drawn] = v - e[:, None] * h
        back = (e @ v)[: dims[-1]]
        for layer, inputs, outputs in zip(layers[::-1], levels[-2::-1], levels[:0:-1], strict=True):
            back = shorten_step(np.where(outputs > 0, back, 0), rate, np.array([*inputs, 1]))
            before = layer[:, : len(inputs)].astype(np.float64)
            layer[:, : len(inputs) + 1] -= back[:, None] * np.array([*inputs, 1])
            back = back @ before
        if embedding is not None:
            embedding[features, : dims[0]] -= x[:, None] * shorten_step(back, rate, x)
    return loss


def first_level(features, x, dim, embedding):
    """The vector of a row."""
    if embedding is not None:
        return x.astype(np.float64) @ embedding[features, :dim].astype(np.float64)
    level = np.zeros(dim)
    level[features] = x
    return level


def candidates(index, h, label, n_negatives, number):
    """The label and the other classes drawn, and what their scores are raised by."""
    drawn, proba = np.empty((1, n_negatives), dtype=np.int32), np.empty((1, n_negatives))
    draw_classes(index, h[None], number, drawn, proba)
    drawn, first, counts = np.unique(drawn[0], return_index=True, return_counts=True)
    more = np.log(counts / (n_negatives * proba[0][first]))
    others = drawn != label
    return np.array([label, *drawn[others]]), np.array([0, *more[others]])
