"""Laws and mutants of ALiBi."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, ints

ID = "attention.alibi"
DOUBLE = ("float64",)  # a rule's bias is cast to the logits' dtype where it is added
space = cases(
    ID, T=dims(0, 4), S=dims(0, 5), heads=dims(1, 20), rows=ints("T", 0, 40), columns=ints("S", 0, 40),
    rule=choose("closest_power", "geometric"),
    flags={"odd": Flag(lambda c: c.heads & (c.heads - 1), {"heads": choose(3, 5, 6, 7, 12, 20)})},
)  # fmt: skip
one = space.where(T=1, S=1, rows=np.array([3]), columns=np.array([2]))  # a distance of 1: the slopes themselves


def bound(wanted):
    return bounds.rounding(10, np.abs(wanted), "float64")


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=one.where(heads=choose(1, 2, 4, 8, 16)),
    kills=["starts_at_one", "slopes_of_eight_heads", "half_the_exponent"],
)  # fmt: skip
def a_power_of_two_is_a_geometric_row(impl, c, expect):
    "n = 2^k: m_1 = 2^{-8 / n}, each the m_1-th of the one before, down to 2^{-8}, by any rule."
    first = 2.0 ** (-8 / c.heads)
    wanted = -np.cumprod(np.full(c.heads, first))
    expect(impl(c)[:, 0, 0], wanted, bounds.rounding(10 * c.heads, np.abs(wanted), "float64"))
    expect(wanted[-1], -(2.0**-8), bounds.rounding(10 * c.heads, 2.0**-8, "float64"), "the last")


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=one.where(odd=True),
    kills=["rule_ignored", "always_geometric", "others_first", "not_every_other_one"],
)  # fmt: skip
def other_numbers_follow_the_named_rule(impl, c, expect):
    "Exponents: closest_power has 8/p, 16/p .. 8, then 4/p, 12/p .., p the power of two below n; geometric 8/n .. 8."
    p = max(2**k for k in range(6) if 2**k <= c.heads)
    if c.rule == "geometric":
        exponents = [8 * h / c.heads for h in range(1, c.heads + 1)]
    else:
        exponents = [8 * h / p for h in range(1, p + 1)] + [8 * (h + 0.5) / p for h in range(c.heads - p)]
    wanted = -(2.0 ** -np.array(exponents))
    expect(impl(c)[:, 0, 0], wanted, bound(wanted))


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=space.where(heads=choose(2, 8)),
    kills=["growing", "future_not_lowered", "slopes_of_eight_heads"],
)  # fmt: skip
def the_bias_is_a_slope_times_a_distance(impl, c, expect):
    "- 2^{-8 h / n} |i - j|, a row and a column at a time."
    wanted = np.zeros((c.heads, c.T, c.S))
    for h, i, j in np.ndindex(wanted.shape):
        wanted[h, i, j] = -(2.0 ** (-8 * (h + 1) / c.heads)) * abs(int(c.rows[i]) - int(c.columns[j]))
    expect(impl(c), wanted, bound(wanted))


@law(
    ID, "L4", dtypes=DOUBLE, given=space, kills=["falls_with_the_row"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def a_shift_of_both_is_invisible(impl, c, expect):
    "Rows and columns moved together: the same bits."
    expect.same(impl(c.replace(rows=c.rows + 7, columns=c.columns + 7)), impl(c))


def one_distance():
    return (np.array([3]), np.array([3])), {"heads": 8}


def row(n, start=1):
    return 2.0 ** (-8 * np.arange(start, n + start) / n)


def edited(rows, columns, *, heads, rule="closest_power", slopes=None, distance=None):
    p = 2 ** int(np.log2(heads))
    made = row(p)
    if rule == "geometric":
        made = row(heads)
    elif p != heads:
        made = np.concatenate((row(p), row(2 * p)[::2]))[:heads]
    made = made if slopes is None else slopes(heads, made)
    far = np.abs(rows[:, None] - columns) if distance is None else distance(rows[:, None], columns)
    return np.asarray(made, np.float64)[:, None, None] * -far.astype(np.float64)


def _mutant(name, doc, **edit):
    def function(rows, columns, *, heads, rule="closest_power"):
        return edited(rows, columns, heads=heads, **{"rule": rule, **edit})

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=one_distance)(function)


_mutant("starts_at_one", "h counted from 0: the first head has slope 1.", slopes=lambda n, m: row(n, 0))
_mutant("slopes_of_eight_heads", "1/2, 1/4, 1/8 .. for any number.", slopes=lambda n, m: 2.0 ** -np.arange(1, n + 1))
_mutant("half_the_exponent", "2^{-4 h / n}.", slopes=lambda n, m: np.sqrt(m))
_mutant("rule_ignored", "The authors' rule, whatever is named.", rule="closest_power")
_mutant("always_geometric", "The formula for any n.", rule="geometric")
_mutant("others_first", "The slopes between come first.",
        slopes=lambda n, m: m if n & (n - 1) == 0 else np.roll(m, n - 2 ** int(np.log2(n))))  # fmt: skip
_mutant("not_every_other_one", "The first slopes of 2 p, not every other one.",
        slopes=lambda n, m: m if n & (n - 1) == 0 else np.concatenate(
            (row(2 ** int(np.log2(n))), row(2 * 2 ** int(np.log2(n)))))[:n])  # fmt: skip
_mutant("growing", "The sign forgotten.", distance=lambda i, j: -np.abs(i - j))
_mutant("future_not_lowered", "Only the past is lowered; the future is raised.", distance=lambda i, j: i - j)
_mutant("falls_with_the_row", "- m i, which a softmax does not see, in place of the distance.",
        distance=lambda i, j: i - 3 + 0 * j)  # fmt: skip
