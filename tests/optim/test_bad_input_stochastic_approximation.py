"""What incremental_mean, robbins_monro, dvoretzky and minibatch_descent say of bad input."""

import numpy as np
import pytest

from ref.optim.dvoretzky import dvoretzky
from ref.optim.incremental_mean import incremental_mean
from ref.optim.minibatch_descent import minibatch_descent
from ref.optim.robbins_monro import robbins_monro

W, A, ETA = np.ones(2), np.full(3, 0.5), np.zeros((2, 3))
DATA = {
    "X": np.ones((4, 2)), "Y": np.ones((4, 1)), "start": np.zeros((2, 1)), "rates": A, "batches": np.zeros((3, 2), int),
}  # fmt: skip


@pytest.mark.parametrize(
    "error, values, options, said",
    [
        (ValueError, np.array(1.0), {}, r"values has shape \(\) \(0 axes\)"),
        (ValueError, ETA, {"rates": np.ones(2)}, "rates has k=2, values has k=3"),
        (ValueError, ETA, {"start": np.ones(3)}, r"start has B=\(3,\), values has B=\(2,\)"),
        (TypeError, ETA, {"rates": A.astype(np.float32)}, "rates has dtype float32"),
        (TypeError, [1.0, 2.0], {}, "values is a list"),
        (TypeError, np.ones(3, int), {}, "values has dtype int64"),
    ],
)
def test_bad_input_of_incremental_mean(error, values, options, said):
    with pytest.raises(error, match=f"^incremental_mean: .*{said}"):
        incremental_mean(values, **options)


@pytest.mark.parametrize(
    "error, args, function, said",
    [
        (ValueError, (W, np.ones(2), ETA), abs, "noise has k=3, rates has k=2"),
        (ValueError, (np.ones(3), A, ETA), abs, r"noise has B=\(2,\), start has B=\(3,\)"),
        (ValueError, (W, -A, ETA), abs, "rates hold a number that is not positive and finite"),
        (ValueError, (W, A * np.inf, ETA), abs, "rates hold a number that is not positive and finite"),
        (ValueError, (W, A, ETA), lambda w: w[:1], r"function gave shape \(1,\); needed \(2,\)"),
        (ValueError, (W, A, ETA), lambda w: 1.0, "function gave shape None"),
        (TypeError, (W, A.astype(np.float32), ETA), abs, "rates has dtype float32"),
        (TypeError, (1.0, A, ETA), abs, "start is a float"),
    ],
)
def test_bad_input_of_robbins_monro(error, args, function, said):
    with pytest.raises(error, match=f"^robbins_monro: .*{said}"):
        robbins_monro(*args, function=function)


@pytest.mark.parametrize(
    "error, args, said",
    [
        (ValueError, (W, A, np.ones(2), ETA), "betas has k=2, alphas has k=3"),
        (ValueError, (np.ones(3), A, A, ETA), r"noise has B=\(2,\), start has B=\(3,\)"),
        (ValueError, (W, -A, A, ETA), "alphas hold a number that is negative or not finite; needed all >= 0"),
        (ValueError, (W, A, A * np.nan, ETA), "betas hold a number that is negative or not finite"),
        (TypeError, (W, A, A, ETA.astype(int)), "noise has dtype int64"),
    ],
)
def test_bad_input_of_dvoretzky(error, args, said):
    with pytest.raises(error, match=f"^dvoretzky: .*{said}"):
        dvoretzky(*args)


@pytest.mark.parametrize(
    "error, change, said",
    [
        (ValueError, {"Y": np.ones((3, 1))}, "Y has n=3, X has n=4"),
        (ValueError, {"start": np.zeros((3, 1))}, "start has d=3, X has d=2"),
        (ValueError, {"rates": np.ones(2)}, "batches has k=3, rates has k=2"),
        (ValueError, {"batches": np.zeros((3, 0), int)}, "batches has m=0; needed at least one point a step"),
        (ValueError, {"batches": np.full((3, 2), 4)}, r"batches has a point outside 0 .. 3; X has n=4"),
        (ValueError, {"batches": np.full((3, 2), -1)}, "batches has a point outside"),
        (TypeError, {"batches": np.zeros((3, 2))}, "batches has dtype float64"),
        (TypeError, {"Y": np.ones((4, 1), np.float32)}, "Y has dtype float32"),
    ],
)
def test_bad_input_of_minibatch_descent(error, change, said):
    with pytest.raises(error, match=f"^minibatch_descent: .*{said}"):
        minibatch_descent(**{**DATA, **change})
