# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernel that trains a node on some of its rows with each of some penalties, and predicts others.

Its specification is the class of the same name in ``reference``.
"""
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, memset

from .ascent cimport Node
from .nodes cimport NodeTrainer, room_in, see_children, train_from_here, write_guess
from .priors cimport N_PRIORS, Rows, row_data, row_indices, row_size

cdef extern from "lines.h" nogil:
    void any_logits(float* z, const float* bias, const float* weights,
                    const int32_t* indices, const float* values, int64_t n, int width, bint is_full)
    float row_softmax(float* p, const float* z, int width)


cdef void add_up(
    const Rows* rows, Py_ssize_t i, float* z, const float* bias, const float* weights, int width
) noexcept nogil:
    """The logits of a row."""
    any_logits(
        z, bias, weights, row_indices(rows, i), row_data(rows, i), row_size(rows, i), width, rows.n_full > 0
    )


cdef double held_out_loss(Node* node, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """The weighted log-loss of some rows."""
    cdef Rows* rows = &node.rows
    cdef double total = 0
    cdef Py_ssize_t i
    cdef float log_sum
    for i in range(first, last):
        add_up(rows, i, node.z, node.bias, node.weights, node.width)
        log_sum = row_softmax(node.z + node.width, node.z, node.width)
        total += rows.weight[i] * (<double>log_sum - node.z[rows.child[i]])
    return total


cdef void guess_losses(
    Node* node, Py_ssize_t first, Py_ssize_t last, const double* scale, Py_ssize_t n_scales, double* out
) noexcept nogil:
    """held_out_loss of the guess itself, at several scales: its logits are taken once."""
    cdef Rows* rows = &node.rows
    cdef float* zero = node.z + node.width
    cdef float* guessed = node.z + 2 * node.width
    cdef Py_ssize_t i, k
    cdef float log_sum
    cdef int c
    memset(out, 0, n_scales * sizeof(double))
    for i in range(first, last):
        memset(zero, 0, node.width * sizeof(float))
        add_up(rows, i, guessed, zero, node.guess, node.width)
        for k in range(n_scales):
            for c in range(node.width):
                node.z[c] = node.bias[c] + <float>scale[k] * guessed[c]
            log_sum = row_softmax(node.z + node.width, node.z, node.width)
            out[k] += rows.weight[i] * (<double>log_sum - node.z[rows.child[i]])


cdef class TakenNode:
    """Rows of a node, of which the first are to train with, and guesses at its weights by prior."""

    cdef Node node
    cdef Py_ssize_t n_train
    cdef float* guess[N_PRIORS]
    cdef float* guess_bias[N_PRIORS]
    cdef dict buffers


cdef class TrialTrainer(NodeTrainer):
    """Trains nodes for trial, in memory of its own: each thread needs one."""

    def take(
        self,
        int64_t v,
        const int64_t[::1] rows,
        const int64_t[::1] child,
        const float[::1] weights,
        Py_ssize_t n_train,
    ):
        cdef TakenNode taken = TakenNode.__new__(TakenNode)
        # without the scratch of guesses; full rows stay in X, which outlives its problem so
        self.buffers = {"X": (self.indices, self.data)}
        cdef Py_ssize_t n = rows.shape[0]
        self.reserve_rows(n, self.count_entries(&rows[0], n), self.count_old(v))
        with nogil:
            self.take_rows(v, &rows[0], n)
        memcpy(self.node.rows.child, &child[0], n * sizeof(int64_t))
        memcpy(self.node.rows.weight, &weights[0], n * sizeof(float))
        taken.node, taken.n_train, taken.buffers = self.node, n_train, self.buffers
        self.buffers = {}
        return taken

    def make_guess(self, TakenNode taken, int prior):
        cdef Py_ssize_t n = taken.node.n_features * taken.node.width
        if taken.guess[prior] != NULL:
            return
        bias = <float*>room_in(taken.buffers, ("bias", prior), taken.node.width * sizeof(float))
        weights = <float*>room_in(taken.buffers, ("weights", prior), n * sizeof(float))
        self.node = taken.node
        self.reserve_guess(n, taken.node.width)
        with nogil:
            self.node.rows.n = taken.n_train
            write_guess(&self.node, prior, self.smoothing, weights, bias)
        taken.guess[prior], taken.guess_bias[prior] = weights, bias

    def held_out_losses(
        self,
        TakenNode taken,
        const double[::1] C,
        const int32_t[::1] prior,
        const double[::1] scale,
        double[::1] out,
    ):
        cdef Py_ssize_t k, first = 0, width
        for k in range(C.shape[0]):
            self.make_guess(taken, prior[k])
        self.node = taken.node
        width = taken.node.width
        self.reserve_training(taken.node.rows.n, taken.node.rows.n * width, taken.node.n_features * width, width)
        with nogil:
            for k in range(1, C.shape[0] + 1):
                if k == C.shape[0] or prior[k] != prior[first]:
                    self.node.guess = taken.guess[prior[first]]
                    self.node.guess_bias = taken.guess_bias[prior[first]]
                    self.try_scales(taken, &C[first], &scale[first], k - first, &out[first])
                    first = k

    cdef void try_scales(
        self, TakenNode taken, const double* C, const double* scale, Py_ssize_t n, double* out
    ) noexcept nogil:
        """Losses of a guess at several scales: as it is, or trained."""
        cdef Node* node = &self.node
        cdef Py_ssize_t k
        cdef bint done
        node.rows.n = taken.n_train
        if self.goal.max_iter == 0:
            see_children(node, self.arity(node.v), NULL)
            self.add_guess_bias()
            guess_losses(node, taken.n_train, taken.node.rows.n, scale, n, out)
            return
        for k in range(n):
            see_children(node, self.arity(node.v), NULL)
            self.scale_guess(node.guess, scale[k])
            train_from_here(node, C[k], &self.goal, self.seed, &done)
            out[k] = held_out_loss(node, taken.n_train, taken.node.rows.n)
