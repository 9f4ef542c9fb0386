"""Every method that a user of torch expects of a Tensor, against its known meaning."""

from __future__ import annotations

import math

import array_api_strict as strict
import numpy as np
import pytest

import autodiff
from autodiff import (
    is_tensor,
    jvp,
    no_grad,
    tensor,
)
from autodiff.names import METHODS

A = np.array([[0.5, 1.25, 2.0], [3.0, 0.75, 1.5]])
B = np.array([[1.0, 0.5, 2.5], [0.25, 2.0, 1.0]])
S = A[:, :2] @ np.array([[1.0, 2.0], [0.5, 1.0]])
CUBE = np.arange(24.0).reshape(2, 3, 4) / 8 + 0.25
IDS = np.array([[0, 2, 1], [1, 1, 0]])
MASK = np.array([[True, False, True], [False, False, True]])


def softmax(a, axis):
    e = np.exp(a - a.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def scattered(a, dim, index, src):
    out = a.copy()
    for at in np.ndindex(index.shape):
        to = list(at)
        to[dim] = index[at]
        out[tuple(to)] += src[at]
    return out


# name: (call on a tensor, wanted value from the array)
T = tensor(A.copy())
TORCH = {
    # shapes
    "view": (lambda t: t.view(3, 2), A.reshape(3, 2)),
    "reshape": (lambda t: t.reshape(-1), A.ravel()),
    "view_as": (lambda t: t.view_as(tensor(A.T)), A.reshape(3, 2)),
    "reshape_as": (lambda t: t.reshape_as(tensor(A.T)), A.reshape(3, 2)),
    "flatten": (lambda t: t.unsqueeze(0).flatten(0, 1), A),
    "ravel": (lambda t: t.ravel(), A.ravel()),
    "permute": (lambda t: t.permute(1, 0), A.T),
    "transpose": (lambda t: t.transpose(0, 1), A.T),
    "swapaxes": (lambda t: t.swapaxes(0, 1), A.T),
    "t": (lambda t: t.t(), A.T),
    "T": (lambda t: t.T, A.T),
    "mT": (lambda t: t.mT, A.T),
    "mH": (lambda t: t.mH, A.T),
    "movedim": (lambda t: t.movedim(0, 1), A.T),
    "unsqueeze": (lambda t: t.unsqueeze(-1), A[..., None]),
    "squeeze": (lambda t: t.unsqueeze(0).squeeze().unsqueeze(1).squeeze(1).squeeze(0), A),
    "expand": (lambda t: t.expand(4, -1, 3), np.broadcast_to(A, (4, 2, 3))),
    "expand_as": (lambda t: t.expand_as(tensor(np.ones((4, 2, 3)))), np.broadcast_to(A, (4, 2, 3))),
    "repeat": (lambda t: t.repeat(2, 1, 2), np.tile(A, (2, 1, 2))),
    "tile": (lambda t: t.tile((1, 2)), np.tile(A, (1, 2))),
    "repeat_interleave": (lambda t: t.repeat_interleave(2, dim=1), np.repeat(A, 2, axis=1)),
    "flip": (lambda t: t.flip(0, 1), A[::-1, ::-1]),
    "roll": (lambda t: t.roll(1, 0) + t.roll(1), np.roll(A, 1, 0) + np.roll(A, 1)),
    "contiguous": (lambda t: t.contiguous(), A),
    "narrow": (lambda t: t.narrow(1, 1, 2), A[:, 1:3]),
    "select": (lambda t: t.select(1, 2), A[:, 2]),
    "unbind": (lambda t: t.unbind(1)[2], A[:, 2]),
    "split": (lambda t: t.split(2, dim=1)[1], A[:, 2:]),
    "chunk": (lambda t: t.chunk(2, dim=1)[0], A[:, :2]),
    "tril": (lambda t: t.tril(-1), np.tril(A, -1)),
    "triu": (lambda t: t.triu(1), np.triu(A, 1)),
    # reductions
    "sum": (lambda t: t.sum(dim=1, keepdim=True), A.sum(1, keepdims=True)),
    "mean": (lambda t: t.mean(dim=(0, 1)), A.mean()),
    "prod": (lambda t: t.prod(0), A.prod(0)),
    "max": (lambda t: t.max(), A.max()),
    "min": (lambda t: t.min(), A.min()),
    "amax": (lambda t: t.amax(dim=1), A.max(1)),
    "amin": (lambda t: t.amin((0, 1)), A.min()),
    "var": (lambda t: t.var(dim=1, unbiased=True), A.var(1, ddof=1)),
    "std": (lambda t: t.std(1, correction=1), A.std(1, ddof=1)),
    "norm": (lambda t: t.norm() + t.norm(1) + t.norm(math.inf, dim=0).sum() + t.norm(3),
             np.linalg.norm(A) + A.sum() + A.max(0).sum() + (A**3).sum() ** (1 / 3)),
    "logsumexp": (lambda t: t.logsumexp(dim=1), np.log(np.exp(A).sum(1))),
    "cumsum": (lambda t: t.cumsum(1), A.cumsum(1)),
    "softmax": (lambda t: t.softmax(dim=0), softmax(A, 0)),
    "log_softmax": (lambda t: t.log_softmax(-1), np.log(softmax(A, -1))),
    "sort": (lambda t: t.sort(dim=1, descending=True), -np.sort(-A, 1)),
    # elementwise
    "abs": (lambda t: (-t).abs(), A),
    "neg": (lambda t: t.neg(), -A),
    "negative": (lambda t: t.negative(), -A),
    "exp": (lambda t: t.exp(), np.exp(A)),
    "expm1": (lambda t: t.expm1(), np.expm1(A)),
    "log": (lambda t: t.log(), np.log(A)),
    "log1p": (lambda t: t.log1p(), np.log1p(A)),
    "log2": (lambda t: t.log2(), np.log2(A)),
    "sqrt": (lambda t: t.sqrt(), np.sqrt(A)),
    "rsqrt": (lambda t: t.rsqrt(), A**-0.5),
    "square": (lambda t: t.square(), A * A),
    "reciprocal": (lambda t: t.reciprocal(), 1 / A),
    "sin": (lambda t: t.sin(), np.sin(A)),
    "cos": (lambda t: t.cos(), np.cos(A)),
    "tanh": (lambda t: t.tanh(), np.tanh(A)),
    "erf": (lambda t: t.erf(), [[math.erf(v) for v in row] for row in A]),
    "sigmoid": (lambda t: t.sigmoid(), 1 / (1 + np.exp(-A))),
    "relu": (lambda t: (t - 1.25).relu(), np.maximum(A - 1.25, 0)),
    "pow": (lambda t: t.pow(2), A**2),
    "add": (lambda t: t.add(B, alpha=2), A + 2 * B),
    "sub": (lambda t: t.sub(B), A - B),
    "mul": (lambda t: t.mul(B), A * B),
    "div": (lambda t: t.div(B), A / B),
    "subtract": (lambda t: t.subtract(B), A - B),
    "multiply": (lambda t: t.multiply(B), A * B),
    "divide": (lambda t: t.divide(B), A / B),
    "maximum": (lambda t: t.maximum(B), np.maximum(A, B)),
    "minimum": (lambda t: t.minimum(B), np.minimum(A, B)),
    "logaddexp": (lambda t: t.logaddexp(B), np.logaddexp(A, B)),
    "clamp": (lambda t: t.clamp(1.0, max=1.9), A.clip(1, 1.9)),
    "clip": (lambda t: t.clip(min=1.0), A.clip(1)),
    "lerp": (lambda t: t.lerp(tensor(B), 0.25), A + 0.25 * (B - A)),
    "where": (lambda t: t.where(MASK, B), np.where(MASK, A, B)),
    "masked_fill": (lambda t: t.masked_fill(MASK, -1.0), np.where(MASK, -1.0, A)),
    "real": (lambda t: t.real, A),
    "imag": (lambda t: t.imag + t, A),
    "conj": (lambda t: t.conj(), A),
    "angle": (lambda t: t.angle() + t, A),
    # places
    "gather": (lambda t: t.gather(1, IDS[:, :2]), np.take_along_axis(A, IDS[:, :2], 1)),
    "take_along_dim": (lambda t: t.take_along_dim(IDS, dim=1), np.take_along_axis(A, IDS, 1)),
    "scatter_add": (lambda t: t.scatter_add(1, IDS[:, :2], tensor(B)), scattered(A, 1, IDS[:, :2], B)),
    "index_select": (lambda t: t.index_select(1, np.array([2, 2, 0])), A[:, [2, 2, 0]]),
    "index_add": (lambda t: t.index_add(1, np.array([2, 2, 0]), tensor(B)),
                  A + np.stack([B[:, 2], 0 * B[:, 0], B[:, 0] + B[:, 1]], 1)),
    "masked_select": (lambda t: t.masked_select(MASK), A[MASK]),
    # products
    "matmul": (lambda t: t.matmul(B.T), A @ B.T),
    "mm": (lambda t: t.mm(tensor(B.T)), A @ B.T),
    "mv": (lambda t: t.mv(tensor(B[0])), A @ B[0]),
    "bmm": (lambda t: t.unsqueeze(0).bmm(tensor(B.T[None])), (A @ B.T)[None]),
    "dot": (lambda t: t[0].dot(tensor(B[0])), A[0] @ B[0]),
    "outer": (lambda t: t[0].outer(tensor(B[1])), np.outer(A[0], B[1])),
    # dtypes and the tape
    "float": (lambda t: t.float(), A.astype(np.float32)),
    "double": (lambda t: t.double(), A),
    "half": (lambda t: t.half(), A.astype(np.float16)),
    "to": (lambda t: t.to(np.float32).to("cpu").to(tensor(np.ones(2))), A),
    "type_as": (lambda t: t.type_as(tensor(np.ones(1, np.float32))), A.astype(np.float32)),
    "astype": (lambda t: t.astype(np.float32), A.astype(np.float32)),
    "cpu": (lambda t: t.cpu(), A),
    "clone": (lambda t: t.clone(), A),
}  # fmt: skip

FLAT = {
    "size": (lambda t: (t.size(), t.size(0), t.size(-1), t.size + 0), ((2, 3), 2, 3, 6)),
    "dim": (lambda t: t.dim(), 2),
    "numel": (lambda t: t.numel(), 6),
    "nbytes": (lambda t: t.nbytes, 48),
    "argmax": (lambda t: t.argmax(dim=1), A.argmax(1)),
    "argmin": (lambda t: t.argmin(), A.argmin()),
    "argsort": (lambda t: t.argsort(dim=1, descending=True), np.argsort(-A, 1)),
    "all": (lambda t: t.all(), True),
    "any": (lambda t: (t - A).any(dim=1), [False, False]),
    "isnan": (lambda t: t.isnan(), np.isnan(A)),
    "isinf": (lambda t: t.isinf(), np.isinf(A)),
    "isfinite": (lambda t: t.isfinite(), np.isfinite(A)),
    **{name: (lambda t, name=name: getattr(t, name)(B), getattr(A, f"__{name}__")(B))
       for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "long": (lambda t: t.long().data, A.astype(np.int64)),
    "int": (lambda t: t.int().data, A.astype(np.int32)),
    "bool": (lambda t: t.bool().data, A.astype(bool)),
    "is_complex": (lambda t: t.is_complex(), False),
    "is_floating_point": (lambda t: t.is_floating_point(), True),
    "tolist": (lambda t: t.tolist(), A.tolist()),
    "item": (lambda t: t[0, 0].item(), 0.5),
    "numpy": (lambda t: t.detach().numpy(), A),
    "grad_fn": (lambda t: t.grad_fn is None and (t * 1.0).grad_fn is not None, True),
    "requires_grad": (lambda t: t.requires_grad, True),
    "is_leaf": (lambda t: t.is_leaf, True),
    "detach": (lambda t: t.detach().requires_grad, False),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_torch_methods(name):
    assert hasattr(autodiff.Tensor, name)
    call, wanted = TORCH[name]
    t = tensor(A.copy(), requires_grad=True)
    got, wanted = call(t), np.asarray(wanted)
    assert is_tensor(got) and got.requires_grad
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    assert np.allclose(got.data, wanted, rtol=1e-14 if got.dtype == np.float64 else 1e-3, atol=1e-15)
    got.backward(np.ones(got.shape, got.dtype))
    assert t.grad.shape == (2, 3) and np.array_equal(t.data, A)
    d = np.where(np.arange(6).reshape(2, 3) % 2 == 0, 1.0, -0.5)
    h = 1e-6
    if got.dtype == np.float64 and name not in ("relu", "to"):  # a kink, a detour by float32
        ends = [np.asarray(call(tensor(A + s * h * d)).data).sum() for s in (1, -1)]
        assert (t.grad * d).sum() == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", FLAT)
def test_torch_methods_without_a_derivative(name):
    assert hasattr(autodiff.Tensor, name)
    call, wanted = FLAT[name]
    got = call(tensor(A.copy(), requires_grad=True))
    assert not is_tensor(got)
    if isinstance(wanted, tuple):
        assert got == wanted
    else:
        assert np.array_equal(got, wanted)


IN_PLACE = {"zero_", "fill_", "copy_", "add_", "sub_", "mul_", "div_"}
TAPE = {"detach_", "retain_grad", "register_hook", "register_post_accumulate_grad_hook"}


def test_every_row_of_the_table_is_judged():
    assert set(METHODS) <= {*TORCH, *FLAT, *IN_PLACE, *TAPE}


def test_methods_serve_strict_arrays_too():
    t = tensor(strict.asarray(A), requires_grad=True)
    for call in (lambda t: t.softmax(-1), lambda t: t.cumsum(0), lambda t: t.chunk(2, 1)[0], lambda t: t.clamp(0.6, 2),
                 lambda t: t.masked_fill(strict.asarray(MASK), 0.0), lambda t: t.gather(1, strict.asarray(IDS)),
                 lambda t: t.flatten().float(), lambda t: t.squeeze(), lambda t: t.var(0, unbiased=True)):
        assert call(t).requires_grad
    assert t.tolist() == A.tolist() and t.size() == (2, 3)
    assert t.clone().data is not t.data


def test_writes_in_place():
    t = tensor(np.ones(3))
    assert t.add_(2.0, alpha=2) is t and t.tolist() == [5, 5, 5]
    t.sub_(1).mul_(tensor([1.0, 2.0, 3.0])).div_(2.0)
    assert t.tolist() == [2, 4, 6] and t.version == 4
    assert t.copy_(np.array([1.0, 2.0, 3.0])).tolist() == [1, 2, 3]
    assert t.fill_(4.0).tolist() == [4, 4, 4] and t.zero_().tolist() == [0, 0, 0]
    leaf = tensor(np.ones(3), True)
    for name, args in {"zero_": (), "fill_": (1.0,), "copy_": (t,), "add_": (1.0,), "mul_": (2.0,)}.items():
        with pytest.raises(RuntimeError, match=f"{name}: this tensor requires grad.*no_grad"):
            getattr(leaf, name)(*args)
        with no_grad():
            getattr(leaf, name)(*args)
    for name in ("copy_", "add_"):
        with pytest.raises(RuntimeError, match=f"{name}: the value requires grad"):
            getattr(t, name)(leaf)
    with pytest.raises(TypeError, match="add_: the result is float64, this tensor int64"):
        tensor(np.arange(3)).add_(0.5)


def test_clone_detach_and_retained_gradients():
    x = tensor(A.copy(), requires_grad=True)
    c = x.clone()
    assert not np.shares_memory(c.data, x.data)
    (c * B).sum().backward()
    assert np.array_equal(x.grad, B)
    h = x * 2.0
    h.retain_grad()
    h.retain_grad()
    x.retain_grad()
    (h * B).sum().backward(retain_graph=True)
    assert np.array_equal(h.grad, B)
    (h * B).sum().backward()
    assert np.array_equal(h.grad, 2 * B)
    h = x * 2.0
    h.detach_()
    assert h.is_leaf and not h.requires_grad
    h.requires_grad = True
    (h * h).sum().backward()
    assert np.array_equal(h.grad, 4 * x.data)
    h.requires_grad = False
    assert not h.requires_grad
    seen = []
    x.register_hook(lambda g: seen.append(g.shape))
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t is x))
    x.sum().backward()
    assert seen == [(2, 3), True]
    assert jvp(lambda x: x.clone() * x, (A,), (B,))[1] == pytest.approx(2 * A * B)


@pytest.mark.parametrize(
    "call, error, said",
    [
        (lambda t: t.bmm(t), ValueError, r"bmm: shapes \(2, 3\) and \(2, 3\); needs 3 and 3 axes"),
        (lambda t: t.mm(t[0]), ValueError, r"mm: shapes \(2, 3\) and \(3,\); needs 2 and 2"),
        (lambda t: t.dot(t), ValueError, "dot: shapes"),
        (lambda t: t.split(0), ValueError, "split: split_size is 0"),
        (lambda t: t.split([1, 3]), ValueError, r"split: sizes \[1, 3\] sum to 4, axis has 2"),
        (lambda t: t.chunk(0), ValueError, "chunk: chunks is 0"),
        (lambda t: t.squeeze(0, axis=1), TypeError, "got both dim and axis"),
        (lambda t: t.to("cuda"), ValueError, "to: device 'cuda'"),
        (lambda t: tensor(A).retain_grad(), RuntimeError, "retain_grad: this tensor does not require grad"),
        (lambda t: tensor(A).register_hook(print), RuntimeError, "does not require grad"),
    ],
)  # fmt: skip
def test_methods_refuse(call, error, said):
    with pytest.raises(error, match=said):
        call(tensor(A.copy(), True))


# --- wrong meanings ---------------------------------------------------------------------------

OPS = autodiff.namespace(T)
WRONG = {
    "gather": lambda t, dim, index: t[index, np.arange(index.shape[1])],
    "scatter_add": lambda t, dim, index, src: t + OPS.scatter_add(t.shape, (index, np.arange(2)), src),
    "chunk": lambda t, n, dim: t.split(n + 1, dim),
    "softmax": lambda t, dim: t.exp() / t.exp().sum(),
    "var": lambda t, dim=None, unbiased=False: OPS.var(t, axis=dim),
    "relu": lambda t: OPS.abs(t),
    "flatten": lambda t, first=0, last=-1: t.reshape(-1),
    "repeat": lambda t, *n: OPS.repeat(t, n[0], axis=0),
    "clone": lambda t: t.detach() * 1.0,
    "log_softmax": lambda t, dim: t - OPS.max(t, axis=dim, keepdims=True),
    "expand": lambda t, *shape: OPS.broadcast_to(t.detach(), (4, 2, 3)),
    "index_add": lambda t, dim, index, source: t + source,
    "cumsum": lambda t, dim: OPS.cumulative_sum(t, axis=1 - dim),
    "masked_fill": lambda t, mask, value: OPS.where(mask, t, value),
    "norm": lambda t, p=2, dim=None: OPS.sum(t * t, axis=dim),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_method_is_caught(name, monkeypatch):
    test_torch_methods(name)
    monkeypatch.setattr(autodiff.Tensor, name, WRONG[name])
    with pytest.raises((AssertionError, ValueError, IndexError)):
        test_torch_methods(name)
