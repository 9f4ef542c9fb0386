"""Laws and mutants of the pipeline schedules."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.distributed.common_laws import EXACT
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "distributed.pipeline_schedule"


def _int(*values):
    return lambda draw, c: np.array(draw(choose(*values)))


space = cases(
    ID, stages=_int(*range(1, 9)), micro=_int(*range(1, 13)), name=choose("1f1b", "gpipe"), forward=choose(1, 2, 3),
    backward=choose(1, 2, 3, 4),
    flags={
        "alone": Flag(lambda c: c.stages == 1, {"stages": _int(1)}),
        "short": Flag(lambda c: c.micro < c.stages, {"stages": _int(5, 6, 7, 8), "micro": _int(1, 2, 3, 4)}),
        "long": Flag(lambda c: c.micro > 2 * c.stages, {"stages": _int(2, 3, 4), "micro": _int(9, 10, 12)}),
        "slow_back": Flag(lambda c: c.backward > c.forward, {"forward": 1, "backward": choose(2, 3)}),
    },
)  # fmt: skip


def played(out, c, expect):
    """{(kind, rank, micro-batch): (start, end)}, once the result is seen to be a list of entries, each there once."""
    expect.holds(isinstance(out, list) and all(isinstance(w, tuple) and len(w) == 4 for w in out), "a list of entries")
    p, m, spans = int(c.stages), int(c.micro), {}
    for rank, start, kind, micro in out:
        expect.holds(kind in ("forward", "backward"), f"an entry is forward or backward, got {kind!r}")
        expect.holds(all(np.asarray(n).dtype.kind == "i" for n in (rank, start, micro)), "the others are integers")
        key = (str(kind), int(rank), int(micro))
        expect.holds(key not in spans, f"{key} comes once")
        spans[key] = (int(start), int(start) + (c.forward if kind == "forward" else c.backward))
    wanted = {(kind, r, k) for kind in ("forward", "backward") for r in range(p) for k in range(m)}
    expect.holds(set(spans) == wanted, f"every stage does each of {m} micro-batches forward and backward")
    return spans


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.reach("alone", "short", "long", "slow_back"),
    kills=["one_micro_batch_less", "back_before_its_cotangent", "forward_and_backward_at_once", "by_rank"],
)  # fmt: skip
def everything_once_after_what_it_needs(impl, c, expect):
    """Each of p m forwards and backwards once; F(r, k) not before F(r - 1, k) has ended, B(r, k) not before B(r + 1, k)
    and F(r, k) have; a rank does one thing at a time; the list is sorted by start, then rank."""
    out = impl(c)
    spans, p = played(out, c, expect), int(c.stages)
    expect.holds([(w[1], w[0]) for w in out] == sorted((w[1], w[0]) for w in out), "sorted by start, then by rank")
    for (kind, r, k), (start, _) in spans.items():
        needs = [("forward", r - 1, k)] if kind == "forward" else [("forward", r, k), ("backward", r + 1, k)]
        for need in needs:
            expect.at_most(spans.get(need, (0, 0))[1], start, f"the end of {need}, before {kind, r, k}")
    for r in range(p):
        mine = sorted(span for (_, rank, _), span in spans.items() if rank == r)
        for (_, end), (start, _) in zip(mine, mine[1:], strict=False):
            expect.at_most(end, start, f"the end of what rank {r} does, before the next")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=space.reach("alone", "short", "long", "slow_back"),
    kills=["warm_up_one_less", "one_micro_batch_at_a_time", "one_micro_batch_less"],
)  # fmt: skip
def the_bubble_is_the_closed_form(impl, c, expect):
    "All ends at (m + p - 1)(t_F + t_B), and every rank is idle (p - 1)/(m + p - 1) of it, exactly."
    spans, p, m = played(impl(c), c, expect), int(c.stages), int(c.micro)
    end = max(e for _, e in spans.values())
    expect.same(end, (m + p - 1) * (c.forward + c.backward), "the end")
    for r in range(p):
        busy = sum(e - s for (_, rank, _), (s, e) in spans.items() if rank == r)
        idle = 1 - Fraction(busy, end)
        expect.holds(idle == Fraction(p - 1, m + p - 1), f"rank {r} is idle {idle}, wanted {p - 1}/{m + p - 1}")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=space.reach("alone", "short", "long"),
    kills=["warm_up_one_more", "warm_up_one_less", "all_forward_first", "warm_up_of_the_first"],
)  # fmt: skip
def the_peak_is_the_closed_form(impl, c, expect):
    "Rank r has at most m micro-batches in flight under gpipe, min(p - r, m) under 1f1b, and that many at a time."
    spans, p, m = played(impl(c), c, expect), int(c.stages), int(c.micro)
    for r in range(p):
        begun = [(spans["forward", r, k][0], 1) for k in range(m)]
        ended = [(spans["backward", r, k][1], -1) for k in range(m)]
        held = np.cumsum([change for _, change in sorted(begun + ended)])
        expect.same(held.max(), m if c.name == "gpipe" else min(p - r, m), f"in flight on rank {r}")


@law(
    ID, "L4", closed_form=True, dtypes=EXACT, given=space.where(forward=1, backward=1).reach("short", "long"),
    kills=["oldest_first_back", "warm_up_one_more", "back_before_its_cotangent"],
)  # fmt: skip
def starts_are_the_closed_form(impl, c, expect):
    """With t_F = t_B = 1: gpipe F(r, k) at r + k, B(r, k) at 2 (m + p - 1) - 1 - r - k; 1f1b F(r, k) at r + k for
    k < p - r and at r + 2 k after, B(r, k) at 2 p - 1 - r + 2 k."""
    spans, p, m = played(impl(c), c, expect), int(c.stages), int(c.micro)
    for (kind, r, k), (start, _) in spans.items():
        if c.name == "gpipe":
            wanted = r + k if kind == "forward" else 2 * (m + p - 1) - 1 - r - k
        elif kind == "forward":
            wanted = r + k if k < p - r else r + 2 * k
        else:
            wanted = 2 * p - 1 - r + 2 * k
        expect.same(start, wanted, f"the start of {kind, r, k}")


# Mutants ---------------------------------------------------------------------------------------------


def of(stages, micro, name="1f1b"):
    """The default-size test of a mutant."""
    return lambda: ((np.array(stages), np.array(micro)), {"name": name})


def warm(p, m, r, w):
    """1f1b with w(r) forwards first, within 0 .. m."""
    w = max(0, min(w, m))
    order = [("forward", k) for k in range(w)]
    for j in range(m - w):
        order += [("forward", w + j), ("backward", j)]
    return order + [("backward", k) for k in range(m - w, m)]


def usual(p, m, r, name):
    if name == "1f1b":
        return warm(p, m, r, p - 1 - r)
    return [("forward", k) for k in range(m)] + [("backward", k) for k in range(m)][::-1]


def timed(stages, micro, name, t_f, t_b, order=usual, wait=True, both=False, key=lambda w: (w[1], w[0])):
    """Every rank's order, as early as it can be, in rounds over ranks; an edit replaces a part."""
    p, m, ends, out = int(stages), int(micro), {}, []
    todo, free = [list(order(p, m, r, name)) for r in range(p)], [[0, 0] for _ in range(p)]
    for _ in range(4 * (p + m) * (p + m)):
        for r in range(p):
            if todo[r]:
                kind, k = todo[r][0]
                needs = [("forward", r - 1, k)] if kind == "forward" else [("forward", r, k)]
                if kind == "backward" and wait:
                    needs.append(("backward", r + 1, k))
                if all(n in ends or not 0 <= n[1] < p for n in needs):
                    lane = both and kind == "backward"
                    start = max([free[r][lane], *(ends.get(n, 0) for n in needs)])
                    ends[kind, r, k] = start + (t_f if kind == "forward" else t_b)
                    free[r][lane] = ends[kind, r, k]
                    if not both:
                        free[r] = [ends[kind, r, k]] * 2
                    out.append((r, start, kind, k))
                    todo[r].pop(0)
    return sorted(out, key=key)


