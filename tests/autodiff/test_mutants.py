"""Wrong rows of the table, and the law that each one breaks."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from autodiff import backward, checkpoint, hooks, tape
from autodiff.primitive import TABLE, fit
from autodiff.tensor import raw
from tests.autodiff import laws, test_checkpoint, test_programs, test_tensor, test_transforms
from tests.autodiff.mutants_more import JVP_MUTANTS, MORE_MUTANTS
from tests.autodiff.samples import Draw, unshrunk


def first(rule):
    """A unary rule from the one value that it keeps."""
    return lambda xp, g, node: (rule(xp, g, node.saved[-1]),)


def _no_sum_over_broadcast(xp, g, node):
    return g, g


def _swapped(xp, g, node):
    x, y = node.saved
    return fit(xp, g * x, node.edges[0]), fit(xp, g * y, node.edges[1])


def _divide_forgets_minus(xp, g, node):
    _, y, z = node.saved
    return fit(xp, g / y, node.edges[0]), fit(xp, (g / y) * z, node.edges[1])


def _where_swapped(xp, g, node):
    keep = node.saved[0]
    _, ex, ey = node.edges
    zero = g * 0.0
    return None, fit(xp, xp.where(keep, zero, g), ex), fit(xp, xp.where(keep, g, zero), ey)


def _last_write_wins(xp, g, node):
    out = np.zeros(node.edges[0].shape, g.dtype)
    out[node.params["index"]] = raw(g)
    return (out,)


def _forgets_to_invert(xp, g, node):
    return (xp.permute_dims(g, node.params["axes"]),)


def _runs_forward(xp, g, node):
    return (xp.cumulative_sum(g, axis=node.params["axis"]),)


def _rolls_on(xp, g, node):
    return (xp.roll(g, node.params["shift"], axis=node.params["axis"]),)


def _forgets_to_divide(xp, g, node):
    axis, keep = node.params["axis"], node.params["keepdims"]
    if axis is None:
        axis = tuple(range(len(node.edges[0].shape)))
    shape = list(node.edges[0].shape)
    for a in (axis,) if isinstance(axis, int) else axis:
        shape[a] = 1
    g = g if keep else xp.reshape(g, tuple(shape))
    return (xp.broadcast_to(g, node.edges[0].shape),)


def _divides_by_the_element(xp, g, node):
    (x,) = node.saved
    z = xp.prod(x, axis=node.params["axis"], keepdims=True)
    g = g if node.params["keepdims"] else xp.reshape(g, z.shape)
    return (g * (z / x),)


def _takes_no_transpose(xp, g, node):
    a, b = node.saved
    if a.ndim == 2 and b.ndim == 2 and a.shape[0] == a.shape[1] == b.shape[1]:
        return g @ b, a @ g
    return TABLE["matmul"].right(xp, g, node)


def _writes_into_g(xp, g, node):
    x, y = node.saved
    ex, ey = node.edges
    if isinstance(g, np.ndarray):
        first = fit(xp, g * y, ex)
        g *= x
        return first, fit(xp, g, ey)
    return fit(xp, g * y, ex), fit(xp, g * x, ey)


def _keeps_the_wide_dtype(xp, g, node):
    out, start = [], 0
    for size in node.params["sizes"]:
        part = (slice(None),) * node.params["axis"] + (slice(start, start + size), ...)
        out.append(g[part])
        start += size
    return tuple(out)


def _off_tape(name):
    def rule(xp, g, node):
        view = type(node)()
        view.edges, view.params = node.edges, getattr(node, "params", None)
        view.saved = tuple(raw(s) for s in node.saved)
        return TABLE[name].right(xp, g, view)

    return rule


def _half_on_tape(xp, g, node):
    if None in node.edges:
        return TABLE["multiply"].right(xp, g, node)
    x, y = node.saved
    return fit(xp, g * raw(y), node.edges[0]), fit(xp, g * x, node.edges[1])


# (what is wrong, primitive, its rule, the law that sees it)
MUTANTS = [
    ("no sum over broadcast axes", "add", _no_sum_over_broadcast, laws.slope),
    ("x and y swapped", "multiply", _swapped, laws.slope),
    ("sign of the quotient", "divide", _divide_forgets_minus, laws.slope),
    ("sign of the quotient", "divide", _divide_forgets_minus, laws.complex_step),
    ("1 + z for 1 - z", "sigmoid", first(lambda xp, g, z: g * (z * (1.0 + z))), laws.taylor),
    ("1 - z for 1 - z^2", "tanh", first(lambda xp, g, z: g * (1.0 - z)), laws.slope),
    ("sqrt(pi) in the denominator", "erf",
     first(lambda xp, g, x: g * (xp.exp(-(x * x)) / np.sqrt(np.pi))), laws.slope),
    ("|g|", "exp", first(lambda xp, g, z: xp.abs(g) * z), laws.pullback_is_linear),
    ("g + 1e-6", "sin", first(lambda xp, g, x: (g + 1e-6) * xp.cos(x)), laws.pullback_is_linear),
    ("branches swapped", "where", _where_swapped, laws.slope),
    ("repeated index overwrites", "getitem", _last_write_wins, laws.duality),
    ("axes not inverted", "permute_dims", _forgets_to_invert, laws.duality),
    ("runs forward", "cumulative_sum", _runs_forward, laws.duality),
    ("rolls on", "roll", _rolls_on, laws.duality),
    ("sum for mean", "mean", _forgets_to_divide, laws.duality),
    ("no transpose, seen on square matrices only", "matmul", _takes_no_transpose, laws.slope),
    ("writes into its cotangent", "multiply", _writes_into_g, laws.gradients_fit),
    ("float64 for a float32 part", "concat", _keeps_the_wide_dtype, laws.precisions_mix),
    ("float64 constant", "square", first(lambda xp, g, x: g * (x * np.float64(2.0))),
     laws.gradients_fit),
    ("half of it on the tape", "multiply", _half_on_tape, laws.hessian_is_symmetric),
    ("not on the tape", "exp", _off_tape("exp"), laws.double_backward),
    ("not on the tape", "matmul", _off_tape("matmul"), laws.double_backward),
    ("not on the tape", "logsumexp", _off_tape("logsumexp"), laws.double_backward),
    *((f"not on the tape {n}", n, _off_tape(n), laws.double_backward) for n in ("convolve", "svd", "solve", "softmax")),
    *MORE_MUTANTS,
]  # fmt: skip


def broken(law, name, draws=150):
    """Whether `law` fails on one of a fixed list of draws."""
    sizes = np.random.default_rng(5)
    for seed in range(draws):
        d = Draw(sizes.integers(0, 4, sizes.integers(0, 4)), seed)
        try:
            law(name, d)
        except (AssertionError, ValueError, IndexError):
            return True
    return False


@pytest.mark.parametrize(
    "name, rule, law", [m[1:] for m in MUTANTS],
    ids=[f"{m[1]}-{m[0]}-{m[3].__name__}".replace(" ", "_") for m in MUTANTS],
)  # fmt: skip
def test_a_wrong_rule_is_caught(name, rule, law, monkeypatch):
    row = TABLE[name]
    monkeypatch.setattr(row, "right", row.vjp, raising=False)
    monkeypatch.setattr(row, "vjp", rule)
    assert broken(law, name)
    monkeypatch.setattr(row, "vjp", row.right)
    assert not broken(law, name, draws=20)


def test_a_wrong_kind_is_caught(monkeypatch):
    monkeypatch.setattr(TABLE["square"], "kind", "linear")
    assert broken(laws.shortcut_is_derived, "square") and broken(laws.duality, "square")


def test_a_jvp_that_differs_from_the_vjp_is_caught(monkeypatch):
    wrong = lambda xp, tangents, node: tangents[0] * 2.0  # noqa: E731
    monkeypatch.setattr(TABLE["tanh"], "jvp", wrong)
    assert broken(laws.shortcut_is_derived, "tanh") and broken(laws.duality, "tanh")


@pytest.mark.parametrize("name, rule", JVP_MUTANTS)
def test_a_wrong_jvp_of_a_decomposition_is_caught(name, rule, monkeypatch):
    monkeypatch.setattr(TABLE[name], "jvp", rule)
    assert broken(laws.shortcut_is_derived, name)


@pytest.mark.parametrize("name", ["log_softmax", "cumulative_prod", "inv"])
def test_a_derived_row_called_elementwise_is_caught(name, monkeypatch):
    monkeypatch.setattr(TABLE[name], "kind", "elementwise")
    assert broken(laws.shortcut_is_derived, name)


def test_keeping_more_than_declared_is_caught(monkeypatch):
    monkeypatch.setattr(TABLE["exp"], "keep", lambda needs, values: tuple(values))
    assert broken(laws.keeps_what_it_declares, "exp")


def test_a_division_by_the_element_passes_until_an_element_is_zero(monkeypatch):
    monkeypatch.setattr(TABLE["prod"], "vjp", _divides_by_the_element)
    assert not broken(laws.slope, "prod", draws=40)

    class Zero(Draw):
        def real(self, shape=None):
            return super().real(shape) * (self.rng.random(self.shape if shape is None else shape) < 0.7)

    sizes = np.random.default_rng(5)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        for seed in range(50):
            laws.slope("prod", Zero(sizes.integers(1, 4, 2), seed))


# --- the engine itself ------------------------------------------------------------------------


def _sweeps_from_the_oldest(monkeypatch):
    from heapq import heappop, heappush

    monkeypatch.setattr(backward, "heappush", lambda heap, item: heappush(heap, (-item[0], item[1])))

    def pop(heap):
        seq, node = heappop(heap)
        return -seq, node

    monkeypatch.setattr(backward, "heappop", pop)


def _one_level_for_all(monkeypatch):
    monkeypatch.setattr("autodiff.transforms.directional.tick", lambda: 1)


def _forward(f, x):
    return test_transforms.FORWARD(f)(x)


def _siskind():
    assert _forward(lambda x: x * _forward(lambda y: x + y, 1.0), 1.0) == 1.0


# The package's name `checkpoint` is the function.
CHECKPOINT = sys.modules[checkpoint.__module__]

# (what is wrong, how, a check that fails on it)
ENGINE = [
    ("every array counts as owned", lambda m: m.setattr(backward, "_owned", lambda held, key: True),
     lambda: laws.gradients_fit("add", Draw((3,), 0))),
    ("writes are not checked", lambda m: m.setattr(tape._Writes, "check", lambda *_: None),
     lambda: laws.writes_are_seen("multiply", Draw((3,), 0))),
    ("a view is its own storage", lambda m: m.setattr(tape, "storage", lambda a: a),
     lambda: test_tensor.test_a_write_through_any_view_is_seen(lambda t: t[0])),
    ("oldest node first", _sweeps_from_the_oldest,
     test_programs.test_fan_out_is_summed_from_the_latest_consumer_down),
    ("one level for all", _one_level_for_all, _siskind),
    ("checksums of shapes alone",
     lambda m: m.setattr(CHECKPOINT, "_checksum", lambda v: np.shape(raw(v))),
     test_checkpoint.test_unannounced_dropout_raises_also_when_it_drops_as_many),
    ("the generator is not rewound",
     lambda m: m.setattr(CHECKPOINT, "_rewound", lambda rng, state: tape.enable_grad()),
     test_checkpoint.test_any_partition_has_the_bits_of_the_plain_run),
    ("hooks run twice", lambda m: m.setattr(
        backward, "run_hooks", lambda node, g: hooks.run_hooks(node, hooks.run_hooks(node, g))),
     test_tensor.test_hooks_see_the_whole_gradient_once_and_may_replace_it),
]  # fmt: skip


@pytest.mark.parametrize("breaks, check", [m[1:] for m in ENGINE], ids=[m[0] for m in ENGINE])
def test_a_wrong_engine_is_caught(breaks, check, monkeypatch):
    check()
    unshrunk(check, monkeypatch)
    breaks(monkeypatch)
    with pytest.raises(BaseException) as caught:  # noqa: PT011  a law may fail in its own way
        check()
    assert isinstance(caught.value, (AssertionError, RuntimeError, pytest.fail.Exception, RecursionError))
