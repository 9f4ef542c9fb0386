"""Laws and mutants of the bytes of model states."""

from __future__ import annotations

import numpy as np

import backends
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "training.state_bytes"
EXACT = ("float64",)


def _int(*values):
    return lambda draw, c: np.array(draw(choose(*values)))


space = cases(
    ID,
    parameters=_int(1, 5, 7, 12, 64, 1000, 7_000_000_000, 6_738_415_616),
    precision=choose("bf16", "fp32", "fp16"),
    zero=choose(0, 1, 2, 3),
    ranks=choose(1, 2, 4, 64),
    flags={
        "ragged": Flag(lambda c: int(c.parameters) % c.ranks != 0, {"parameters": _int(5, 7), "ranks": 4}),
        "sharded": Flag(lambda c: c.zero > 0 and c.ranks > 1, {"zero": choose(1, 2, 3), "ranks": choose(2, 4, 64)}),
    },
)


def parts(impl, c, expect):
    found = impl(c)
    expect.holds(isinstance(found, tuple | list) and len(found) == 3, "three numbers: weights, gradients, optimizer")
    expect.holds(all(np.asarray(n).dtype.kind in "iu" for n in found), "bytes are integers")
    return [int(n) for n in found]


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.where(ranks=1), kills=["no_master", "fp32_with_a_master"],
)  # fmt: skip
def sixteen_bytes_a_parameter(impl, c, expect):
    "One rank: 16 bytes a parameter in every precision, 2 + 2 + 12 or 4 + 4 + 8; 7e9 parameters take 112e9."
    P = int(c.parameters)
    wanted = [4 * P, 4 * P, 8 * P] if c.precision == "fp32" else [2 * P, 2 * P, 12 * P]
    expect.same(parts(impl, c, expect), wanted, "bytes")
    paper = c.replace(parameters=np.array(7_000_000_000))
    expect.same(sum(parts(impl, paper, expect)), 112_000_000_000, "bytes of 7e9 parameters")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT,
    given=space.where(precision="bf16", parameters=_int(64, 7_040_000_000)).reach("sharded"),
    kills=["stage_two_forgets_gradients", "stages_shifted"],
)  # fmt: skip
def the_papers_stages(impl, c, expect):
    "Fig. 1: 4 P + 12 P / N, 2 P + 14 P / N, 16 P / N; 7.5e9 parameters on 64 ranks: 31.4, 16.6 and 1.9 GB."
    P, N = int(c.parameters), c.ranks
    wanted = (16 * P, 4 * P + 12 * P // N, 2 * P + 14 * P // N, 16 * P // N)[c.zero]
    expect.same(sum(parts(impl, c, expect)), wanted, "bytes")
    printed = {0: 120.0, 1: 31.4, 2: 16.6, 3: 1.9}[c.zero]
    figure = c.replace(parameters=np.array(7_500_000_000), ranks=64)
    expect.same(round(sum(parts(impl, figure, expect)) / 1e9, 1), printed, "GB printed in Fig. 1")


@law(
    ID, "L3", dtypes=EXACT, given=space.reach("ragged", "sharded"), kills=["share_rounded_down", "one_rank_always"],
    passes_null=["zeros", "nan"],
)  # fmt: skip
def ranks_hold_the_whole(impl, c, expect):
    "Shares together hold every parameter, and less than one a rank more; the stage says which parts are shared."
    alone, here = (parts(impl, case, expect) for case in (c.replace(ranks=1), c))
    for k, (one, mine, stage) in enumerate(zip(alone, here, (3, 2, 1), strict=True)):
        if c.zero < stage:
            expect.same(mine, one, f"part {k}, which stage {c.zero} leaves whole")
        else:
            expect.at_most(one, c.ranks * mine, f"part {k}")
            each = one // int(c.parameters)
            expect.at_most(c.ranks * mine, one + (c.ranks - 1) * each, f"{c.ranks} shares of part {k}")


@law(
    ID, "L4", closed_form=True, dtypes=EXACT, given=space.where(parameters=_int(5, 64), zero=0, ranks=1),
    kills=["no_master", "fp32_with_a_master"],
)  # fmt: skip
def arrays_take_as_much(impl, c, expect):
    "The arrays themselves: low weights and gradients, and the float32 arrays of Adam (Kingma & Ba) with a master."
    xp, P = backends.get("rounded"), int(c.parameters)
    dtype = {"bf16": xp.bfloat16, "fp16": np.dtype("float16"), "fp32": np.dtype("float32")}[c.precision]
    low = [xp.zeros((P,), dtype=dtype) for _ in ("weight", "gradient")]
    state = [np.zeros(P, np.float32) for _ in (("m", "v") if c.precision == "fp32" else ("master", "m", "v"))]
    wanted = [low[0].nbytes, low[1].nbytes, sum(a.nbytes for a in state)]
    expect.same(parts(impl, c, expect), wanted, "bytes")


# Mutants ---------------------------------------------------------------------------------------------


def of(**options):
    return lambda: ((np.array(64),), options)


def count(P, precision, zero, ranks, *, sizes=None, stages=(3, 2, 1), up=True):
    P = int(P)
    share = -(-P // ranks) if up else P // ranks
    sizes = sizes or ((4, 4, 8) if precision == "fp32" else (2, 2, 12))
    return tuple(n * (share if zero >= stage else P) for n, stage in zip(sizes, stages, strict=True))


@mutant(ID, default_case=of(precision="fp32"))
def no_master(parameters, *, precision="bf16", zero=0, ranks=1):
    "12 bytes a parameter in mixed precision: the master forgotten."
    return count(parameters, precision, zero, ranks, sizes=None if precision == "fp32" else (2, 2, 8))


@mutant(ID, default_case=of())
def fp32_with_a_master(parameters, *, precision="bf16", zero=0, ranks=1):
    "20 bytes a parameter in float32: a master beside the weight that is one."
    return count(parameters, precision, zero, ranks, sizes=(4, 4, 12) if precision == "fp32" else None)


@mutant(ID, default_case=of(zero=1, ranks=4))
def stage_two_forgets_gradients(parameters, *, precision="bf16", zero=0, ranks=1):
    "Gradients are sharded from stage 3 on."
    return count(parameters, precision, zero, ranks, stages=(3, 3, 1))


@mutant(ID, default_case=of())
def stages_shifted(parameters, *, precision="bf16", zero=0, ranks=1):
    "Stage 0 shards already."
    return count(parameters, precision, zero + 1, ranks)


@mutant(ID, default_case=of(zero=3, ranks=4))
def share_rounded_down(parameters, *, precision="bf16", zero=0, ranks=1):
    "P // N parameters a rank: the rest is nobody's."
    return count(parameters, precision, zero, ranks, up=False)


@mutant(ID, default_case=of())
def one_rank_always(parameters, *, precision="bf16", zero=0, ranks=1):
    "Nothing is sharded."
    return count(parameters, precision, 0, 1)
