"""Laws and mutants of value iteration on a sparse model."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ref.mdp.common_laws import best_value, chances, model_space, optimum_bound, q_by_loops, quarters, sweeps_bound, top
from ref.spec import law, mutant
from ref.spec.cases import choose, dims, rng

ID = "mdp.sparse_value_iteration"
ONE = {"dtypes": ("float64",)}  # the matrices do not change with the case's dtype


def _matrices(draw, c):
    c["dense"] = chances(rng(draw), (c.S, c.A, c.S))
    return tuple(sparse.csr_array(c.dense[:, a]) for a in range(c.A))


space = model_space(ID, dense=None, P=_matrices, start=quarters("S"), iterations=dims(0, 5), kind="stochastic")
plain = {name: space.flags[name] for name in ("one_state", "one_action", "no_future")}
space = space._replace(flags=plain)


@law(
    ID, "L1", closed_form=True, given=space.reach("one_state", "one_action", "no_future"), **ONE,
    kills=["transposed", "first_action_alone", "stored_order_of_actions", "start_ignored", "one_sweep_more",
           "discounts_the_reward"],
)  # fmt: skip
def sweeps_by_loops(impl, c, expect):
    "v_{k+1}(s) = max_a (R(s, a) + gamma sum_t P_a(s, t) v_k(t)), a number at a time."
    v = np.asarray(c.start, np.float64)
    for _ in range(c.iterations):
        v = np.array([max(row) for row in q_by_loops(c.dense, c.R, v, c.gamma).tolist()])
    expect(impl(c), v, sweeps_bound(c, c.start), scale=1 + top(c, c.start))


@law(
    ID, "L2", closed_form=True, **ONE,
    given=space.where(iterations=None, start=None, tolerance=choose(1e-8, 1e-4, 0.1)),
    kills=["stops_at_the_residual", "falls_alone_are_seen", "first_action_alone"],
)  # fmt: skip
def stops_within_the_tolerance(impl, c, expect):
    "|v - v*| <= tolerance, besides rounding, v* the best of all deterministic policies."
    expect(impl(c), best_value(c.dense, c.R, c.gamma), c.tolerance + optimum_bound(c), scale=1 + top(c))


def corridor(n):
    """(P, R): left and right on 0 .. n - 1, where n - 1 pays 1 for every step into it or against its wall."""
    i = np.arange(n)
    to = np.maximum(i - 1, 0), np.minimum(i + 1, n - 1)
    P = tuple(sparse.csr_array((np.ones(n), (i, t)), shape=(n, n)) for t in to)
    return P, np.stack([(t == n - 1).astype(float) for t in to], axis=1)


@law(
    ID, "L3", closed_form=True,
    given=space.where(S=choose(3, 40, 300), A=2, P=lambda draw, c: corridor(c.S)[0], R=lambda draw, c: corridor(c.S)[1],
                      iterations=None, start=None, tolerance=1e-9),
    **ONE, kills=["transposed", "in_a_hundred_sweeps", "falls_alone_are_seen"],
)  # fmt: skip
def a_long_corridor_in_closed_form(impl, c, expect):
    "A reward of 1 at the right end for ever: v*(s) = gamma^(d - 1) / (1 - gamma), d = max(n - 1 - s, 1) steps to it."
    d = np.maximum(c.S - 1 - np.arange(c.S), 1)
    wanted = c.gamma ** (d - 1.0) / (1 - c.gamma)
    expect(impl(c), wanted, 1e-9 + sweeps_bound(c), scale=wanted.max())


@law(ID, "L4", given=space.where(S=dims(2, 4)), **ONE, kills=["columns_for_rows"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def storage_is_immaterial(impl, c, expect):
    "Stored by columns, by coordinates with an entry in two halves, or with zeros kept: the same values."
    wanted, bound = impl(c), sweeps_bound(c, c.start)
    halves = []
    for P_a in c.P:
        row, col = P_a.nonzero()
        half = P_a.toarray()[row, col] / 2
        both = np.concatenate([half, half, [0.0]]), (np.append(np.tile(row, 2), 0), np.append(np.tile(col, 2), 0))
        halves.append(sparse.coo_array(both, shape=P_a.shape))
    for name, P in (("by columns", tuple(P_a.tocsc() for P_a in c.P)), ("in halves", tuple(halves))):
        expect(impl(c.replace(P=P)), wanted, bound, name, scale=1 + top(c, c.start))


# Mutants ---------------------------------------------------------------------------------------------


def alike(S=3, A=2, reward=1.0, start=2.0, **options):
    """The default-size test: every state and action stays where it is, every reward is the same."""
    P, R = [sparse.eye_array(S, format="csr")] * A, np.full((S, A), reward)
    return lambda: ((P, R, np.full(S, start)), {"gamma": 0.5, **options})


def swept(P, R, start=None, *, gamma, tolerance=1e-8, iterations=None, **edit):
    """Sparse value iteration whose parts an edit replaces."""
    v = np.zeros(len(R)) if start is None else start
    factor = edit.get("factor", gamma / (1 - gamma))
    product = edit.get("product", lambda P_a, v: P_a @ v)
    for _ in range(edit.get("most", 2000) if iterations is None else iterations):
        last = v
        q = np.stack([R[:, a] + gamma * product(P_a, v) for a, P_a in enumerate(P)], 1)
        v = edit.get("best", lambda q: q.max(1))(q)
        if iterations is None and factor * edit.get("off", lambda d: np.max(np.abs(d)))(v - last) <= tolerance:
            break
    return np.array(v).astype(R.dtype)


@mutant(ID, default_case=alike())
def transposed(*args, **options):
    "The states that lead here."
    return swept(*args, **options, product=lambda P_a, v: P_a.T @ v)


@mutant(ID, default_case=alike())
def columns_for_rows(*args, **options):
    "The arrays of a matrix read as if it were always stored by rows."

    def product(P_a, v):
        if P_a.format == "coo":
            return P_a @ v
        return sparse.csr_array((P_a.data, P_a.indices, P_a.indptr), shape=P_a.shape) @ v

    return swept(*args, **options, product=product)


@mutant(ID, default_case=alike())
def first_action_alone(*args, **options):
    "The maximum over what is left of the loop: its first pass."
    return swept(*args, **options, best=lambda q: q[:, 0])


@mutant(ID, default_case=alike())
def stored_order_of_actions(P, R, start=None, **options):
    "The rewards of the actions backwards."
    return swept(P, R[:, ::-1], start, **options)


@mutant(ID, default_case=alike(reward=0.0, start=0.0))
def start_ignored(P, R, start=None, **options):
    "From zeros."
    return swept(P, R, None, **options)


@mutant(ID, default_case=alike(iterations=3))
def one_sweep_more(*args, iterations=None, **options):
    "k + 1."
    return swept(*args, iterations=None if iterations is None else iterations + 1, **options)


@mutant(ID, default_case=alike(reward=0.0, start=0.0))
def discounts_the_reward(P, R, start=None, *, gamma, **options):
    "gamma (R + P v)."
    return swept(P, gamma * R, start, gamma=gamma, **options)


@mutant(ID, default_case=alike())
def stops_at_the_residual(*args, **options):
    "The residual, not the error, is held to the tolerance."
    return swept(*args, **options, factor=1.0)


@mutant(ID, default_case=alike())
def falls_alone_are_seen(*args, **options):
    "The largest change without its sign: values that rise are taken for settled."
    return swept(*args, **options, off=lambda d: np.max(-d))


@mutant(ID, default_case=alike())
def in_a_hundred_sweeps(*args, **options):
    "100 sweeps at most."
    return swept(*args, **options, most=100)
