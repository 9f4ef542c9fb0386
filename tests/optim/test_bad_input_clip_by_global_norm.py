"""What clip_by_global_norm says of bad input."""

import numpy as np
import pytest

from ref.optim.clip_by_global_norm import clip_by_global_norm

G = [np.ones(3), np.ones((2, 2))]


@pytest.mark.parametrize(
    "error, grads, max_norm, options, said",
    [
        (ValueError, [], 1.0, {}, "grads is empty; needed at least one gradient"),
        (ValueError, G, 0.0, {}, "max_norm=0.0; needed a number > 0"),
        (ValueError, G, -1.0, {}, "max_norm=-1.0"),
        (ValueError, G, np.nan, {}, "max_norm=nan"),
        (ValueError, G, 1.0, {"eps": -1.0}, "eps=-1.0; needed a finite number >= 0"),
        (ValueError, [G[0], np.array([np.nan])], 1.0, {}, r"grads\[1\] has NaN \(1 of 1"),
        (ValueError, [np.array([np.inf]), G[0]], 1.0, {}, r"grads\[0\] has an infinity"),
        (TypeError, [G[0], [1.0]], 1.0, {}, "g1 is a list"),
        (TypeError, [G[0], np.ones(2, np.float32)], 1.0, {}, "g1 has dtype float32, g0 has float64"),
        (TypeError, [np.ones(2, int)], 1.0, {}, "g0 has dtype int64"),
    ],
)
def test_bad_input_is_named(error, grads, max_norm, options, said):
    with pytest.raises(error, match=f"clip_by_global_norm: .*{said}"):
        clip_by_global_norm(grads, max_norm, **options)
