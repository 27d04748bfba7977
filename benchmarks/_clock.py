"""Time at which a benchmark starts its imports."""

import time


START = time.perf_counter()
