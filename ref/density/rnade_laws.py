"""Laws and mutants of RNADE."""

from __future__ import annotations

import math

import numpy as np

from ref.density.common_laws import WHOLE, cotangent, direction_of, roundings
from ref.density.rnade import SHAPES
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, dims, rng

ID = "density.rnade"
HEADS = ("mixture", "mean", "log_std")


def draw_params(draw, c):
    """Numbers near 1/2; the spread of the components stays between e^-2 and e^2 for small x."""
    g, sizes = rng(draw), {"n": c.n, "K": c.K, "H": c.H}
    made = {}
    for name, axes in SHAPES.items():
        shape = [sizes[a] for a in axes.split()]
        made[name] = np.clip(np.round(g.standard_normal(shape) * 8), -16, 16) / 16
        made[name] = made[name] / 4 if name == "log_std.weight" else made[name]
    made["scale"] = g.choice((0.5, 1.0, 1.5, -0.75), c.n)
    return made


space = cases(
    ID,
    B=batch(2, 3, large=40),
    n=dims(1, 4, large=20),
    H=dims(0, 4, large=20),
    K=dims(1, 3),
    params=draw_params,
    flags={
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1 and c.n > 1, {"B": (2, 3), "n": dims(2, 4)}),
        "mixed": Flag(lambda c: c.K > 1 and c.H > 0 and 0 not in c.B and c.n > 1,
                      {"K": dims(2, 3), "H": dims(1, 4), "B": (2,), "n": dims(2, 4)}),
        "some": Flag(lambda c: 0 not in c.B and c.H > 0, {"B": (2,), "H": dims(1, 4)}),
    },
)  # fmt: skip
some = space.where(some=True)


def f64(c):
    return {n: np.asarray(a, np.float64) for n, a in c.params.items()}


def slow(x, p, *, own=0, unit=lambda a: np.where(a.real > 0, a, 0), std=np.exp, share=None, mix=None, scaled=True,
         outside=False):  # fmt: skip
    """log p(x_i | x_<i) a coordinate and a component at a time; parts that an edit replaces."""
    n, K = p["mixture.bias"].shape
    out = np.zeros(x.shape, np.result_type(x, *p.values()))
    for i in range(n):
        a = p["hidden_bias"] + x[..., : i + own] @ p["weight"][:, : i + own].T
        rho = p["scale"][i] if scaled else 1
        h = unit(a) * rho if outside else unit(a * rho)
        z = {name: h @ p[f"{name}.weight"][i].T + p[f"{name}.bias"][i] for name in HEADS}
        logs = []
        for k in range(K):
            s = std(z["log_std"][..., k])
            logs.append(-(((x[..., i] - z["mean"][..., k]) / s) ** 2) / 2 - np.log(s) - math.log(2 * math.pi) / 2)
        logs = np.stack(logs, -1)
        top = z["mixture"].real.max(-1, keepdims=True)
        weights = z["mixture"] - top - np.log(np.exp(z["mixture"] - top).sum(-1, keepdims=True))
        weights = weights if share is None else share(z["mixture"])
        if mix is None:
            total = weights + logs
            most = total.real.max(-1, keepdims=True)
            out[..., i] = (most + np.log(np.exp(total - most).sum(-1, keepdims=True)))[..., 0]
        else:
            out[..., i] = mix(weights, logs)
    return out


def bound(c, x=None):
    """Twice what the plain form loses at this precision, and the roundings of the longest sums."""
    x = c.x if x is None else x
    if c.dtype == np.float64:
        kind, wide = np.float64, np.longdouble
    else:
        kind, wide = np.float32, np.float64
    at = [slow(x.astype(k), {n: a.astype(k) for n, a in c.params.items()}) for k in (kind, wide)]
    lost = np.abs(at[0].astype(wide) - at[1]).astype(np.float64)
    return 4 * np.max(lost, initial=0) + roundings(c, 4 * c.n + 4 * c.H + 4 * c.K + 40, np.abs(at[1]) + 2)


