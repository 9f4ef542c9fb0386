"""What the temporal-difference updates share: transitions in rows, and a step of a table towards its targets.

Transitions come as [k n]: k rows, one after the other, of n transitions that all see the table as it was before their
row. n = 1 is the usual algorithm, one transition at a time; k = 1 with every state once is a synchronous sweep; rows of
a batch, again and again, are batch updating. Where a row meets an entry twice, its moves add up.
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import check_gamma


def check_steps(function, gamma, rates, sizes, **indices):
    """Validate rates and indices ({name: (array, size)}); returns the namespace.

    Raises
    ------
    ValueError
        gamma or a rate out of range, or an index that is not there.
    """
    check_gamma(function, gamma)
    xp = namespace(rates)
    if not bool(xp.all((rates >= 0) & (rates <= 1))):
        raise ValueError(f"{function}: rates hold a number outside [0, 1]; needed 0 <= rate <= 1")
    for name, index in indices.items():
        size = sizes["A" if "actions" in name else "S"]
        if bool(xp.any((index < 0) | (index >= size))):
            bad = int(xp.min(index)) if int(xp.min(index)) < 0 else int(xp.max(index))
            raise ValueError(f"{function}: {name} holds {bad}; needed 0 .. {size - 1}")
    return xp


def toward(xp, table, index, target, rate):
    """table[m] with rate (target - table[index]) added at index[n]."""
    move = rate * (target - xp.take(table, index, axis=0))
    return table + xp.scatter_add(table.shape, index, move)


def worth(xp, rewards, later, terminated, gamma):
    """r + gamma (1 - terminated) later; what is later is not read where the step terminated."""
    return rewards + gamma * xp.where(terminated, 0.0, later)
