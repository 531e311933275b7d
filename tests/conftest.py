"""Settings for all tests."""

import os

from hypothesis import settings

# read before scikit-learn is imported: without it, its array API check is skipped
os.environ["SCIPY_ARRAY_API"] = "1"
# and these before numpy: as there is a process a core already, threads would mostly wait for each other
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# machines differ in speed, and no test is about time
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
