"""Imports go down only; every rule is shown to fail on a planted breach."""

import pytest

from tests.meta.floors import breaches, imports_of, root_of_house


def test_imports_go_down_only():
    assert breaches(root_of_house()) == []


def house(root, files):
    families = 'FAMILIES = ("nn", "attention")\n'
    laws = {"ref/nn/linear_laws.py": "", "ref/nn/common_laws.py": ""}
    files = {"ref/families.py": families, **laws, **files}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return breaches(root)


@pytest.mark.parametrize(
    ("file", "text", "wrong"),
    [
        ("backends/numpy.py", "import autodiff.ops", "stands above it"),
        ("backends/numpy.py", "from ref.spec import spec", "stands above it"),
        ("autodiff/ops.py", "def f():\n    from ref.nn import x", "stands above it"),
        ("autodiff/ops.py", "import importlib\nimportlib.import_module('ref.nn.x')", "above it"),
        ("ref/__init__.py", "from . import spec", "stands above it"),
        ("ref/spec/registry.py", "from ref.nn.linear import linear", "stands above it"),
        ("ref/nn/linear.py", "from ..attention import sdpa", "stands above it"),
        ("ref/nn/linear.py", "from ref import attention", "stands above it"),
        ("ref/nn/linear.py", "import ref.conform.runner", "stands above it"),
        ("ref/nn/linear.py", "from tests import budgets", "stands above it"),
        ("ref/conform/runner.py", "def f():\n    from ref import cli", "stands above it"),
        ("ref/nn/linear_laws.py", "import ref.attention.sdpa", "stands above it"),
        ("ref/nn/linear.py", "from ref.nn import linear_laws", "by the runner alone"),
        ("tests/laws/test_x.py", "import ref.nn.linear_laws", "by the runner alone"),
        ("ref/cli/main.py", "from ref.nn.linear_laws import law", "by the runner alone"),
        ("ref/nn/norm_laws.py", "from ref.nn.linear_laws import law", "by the runner alone"),
        ("ref/nn/norm.py", "from ref.nn.common_laws import dense", "by the runner alone"),
        ("ref/rl/gae.py", "", "stands on no floor"),
        ("ref/nn/linear.py", "import hypothesis", "alone"),
        ("ref/cli/main.py", "def f():\n    import hypothesis", "alone"),
        ("ref/spec/registry.py", "from hypothesis import strategies", "alone"),
        ("backends/numpy.py", "import cupy", "where it is used"),
        ("backends/mpi.py", "from mpi4py import MPI", "where it is used"),
        ("ref/demo/charts.py", "import matplotlib.pyplot as plt", "where it is used"),
        ("ref/demo/charts.py", "try:\n    import matplotlib\nexcept ImportError: 0", "is used"),
        ("ref/demo/file.py", "class A:\n    import safetensors", "where it is used"),
        ("ref/conform/dl.py", "import torch", "where it is used"),
        ("ref/nn/linear.py", "def f():\n    import pandas", "no dependency"),
    ],
)
def test_a_planted_breach_is_found(tmp_path, file, text, wrong):
    found = house(tmp_path, {file: text})
    assert len(found) == 1
    assert found[0].startswith(f"{file}:")
    assert wrong in found[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("ref/attention/sdpa.py", "from ref.nn.x import y\nimport autodiff, numpy.linalg"),
        ("ref/attention/sdpa.py", "from . import rules\nfrom ref import __version__, families"),
        ("autodiff/ops_laws.py", "from ref.spec import law\nimport hypothesis, mpmath"),
        ("backends/rounding_laws.py", "from ref.spec import law"),
        ("ref/attention/sdpa_laws.py", "from ref.nn.common_laws import dense"),
        ("ref/conform/runner.py", "from ref.spec import load_laws"),
        ("ref/cli/main.py", "import typer, rich\nfrom ref.conform import run\nimport ref.demo"),
        ("ref/spec/cases.py", "from hypothesis import strategies"),
        ("ref/demo/charts.py", "def draw():\n    import matplotlib.pyplot"),
        ("backends/cupy_backend.py", "import cupy"),
        ("tests/nn/test_x.py", "import torch, pytest, ref.cli, bench.common"),
    ],
)
def test_what_is_allowed_is_not_called_a_breach(tmp_path, file, text):
    assert house(tmp_path, {file: text}) == []


def test_relative_imports_are_resolved():
    found = imports_of("from .. import a\nfrom .b import c\nfrom . import d", "ref.nn.x", False)
    assert [i.name for i in found] == ["ref.a", "ref.nn.b.c", "ref.nn.d"]
    found = imports_of("from .. import a\nfrom .b import c", "ref.nn", True)
    assert [i.name for i in found] == ["ref.a", "ref.nn.b.c"]
