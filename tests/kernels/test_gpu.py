"""On a GPU: the laws on CuPy arrays, and the emulation's own cases on the device. Left out where there is none."""

import pytest

from backends.fused.cupy import flash
from backends.kernels import device as devices
from backends.kernels.probe import probe_wgmma
from ref.conform.impl import own
from ref.conform.runner import run_law
from ref.spec import all_specs, load_laws
from tests.kernels.attention_run import at_level, oracle
from tests.kernels.cases import BF16, F16, MASKS, NOT_OF_KERNELS, Case, faults
from tests.kernels.conftest import has_gpu
from tests.kernels.seeded_bugs import BUGS
from tests.meta.floors import root_of_house

load_laws()
LAWS = [(s, law) for s in all_specs() if "cupy" in s.backends for law in s.laws.values()]


@pytest.mark.gpu
@pytest.mark.parametrize("spec, law", LAWS, ids=[f"{s.id}-{law.label}" for s, law in LAWS])
def test_law_holds_on_cupy(spec, law):
    for form in spec.forms("cupy"):
        if form == "fused" and (spec.id, law.label) in NOT_OF_KERNELS:
            continue
        for dtype in law.dtypes:
            examples = max(8, 3 * len(law.given.edges) + 5)
            found = run_law(law, spec, own(spec), backend="cupy", form=form, dtype=dtype, examples=examples)
            assert found.verdict == "passed", f"{form} {dtype}: {found.broken}; {found.case!r}"


@pytest.mark.gpu
def test_the_probe_finds_nothing_wrong():
    device = devices.current()
    if device.capability == (9, 0):
        assert probe_wgmma(device) == ""


@pytest.mark.gpu
@pytest.mark.parametrize("level", ["L0", "L1", "L2"])
@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
@pytest.mark.parametrize("d", [64, 128])
def test_attention_on_the_device(monkeypatch, level, dtype, d):
    import cupy

    at_level(monkeypatch, level)
    cases = [Case(dtype, 2, 4, 2, T, S, d, d, mask, cap) for T, S in ((130, 300), (300, 70)) for mask in MASKS
             for cap in (None, 3.0)]  # fmt: skip
    cases += [bug.killer for bug in BUGS.values() if isinstance(bug.killer, Case)]
    for case in cases:
        q, k, v, g, g_l = (cupy.asarray(x) for x in case.arrays())
        options = {"mask": MASKS[case.mask], "softcap": case.softcap}
        out, saved = flash.forward(q, k, v, **options)
        grads = flash.vjp((g, g_l), out, saved, (True,) * 3, q, k, v, **options)
        outputs = (out[0], saved[0], *grads)
        actual = {n: cupy.asnumpy(x) for n, x in zip(("o", "lse", "dq", "dk", "dv"), outputs, strict=True)}
        assert not faults(case, actual, oracle(case)), case


def test_marked_tests_are_left_out_where_there_is_no_gpu(request):
    """And not skipped in silence: pytest counts them as deselected."""
    marked = [item for item in request.session.items if item.get_closest_marker("gpu")]
    assert bool(marked) <= has_gpu()
    text = (root_of_house() / "tests/kernels/test_gpu.py").read_text()
    assert text.count("@pytest.mark." + "gpu") == 3
