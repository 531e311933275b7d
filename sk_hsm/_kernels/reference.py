"""What the kernels compute: their specification, in numpy, for the tests.

A function here has the name, the parameters and the results of a kernel. It is written
from the formula, in float64, and may be as slow as it likes. Kernels sum in float32, so
the two agree to rounding; where results are integers, they agree.

Rows are CSR arrays without duplicates: row i has the values ``data[indptr[i]:indptr[i + 1]]``
(float32) at the columns ``indices[indptr[i]:indptr[i + 1]]`` (int32); indptr is int64.
"""

from __future__ import annotations

import heapq

import numpy as np
from scipy import sparse
from scipy.special import log_softmax, xlogy

NO_CHILD = -1e29  # a child with a bias below this does not exist, or has no rows
LARGEST_LOGIT = 1e28
TIE = 1e-6  # cosines closer than this are equal
LEFT, RIGHT = 1, 2  # the sides of a cut


def _dense(indptr, indices, data, n_features):
    rows = sparse.csr_array((data, indices, indptr), shape=(len(indptr) - 1, n_features))
    return rows.toarray().astype(np.float64)


# -- nodes.pyx --------------------------------------------------------------


def gather_rows(indptr, indices, data, rows, local_of, features, out_indptr, out_indices, out_data):
    """Copy some rows of a matrix, with its columns numbered anew in the order they first appear.

    indptr, indices, data : the matrix, CSR.
    rows : (n_rows,) int64, the rows to copy, in this order.
    local_of : (n_features,) int32, scratch: all -1 before and after.
    features : (at least n_local,) int32, out: the old column of each new one.
    out_indptr, out_indices, out_data : (n_rows + 1,), (nnz,), (nnz,), out: the copies, CSR.

    Returns n_local, the number of columns that appear.
    """
    entries = np.concatenate([np.arange(indptr[i], indptr[i + 1]) for i in rows] + [np.arange(0)])
    columns, first, number = np.unique(indices[entries], return_index=True, return_inverse=True)
    appearance = np.argsort(first)
    features[: len(columns)] = columns[appearance]
    out_indptr[:] = np.concatenate([[0], np.cumsum(indptr[rows + 1] - indptr[rows])])
    out_indices[: len(entries)] = np.argsort(appearance)[number]
    out_data[: len(entries)] = data[entries]
    return len(columns)


def ascend_dual(
    indptr, indices, data, square_norms, costs, dual, weights, bias, fit_intercept, tol, max_iter, seed
):
    """Train a node: dual coordinate ascent for ``||W||^2 / 2 + sum of cost * log-loss``.

    A row x has the logits ``z = W x + b``, the probabilities ``p = softmax(z)`` and a dual
    point q, a distribution over the children. With ``D = p - q`` and ``a = cost ||x||^2``,
    a visit to the row moves its q, and the weights with it, by the step of Shalev-Shwartz
    and Zhang (2014)::

        KL = sum of q log(q / p)
        s = min(1, (KL + ||D||_1^2 / 2) / (a ||D||_2^2 + ||D||_1^2))
        q += s D;  W -= cost s D (x) x;  b -= cost s D

    The duality gap is the sum of cost * KL over all rows. While rows move it is only
    estimated, as each is found. A row with ``KL <= 0.1 tol`` is passed over, and left out
    of the following passes until one estimates a gap of at most ``tol * sum(costs)``, or
    finds no row to move. The next pass then measures the gap: it visits all rows and moves
    none. Training ends if the gap is small enough, and goes on with the other rows if not.
    All rows are visited at every fifth pass at the latest. Each pass visits its rows in a
    new random order (see _shuffle).

    indptr, indices, data : the rows, CSR.
    square_norms : (n_rows,) float32, ||x||^2, plus 1 for the intercept's constant feature.
    costs : (n_rows,) float32, positive.
    dual : (n_rows, width) float32, in and out: q. At the start one at the row's own child.
    weights : (n_features, width) float32, in and out: the transpose of W. Where it starts is
        what it is pulled towards: ``||W - start||^2`` if that is not zero.
    bias : (width,) float32, in and out: b, likewise. -1e30 for a child that does not exist.
    fit_intercept : whether b is trained.
    tol, max_iter : float and int, see above; max_iter bounds the passes.
    seed : int, of the order of visits.

    Returns the number of passes, the gap that the last one found, and whether that is a
    measured one within tol.
    """
    x = _dense(indptr, indices, data, len(weights))
    c, norms, q, W, b = (array.astype(np.float64) for array in (costs, square_norms, dual, weights, bias))
    everyone, limit = list(range(len(c))), tol * c.sum()
    visited, n_iter, n_partial, gap, done, measuring = everyone, 0, 0, 0.0, False, False
    while n_iter < max_iter and not done:
        n_iter, gap, kept = n_iter + 1, 0.0, []
        visited, seed = _shuffle(visited, seed)
        for i in visited:
            divergence, D, s = _dual_step(q[i], x[i] @ W + b, c[i] * norms[i])
            gap += c[i] * divergence
            if divergence > 0.1 * tol:
                kept.append(i)
            if divergence > 0.1 * tol and not measuring:
                q[i] += s * D
                W -= c[i] * s * np.outer(x[i], D)
                b -= c[i] * s * D * fit_intercept
        done = measuring and gap <= limit
        measuring = not measuring and (gap <= limit or not kept)
        n_partial = 0 if measuring or n_partial == 4 else n_partial + 1
        visited = everyone if n_partial == 0 else kept
    dual[...], weights[...], bias[...] = q, W, b
    return n_iter, gap, bool(done)


