"""Laws and mutants of the spacings of steps."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import DOUBLE, integer
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, rng

ID = "diffusion.timesteps"

space = cases(
    ID,
    total=integer(*range(1, 25), 100, 1000),
    count=lambda draw, c: np.array(rng(draw).integers(1, min(int(c.total), 30) + 1)),
    spacing=choose("leading", "linspace", "trailing"),
    flags={
        "divides": Flag(lambda c: c.total % c.count == 0, {"total": integer(12), "count": integer(1, 2, 3, 4, 6, 12)}),
        "ragged": Flag(
            lambda c: c.total % c.count != 0 and c.count > 2, {"total": integer(11, 13, 100), "count": integer(3, 4, 7)}
        ),
        "one": Flag(lambda c: c.count == 1, {"count": integer(1)}),
    },
)


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=space.reach("divides", "ragged", "one"),
    kills=["from_zero", "leading_always", "stretched_leading", "falling"],
)  # fmt: skip
def ends_of_each_spacing(impl, c, expect):
    """leading: 1 .. 1 + (S - 1) floor(T / S); linspace: 1 .. T; trailing: the nearest to T / S .. T (S = 1 has only the
    first end of linspace)."""
    T, S = int(c.total), int(c.count)
    found = impl(c).tolist()
    first, last = {
        "leading": ((1,), 1 + (S - 1) * (T // S)),
        "linspace": ((1,), T if S > 1 else 1),
        "trailing": ((T // S, -(-T // S)), T),
    }[c.spacing]
    expect.holds(found[0] in first, f"tau_1 = {found[0]} is of {first}")
    expect.same(found[-1], last, "tau_S")


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=space.reach("divides", "ragged"),
    kills=["squared", "stretched_leading"],
)  # fmt: skip
def gaps_differ_by_at_most_one(impl, c, expect):
    "All gaps are floor or ceil of T / S (leading: floor alone; linspace: of (T - 1) / (S - 1))."
    T, S = int(c.total), int(c.count)
    gaps = np.diff(impl(c))
    step = (T - 1) / max(S - 1, 1) if c.spacing == "linspace" else T / S
    expect.holds(len(gaps) == S - 1, f"{S} steps")
    expect.at_most(gaps, np.floor(step) if c.spacing == "leading" else np.ceil(step), "a gap")
    expect.at_most(-gaps, -np.floor(step), "minus a gap")


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE,
    given=space.where(total=integer(*range(2, 25)), count=lambda draw, c: c.total.copy()),
    kills=["from_zero", "squared", "falling"],
)  # fmt: skip
def all_steps_are_all_steps(impl, c, expect):
    "S = T: 1, 2, .. T, in every spacing."
    expect.same(impl(c), np.arange(1, int(c.total) + 1), "tau")


@law(
    ID, "L4", closed_form=True, dtypes=DOUBLE, given=space.where(count=lambda draw, c: c.total.copy()).reach("one"),
    kills=["falling", "from_zero"],
)  # fmt: skip
def they_rise_within_the_schedule(impl, c, expect):
    "1 <= tau_1 < .. < tau_S <= T."
    found = np.concatenate([[0], impl(c), [int(c.total) + 1]])
    expect.holds(bool(np.all(np.diff(found[:-1]) > 0) and found[-2] < found[-1]), "1 <= tau_1 < .. < tau_S <= T")


@law(
    ID, "L5", closed_form=True, dtypes=DOUBLE, given=space.where(ragged=True, spacing=choose("linspace", "trailing")),
    kills=["floor_for_round", "leading_always"],
)  # fmt: skip
def each_is_nearest_to_its_place(impl, c, expect):
    "tau_i is within 1/2 of 1 + (i - 1) (T - 1) / (S - 1) (linspace) or i T / S (trailing)."
    T, S = int(c.total), int(c.count)
    i = np.arange(1, S + 1)
    place = 1 + (i - 1) * (T - 1) / (S - 1) if c.spacing == "linspace" else i * T / S
    expect(impl(c) * 1.0, place, 0.5, "tau", scale=T)


# Mutants ---------------------------------------------------------------------------------------------


def of(total, count, spacing="leading"):
    return lambda: ((np.array(total), np.array(count)), {"spacing": spacing})


def spaced(total, count, spacing, **edit):
    """The three formulas, which an edit replaces."""
    T, S, i = int(total), int(count), np.arange(1, int(count) + 1)
    rule = {
        "leading": lambda: 1 + (i - 1) * (T // S),
        "linspace": lambda: np.round(1 + (i - 1) * (T - 1) / max(S - 1, 1)),
        "trailing": lambda: np.round(i * T / S),
        **edit,
    }
    return rule[spacing]().astype(np.int64)


@mutant(ID, default_case=of(10, 4, "linspace"))
def from_zero(total, count, *, spacing="leading"):
    "leading from 0: a step that no model was trained on, and the last one missing."
    i, stride = np.arange(int(count)), int(total) // int(count)
    return spaced(total, count, spacing, leading=lambda: i * stride)


@mutant(ID, default_case=of(1000, 20))
def leading_always(total, count, *, spacing="leading"):
    "The spacing is ignored."
    return spaced(total, count, "leading")


@mutant(ID, thread="diffusers#12633", default_case=of(12, 4))
def stretched_leading(total, count, *, spacing="leading"):
    "leading with gaps round(T / S): past T where S does not divide T."
    i, T, S = np.arange(int(count)), int(total), int(count)
    return spaced(total, count, spacing, leading=lambda: np.minimum(1 + i * round(T / S), T))


@mutant(ID, default_case=of(12, 4, "trailing"))
def floor_for_round(total, count, *, spacing="leading"):
    "Rounded down: the same where S divides T."
    i, T, S = np.arange(1, int(count) + 1), int(total), int(count)
    return spaced(
        total, count, spacing,
        linspace=lambda: np.floor(1 + (i - 1) * (T - 1) / max(S - 1, 1)), trailing=lambda: np.floor(i * T / S),
    )  # fmt: skip


@mutant(ID, default_case=of(10, 1))
def falling(total, count, *, spacing="leading"):
    "From the noisiest step down."
    return spaced(total, count, spacing)[::-1].copy()


@mutant(ID, default_case=of(10, 1))
def squared(total, count, *, spacing="leading"):
    "DDIM's quadratic spacing, under the names of the even ones."
    i, T, S = np.arange(int(count)), int(total), int(count)
    quadratic = lambda: np.floor((i / S) ** 2 * (T - 1)) + 1  # noqa: E731
    return spaced(total, count, spacing, leading=quadratic)
