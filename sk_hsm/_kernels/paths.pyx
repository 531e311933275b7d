# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels that follow paths down a fitted tree: one call, a block of rows.

Their specification is the function of the same name in ``reference``.
Inner nodes are numbered before leaves, so node - n_inner is a leaf's class.
All of them score a node by ``children_log_proba``, so that a probability has
the same bits whichever method asks for it.
"""
from libc.math cimport exp
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from .answers cimport Answers, bar, close_answers, needed, offer, open_answers, write_answers
from .frontiers cimport Frontier, clear, close_frontier, offer_children, open_node, take
from .heaps cimport Candidate
from .rescoring cimport Rescorer, close_rescorer, open_rescorer, settle
from .scores cimport Model, Query, children_log_proba, close_model, open_model, start_row


cdef struct Search:
    # what can be opened; the next level's (beam only)
    Frontier frontier
    Frontier next_level
    Answers answers


cdef int follow(Model* m, Query* x, Frontier* frontier, Candidate node, int above, double least) noexcept nogil:
    """Open a node, and let its children be taken that can be among the answers."""
    cdef Py_ssize_t first = open_node(frontier, m, x, node.node, node.log_p, above)
    return -1 if first < 0 else offer_children(frontier, m, node.node, first, least)


cdef int start(Model* m, Query* x, Search* search) noexcept nogil:
    """Begin at the root, which in a tree of one class is a leaf."""
    cdef Candidate root = Candidate(0, 0, 0)
    clear(&search.frontier)
    if start_row(m, x) < 0:
        return -1
    if m.n_inner == 0:
        return offer(&search.answers, root)
    return follow(m, x, &search.frontier, root, 0, bar(&search.answers))


cdef int search_frontier(Model* m, Query* x, Search* search, Frontier* below, Py_ssize_t most) noexcept nogil:
    """Take nodes until none can lead to an answer, and open so many of them: what is below goes to a frontier."""
    cdef Frontier* frontier = &search.frontier
    cdef Answers* answers = &search.answers
    cdef Candidate node
    while frontier.heap.size > 0 and frontier.heap.items[0].log_p >= needed(answers):
        node = take(frontier)
        if node.node >= m.n_inner:
            node.node -= m.n_inner
            if offer(answers, node) < 0:
                return -1
        elif most > 0:
            most -= 1
            if follow(m, x, below, node, frontier.lines[node.origin].above, bar(answers)) < 0:
                return -1
    return 0


cdef int search_beam(Model* m, Query* x, Search* search, Py_ssize_t beam_width) noexcept nogil:
    """Level by level, open the beam_width most probable nodes only."""
    cdef Frontier swap
    while search.frontier.heap.size > 0:
        clear(&search.next_level)
        if search_frontier(m, x, search, &search.next_level, beam_width) < 0:
            return -1
        swap = search.frontier
        search.frontier = search.next_level
        search.next_level = swap
    return 0


cdef int search_best_first(Model* m, Query* x, Search* search, Rescorer* rescorer) noexcept nogil:
    """Collect what is to be scored again, if it is, and then go on until the answers are certain."""
    if search.answers.is_collecting:
        if search_frontier(m, x, search, &search.frontier, m.n_inner) < 0 or settle(rescorer, x, &search.answers) < 0:
            return -1
    return search_frontier(m, x, search, &search.frontier, m.n_inner)


def top_k(
    tree,
    weights,
    double smoothing,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    double min_log_proba,
    Py_ssize_t beam_width,
    rescoring,
    int32_t[:, ::1] classes,
    double[:, ::1] log_proba,
):
    cdef Model m
    cdef Query x
    cdef Search search
    cdef Rescorer rescorer
    cdef Py_ssize_t i
    cdef bint is_rescored = rescoring is not None and beam_width == 0
    cdef int status = 0
    memset(&m, 0, sizeof(Model))
    memset(&search, 0, sizeof(Search))
    memset(&rescorer, 0, sizeof(Rescorer))
    open_answers(&search.answers, classes.shape[1], min_log_proba)
    try:
        open_model(&m, tree, weights, smoothing)
        if is_rescored:
            search.answers.most, search.answers.least = rescoring.most, rescoring.least
            open_rescorer(&rescorer, rescoring, indptr)
        with nogil:
            for i in range(classes.shape[0]):
                x = Query(&indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
                search.answers.is_collecting = is_rescored
                status = start(&m, &x, &search)
                if status == 0 and beam_width > 0:
                    status = search_beam(&m, &x, &search, beam_width)
                elif status == 0:
                    status = search_best_first(&m, &x, &search, &rescorer)
                if status < 0:
                    break
                write_answers(&search.answers, &classes[i, 0], &log_proba[i, 0])
        if status < 0:
            raise MemoryError(f"no memory to search for the {search.answers.k} best classes of a row")
    finally:
        close_frontier(&search.frontier)
        close_frontier(&search.next_level)
        close_answers(&search.answers)
        close_rescorer(&rescorer)
        close_model(&m)


def all_log_proba(
    tree,
    weights,
    double smoothing,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    double[:, ::1] log_proba,
):
    cdef Model m
    cdef Query x
    cdef Py_ssize_t i
    cdef Candidate node, child
    cdef Candidate* stack
    cdef Py_ssize_t size
    cdef int32_t c
    cdef int status = 0
    open_model(&m, tree, weights, smoothing)
    stack = <Candidate*>malloc((m.n_inner + 1) * sizeof(Candidate))
    with nogil:
        for i in range(log_proba.shape[0]):
            x = Query(&indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
            if stack == NULL or start_row(&m, &x) < 0:
                status = -1
                break
            stack[0], size = Candidate(0, 0, 0), min(m.n_inner, 1)
            while size > 0:
                size -= 1
                node = stack[size]
                m.found.n = node.origin + 1  # other lists are of nodes that are done
                child.origin = children_log_proba(&m, &x, node.node, node.origin)
                if child.origin < 0:
                    status = -1
                    break
                for c in range(m.child_ptr[node.node + 1] - m.child_ptr[node.node]):
                    child.node = m.children[m.child_ptr[node.node] + c]
                    child.log_p = node.log_p + m.log_p[c]
                    if child.node >= m.n_inner:
                        log_proba[i, child.node - m.n_inner] = child.log_p
                    else:
                        stack[size] = child
                        size += 1
            if status < 0:
                break
        free(stack)
        close_model(&m)
    if status < 0:
        raise MemoryError(f"no memory for the log-probabilities of {m.n_inner} nodes")


def path_log_proba(
    tree,
    weights,
    double smoothing,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const int32_t[::1] classes,
    double[::1] log_proba,
):
    cdef Model m
    cdef Query x
    cdef Py_ssize_t i, depth
    cdef int32_t node
    cdef int32_t* path
    cdef int above = 0
    cdef Py_ssize_t max_depth = tree.max_depth
    open_model(&m, tree, weights, smoothing)
    path = <int32_t*>malloc((max_depth + 1) * sizeof(int32_t))
    with nogil:
        for i in range(classes.shape[0]):
            x = Query(&indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
            above = -1 if path == NULL else start_row(&m, &x)
            if above < 0:
                break
            node = m.n_inner + classes[i]
            depth = 0
            while node > 0:
                path[depth] = node
                depth += 1
                node = m.parents[node]
            log_proba[i] = 0
            while depth > 0:
                # from the root down, as every other method adds them up
                depth -= 1
                node = path[depth]
                above = children_log_proba(&m, &x, m.parents[node], above)
                if above < 0:
                    break
                log_proba[i] += m.log_p[m.positions[node]]
            if above < 0:
                break
        free(path)
        close_model(&m)
    if above < 0:
        raise MemoryError(f"no memory for a path of {max_depth} nodes")


def sample_classes(
    tree,
    weights,
    double smoothing,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const double[:, ::1] uniforms,
    int32_t[:, ::1] classes,
):
    cdef Model m
    cdef Query x
    cdef Py_ssize_t i, s
    cdef int32_t node, c, chosen
    cdef double u, p
    cdef int above = 0
    open_model(&m, tree, weights, smoothing)
    with nogil:
        for i in range(classes.shape[0]):
            x = Query(&indices[0] + indptr[i], &data[0] + indptr[i], indptr[i + 1] - indptr[i])
            above = start_row(&m, &x)
            for s in range(classes.shape[1]):
                u = uniforms[i, s]
                if u < 0 or above < 0:
                    continue
                node, above, m.found.n = 0, 0, 1
                while above >= 0 and node < m.n_inner:
                    above = children_log_proba(&m, &x, node, above)
                    # the last, where probabilities are no numbers
                    chosen = m.child_ptr[node + 1] - m.child_ptr[node] - 1
                    for c in range(m.child_ptr[node + 1] - m.child_ptr[node]):
                        p = exp(m.log_p[c])
                        if p == 0:
                            continue
                        chosen = c
                        if u < p:
                            break
                        u -= p
                    # what is left of u, stretched, is uniform again
                    u = min(u / exp(m.log_p[chosen]), 1.0)
                    node = m.children[m.child_ptr[node] + chosen]
                if above < 0:
                    break
                classes[i, s] = node - m.n_inner
            if above < 0:
                break
        close_model(&m)
    if above < 0:
        raise MemoryError("no memory for the features of a row, at the nodes of a path")
