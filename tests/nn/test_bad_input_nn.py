"""What the layers say of bad input: the function, what arrived, what was needed. In both forms."""

import array_api_strict
import numpy as np
import pytest

from autodiff import forms
from ref.nn.dropout import dropout
from ref.nn.embedding import embedding
from ref.nn.gelu import gelu
from ref.nn.group_norm import group_norm
from ref.nn.keep_mask import keep_mask
from ref.nn.layer_norm import layer_norm
from ref.nn.linear import linear
from ref.nn.rms_norm import rms_norm
from ref.nn.rope import rope
from ref.nn.silu import silu
from ref.nn.sinusoidal_embedding import sinusoidal_embedding
from ref.nn.swiglu import swiglu


def x(*shape, dtype=np.float64):
    return np.zeros(shape, dtype)


IDS, KEEP = np.array([0, 4]), np.ones((2, 3), bool)
f32, whole = {"dtype": np.float32}, {"dtype": np.int64}

CASES = [
    (linear, ValueError, (x(2, 3), x(4, 5), x(4)), {}, r"linear: weight has I=5, x has I=3; .* must share I"),
    (linear, ValueError, (x(2, 3), x(4, 3), x(5)), {}, "linear: bias has O=5, weight has O=4"),
    (linear, TypeError, (x(2, 3), x(4, 3, **f32)), {}, "weight has dtype float32, x has float64"),
    (linear, TypeError, (x(2, 3, **whole), x(4, 3)), {}, r"x has dtype int64; x\[\*B I\] must be float"),
    (embedding, ValueError, (x(4, 3), IDS), {}, r"embedding: ids hold 4, weight has V=4 rows; needs 0\.\.3"),
    (embedding, ValueError, (x(9, 3), -IDS), {}, "embedding: ids hold -4"),
    (embedding, ValueError, (x(4), IDS), {}, r"embedding: weight has shape \(4,\).*needs 2"),
    (embedding, TypeError, (x(9, 3), x(2)), {}, r"ids has dtype float64; ids\[\*B\] must be int"),
    (embedding, TypeError, (x(9, 3, **whole), IDS), {}, "weight has dtype int64"),
    (layer_norm, ValueError, (x(2, 3), x(4), x(3)), {}, "layer_norm: weight has d=4, x has d=3"),
    (layer_norm, ValueError, (x(2, 3), x(3), x(4)), {}, "layer_norm: bias has d=4, x has d=3"),
    (layer_norm, TypeError, (x(2, 3), x(3), x(3, **f32)), {}, "bias has dtype float32, x has float64"),
    (layer_norm, TypeError, (x(2, 3, **whole),), {}, "x has dtype int64"),
    (rms_norm, ValueError, (x(2, 3), x(4)), {}, "rms_norm: weight has d=4, x has d=3"),
    (layer_norm, ValueError, (x(2, 3), x(3), x(3)), {"eps": -1e-5}, "layer_norm: eps=-1e-05; needed a number >= 0"),
    (rms_norm, ValueError, (x(2, 3), x(3)), {"eps": -1e-5}, "rms_norm: eps=-1e-05; needed a number >= 0"),
    (rms_norm, ValueError, (x(2, 3), x(3)), {"eps": float("nan")}, "rms_norm: eps=nan"),
    (rms_norm, TypeError, (x(2, 3), x(3, **f32)), {}, "weight has dtype float32, x has float64"),
    (rms_norm, TypeError, (x(2, 3, **whole), x(3, **whole)), {}, "x has dtype int64"),
    (group_norm, ValueError, (x(2, 6, 3, 3),), {"groups": 4}, "groups=4, x has C=6 channels; groups must divide C"),
    (group_norm, ValueError, (x(2, 6, 3, 3),), {"groups": 0}, "group_norm: groups=0"),
    (group_norm, ValueError, (x(2, 6, 3, 3), x(3)), {"groups": 3}, "group_norm: weight has C=3, x has C=6"),
    (group_norm, ValueError, (x(6, 3),), {"groups": 3}, r"x has shape \(6, 3\).*needs at least 3"),
    (group_norm, ValueError, (x(6, 3, 3),), {"groups": 3, "eps": -1.0}, "eps=-1.0; needed a number >= 0"),
    (group_norm, TypeError, (x(6, 3, 3, **whole),), {"groups": 3}, "x has dtype int64"),
    (sinusoidal_embedding, ValueError, (x(2),), {"channels": 5}, "channels=5; attention needs an even number >= 2"),
    (sinusoidal_embedding, ValueError, (x(2),), {"channels": 2, "convention": "ddpm"}, "channels=2; ddpm needs"),
    (sinusoidal_embedding, ValueError, (x(2),), {"channels": 4, "convention": "sd"}, "convention='sd'; needed one of"),
    (sinusoidal_embedding, ValueError, (x(2),), {"channels": 4, "max_period": 0.0}, "max_period=0.0; needed"),
    (sinusoidal_embedding, TypeError, (IDS,), {"channels": 4}, r"t has dtype int64; t\[\*B\] must be float"),
    (rope, ValueError, (x(2, 4, 3), np.arange(4)), {}, "rope: x has d=3; needs an even head dimension"),
    (rope, ValueError, (x(2, 4, 2), np.arange(4)), {"layout": "neox"}, "layout='neox'; needed one of .*half"),
    (rope, ValueError, (x(2, 4, 2), np.arange(5)), {}, r"positions have shape \(5,\), x has \(2, 4, 2\)"),
    (rope, ValueError, (x(3, 2, 4, 2), x(2, 4, **whole)), {}, r"positions have shape \(2, 4\).*\[\*B T\]"),
    (rope, ValueError, (x(2, 4, 2), np.array(3)), {}, r"positions have shape \(\)"),
    (rope, TypeError, (x(2, 4, 2), x(4)), {}, "positions has dtype float64; .* must be int"),
    (rope, TypeError, (x(2, 4, 2, **whole), np.arange(4)), {}, "x has dtype int64"),
    (rope, ValueError, (x(2, 4, 2), np.arange(4)), {"theta": x(2)}, "rope: theta has 2 frequencies, x has d=2"),
    (rope, TypeError, (x(2, 4, 2), np.arange(4)), {"theta": np.arange(1)}, "theta has dtype int64"),
    (swiglu, ValueError, (x(2, 3), x(2, 4)), {}, "swiglu: up has F=4, gate has F=3"),
    (swiglu, ValueError, (x(2, 3), x(3)), {}, r"swiglu: up has B=\(\), gate has B=\(2,\)"),
    (swiglu, TypeError, (x(2, 3), x(2, 3, **f32)), {}, "up has dtype float32, gate has float64"),
    (gelu, ValueError, (x(3),), {"approximate": "quick"}, "gelu: approximate='quick'; needed one of"),
    (gelu, TypeError, (x(3, **whole),), {}, "x has dtype int64"),
    (silu, TypeError, (x(3, **whole),), {}, "x has dtype int64"),
    (keep_mask, ValueError, (IDS,), {"seed": -1, "rate": 0.5}, "keep_mask: seed=-1; needed 0 <= seed"),
    (keep_mask, ValueError, (IDS,), {"seed": 2**64, "rate": 0.5}, "seed=18446744073709551616"),
    (keep_mask, ValueError, (IDS,), {"seed": 0, "rate": 1.0}, "keep_mask: rate=1.0; needed 0 <= rate < 1"),
    (keep_mask, TypeError, (x(3),), {"seed": 0, "rate": 0.5}, "positions has dtype float64"),
    (dropout, ValueError, (x(2, 3), KEEP), {"rate": 1.0}, "dropout: rate=1.0; needed 0 <= rate < 1"),
    (dropout, ValueError, (x(2, 3), KEEP), {"rate": float("nan")}, "dropout: rate=nan"),
    (dropout, ValueError, (x(2, 3),), {"rate": 0.5}, "dropout: neither of keep and seed arrived"),
    (dropout, ValueError, (x(2, 3), KEEP), {"rate": 0.5, "seed": 1}, "dropout: both of keep and seed"),
    (dropout, ValueError, (x(2, 3),), {"rate": 0.5, "seed": -1}, "seed=-1; needed 0 <= seed"),
    (dropout, ValueError, (x(3, 2), KEEP), {"rate": 0.5}, r"dropout: keep has B=\(2, 3\), x has B=\(3, 2\)"),
    (dropout, TypeError, (x(2, 3), x(2, 3)), {"rate": 0.5}, r"keep has dtype float64; .* must be bool"),
    (dropout, TypeError, (x(2, 3, **whole), KEEP), {"rate": 0.5}, "x has dtype int64"),
]


@pytest.mark.parametrize("form", ["fused", "composite"])
@pytest.mark.parametrize("function, error, args, options, said", CASES)
def test_bad_input_is_named(function, error, args, options, said, form):
    with forms(form), pytest.raises(error, match=said):
        function(*args, **options)


@pytest.mark.parametrize(
    "function, args",
    [(linear, ((2, 3), (4, 3))), (rms_norm, ((2, 3), (3,))), (layer_norm, ((2, 3), (3,))), (swiglu, ((3,), (3,)))],
)
def test_mixed_backends_are_refused(function, args):
    with pytest.raises(TypeError, match="strict"):
        function(x(*args[0]), array_api_strict.zeros(args[1]))
