"""Read before scikit-learn is imported: without this it skips its array API check."""

import os

os.environ["SCIPY_ARRAY_API"] = "1"
