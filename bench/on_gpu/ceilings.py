"""Where the run takes place, what is compiled, the two ceilings, and the probe of level 2."""

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor

from backends.kernels import build
from backends.kernels.probe import probe_wgmma
from backends.kernels.programs import AMPERE, HOPPER, every_program
from bench.on_gpu.bed import Missing

COPY_BYTES, SIDE = 8 << 30, 8192


def environment(bed):
    """Names and versions."""
    row = {"what": "environment", "python": platform.python_version(), "compiler": build.compiler()[0], "dry": bed.dry}
    for name in ("cupy", "torch", "triton", "ml_dtypes", "numpy"):
        try:
            row[name] = bed.peer(name).__version__
        except Missing as missing:
            row[name] = str(missing)
    if not bed.dry:
        runtime = bed.xp.cuda.runtime
        properties = runtime.getDeviceProperties(runtime.getDevice())
        row |= {"device": properties["name"].decode(), "processors": properties["multiProcessorCount"],
                "driver": runtime.driverGetVersion()}  # fmt: skip
    yield row


def compiled(bed):
    """Every program that a launcher may ask for, so that no other group waits for a compiler."""
    arch = HOPPER if bed.dry else bed.device.arch
    programs = [p for p, archs in every_program() if arch == HOPPER or AMPERE in archs]

    def one(program):
        started = time.monotonic()
        usage = build.cubin(program, arch).usage
        return {"what": "compile", "program": str(program), "arch": arch, "seconds": time.monotonic() - started,
                "usage": {name: u._asdict() for name, u in usage.items()}}  # fmt: skip

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        yield from pool.map(one, programs)


def ceilings(bed):
    """The two rates that nothing can beat: a copy's, bytes read plus written, and a matrix product's."""
    yield copy(bed)
    yield product(bed)


def copy(bed):
    """8 GiB in all, read and written."""
    n = 1024 if bed.dry else COPY_BYTES // 2 // 4
    source, target = bed.xp.ones(n, "float32"), bed.xp.empty(n, "float32")
    found = bed.times({"copy": lambda: bed.xp.copyto(target, source)})["copy"]
    return {"what": "copy", **found, **_rate(2 * source.nbytes, found, "gb_s", 1e6)}


def product(bed):
    """A product of two random matrices in bfloat16, by torch's library."""
    try:
        torch = bed.peer("torch")
    except Missing as missing:
        return {"what": "gemm", "missing": str(missing)}
    side, where = (64, "cpu") if bed.dry else (SIDE, "cuda")
    a, b = (torch.randn(side, side, device=where, dtype=torch.bfloat16) for _ in range(2))
    with torch.no_grad():
        found = bed.times({"gemm": lambda: a @ b}, {"gemm"})["gemm"]
    return {"what": "gemm", **found, **_rate(2 * side**3, found, "tflop_s", 1e9)}


def probe(bed):
    """The probe's answer, and that of a second run."""
    if bed.dry:
        yield {"kernel": "attention_wgmma", "what": "probe", "dry": True}
        return
    if bed.device.capability != (9, 0):
        yield {"what": "probe", "missing": f"capability {bed.device.capability}: level 2 is for 9.0"}
        return
    for _ in range(2):
        said = probe_wgmma(bed.device)
        yield {"kernel": "attention_wgmma", "what": "probe", "status": "wrong" if said else "right", "said": said}


def _rate(amount, found, name, unit):
    return {} if found["ms"] is None else {name: amount / found["ms"] / unit}
