"""What launchers put on the device: grids, threads, shared bytes, structs; CuPy and the driver are stand-ins."""

import ctypes
import logging
import subprocess
import sys
import types

import numpy as np
import pytest

import backends.fused as fused
from autodiff import fusable, grad, raw, tensor
from backends.fused.cupy import flash, paged, rms_norm
from backends.kernels import BFLOAT16, FLOAT16, Launch, Program, device
from backends.kernels.device import tensor_map_arguments, using
from ref.attention.flash import flash as flash_of_ref
from ref.attention.paged import paged as paged_of_ref
from ref.attention.rules import causal, window
from ref.attention.varlen import varlen
from ref.losses.softmax_cross_entropy import softmax_cross_entropy
from ref.nn.rms_norm import rms_norm as rms_norm_of_ref
from ref.nn.rope import rope
from tests.kernels.cases import BF16, F16, F32
from tests.kernels.stand_in import StandIn


def halves(*shape, dtype=BF16):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("level, d, program, grid, threads, shared", [
    ("L0", 64, "attention_simt STORAGE=2", (7, 4, 2), 256, 33024),
    ("L0", 130, "attention_simt STORAGE=2", (14, 4, 2), 256, 33024),
    ("L1", 64, "attention_mma HEAD_DIM=64 STORAGE=2", (2, 4, 2), 128, 49152),
    ("L1", 128, "attention_mma HEAD_DIM=128 STORAGE=2", (2, 4, 2), 256, 98304),
    ("L2", 64, "attention_wgmma HEAD_DIM=64 STORAGE=2 COLS=128", (2, 4, 2), 512, 90240),
    ("L2", 128, "attention_wgmma HEAD_DIM=128 STORAGE=2 COLS=176", (2, 4, 2), 384, 213120),
])  # fmt: skip
def test_forward_launch(monkeypatch, level, d, program, grid, threads, shared):
    monkeypatch.setenv("CLOSEDFORM_ATTENTION_LEVEL", level)
    q, k, v = halves(2, 4, 200, d), halves(2, 2, 70, d), halves(2, 2, 70, d)
    with using(StandIn()) as stand_in:
        (o, _), (lse,) = flash.forward(q, k, v, softcap=3.0)
    (launch,) = stand_in.launches
    assert (str(launch.program), launch.grid, launch.threads, launch.shared) == (program, grid, threads, shared)
    p = launch.args[-1][0]
    assert [p[n]["at"] for n in "qkvo"] == [x.ctypes.data for x in (q, k, v, o)]
    assert p["lse"] == lse.ctypes.data
    assert [list(p[n])[1:] for n in "qk"] == [[4 * 200 * d, 200 * d, d], [2 * 70 * d, 70 * d, d]]
    assert [int(p[n]) for n in ("H", "G", "T", "S", "d", "e", "low", "high")] == [
        4, 2, 200, 70, d, d, -(1 << 30), 1 << 30]  # fmt: skip
    assert p["scale"] == np.float32(d**-0.5) and p["softcap"] == 3.0
    assert all(p[n] == 0 for n in ("mask", "bias", "slopes", "cu_q", "cu_k", "drop_below", "bottom_right"))
    if level == "L2":
        assert [x.dtype.itemsize for x in launch.args[:3]] == [128] * 3


@pytest.mark.parametrize("d, shared", [(64, 49152), (128, 65536)])
def test_backward_launches(d, shared):
    q, k, v = halves(2, 4, 200, d), halves(2, 2, 70, d), halves(2, 2, 70, d)
    with using(StandIn((8, 0))) as stand_in:
        out, saved = flash.forward(q, k, v, mask=causal())
        dq, dk, dv = flash.vjp((out[0], None), out, saved, (True,) * 3, q, k, v, mask=causal())
    shapes = [(x.kernel, x.grid, x.threads, x.shared) for x in stand_in.launches[1:]]
    assert shapes == [
        ("attention_delta", (25, 4, 2), 256, 0),
        ("attention_mma_dq", (4, 4, 2), 128, shared),
        ("attention_mma_dkv", (2, 2, 2), 128, shared),
    ]
    p = stand_in.launches[-1].args[0][0]
    assert [p[n]["at"] for n in ("dk", "dv")] == [dk.ctypes.data, dv.ctypes.data]
    assert stand_in.launches[-2].args[0][0]["dq"]["at"] == dq.ctypes.data
    assert p["high"] == 70 - 200 and p["low"] == -(1 << 30)
    assert p["g_lse"] == 0


def test_only_the_needed_passes_run():
    q, k, v = halves(1, 2, 5, 64), halves(1, 1, 5, 64), halves(1, 1, 5, 64)
    for needs, kernel in (((True, False, False), "attention_mma_dq"), ((False, False, True), "attention_mma_dkv")):
        with using(StandIn()) as stand_in:
            out, saved = flash.forward(q, k, v)
            flash.vjp((out[0], None), out, saved, needs, q, k, v)
        assert stand_in.kernels()[1:] == ["attention_delta", kernel]


