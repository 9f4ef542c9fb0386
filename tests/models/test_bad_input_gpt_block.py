"""What the GPT block and its accounting say of bad input."""

import numpy as np
import pytest

from ref.models.activation_bytes import activation_bytes
from ref.models.gpt_block import SHAPES, gpt_block

SIZES = {"d": 4, "D": 6, "F": 5}
X, P = np.ones((2, 3, 4)), {n: np.ones([SIZES[a] for a in axes]) for n, axes in SHAPES.items()}


def without(name):
    return {n: a for n, a in P.items() if n != name}


@pytest.mark.parametrize(
    "error, x, params, options, said",
    [
        (ValueError, X, without("ln_1.bias"), {}, r"gpt_block: params lack \['ln_1.bias'\] and have unexpected \[\]"),
        (ValueError, X, P | {"wte": X}, {}, r"unexpected \['wte'\]"),
        (ValueError, X, P | {"mlp.up.bias": np.ones(4)}, {}, "mlp_up_bias has F=4, mlp_up_weight has F=5|F=4"),
        (ValueError, X[..., :3], P, {}, "d=4, x has d=3"),
        (ValueError, X, P, {"heads": 4}, "gpt_block: heads=4; needed a divisor of D=6"),
        (ValueError, X, P, {"heads": 0}, "heads=0"),
        (ValueError, X, P, {"rate": 1.0}, "gpt_block: rate=1.0; needed 0 <= rate < 1"),
        (ValueError, X, P, {"recompute": "all"}, "gpt_block: recompute='all'; needed one of"),
        (TypeError, X.astype(int), P, {}, "x has dtype int64"),
        (TypeError, X, P | {"ln_2.bias": np.ones(4, np.float32)}, {}, "ln_2_bias has dtype float32, x has float64"),
    ],
)
def test_block(error, x, params, options, said):
    with pytest.raises(error, match=said):
        gpt_block(x, params, **{"heads": 2, **options})


@pytest.mark.parametrize(
    "error, sizes, options, said",
    [
        (ValueError, (0, 1, 4, 2), {}, "activation_bytes: s=0; needed at least 1"),
        (ValueError, (8, 1, 4, 2), {"layers": 0}, "layers=0"),
        (ValueError, (8, 1, 5, 2), {}, "h=5, a=2, hidden=20, tp=1; a divides h"),
        (ValueError, (8, 1, 4, 2), {"tp": 4}, "a=2, hidden=16, tp=4"),
        (ValueError, (8, 1, 4, 2), {"tp": 2, "hidden": 5}, "hidden=5, tp=2"),
        (ValueError, (8, 1, 4, 2), {"recompute": "full"}, "recompute='full'; needed one of"),
        (ValueError, (7, 1, 4, 2), {"tp": 2, "sequence_parallel": True}, "s=7, tp=2, lean=True; tp must divide s"),
        (ValueError, (8, 1, 4, 2), {"sequence_parallel": True, "lean": False}, "lean=False"),
        (TypeError, (8.5, 1, 4, 2), {}, "integer"),
    ],
)
def test_bytes(error, sizes, options, said):
    with pytest.raises(error, match=said):
        activation_bytes(*sizes, **options)
