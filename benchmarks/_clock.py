"""When a benchmark started to import what it needs."""

import time


START = time.perf_counter()
