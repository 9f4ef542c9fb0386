"""What the algorithms of checkpointing say of bad input."""

import numpy as np
import pytest

from ref.training.checkpoint_segments import checkpoint_segments
from ref.training.checkpointed_gradient import checkpointed_gradient

X, W, G = np.ones((2, 3)), np.ones((2, 3, 3)), np.ones((2, 3))


@pytest.mark.parametrize(
    "error, n, options, said",
    [
        (ValueError, 0, {}, "checkpoint_segments: n=0 layers; needed at least 1"),
        (ValueError, -3, {}, "n=-3"),
        (ValueError, 4, {"kind": "even"}, "checkpoint_segments: kind='even'; needed one of"),
        (TypeError, 2.5, {}, "integer"),
        (TypeError, "4", {}, "integer"),
    ],
)
def test_segments(error, n, options, said):
    with pytest.raises(error, match=said):
        checkpoint_segments(n, **options)


@pytest.mark.parametrize(
    "error, args, options, said",
    [
        (ValueError, (np.ones((2, 4)), W, G, [1]), {}, "w has d=3, x has d=4"),
        (ValueError, (X, W, np.ones((3, 3)), [1]), {}, "g has B=3, x has B=2"),
        (ValueError, (X, W[:0], G, [1]), {}, "w has L=0 weights; needed at least 1"),
        (ValueError, (X, W, G, []), {}, r"lengths=\[\]; needed positive lengths"),
        (ValueError, (X, W, G, [2, 0]), {}, r"lengths=\[2, 0\]"),
        (ValueError, (X, W, G, [1]), {"rate": 1.0}, "checkpointed_gradient: rate=1.0; needed 0 <= rate < 1"),
        (ValueError, (X, W, G, [1]), {"rate": 0.5, "seed": -1}, "seed=-1"),
        (TypeError, (X, W.astype(np.float32), G, [1]), {}, "w has dtype float32, x has float64"),
        (TypeError, (X, W, G.astype(int), [1]), {}, "g has dtype int64"),
    ],
)
def test_gradient(error, args, options, said):
    with pytest.raises(error, match=said):
        checkpointed_gradient(*args, **options)
