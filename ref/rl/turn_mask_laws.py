"""Laws and mutants of the mask of a conversation."""

from __future__ import annotations

import numpy as np

from ref.spec import law, mutant
from ref.spec.cases import Flag, bools, cases, dims, rng

ID = "rl.turn_mask"
WHOLE = ("float64",)  # integers and truth values alone


def _lengths(draw, c):
    g = rng(draw)
    lengths = g.integers(0, 4, (c.B, c.n))
    while c.n and np.any(lengths.sum(-1) > c.T):
        lengths = np.maximum(lengths - 1, 0)
    return lengths


space = cases(
    ID, B=dims(1, 3), n=dims(0, 4), T=dims(0, 9, large=30), lengths=_lengths, by_model=bools("B n", 0.5),
    tokens=lambda draw, c: rng(draw).integers(0, 9, (c.B, c.T)),
    flags={
        "mixed": Flag(lambda c: c.n > 1 and np.any(c.by_model) and not np.all(c.by_model)
        and np.all(c.lengths.sum(-1) > 1),
                      {"n": dims(3, 4), "T": dims(7, 9)}),
        "padded": Flag(lambda c: c.n > 0 and bool(np.any(c.lengths.sum(-1) < c.T)) and np.any(c.lengths),
        {"n": dims(2, 4), "T": dims(5, 9)}),
        "nobody": Flag(lambda c: c.T > 0 and not np.any(c.by_model),
        {"by_model": lambda draw, c: np.zeros((c.B, c.n), bool), "T": dims(1, 5)}),
        "no_turns": Flag(lambda c: c.n == 0, {"n": 0}),
    },
)  # fmt: skip


def slowly(c):
    mask, last = np.zeros((c.B, c.T), bool), np.full(c.B, -1)
    for i in range(c.B):
        at = 0
        for length, own in zip(c.lengths[i], c.by_model[i], strict=True):
            for _ in range(length):
                mask[i, at] = own
                last[i] = at if own else last[i]
                at += 1
    return mask, last


@law(ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("mixed", "padded", "nobody", "no_turns"),
     kills=["first_turn_alone", "tools_counted", "one_late", "padding_counted", "last_turn_for_last",
     "drops_the_end_token"])  # fmt: skip
def turn_by_turn(impl, c, expect):
    "The turns written out one token at a time: True where the model wrote, and the last such place of each row."
    mask, last = slowly(c)
    found = impl(c)
    expect.same(found[0], mask, "mask")
    expect.same(found[1], last, "last")


@law(ID, "L2", closed_form=True, dtypes=WHOLE, given=space.where(mixed=True),
     kills=["tools_counted", "first_turn_alone", "drops_the_end_token", "padding_counted"])  # fmt: skip
def as_many_tokens_as_the_model_wrote(impl, c, expect):
    "Each row keeps as many tokens as the lengths of the model's turns add up to."
    expect.same(impl(c)[0].sum(-1), np.sum(c.lengths * c.by_model, -1))


@law(ID, "L3", dtypes=WHOLE, given=space.where(mixed=True), kills=["drops_the_end_token", "first_turn_alone"],
     passes_null=["zeros", "constant", "nan", "identity"])  # fmt: skip
def cutting_a_turn_in_two_changes_nothing(impl, c, expect):
    "The first turn cut in two turns of the same author, and an empty turn before it: the same mask."
    half = c.lengths[:, :1] // 2
    lengths = np.concatenate([0 * half, half, c.lengths[:, :1] - half, c.lengths[:, 1:]], axis=1)
    by_model = np.concatenate([~c.by_model[:, :1], c.by_model[:, :1], c.by_model], axis=1)
    cut = impl(c.replace(lengths=lengths, by_model=by_model, n=c.n + 2))
    for name, a, b in zip(("mask", "last"), cut, impl(c), strict=True):
        expect.same(a, b, name)


# Mutants ---------------------------------------------------------------------------------------------


def one_turn():
    """The default-size test: a prompt and one answer, of one length in every row."""
    return (np.zeros((2, 5), int), np.full((2, 2), 2), np.array([[False, True]] * 2)), {}


def written(T, lengths, by_model, **edit):
    mask = np.zeros((len(lengths), T), bool)
    for i, (row, own) in enumerate(zip(lengths, by_model, strict=True)):
        at = 0
        for k, (n, mine) in enumerate(zip(row, own, strict=True)):
            mask[i, at : at + n] = edit.get("mine", lambda mine, k, own: mine)(mine, k, own)
            if edit.get("cut") and mine and n and k < len(row) - 1:
                mask[i, at + n - 1] = False
            at += n
        if edit.get("pad") and by_model.shape[1] and own[-1]:
            mask[i, at:] = True
    return mask


def _mutant(name, doc, case=one_turn, last=None, thread=None, **edit):
    def function(tokens, lengths, by_model):
        T = tokens.shape[1]
        mask = written(T, lengths, by_model, **{k: v for k, v in edit.items() if k != "roll"})
        if edit.get("roll"):
            mask = np.roll(mask, 1, axis=1)
            mask[:, :1] = False
        places = np.where(mask, np.arange(T), -1)
        found = places.max(-1) if T else np.full(len(mask), -1)
        return mask, found if last is None else last(found, lengths, by_model)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case, thread=thread)(function)


def full():
    return (np.zeros((2, 4), int), np.full((2, 2), 2), np.array([[False, True]] * 2)), {}


def silent():
    return (np.zeros((2, 4), int), np.full((2, 2), 2), np.zeros((2, 2), bool)), {}


_mutant("first_turn_alone", "Only the model's first turn.", mine=lambda mine, k, own: mine and not any(own[:k]))
_mutant("tools_counted", "Everything after the prompt, tools too.", mine=lambda mine, k, own: any(own[: k + 1]))
_mutant("one_late", "Shifted by one: as if it were a mask of predictions.", silent, roll=True, thread="shift-by-one")
_mutant("padding_counted", "The padding after a last turn of the model's counts.", full, pad=True)
_mutant("last_turn_for_last", "The end of the last turn, whoever wrote it.", full,
        last=lambda found, lengths, by_model: np.where(found < 0, found, lengths.sum(-1) - 1))  # fmt: skip
_mutant("drops_the_end_token", "The token that ends a turn is dropped, but at the end.", cut=True)