def check(c, expect, found, wanted, limit):
    log_prob, conditionals = found
    size = 1 + float(np.max(np.abs(wanted), initial=0))
    expect(conditionals, wanted, limit, "log p(x_i | x_<i)", scale=size)
    expect(log_prob, wanted.sum(-1), limit.sum(-1) + roundings(c, c.n, c.n * size), "log p", scale=c.n * size)


@law(
    ID, "L1", closed_form=True, given=space.where(K=1).reach("rows"), kills=["log_variance", "sum_is_a_mean"],
)  # fmt: skip
def silent_heads_are_independent_gaussians(impl, c, expect):
    "V = 0, K = 1: log p(x_i) = -((x_i - b^m_i) / e^{b^s_i})^2 / 2 - b^s_i - log(2 pi) / 2."
    quiet = {n: np.zeros_like(a) if n.endswith(".weight") else a for n, a in c.params.items()}
    c = c.replace(params=quiet)
    p, x = f64(c), np.asarray(c.x, np.float64)
    m, s = p["mean.bias"][:, 0], p["log_std.bias"][:, 0]
    wanted = -(((x - m) * np.exp(-s)) ** 2) / 2 - s - math.log(2 * math.pi) / 2
    check(c, expect, impl(c), wanted, bound(c))


GRID = np.arange(-600, 601) / 16.0


@law(
    ID, "L2", closed_form=True, dtypes=WHOLE, given=some.where(n=dims(1, 2), values=("dyadic",)).reach("mixed"),
    kills=["sees_its_own_value", "weights_not_normalised", "log_of_the_weights_forgotten"],
)  # fmt: skip
def each_conditional_integrates_to_one(impl, c, expect):
    """The trapezoid rule over x_i, others fixed: exact to rounding, for the components are wider than e^-2 and the grid
    is finer than a half of that."""
    for i in range(c.n):
        x = np.repeat(c.x.reshape(-1, c.n)[:1], len(GRID), 0)
        x[:, i] = GRID
        _, logs = impl(c.replace(x=x, B=(len(GRID),)))
        total = np.sum(np.exp(np.asarray(logs, np.float64)[:, i])) / 16
        expect(np.asarray(total), np.asarray(1.0), 1e-11, f"integral over coordinate {i}")


@law(
    ID, "L3", closed_form=True, dtypes=WHOLE, given=some.where(K=1, values=("dyadic",), n=dims(2, 4)),
    kills=["scale_ignored", "log_variance", "sees_its_own_value"],
)  # fmt: skip
def linear_units_make_a_gaussian(impl, c, expect):
    """K = 1, sigma fixed, rho > 0, every unit far above 0: (I - G) x = m + e, G_ij = rho_i V_i W_j: x is Gaussian with
    covariance (I - G)^-1 S^2 (I - G)^-T."""
    params = {**c.params, "hidden_bias": c.params["hidden_bias"] + 64, "scale": np.abs(c.params["scale"]),
              "log_std.weight": np.zeros_like(c.params["log_std.weight"])}  # fmt: skip
    c = c.replace(params=params)
    p, x = f64(c), np.asarray(c.x, np.float64)
    V, s = p["mean.weight"][:, 0] * p["scale"][:, None], np.exp(p["log_std.bias"][:, 0])
    inverse = np.linalg.inv(np.eye(c.n) - np.tril(V @ p["weight"], -1))
    mean = inverse @ (p["mean.bias"][:, 0] + V @ p["hidden_bias"])
    covariance = inverse @ np.diag(s**2) @ inverse.T
    off = x - mean
    wanted = -(off * np.linalg.solve(covariance, off[..., None])[..., 0]).sum(-1) / 2
    wanted = wanted - np.linalg.slogdet(2 * np.pi * covariance)[1] / 2
    condition = np.linalg.cond(covariance)
    limit = roundings(c, 64 * condition, 1 + np.abs(wanted)) + bound(c).sum(-1)
    expect(impl(c)[0], wanted, limit, "log p", scale=1 + float(np.max(np.abs(wanted))))


