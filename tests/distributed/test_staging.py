"""Device arrays go through the host: the stream has done its work before bytes are read, and sees what has arrived.

The device is a fake: its arrays raise when the host reads them, writes wait on a stream, and a log keeps the order.
"""

import sys
import types

import numpy as np
import pytest

from backends.communicators import ThreadWorld, staging


class Stream:
    """Work that runs when somebody synchronises."""

    def __init__(self, log):
        self.log, self.pending = log, []

    def launch(self, name, work):
        self.pending.append((name, work))

    def synchronize(self):
        for name, work in self.pending:
            work()
            self.log.append(f"device {name}")
        self.pending.clear()
        self.log.append("synchronised")


class DeviceArray:
    """Memory of a device: only `get`, `set` and kernels reach it."""

    def __init__(self, values, stream):
        self._values, self._stream = np.array(values), stream
        self.shape, self.dtype = self._values.shape, self._values.dtype
        self.size, self.nbytes = self._values.size, self._values.nbytes
        self.flags = types.SimpleNamespace(c_contiguous=True)

    __cuda_array_interface__ = property(lambda self: {"version": 3})

    def __array__(self, *args, **kwargs):
        raise TypeError("host access to device memory")

    __array_interface__ = property(__array__)

    def __buffer__(self, flags):
        raise TypeError("host access to device memory")

    def fill_later(self, value):
        """A kernel: asynchronous."""
        self._stream.launch("kernel", lambda: self._values.fill(value))

    def read_later(self, into):
        self._stream.launch("reader", lambda: into.append(self._values.copy()))

    def get(self):
        self._stream.log.append("host copy")
        return self._values.copy()

    def set(self, host):
        kept = host  # not copied: the buffer must live until the stream has read it
        self._stream.launch("upload", lambda: self._values.__setitem__(..., kept))


@pytest.fixture
def stream(monkeypatch):
    made = Stream([])
    package = types.ModuleType("fake_device")
    package.cuda = types.SimpleNamespace(get_current_stream=lambda: made)
    monkeypatch.setitem(sys.modules, "fake_device", package)
    monkeypatch.setattr(DeviceArray, "__module__", "fake_device.core")
    return made


def test_the_fake_raises_on_host_access(stream):
    x = DeviceArray(np.ones(3), stream)
    with pytest.raises(TypeError, match="host access"):
        np.asarray(x)
    with pytest.raises((TypeError, BufferError)):
        memoryview(x)


@pytest.mark.parametrize("buffered", [True, False])
def test_what_a_kernel_has_launched_is_what_is_sent(stream, buffered):
    def program(comm):
        x, out = DeviceArray(np.zeros(3), stream), DeviceArray(np.zeros(3), stream)
        x.fill_later(1.0 + comm.rank)
        comm.sendrecv(x, 1 - comm.rank, out, 1 - comm.rank)
        seen = []
        out.read_later(seen)  # a kernel launched after the message
        stream.synchronize()
        return seen[0].tolist()

    assert ThreadWorld(2, buffered=buffered).run(program) == [[2.0] * 3, [1.0] * 3]


def test_order_of_a_send(stream):
    x = DeviceArray(np.zeros(2), stream)
    x.fill_later(5.0)
    assert staging.host_copy(x).tolist() == [5.0, 5.0]
    assert stream.log == ["device kernel", "synchronised", "host copy"]


def test_order_of_a_receive(stream):
    """Kernels that still read the old contents run before; the upload is done before `wait` returns."""
    out, old = DeviceArray(np.zeros(2), stream), []
    out.read_later(old)

    def post(host):
        stream.log.append("posted")
        assert isinstance(host, np.ndarray)

        class Done:
            def wait(self):
                host.fill(3.0)
                stream.log.append("arrived")

            def test(self):
                return True

        return Done()

    request = staging.arriving(out, post)
    assert request.test()
    request.wait()
    assert stream.log == ["device reader", "synchronised", "posted", "arrived", "device upload", "synchronised"]
    assert old[0].tolist() == [0.0, 0.0]
    assert out.get().tolist() == [3.0, 3.0]


def test_plans_stage_at_every_run(stream):
    def program(comm):
        x, out = DeviceArray(np.zeros(1), stream), DeviceArray(np.zeros(1), stream)

        def exchange(comm, x, out):
            comm.sendrecv(x, 1 - comm.rank, out, 1 - comm.rank)

        plan, seen = comm.plan(exchange, x, out), []
        for value in (1.0, 2.0):
            x.fill_later(value * (1 + comm.rank))
            plan()
            seen.append(float(out.get()[0]))
        return seen

    assert ThreadWorld(2).run(program) == [[2.0, 4.0], [1.0, 2.0]]


def test_cuda_aware_by_the_environment_alone(stream, monkeypatch):
    """The array itself reaches the transport, the stream synchronised. What MPI makes of it has not been run."""
    x = DeviceArray(np.zeros(2), stream)
    monkeypatch.setenv(staging.AWARE, "1")
    x.fill_later(1.0)
    assert staging.host_copy(x) is x
    assert stream.log == ["device kernel", "synchronised"]
    given = []
    staging.arriving(x, given.append)
    assert given == [x]
    assert "not run" in (staging.__doc__ + staging.aware.__doc__).lower()


def test_host_arrays_are_not_copied():
    x = np.ones(3)
    assert staging.host_copy(x) is x
    assert staging.arriving(x, lambda out: out) is x
