# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels for several trees over the same classes, whose probabilities are averaged.

Their specification is the function of the same name in ``reference``.
"""
from libc.math cimport INFINITY, exp, log, log1p
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from .answers cimport Answers, close_answers, needed, offer, open_answers, write_answers
from .frontiers cimport Frontier, Line, clear, close_frontier, offer_children, open_node, take
from .heaps cimport Candidate
from .rescoring cimport Rescorer, close_rescorer, open_rescorer, settle
from .scores cimport Model, Query, close_model, open_model, start_row

cdef extern from "lines.h" nogil:
    enum: LINE

# the most that rounding can put between a class and the bound of those not yet seen
cdef double ROUNDING = 1e-12


cdef struct Memory:
    # of each node that was opened for the row at hand the first of its lines in the tree's
    # frontier, -1 for other nodes
    Py_ssize_t* at
    int32_t* opened
    Py_ssize_t n_opened


cdef struct Forest:
    int n_trees
    Model* models
    Memory* memories
    Frontier* frontiers
    # of each class, by which row it was seen last, plus one; classes put off; scratch: the path to a class
    Py_ssize_t* seen_by
    int32_t* put_off
    Py_ssize_t n_put_off
    int32_t* path


cdef Line* line_of(Forest* f, int t, int32_t node) noexcept nogil:
    """Of an opened node's child."""
    cdef Model* m = &f.models[t]
    return f.frontiers[t].lines + f.memories[t].at[m.parents[node]] + m.positions[node] // LINE


cdef int remember(Forest* f, int t, Query* x, int32_t node, double log_p) noexcept nogil:
    """Open a node of tree t, if it is not open; -1 where memory runs out."""
    cdef Memory* memory = &f.memories[t]
    if memory.at[node] >= 0:
        return 0
    memory.at[node] = open_node(
        &f.frontiers[t], &f.models[t], x, node, log_p, line_of(f, t, node).above if node > 0 else 0
    )
    if memory.at[node] < 0:
        return -1
    memory.opened[memory.n_opened] = node
    memory.n_opened += 1
    return 0


cdef int follow(Forest* f, int t, Query* x, int32_t node, double log_p) noexcept nogil:
    """Open a node of tree t, and let its children be taken; -1 where memory runs out."""
    if remember(f, t, x, node, log_p) < 0:
        return -1
    return offer_children(&f.frontiers[t], &f.models[t], node, f.memories[t].at[node], -INFINITY)


cdef int start(Forest* f, Query* x) noexcept nogil:
    """Forget the row before, and make ready for the next; -1 where memory runs out."""
    cdef int t
    cdef Py_ssize_t i
    for t in range(f.n_trees):
        for i in range(f.memories[t].n_opened):
            f.memories[t].at[f.memories[t].opened[i]] = -1
        f.memories[t].n_opened = 0
        clear(&f.frontiers[t])
        if start_row(&f.models[t], x) < 0 or follow(f, t, x, 0, 0) < 0:
            return -1
    return 0


cdef int class_log_proba(Forest* f, int t, Query* x, int32_t label, double* log_p) noexcept nogil:
    """A class's log-probability in tree t, added up from the root down; -1 where memory runs out."""
    cdef Model* m = &f.models[t]
    cdef int32_t node = m.n_inner + label
    cdef Py_ssize_t depth = 0
    while node > 0:
        f.path[depth] = node
        depth += 1
        node = m.parents[node]
    log_p[0] = 0
    while depth > 0:
        depth -= 1
        node = f.path[depth]
        if remember(f, t, x, m.parents[node], log_p[0]) < 0:
            return -1
        log_p[0] = line_of(f, t, node).log_p[m.positions[node] % LINE]
    return 0


cdef double log_add(double a, double b) noexcept nogil:
    """log(exp(a) + exp(b))."""
    cdef double top = max(a, b)
    return top + log1p(exp(min(a, b) - top)) if top > -INFINITY else top


cdef double most_of_class(Forest* f, int32_t label) noexcept nogil:
    """What a class can average to: in each tree it has no more than the last node on its path that is known."""
    cdef double total = 0
    cdef int32_t node
    cdef int t
    for t in range(f.n_trees):
        node = f.models[t].n_inner + label
        while node > 0 and f.memories[t].at[f.models[t].parents[node]] < 0:
            node = f.models[t].parents[node]
        total += exp(line_of(f, t, node).log_p[f.models[t].positions[node] % LINE]) if node > 0 else 1
    return total / f.n_trees


cdef int offer_class(Forest* f, Query* x, int32_t label, Answers* answers) noexcept nogil:
    """Average a class over the trees, and keep it if it is among the best.

    One that can not be is dropped before the nodes of its path are opened, or put off while classes are collected.
    """
    cdef double total = -INFINITY, log_p = 0
    cdef int t
    cdef Candidate item
    for t in range(f.n_trees):
        if most_of_class(f, label) * (1 + ROUNDING) < exp(needed(answers)):
            if answers.is_collecting:
                f.put_off[f.n_put_off] = label
                f.n_put_off += 1
            return 0
        if class_log_proba(f, t, x, label, &log_p) < 0:
            return -1
        total = log_add(total, log_p)
    item = Candidate(total - log(f.n_trees), label, 0)
    return offer(answers, item)


