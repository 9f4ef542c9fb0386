"""What a diffusion model predicts: noise, data, velocity or score, each from any other.

Source: Ho, Jain & Abbeel 2020 (2006.11239) Eq. 15 for x_0; Salimans & Ho 2022 (2202.00512) sec. 4 and App. D for v;
Song et al. 2021 (2011.13456) Eq. 7 for the score.

    x = a x_0 + b eps
    v = a eps - b x_0            score = -eps / b = (a x_0 - x) / b^2
    x_0 = (a x - b v) / (a^2 + b^2)           eps = (b x + a v) / (a^2 + b^2)

Notation
    a -> scale, b -> std; for DDPM a = sqrt(alpha_bar), b = sqrt(1 - alpha_bar), so that a^2 + b^2 = 1.

Conventions
    C1  The score is that of the noised density q(x_t). A score network of NCSN is this one.
    C2  v = a eps - b x_0, turned with x as (x, v) = rotation of (x_0, eps) when a^2 + b^2 = 1. Its sign is the paper's.
    C3  Each pair has its own formula: going through eps would divide by a (or b) where the direct one does not.
    C4  scale and std have leading axes of x: one pair for all, or one an example.

Laws
    L1 one_point_in_every_form               L2 there_and_back
    L3 v_is_a_rotation                       L4 affine_in_its_two_arguments
"""

from __future__ import annotations

from autodiff import namespace
from ref.diffusion.run_stages import check_shape
from ref.spec import bind, spec

PREDICTIONS = ("eps", "x0", "v", "score")
SIGNATURE = "output[*S], x[*S], scale[*T], std[*T] -> [*S]"


@spec("diffusion.convert", SIGNATURE, grads=("output", "x"))
def convert(output, x, scale, std, *, source="eps", target="x0"):
    """A model's output in another form.

    Parameters
    ----------
    output : float[*S]
        What the model said at x.
    x : float[*S]
    scale, std : float[*T]
        a and b of the point's noise level; *T are leading axes of *S. Both positive.
    source, target : "eps", "x0", "v" or "score"

    Returns
    -------
    float[*S]

    Raises
    ------
    ValueError
        Unknown names, shapes that disagree, or *T that are no leading axes of *S.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 2 multiply-adds an entry.

    >>> import numpy as np
    >>> convert(np.array([1.0]), np.array([1.4]), np.array(0.8), np.array(0.6))
    array([1.])
    """
    bind("convert", SIGNATURE, output=output, x=x, scale=scale, std=std)
    check_prediction("convert", source, "source")
    check_prediction("convert", target, "target")
    p, q = weights(source, target, spread(scale, x, "convert: scale"), spread(std, x, "convert: std"))
    return x * p + output * q


def check_prediction(function, prediction, name="prediction"):
    """ValueError unless it is one of PREDICTIONS."""
    if prediction not in PREDICTIONS:
        raise ValueError(f"{function}: {name}={prediction!r}; needed one of {PREDICTIONS}")


def weights(source, target, a, b):
    """(p, q) with target = p x + q source, at scale a and std b (numbers or arrays)."""
    n = a * a + b * b
    table = {
        "eps x0": lambda: (1 / a, -b / a),
        "eps v": lambda: (-b / a, n / a),
        "eps score": lambda: (0.0, -1 / b),
        "x0 eps": lambda: (1 / b, -a / b),
        "x0 v": lambda: (a / b, -n / b),
        "x0 score": lambda: (-1 / (b * b), a / (b * b)),
        "v eps": lambda: (b / n, a / n),
        "v x0": lambda: (a / n, -b / n),
        "v score": lambda: (-1 / n, -a / (b * n)),
        "score eps": lambda: (0.0, -b),
        "score x0": lambda: (1 / a, b * b / a),
        "score v": lambda: (-b / a, -b * n / a),
    }
    return (0.0, 1.0) if source == target else table[f"{source} {target}"]()


def spread(values, x, what):
    """`values`, whose axes are leading axes of x, shaped to broadcast over the others."""
    lead = tuple(values.shape)
    if lead != tuple(x.shape[: len(lead)]):
        raise ValueError(f"{what} has shape {lead}; needed leading axes of {tuple(x.shape)}")
    return namespace(values).reshape(values, lead + (1,) * (len(x.shape) - len(lead)))


def predicting(function, model, source, target, kernel):
    """`model(x, t)`, which predicts `source`, as one that predicts `target`; kernel(t) = (scale, std)."""
    if source == target:
        return model

    def call(x, t):
        p, q = weights(source, target, *kernel(t))
        output = model(x, t)
        check_shape(function, "the model's output", output, x)
        return x * p + output * q

    return call
