"""Laws and mutants of the buckets of gradients."""

from __future__ import annotations

import numpy as np

from ref.distributed.common_laws import EXACT
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "distributed.gradient_buckets"


def _sizes(draw, c):
    return rng(draw).integers(0, 7, c.P)


def _kinds(draw, c):
    return [str(v) for v in rng(draw).choice(["f2", "f4"], c.P)] if draw(choose(True, False)) else None


space = cases(
    ID, P=dims(0, 9), sizes=_sizes, kinds=_kinds, first=choose(1, 2, 6), size=choose(3, 8, 11, 1000),
    flags={
        "none": Flag(lambda c: c.P == 0, {"P": 0}),
        "mixed": Flag(lambda c: c.kinds is not None and len(set(c.kinds)) > 1, {
            "P": dims(4, 9), "kinds": lambda draw, c: ["f2", "f4", *rng(draw).choice(["f2", "f4"], c.P - 2).tolist()],
        }),
        "large": Flag(lambda c: c.size == 1000, {"size": 1000}),
    },
)  # fmt: skip
plain = space.where(kinds=None)


def lists(out, expect):
    """The result, once it is seen to be a list of lists of numbers."""
    expect.holds(isinstance(out, list) and all(isinstance(b, list) for b in out), "the result is a list of lists")
    expect.holds(all(np.asarray(i).dtype.kind == "i" for b in out for i in b), "parameters are named by integers")
    return [[int(i) for i in b] for b in out]


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=plain.where(P=dims(1, 9), first=4),
    kills=["in_order_of_registration", "one_limit_for_all", "numbers_sorted"],
)  # fmt: skip
def equal_sizes_are_cut_by_count(impl, c, expect):
    "P parameters of 4 bytes, first = 4, size = 4 k: P - 1 alone, then k at a time downwards."
    P, k = c.P, 2 + c.size % 3
    found = lists(impl(c.replace(sizes=np.full(P, 4), first=4, size=4 * k)), expect)
    down = list(range(P - 2, -1, -1))
    wanted = [[P - 1]] + [down[i : i + k] for i in range(0, P - 1, k)]
    expect.holds(found == wanted, f"buckets are {wanted}, got {found}")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=plain.reach("none", "large"),
    kills=["in_order_of_registration", "last_one_dropped", "empty_left_out"],
)  # fmt: skip
def every_parameter_once_from_the_last(impl, c, expect):
    "With one kind the buckets in a row are P - 1, P - 2, .., 0; no bucket is empty."
    found = lists(impl(c), expect)
    expect.holds(sum(found, []) == list(range(c.P))[::-1], f"all parameters from the last, got {found}")
    expect.holds(all(found), "no bucket is empty")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=plain.where(P=dims(2, 9)).reach("large"),
    kills=["closes_before_it_exceeds", "one_limit_for_all", "closes_above_the_limit"],
)  # fmt: skip
def closed_at_the_limit_and_not_before(impl, c, expect):
    "Every bucket but the last holds its limit, and does not without its last parameter: `first`, then `size`."
    found = lists(impl(c), expect)
    expect.holds(sorted(sum(found, [])) == list(range(c.P)), f"every parameter has its bucket, got {found}")
    for k, bucket in enumerate(found):
        limit = c.size if k else c.first
        before = sum(c.sizes[i] for i in bucket[:-1])
        expect.holds(before < limit, f"bucket {k} was full at {before} bytes of {limit}")
        whole = before + c.sizes[bucket[-1]]
        expect.holds(whole >= limit or k == len(found) - 1, f"bucket {k} closed at {whole} bytes of {limit}")


@law(
    ID, "L4", closed_form=True, dtypes=EXACT, given=space.where(mixed=True), kills=["kinds_ignored"])
def kinds_do_not_mix(impl, c, expect):
    "A bucket has one kind; of each kind the parameters come once, from the last to the first."
    found = lists(impl(c), expect)
    for bucket in found:
        expect.holds(len({c.kinds[i] for i in bucket}) == 1, f"bucket {bucket} has one kind")
    for kind in set(c.kinds):
        mine = [i for bucket in found for i in bucket if c.kinds[i] == kind]
        expect.holds(mine == [i for i in reversed(range(c.P)) if c.kinds[i] == kind], f"{kind} from the last")


# Mutants ---------------------------------------------------------------------------------------------


def of(sizes, first=1, size=100):
    """The default-size test of a mutant."""
    return lambda: ((np.array(sizes),), {"first": first, "size": size})


def walked(sizes, kinds, first, size, *, order=reversed, full=None, early=False):
    """The walk, parts of which an edit replaces."""
    full = full or (lambda held, new, limit: held + new >= limit)
    kinds = kinds or [None] * len(sizes)
    closed, opened = [], {}
    for i in order(range(len(sizes))):
        bucket = opened.setdefault(kinds[i], [])
        limit = size if closed else first
        held = sum(sizes[j] for j in bucket)
        if early and bucket and held + sizes[i] > limit:
            closed.append(opened.pop(kinds[i]))
            bucket = opened.setdefault(kinds[i], [])
        bucket.append(i)
        if not early and full(held, sizes[i], limit):
            closed.append(opened.pop(kinds[i]))
    return closed + list(opened.values())


@mutant(ID, default_case=of([4]))
def in_order_of_registration(sizes, *, kinds=None, first=1 << 20, size=25 << 20):
    "The first registered first: the last gradient to come holds the first bucket up."
    return walked(sizes, kinds, first, size, order=list)


@mutant(ID, default_case=of([4, 4], first=4, size=4))
def one_limit_for_all(sizes, *, kinds=None, first=1 << 20, size=25 << 20):
    "The first bucket is as large as the others."
    return walked(sizes, kinds, size, size)


@mutant(ID, default_case=of([4, 4], first=1, size=1))
def numbers_sorted(sizes, *, kinds=None, first=1 << 20, size=25 << 20):
    "Within a bucket in order of registration."
    return [sorted(b) for b in walked(sizes, kinds, first, size)]


@mutant(ID, default_case=of([4, 4], first=4, size=4))
def last_one_dropped(sizes, *, kinds=None, first=1 << 20, size=25 << 20):
    "What is in the open bucket at the end is forgotten."
    found = walked(sizes, kinds, first, size)
    limit = size if len(found) > 1 else first
    return found[:-1] if found and sum(sizes[i] for i in found[-1]) < limit else found


@mutant(ID, default_case=of([4, 4]))
def empty_left_out(sizes, *, kinds=None, first=1 << 20, size=25 << 20):
    "A parameter without bytes has no bucket."
    return [kept for b in walked(sizes, kinds, first, size) if (kept := [i for i in b if sizes[i]])]


@mutant(ID, default_case=of([4, 4], first=4, size=4))
def closes_before_it_exceeds(sizes, *, kinds=None, first=1 << 20, size=25 << 20):
    "A parameter that would exceed the limit begins the next bucket."
    return walked(sizes, kinds, first, size, early=True)


@mutant(ID, default_case=of([4, 4], first=1, size=3))
def closes_above_the_limit(sizes, *, kinds=None, first=1 << 20, size=25 << 20):
    "A bucket that holds just its limit stays open."
    return walked(sizes, kinds, first, size, full=lambda held, new, limit: held + new > limit)


@mutant(ID, default_case=of([4, 4]))
def kinds_ignored(sizes, *, kinds=None, first=1 << 20, size=25 << 20):
    "float16 and float32 in one bucket."
    return walked(sizes, None, first, size)
