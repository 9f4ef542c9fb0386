"""MADE: a masked autoencoder, all conditionals of a binary distribution in one pass.

Source: Germain et al. 2015 (1502.03509) Eq. 8-13.

    h^0 = x,   h^l = relu((W^l * M^l) h^{l-1} + b^l),   logits = (V * M^V) h^L + c
    log p(x) = sum_d x_d l_d - log(1 + e^{l_d}),   l_d a function of the x_d' with m(d') < m(d)

Notation
    x[*B n] of zeros and ones; W^l, b^l -> params["layers.l.weight"], ["layers.l.bias"], l = 0 .. L, the last one V, c;
    M -> `made_masks(degrees)`.

Conventions
    C1  The masks stand on the weights, at every call: what a masked weight holds is immaterial and its gradient is 0.
    C2  relu units, slope 0 at 0 (the paper tries several). No direct connections from input to output beside them.
    C3  The order is in degrees[0]; logits stand in the order of x.

Laws
    L1 all_bit_strings_sum_to_one           L2 sums_over_open_weights_alone
    L3 later_bits_are_invisible             L4 masked_weights_are_immaterial
    L5 no_hidden_layer_is_a_chain_of_logistic_regressions
    L6 renamed_inputs                       L7 gradient_by_hand
    L8 itself_and_later_bits_have_no_slope
"""

from __future__ import annotations

from autodiff import namespace
from ref.density.bernoulli import bernoulli, check_binary
from ref.density.made_masks import made_masks
from ref.nn.linear import linear
from ref.spec import bind, spec

SIGNATURE = "x[*B n], params:tree, degrees:tree -> log_prob[*B], logits[*B n]"


@spec("density.made", SIGNATURE, grads=("x", "params"))
def made(x, params, degrees):
    """Log-probability of bit strings, and the logit of each bit given those before it in the order.

    Parameters
    ----------
    x : float[*B n]
        Zeros and ones.
    params : {str: float array}
        As `parameter_shapes(degrees)` has them.
    degrees : sequence of int arrays
        As `made_masks` takes them.

    Returns
    -------
    log_prob : float[*B]
        Nats.
    logits : float[*B n]

    Raises
    ------
    ValueError
        x is not binary, degrees are unlawful, or parameters are missing, unexpected or of another shape.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: B times the number of weights, once.

    >>> import numpy as np
    >>> params = {"layers.0.weight": np.array([[9.0, 9.0], [2.0, 9.0]]), "layers.0.bias": np.array([0.0, -2.0])}
    >>> made(np.array([1.0, 1.0]), params, (np.array([1, 2]),))[1]
    array([0., 0.])
    """
    masks = made_masks(degrees)
    _check(x, params, degrees)
    check_binary("made", x)
    xp = namespace(x, *params.values())
    h = x
    for level, mask in enumerate(masks):
        weight = xp.where(mask, params[f"layers.{level}.weight"], 0.0)
        h = linear(h, weight, params[f"layers.{level}.bias"])
        if level < len(masks) - 1:
            h = xp.where(h > 0, h, 0.0)
    return bernoulli(x, h), h


def parameter_shapes(degrees):
    """{name: shape} of every parameter.

    >>> import numpy as np
    >>> parameter_shapes((np.array([1, 2, 3]), np.array([1, 2])))  # doctest: +NORMALIZE_WHITESPACE
    {'layers.0.weight': (2, 3), 'layers.0.bias': (2,), 'layers.1.weight': (3, 2), 'layers.1.bias': (3,)}
    """
    sizes = [int(d.shape[0]) for d in degrees]
    sizes.append(sizes[0])
    shapes = {}
    for level, (before, after) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        shapes |= {f"layers.{level}.weight": (after, before), f"layers.{level}.bias": (after,)}
    return shapes


def _check(x, params, degrees):
    n = bind("made", "x[*B n]", x=x)["n"]
    if n != degrees[0].shape[0]:
        raise ValueError(f"made: x has n={n} bits, degrees[0] has {degrees[0].shape[0]}; needed one place a bit")
    shapes = parameter_shapes(degrees)
    missing, extra = sorted(shapes.keys() - params.keys()), sorted(params.keys() - shapes.keys())
    if missing or extra:
        raise ValueError(f"made: params lack {missing} and have unexpected {extra}")
    for name, shape in shapes.items():
        if tuple(params[name].shape) != shape:
            raise ValueError(f"made: {name} has shape {tuple(params[name].shape)}; needed {shape}")
        bind("made", "x[*B n], param[*any]", x=x, param=params[name])
