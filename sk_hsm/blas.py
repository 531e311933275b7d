"""How many threads multiply matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from sklearn.utils.parallel import _get_threadpool_controller

# The number of threads belongs to the process: of two that limit it, the last would restore a limit.
_limiting = Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """For matrices of some hundred columns, where more gain little, and lose much if processors are busy."""
    with _limiting, _get_threadpool_controller().limit(limits=1, user_api="blas"):
        yield
