"""Laws and mutants of sampling bit after bit."""

from __future__ import annotations

import itertools
import math

import numpy as np

from autodiff import namespace
from ref.density.common_laws import WHOLE, sigmoid, strings
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "density.autoregressive_sample"


def parity(signs, order):
    """Logits s_i log 3 times (-1) to the number of ones before bit i: probabilities of 1/4, 1/2 and 3/4."""

    def conditional(x):
        xp, columns, turn = namespace(x), [None] * len(order), 0 * x[..., 0] + 1
        for i in order:
            columns[i] = turn * (float(signs[i]) * math.log(3))
            turn = turn * (1 - 2 * x[..., i])
        return xp.stack(columns, axis=-1) if columns else x

    return conditional


def draw_order(draw, c):
    return rng(draw).permutation(c.n).tolist() if c.ordered else None


space = cases(
    ID,
    B=batch(2, 3, large=60),
    n=dims(0, 5, large=20),
    u=lambda draw, c: (2 * rng(draw).integers(0, 128, (*c.B, c.n)) + 1) / 256,
    ordered=choose(False, True),
    order=draw_order,
    signs=lambda draw, c: rng(draw).integers(-1, 2, c.n),
    conditional=lambda draw, c: parity(c.signs, range(c.n) if c.order is None else c.order),
    unset={"order": {"ordered": False, "order": None}},
    flags={
        "permuted": Flag(lambda c: c.order is not None and c.n > 2 and c.order != sorted(c.order) and 0 not in c.B,
                         {"ordered": True, "n": dims(3, 5), "B": choose((3,), (2, 2))}),
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1 and c.n > 1, {"B": (2, 3), "n": dims(2, 5)}),
        "no_bits": Flag(lambda c: c.n == 0, {"n": 0}),
    },
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, dtypes=WHOLE, given=space.where(n=dims(1, 4)).reach("permuted"),
    kills=["one_pass", "zero_and_one_swapped", "most_probable", "one_number_for_all", "order_ignored"],
)  # fmt: skip
def a_grid_of_numbers_has_the_model(impl, c, expect):
    "Every u_i on the grid 1/8, 3/8, 5/8, 7/8: of the 4^n points 4^n p(x) give x, exactly; and x_i falls as u_i rises."
    grid = np.array(list(itertools.product((0.125, 0.375, 0.625, 0.875), repeat=c.n)), c.dtype)
    x = impl(c.replace(u=grid, B=(4**c.n,)))
    order = list(range(c.n)) if c.order is None else c.order
    for row in strings(c.n):
        p, turn = 1.0, 1
        for i in order:
            chance = (2 + turn * int(c.signs[i])) / 4
            p *= chance if row[i] == 1 else 1 - chance
            turn = -turn if row[i] == 1 else turn
        expect.same(int((x == row).all(-1).sum()), int(4**c.n * p), f"samples {row}")
    lowest, highest = x[0], x[-1]
    first = order[0]
    expect.holds(lowest[first] == 1 and highest[first] == 0, "the smallest number gives a one, the largest a zero")


@law(
    ID, "L2", closed_form=True, given=space.reach("rows", "no_bits"),
    kills=["zero_and_one_swapped", "most_probable", "one_number_for_all"],
)  # fmt: skip
def independent_bits_are_thresholds(impl, c, expect):
    "A model that reads nothing: x_i = 1 where u_i < sigma(b_i)."
    b = [k - c.n / 2 + 0.1 for k in range(c.n)]

    def model(x):
        return namespace(x).stack([x[..., i] * 0 + b[i] for i in range(c.n)], axis=-1) if b else x

    wanted = np.asarray(c.u, np.float64) < sigmoid(np.array(b))
    expect.same(impl(c.replace(conditional=model)), wanted.astype(np.float64))


@law(
    ID, "L3", given=space.where(n=dims(2, 5)).reach("permuted", "rows"), kills=["one_pass", "order_ignored"],
)  # fmt: skip
def the_sample_is_its_own_threshold(impl, c, expect):
    "At the sample itself, x_i = 1 where u_i < sigma(l_i(x)), for every bit."
    x = impl(c)
    chance = sigmoid(np.asarray(c.conditional(np.asarray(x, np.float64))))
    expect.same(x, (np.asarray(c.u, np.float64) < chance).astype(np.float64))


@law(
    ID, "L4", given=space.where(n=dims(1, 5)).reach("permuted"), kills=["undrawn_at_a_half", "asked_once_more"],
)  # fmt: skip
def the_model_is_asked_about_bits(impl, c, expect):
    "The model is asked n times, each time about zeros and ones, of which those not drawn yet are 0."
    asked = []

    def conditional(x):
        asked.append(np.asarray(namespace(x).to_numpy(x), np.float64))
        return c.conditional(x)

    impl(c.replace(conditional=conditional))
    expect.same(len(asked), c.n, "times asked")
    order = list(range(c.n)) if c.order is None else c.order
    for k, x in enumerate(asked):
        expect.holds(np.isin(x, (0, 1)).all() and not x[..., order[k:]].any(), f"asked about {x} as bit {k} was drawn")


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: one bit of probability 3/4."""
    return (np.array([[0.125], [0.875]]),), {"conditional": parity([1], [0])}


def certain():
    """The default-size test: a bit that is nearly certain."""
    return (np.array([[0.375], [0.625]]),), {"conditional": lambda x: 0 * x + 20}


def drawn(u, conditional, order, take=lambda u, p: u < p, number=lambda i: i):
    x = np.zeros_like(u)
    for i in range(u.shape[-1]) if order is None else order:
        x[..., i] = take(u[..., number(i)], sigmoid(conditional(x)[..., i]))
    return x


@mutant(ID, default_case=default)
def one_pass(u, *, conditional, order=None):
    "All bits from the logits of the zero string."
    return (u < sigmoid(conditional(np.zeros_like(u)))).astype(u.dtype)


@mutant(ID, default_case=lambda: ((np.zeros((2, 0)),), {"conditional": lambda x: x}))
def zero_and_one_swapped(u, *, conditional, order=None):
    "u >= p gives a one."
    return drawn(u, conditional, order, take=lambda u, p: u >= p)


@mutant(ID, default_case=certain)
def most_probable(u, *, conditional, order=None):
    "1 where p > 1/2: nothing is drawn."
    return drawn(u, conditional, order, take=lambda u, p: p > 0.5)


@mutant(ID, default_case=default)
def one_number_for_all(u, *, conditional, order=None):
    "The first number for all bits."
    return drawn(u, conditional, order, number=lambda i: 0)


@mutant(ID, default_case=default)
def order_ignored(u, *, conditional, order=None):
    "0 .. n - 1, whatever the order says."
    return drawn(u, conditional, None)


@mutant(ID, default_case=default)
def undrawn_at_a_half(u, *, conditional, order=None):
    "Bits not drawn yet are 1/2 when the model is asked: no bits at all."
    x = np.full_like(u, 0.5)
    for i in range(u.shape[-1]) if order is None else order:
        x[..., i] = u[..., i] < sigmoid(conditional(x)[..., i])
    return x


@mutant(ID, default_case=default)
def asked_once_more(u, *, conditional, order=None):
    "One call more, whose answer is thrown away."
    conditional(np.zeros_like(u))
    return drawn(u, conditional, order)
