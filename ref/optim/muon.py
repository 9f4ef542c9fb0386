"""Muon: momentum, orthogonalised by Newton-Schulz.

Source: Jordan et al. 2024, "Muon" (kellerjordan.github.io); Liu et al. 2025 (2502.16982, Moonlight) Eq. 1-4 for weight
decay and the scale that matches AdamW's; torch.optim.Muon (adjust_lr_fn) has both scales.

    M_t = mu M_{t-1} + G_t
    O_t = newton_schulz(M_t),   or of  G_t + mu M_t  (Nesterov)
    W_t = (1 - lr wd) W_{t-1} - lr k O_t

    k = 0.2 sqrt(max(r, c))     scale "moonlight"
    k = sqrt(max(1, r / c))     scale "jordan"

Notation
    W -> param[r c], r outputs by c inputs; G -> grad[r c]; M -> state.velocity.

Conventions
    C1  With the exact polar factor of a matrix of full rank the RMS of O is 1 / sqrt(max(r, c)), so that of k O is
        0.2 ("moonlight": AdamW's usual size, its rates and decay carry over) or 1 / sqrt(c) ("jordan"). After five
        steps it is that times the root mean square of phi^5(s_i / |s|) over the min(r, c) singular values.
    C2  r counts outputs. Code whose weights are [in out] (optax) has to take the other ratio in "jordan".
    C3  The decay is multiplied by lr, not by lr k.
    C4  torch keeps the velocity as a running mean, mu M + (1 - mu) G: (1 - mu) times this one, the same step but for
        eps.
    C5  For hidden matrices alone; `parameter_groups` tells which, AdamW takes the rest. A convolution is flattened to
        [out, in * kernel] by the caller.

Laws
    L1 rms_of_a_step_by_its_singular_values  L2 rms_of_the_exact_polar_factor
    L3 a_diagonal_walk_in_closed_form        L4 velocity_is_a_weighted_sum
    L5 decay_stands_apart                    L6 a_power_of_two_scale_is_invisible
    L7 commutes_with_transposition_and_signs L8 continues_from_a_saved_state
"""

from __future__ import annotations

import math

from ref.optim.newton_schulz import COEFFICIENTS, newton_schulz
from ref.optim.sgd import SgdState, check_finite, check_fractions, check_numbers, check_state
from ref.spec import bind, spec

SCALES = {
    "moonlight": lambda r, c: 0.2 * math.sqrt(max(r, c)),
    "jordan": lambda r, c: math.sqrt(max(1.0, r / c)),
}


@spec("optim.muon", "param[r c], grad[r c], state:tree -> param[r c], state:tree")
def muon(
    param, grad, state, *, lr=1e-3, momentum=0.95, nesterov=True, weight_decay=0.1, scale="moonlight", steps=5,
    coefficients=COEFFICIENTS, eps=1e-7, name="param",
):  # fmt: skip
    """One step.

    Parameters
    ----------
    param, grad : float[r c]
        A hidden matrix, at least one row and one column, and its gradient.
    state : SgdState
        The velocity; `ref.optim.sgd.start(param)` before the first step.
    lr, weight_decay : float
    momentum : float
        In [0, 1).
    nesterov : bool
        Look ahead along the velocity.
    scale : "moonlight" or "jordan"
        The factor k (C1).
    steps, coefficients, eps
        Of `newton_schulz`.
    name : str
        Of the parameter, for messages.

    Returns
    -------
    (float[r c], SgdState)
        New arrays; nothing is written in place.

    Raises
    ------
    ValueError
        Shapes differ, no rows or no columns, lr, weight_decay or eps negative or not finite, momentum outside [0, 1),
        an unknown scale, steps or coefficients that `newton_schulz` refuses, or a gradient that has NaN or an infinity
        (the message names the parameter).
    TypeError
        An array is not float, the state is not a SgdState, or the dtypes or backends differ.

    Complexity: `newton_schulz` and 6 r c operations; one array of state.

    >>> import numpy as np
    >>> from ref.optim.sgd import start
    >>> W = np.zeros((1, 4))
    >>> muon(W, np.array([[2.0, 0.0, 0.0, 0.0]]), start(W), lr=0.5, steps=0, eps=0.0)[0]
    array([[-0.2,  0. ,  0. ,  0. ]])
    """
    check_state("muon", state, SgdState)
    sizes = bind("muon", "param[r c], grad[r c], velocity[r c]", param=param, grad=grad, velocity=state.velocity)
    if 0 in sizes.values():
        raise ValueError(f"muon: {name} has r={sizes['r']}, c={sizes['c']}; needed a row and a column")
    check_numbers("muon", lr=lr, weight_decay=weight_decay, eps=eps)
    check_fractions("muon", momentum=momentum)
    if scale not in SCALES:
        raise ValueError(f"muon: scale={scale!r}; needed one of {tuple(SCALES)}")
    check_finite("muon", f"the gradient of {name}", grad)

    M = momentum * state.velocity + grad
    ahead = grad + momentum * M if nesterov else M
    update = newton_schulz(ahead, steps=steps, coefficients=coefficients, eps=eps, name=f"the velocity of {name}")
    k = SCALES[scale](*param.shape)
    return param * (1 - lr * weight_decay) - (lr * k) * update, SgdState(M)
