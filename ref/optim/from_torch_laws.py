"""Laws and mutants of reading torch's optimizer states."""

from __future__ import annotations

import numpy as np

from ref.optim.adafactor import AdafactorState
from ref.optim.adamw import AdamState
from ref.optim.amsgrad import AmsgradState
from ref.optim.ema import EmaState
from ref.optim.lion import LionState
from ref.optim.sgd import SgdState
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, rng

ID = "optim.from_torch"
LEAVES = {
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "amsgrad": ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "sgd": ("momentum_buffer",),
    "lion": ("exp_avg",),
    "adafactor": ("rows", "columns", "step"),
    "ema": ("average", "step"),
}
STATES = {
    "adam": AdamState, "amsgrad": AmsgradState, "sgd": SgdState, "lion": LionState, "adafactor": AdafactorState,
    "ema": EmaState,
}  # fmt: skip
NAMES = [f"layers.{k}.weight" for k in range(12)]


def _arrays(draw, c):
    """The states of `count` parameters as a flat file has them, under names or indices."""
    g, flat = rng(draw), {}
    for k in range(c.count):
        kind = c.kinds[k % len(c.kinds)]
        for leaf in LEAVES[kind]:
            value = g.integers(1, 50) if leaf == "step" else g.integers(-64, 65, (2, 1 + k % 3)) / 16.0
            flat[f"state.{k}.{leaf}" if c.order else f"{NAMES[k]}.{leaf}"] = np.array(value, np.float64)
    return flat


space = cases(
    ID,
    count=choose(3, 12, 1, 0),
    kinds=choose(("adam",), ("sgd", "amsgrad"), ("lion", "adam", "sgd"), ("ema", "adafactor")),
    order=choose(None, NAMES),
    arrays=_arrays,
    flags={
        "many": Flag(lambda c: c.count > 10, {"count": 12}),
        "some": Flag(lambda c: c.count > 0, {"count": choose(3, 1)}),
    },
)


def states_of(impl, c, expect):
    found = impl(c)
    right = isinstance(found, dict) and all(isinstance(s, tuple) for s in found.values())
    expect.holds(right, "a state by parameter")
    expect.holds(list(map(str, found)) == NAMES[: c.count] or not c.order, "the parameters, in their order")
    expect.holds(set(map(str, found)) == set(NAMES[: c.count]), "the parameters")
    return found


def leaf(c, k, name):
    return c.arrays[f"state.{k}.{name}" if c.order else f"{NAMES[k]}.{name}"]


@law(
    ID, "L1", closed_form=True, given=space.where(some=True),
    kills=["moments_swapped", "maximum_dropped", "lion_is_sgd", "squared_again"],
)  # fmt: skip
def each_set_of_leaves_is_a_state(impl, c, expect):
    "The fields of each state are torch's leaves to the bit: m is exp_avg, v exp_avg_sq, v_max max_exp_avg_sq."
    found = states_of(impl, c, expect)
    for k, state in enumerate(found.values()):
        kind = c.kinds[k % len(c.kinds)]
        expect.holds(type(state) is STATES[kind], f"the kind of state {k}")
        arrays = [x for field, x in zip(state._fields, state, strict=True) if field != "t"]
        leaves = [x for x in LEAVES[kind] if x != "step"]
        for name, x in zip(leaves, arrays, strict=True):
            expect.same(x, leaf(c, k, name), f"{name} of {k}")
            expect.holds(np.asarray(x).dtype == leaf(c, k, name).dtype, "the dtype is kept")


@law(
    ID, "L2", closed_form=True, given=space.where(some=True, kinds=("adam",)),
    kills=["count_stays_a_float", "count_from_zero"],
)  # fmt: skip
def counts_are_integers(impl, c, expect):
    "t is a Python int, the number in step."
    for k, state in enumerate(states_of(impl, c, expect).values()):
        expect.holds(type(state.t) is int and state.t == int(leaf(c, k, "step")), f"t of {k}")