def test_decode_splits_as_the_batch_leaves_room():
    pages, table = halves(8, 1, 64, 8, dtype=F32), np.zeros((1, 8), np.int32)
    with using(StandIn()) as stand_in:
        paged.forward(halves(1, 2, 1, 8, dtype=F32), pages, pages, table=table, lengths=np.array([500], np.int32))
    assert stand_in.launches[0].grid == (8, 1, 1)  # one part for each 64 keys
    assert stand_in.launches[1].grid == (1, 2, 1)


class FakeKernel:
    def __init__(self, name, calls):
        self.name, self.calls, self.max_dynamic_shared_size_bytes = name, calls, 49152

    def __call__(self, grid, block, args, *, shared_mem):
        self.calls.append((self.name, grid, block, args, shared_mem, self.max_dynamic_shared_size_bytes))


@pytest.fixture
def cupy(monkeypatch):
    """A module `cupy` of the size that `CudaDevice` uses."""
    calls, paths = [], []

    class RawModule:
        def __init__(self, *, path):
            paths.append(path)

        def get_function(self, name):
            return FakeKernel(name, calls)

    fake = types.ModuleType("cupy")
    fake.RawModule, fake.calls, fake.paths = RawModule, calls, paths
    runtime = types.SimpleNamespace(getDevice=lambda: 3)
    fake.cuda = types.SimpleNamespace(
        runtime=runtime, Device=lambda index: types.SimpleNamespace(compute_capability="90", index=index)
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    device._cuda_device.cache_clear()
    yield fake
    device._cuda_device.cache_clear()


def test_launches_on_a_cuda_device(cupy):
    found = device.current()
    assert (found.capability, found.arch, found.xp) == ((9, 0), "sm_90a", cupy)
    assert device.current() is found
    args = (np.zeros(1, [("x", np.int32)]),)
    program = Program("adamw", (("STORAGE", 0),))
    found.launch(Launch(program, "adamw", (5,), 256, 0, args))
    found.launch(Launch(program, "adamw", (6, 2), 256, 0, args))
    found.launch(Launch(Program("attention_mma", (("HEAD_DIM", 128), ("STORAGE", 2))), "attention_mma", (1, 2, 3), 256,
                        98304, args))  # fmt: skip
    assert cupy.calls[0] == ("adamw", (5, 1, 1), (256, 1, 1), args, 0, 49152)
    assert cupy.calls[1][1] == (6, 2, 1)
    assert cupy.calls[2][1:] == ((1, 2, 3), (256, 1, 1), args, 98304, 98304)
    assert len(cupy.paths) == 2 and all(p.endswith(".cubin") and "sm_90a" in p for p in cupy.paths)


@pytest.mark.parametrize("number, arch", [("80", "sm_80"), ("89", "sm_89"), ("90", "sm_90a"), ("120", "sm_120")])
def test_architecture_of_a_capability(cupy, number, arch):
    cupy.cuda.Device = lambda index: types.SimpleNamespace(compute_capability=number)
    assert device.CudaDevice(0).arch == arch


def test_pointers_are_cupys(cupy):
    array = types.SimpleNamespace(data=types.SimpleNamespace(ptr=1234))
    assert device.current().pointer(array) == 1234


def test_tensor_map_arguments():
    x = np.zeros((2, 3, 50, 128), F16)[:, :, ::2]
    kind, rank, address, dims, strides, box, steps, interleave, swizzle, promote, fill = tensor_map_arguments(
        x, 4096, 128, 64, extent=20
    )
    assert (kind.value, rank.value, address.value) == (6, 4, 4096)
    assert list(dims) == [128, 20, 3, 2]
    assert list(strides) == [2 * 128 * 2, 50 * 128 * 2, 3 * 50 * 128 * 2]
    assert (list(box), list(steps)) == ([64, 128, 1, 1], [1, 1, 1, 1])
    assert (interleave.value, swizzle.value, promote.value, fill.value) == (0, 3, 2, 0)
    assert tensor_map_arguments(x.view(BF16), 0, 1, 64)[0].value == 9
    assert list(tensor_map_arguments(x, 0, 1, 64)[3])[1] == 25


def test_a_tensor_map_is_what_the_driver_writes(cupy, monkeypatch):
    def encode(out, *arguments):
        assert out.value % 64 == 0
        ctypes.memset(out.value, 7, 128)
        return encode.status

    encode.status = 0
    monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace(cuTensorMapEncodeTiled=encode))
    monkeypatch.setattr(device.CudaDevice, "pointer", lambda self, x: x.ctypes.data)
    made = device.current().tensor_map(np.zeros((1, 1, 8, 64), F16), 8, 64)
    assert (made.shape, made.dtype) == ((1,), np.dtype("V128"))
    assert made.tobytes() == bytes([7] * 128)
    encode.status = 1
    with pytest.raises(RuntimeError, match="cuTensorMapEncodeTiled returned 1"):
        device.current().tensor_map(np.zeros((1, 1, 8, 64), F16), 8, 64)


