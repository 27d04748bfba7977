import gc
import importlib.metadata
import os


# Before JAX starts: contended BLAS threads slow tests fifty-fold, and batched LAPACK calls hang on
# several host devices with a small thread pool.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("PJRT_NPROC", "4")
# Small programs: most of the time goes into compiling them. Less of it at a lower level, and half of it with the older
# emitters of loops, an option that later versions of XLA may refuse to know.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false"
    * importlib.metadata.version("jaxlib").startswith("0.10.")
)

import jax
import pytest


jax.config.update("jax_enable_x64", True)
# Programs that are traced make many objects, and collecting them by thousands takes a sixth of the time.
gc.set_threshold(200_000, 20, 100)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Each compiled program holds pages of memory, of which a process may have 65 530: thousands of them end it."""
    yield
    jax.clear_caches()
    gc.collect()