@law(
    ID, "L4", closed_form=True, needs=("vjp",), given=some.where(n=dims(2, 4)).reach("mixed"),
    kills=["gradient_sees_later_values"], passes_null=["zeros"],
)  # fmt: skip
def later_values_are_invisible(impl, c, expect):
    "Another x_j changes no bit of log p(x_i | x_<i) for i < j; d / d x_j of it is 0, exactly."
    _, logs = impl(c)
    for j in range(1, c.n):
        moved = c.x.copy()
        moved[..., j] += 1.5
        expect.same(impl(c.replace(x=moved))[1][..., :j], logs[..., :j], f"conditionals before {j}")
        g = np.zeros(c.x.shape, c.dtype)
        g[..., j - 1] = 1
        dx = impl.vjp(c, (np.zeros(c.B, c.dtype), g))["x"]
        expect.same(dx[..., j:], np.zeros(dx[..., j:].shape), f"slopes of conditional {j - 1} from {j} on")


@law(
    ID, "L5", given=space.where(mixed=True), dtypes=WHOLE, kills=["first_component_alone"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def components_have_no_order(impl, c, expect):
    "Components in reverse: the same densities."
    turned = {n: a[:, ::-1].copy() if n.split(".")[0] in HEADS else a for n, a in c.params.items()}
    found, again = impl(c), impl(c.replace(params=turned))
    expect(again[1], found[1], 2 * bound(c), "log p(x_i | x_<i)", scale=1 + float(np.max(np.abs(found[1]))))


@law(
    ID, "L6", closed_form=True, given=some.where(K=dims(2, 3)),
    kills=["density_underflows", "mean_of_the_logs"],
)  # fmt: skip
def the_nearest_component_decides_far_away(impl, c, expect):
    "V = 0, sigma = 1, means k, x = 200: log p = log of a sum dominated by the last component; never -inf."
    p = {n: np.zeros_like(a) for n, a in c.params.items()} | {"scale": c.params["scale"]}
    p["mean.bias"] = np.broadcast_to(np.arange(c.K), (c.n, c.K)).astype(c.dtype)
    now = c.replace(params=p, x=np.full_like(c.x, 200))
    terms = [-((200 - k) ** 2) / 2 for k in range(c.K)]
    one = (
        max(terms) + math.log(sum(math.exp(t - max(terms)) for t in terms)) - math.log(c.K) - math.log(2 * math.pi) / 2
    )
    wanted = np.full(c.x.shape, one)
    expect(impl(now)[1], wanted, roundings(c, 4 * c.K + 40, wanted), "log p(x_i | x_<i)")


@law(
    ID, "L7", closed_form=True, given=space.reach("rows", "mixed"),
    kills=["sees_its_own_value", "scale_ignored", "log_variance", "weights_not_normalised", "linear_units",
           "scale_outside", "mean_of_the_logs", "log_of_the_weights_forgotten", "sum_is_a_mean",
           "first_component_alone"],
)  # fmt: skip
def densities_written_out(impl, c, expect):
    "The equations in the header, a coordinate and a component at a time, in extended precision."
    x = np.asarray(c.x, np.longdouble)
    wanted = slow(x, {n: a.astype(np.longdouble) for n, a in c.params.items()}).astype(np.float64)
    check(c, expect, impl(c), wanted, bound(c))


@law(
    ID, "L8", needs=("vjp",), given=some.reach("mixed"), dtypes=WHOLE,
    kills=["recurrence_cut_off", "scale_has_no_gradient", "gradient_sees_later_values"],
)  # fmt: skip
def gradient_is_the_slope(impl, c, expect):
    "<gradient of log p, u> is the complex-step slope of the equations along u: along x, and along every parameter."
    g = cotangent(c, c.B)
    found = impl.vjp(c, (g, np.zeros(c.x.shape, c.dtype)))
    p, x = f64(c), np.asarray(c.x, np.float64)
    for name in ("x", *SHAPES):
        at = x if name == "x" else p[name]
        u = direction_of(at)
        moved = p if name == "x" else {**p, name: at + 1e-30j * u}
        terms = g * (slow(x + 1e-30j * u if name == "x" else x, moved).imag / 1e-30).sum(-1)
        got = found["x"] if name == "x" else found["params"][name]
        size = (1 + np.abs(terms).sum()) * (1 + np.abs(slow(x, p)).sum()) * 16
        expect(np.vdot(got, u), terms.sum(), roundings(c, 8 * (c.n + c.H + c.K) + 80, size), f"slope along {name}",
               scale=size)  # fmt: skip


# Mutants ---------------------------------------------------------------------------------------------


def default(n=2, K=1, H=2):
    """The default-size test: a fresh model, whose heads are zero and scales 1."""

    def make():
        g, sizes = np.random.default_rng(0), {"n": n, "K": K, "H": H}
        params = {name: np.zeros([sizes[a] for a in axes.split()]) for name, axes in SHAPES.items()}
        params["weight"], params["scale"] = g.standard_normal((H, n)), np.ones(n)
        return (g.standard_normal((3, n)), params), {}

    return make


def scored(x, params, total=lambda t: t.sum(-1), **edit):
    logs = slow(x, params, **edit)
    return total(logs).astype(x.dtype), logs.astype(x.dtype)


@mutant(ID, default_case=default())
def sees_its_own_value(x, params):
    "The running sum includes x_i: <= for <."
    return scored(x, params, own=1)


@mutant(ID, default_case=default())
def scale_ignored(x, params):
    "rho is accepted and dropped: it starts at 1."
    return scored(x, params, scaled=False)


@mutant(ID, default_case=default())
def scale_outside(x, params):
    "rho relu(a) for relu(rho a): the same for rho > 0."
    return scored(x, params, outside=True)


@mutant(ID, default_case=default())
def log_variance(x, params):
    "The third head taken for log sigma^2."
    return scored(x, params, std=lambda s: np.exp(s / 2))


@mutant(ID, default_case=default())
def weights_not_normalised(x, params):
    "e^z for softmax(z)."
    return scored(x, params, share=lambda z: z)


@mutant(ID, default_case=default())
def log_of_the_weights_forgotten(x, params):
    "log(sum_k N_k): one component does not tell."
    return scored(x, params, share=lambda z: 0 * z)


@mutant(ID, default_case=default())
def linear_units(x, params):
    "No relu."
    return scored(x, params, unit=lambda a: a)


@mutant(ID, default_case=default())
def mean_of_the_logs(x, params):
    "sum_k alpha_k log N_k for log sum_k alpha_k N_k."
    return scored(x, params, mix=lambda w, logs: (np.exp(w) * logs).sum(-1))


@mutant(ID, default_case=default())
def first_component_alone(x, params):
    "Component 0 stands for the mixture."
    return scored(x, params, mix=lambda w, logs: logs[..., 0])


@mutant(ID, default_case=default())
def density_underflows(x, params):
    "log of the summed densities: -inf far away."

    def mix(w, logs):
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(np.exp(w + logs).sum(-1)), np.finfo(x.dtype).min / 8)

    return scored(x, params, mix=mix)


@mutant(ID, default_case=default(n=1))
def sum_is_a_mean(x, params):
    "The mean over the coordinates: one does not tell."
    return scored(x, params, total=lambda t: t.mean(-1))


def _vjp_mutant(name, doc, change):
    def function(x, params):
        return scored(x, params)

    def vjp(g, x, params):
        from autodiff import vjp as pull
        from ref.density.rnade import rnade

        dx, dp = pull(rnade, x, params)[1](g)
        return change(dx, dp, x, g)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


def _cut(dx, dp, x, g):
    """Coordinates far back do not move the running sum."""
    W = dp["weight"].copy()
    W[:, : max(x.shape[-1] - 2, 1)] *= 0.5
    return {"x": dx, "params": {**dp, "weight": W}}


def _leak(dx, dp, x, g):
    """Slope of the whole log p where that of one conditional is asked."""
    return {"x": dx + 0.5 * (g[1].sum(-1, keepdims=True) + g[0][..., None]), "params": dp}


_vjp_mutant("recurrence_cut_off", "Half of the gradient of the early columns of W is lost.", _cut)
_vjp_mutant("scale_has_no_gradient", "rho is taken for a constant.",
            lambda dx, dp, x, g: {"x": dx, "params": {**dp, "scale": np.zeros_like(dp["scale"])}})  # fmt: skip
_vjp_mutant("gradient_sees_later_values", "The cotangents of all conditionals are added before they are pulled.", _leak)
