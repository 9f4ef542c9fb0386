"""What state_bytes says of bad input."""

import pytest

from ref.training.state_bytes import state_bytes


@pytest.mark.parametrize(
    "error, parameters, options, said",
    [
        (ValueError, -1, {}, "state_bytes: parameters=-1, ranks=1"),
        (ValueError, 8, {"ranks": 0}, "ranks=0; needed at least 0 and 1"),
        (ValueError, 8, {"precision": "fp8"}, "state_bytes: precision='fp8'; needed one of fp32, bf16, fp16"),
        (ValueError, 8, {"zero": 4}, "zero=4; needed 0, 1, 2 or 3"),
        (TypeError, 7e9, {}, "integer"),
    ],
)
def test_what_it_needs(error, parameters, options, said):
    with pytest.raises(error, match=said):
        state_bytes(parameters, **options)
