"""Which steps of a schedule a shorter sampler visits.

Source: Song, Meng & Ermon 2021 (2010.02502) App. D.2 for "leading"; Lin et al. 2024 (2305.08891) sec. 3.3, Table 2, for
"linspace" and "trailing".

    leading     tau_i = 1 + (i - 1) floor(T / S)
    linspace    tau_i = round(1 + (i - 1) (T - 1) / (S - 1))
    trailing    tau_i = round(i T / S)                          i = 1 .. S

Notation
    T -> total, S -> count; tau rises from the step nearest the data.

Conventions
    C1  Steps are 1 .. T, as in DDPM; libraries that count from 0 print one less.
    C2  "leading" ends short of T, so the sampler starts from noise that the model has never seen at that step;
        "trailing" and "linspace" end at T. The paper on flaws recommends "trailing".
    C3  S need not divide T. "leading" then has all gaps floor(T / S); the others have gaps that differ, so that a
        sampler must read its previous step from the list, never compute t - T / S.
    C4  Halves round to even, as NumPy rounds.

Laws
    L1 ends_of_each_spacing                  L2 gaps_differ_by_at_most_one
    L3 all_steps_are_all_steps               L4 they_rise_within_the_schedule
    L5 each_is_nearest_to_its_place
"""

from __future__ import annotations

import numpy as np

from ref.diffusion.linear_schedule import check_steps
from ref.spec import spec

SPACINGS = ("leading", "linspace", "trailing")


@spec("diffusion.timesteps", "total:int[], count:int[] -> :int[count]", backends=("numpy",))
def timesteps(total, count, *, spacing="leading"):
    """The rising steps tau_1 < .. < tau_S out of 1 .. T.

    Parameters
    ----------
    total, count : int
        T and S, 1 <= S <= T.
    spacing : "leading", "linspace" or "trailing"

    Returns
    -------
    int64[count]

    Raises
    ------
    ValueError
        total < 1, count outside 1 .. total, or an unknown spacing.
    TypeError
        Not integers.

    Complexity: S operations.

    >>> [timesteps(10, 4, spacing=s).tolist() for s in SPACINGS]
    [[1, 3, 5, 7], [1, 4, 7, 10], [2, 5, 8, 10]]
    """
    T, S = check_steps("timesteps", total), check_steps("timesteps", count)
    if S > T:
        raise ValueError(f"timesteps: count={S} of total={T} steps; needed count <= total")
    if spacing not in SPACINGS:
        raise ValueError(f"timesteps: spacing={spacing!r}; needed one of {SPACINGS}")
    i = np.arange(1, S + 1)
    if spacing == "leading":
        return 1 + (i - 1) * (T // S)
    if spacing == "linspace":
        return np.round(1 + (i - 1) * (T - 1) / max(S - 1, 1)).astype(np.int64)
    return np.round(i * T / S).astype(np.int64)


def check_rising(function, steps, total):
    """`steps` as a list of ints; ValueError unless they rise strictly within 1 .. total."""
    steps = [int(t) for t in steps]
    if not steps:
        raise ValueError(f"{function}: steps is empty; needed at least one step of 1 .. {total}")
    for before, t in zip([0, *steps[:-1]], steps, strict=True):
        if not 1 <= t <= total:
            raise ValueError(f"{function}: steps has t={t}; needed steps in 1 .. {total}")
        if t <= before:
            raise ValueError(f"{function}: steps has {t} after {before}; needed a strictly rising subsequence")
    return steps
