"""`namespace` and `get`: which backend, and what is said when there is none."""

import copy
import importlib
import pickle
import subprocess
import sys
import types
from fractions import Fraction

import numpy as np
import pytest

import backends
from backends.core import Backend

STANDARD = """
abs acos acosh add all any arange argmax argmin argsort asarray asin asinh astype atan atan2 atanh
bitwise_and bitwise_invert bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor bool
broadcast_arrays broadcast_to can_cast ceil clip complex128 complex64 concat conj copysign cos
cosh count_nonzero cumulative_prod cumulative_sum diff divide e empty empty_like equal exp
expand_dims expm1 eye finfo flip float32 float64 floor floor_divide from_dlpack full full_like
greater greater_equal hypot iinfo imag inf int16 int32 int64 int8 isdtype isfinite isinf isnan
less less_equal linalg linspace log log10 log1p log2 logaddexp logical_and logical_not logical_or
logical_xor matmul matrix_transpose max maximum mean meshgrid min minimum moveaxis multiply nan
negative newaxis nextafter nonzero not_equal ones ones_like permute_dims pi positive pow prod real
reciprocal remainder repeat reshape result_type roll round searchsorted sign signbit sin sinh sort
sqrt square squeeze stack std subtract sum take take_along_axis tan tanh tensordot tile tril triu
trunc uint16 uint32 uint64 uint8 unique_all unique_counts unique_inverse unique_values unstack var
vecdot where zeros zeros_like
"""


@pytest.fixture
def fresh(monkeypatch):
    """A registry that has loaded nothing."""
    monkeypatch.setattr(backends, "_loaded", {})
    monkeypatch.setattr(backends, "_by_class", dict.fromkeys(backends._SCALARS))


@pytest.fixture
def fake_cupy(fresh, monkeypatch):
    """A stand-in whose arrays are a class of their own; `is_available` is the test's to set."""

    class ndarray:
        def __init__(self, *args):
            pass

    ndarray.__module__ = "cupy._core.core"
    cupy = types.ModuleType("cupy")
    cupy.ndarray, cupy.is_available = ndarray, lambda: True
    cupy.array = cupy.asnumpy = cupy.einsum = ndarray
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    library = types.ModuleType("array_api_compat.cupy")
    library.exp = np.exp
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", library)
    return cupy


@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_arrays_decide(name):
    xp = backends.get(name)
    x = xp.zeros((2, 3))
    assert backends.namespace(x) is backends.namespace(x, None, 2.0, x, True, 1j, 3) is xp
    assert backends.namespace(None, 1, x) is xp
    assert isinstance(x, xp.array_class) and xp.name == name


def test_numpy_scalars_and_subclasses_are_numpy(tmp_path):
    xp = backends.get("numpy")
    mapped = np.memmap(tmp_path / "x", dtype="f4", mode="w+", shape=3)
    for x in (np.float64(1), np.float32(1), np.int8(1), np.bool_(True), np.complex64(1), mapped):
        assert backends.namespace(x) is xp


@pytest.mark.parametrize(
    "x, named",
    [
        ([1.0], "list"),
        ("q", "str"),
        (Fraction(1, 2), "fractions.Fraction"),
        (np.ma.masked_array([1.0]), "numpy.MaskedArray"),
        (np.ones((1, 1)).view(np.matrix), "numpy.matrix"),
    ],
)
def test_unknown_types_are_named(x, named):
    wanted = f"^namespace: {named} is no array of numpy, strict, cupy, rounded; got numpy.ndarray, {named}$"
    for _ in range(2):  # a refusal is not cached as something else
        with pytest.raises(TypeError, match=wanted):
            backends.namespace(np.zeros(2), x)


def test_mixed_and_missing_arrays_are_named():
    q, k = np.zeros(2), backends.get("strict").zeros(2)
    wanted = "arrays of numpy and strict arrived together, got numpy.ndarray, array_api_strict.A"
    with pytest.raises(TypeError, match=wanted):
        backends.namespace(q, k)
    with pytest.raises(TypeError, match="arrays of strict and numpy arrived together"):
        backends.namespace(k, None, np.float64(2))
    with pytest.raises(TypeError, match="namespace: got float, NoneType; needs at least one arr"):
        backends.namespace(1.0, None)
    with pytest.raises(TypeError, match="namespace: got nothing; needs at least one array"):
        backends.namespace()


def test_get_returns_one_object_and_names_the_unknown():
    assert backends.get("strict") is backends.get("strict")
    with pytest.raises(ValueError, match="get: backend 'jax' is unknown; one of numpy, strict, c"):
        backends.get("jax")


