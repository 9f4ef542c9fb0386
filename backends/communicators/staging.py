"""Arrays of a device on their way through the host.

MPI that knows no CUDA reads the memory of the host. Before an array of a device is read, its stream has to have done
all the work that writes it; after a message has arrived in the host's buffer it is copied to the device, in the order
of the same stream, so kernels launched later see it.

Conventions
  C1  A device array is anything with `__cuda_array_interface__` (CuPy). Its package gives the current stream.
  C2  CLOSEDFORM_CUDA_AWARE_MPI=1 hands the device's own memory to MPI, the stream synchronised. Not run: no machine
      with a CUDA-aware MPI has been at hand.
"""

from __future__ import annotations

import os

import numpy as np

AWARE = "CLOSEDFORM_CUDA_AWARE_MPI"


def on_device(x):
    """Whether x lies in the memory of a device."""
    return not isinstance(x, np.ndarray) and hasattr(type(x), "__cuda_array_interface__")


def aware():
    """Whether the environment says that MPI reads device memory itself (C2; not run)."""
    return os.environ.get(AWARE) == "1"


def host_copy(x):
    """What a transport may read: x itself, or a copy in the host's memory made once the stream has written x."""
    if not on_device(x):
        return x
    stream_of(x).synchronize()
    return x if aware() else x.get()


def arriving(out, post):
    """The request that `post(buffer)` gives for a receive into out; for a device array `wait` copies to it last."""
    if not on_device(out):
        return post(out)
    stream_of(out).synchronize()  # what was launched before may still read or write it
    if aware():
        return post(out)
    host = np.empty(out.shape, out.dtype)
    return _Arrival(post(host), host, out)


def stream_of(x):
    """The current stream of the library of x."""
    package = type(x).__module__.partition(".")[0]
    import importlib

    return importlib.import_module(package).cuda.get_current_stream()


class _Arrival:
    """A receive into the host's buffer, then to the device."""

    def __init__(self, request, host, out):
        self.request, self.host, self.out = request, host, out

    def wait(self):
        self.request.wait()
        self.out.set(self.host)  # asynchronous or not, in the order of the current stream
        # The buffer lives until the stream has read it.
        stream_of(self.out).synchronize()

    def test(self):
        return self.request.test()
