"""Laws and mutants of the change of rotary layout."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import cotangent, f64, roundings, turned_by
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims

ID = "nn.rope_layout"
space = cases(
    ID, heads=dims(1, 3), pairs=dims(1, 4), O=lambda draw, c: 2 * c.heads * c.pairs, I=dims(0, 3),
    to=choose("half", "interleaved"),
    flags={"rich": Flag(lambda c: min(c.heads, c.I) > 1 and c.pairs > 2,
                        {"heads": dims(2, 3), "pairs": dims(3, 4), "I": dims(2, 3)})},
)  # fmt: skip


def places(c):
    """(row when interleaved, row when halved) of every output channel."""
    d = 2 * c.pairs
    channels = [(h * d, i, j) for h in range(c.heads) for i in range(c.pairs) for j in (0, 1)]
    return [(at + 2 * i + j, at + j * c.pairs + i) for at, i, j in channels]


def carried(c, weight, to):
    out = np.zeros_like(weight)
    for a, b in places(c):
        out[b if to == "half" else a] = weight[a if to == "half" else b]
    return out


@law(
    ID, "L1", closed_form=True, given=space.reach("rich"),
    kills=["heads_mixed", "directions_swapped", "halves_exchanged", "always_to_half"],
)  # fmt: skip
def a_row_has_its_place(impl, c, expect):
    "Interleaved row h d + 2 i + j is half row h d + j d / 2 + i, to the bit."
    expect.same(impl(c), carried(c, c.weight, c.to))


@law(
    ID, "L2", given=space.reach("rich"), kills=["always_to_half", "halves_exchanged"], passes_null=["identity"],
)  # fmt: skip
def there_and_back(impl, c, expect):
    "To one layout and to the other: the same bits."
    other = {"half": "interleaved", "interleaved": "half"}[c.to]
    expect.same(impl(c.replace(weight=impl(c), to=other)), c.weight)


@law(
    ID, "L3", closed_form=True, given=space.where(I=dims(1, 3), to="half").reach("rich"),
    kills=["heads_mixed", "directions_swapped"],
)  # fmt: skip
def scores_are_those_of_the_other_layout(impl, c, expect):
    "<R_m W x, R_n W y> with interleaved pairs is <R_m W' x, R_n W' y> with halves, for each head."
    x = np.cos(np.arange(2 * c.I)).reshape(2, c.I)
    scores = []
    for weight, layout in ((f64(c, "weight")[0], "interleaved"), (np.asarray(impl(c), np.float64), "half")):
        rows = np.moveaxis((x @ weight.T).reshape(2, c.heads, 2 * c.pairs), 0, 1)
        turned = turned_by(rows, lambda i: np.array([2.0, 7.0]) / (1 + i), layout)  # positions 2 and 7
        scores.append((turned[:, 0] * turned[:, 1]).sum(-1))
    size = (np.abs(x).sum() * np.abs(c.weight).sum()) ** 2
    expect(scores[1], scores[0], roundings(c, 8, size), "scores", scale=size)


@law(ID, "L4", closed_form=True, needs=("vjp",), given=space.reach("rich"), kills=["gradient_not_carried"])
def gradient_is_carried_back(impl, c, expect):
    "dW is g with its rows carried to where they came from."
    g = cotangent(c, c.weight.shape)
    back = {"half": "interleaved", "interleaved": "half"}[c.to]
    expect.same(impl.vjp(c, g)["weight"], carried(c, g, back), "dweight")


def one_pair():
    """The default-size test: heads of one pair, which no change of layout moves."""
    return (np.random.default_rng(0).standard_normal((6, 4)),), {"heads": 3}


def edited(weight, *, heads, to="half", split=None):
    n = weight.shape[0] // (2 * heads)
    split = split or ((heads, n, 2, -1) if to == "half" else (heads, 2, n, -1))
    return weight.reshape(*split[:3], weight.shape[1]).swapaxes(1, 2).reshape(weight.shape).copy()


@mutant(ID, default_case=lambda: ((np.arange(2.0).reshape(2, 1),), {"heads": 1}))
def heads_mixed(weight, *, heads, to="half"):
    "All rows as one head."
    return edited(weight, heads=1, to=to)


@mutant(ID, thread="candle#3948", default_case=one_pair)
def directions_swapped(weight, *, heads, to="half"):
    "From half to interleaved when asked for the other."
    return edited(weight, heads=heads, to="interleaved" if to == "half" else "half")


@mutant(ID, default_case=one_pair)
def always_to_half(weight, *, heads, to="half"):
    "`to` is accepted and dropped."
    return edited(weight, heads=heads)


@mutant(ID, default_case=lambda: ((np.ones((6, 4)),), {"heads": 3}))
def halves_exchanged(weight, *, heads, to="half"):
    "The second of each pair first."
    pairs = weight.reshape(weight.shape[0] // 2, 2, weight.shape[1])
    return edited(pairs[:, ::-1].reshape(weight.shape), heads=heads, to=to)


@mutant(ID, default_case=one_pair, vjp=lambda g, weight, **options: (g.copy(),))
def gradient_not_carried(weight, **options):
    "The cotangent passed through."
    return edited(weight, **options)
