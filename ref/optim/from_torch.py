"""Optimizer states in torch's layout, read into ours.

Source: torch.optim (2.x), `Optimizer.state_dict()`: {"state": {k: {leaf: tensor}}, "param_groups": ...}, k counting the
parameters in the order in which the groups list them; the leaves are those of torch/optim/{adam,adamw,sgd}.py.

    leaves of a parameter                                   becomes
    step, exp_avg, exp_avg_sq                               AdamState(m, v, t)
    step, exp_avg, exp_avg_sq, max_exp_avg_sq               AmsgradState(m, v, v_max, t), of form "torch"
    momentum_buffer                                         SgdState(velocity), of form "torch"
    exp_avg                                                 LionState(m)
    rows, columns, step  (columns not of a vector)          AdafactorState(rows, columns, t)
    average, step                                           EmaState(average, t)

Notation
    arrays -> {"<prefix>.<leaf>": array}, as a flat file (safetensors) has them; the prefix is "state.<k>" or the
    parameter's own dotted name.

Conventions
    C1  step is a float32 scalar in torch (an int before 1.12); t is a Python int. Above 2^24 float32 counts no more.
    C2  `order` names the parameters that k = 0, 1, .. stand for: torch's file does not know the names.
    C3  torch.optim.Muon keeps (1 - momentum) times our velocity in its momentum_buffer; its first step is C4 of `muon`.
    C4  Arrays are copied.
    C5  The last two rows have our own leaves: torch's Adafactor keeps means, row_var = R / c and col_var = C / r, which
        would not come back to the same bits.

Laws
    L1 each_set_of_leaves_is_a_state         L2 counts_are_integers
    L3 indices_stand_for_the_order           L4 keys_may_come_in_any_order
    L5 a_constant_gradient_is_read_back
"""

from __future__ import annotations

import re

import numpy as np

from ref.optim.adafactor import AdafactorState
from ref.optim.adamw import AdamState
from ref.optim.amsgrad import AmsgradState
from ref.optim.ema import EmaState
from ref.optim.lion import LionState
from ref.optim.sgd import SgdState
from ref.spec import spec

# State class -> {its field: torch's leaf}.
LAYOUT = {
    AdamState: {"m": "exp_avg", "v": "exp_avg_sq", "t": "step"},
    AmsgradState: {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq", "t": "step"},
    SgdState: {"velocity": "momentum_buffer"},
    LionState: {"m": "exp_avg"},
    AdafactorState: {"rows": "rows", "columns": "columns", "t": "step"},
    EmaState: {"average": "average", "t": "step"},
}
OPTIONAL = {"columns"}  # a vector's state has none
INDEX = re.compile(r"state\.(\d+)")


@spec("optim.from_torch", "arrays:tree -> states:tree", backends=("numpy",))
def from_torch(arrays, *, order=None):
    """Sort the arrays of a flat file into optimizer states.

    Parameters
    ----------
    arrays : dict of str to array
    order : list of str, optional
        Names of the parameters, where the keys have indices (C2).

    Returns
    -------
    dict of str to state
        By parameter, in the order of `order` or of first appearance.

    Raises
    ------
    ValueError
        A key without a dot, leaves that make no known state or have different shapes, a step that is no whole number
        >= 0, an index that `order` does not have, or an index and no `order`; the message names the parameter.
    TypeError
        An array that is none, or moments that are not float.

    Complexity: one copy.

    >>> import numpy as np
    >>> from_torch({"state.0.momentum_buffer": np.array([2.0])}, order=["w"])
    {'w': SgdState(velocity=array([2.]))}
    """
    found = {}
    for key, array in arrays.items():
        prefix, dot, leaf = key.rpartition(".")
        if not dot:
            raise ValueError(f"from_torch: the key {key!r} has no dot; needed <parameter>.<leaf>")
        if not isinstance(array, np.ndarray | np.generic):
            raise TypeError(f"from_torch: {key} is a {type(array).__name__}; needed an array")
        found.setdefault(_named(prefix, order), {})[leaf] = np.array(array)
    names = found if order is None else [name for name in order if name in found]
    return {name: _state(name, found[name]) for name in names}


def to_torch(states):
    """{"<parameter>.<leaf>": array} of {parameter: state}: what `from_torch` reads; `step` as float32."""
    flat = {}
    for name, state in states.items():
        if type(state) not in LAYOUT:
            kinds = ", ".join(kind.__name__ for kind in LAYOUT)
            raise TypeError(f"to_torch: the state of {name} is a {type(state).__name__}; needed one of {kinds}")
        for field, leaf in LAYOUT[type(state)].items():
            value = getattr(state, field)
            if value is not None:
                flat[f"{name}.{leaf}"] = np.array(value, np.float32) if leaf == "step" else np.array(value)
    return flat


def _named(prefix, order):
    index = INDEX.fullmatch(prefix)
    if index is None:
        return prefix
    k = int(index[1])
    if order is None or k >= len(order):
        known = "no order" if order is None else f"an order of {len(order)}"
        raise ValueError(f"from_torch: the key {prefix!r} has index {k} and there is {known}; needed the names")
    return order[k]


def _state(name, leaves):
    for kind, layout in LAYOUT.items():
        wanted = set(layout.values())
        if wanted - OPTIONAL <= set(leaves) <= wanted:
            values = {field: leaves.get(leaf) for field, leaf in layout.items()}
            _check(name, leaves)
            return kind(**{f: _count(name, x) if f == "t" else x for f, x in values.items()})
    known = "; ".join(", ".join(layout.values()) for layout in LAYOUT.values())
    raise ValueError(f"from_torch: {name} has the leaves {', '.join(sorted(leaves))}; needed one of: {known}")


def _check(name, leaves):
    moments = {leaf: x for leaf, x in leaves.items() if leaf != "step"}
    for leaf, x in moments.items():
        if x.dtype.kind != "f":
            raise TypeError(f"from_torch: {leaf} of {name} has dtype {x.dtype}; needed float")
        shape = moments.get("exp_avg", x).shape
        if x.shape != shape:
            raise ValueError(f"from_torch: {leaf} of {name} has shape {x.shape}, exp_avg has {shape}; needed the same")


def _count(name, step):
    t = float(step.reshape(-1)[0]) if step.size == 1 else -1.0
    if not (t >= 0 and t == int(t)):
        raise ValueError(f"from_torch: step of {name} is {step.tolist()}; needed a whole number >= 0")
    return int(t)
