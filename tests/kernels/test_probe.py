"""The probe says nothing on a right device, and says what is wrong on a wrong one."""

import warnings

import numpy as np
import pytest

from backends.fused.cupy import flash
from backends.kernels import device as devices
from backends.kernels.device import using
from backends.kernels.probe import probe_wgmma
from tests.kernels.cases import F16
from tests.kernels.stand_in import StandIn


@pytest.mark.parametrize("order", [0, 3, 16])
def test_a_right_device(order):
    assert probe_wgmma(StandIn(order=order)) == ""


def test_a_map_that_ignores_its_extent_is_noticed():
    class Wrong(StandIn):
        def tensor_map(self, array, rows, columns, extent=None):
            return super().tensor_map(array, rows, columns)

    assert probe_wgmma(Wrong()).startswith("the product by rows is wrong in ")
    assert "by columns" in probe_wgmma(Wrong())


def test_a_device_that_fails_is_not_given_level_two(monkeypatch):
    class Doubtful(StandIn):
        wgmma_works = False

    q = np.ones((1, 1, 20, 64), F16)
    with using(Doubtful()) as device:
        flash.forward(q, q, q)
    assert device.kernels() == ["attention_mma"]


@pytest.mark.parametrize("wrong", ["", "the product by rows is wrong in 5 of 8192 elements"])
def test_a_cuda_device_asks_once_and_warns(monkeypatch, wrong):
    asked = []
    monkeypatch.setattr("backends.kernels.probe.probe_wgmma", lambda device: asked.append(device) or wrong)
    device = object.__new__(devices.CudaDevice)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert device.wgmma_works == (not wrong)
        assert device.wgmma_works == (not wrong)
    assert len(asked) == 1
    words = [f"level 2 of attention is not used on this device: {wrong}"] if wrong else []
    assert [str(w.message) for w in said] == words