def _shuffle(rows, state):
    """Fisher and Yates' shuffle from the end, with a linear congruential generator."""
    rows = list(rows)
    for k in range(len(rows) - 1, 0, -1):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        other = (state >> 33) % (k + 1)
        rows[k], rows[other] = rows[other], rows[k]
    return rows, state


def _dual_step(q, z, a):
    """KL(q || p), D = p - q and the step size s, for p = softmax(z)."""
    log_p = log_softmax(z)
    divergence = max(0.0, np.sum(xlogy(q, q) - q * log_p))
    D = np.exp(log_p) - q
    norm1, norm2 = np.sum(np.abs(D)) ** 2, np.sum(D**2)
    s = (divergence + norm1 / 2) / (a * norm2 + norm1) if norm1 else 1.0
    return divergence, D, min(1.0, s)


# -- priors.pyx -------------------------------------------------------------


def sum_by_child(indptr, indices, data, row_weights, child, sums):
    """Add each row, times its weight, to the sum of its child.

    indptr, indices, data : the rows, CSR.
    row_weights : (n_rows,) float32.
    child : (n_rows,) int64, the child that each row belongs to.
    sums : (n_features, width) float64, in and out.
    """
    x = _dense(indptr, indices, data, len(sums))
    np.add.at(sums.T, child, row_weights[:, None].astype(np.float64) * x)


def log_odds(sums, shares, present, smoothing, out):
    """Naive Bayes log-odds, ``log((S + a) / (E + a))`` less its mean over the children present.

    S are the sums of a feature by child, and E what they would be if the feature did not
    depend on the child: their total by shares.

    sums : (n_features, width) float64, S.
    shares : (width,) float32, the share of each child in the weight of all rows.
    present : (width,) float32, 1 where a child has rows, else 0.
    smoothing : float, a; positive.
    out : (n_features, width) float32, out; 0 for a child not present.
    """
    odds = np.log((sums + smoothing) / (sums.sum(axis=1, keepdims=True) * shares + smoothing)) * present
    out[...] = odds - odds.sum(axis=1, keepdims=True) / present.sum() * present


def directions(sums, present, out):
    """Each child's sum scaled to length one, less the mean over the children present.

    sums : (n_features, width) float64.
    present : (width,) float32, 1 where a child has rows, else 0.
    out : (n_features, width) float32, out; 0 for a child not present.
    """
    lengths = np.linalg.norm(sums, axis=0)
    unit = sums / np.where(lengths > 0, lengths, 1) * present
    out[...] = unit - unit.sum(axis=1, keepdims=True) / present.sum() * present


