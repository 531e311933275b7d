"""Twin of the kernel of pairs.pyx."""

import numpy as np


def window_pairs(words, sentences, windows, contexts, centres):
    """Each word with the others of its sentence that are at most its window away; returns how many pairs.

    Centre by centre, and for each the contexts in their order.

    words, sentences, windows : (n,), of one place after the other; sentences are numbered in order.
    contexts, centres : int32, out, of room for two windows of each word.
    """
    place = np.arange(len(words))
    distance = np.abs(place[:, None] - place)
    near = (distance > 0) & (distance <= windows[:, None]) & (sentences[:, None] == sentences)
    centre, context = np.nonzero(near)
    contexts[: len(context)], centres[: len(centre)] = words[context], words[centre]
    return len(centre)