def test_nothing_imports_cupy_as_it_loads():
    names = [name.replace(".numpy.", ".cupy.") for (_, backend), name in fused.FORMS.items() if backend == "cupy"]
    names.append("backends.fused.cupy.adamw")
    code = f"import importlib, sys; [importlib.import_module(n) for n in {names}]; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("function, tensors, args, options", [
    (flash_of_ref, ("q", "k", "v"), ((2, 9, 8), (1, 11, 8), (1, 11, 8)), {"mask": causal()}),
    (rms_norm_of_ref, ("x", "weight"), ((3, 10), (10,)), {"eps": 0.1}),
    (rope, ("x",), ((2, 5, 8),), {"positions": np.arange(5), "layout": "half"}),
    (softmax_cross_entropy, ("logits",), ((4, 7),), {"targets": np.array([0, 6, -1, 2]), "ignore_index": -1}),
    (varlen, ("q", "k", "v"), ((2, 9, 8), (1, 11, 8), (1, 11, 8)),
     {"cu_q": np.array([0, 2, 9]), "cu_k": np.array([0, 8, 11]), "mask": causal() & window(5, 2)}),
], ids=["flash", "rms_norm", "rope", "cross_entropy", "varlen"])  # fmt: skip
def test_the_engine_reaches_the_kernels(monkeypatch, function, tensors, args, options):
    """Through `fusable`, forward and backward, against the composite; NumPy arrays stand for CuPy's."""
    monkeypatch.delitem(fused.COMPILED, function.id, raising=False)
    monkeypatch.setitem(fused.FORMS, (function.id, "numpy"), fused.FORMS[function.id, "cupy"])
    on_device = fusable(function.id, tensors=tensors)(function.composite)
    values = [np.random.default_rng(i).standard_normal(s).astype(F32) for i, s in enumerate(args)]

    def loss(f):
        def value(*xs):
            out = f(*xs, **options)
            return (out[0] if isinstance(out, tuple) else out).sum()

        return value

    with using(StandIn()) as stand_in:
        found = grad(loss(on_device), argnums=tuple(range(len(values))))(*values)
    assert len(stand_in.launches) >= 2
    wanted = grad(loss(function.composite), argnums=tuple(range(len(values))))(*(x.astype(float) for x in values))
    for a, b in zip(found, wanted, strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_no_level_takes_is_said_and_runs_as_the_composite(monkeypatch, caplog):
    monkeypatch.setitem(fused.FORMS, (flash_of_ref.id, "numpy"), fused.FORMS[flash_of_ref.id, "cupy"])
    on_device = fusable(flash_of_ref.id, tensors=("q", "k", "v"))(flash_of_ref.composite)
    q = np.random.default_rng(0).standard_normal((2, 5, 4))
    with using(StandIn()) as stand_in, caplog.at_level(logging.DEBUG, "autodiff.forms"):
        o, _ = on_device(q, q, q, mask=causal())
    assert not stand_in.launches
    assert np.array_equal(o, flash_of_ref.composite(q, q, q, mask=causal())[0])
    (said,) = caplog.messages
    assert said.startswith("attention.flash: no fused form takes q=float64[2, 5, 4], k=") and "causal(" in said


def test_paged_decoding_reaches_its_kernel_unless_a_gradient_is_wanted(monkeypatch):
    monkeypatch.setitem(fused.FORMS, (paged_of_ref.id, "numpy"), fused.FORMS[paged_of_ref.id, "cupy"])
    on_device = fusable(paged_of_ref.id, tensors=("q", "k_pages", "v_pages"))(paged_of_ref.composite)
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal(s).astype(F32) for s in ((2, 2, 1, 8), (5, 1, 4, 8), (5, 1, 4, 8)))
    places = np.array([[4, 0], [2, 3]]), np.array([6, 8])
    with using(StandIn()) as stand_in:
        for arrays in ((q, k, v), map(tensor, (q, k, v))):
            o, lse = on_device(*arrays, *places)
            for found, wanted in zip((o, lse), paged_of_ref.composite(q, k, v, *places), strict=True):
                assert np.allclose(raw(found), wanted, rtol=1e-5, atol=1e-6)
        assert stand_in.kernels() == ["paged_decode", "paged_decode_merge"] * 2
        found = grad(lambda q: on_device(q, k, v, *places)[0].sum())(q)
    assert len(stand_in.launches) == 4
    assert np.array_equal(found, grad(lambda q: paged_of_ref.composite(q, k, v, *places)[0].sum())(q))


def test_storage_of_a_dtype():
    assert [device.storage(x) for x in (F32, F16, BF16, np.float64, np.int32)] == [0, FLOAT16, BFLOAT16, None, None]


def test_rms_norm_wider_than_shared_memory_is_the_composites():
    with using(StandIn()):
        assert not rms_norm.supports(np.zeros((1, 50_000), F32), np.zeros(50_000, F32))
