"""Settings for all tests."""

import os

from hypothesis import settings

# read before scikit-learn is imported: without it, its array API check is skipped
os.environ["SCIPY_ARRAY_API"] = "1"

# machines differ in speed, and no test is about time
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
