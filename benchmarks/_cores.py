"""One JAX device for each core, for benchmarks that shard. Import this file before `_harness` and JAX."""

import os


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={CORES}"
)
os.environ.setdefault("PJRT_NPROC", str(2 * CORES))  # batched LAPACK calls then need a larger pool
