"""Laws and mutants of greedy and epsilon-greedy policies."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import best_value, chances, value_of
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats, rng

ID = "mdp.epsilon_greedy"
space = cases(
    ID, B=batch(2, 3), A=dims(1, 5), epsilon=choose(0.0, 0.1, 0.5, 1.0), q=floats("*B A", "dyadic"),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": choose((0,), (2, 0))}),
        "ties": Flag(
            lambda c: c.q.size and bool(((c.q == c.q.max(-1, keepdims=True)).sum(-1) > 1).any()),
            {"A": dims(2, 5), "B": choose((), (3,)), "q": lambda draw, c: rng(draw).integers(0, 2, (*c.B, c.A)) / 2},
        ),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,), (2, 2))}),
    },
)  # fmt: skip
models = space.where(B=(), A=2, epsilon=0.0)  # laws on models draw their own from the case's q


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "ties"),
    kills=["others_alone", "shares_ties", "last_of_equals", "worst_action", "greedy_always", "not_normalised"],
)  # fmt: skip
def shares_in_closed_form(impl, c, expect):
    "1 - eps + eps / A for the first of the best actions, eps / A for each other one, a row at a time."
    wanted = np.full(c.q.shape, c.epsilon / c.A)
    for at in np.ndindex(*c.B):
        row = c.q[at].tolist()
        wanted[(*at, row.index(max(row)))] += 1 - c.epsilon
    expect(impl(c), wanted, bounds.rounding(4, 1.0, c.dtype), scale=1.0)


@law(ID, "L2", given=space.where(some=True), kills=["softmax", "largest_in_size"],
     passes_null=["zeros", "constant"])  # fmt: skip
def order_alone_decides(impl, c, expect):
    "q times 4, or q - 16: the same bits."
    wanted = impl(c)
    for name, q in (("4 q", 4 * c.q), ("q - 16", c.q - 16)):
        expect.same(impl(c.replace(q=q.astype(c.dtype))), wanted, name)


def _model(c, S=3):
    g = np.random.default_rng(int(64 * float(np.sum(np.abs(c.q)))) + 7)
    return chances(g, (S, 2, S)), g.integers(-8, 9, (S, 2)) / 4.0, g


@law(
    ID, "L3", closed_form=True, dtypes=("float64",), given=models, kills=["worst_action", "uniform"],
)  # fmt: skip
def loss_of_a_greedy_policy(impl, c, expect):
    """Greedy for v_hat, off by e from v*: v_pi >= v* - 2 gamma e / (1 - gamma). It is met where one action leads to a
    state that v_hat has e too low, the other, which pays 2 gamma e less, to one that v_hat has e too high."""
    P, R, g = _model(c)
    for gamma in (0.5, 0.9):
        v = best_value(P, R, gamma)
        off = g.integers(-8, 9, 3) / 8.0
        q = R + gamma * P @ (v + off)
        policy = impl(c.replace(q=q, B=(3,)))
        lost = 2 * gamma * np.max(np.abs(off)) / (1 - gamma)
        expect.at_most(v - lost - 1e-9, value_of(P, R, policy, gamma), "v* less the loss allowed")
        e, lead = 1.0, np.broadcast_to(np.eye(2), (2, 2, 2))
        pay = np.array([[0.0, -2 * gamma * e * (1 - 2**-20)]] * 2)
        found = value_of(lead, pay, impl(c.replace(q=pay + gamma * lead @ np.array([-e, e]), B=(2,))), gamma)
        wanted = -2 * gamma * e / (1 - gamma) * (1 - 2**-20)
        expect(found, np.full(2, wanted), 1e-9, "where the bound is met")


@law(
    ID, "L4", closed_form=True, dtypes=("float64",), given=models.where(epsilon=choose(0.25, 0.5)),
    kills=["worst_action", "others_alone", "greedy_always"],
)  # fmt: skip
def improves_every_soft_policy(impl, c, expect):
    """Of a policy whose chances are all at least eps / A, the eps-greedy one for its q is at least as good in every
    state; repeated, it comes to the best of the eps-greedy policies of all choices, which is below v*."""
    P, R, g = _model(c)
    gamma, eps, A = 0.75, c.epsilon, 2
    policy = eps / A + (1 - eps) * chances(g, (3, A))
    v = value_of(P, R, policy, gamma)
    for _ in range(9):
        policy = np.asarray(impl(c.replace(q=R + gamma * P @ v, B=(3,))), np.float64)
        after = value_of(P, R, policy, gamma)
        expect.at_most(v - 1e-9, after, "the value before")
        v = after
    soft = (1 - eps) * np.eye(A)[np.array(np.meshgrid(*[range(A)] * 3)).reshape(3, -1).T] + eps / A
    expect(v, value_of(P, R, soft, gamma).max(0), 1e-9, "the soft optimum", scale=1 + np.max(np.abs(R)) * 4)
    expect.at_most(v, best_value(P, R, gamma) + 1e-9, "the soft optimum")


# Mutants ---------------------------------------------------------------------------------------------


def plain(epsilon=0.0, q=((1.0, 3.0), (2.0, 0.0))):
    """The default-size test: two states, two actions, no ties."""
    return lambda: ((np.array(q), epsilon), {})


def mixed(q, epsilon, best):
    return (best * (1 - epsilon) + epsilon / q.shape[-1]).astype(q.dtype)


def one(q, a):
    return (np.arange(q.shape[-1]) == a[..., None]).astype(q.dtype)


@mutant(ID, default_case=plain())
def others_alone(q, epsilon=0.0):
    "eps is shared by the actions that are not best."
    A, best = q.shape[-1], one(q, q.argmax(-1))
    return np.where(best == 1, 1 - epsilon if A > 1 else 1.0, epsilon / max(A - 1, 1)).astype(q.dtype)


@mutant(ID, default_case=plain(0.5))
def shares_ties(q, epsilon=0.0):
    "All best actions in equal shares."
    best = q == q.max(-1, keepdims=True) if q.size else np.zeros(q.shape)
    return mixed(q, epsilon, best / np.maximum(best.sum(-1, keepdims=True), 1))


@mutant(ID, default_case=plain(0.5))
def last_of_equals(q, epsilon=0.0):
    "The last of the best."
    return mixed(q, epsilon, one(q, q.shape[-1] - 1 - q[..., ::-1].argmax(-1)))


@mutant(ID, default_case=plain(1.0))
def worst_action(q, epsilon=0.0):
    "argmin."
    return mixed(q, epsilon, one(q, q.argmin(-1)))


@mutant(ID, default_case=plain())
def greedy_always(q, epsilon=0.0):
    "eps is taken and not used."
    return mixed(q, 0.0, one(q, q.argmax(-1)))


@mutant(ID, default_case=plain(1.0))
def uniform(q, epsilon=0.0):
    "All alike."
    return np.full_like(q, 1 / q.shape[-1])


@mutant(ID, default_case=plain())
def not_normalised(q, epsilon=0.0):
    "1 for the best and eps / A for the others."
    best = one(q, q.argmax(-1))
    return np.where(best == 1, 1.0, epsilon / q.shape[-1]).astype(q.dtype)


@mutant(ID, default_case=plain(q=((0.0, 400.0), (0.0, -400.0))))
def softmax(q, epsilon=0.0):
    "exp q / sum exp q for the greedy part."
    e = np.exp(q - q.max(-1, keepdims=True))
    return mixed(q, epsilon, e / e.sum(-1, keepdims=True))


@mutant(ID, default_case=plain(0.5))
def largest_in_size(q, epsilon=0.0):
    "argmax |q|."
    return mixed(q, epsilon, one(q, np.abs(q).argmax(-1)))
