"""Short tasks over threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from joblib import effective_n_jobs

Task, Result = TypeVar("Task"), TypeVar("Result")


def over_threads(run: Callable[[Task], Result], tasks: Iterable[Task], n_jobs: int | None) -> list[Result]:
    """run(task) for each, in their order, by as many threads as joblib says that n_jobs is.

    joblib asks its own threads every hundredth of a second whether they are done. A fit has dozens of calls,
    and some take less.
    """
    tasks = list(tasks)
    n_threads = min(effective_n_jobs(n_jobs), len(tasks))
    if n_threads < 2:
        return [run(task) for task in tasks]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(run, tasks))
