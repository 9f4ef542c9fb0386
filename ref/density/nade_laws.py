"""Laws and mutants of NADE."""

from __future__ import annotations

import numpy as np

from ref.density.common_laws import (
    WHOLE,
    autoregressive_flags,
    bits,
    cotangent,
    direction_of,
    f64,
    later_bits_change_nothing,
    later_bits_have_no_slope,
    log_bernoulli,
    roundings,
    sigmoid,
    strings,
)
from ref.spec import law, mutant
from ref.spec.cases import batch, cases, dims

ID = "density.nade"
PARAMS = ("weight", "hidden_bias", "output_weight", "bias")
space = cases(
    ID, B=batch(2, 3, large=60), n=dims(0, 5, large=40), H=dims(0, 4, large=40), x=bits, flags=autoregressive_flags()
)
some = space.where(some=True, H=dims(1, 4))


def naive(x, weight, hidden_bias, output_weight, bias):
    """Logits by recomputing every hidden unit for every bit, and what the terms sum up to in size."""
    n = x.shape[-1]
    kind = np.result_type(weight, hidden_bias, output_weight, bias)
    z, size = np.zeros(x.shape, kind), np.zeros(x.shape)
    for i in range(n):
        z[..., i], size[..., i] = bias[i], abs(bias[i])
        for k in range(len(hidden_bias)):
            a, total = hidden_bias[k] + 0 * x[..., 0], abs(hidden_bias[k]) + 0 * x[..., 0].real
            for j in range(i):
                a = a + weight[k, j] * x[..., j]
                total = total + abs(weight[k, j] * x[..., j])
            z[..., i] += output_weight[i, k] * sigmoid(a)
            size[..., i] += abs(output_weight[i, k]) * (1 + total / 4)
    return z, size


def exact(c):
    return naive(*f64(c, "x", *PARAMS))


def near(c, size):
    """n + 1 roundings of a_i, which sigma lessens by 4; 10 of sigma; H + 1 of the sum over hidden units."""
    return roundings(c, c.n + c.H + 14, size)


def near_sum(c, size):
    return roundings(c, 2 * c.n + c.H + 26, (size + 1).sum(-1))


@law(
    ID, "L1", closed_form=True, given=space.where(n=dims(0, 7, large=12), B=()),
    kills=["sees_its_own_bit", "mean_over_the_bits"],
)  # fmt: skip
def all_bit_strings_sum_to_one(impl, c, expect):
    "sum over all 2^n strings of p(x) = 1."
    x = strings(c.n, c.dtype)
    now = c.replace(x=x, B=(2**c.n,))
    p = np.exp(np.asarray(impl(now)[0], np.float64))
    most = np.abs(np.asarray(c.output_weight, np.float64)).sum(-1) + np.abs(np.asarray(c.bias, np.float64))
    a = np.abs(np.asarray(c.weight, np.float64)).sum() + np.abs(np.asarray(c.hidden_bias, np.float64)).sum()
    size = np.broadcast_to(most * (1 + a), x.shape)
    expect(p.sum(), 1.0, float(np.max(near_sum(c, size))) + 1e-15 * 2**c.n, "sum of p", scale=1.0)


@law(
    ID, "L2", closed_form=True, given=space.reach("rows", "no_bits"),
    kills=["sees_its_own_bit", "one_bit_late", "tanh_units", "bias_inside_the_units", "mean_over_the_bits",
           "hidden_bias_once_a_step", "weights_tied", "summed_in_float32"],
)  # fmt: skip
def each_conditional_from_its_own_sum(impl, c, expect):
    "l_i = b_i + sum_k V_ik sigma(c_k + sum_{j < i} W_kj x_j), each summed anew, W in thirds; log p by bits."
    c = c.replace(weight=c.weight / c.dtype.type(3))
    x = np.asarray(c.x, np.float64)
    z, size = exact(c)
    log_prob, logits = impl(c)
    expect(logits, z, near(c, size), "logits", scale=1 + float(np.max(size, initial=0)))
    wanted = log_bernoulli(x, z).sum(-1)
    expect(log_prob, wanted, near_sum(c, size), "log p", scale=float(np.max((size + 1).sum(-1), initial=0)))


