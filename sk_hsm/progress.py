"""What `verbose` prints."""

from __future__ import annotations

import threading
from time import perf_counter


class Progress:
    """Prints what a long fit is doing; with verbose=0, nothing.

    Level 1 prints the stages and a line every few seconds, level 2 a line at least
    every second.
    """

    def __init__(self, verbose: int) -> None:
        self.verbose = verbose
        self.begin = perf_counter()
        self._lock = threading.Lock()

    def say(self, message: str) -> None:
        """Print a line with the seconds since the fit began."""
        if self.verbose:
            print(f"[sk_hsm {perf_counter() - self.begin:7.1f} s] {message}", flush=True)

    def start(self, stage: str, total: float) -> None:
        """Begin a stage of so much work."""
        self._stage, self._total, self._done = stage, float(total), 0.0
        self._began = self._last = perf_counter()

    def advance(self, work: float) -> None:
        """Add work done, and now and then say how far the stage is."""
        if not self.verbose:
            return
        with self._lock:
            self._done += work
            now = perf_counter()
            if now - self._last >= (5.0 if self.verbose == 1 else 1.0):
                self._last = now
                left = (now - self._began) * (self._total / self._done - 1)
                self.say(f"{self._stage}: {self._done / self._total:4.0%}, about {left:.0f} s left")
