"""Short tasks over threads."""

import threading
import time

import pytest
from joblib import parallel_config

from sk_hsm.threads import over_threads


@pytest.mark.parametrize("n_jobs", [1, 2, -1, None])
@pytest.mark.parametrize("n_tasks", [0, 1, 7])
def test_results_are_in_the_order_of_tasks(n_jobs, n_tasks):
    def run(task):
        time.sleep(0.01 / (1 + task))  # the first is the last to be done
        return task**2

    assert over_threads(run, iter(range(n_tasks)), n_jobs) == [i**2 for i in range(n_tasks)]


@pytest.mark.parametrize("how", ["argument", "context"])
def test_as_many_run_at_the_same_time_as_are_asked_for(how):
    meeting = threading.Barrier(3, timeout=30)  # broken, unless three wait for each other
    with parallel_config(n_jobs=3 if how == "context" else 1):
        over_threads(lambda _: meeting.wait(), range(6), 3 if how == "argument" else None)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_what_a_task_raises_is_raised_and_others_are_not_begun(n_jobs):
    begun = []

    def run(task):
        begun.append(task)
        if task == 0:
            raise MemoryError("no memory")
        time.sleep(0.05)

    with pytest.raises(MemoryError, match="no memory"):
        over_threads(run, range(100), n_jobs)
    assert len(begun) < 100
