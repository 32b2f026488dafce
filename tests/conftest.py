"""What all tests share: eight CPU devices, a compilation cache, the --long flag."""

import os
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tests compile much and run little: optimising the machine code takes longer than it saves.
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ.setdefault("XLA_FLAGS", FAST_COMPILE)

# Files that take longest come first, so that no worker is left alone with one.
SLOW = (
    *("test_pretrain.py", "test_finetune.py", "test_hosts.py", "test_finetune_decoders.py"),
    *("test_generate.py", "test_step.py", "test_parity.py", "test_families.py", "test_prepare.py"),
    *("test_compiled.py", "test_privacy.py", "test_prompt.py", "test_steps.py", "test_plan.py"),
)

import hypothesis  # noqa: E402
import pytest  # noqa: E402

hypothesis.settings.register_profile("medjax", deadline=None)  # no test is one of speed
hypothesis.settings.load_profile("medjax")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run the tests that take long")


def pytest_collection_modifyitems(config, items):
    order = {name: i for i, name in enumerate(SLOW)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    if not config.getoption("--long"):
        config.hook.pytest_deselected(items=[item for item in items if "long" in item.keywords])
        items[:] = [item for item in items if "long" not in item.keywords]


@pytest.fixture
def two_devices(monkeypatch):
    """Meshes are of two of the eight devices, in processes that are started too: steps of so few
    rows take less time on them."""
    import jax

    found = jax.devices()[:2]
    monkeypatch.setattr(jax, "devices", lambda: found)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")


@pytest.fixture
def key():
    import jax

    return jax.random.key(0)
