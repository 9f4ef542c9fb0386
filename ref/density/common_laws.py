"""What the laws of the density models share: bit strings, oracles in plain NumPy, bounds."""

from __future__ import annotations

import itertools

import numpy as np

from ref.spec import bounds
from ref.spec.cases import Flag, dims, rng

WHOLE = ("float64",)


def f64(c, *names):
    """Arrays of the case in float64."""
    return [np.asarray(c[n], np.float64) for n in names]


def strings(n, dtype=np.float64):
    """All 2^n strings of n bits, a row each."""
    return np.array(list(itertools.product((0, 1), repeat=n)), dtype).reshape(2**n, n)


def bits(draw, c):
    """x[*B n] of zeros and ones."""
    return rng(draw).integers(0, 2, (*c.B, c.n)).astype(np.float64)


def cotangent(c, shape):
    """A fixed cotangent of the given shape, no two entries alike."""
    size = int(np.prod(shape, dtype=np.int64))
    return np.cos(1.0 + np.arange(size)).reshape(shape).astype(c.dtype)


def answer(expect, out, shape):
    """The output, if it is an array of that shape."""
    expect.holds(isinstance(out, np.ndarray) and out.shape == tuple(shape), f"the output must be an array of {shape}")
    return out


def roundings(c, n, magnitude):
    """`bounds.rounding` in the dtype of the case."""
    return bounds.rounding(n, magnitude, c.dtype)


def softplus(z):
    """log(1 + e^z)."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def sigmoid(z):
    """1 / (1 + e^-z), real or complex."""
    return 1 / (1 + np.exp(-z))


def log_bernoulli(x, z):
    """Log-probability of each bit, from its logit."""
    return x * z - softplus(z)


def size_of(x, z):
    """What the terms of `log_bernoulli` sum up to in size."""
    return np.sum(np.abs(x * z) + softplus(z), -1)


def slope(f, at, direction, step=1e-30):
    """The derivative of f along a direction of a tree {name: array}, by a complex step; f takes complex arrays."""
    moved = {n: a + (1j * step * direction[n] if n in direction else 0j) for n, a in at.items()}
    return f(moved).imag / step


def direction_of(a):
    """A fixed direction, no two entries alike."""
    return np.sin(2.0 + np.arange(a.size)).reshape(a.shape)


# Graphs and tables of Bayes nets ---------------------------------------------------------------------


def draw_parents(draw, c):
    """The parents of each node of a random acyclic graph whose numbers say nothing of its direction."""
    g = rng(draw)
    rank, density = g.permutation(c.n), g.choice((0.3, 0.6, 1.0))
    parents = []
    for i in range(c.n):
        mine = [j for j in range(c.n) if rank[j] < rank[i] and g.random() < density]
        parents.append(g.permutation(np.array(mine, np.int64)))
    return tuple(parents)


def graph_fields(n):
    """Fields of a space over graphs of n nodes."""
    return {"n": n, "parents": draw_parents, "memory": "C"}


def graph_flags():
    """Edge classes of graphs."""
    return {
        "edges": Flag(lambda c: sum(map(len, c.parents)) > 1, {"n": dims(3, 5)}),
        "backward": Flag(lambda c: any(p > i for i, each in enumerate(c.parents) for p in each), {"n": dims(3, 5)}),
        "none": Flag(lambda c: c.n == 0, {"n": 0}),
        "two_parents": Flag(lambda c: any(len(each) > 1 for each in c.parents), {"n": dims(3, 4)}),
    }


def draw_states(draw, c):
    """The number of states of each node: two or three, mostly."""
    return tuple(int(s) for s in rng(draw).choice((1, 2, 2, 3), c.n))


def draw_tables(draw, c, total=16):
    """tables[i][state, *states of the parents]: columns of sixteenths, some of them 0."""
    g = rng(draw)
    return tuple(columns(g, (c.states[i], *(c.states[p] for p in each)), total) for i, each in enumerate(c.parents))


def columns(g, shape, total):
    """An array whose first axis sums to 1 in parts of 1 / total."""
    cuts = np.sort(g.integers(0, total + 1, (shape[0] - 1, *shape[1:])), axis=0)
    edges = np.concatenate([np.zeros((1, *shape[1:]), int), cuts, np.full((1, *shape[1:]), total)])
    return np.diff(edges, axis=0) / total


def all_states(states):
    """Every assignment of a net, a row each."""
    return np.array(list(itertools.product(*map(range, states))), np.int64).reshape(-1, len(states))


def joint(parents, tables):
    """{assignment: probability}, a product of one entry a table, by loops."""
    found = {}
    for row in itertools.product(*(range(t.shape[0]) for t in tables)):
        p = 1.0
        for i, each in enumerate(parents):
            p *= float(tables[i][(row[i], *(row[j] for j in each))])
        found[row] = p
    return found


# Autoregressive models -------------------------------------------------------------------------------


def autoregressive_flags():
    """Edge classes of bit strings x[*B n]."""
    return {
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1 and c.n > 1, {"B": (2, 3), "n": dims(2, 5)}),
        "some": Flag(lambda c: c.n > 0 and 0 not in c.B, {"n": dims(1, 5), "B": (2,)}),
        "no_bits": Flag(lambda c: c.n == 0, {"n": 0}),
    }


def later_bits_change_nothing(impl, c, expect, order=None):
    """Logits keep their bits when their own or a later bit is turned; `impl` gives (log_prob, logits).

    order[i] is the place of bit i, i itself if not given.
    """
    place = np.arange(c.n) if order is None else np.asarray(order)
    _, logits = impl(c)
    for j in range(c.n):
        turned = c.x.copy()
        turned[..., j] = 1 - turned[..., j]
        free = place <= place[j]
        expect.same(impl(c.replace(x=turned))[1][..., free], logits[..., free], f"logits of the bits up to {j}")


def later_bits_have_no_slope(impl, c, expect, order=None):
    """d logit_i / d x_j = 0, exactly, for j = i and all that come later."""
    place = np.arange(c.n) if order is None else np.asarray(order)
    for i in range(c.n):
        g = np.zeros(c.x.shape, c.dtype)
        g[..., i] = 1 + np.arange(g[..., i].size).reshape(g.shape[:-1])
        dx = impl.vjp(c, (np.zeros(c.B, c.dtype), g))["x"]
        later = place >= place[i]
        expect.same(dx[..., later], np.zeros(dx[..., later].shape), f"d logit {i} / d itself and later bits")


def draw_degrees(draw, c):
    """Degrees of n inputs in a random order and of hidden layers of the case's widths."""
    g = rng(draw)
    return (g.permutation(c.n) + 1, *(g.integers(1, max(c.n - 1, 1) + 1, w) for w in c.widths))