@pytest.mark.parametrize(
    "name, package, extra", [("strict", "array_api_strict", "check"), ("cupy", "cupy", "gpu")]
)
def test_a_missing_package_is_named(fresh, monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    wanted = rf"get: backend '{name}' needs the package {package}, .*'closedform\[{extra}\]'"
    with pytest.raises(RuntimeError, match=wanted):
        backends.get(name)


def test_a_missing_device_is_named_and_asked_for_again(fake_cupy):
    fake_cupy.is_available = lambda: False
    for _ in range(2):
        with pytest.raises(RuntimeError, match="'cupy' needs a CUDA device; cupy is here and fin"):
            backends.get("cupy")
    fake_cupy.is_available = lambda: True
    assert backends.get("cupy").name == "cupy"


def test_cupy_arrays_decide_by_class(fake_cupy):
    x = fake_cupy.ndarray()
    xp = backends.namespace(x, 1.0, None)
    assert xp is backends.get("cupy") and xp.array_class is fake_cupy.ndarray
    assert xp.exp is np.exp
    wanted = "arrays of cupy and numpy arrived together, got cupy.*ndarray, numpy.ndarray"
    with pytest.raises(TypeError, match=wanted):
        backends.namespace(x, np.zeros(2))


def test_importing_backends_imports_no_optional_library():
    code = """if True:
        import sys, backends, numpy
        backends.namespace(numpy.zeros(2))
        import backends.cupy
        print([m for m in ("cupy", "array_api_strict", "hypothesis", "torch") if m in sys.modules])
    """
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_the_standard_and_the_extensions_are_there(name):
    xp = backends.get(name)
    lacking = [n for n in [*STANDARD.split(), *backends.EXTENSIONS] if not hasattr(xp, n)]
    assert lacking == []
    assert set(STANDARD.split()) <= set(dir(xp))
    with pytest.raises(AttributeError, match=f"backend '{name}' has no 'softmax': .*scatter_add"):
        xp.softmax  # noqa: B018


def test_numpys_own_functions_are_not_wrapped():
    xp = backends.get("numpy")
    for name in ("exp", "matmul", "sum", "reshape", "where", "permute_dims", "zeros", "astype"):
        assert getattr(xp, name) is getattr(np, name)


@pytest.mark.parametrize("name", importlib.import_module("backends.numpy")._NATIVE)
def test_unwrapped_functions_agree_with_the_wrapped(name):
    import array_api_compat.numpy as compat

    x = np.array([[1.5, -2.0, 0.0], [3.25, -0.5, 7.0]], np.float32)
    n = np.array([[3, -1, 2]], np.int16)
    calls = {
        "arange": [((2, 9, 3), {}), ((3.0,), {"dtype": np.float32})],
        "asarray": [((x,), {}), (([1, 2.5],), {"dtype": np.float32}), ((x,), {"copy": True})],
        "astype": [((x, np.int32), {}), ((x, np.float32), {"copy": False})],
        "cumulative_prod": [((x,), {"axis": 1}), ((n,), {"axis": -1, "include_initial": True})],
        "cumulative_sum": [((x,), {"axis": 1}), ((n,), {"axis": -1, "include_initial": True})],
        "empty": [(((0, 3),), {"dtype": np.float32})],
        "empty_like": [((x[:0],), {})],
        "eye": [((2, 3), {"k": 1}), ((2,), {"dtype": np.int8})],
        "full": [(((2, 1), 7), {}), (((), 7.0), {"dtype": np.float32})],
        "full_like": [((x, 7), {})],
        "matmul": [((x, x.T), {}), ((np.stack([x, x]), x[0]), {})],
        "permute_dims": [((x, (1, 0)), {})],
        "std": [((x,), {"axis": 1, "correction": 1}), ((x,), {"keepdims": True})],
        "tensordot": [((x, x), {}), ((x, x), {"axes": ((0,), (0,))})],
        "var": [((x,), {"axis": 1, "correction": 1}), ((x,), {"keepdims": True})],
        "ones": [(((2, 3),), {}), ((0,), {"dtype": np.int8})],
        "zeros": [(((2, 3),), {}), ((0,), {"dtype": np.int8})],
    }
    for args, keywords in calls.get(name, [((x,), {}), ((n,), {})]):
        ours = getattr(backends.get("numpy"), name)(*args, **keywords)
        theirs = getattr(compat, name)(*args, **keywords)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_backends_copy_and_pickle_as_themselves(name):
    xp = backends.get(name)
    assert copy.deepcopy(xp) is copy.copy(xp) is pickle.loads(pickle.dumps(xp)) is xp
    assert repr(xp) == f"<backend {name}>"


def test_an_adapter_supplies_exactly_the_listed_extensions():
    carry = {"from_numpy": np.array, "to_numpy": np.array}
    with pytest.raises(ValueError, match="Backend: mine and EXTENSIONS differ in einsum, erf, erfc, g"):
        Backend("mine", np, np.ndarray, extensions={}, **carry)
    more = dict.fromkeys([*backends.EXTENSIONS, "extra"], np.exp)
    with pytest.raises(ValueError, match="Backend: mine and EXTENSIONS differ in extra"):
        Backend("mine", np, np.ndarray, extensions=more, **carry)
