"""Laws and mutants of the activation memory of a GPT block."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

import backends
from autodiff import saved_bytes, tensor
from ref.models.gpt_block import SHAPES, gpt_block
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "models.activation_bytes"
EXACT = ("float64",)


def _int(*values):
    return lambda draw, c: np.array(draw(choose(*values)))


space = cases(
    ID,
    tp=choose(1, 2, 4),
    s=_int(1, 2, 4, 5, 8),
    b=_int(1, 2, 3),
    a=lambda draw, c: np.array(c.tp * draw(choose(1, 2))),
    h=lambda draw, c: np.array(int(c.a) * draw(choose(1, 2, 3))),
    hidden=lambda draw, c: draw(choose(None, c.tp, 3 * c.tp)),
    element=choose(2, 4, 8),
    dropout=choose(True, False),
    sequence_parallel=False,
    recompute=choose(None, "attention", "block"),
    layers=choose(1, 3),
    lean=True,
    flags={
        "split": Flag(lambda c: c.tp > 1, {"tp": choose(2, 4)}),
        "narrow": Flag(lambda c: c.hidden is not None and c.hidden != 4 * int(c.h), {"tp": 2, "hidden": 6}),
    },
)
plain = space.where(hidden=None, element=2, dropout=True, layers=1)


def whole(c, found, expect):
    expect.holds(np.asarray(found).dtype.kind in "iu" and np.ndim(found) == 0, "the result is an integer")
    return int(found)


@law(
    ID, "L1", closed_form=True, dtypes=EXACT,
    given=plain.where(s=_int(4, 8, 1024, 2048), sequence_parallel=choose(True, False)).reach("split"),
    kills=["masks_of_two_bytes", "mask_of_attention_left_out", "sequence_ignored", "everything_split",
           "selective_drops_the_inputs_too", "bits_of_a_head"],
)  # fmt: skip
def the_papers_formulas(impl, c, expect):
    "s b h (10 + 24/t + 5 a s/(h t)), with sequence parallelism s b h / t (34 + 5 a s/h), and so on: Table 2."
    s, b, h, a, t = (int(x) for x in (c.s, c.b, c.h, c.a, c.tp))
    scores = Fraction(5 * a * s, h) if c.recompute is None else 0
    rows = Fraction(34 + scores) / t if c.sequence_parallel else 10 + (24 + scores) / Fraction(t)
    if c.recompute == "block":
        rows = Fraction(2, t if c.sequence_parallel else 1)
    expect.same(whole(c, impl(c), expect), int(s * b * h * rows), "bytes")
    big = c.replace(s=np.array(2048), b=np.array(1), h=np.array(12288), a=np.array(96), tp=1, recompute=None)
    big = big.replace(sequence_parallel=False)
    expect.same(whole(c, impl(big), expect), 2048 * 12288 * (34 + 80), "bytes of a layer of GPT-3: 5 a s / h = 80")


def counted(c):
    """Saved bytes of one rank's block on the engine: its heads, and its hidden channels, of the given width."""
    h, F = int(c.h), 4 * int(c.h) if c.hidden is None else c.hidden
    sizes = {"d": h, "D": h // c.tp, "F": F // c.tp}
    make = {2: lambda a: XP.astype(XP.from_numpy(a), XP.bfloat16), 4: np.float32, 8: np.float64}[c.element]
    params = {n: tensor(make(np.ones([sizes[x] for x in axes])), requires_grad=True) for n, axes in SHAPES.items()}
    x = tensor(make(np.ones((int(c.b), int(c.s), h))), requires_grad=True)
    rate = 0.5 if c.dropout else 0.0
    y = gpt_block(x, params, heads=int(c.a) // c.tp, rate=rate, lean=c.lean, recompute=c.recompute)
    return saved_bytes(y, besides=list(params.values()))


XP = backends.get("rounded")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=space.where(layers=1).reach("split", "narrow"),
    kills=["masks_of_two_bytes", "always_four_times", "without_dropout_as_with", "everything_split",
           "two_bytes_an_element"],
)  # fmt: skip
def the_tape_holds_it(impl, c, expect):
    "The engine, run on a rank's part of `models.gpt_block` in bfloat16, float32 or float64, saves as many bytes."
    expect.same(whole(c, impl(c), expect), counted(c), "bytes")


@law(
    ID, "L3", dtypes=EXACT, given=space.where(s=_int(4, 8)).reach("split"),
    kills=["sequence_ignored", "layers_ignored"], passes_null=["zeros", "nan"],
)  # fmt: skip
def ranks_share_the_whole(impl, c, expect):
    "With sequence parallelism t ranks hold together what one would alone; n layers hold n times as much as one."
    apart = whole(c, impl(c.replace(sequence_parallel=True)), expect)
    alone = whole(c, impl(c.replace(tp=1)), expect)
    expect.same(int(c.tp) * apart, alone, "bytes of all ranks")
    one = whole(c, impl(c.replace(tp=1, layers=1)), expect)
    expect.same(alone, c.layers * one, "bytes of all layers")


@law(
    ID, "L4", dtypes=EXACT, given=space.where(lean=False, layers=1).reach("split", "narrow"),
    kills=["lean_always", "everything_split"],
)  # fmt: skip
def the_composed_tape_holds_it(impl, c, expect):
    "lean=False: the engine, on the block composed of elementary primitives, saves as many bytes."
    expect.same(whole(c, impl(c), expect), counted(c), "bytes")


# Mutants ---------------------------------------------------------------------------------------------


def of(**options):
    return lambda: (tuple(np.array(n) for n in (8, 1, 4, 2)), options)


def count(s, b, h, a, *, hidden=None, element=2, dropout=True, tp=1, sequence_parallel=False, recompute=None, layers=1,
          lean=True, **edit):  # fmt: skip
    s, b, h, a, p, t = int(s), int(b), int(h), int(a), element, tp
    F = 4 * h if hidden is None else hidden
    along = t if sequence_parallel and not edit.get("no_sequence") else 1
    if recompute == "block":
        return layers * p * s * b * h // along
    mask = edit.get("mask", 1) if dropout else 0
    core = 0 if recompute else a * s * s * b * ((2 if dropout else 1) * p + (edit.get("core_mask", mask)))
    inputs = 0 if recompute and edit.get("inputs_too") else 4
    if not lean:
        wide = max(p, 4)
        rows = 2 * ((h + 1) * wide + p * h + wide * h * (p < wide)) + 2 * p * h + 2 * h * mask
        core = 0 if recompute else a * s * b * (3 * p * s + 2 * p + s * mask + p * s * dropout) // t + s * s
        split = s * b * (4 * p * h + 7 * p * F) // t
        if edit.get("all_split"):
            return layers * (s * b * rows // t + split + core)
        return layers * (s * b * rows + split + core)
    rows = s * b * (4 * p * h + 2 * h * mask)
    split = s * b * (inputs * p * h + 2 * p * F)
    if edit.get("all_split"):
        along = t
    return layers * (rows // along + (split + core) // t)


def _mutant(name, statement, default=None, change=lambda o: o, **edit):
    def wrong(s, b, h, a, **options):
        return count(s, b, h, a, **change(options), **edit)

    wrong.__name__, wrong.__doc__ = name, statement
    mutant(ID, default_case=default or of())(wrong)


_mutant("masks_of_two_bytes", "Dropout masks in the dtype of the activations.", of(dropout=False), mask=2)
_mutant("mask_of_attention_left_out", "5 a s / h becomes 4.", of(dropout=False, recompute="attention"), core_mask=0)
_mutant("sequence_ignored", "Layer norms and masks stay whole under sequence parallelism.", no_sequence=True)
_mutant("everything_split", "What tensor parallelism leaves whole is split too.", all_split=True)
_mutant("selective_drops_the_inputs_too", "Running attention again frees Q, K and V.", inputs_too=True)
_mutant("always_four_times", "4 h hidden channels, whatever is given.", change=lambda o: o | {"hidden": None})
_mutant("without_dropout_as_with", "Masks and the dropped copy are counted in any case.",
        change=lambda o: o | {"dropout": True})  # fmt: skip
_mutant("two_bytes_an_element", "2 bytes an element in any dtype.", change=lambda o: o | {"element": 2})
_mutant("layers_ignored", "One layer.", change=lambda o: o | {"layers": 1})
_mutant("lean_always", "The lean formula for the composed block.", change=lambda o: o | {"lean": True})


@mutant(ID, default_case=of(recompute="block"))
def bits_of_a_head(s, b, h, a, **options):
    "Scores counted for each channel of a head: a^2 s / h for a s / h."
    without = options | {"recompute": options.get("recompute") or "attention"}
    core = count(s, b, h, a, **options) - count(s, b, h, a, **without)
    return count(s, b, h, a, **options) + core * (int(a) - 1)
