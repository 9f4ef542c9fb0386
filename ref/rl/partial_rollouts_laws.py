"""Laws and mutants of partial rollouts."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "rl.partial_rollouts"
WHOLE = ("float64",)  # noise in, integers out
V, END = 4, 3


def table_policy(seed):
    """A policy that reads its last two tokens and its length; the same in every iteration."""
    table = np.random.default_rng(seed).integers(1, 9, (V + 1, V + 1, V)).astype(np.float64)

    def policy(tokens, iteration):
        a, b = ([V, V] + list(tokens))[-2:]
        row = np.roll(table[a, b], len(tokens))
        return np.log(row / row.sum())

    return policy


space = cases(
    ID, B=dims(0, 3), T=dims(0, 6, large=12), budget=choose(1, 2, 3, 50), end=choose(END, -7), seed=choose(0, 1, 2),
    policy=lambda draw, c: table_policy(c.seed), noise=lambda draw, c: rng(draw).integers(0, 1024, (c.B, c.T)) / 1024,
    flags={"some": Flag(lambda c: c.B > 0 and c.T > 0, {"B": dims(1, 3), "T": dims(3, 6)}),
           "cut": Flag(lambda c: c.budget < c.T, {"B": dims(2, 3), "T": dims(5, 6), "budget": choose(1, 2)}),
           "ends": Flag(lambda c: c.end == END and c.T > 3, {"end": END, "T": dims(5, 6), "B": dims(2, 3)})},
)  # fmt: skip


def one_shot(c):
    """Each response written token by token, in one go."""
    out = np.full((c.B, c.T), -1)
    for b in range(c.B):
        written = []
        while len(written) < c.T and (not written or written[-1] != c.end):
            p = np.exp(c.policy(list(written), 0))
            u, total, token = c.noise[b, len(written)], 0.0, 0
            for token, q in enumerate(p):  # noqa: B007
                total += q
                if total > u:
                    break
            out[b, len(written)] = token
            written.append(token)
    return out


@law(ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("some", "cut", "ends"),
     kills=["starts_anew", "noise_starts_anew", "forgets_the_end", "end_not_written",
     "context_of_the_part"])  # fmt: skip
def the_tokens_of_one_shot(impl, c, expect):
    "Whatever the budget: the tokens of responses written in one go under the same noise."
    expect.same(impl(c)[0], one_shot(c), "tokens")


@law(ID, "L2", closed_form=True, dtypes=WHOLE, given=space.reach("some", "cut"),
    kills=["one_iteration_long", "half_the_budget"])
def iterations_count_the_budget(impl, c, expect):
    "Token t of every response was written in iteration t // budget; after the end both are -1."
    tokens, iterations = impl(c)
    expect.same(iterations, np.where(one_shot(c) < 0, -1, np.arange(c.T) // c.budget), "iterations")
    expect.same(tokens < 0, iterations < 0, "what is not written")


@law(ID, "L3", closed_form=True, dtypes=WHOLE, given=space.where(some=True, end=-7), kills=["greedy"], passes_null=[])
def frequencies_of_the_policy(impl, c, expect):
    "First tokens over a grid of 64 noises: as many of each as 64 times its probability, to one."
    now = c.replace(noise=np.repeat(((np.arange(64) + 0.5) / 64)[:, None], c.T, 1), B=64)
    found = np.bincount(impl(now)[0][:, 0], minlength=V)
    expect(found / 64, np.exp(c.policy([], 0)), 1 / 64 + bounds.rounding(8, 1.0, "float64"), scale=1.0)


@law(ID, "L4", dtypes=WHOLE, given=space.where(cut=True, end=-7), kills=["first_policy_for_ever"])
def a_new_policy_writes_its_own_part(impl, c, expect):
    "A policy that changes after the first iteration leaves the first `budget` tokens of each response as they were."
    other = table_policy(c.seed + 17)
    old = c.policy
    changed = c.replace(policy=lambda tokens, iteration: (old if iteration == 0 else other)(tokens, iteration))
    head = slice(0, c.budget)
    expect.same(impl(changed)[0][:, head], impl(c)[0][:, head], "the first part")
    certain = c.replace(policy=lambda tokens, iteration: old(tokens, 0) if iteration == 0
        else np.array([-np.inf, -np.inf, 0.0, -np.inf]))
    tail = impl(certain)[0][:, c.budget :]
    expect.same(tail, np.full(tail.shape, 2) if tail.size else tail, "what a sure policy writes afterwards")


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: responses that fit into one budget."""
    policy = table_policy(0)
    noise = np.random.default_rng(0).integers(0, 1024, (2, 3)) / 1024
    return (noise, lambda tokens, iteration: policy(tokens, 0)), {"budget": 8, "end": -7}


def greedy_default():
    """.. and a policy that is sure."""
    return (np.full((1, 2), 0.5), lambda tokens, iteration: np.log([1e-300, 1.0])), {"budget": 1, "end": -7}


def plain(noise, policy, *, budget, end, **edit):
    B, T = noise.shape
    tokens, iterations = np.full((B, T), -1), np.full((B, T), -1)
    for b in range(B):
        written, iteration = [], 0
        while len(written) < T and (not written or written[-1] != end or edit.get("endless")):
            part = written[len(written) - len(written) % budget :] if edit.get("part") else written
            context = [] if edit.get("anew") and len(written) % budget == 0 else list(part)
            p = np.exp(policy(context, 0 if edit.get("first") else iteration))
            u = noise[b, len(written) % budget if edit.get("rewind") else len(written)]
            token = int(np.argmax(p)) if edit.get("greedy") else min(int(np.searchsorted(np.cumsum(p), u,
                side="right")), len(p) - 1)
            tokens[b, len(written)], iterations[b, len(written)] = token, iteration + edit.get("base", 0)
            if token == end and edit.get("silent"):
                tokens[b, len(written)] = iterations[b, len(written)] = -1
            written.append(token)
            if len(written) % edit.get("every", lambda n: n)(budget) == 0:
                iteration += 1
    return tokens, iterations


def _mutant(name, doc, case=None, thread=None, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case or default, thread=thread)(function)


_mutant("starts_anew", "Each part begins with an empty context.", anew=True)
_mutant("context_of_the_part", "The context is the present part alone.", part=True)
_mutant("noise_starts_anew", "The noise is read from its start in every iteration.", rewind=True)
_mutant("forgets_the_end", "A finished response is taken up again.", endless=True)
_mutant("end_not_written", "The end token is dropped.", silent=True)
_mutant("one_iteration_long", "An iteration writes one token more than its budget.", every=lambda n: n + 1)
_mutant("half_the_budget", "An iteration writes half its budget.", greedy_default, every=lambda n: max(n // 2, 1))
_mutant("greedy", "The likeliest token.", greedy_default, greedy=True)
_mutant("first_policy_for_ever", "The policy of the first iteration writes it all.", first=True)
