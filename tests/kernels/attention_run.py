"""A case of attention through the launcher and the emulation, at a level, and what is wrong with the result."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from backends.fused.cupy import _levels, flash, varlen
from backends.kernels.device import using
from backends.kernels.emulation import ORDERS, EmulationError
from tests.fused.attention_oracle import attention
from tests.kernels.cases import BF16, MASKS, Case, faults
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


class Segment(Case):
    """A case whose arrays are given."""

    def holding(self, *arrays):
        self.given = arrays
        return self

    def arrays(self):
        return self.given


class Pack(NamedTuple):
    """Packed segments: lengths of queries and keys, head dimension, mask by its name in `cases.MASKS`."""

    q_lengths: tuple
    k_lengths: tuple
    d: int
    mask: str = "full"
    softcap: float | None = None
    order: int = 0

    def judge(self, device=None):
        """{what: fault} of the first segment that is wrong."""
        H, G, d = 2, 1, self.d
        rng = np.random.default_rng(sum(self.q_lengths))
        cu_q, cu_k = (np.concatenate([[0], np.cumsum(x)]).astype(np.int32) for x in (self.q_lengths, self.k_lengths))
        q, g = (rng.standard_normal((H, cu_q[-1], d)).astype(BF16) for _ in range(2))
        k, v = (rng.standard_normal((G, cu_k[-1], d)).astype(BF16) for _ in range(2))
        options = {"cu_q": cu_q, "cu_k": cu_k, "mask": MASKS[self.mask], "softcap": self.softcap}
        with using(device or StandIn(order=self.order)):
            (o, lse), saved = varlen.forward(q, k, v, **options)
            grads = varlen.vjp((g, None), (o, lse), saved, (True,) * 3, q, k, v, **options)
        for b, (T, S) in enumerate(zip(self.q_lengths, self.k_lengths, strict=True)):
            rows, cols = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])

            def dense(x, part):
                return x[None, :, part]

            arrays = *(dense(x, part) for x, part in ((q, rows), (k, cols), (v, cols), (g, rows))), np.zeros((1, H, T))
            case = Segment(BF16, 1, H, G, T, S, d, d, self.mask, self.softcap).holding(*arrays)
            outputs = (("o", o, rows), ("dq", grads[0], rows), ("dk", grads[1], cols), ("dv", grads[2], cols))
            actual = {name: dense(x, part) for name, x, part in outputs} | {"lse": saved[0][None, :, rows]}
            if wrong := faults(case, actual, oracle(case)):
                return {"segment": b, **wrong}
        return {}


@st.composite
def packs(draw):
    """Segments that may be empty, on either side."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 140), st.integers(0, 140)), min_size=1, max_size=3))
    q_lengths, k_lengths = zip(*pairs, strict=True)
    mask = draw(st.sampled_from(["full", "causal", "top left", "window"]))
    cap = draw(st.sampled_from([None, 4.0]))
    return Pack(q_lengths, k_lengths, draw(st.sampled_from([64, 128])), mask, cap, draw(st.sampled_from(ORDERS)))


def judge(case, level, bug=0, gradients=True):
    """{what: fault} of a Case or a Pack at a level, with a seeded bug; empty if nothing is wrong."""
    device = StandIn(order=case.order, bug=bug)
    with pytest.MonkeyPatch.context() as patch:
        at_level(patch, level)
        try:
            if isinstance(case, Pack):
                return case.judge(device)
            return faults(case, run(case, device, gradients)[0], oracle(case))
        except EmulationError as error:
            return {"emulation": str(error)}