cdef int likeliest(Forest* f, double* bound) noexcept nogil:
    """The tree with the most probable open end, -1 for none; bound is what an unseen class can average to."""
    cdef double p, most = -1
    cdef int t, best = -1
    bound[0] = 0
    for t in range(f.n_trees):
        if f.frontiers[t].heap.size > 0:
            p = exp(f.frontiers[t].heap.items[0].log_p)
            bound[0] += p / f.n_trees
            if p > most:
                most, best = p, t
    return best


cdef int search(Forest* f, Query* x, Py_ssize_t row, Answers* answers) noexcept nogil:
    """Follow the tree with the most probable open end until no class that is unseen can change the answers."""
    cdef Candidate node
    cdef int32_t label
    cdef double bound = 0
    cdef int t
    while True:
        t = likeliest(f, &bound)
        if t < 0 or bound * (1 + ROUNDING) < exp(needed(answers)):
            return 0
        node = take(&f.frontiers[t])
        label = node.node - f.models[t].n_inner
        if label < 0:
            if follow(f, t, x, node.node, node.log_p) < 0:
                return -1
        elif f.seen_by[label] != row + 1:
            f.seen_by[label] = row + 1
            if offer_class(f, x, label, answers) < 0:
                return -1


cdef int answer(Forest* f, Query* x, Py_ssize_t row, Answers* answers, Rescorer* rescorer) noexcept nogil:
    """Collect what is to be scored again, if it is, and then go on until the answers are certain."""
    cdef bint is_leaf = f.models[0].n_inner == 0  # the root, of one class
    if (offer_class(f, x, 0, answers) if is_leaf else start(f, x)) < 0:
        return -1
    if answers.is_collecting:
        if search(f, x, row, answers) < 0 or settle(rescorer, x, answers) < 0:
            return -1
        while f.n_put_off > 0:
            f.n_put_off -= 1
            if offer_class(f, x, f.put_off[f.n_put_off], answers) < 0:
                return -1
    return search(f, x, row, answers)


cdef int open_forest(Forest* f, models) except -1:
    cdef int t
    cdef Py_ssize_t i
    f.n_trees = len(models)
    f.models = <Model*>calloc(f.n_trees, sizeof(Model))
    f.memories = <Memory*>calloc(f.n_trees, sizeof(Memory))
    f.frontiers = <Frontier*>calloc(f.n_trees, sizeof(Frontier))
    f.path = <int32_t*>malloc((max(tree.max_depth for tree, *_ in models) + 1) * sizeof(int32_t))
    f.seen_by = <Py_ssize_t*>calloc(models[0][0].n_classes, sizeof(Py_ssize_t))
    f.put_off = <int32_t*>malloc(models[0][0].n_classes * sizeof(int32_t))
    if (
        f.models == NULL or f.memories == NULL or f.frontiers == NULL or f.path == NULL or f.seen_by == NULL
        or f.put_off == NULL
    ):
        raise MemoryError(f"no memory to search {f.n_trees} trees")
    for t, (tree, weights, smoothing) in enumerate(models):
        open_model(&f.models[t], tree, weights, smoothing)
        f.memories[t].at = <Py_ssize_t*>malloc((f.models[t].n_inner + 1) * sizeof(Py_ssize_t))
        f.memories[t].opened = <int32_t*>malloc((f.models[t].n_inner + 1) * sizeof(int32_t))
        if f.memories[t].at == NULL or f.memories[t].opened == NULL:
            raise MemoryError(f"no memory to search a tree of {f.models[t].n_inner} inner nodes")
        for i in range(f.models[t].n_inner):
            f.memories[t].at[i] = -1
    return 0


cdef void close_forest(Forest* f) noexcept nogil:
    cdef int t
    for t in range(f.n_trees):
        if f.models != NULL:
            close_model(&f.models[t])
        if f.memories != NULL:
            free(f.memories[t].at)
            free(f.memories[t].opened)
        if f.frontiers != NULL:
            close_frontier(&f.frontiers[t])
    free(f.models)
    free(f.memories)
    free(f.frontiers)
    free(f.seen_by)
    free(f.put_off)
    free(f.path)


def average_top_k(
    models,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    double min_log_proba,
    rescoring,
    int32_t[:, ::1] classes,
    double[:, ::1] log_proba,
):
    cdef Forest f
    cdef Query x
    cdef Answers answers
    cdef Rescorer rescorer
    cdef Py_ssize_t i
    cdef bint is_rescored = rescoring is not None
    cdef int status = 0
    memset(&f, 0, sizeof(Forest))
    memset(&answers, 0, sizeof(Answers))
    memset(&rescorer, 0, sizeof(Rescorer))
    open_answers(&answers, classes.shape[1], min_log_proba)
    try:
        open_forest(&f, models)
        if is_rescored:
            answers.most, answers.least = rescoring.most, rescoring.least
            open_rescorer(&rescorer, rescoring, indptr)
        with nogil:
            for i in range(classes.shape[0]):
                x = Query(&indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
                answers.is_collecting = is_rescored
                status = answer(&f, &x, i, &answers, &rescorer)
                if status < 0:
                    break
                write_answers(&answers, &classes[i, 0], &log_proba[i, 0])
        if status < 0:
            raise MemoryError(f"no memory to search for the {answers.k} best classes of a row")
    finally:
        close_forest(&f)
        close_answers(&answers)
        close_rescorer(&rescorer)


def add_log_proba(const double[:, ::1] log_proba, double[:, ::1] total):
    cdef Py_ssize_t i, c
    with nogil:
        for i in range(total.shape[0]):
            for c in range(total.shape[1]):
                total[i, c] = log_add(total[i, c], log_proba[i, c])