@law(
    ID, "L3", closed_form=True, given=some.reach("rows"), kills=["sees_its_own_bit"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def later_bits_are_invisible(impl, c, expect):
    "Turning bit j leaves the logits up to j, to the bit."
    later_bits_change_nothing(impl, c, expect)


@law(
    ID, "L8", closed_form=True, needs=("vjp",), given=some.reach("rows"), kills=["gradient_sees_its_own_bit"],
    passes_null=["zeros"],
)  # fmt: skip
def itself_and_later_bits_have_no_slope(impl, c, expect):
    "d l_i / d x_j = 0 for j >= i, exactly."
    later_bits_have_no_slope(impl, c, expect)


@law(ID, "L4", closed_form=True, given=some.reach("rows"), kills=["tanh_units", "units_start_at_zero"])
def the_first_bit_reads_the_biases(impl, c, expect):
    "l_1 = b_1 + sum_k V_1k sigma(c_k), whatever x is."
    V, hb, b = f64(c, "output_weight", "hidden_bias", "bias")
    wanted = b[0] + np.sum(V[0] * sigmoid(hb))
    size = abs(b[0]) + np.sum(np.abs(V[0]) * (1 + np.abs(hb)))
    expect(impl(c)[1][..., 0], np.full(c.B, wanted), near(c, size) * np.ones(c.B), "first logit", scale=1 + size)


@law(ID, "L5", closed_form=True, given=space.where(H=0).reach("rows"), kills=["mean_over_the_bits"])
def no_hidden_units_are_independent_bits(impl, c, expect):
    "H = 0: log p = sum_i log sigma(b_i) or log sigma(-b_i)."
    x, b = f64(c, "x", "bias")
    log_prob, logits = impl(c)
    p = sigmoid(b)
    wanted = np.sum(np.where(x == 1, np.log(p), np.log(1 - p)), -1)
    expect(log_prob, wanted, near_sum(c, np.abs(b) + np.zeros(x.shape)), "log p")
    expect.same(logits, np.broadcast_to(c.bias, c.x.shape), "logits")


@law(
    ID, "L6", closed_form=True, given=some.reach("rows"), kills=["sees_its_own_bit"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def the_last_column_is_immaterial(impl, c, expect):
    "W's last column is read by no conditional: another one changes no bit, and its gradient is 0."
    W = c.weight.copy()
    W[:, -1] += 3
    log_prob, logits = impl(c)
    again = impl(c.replace(weight=W))
    expect.same(again[0], log_prob, "log p")
    expect.same(again[1], logits, "logits")


@law(
    ID, "L7", needs=("vjp",), given=some.reach("rows"), dtypes=WHOLE,
    kills=["recurrence_cut_off", "gradient_of_the_loss", "hidden_bias_has_no_gradient"],
)  # fmt: skip
def gradient_is_the_slope(impl, c, expect):
    "<gradient of log p, u> is the complex-step slope of the sums written out, for every parameter."
    g = cotangent(c, c.B)
    found = impl.vjp(c, (g, np.zeros(c.x.shape, c.dtype)))
    here = dict(zip(("x", *PARAMS), f64(c, "x", *PARAMS), strict=True))
    for name in PARAMS:
        u = direction_of(here[name])
        z = naive(**{n: a + (1e-30j * u if n == name else 0) for n, a in here.items()})[0]
        terms = g[..., None] * (here["x"] - sigmoid(z.real)) * z.imag / 1e-30
        size = (1 + np.abs(here["output_weight"]).sum()) * (1 + np.abs(u).sum())
        limit = roundings(c, 4 * (c.n + c.H) + 40, size * (1 + np.abs(g).sum()))
        expect(np.vdot(found[name], u), terms.sum(), limit, f"slope along {name}", scale=size)


# Mutants ---------------------------------------------------------------------------------------------


def default(n=3, H=2, **given):
    """The default-size test: a fresh model, whose output weights are zero."""

    def make():
        g = np.random.default_rng(0)
        made = {"x": np.eye(3, n), "weight": g.standard_normal((H, n)), "hidden_bias": np.zeros(H),
                "output_weight": np.zeros((n, H)), "bias": np.linspace(-1, 1, n)}  # fmt: skip
        return tuple({**made, **given}.values()), {}

    return make


def scored(x, weight, hidden_bias, output_weight, bias, *, shift=0, unit=sigmoid, start=None, extra=0, total=None,
           out=None):  # fmt: skip
    """The scan, bit by bit, with parts that an edit replaces; `shift` bits more or fewer are seen."""
    z = np.zeros(x.shape)
    for i in range(x.shape[-1]):
        j = max(i + shift, 0)
        a = (hidden_bias if start is None else start) + x[..., :j] @ weight[:, :j].T + extra * i * hidden_bias
        inner = bias[i] if out == "inside" else 0
        z[..., i] = unit(a + inner) @ output_weight[i] + (0 if out == "inside" else bias[i])
    total = total or (lambda t: t.sum(-1))
    return total(log_bernoulli(x, z)).astype(x.dtype), z.astype(x.dtype)


@mutant(ID, default_case=default())
def sees_its_own_bit(*args):
    "The running sum includes the bit itself: <= for <."
    return scored(*args, shift=1)


@mutant(ID, default_case=default())
def one_bit_late(*args):
    "The bit just before is not seen."
    return scored(*args, shift=-1)


@mutant(ID, default_case=default())
def tanh_units(*args):
    "tanh for sigma."
    return scored(*args, unit=np.tanh)


@mutant(ID, default_case=default(bias=np.zeros(3)))
def bias_inside_the_units(*args):
    "b_i added to the units, not to the logit."
    return scored(*args, out="inside")


@mutant(ID, default_case=default())
def units_start_at_zero(x, weight, hidden_bias, output_weight, bias):
    "a_1 = 0: the hidden bias is forgotten."
    return scored(x, weight, hidden_bias, output_weight, bias, start=0 * hidden_bias)


@mutant(ID, default_case=default())
def hidden_bias_once_a_step(*args):
    "c is added to the running sum at every bit."
    return scored(*args, extra=1)


@mutant(ID, default_case=default(weight=np.zeros((2, 3))))
def weights_tied(x, weight, hidden_bias, output_weight, bias):
    "V = W^T, as in a restricted Boltzmann machine."
    return scored(x, weight, hidden_bias, weight.T, bias)


@mutant(ID, default_case=default())
def summed_in_float32(x, weight, hidden_bias, output_weight, bias):
    "The running sum in float32 whatever arrives."
    return scored(x, weight.astype(np.float32).astype(x.dtype), hidden_bias, output_weight, bias)


@mutant(ID, default_case=default(n=1))
def mean_over_the_bits(*args):
    "The mean, not the sum: one bit does not tell."
    return scored(*args, total=lambda t: t.sum(-1) / max(t.shape[-1], 1))


def _vjp_mutant(name, doc, *, reach=None, sign=1, hidden=True, own=0):
    def function(*args):
        return scored(*args)

    def vjp(g, x, weight, hidden_bias, output_weight, bias):
        n = x.shape[-1]
        flat = x.reshape(-1, n)
        z = np.stack([sigmoid(hidden_bias + flat[:, :i] @ weight[:, :i].T) @ output_weight[i] + bias[i]
                      for i in range(n)], -1)  # fmt: skip
        dz = sign * g[0].reshape(-1, 1) * (flat - sigmoid(z)) + g[1].reshape(-1, n)
        dx, dW, dc, dV = g[0].reshape(-1, 1) * z, np.zeros(weight.shape), np.zeros(hidden_bias.shape), []
        for i in range(n):
            h = sigmoid(hidden_bias + flat[:, :i] @ weight[:, :i].T)
            da = dz[:, i : i + 1] * output_weight[i] * h * (1 - h)
            low = 0 if reach is None else max(i - reach, 0)
            dW[:, low:i] += da.T @ flat[:, low:i]
            dx[:, : i + own] += da @ weight[:, : i + own]
            dc += da.sum(0) * hidden
            dV.append(dz[:, i] @ h)
        out = {"x": dx.reshape(x.shape), "weight": dW, "hidden_bias": dc, "output_weight": np.array(dV),
               "bias": dz.sum(0)}  # fmt: skip
        return {k: v.astype(x.dtype) for k, v in out.items()}

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


_vjp_mutant("recurrence_cut_off", "The running sum is a constant but for its last step (truncated backward).", reach=1)
_vjp_mutant("gradient_of_the_loss", "The sign of the negative log-likelihood.", sign=-1)
_vjp_mutant("hidden_bias_has_no_gradient", "c is taken for a constant.", hidden=False)
_vjp_mutant("gradient_sees_its_own_bit", "The backward reads one column too many.", own=1)
