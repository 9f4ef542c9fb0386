"""Tests marked `gpu` run where CuPy finds a device, and are left out elsewhere."""

import functools

import pytest


@functools.cache
def has_gpu():
    """Whether CuPy is here and finds a CUDA device."""
    try:
        import cupy
    except ImportError:
        return False
    return cupy.is_available()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if has_gpu():
        return
    out = [item for item in items if item.get_closest_marker("gpu")]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]
