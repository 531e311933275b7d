"""Trials of penalties at nodes."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from .nodes import NodeTrainer


class TrialTrainer(NodeTrainer):
    """Trains nodes of a problem on some of their rows with each of some penalties, and predicts others."""

    def take(self, v, rows, child, weights, n_train):
        """Rows of node v to train on and to predict, as held_out_losses takes them.

        rows : int64: the n_train rows to train on, then those to predict.
        child : int64, likewise: the child of node v that each is a row of.
        weights : float32, likewise: those of the rows here.
        """
        return v, rows, weights, n_train

    def make_guess(self, taken, prior):
        """Make, once, what a prior guesses of rows that have been taken; held_out_losses does, too."""

    def held_out_losses(self, taken, C, prior, scale, out):
        """Train a node on some rows with each of some penalties, and predict other rows.

        taken : what `take` returned.
        C, prior, scale : (n_penalties,) float64, int32 and float64.
        out : (n_penalties,) float64, out: the weighted sum of the log-loss of the rows to predict.
        """
        v, rows, weights, n_train = taken
        features = self._features(v, rows)
        train, held = rows[:n_train], rows[n_train:]
        child = self.problem.children_of(v, held)
        for k in range(len(C)):
            W, b, _, _ = self._trained(v, train, features, (C[k], prior[k], scale[k]), weights[:n_train])
            log_p = log_softmax(self._rows(held)[:, features] @ W + b, axis=1)
            out[k] = -weights[n_train:] @ log_p[np.arange(len(held)), child]
