"""The project's own laws judge every kernel that is a fused form, in float32, on the emulation.

On a machine with a GPU the marker `gpu` adds the same laws on CuPy arrays (test_gpu.py).
"""

import pytest

from backends.fused import find
from backends.kernels.device import using
from backends.kernels.emulation import ORDERS
from ref.conform.impl import Target
from ref.conform.runner import run_law
from ref.spec import get, load_laws
from tests.kernels.cases import NOT_OF_KERNELS
from tests.kernels.stand_in import StandIn

IDS = ("attention.flash", "attention.paged", "attention.varlen", "losses.softmax_cross_entropy", "nn.rms_norm",
       "nn.rope")  # fmt: skip
load_laws(IDS)
LAWS = [(id, label) for id in IDS for label in get(id).laws if (id, label) not in NOT_OF_KERNELS]


def target(id):
    """The form as something the runner judges: its function, and its vjp over one forward."""
    form, several = find(id, "cupy"), id.startswith("attention.")

    def function(*args, **options):
        assert form.supports(*args, **options)
        return form.forward(*args, **options)[0]

    def vjp(g, *args, **options):
        out, saved = form.forward(*args, **options)
        needs = (True,) * (3 if several else 2)
        return form.vjp(tuple(g) if several else g, out, saved, needs, *args, **options)

    return Target(f"{id} on CUDA", function, vjp if hasattr(form, "vjp") else None, differentiable=False)


@pytest.mark.parametrize("id, label", LAWS)
def test_law_holds(id, label):
    spec = get(id)
    law = spec.laws[label]
    for n, dtype in enumerate(d for d in law.dtypes if d in ("float32", "float16")):
        with using(StandIn(order=ORDERS[(len(label) + n) % len(ORDERS)])) as device:
            examples = max(8, 3 * len(law.given.edges) + 5)
            found = run_law(law, spec, target(id), dtype=dtype, examples=examples)
        assert found.verdict in ("passed", "not_applicable"), f"{dtype}: {found.broken}; {found.case!r}"
        assert found.verdict == "not_applicable" or device.launches


def test_every_fused_form_is_judged():
    from backends.fused import FORMS

    assert {id for id, backend in FORMS if backend == "cupy"} == set(IDS)