# -- paths.pyx --------------------------------------------------------------
#
# tree is a LabelTree, weights its NodeWeights. Class c is the leaf, and the node,
# tree.n_inner + c.


def top_k(tree, weights, indptr, indices, data, min_log_proba, beam_width, classes, log_proba):
    """The k most probable classes of each row, the most probable first, ties in order of class.

    With a beam_width above 0, only that many of the most probable inner nodes of a level
    are opened (ties in order of node), and leaves below the others are not considered.

    indptr, indices, data : the rows, CSR.
    min_log_proba : float, classes of a smaller log-probability are left out.
    beam_width : int, 0 for an exact answer.
    classes : (n_rows, k) int32, out: -1 where there are fewer than k.
    log_proba : (n_rows, k) float64, out: -inf where there are fewer than k.
    """
    k = classes.shape[1]
    classes[:], log_proba[:] = -1, -np.inf
    for i in range(len(classes)):
        x = _row(indptr, indices, data, i)
        leaves = _leaves_in_beam(tree, weights, x, beam_width or tree.n_nodes)
        best = sorted(leaf for leaf in leaves if -leaf[0] >= min_log_proba)[:k]
        for at, (cost, node) in enumerate(best):
            classes[i, at], log_proba[i, at] = node - tree.n_inner, -cost


def _leaves_in_beam(tree, weights, x, beam_width):
    """(-log-probability, node) of each leaf below the inner nodes that a beam opens."""
    root = [(0.0, 0)]
    leaves, frontier = ([], root) if tree.n_inner else (root, [])
    while frontier:
        opened, frontier = sorted(frontier)[:beam_width], []
        for cost, node in opened:
            log_p = _children_log_proba(tree, weights, x, node)
            for child, child_log_p in zip(_children(tree, node), log_p, strict=True):
                (frontier if child < tree.n_inner else leaves).append((cost - child_log_p, child))
    return leaves


def all_log_proba(tree, weights, indptr, indices, data, log_proba):
    """Log-probability of every class: the sum over its path of log P(child | node, x).

    P(. | node, x) is the softmax of the node's logits ``W x + b``, see NodeWeights. Logits
    beyond float32 are cut at 1e28; a child with the bias -1e30 has the probability 0.

    indptr, indices, data : the rows, CSR.
    log_proba : (n_rows, n_classes) float64, out.
    """
    for i in range(len(log_proba)):
        x = _row(indptr, indices, data, i)
        at = np.zeros(tree.n_nodes)
        for node in range(tree.n_inner):
            at[_children(tree, node)] = at[node] + _children_log_proba(tree, weights, x, node)
        log_proba[i] = at[tree.n_inner :]


def path_log_proba(tree, weights, indptr, indices, data, classes, log_proba):
    """Log-probability of one class a row.

    indptr, indices, data : the rows, CSR.
    classes : (n_rows,) int32.
    log_proba : (n_rows,) float64, out: the entries of all_log_proba.
    """
    every = np.empty((len(classes), tree.n_classes))
    all_log_proba(tree, weights, indptr, indices, data, every)
    log_proba[:] = every[np.arange(len(classes)), classes]


def sample_classes(tree, weights, indptr, indices, data, uniforms, classes):
    """Classes drawn from each row's distribution, by inversion of its distribution function.

    At each node, u chooses the child c with ``F[c] <= u < F[c + 1]``, F being the sums of
    the probabilities of the children before c; ``(u - F[c]) / p[c]`` chooses below. A child
    of probability 0 is never chosen.

    indptr, indices, data : the rows, CSR.
    uniforms : (n_rows, n_draws) float64, the u at the root, in [0, 1).
    classes : (n_rows, n_draws) int32, out.
    """
    for i, draw in np.ndindex(classes.shape):
        x, u, node = _row(indptr, indices, data, i), uniforms[i, draw], 0
        while node < tree.n_inner:
            p = np.exp(_children_log_proba(tree, weights, x, node))
            F = np.concatenate([[0], np.cumsum(p)])
            c = np.flatnonzero((p > 0) & (F[:-1] <= u))[-1]
            u = min((u - F[c]) / p[c], 1.0)
            node = _children(tree, node)[c]
        classes[i, draw] = node - tree.n_inner