def degree_fields(most=5, wide=5):
    """Fields of a space over degrees."""
    return {
        "n": dims(1, most),
        "widths": lambda draw, c: tuple(rng(draw).integers(1, wide + 1, draw(dims(0, 2).strategy(False))).tolist()),
        "degrees": draw_degrees,
    }


def degree_flags():
    """Edge classes of degrees."""

    def complete(draw, c):
        g = rng(draw)
        return (g.permutation(c.n) + 1, *(g.permutation(c.n - 1) + 1 for _ in range(2)))

    return {
        "deep": Flag(lambda c: len(c.degrees) == 3 and c.n > 2, {"widths": (4, 3), "n": dims(3, 5)}),
        "hidden": Flag(lambda c: len(c.degrees) > 1, {"widths": lambda draw, c: (draw(dims(1, 5).strategy(False)),)}),
        "flat": Flag(lambda c: len(c.degrees) == 1 and c.n > 1, {"widths": (), "n": dims(2, 5)}),
        "permuted": Flag(lambda c: c.degrees[0].tolist() != list(range(1, c.n + 1)) and len(c.degrees) > 1,
                         {"n": dims(3, 5), "widths": (4,)}),
        "every_degree": Flag(lambda c: len(c.degrees) > 1 and all(set(range(1, c.n)) <= set(d.tolist())
                                                                  for d in c.degrees[1:]),
                             {"n": dims(2, 5), "degrees": complete}),
    }  # fmt: skip


# Coupling layers -------------------------------------------------------------------------------------


def coupling_params(draw, c):
    """Parameters of one layer, near 1/2."""
    g, n, H = rng(draw), c.n, c.H
    shapes = {"hidden.weight": (H, n), "hidden.bias": (H,), "scale.weight": (n, H), "scale.bias": (n,),
              "shift.weight": (n, H), "shift.bias": (n,)}  # fmt: skip
    return {name: np.clip(np.round(g.standard_normal(s) * 8), -16, 16) / 16 for name, s in shapes.items()}


def coupled(x, p, mask, inverse=False, *, read=lambda mask, x: np.where(mask, x, 0), act=np.tanh, back=None, there=None,
            counted=lambda s, mask: np.where(mask, 0, s), give_scale=False, scale_is=None):  # fmt: skip
    """(y, log det) of an affine coupling, with parts that an edit replaces."""
    h = act(read(mask, x) @ p["hidden.weight"].T + p["hidden.bias"])
    full = h @ p["scale.weight"].T + p["scale.bias"] if scale_is is None else scale_is
    if give_scale:
        return full
    s, t = np.where(mask, 0, full), np.where(mask, 0, h @ p["shift.weight"].T + p["shift.bias"])
    there, back = there or (lambda x, s, t: x * np.exp(s) + t), back or (lambda x, s, t: (x - t) * np.exp(-s))
    log_det = counted(full, mask).sum(-1)
    return (back(x, s, t), -log_det) if inverse else (there(x, s, t), log_det)
