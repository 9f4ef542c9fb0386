"""What the laws of the losses share."""

from __future__ import annotations

import numpy as np


def cotangent(c, shape):
    """A fixed cotangent of the given shape, no two entries alike."""
    n = int(np.prod(shape, dtype=np.int64))
    return np.cos(1.0 + np.arange(n)).reshape(shape).astype(c.dtype)