def _row(indptr, indices, data, i):
    """Row i as a dict from column to value."""
    row = slice(indptr[i], indptr[i + 1])
    return dict(zip(indices[row].tolist(), data[row].tolist(), strict=True))


def _children(tree, node):
    return tree.children[tree.child_ptr[node] : tree.child_ptr[node + 1]]


def _children_log_proba(tree, weights, x, node):
    """log P(child | node, x) of each child of an inner node."""
    features, W, b = weights.node(node, len(_children(tree, node)))
    values = np.array([x.get(feature, 0.0) for feature in features.tolist()])
    z = values @ W.astype(np.float64) + b
    return log_softmax(np.where(b < NO_CHILD, -np.inf, np.clip(z, -LARGEST_LOGIT, LARGEST_LOGIT)))


# -- trees.pyx --------------------------------------------------------------


def huffman_parents(counts, arity, parents):
    """Huffman's tree: merge the `arity` lightest nodes into one until a single node is left.

    Ties are merged in order of node. The first merge takes ``2 + (n - 2) mod (arity - 1)``
    nodes, so that all later ones are full.

    counts : (n,) float64, the weights of the leaves, ascending; nodes 0 .. n - 1.
    arity : int from 2 to n.
    parents : (n_nodes,) int32, out: the parent of each node, -1 for the root, the last one.
    """
    heap = [(count, node) for node, count in enumerate(counts.tolist())]
    take = 2 + (len(heap) - 2) % (arity - 1)
    for new in range(len(counts), len(parents)):
        lightest = [heapq.heappop(heap) for _ in range(take)]
        parents[[node for _, node in lightest]] = new
        heapq.heappush(heap, (sum(count for count, _ in lightest), new))
        take = arity
    parents[-1] = -1


def kmeans_split(
    indptr, indices, data, mass, n_features, order, boundary_depth, lo, hi, arity, depth,
    whole_subtree, seed, max_iter, tol, n_init, n_sample, slack,
):  # fmt: skip
    """Divide the classes order[lo:hi] into `arity` children, by 2-means cuts of like mass.

    A slice that is to become several children is cut in two, and each half again, until
    each part is one child; of so many children a half gets its share of the mass, rounded.
    Classes fewer than the children asked for become a child each.

    A cut is found by _two_means from two classes drawn at random. If there are more than
    n_sample classes, it starts instead from the best of n_init such cuts of n_sample of them,
    evenly spaced: the one with the largest ``||sum of mass * x on the left|| + ||... right||``.
    Its left holds the classes that score above zero, but at least ``share - spread`` of the
    mass and at most ``share + spread``: share is half of the children, rounded up, over all of
    them, and ``spread = slack * min(share, 1 - share)``. Classes keep their order within a half.

    indptr, indices, data : the class centroids x, CSR with a row a class.
    mass : (n_classes,) float32, positive.
    order : (n_classes,) int32, in and out: the classes; those of the slice are rearranged.
    boundary_depth : (n_classes,) int32, out: the depth of the node that begins at each
        place of the order but the slice's first, where one does.
    lo, hi : the slice.
    arity, depth : int; the number of children, and their depth.
    whole_subtree : whether children of several classes are divided on, `arity` children each.
    seed, max_iter, tol, n_init, n_sample, slack : see above and _two_means.
    """
    x = _dense(indptr, indices, data, n_features)
    slices = [(int(lo), int(hi), arity, depth)]
    while slices:
        lo, hi, parts, depth = slices.pop()
        if hi - lo <= parts:
            boundary_depth[lo + 1 : hi] = depth
        elif parts > 1:
            classes = order[lo:hi]
            is_left = _bisect(
                x[classes], mass[classes].astype(np.float64), parts, slack,
                _mix(seed ^ _mix(lo) ^ hi), max_iter, tol, n_init, n_sample,
            )  # fmt: skip
            share = mass[classes[is_left]].sum(dtype=np.float64) / mass[classes].sum(dtype=np.float64)
            order[lo:hi] = np.concatenate([classes[is_left], classes[~is_left]])
            cut = lo + int(np.sum(is_left))
            boundary_depth[cut] = depth
            left_parts = _left_parts(parts, share, cut - lo, hi - cut)
            slices += [(lo, cut, left_parts, depth), (cut, hi, min(parts - left_parts, hi - cut), depth)]
        elif whole_subtree:
            slices.append((lo, hi, arity, depth + 1))


