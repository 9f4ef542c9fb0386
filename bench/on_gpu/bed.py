"""What a group measures on: the device, random arrays, and a clock. Dry, none of them touches a GPU."""

import contextlib
import importlib
import statistics

import numpy as np

from backends.kernels import device as devices

__all__ = ["Bed", "Missing"]

ROUNDS, SHORTEST = 7, 4.0  # of timing; milliseconds that one sample takes at least


class Missing(Exception):
    """A peer that is not installed, or does not take the case."""


class Idle:
    """A device that launches nothing."""

    xp, capability, wgmma_works = np, (9, 0), True

    def __init__(self):
        self.launches = []

    def pointer(self, array):
        return array.ctypes.data

    def tensor_map(self, array, rows, columns, extent=None):
        return np.zeros(1, "V128")

    def launch(self, launch):
        self.launches.append(launch)


class Bed:
    """The device, and what earlier groups said."""

    def __init__(self, dry, earlier):
        self.dry, self.earlier = dry, earlier
        self.device = Idle() if dry else devices.current()
        self.xp = self.device.xp

    def wrong(self):
        """Names of kernels that gave a wrong result, or whose judgement did not come to its end."""
        found = {row.get("kernel") for row in self.earlier if row.get("status") == "wrong"}
        cut = {row["group"] for row in self.earlier if row.get("status") in ("timeout", "failed")}
        found |= {group.removeprefix("correct_") for group in cut if group.startswith("correct_L")}
        return found | ({"L2"} if "probe" in cut or "attention_wgmma" in found else set())

    def random(self, shape, dtype="bfloat16", seed=0):
        """Standard normal numbers; dry, small ones."""
        if self.dry:
            shape = tuple(min(n, 8) for n in shape[:-1]) + (min(shape[-1], 4096),)
        rng = self.xp.random.default_rng(seed)
        return rng.standard_normal(shape, dtype="float32").astype(self.dtype(dtype))

    @staticmethod
    def dtype(name):
        if name == "bfloat16":
            return importlib.import_module("ml_dtypes").bfloat16
        return np.dtype(name)

    def peer(self, name):
        """A module, or Missing."""
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise Missing(f"{name} is not installed ({error})") from error

    def graph(self, function):
        """`function`, which has run before, as a graph to replay; itself where it cannot be captured."""
        cupy = self.xp
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            function()
            stream.synchronize()
            stream.begin_capture()
            try:
                function()
            except cupy.cuda.runtime.CUDARuntimeError:  # it allocates, or asks for an answer
                with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):
                    stream.end_capture()
                return function, False
            graph = stream.end_capture()
        return lambda: graph.launch(cupy.cuda.get_current_stream()), True

    def times(self, functions, foreign=()):
        """{name: {ms, p10, p90, graph}} of functions that enqueue work, by rounds in turn; dry, no times.

        `foreign` names launch on a stream of their library's choice (the default one, as the events are), so
        they are called, not captured.
        """
        if self.dry:
            for function in functions.values():
                function()
            return {name: {"ms": None} for name in functions}
        runs = {name: self._prepared(function, name not in foreign) for name, function in functions.items()}
        samples = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, (run, count, _) in runs.items():
                samples[name].append(self._sample(run, count))
        return {
            name: {"ms": statistics.median(row), "p10": sorted(row)[0], "p90": sorted(row)[-1], "graph": runs[name][2]}
            for name, row in samples.items()
        }

    def _prepared(self, function, ours):
        function()
        self.xp.cuda.runtime.deviceSynchronize()
        run, graph = self.graph(function) if ours else (function, False)
        once = min(self._sample(run, 1) for _ in range(2))
        return run, max(1, min(200, round(SHORTEST / max(once, 1e-3)))), graph

    def _sample(self, run, count):
        start, stop = (self.xp.cuda.Event() for _ in range(2))
        start.record()
        for _ in range(count):
            run()
        stop.record()
        stop.synchronize()
        return self.xp.cuda.get_elapsed_time(start, stop) / count