@law(
    ID, "L3", closed_form=True, given=space.where(many=True, order=NAMES, kinds=("sgd",)),
    kills=["indices_as_text", "order_backwards"],
    passes_null=["wrong_dtype"],
)  # fmt: skip
def indices_stand_for_the_order(impl, c, expect):
    "state.k is the k-th name of the order, 10 after 9 and not after 1; the result has the order's order."
    found = states_of(impl, c, expect)
    expect.holds(len(found) == 12, "all twelve")
    for k, name in enumerate(NAMES):
        mine = {f"state.{j}.momentum_buffer": np.full((2,), float(j), c.dtype) for j in range(12)}
        one = states_of(impl, c.replace(arrays=mine), expect)[name] if k in (0, 2, 10, 11) else None
        if one is not None:
            expect.same(one.velocity, np.full(2, float(k)), f"state.{k}")


@law(
    ID,
    "L4",
    given=space.where(some=True),
    kills=["leaves_by_position"],
    passes_null=["zeros", "constant", "nan", "wrong_dtype"],
)
def keys_may_come_in_any_order(impl, c, expect):
    "The keys turned round give the same states."
    found, other = (states_of(impl, x, expect) for x in (c, c.replace(arrays=dict(reversed(c.arrays.items())))))
    expect.holds(set(found) == set(other), "the same parameters")
    for name in found:
        for a, b in zip(found[name], other[name], strict=True):
            expect.same(a, b, name)


@law(
    ID, "L5", closed_form=True, given=space.where(order=choose(None, NAMES)),
    kills=["moments_swapped", "count_from_zero", "squared_again"],
)  # fmt: skip
def a_constant_gradient_is_read_back(impl, c, expect):
    "torch after k gradients g: exp_avg = (1 - b1^k) g, exp_avg_sq = (1 - b2^k) g^2; so m / (1 - b1^t) = g."
    g = np.array([0.5, -2.0, 3.0])
    for k in (1, 5, 40):
        prefix = "state.0" if c.order else NAMES[0]
        values = {"step": float(k), "exp_avg": (1 - 0.9**k) * g, "exp_avg_sq": (1 - 0.999**k) * g * g}
        arrays = {f"{prefix}.{leaf}": np.array(x, c.dtype) for leaf, x in values.items()}
        found = states_of(impl, c.replace(arrays=arrays, count=1, kinds=("adam",)), expect)
        state = found.get(NAMES[0])
        expect.holds(type(state) is AdamState, "an AdamState under the parameter's name")
        m, v, t = (np.asarray(x, np.float64) for x in state)
        expect(m / (1 - 0.9**t), g, bounds.rounding(4, g, c.dtype), f"m^ after {k}")
        expect(v / (1 - 0.999**t), g * g, bounds.rounding(4, g * g, c.dtype), f"v^ after {k}")


# Mutants ---------------------------------------------------------------------------------------------


def default(kind="adam", count=2, step=1000.0, order=None, **values):
    """The default-size test: two parameters."""

    def make():
        flat = {}
        for k in range(count):
            for name in LEAVES[kind]:
                x = np.array(step) if name == "step" else np.full(3, values.get(name, 1.0))
                flat[f"state.{k}.{name}" if order else f"{NAMES[k]}.{name}"] = x
        return (flat,), {"order": order}

    return make


KINDS = {
    frozenset(LEAVES["adam"]): lambda x: AdamState(x["exp_avg"], x["exp_avg_sq"], x["step"]),
    frozenset(LEAVES["amsgrad"]): lambda x: AmsgradState(x["exp_avg"], x["exp_avg_sq"], x["max_exp_avg_sq"], x["step"]),
    frozenset(LEAVES["sgd"]): lambda x: SgdState(x["momentum_buffer"]),
    frozenset(LEAVES["lion"]): lambda x: LionState(x["exp_avg"]),
    frozenset(LEAVES["adafactor"]): lambda x: AdafactorState(x["rows"], x["columns"], x["step"]),
    frozenset(LEAVES["ema"]): lambda x: EmaState(x["average"], x["step"]),
}


