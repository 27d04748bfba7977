"""Settings of JAX and fixtures that all tests share."""

import gc
import importlib.metadata
import os


# Set these before JAX starts: contended BLAS threads slow the tests fifty-fold, and batched LAPACK calls hang on
# several host devices if the thread pool is small.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("PJRT_NPROC", "4")
# The programs are small, so most of the time goes into compilation. A lower optimization level shortens it, and the
# older loop emitters halve it; later versions of XLA may not know that option.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false"
    * importlib.metadata.version("jaxlib").startswith("0.10.")
)

import jax
import pytest


jax.config.update("jax_enable_x64", True)
# Tracing makes many objects; with Python's default thresholds their collection takes a sixth of the time.
gc.set_threshold(200_000, 20, 100)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Drop compiled programs after each file: they hold memory maps, and a process may have 65 530 of them."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def pretend_gpu(monkeypatch):
    """Return a function after whose call lejax traces what it does on a GPU, until the test ends."""

    def choose(*operands, default, cuda=None, **_):
        return (cuda or default)(*operands)

    return lambda: monkeypatch.setattr(jax.lax, "platform_dependent", choose)
