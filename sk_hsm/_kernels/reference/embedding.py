"""Twin of the kernel of embedding.pyx."""

import numpy as np

# How far a step may go: a rate beyond 4 / |h|**2 overshoots.
REACH = 4.0


def train_rows(
    tree,
    vector_ptr,
    indptr,
    indices,
    data,
    classes,
    weights,
    order,
    embedding,
    vectors,
    dim,
    fit_intercept,
    first_rate,
    last_rate,
):
    """A step of gradient descent for each row in order; returns the sum of weight * log-loss before it.

    Of row x the vector is ``h = sum(x[f] * embedding[f])``, in column dim 1 if fit_intercept. A node on the
    path of its class has ``p = softmax(vectors @ h)``, or with one vector v for its two children
    ``p = sigmoid(v . h)`` of the second. With errors ``e = p - [child on the path]`` each vector moves by
    ``-rate * e * h`` and each embedding by ``-rate * x[f] * sum(e * v)``, v as it was. The rate falls
    from the first to the last in a line, and is multiplied by the row's weight. No step goes too far, see
    stable_rate and shorten_step.
    """
    loss = 0.0
    for i, row in enumerate(order):
        features, x = indices[indptr[row] : indptr[row + 1]], data[indptr[row] : indptr[row + 1]]
        h = x.astype(np.float64) @ embedding[features].astype(np.float64)
        h[dim] = fit_intercept
        rate = stable_rate(float(weights[row]) * (first_rate + (last_rate - first_rate) * i / len(order)), h)
        back = np.zeros(len(h))
        nodes, taken = tree.path(tree.leaf_labels[classes[row]])
        for node, child in zip(nodes, taken, strict=True):
            v = vectors[vector_ptr[node] : vector_ptr[node + 1]].astype(np.float64)
            z = np.concatenate([[0.0], v @ h]) if len(v) == 1 else v @ h
            p = np.exp(z - z.max())
            p /= p.sum()
            loss -= weights[row] * np.log(p[child])
            e = (p - (np.arange(len(p)) == child))[-len(v) :]
            back += rate * e @ v
            vectors[vector_ptr[node] : vector_ptr[node + 1]] = v - rate * e[:, None] * h
        back[dim] = 0
        embedding[features] -= x[:, None] * shorten_step(back, rate, x)
    return loss


def stable_rate(rate, h):
    """The rate, unless it overshoots: along its weights a softmax has a curvature of up to |h|**2 / 2."""
    return min(rate, REACH / max(h @ h, 1e-300))


def shorten_step(step, rate, x):
    """Of a step, ``rate * gradient``, of what is multiplied by x: what lowers the loss by REACH at most.

    That is, to first order.
    """
    fall = (step @ step) * (x.astype(np.float64) @ x) / rate if rate > 0 else 0.0
    return step * min(1.0, REACH / max(fall, 1e-300))