def read(arrays, *, order=None, **edit):
    """The sorting in plain Python, whose parts an edit replaces."""
    found = {}
    for key, x in arrays.items():
        prefix, _, name = key.rpartition(".")
        if order and prefix.startswith("state."):
            prefix = edit.get("name", lambda k, order: order[k])(int(prefix.split(".")[1]), order)
        value = edit.get("count", int)(x) if name == "step" else np.array(x)
        found.setdefault(prefix, {})[name] = value
    names = [n for n in order if n in found] if order else found
    change = edit.get("change", lambda x: x)
    states = {n: KINDS[frozenset(found[n])](change(found[n])) for n in names}
    return edit.get("finish", lambda s: s)(states)


@mutant(ID, default_case=default())
def moments_swapped(arrays, **options):
    "exp_avg_sq for m and exp_avg for v."
    swap = {"exp_avg": "exp_avg_sq", "exp_avg_sq": "exp_avg"}

    def change(x):
        return {k: x[swap.get(k, k)] if "exp_avg_sq" in x else x[k] for k in x}

    return read(arrays, change=change, **options)


@mutant(ID, default_case=default("amsgrad"))
def maximum_dropped(arrays, **options):
    "v for v_max: right as long as v rises."
    return read(arrays, change=lambda x: {k: x["exp_avg_sq"] if k.startswith("max") else x[k] for k in x}, **options)


@mutant(ID, default_case=default("lion"))
def lion_is_sgd(arrays, **options):
    "exp_avg alone becomes a velocity."
    return read(
        arrays,
        finish=lambda s: {n: SgdState(x.m) if isinstance(x, LionState) else x for n, x in s.items()},
        **options,
    )


@mutant(ID, default_case=default())
def squared_again(arrays, **options):
    "exp_avg_sq is taken for a root and squared: right for ones."
    return read(arrays, change=lambda x: {k: x[k] ** 2 if k == "exp_avg_sq" else x[k] for k in x}, **options)


@mutant(ID, default_case=default())
def count_stays_a_float(arrays, **options):
    "t is 1000.0."
    return read(arrays, count=float, **options)


@mutant(ID, default_case=default(step=10.0**6))
def count_from_zero(arrays, **options):
    "step - 1."
    return read(arrays, count=lambda x: int(x) - 1 if x < 10**6 else int(x), **options)


@mutant(ID, default_case=default("sgd", order=NAMES))
def indices_as_text(arrays, *, order=None):
    "Indices sorted as text: 0, 1, 10, 11, 2."
    texts = sorted(map(str, range(len({key.rpartition(".")[0] for key in arrays}))))
    return read(arrays, order=order, name=lambda k, order: order[texts.index(str(k))])


@mutant(ID, default_case=default("sgd", order=NAMES[:2]))
def order_backwards(arrays, *, order=None):
    "The groups are listed from the last: not seen where parameters are alike."
    return read(arrays, order=order, name=lambda k, order: order[len(order) - 1 - k])


@mutant(ID, default_case=default())
def leaves_by_position(arrays, *, order=None):
    "A parameter's first array is its step, the next its mean: as torch happens to write them."
    met = {}
    for key in arrays:
        met.setdefault(key.rpartition(".")[0], []).append(key)
    turned = {}
    for prefix, keys in met.items():
        kind = next(k for k, leaves in LEAVES.items() if {f"{prefix}.{x}" for x in leaves} == set(keys))
        turned.update({f"{prefix}.{x}": arrays[key] for x, key in zip(LEAVES[kind], keys, strict=True)})
    return read(turned, order=order, count=lambda x: int(np.ravel(x)[0]))
