"""How far a correct computation may be off: each bound with its derivation.

u is the unit roundoff of the dtype. A bound is first order in u with the higher orders covered by the
factor `SAFE`; it is never looser than that. Magnitudes are sums of absolute values, computed in float64.
"""

from __future__ import annotations

import numpy as np

SAFE = 2.0
_U = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def u(dtype):
    """Unit roundoff of a dtype (half the gap above 1).

    >>> u("float32") == 2.0**-24
    True
    """
    return _U[str(np.dtype(dtype)) if not isinstance(dtype, str) else dtype]


def rounding(n, magnitude, dtype):
    """n roundings of numbers no larger than `magnitude`: n u |x|.

    A sum of m terms in any order is off by at most (m - 1) u sum |x_i| (Higham 2002, sec. 4.2), so a dot
    product of m terms is `rounding(m, |a|.|b|)`; an elementary function of NumPy or CUDA is within 4 ulp,
    which is `rounding(8, |f|)`.
    """
    return SAFE * n * u(dtype) * np.abs(np.asarray(magnitude, np.float64))


def elementary(magnitude, dtype, calls=1):
    """`calls` elementary functions (exp, log, tanh, sqrt, division), each within 4 ulp of its value."""
    return rounding(8 * calls, magnitude, dtype)


def softmax_average(logit_error, num_keys, value_magnitude, dtype):
    """A softmax-weighted mean of values, from logits that are off by `logit_error`.

    A weight e^{s - m} has relative error 2 dl + |s - m| u + 8 u (both s and m are off, the subtraction and
    the exponential round); sum p |s - m| = H(p) - log l <= log S. Numerator and denominator each carry
    this and S roundings of the sum, the quotient and the product two more. All of it scales max |v|.
    """
    n = max(int(num_keys), 1)
    relative = 2 * np.asarray(logit_error, np.float64) + (np.log(n) + 8 + n) * u(dtype)
    return SAFE * (2 * relative + 2 * u(dtype)) * np.asarray(value_magnitude, np.float64)
