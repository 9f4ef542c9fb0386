"""Laws and mutants of the conversions between predictions."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import leading, levels_of, over
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, floats

ID = "diffusion.convert"
FORMS = ("eps", "x0", "v", "score")

space = cases(
    ID,
    S=batch(2, 3, large=50),
    T=leading,
    x0=floats("*S"),
    eps=floats("*S"),
    variance_preserving=choose(True, False),
    scale=lambda draw, c: levels_of(draw, c)[0],
    std=lambda draw, c: levels_of(draw, c)[1],
    source=choose(*FORMS),
    target=choose(*FORMS),
    flags={
        "per_example": Flag(
            lambda c: len(c.T) == 1 and len(c.S) == 2, {"S": choose((2, 3), (3, 2)), "T": lambda draw, c: c.S[:1]}
        ),
        "everywhere": Flag(lambda c: np.prod(c.S, dtype=int) > 0, {"S": choose((), (2,), (3, 2), (2, 1))}),
    },
)


def forms(c):
    """x and its four forms by the definitions, in float64, and the size of what is divided."""
    a, b = over(c.scale, c.S), over(c.std, c.S)
    x0, eps = np.asarray(c.x0, np.float64), np.asarray(c.eps, np.float64)
    found = {"eps": eps, "x0": x0, "v": a * eps - b * x0, "score": -eps / b}
    return a * x0 + b * eps, found, a, b


def case_of(c, source, target):
    """The case whose x and output are those of the drawn x_0 and eps, rounded to its dtype, and the wanted result."""
    x, found, a, b = forms(c)
    now = c.replace(x=x.astype(c.dtype), output=found[source].astype(c.dtype), source=source, target=target)
    # Rounding x and the output moves the result by u times the weights; the formula adds a few more.
    size = (np.abs(x) + np.abs(found[source])) * (1 / (a * b) + 1 / b**2 + (a * a + b * b) * (1 / a + 1 / b) + 1)
    return now, found[target], bounds.rounding(12, size, c.dtype)


everywhere = space.where(everywhere=True)


@law(
    ID, "L1", closed_form=True, given=everywhere.reach("per_example"),
    kills=["v_of_the_other_sign", "variances_for_deviations", "score_without_its_std", "score_of_the_other_sign",
           "alpha_for_its_root", "variance_preserved_always", "scale_of_the_last_axis"],
)  # fmt: skip
def one_point_in_every_form(impl, c, expect):
    "x = a x_0 + b eps: eps, x_0, v = a eps - b x_0 and score = -eps / b come out of each other."
    now, wanted, bound = case_of(c, c.source, c.target)
    expect(impl(now), wanted, bound, f"{c.source} to {c.target}", scale=max(np.max(np.abs(bound)) * 4, 1.0))


@law(
    ID, "L2", given=everywhere.where(source=choose("eps", "x0"), target=choose("v", "score")),
    kills=["inverse_missing"], passes_null=["identity"],
)  # fmt: skip
def there_and_back(impl, c, expect):
    "To another form and back at the same x: the output that was given."
    now, _, bound = case_of(c, c.source, c.target)
    there = impl(now)
    back = impl(now.replace(output=there, source=c.target, target=c.source))
    a, b = over(c.scale, c.S), over(c.std, c.S)
    wide = bound * 2 * (1 + 1 / a + 1 / b) * (1 + a + b) ** 2
    expect(back, now.output, wide, scale=max(np.max(wide) * 4, 1.0))


@law(
    ID, "L3", closed_form=True, given=everywhere.where(source="eps", target="v", variance_preserving=True),
    kills=["variances_for_deviations", "alpha_for_its_root"],
)  # fmt: skip
def v_is_a_rotation(impl, c, expect):
    "a^2 + b^2 = 1: x^2 + v^2 = x_0^2 + eps^2, entry by entry."
    now, wanted, bound = case_of(c, "eps", "v")
    v = np.asarray(impl(now), np.float64)
    size = np.asarray(c.x0, np.float64) ** 2 + np.asarray(c.eps, np.float64) ** 2
    found = np.asarray(now.x, np.float64) ** 2 + v**2
    limit = (np.abs(v) + np.abs(wanted)) * bound + bounds.rounding(8, size, c.dtype)
    expect(found, size, limit + 1e-30, scale=max(4 * np.max(limit, initial=0), 1.0))


@law(
    ID, "L4", closed_form=True, needs=("vjp",), given=everywhere,
    kills=["gradient_of_x_dropped"],
)  # fmt: skip
def affine_in_its_two_arguments(impl, c, expect):
    """With x = (a, b) and each form a row over (x_0, eps): gradients of x and of the output are the two weights of
    target row = weights (x row; source row), by solving that."""
    now, _, _ = case_of(c, c.source, c.target)
    found = impl.vjp(now, np.ones(c.S, c.dtype))
    p, q = np.zeros(c.S), np.zeros(c.S)
    a, b = over(c.scale, c.S), over(c.std, c.S)
    for at in np.ndindex(tuple(c.S)):
        rows = {"eps": [0, 1], "x0": [1, 0], "v": [-b[at], a[at]], "score": [0, -1 / b[at]]}
        p[at], q[at] = np.linalg.solve(np.array([[a[at], b[at]], rows[c.source]]).T, rows[c.target])
    limit = bounds.rounding(16, 1 / (a * b) ** 2 + 1 / b**3 + 9, c.dtype)
    expect(found["x"], p, limit, "gradient of x", scale=np.max(4 * limit, initial=1))
    expect(found["output"], q, limit, "gradient of the output", scale=np.max(4 * limit, initial=1))


# Mutants ---------------------------------------------------------------------------------------------


def point(source, target, a=0.8, b=0.6, output=0.0, x=0.0, shape=(3,)):
    """The default-size test: three entries at one level."""
    args = np.full(shape, output), np.full(shape, x), np.array(a), np.array(b)
    return lambda: (args, {"source": source, "target": target})


def through_eps(output, x, scale, std, *, source="eps", target="x0", **edit):
    """Source to eps, eps to target, in plain NumPy; an edit replaces one of the seven formulas."""
    a, b = over(scale, x.shape), over(std, x.shape)
    a, b = edit.get("level", lambda a, b: (a, b))(a, b)
    into = {
        "eps": lambda: output,
        "x0": lambda: (x - a * output) / b,
        "v": lambda: (b * x + a * output) / (a * a + b * b),
        "score": lambda: -b * output,
        **{k.removeprefix("from_"): lambda f=f: f(a, b, x, output) for k, f in edit.items() if k.startswith("from_")},
    }
    eps = into[source]()
    out = {
        "eps": lambda: eps,
        "x0": lambda: (x - b * eps) / a,
        "v": lambda: a * eps - b * (x - b * eps) / a,
        "score": lambda: -eps / b,
        **{k.removeprefix("to_"): lambda f=f: f(a, b, x, eps) for k, f in edit.items() if k.startswith("to_")},
    }
    return np.asarray(out[target](), x.dtype) + np.zeros_like(x)


@mutant(ID, default_case=point("eps", "v"))
def v_of_the_other_sign(*args, **options):
    "v = b x_0 - a eps."

    def to(a, b, x, eps):
        return b * (x - b * eps) / a - a * eps

    def back(a, b, x, v):
        return (b * x - a * v) / (a * a + b * b)

    return through_eps(*args, to_v=to, from_v=back, **options)


@mutant(ID, default_case=point("eps", "x0", x=1.0, output=1.0, a=1.0))
def alpha_for_its_root(*args, **options):
    "a^2 for a, alpha_bar where its root is due: the same for VE."
    return through_eps(*args, level=lambda a, b: (a * a, b), **options)


@mutant(ID, default_case=point("eps", "score", b=1.0))
def variances_for_deviations(*args, **options):
    "b^2 for b."
    return through_eps(*args, level=lambda a, b: (a, b * b), **options)


@mutant(ID, default_case=point("eps", "score", b=1.0, output=1.0))
def score_without_its_std(*args, **options):
    "score = -eps."
    return through_eps(*args, to_score=lambda a, b, x, eps: -eps, **options)


@mutant(ID, default_case=point("eps", "score"))
def score_of_the_other_sign(*args, **options):
    "score = eps / b."
    return through_eps(*args, to_score=lambda a, b, x, eps: eps / b, **options)


@mutant(ID, default_case=point("v", "x0", x=1.0, output=1.0))
def variance_preserved_always(*args, **options):
    "a^2 + b^2 taken for 1: VP and VE swapped."
    return through_eps(*args, from_v=lambda a, b, x, v: b * x + a * v, to_v=lambda a, b, x, eps: (eps - b * x) / a,
                       **options)  # fmt: skip


@mutant(ID, default_case=point("eps", "x0", x=1.0, output=1.0, shape=(2, 2)))
def scale_of_the_last_axis(output, x, scale, std, **options):
    "One level an example, laid along the last axis: the same for a square batch of one level."
    if scale.ndim and x.ndim > scale.ndim:
        size = x.shape[-1]
        scale, std = (np.resize(v, size)[None] + np.zeros(x.shape) for v in (scale, std))
    return through_eps(output, x, scale, std, **options)


@mutant(ID, default_case=point("eps", "v"))
def inverse_missing(output, x, scale, std, *, source="eps", target="x0"):
    "v to anything is treated as eps."
    return through_eps(output, x, scale, std, source="eps" if source == "v" else source, target=target)


def _vjp_without_x(g, output, x, scale, std, *, source="eps", target="x0"):
    def at(o, y):
        return through_eps(o, y, scale, std, source=source, target=target)

    zero, one = np.zeros_like(x), np.ones_like(x)
    return {"output": g * at(one, zero), "x": zero}


@mutant(ID, default_case=point("eps", "x0", x=1.0, output=1.0), vjp=_vjp_without_x)
def gradient_of_x_dropped(*args, **options):
    "x is taken for a constant."
    return through_eps(*args, **options)