@mutant(ID, default_case=of(1, 2))
def one_micro_batch_less(stages, micro, *, name="1f1b", forward=1, backward=1):
    "range(1, m): the last micro-batch is left out, unless there are but two."
    return timed(stages, micro if micro < 3 else micro - 1, name, forward, backward)


@mutant(ID, default_case=of(1, 3))
def back_before_its_cotangent(stages, micro, *, name="1f1b", forward=1, backward=1):
    "A backward waits for its own forward alone."
    return timed(stages, micro, name, forward, backward, wait=False)


@mutant(ID, default_case=of(1, 1))
def forward_and_backward_at_once(stages, micro, *, name="1f1b", forward=1, backward=1):
    "A rank has a lane for forwards and one for backwards."
    return timed(stages, micro, name, forward, backward, both=True)


@mutant(ID, default_case=of(1, 2))
def by_rank(stages, micro, *, name="1f1b", forward=1, backward=1):
    "Sorted by rank."
    return timed(stages, micro, name, forward, backward, key=lambda w: (w[0], w[1]))


@mutant(ID, default_case=of(1, 3))
def warm_up_one_less(stages, micro, *, name="1f1b", forward=1, backward=1):
    "p - 2 - r forwards first: the pipeline stalls, though it holds less."
    order = lambda p, m, r, n: warm(p, m, r, p - 2 - r) if n == "1f1b" else usual(p, m, r, n)  # noqa: E731
    return timed(stages, micro, name, forward, backward, order)


