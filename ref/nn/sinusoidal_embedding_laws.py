"""Laws and mutants of the sinusoidal embedding."""

from __future__ import annotations

import math

import numpy as np

from ref.nn.common_laws import cotangent, roundings
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "nn.sinusoidal_embedding"
space = cases(
    ID,
    B=batch(2, 3, large=60),
    half=dims(2, 5, large=64),
    channels=lambda draw, c: 2 * c.half,
    convention=choose("attention", "ddpm", "adm"),
    max_period=choose(10000.0, 100.0, 2.0),
    t=lambda draw, c: np.asarray(rng(draw).integers(-64, 1025, c.B) / 4),
    flags={
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1, {"B": (2, 3)}),
        **{name: Flag(lambda c, name=name: c.convention == name and 0 not in c.B, {"convention": name, "B": (2,)})
           for name in ("attention", "ddpm", "adm")},
    },
)  # fmt: skip


def frequency(c, i):
    """Of pair i, by logarithms."""
    return math.exp(-math.log(c.max_period) * i / (c.half - 1 if c.convention == "ddpm" else c.half))


def places(c, i):
    """(channel of the sine, channel of the cosine) of pair i."""
    return {"attention": (2 * i, 2 * i + 1), "ddpm": (i, c.half + i), "adm": (c.half + i, i)}[c.convention]


def near(c, t=None):
    """The angle is off by 4 roundings of itself, one of the frequency's; a sine by 8 of 1."""
    return roundings(c, 1, 8 + 12 * np.abs(np.asarray(c.t if t is None else t, np.float64)))[..., None]


@law(ID, "L1", closed_form=True, given=space.reach("attention", "ddpm", "adm"), kills=["cosine_first", "sine_first"],
     passes_null=["mutated"])  # fmt: skip
def time_zero(impl, c, expect):
    "t = 0: exactly 0 in the sines' channels, 1 in the cosines'."
    wanted = np.zeros((*c.B, c.channels))
    for i in range(c.half):
        wanted[..., places(c, i)[1]] = 1
    expect.same(impl(c.replace(t=np.zeros_like(c.t))), wanted)


@law(
    ID, "L2", closed_form=True, given=space.reach("attention", "ddpm", "adm", "rows"),
    kills=["cosine_first", "sine_first", "exponent_by_channel", "last_frequency_of_another", "halves_for_pairs",
           "period_for_frequency", "divided_by_the_period"],
)  # fmt: skip
def frequencies_by_name(impl, c, expect):
    "Pair i is sin f_i t and cos f_i t at its two channels; f_0 = 1, and ddpm's last is 1 / P."
    out = impl(c)
    wanted = np.zeros((*c.B, c.channels))
    for at in np.ndindex(*c.B):
        for i in range(c.half):
            s, k = places(c, i)
            angle = float(c.t[at]) * frequency(c, i)
            wanted[(*at, s)], wanted[(*at, k)] = math.sin(angle), math.cos(angle)
    expect(out, wanted, near(c) * np.ones(wanted.shape), scale=1.0)


@law(
    ID, "L3", closed_form=True, given=space.where(B=(2,)).reach("attention", "ddpm", "adm"),
    kills=["sines_alone", "exponent_by_channel"],
)  # fmt: skip
def inner_products_read_the_difference(impl, c, expect):
    "<e(s), e(t)> = sum_i cos f_i (s - t); in particular |e(t)|^2 = channels / 2."
    e, t = np.asarray(impl(c), np.float64), np.asarray(c.t, np.float64)
    limit = 3 * c.channels * float(np.max(near(c)))
    for a in range(len(t)):
        for b in range(len(t)):
            wanted = sum(math.cos(frequency(c, i) * (t[a] - t[b])) for i in range(c.half))
            expect(np.asarray(e[a] @ e[b]), np.asarray(wanted), limit, f"<e{a}, e{b}>", scale=c.half)


@law(
    ID, "L4", given=space.where(B=(2,)).reach("attention", "ddpm", "adm"),
    kills=["sines_alone", "divided_by_the_period"], passes_null=["zeros"],
)  # fmt: skip
def a_later_time_is_a_rotation(impl, c, expect):
    "e(t + k) is e(t) with pair i turned by f_i k: a linear map that does not depend on t."
    k = 3.0
    here, later = np.asarray(impl(c), np.float64), impl(c.replace(t=c.t + c.dtype.type(k)))
    wanted = np.zeros(here.shape)
    for i in range(c.half):
        s, q = places(c, i)
        cos, sin = math.cos(frequency(c, i) * k), math.sin(frequency(c, i) * k)
        wanted[..., s] = here[..., s] * cos + here[..., q] * sin
        wanted[..., q] = here[..., q] * cos - here[..., s] * sin
    limit = 4 * near(c, np.abs(c.t) + k) * np.ones(wanted.shape)
    expect(later, wanted, limit, scale=1.0)


