"""Cases of attention for the kernels: shapes that are ragged, masks, junk where nobody looks."""

from typing import NamedTuple

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from backends.kernels.emulation import ORDERS
from ref.attention.rules import causal, window

BF16, F16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16), np.dtype(np.float32)
MASKS = {
    "full": None,
    "causal": causal(),
    "top left": causal("top_left"),
    "window": window(9, 3),
    "both": causal("top_left") & window(20, 8),
}
# Laws that count the tiles of NumPy's and of the composite's own loops: no kernel has these.
NOT_OF_KERNELS = {("attention.flash", label) for label in ("L16", "L17", "L18")}


class Case(NamedTuple):
    """One call: what makes it, so that a case prints as what it is."""

    dtype: str
    B: int
    H: int
    G: int
    T: int
    S: int
    d: int
    e: int
    mask: str = "full"
    softcap: float | None = None
    order: int = 0
    seed: int = 0
    junk: bool = True

    def arrays(self):
        """(q, k, v, g, g_lse), NaN wherever no pair looks if `junk`."""
        rng = np.random.default_rng(self.seed)
        shapes = ((self.H, self.T, self.d), (self.G, self.S, self.d), (self.G, self.S, self.e),
                  (self.H, self.T, self.e), (self.H, self.T))  # fmt: skip
        q, k, v, g, g_l = (rng.standard_normal((self.B, *s)).astype(self.dtype) for s in shapes)
        keep = self.keep()
        if self.junk and keep is not None:
            q[:, :, ~keep.any(1)] = g[:, :, ~keep.any(1)] = np.nan
            k[:, :, ~keep.any(0)] = v[:, :, ~keep.any(0)] = np.nan
        return q, k, v, g, g_l

    def keep(self):
        """The mask as an array, or None."""
        rule = MASKS[self.mask]
        return None if rule is None else rule.tile(np, np.arange(self.T), np.arange(self.S), self.T, self.S)


@st.composite
def cases(draw, dtypes, dims, longest=200, masks=tuple(MASKS), caps=(None, None, 3.0), free_e=False, orders=ORDERS):
    """A case; sizes near a tile's edge are as likely as others."""
    edges = [n for n in (1, 63, 64, 65, 127, 128, 129) if n <= longest]
    size = st.one_of(st.integers(1, longest), st.sampled_from(edges))
    G = draw(st.integers(1, 2))
    d = draw(dims)
    return Case(
        draw(st.sampled_from(dtypes)), draw(st.integers(1, 2)), G * draw(st.integers(1, 2)), G, draw(size), draw(size),
        d, draw(dims) if free_e else d, draw(st.sampled_from(masks)), draw(st.sampled_from(caps)),
        draw(st.sampled_from(orders)), draw(st.integers(0, 2**16)),
    )  # fmt: skip


def naive(case, mask):
    """{name: array} of the plain form at the case's own precision: every intermediate array rounded to it."""
    q, k, v, g, g_l = (x.astype(np.float32) for x in case.arrays())
    R = case.H // case.G
    keep = np.ones((case.T, case.S), bool) if mask is None else mask
    q, g = (np.where(keep.any(1)[:, None], x, 0) for x in (q, g))
    k, v = (np.repeat(np.where(keep.any(0)[:, None], x, 0), R, 1) for x in (k, v))

    def r(x):
        return x.astype(case.dtype).astype(np.float32)

    s = r(q @ k.mT * np.float32(case.d**-0.5))
    t = np.tanh(s / case.softcap) if case.softcap else np.zeros_like(s)
    s = r(case.softcap * t) if case.softcap else s
    s = np.where(keep, s, -np.inf)
    m = s.max(-1, keepdims=True, initial=-1e30)
    p = np.exp(s - m)
    total = p.sum(-1, keepdims=True)
    p = r(p / np.maximum(total, 1e-30))
    o = r(p @ v)
    dp = r(g @ v.mT)
    ds = r(p * (dp - (g * o).sum(-1, keepdims=True) + g_l[..., None]) * (1 - t * t))

    def by_group(x):
        return r(x.reshape(case.B, case.G, R, *x.shape[-2:]).sum(2))

    scale = np.float32(case.d**-0.5)
    return {"o": o, "dq": r(ds @ k * scale), "dk": by_group(ds.mT @ q * scale), "dv": by_group(p.mT @ g)}


def faults(case, actual, oracle):
    """What is wrong with a half-precision result, by the rule of the project:

    max |x - ref| <= 2 max |naive - ref| + rounding of the output;  |x - ref| <= 4 |naive - ref| in norm,
    the naive form at the same precision. lse is float32: its bound is the oracle's, in units of 2^-24, plus
    the tanh by exponentials.
    """
    plain, wrong, u = naive(case, case.keep()), {}, 2.0**-11 if case.dtype == F16 else 2.0**-8
    for name, x in actual.items():
        wanted, bound = oracle[name]
        x = x.astype(np.float64)
        if name == "lse":
            low = np.isneginf(wanted)
            error = np.where(low, np.where(np.isneginf(x), 0, np.inf), abs(x - np.where(low, 0, wanted)))
            if not (error <= 2.0**-24 * np.where(low, 1, bound) + (case.softcap or 0) * 2.0**-21).all():
                wrong[name] = float(error.max())
            continue
        error, allowed = abs(x - wanted), abs(plain[name] - wanted)
        peak = 2 * allowed.max(initial=0) + u * abs(wanted).max(initial=0)
        norm = 4 * np.linalg.norm(allowed) + u * np.linalg.norm(wanted)
        if not (error <= peak).all() or not np.linalg.norm(error) <= norm:
            wrong[name] = f"max {error.max():.2e} of {peak:.2e}, norm {np.linalg.norm(error):.2e} of {norm:.2e}"
    return wrong