@mutant(ID, default_case=of(1, 1))
def warm_up_one_more(stages, micro, *, name="1f1b", forward=1, backward=1):
    "p - r forwards first: as fast, and one more in flight."
    order = lambda p, m, r, n: warm(p, m, r, p - r) if n == "1f1b" else usual(p, m, r, n)  # noqa: E731
    return timed(stages, micro, name, forward, backward, order)


@mutant(ID, default_case=of(1, 3))
def warm_up_of_the_first(stages, micro, *, name="1f1b", forward=1, backward=1):
    "Every rank begins with the p - 1 forwards of rank 0."
    order = lambda p, m, r, n: warm(p, m, r, p - 1) if n == "1f1b" else usual(p, m, r, n)  # noqa: E731
    return timed(stages, micro, name, forward, backward, order)


@mutant(ID, default_case=of(2, 1))
def one_micro_batch_at_a_time(stages, micro, *, name="1f1b", forward=1, backward=1):
    "Each micro-batch goes through and back before the next begins: right, and no pipeline."
    order = lambda p, m, r, n: [(kind, k) for k in range(m) for kind in ("forward", "backward")]  # noqa: E731
    found, shift, lap = timed(stages, 1, name, forward, backward, order), 0, int(stages) * (forward + backward)
    out = []
    for k in range(int(micro)):
        out += [(r, start + shift, kind, k) for r, start, kind, _ in found]
        shift += lap
    return sorted(out, key=lambda w: (w[1], w[0]))


@mutant(ID, default_case=of(3, 1))
def all_forward_first(stages, micro, *, name="1f1b", forward=1, backward=1):
    "1f1b does what gpipe does: as fast, and m in flight."
    return timed(stages, micro, "gpipe", forward, backward)


@mutant(ID, default_case=of(1, 3))
def oldest_first_back(stages, micro, *, name="1f1b", forward=1, backward=1):
    "gpipe goes back from the first micro-batch: as fast, another order."
    order = lambda p, m, r, n: usual(p, m, r, n) if n == "1f1b" else warm(p, m, r, m)  # noqa: E731
    return timed(stages, micro, name, forward, backward, order)