def _left_parts(parts, share, n_left, n_right):
    """Children on the left: their share, at least one on either side, no more than classes."""
    wanted = min(max(int(parts * share + 0.5), 1), parts - 1, n_left)
    return min(max(wanted, parts - n_right), n_left)


def _bisect(x, mass, parts, slack, seed, max_iter, tol, n_init, n_sample):
    """Which rows are on the left."""
    n = len(x)
    share = (parts + 1) // 2 / parts
    spread = slack * min(share, 1 - share)
    limits = np.array([share - spread, share + spread])
    if n <= n_sample:
        return _best_start(x, mass, limits, seed, max_iter, tol, 1)
    sample = np.arange(n_sample) * n // n_sample
    side = np.zeros(n, dtype=int)
    side[sample] = np.where(
        _best_start(x[sample], mass[sample], limits, seed, max_iter, tol, n_init), LEFT, RIGHT
    )
    return _two_means(x, mass, limits, side, max_iter, tol)


def _best_start(x, mass, limits, seed, max_iter, tol, n_init):
    """Which rows are on the left of the best of n_init cuts, each from two rows drawn at random."""
    n = len(x)
    best, best_value = None, 0.0
    for run in range(n_init):
        side = np.zeros(n, dtype=int)
        first = _mix(_mix(seed + run)) % n
        side[first] = LEFT
        side[(first + 1 + _mix(_mix(seed + run) + 1) % (n - 1)) % n] = RIGHT
        is_left = _two_means(x, mass, limits, side, max_iter, tol)
        value = _length(x, mass, is_left) + _length(x, mass, ~is_left)
        if best is None or value > best_value * (1 + TIE):
            best, best_value = is_left, value
    return best


def _two_means(x, mass, limits, side, max_iter, tol):
    """Spherical 2-means from rows that have a side: which rows are on the left.

    A row scores its cosine to the left centroid less its cosine to the right one. Scores
    up to TIE are zero. The rows that score best are on the left, ties in their order: as many
    as have a mass nearest to the one of the rows above zero, bounded by limits (shares of all
    mass), and neither none nor all. A centroid is the sum of its rows times their masses. It
    ends after max_iter rounds, or when a round changes the side of at most ``tol * n_rows`` rows.
    """
    n = len(x)
    low, high = limits * mass.sum()
    for _ in range(max_iter):
        left, right = (mass[side == s] @ x[side == s] for s in (LEFT, RIGHT))
        score = np.sum(x * (_unit(left) - _unit(right)), axis=1)
        score[np.abs(score) <= TIE] = 0
        target = min(max(mass[score > 0].sum(), low), high)
        best = np.lexsort([np.arange(n), -score])
        middles = np.cumsum(mass[best]) - mass[best] / 2
        before, side = side, np.full(n, RIGHT)
        side[best[: min(max(np.count_nonzero(middles < target), 1), n - 1)]] = LEFT
        if np.sum(before != side) <= tol * n:
            break
    return side == LEFT


def _length(x, mass, side):
    return np.linalg.norm(mass[side] @ x[side])


def _unit(v):
    square = v @ v
    return v / np.sqrt(square) if square > 1e-12 else 0 * v


def _mix(x):
    """Splitmix64: 64 random bits that depend on x alone."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)
