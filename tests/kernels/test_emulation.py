"""The emulation sees what it promises to see, and reports nothing where nothing is wrong."""

import os

import numpy as np
import pytest

from backends.kernels import BFLOAT16, Launch, Program, emulation
from backends.kernels.build import SOURCES
from backends.kernels.emulation import ORDERS, EmulationError
from backends.kernels.params import fill, struct
from tests.kernels.cases import BF16
from tests.kernels.stand_in import StandIn
from tests.meta.floors import root_of_house

SOURCE = os.path.relpath(root_of_house() / "tests/kernels/faulty", SOURCES)
PROGRAM = Program(SOURCE, (("STORAGE", BFLOAT16),))


def run(kernel, threads, bug, order, shared=None):
    emulation.seed(PROGRAM, bug)
    out = np.full(threads, -7, np.float32)
    given = np.arange(8 * threads).astype(BF16)
    args = fill(struct(SOURCE, "Faulty"), {"out": out, "in": given}, lambda x: x.ctypes.data)
    bytes_ = 16 * threads if kernel == "copied" else 4 * threads
    try:
        emulation.run(Launch(PROGRAM, kernel, (1,), threads, shared or bytes_, (args,)), order)
    finally:
        emulation.seed(PROGRAM, 0)
    return out


@pytest.mark.parametrize("order", ORDERS)
def test_right_kernels_pass_in_every_order(order):
    assert run("exchange", 64, 0, order).tolist() == list(range(63, -1, -1))
    assert run("copied", 32, 0, order).tolist() == [8 * i if i < 33 else BF16.type(8 * i) for i in range(32)]
    assert set(run("summed", 32, 0, order)) == {496.0}


def test_shared_memory_starts_as_nan():
    assert np.isnan(run("unwritten", 64, 0, 0)).all()


def test_a_missing_barrier_shows_in_every_order():
    for order in ORDERS:
        assert np.isnan(run("exchange", 64, 1, order)).any()


def test_a_barrier_that_some_skip_is_a_deadlock():
    with pytest.raises(EmulationError, match=r"block \(0, 0, 0\): deadlock, 32 of 64 threads"):
        run("exchange", 64, 2, 0)


@pytest.mark.parametrize("bug", [4, 5])
def test_a_copy_lands_at_its_wait_and_no_sooner(bug):
    assert np.isnan(run("copied", 32, bug, 0)).all()


@pytest.mark.parametrize("bug, words", [(6, "thread 0: shared address 4 is no multiple of 16"),
                                        (7, "thread 31: shared address 512 .* past 512 bytes")])  # fmt: skip
def test_stray_addresses_are_named(bug, words):
    with pytest.raises(EmulationError, match=words):
        run("copied", 32, bug, 0)


def test_a_warp_whose_lanes_part_is_named():
    with pytest.raises(EmulationError, match="lanes meet at shuffle_xor and at shuffle_from|shuffle_from and at"):
        run("summed", 32, 8, 0)


def test_bad_launches():
    with pytest.raises(EmulationError, match="48 threads a block; needed a multiple of 32"):
        run("exchange", 48, 0, 0)
    with pytest.raises(EmulationError, match="300000 bytes of shared memory"):
        run("exchange", 64, 0, 0, shared=300000)


def test_what_does_not_compile_says_why():
    with pytest.raises(RuntimeError, match=r"(?s)g\+\+ refuses .*STORAGE=x"):
        emulation.build(Program(SOURCE, (("STORAGE", "x+"),)))


def test_without_gxx_the_message_says_what_is_needed(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeError, match=r"g\+\+ is not here"):
        emulation.gxx()


def test_swapcontext_gives_the_same_numbers(monkeypatch):
    """The switch of other machines than x86-64."""
    slow = Program(SOURCE, (*PROGRAM.macros, ("EMU_UCONTEXT", 1)))
    monkeypatch.setattr(f"{__name__}.PROGRAM", slow)
    assert run("exchange", 64, 0, 2).tolist() == list(range(63, -1, -1))
    assert set(run("summed", 32, 0, 1)) == {496.0}


def test_structs_are_laid_out_as_the_compiler_does():
    """Sizes of the parameter structs, as NumPy reads them and as g++ has them."""
    for source, name in (("attention_simt", "Attention"), ("paged_decode", "PagedDecode")):
        size = emulation.size_of(Program(source), name)
        assert struct(source, name).itemsize == size


def test_struct_errors():
    with pytest.raises(ValueError, match="has no struct Nothing; it has .*View"):
        struct("attention_simt", "Nothing")
    with pytest.raises(ValueError, match="outt is no field"):
        fill(struct(SOURCE, "Faulty"), {"outt": 1}, id)


def test_an_array_made_by_the_stand_in_is_poisoned_and_guarded():
    device = StandIn()
    out = device.xp.empty((64,), np.float32)
    assert np.isnan(out).all()
    args = fill(struct(SOURCE, "Faulty"), {"out": out[1:]}, device.pointer)
    with pytest.raises(EmulationError, match="exchange: wrote outside an array"):
        device.launch(Launch(PROGRAM, "exchange", (1,), 64, 256, (args,)))