@law(ID, "L5", closed_form=True, needs=("vjp",), given=space.reach("rows"), kills=["slope_without_the_frequency"])
def slope_in_time(impl, c, expect):
    "d / dt of sin f t is f cos f t, of cos f t is -f sin f t."
    g = cotangent(c, (*c.B, c.channels))
    wide, t = np.asarray(g, np.float64), np.asarray(c.t, np.float64)
    wanted = np.zeros(c.B)
    for i in range(c.half):
        s, k = places(c, i)
        f = frequency(c, i)
        wanted = wanted + f * (wide[..., s] * np.cos(f * t) - wide[..., k] * np.sin(f * t))
    limit = (c.channels * near(c)[..., 0] + roundings(c, 2 * c.channels, np.ones(c.B))) * 2
    expect(impl.vjp(c, g)["t"], wanted, limit, "dt", scale=c.channels)


# Mutants ---------------------------------------------------------------------------------------------


def default(t=0.0, **options):
    """The default-size test: time 0, one pair (two under ddpm)."""
    return lambda: ((np.array([t]),), {"channels": 4, **options})


def made(t, channels, convention, max_period, *, exponent=None, order=None, angle=lambda t, f: t * f, cos=np.cos):
    half = channels // 2
    last = half - 1 if convention == "ddpm" else half
    f = max_period ** -np.array([exponent(i, half, last) if exponent else i / last for i in range(half)])
    a = angle(t[..., None], f.astype(t.dtype))
    s, k = np.sin(a), cos(a)
    order = order or convention
    if order == "attention":
        return np.stack([s, k], -1).reshape(*t.shape, channels).astype(t.dtype)
    return np.concatenate([s, k] if order == "ddpm" else [k, s], -1).astype(t.dtype)


def _mutant(name, doc, default_case, **edit):
    def wrong(t, *, channels, convention="attention", max_period=10000.0):
        options = {k: v(convention) if k == "order" else v for k, v in edit.items()}
        return made(t, channels, convention, max_period, **options)

    wrong.__name__, wrong.__doc__ = name, doc
    mutant(ID, default_case=default_case)(wrong)


_mutant("cosine_first", "adm's halves where ddpm's are asked.", default(),
        order=lambda name: "adm" if name == "ddpm" else name)  # fmt: skip
_mutant("sine_first", "ddpm's halves where adm's are asked.", default(),
        order=lambda name: "ddpm" if name == "adm" else name)  # fmt: skip
_mutant("halves_for_pairs", "Sines, then cosines, where they are to alternate.",
        lambda: ((np.array([0.0]),), {"channels": 2}),
        order=lambda name: "ddpm" if name == "attention" else name)  # fmt: skip
_mutant("exponent_by_channel", "P^(-2 i / h): the channel's number taken for the pair's.", default(),
        exponent=lambda i, half, last: 2 * i / last)  # fmt: skip
_mutant("last_frequency_of_another", "i / h and i / (h - 1) confused.", default(),
        exponent=lambda i, half, last: i / (half if last == half - 1 else max(half - 1, 1)))  # fmt: skip
_mutant("period_for_frequency", "2 pi t over the period: P is no wavelength.", default(),
        angle=lambda t, f: 2 * np.pi * t * f)  # fmt: skip
_mutant("sines_alone", "cos(f t) computed as sin(f t + 1.57).", default(convention="adm", t=0.0),
        cos=lambda a: np.sin(a + 1.57) + (1 - np.sin(1.57)) * (a == 0))  # fmt: skip
_mutant("divided_by_the_period", "t is scaled by 1 / P first.", default(),
        angle=lambda t, f: t / 10000 * f)  # fmt: skip


def _slope(t, *, channels, convention="attention", max_period=10000.0):
    "The embedding; its slope lacks the factor f."
    return made(t, channels, convention, max_period)


def _vjp(g, t, *, channels, convention="attention", max_period=10000.0):
    turned = made(t + np.pi / 2, channels, convention, max_period, exponent=lambda i, half, last: 0)
    return {"t": (g * turned).sum(-1).astype(t.dtype)}


_slope.__name__ = "slope_without_the_frequency"
mutant(ID, vjp=_vjp, default_case=default())(_slope)
