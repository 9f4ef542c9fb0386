"""What a law says of a number: within a bound, the same bits, or a plain truth."""

from __future__ import annotations

import numpy as np
from hypothesis.errors import UnsatisfiedAssumption


class LawBroken(Exception):
    """A law does not hold; carries what was seen (`actual`, `wanted`, `error`, `bound`)."""

    def __init__(self, what, actual=None, wanted=None, error=None, bound=None):
        self.what, self.actual, self.wanted = what, actual, wanted
        self.error, self.bound = error, bound
        super().__init__(self._text())

    def _text(self):
        parts = [self.what]
        if self.wanted is not None:
            parts.append(f"got {self.actual!r}, wanted {self.wanted!r}")
        if self.error is not None:
            parts.append(f"off by {self.error:.3g}, bound {self.bound:.3g}")
        return "; ".join(parts)


class Expect:
    """The third argument of every law; remembers the comparison that came nearest to its bound."""

    def __init__(self):
        self.worst_error, self.bound, self._worst_ratio, self.made = None, None, -1.0, 0

    def __call__(self, actual, wanted, bound, what="output", scale=None):
        """|actual - wanted| <= bound, elementwise.

        NaN equals nothing, unless NaN is wanted at that place; an infinity equals itself. A case whose
        bound exceeds half the output's scale (max |wanted| unless given) judges nothing and is rejected.
        """
        self.made += 1
        actual, wanted = np.asarray(actual), np.asarray(wanted)
        if actual.shape != wanted.shape:
            raise LawBroken(f"{what} has shape {actual.shape}, wanted {wanted.shape}")
        if not wanted.size:
            return
        actual = actual.astype(np.promote_types(actual.dtype, np.float64))
        wanted = wanted.astype(np.promote_types(wanted.dtype, np.float64))
        bound = np.broadcast_to(np.asarray(bound, np.float64), wanted.shape)
        finite = np.isfinite(wanted)
        size = scale if scale is not None else np.max(np.abs(wanted[finite]), initial=0.0)
        if finite.any() and np.max(bound[finite]) > 0.5 * np.max(size):
            raise UnsatisfiedAssumption("the bound exceeds half the output's scale")
        with np.errstate(invalid="ignore"):
            error = np.abs(actual - wanted)
        same = (actual == wanted) | (np.isnan(actual) & np.isnan(wanted))
        error = np.where(same, 0.0, np.where(np.isnan(error) | ~finite, np.inf, error))
        ratio = np.where(error == 0, 0.0, error / np.where(bound > 0, bound, np.finfo(float).tiny))
        at = np.unravel_index(np.argmax(ratio), ratio.shape)
        if ratio[at] > self._worst_ratio:
            self._worst_ratio = float(ratio[at])
            self.worst_error, self.bound = float(error[at]), float(bound[at])
        if error[at] > bound[at]:
            where = f"{what}[{', '.join(map(str, map(int, at)))}]" if at else what
            raise LawBroken(where, actual[at].item(), wanted[at].item(), float(error[at]), float(bound[at]))

    def same(self, actual, wanted, what="output"):
        """Equal in every bit that a comparison can see (NaN equals NaN); no bound."""
        self.made += 1
        actual, wanted = np.asarray(actual), np.asarray(wanted)
        if actual.shape != wanted.shape:
            raise LawBroken(f"{what} has shape {actual.shape}, wanted {wanted.shape}")
        differ = ~((actual == wanted) | ((actual != actual) & (wanted != wanted)))
        if differ.any():
            at = tuple(int(i) for i in np.argwhere(differ)[0])
            where = f"{what}[{', '.join(map(str, at))}]" if at else what
            raise LawBroken(f"{where} must be the same bits", actual[at].item(), wanted[at].item())

    def at_most(self, actual, limit, what):
        """actual <= limit, elementwise; a NaN fails."""
        self.made += 1
        actual, limit = np.broadcast_arrays(np.asarray(actual), np.asarray(limit))
        bad = ~(actual <= limit)
        if bad.any():
            at = tuple(np.argwhere(bad)[0])
            raise LawBroken(f"{what} must be at most {limit[at].item()!r}, is {actual[at].item()!r}")

    def holds(self, condition, what):
        """A truth that is no comparison of numbers."""
        self.made += 1
        if not condition:
            raise LawBroken(what)
