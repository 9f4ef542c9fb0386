"""A case of attention through the launcher and the emulation, at a level."""

import numpy as np

from backends.fused.cupy import _levels, flash
from backends.kernels.device import using
from tests.fused.attention_oracle import attention
from tests.kernels.cases import MASKS
from tests.kernels.stand_in import StandIn


def at_level(monkeypatch, level):
    """From here on no level above is used."""
    monkeypatch.setenv(_levels.ENVIRONMENT, level)


def run(case, device=None, gradients=True, **options):
    """({name: output}, the device) of a case; lse in float32."""
    q, k, v, g, g_l = case.arrays()
    options |= {"mask": options.get("mask", MASKS[case.mask]), "softcap": case.softcap}
    before = [x.copy() for x in (q, k, v, g)]
    with using(device or StandIn(order=case.order)) as device:
        out, saved = flash.forward(q, k, v, **options)
        grads = flash.vjp((g, g_l), out, saved, (True,) * 3, q, k, v, **options) if gradients else ()
    for x, old in zip((q, k, v, g), before, strict=True):
        assert x.tobytes() == old.tobytes(), "an input was written"
    return dict(zip(("o", "lse", "dq", "dk", "dv"), (out[0], saved[0], *grads), strict=False)), device


def oracle(case, **options):
    """{name: (float64, bound)} of a case."""
    options |= {"mask": case.keep() if options.get("mask") is None else options["mask"], "softcap": case.softcap}
    with np.errstate(invalid="ignore"):
        return attention(*case.arrays(), **options)
