"""The memory-bound kernels' times on a gigabyte or more, as bytes that must move a second over the copy's rate."""

import math

from backends.fused.cupy import adamw, paged, rms_norm, rope, softmax_cross_entropy
from backends.kernels.device import using

BYTES = 1 << 30


def times(bed):
    """A row for each kernel and dtype."""
    copy = next((row["gb_s"] for row in bed.earlier if row.get("what") == "copy" and "gb_s" in row), None)
    for kernel, make in WORK.items():
        if kernel.split()[0] in bed.wrong():
            yield {"kernel": kernel, "missing": "not right"}
            continue
        with using(bed.device):
            function, moved = make(bed)
            found = bed.times({kernel: function}, {"adamw"})[kernel]  # it copies its table from the host
        row = {"kernel": kernel, "bytes": moved, **found}
        if found["ms"] is not None:
            row["gb_s"] = moved / found["ms"] / 1e6
            row["of_copy"] = row["gb_s"] / copy if copy else None
        yield row


def _matrix(bed, width, dtype):
    return bed.random((BYTES // width // bed.xp.dtype(bed.dtype(dtype)).itemsize, width), dtype)


def _rms(bed):
    x, w = _matrix(bed, 4096, "bfloat16"), bed.random((4096,), "bfloat16")
    return (lambda: rms_norm.forward(x, w)), 2 * x.nbytes


def _rms_vjp(bed):
    x, w = _matrix(bed, 4096, "bfloat16"), bed.random((4096,), "bfloat16")
    y, saved = rms_norm.forward(x, w)
    return (lambda: rms_norm.vjp(y, y, saved, (True, True), x, w)), 3 * x.nbytes


def _rope(layout):
    def make(bed):
        x = bed.random((BYTES // 2 // 32 // 128 // 4096, 32, 4096, 128), "bfloat16")
        positions = bed.xp.arange(x.shape[2])
        return (lambda: rope.forward(x, positions, layout=layout)), 2 * x.nbytes

    return make


def _entropy(kernel, passes):
    """The kernel alone: its launcher also reads back whether the targets are in range."""

    def make(bed):
        logits = _matrix(bed, 32768, "bfloat16")
        targets = bed.xp.arange(len(logits)) % 100
        x, values = softmax_cross_entropy._values(bed.device, logits, targets, 0.0, None)
        values |= {"dx": x, "scale": 1e-3} if passes == 2 else {}
        return (lambda: softmax_cross_entropy._go(bed.device, kernel, x, values)), passes * x.nbytes

    return make


def _paged(bed):
    """A token of each of 64 sequences of 4096, 32 heads over 8 of keys."""
    k, v = (bed.random((BYTES // 2 // (8 * 16 * 128 * 2), 8, 16, 128), "bfloat16", i) for i in range(2))
    q, xp = bed.random((64, 32, 1, 128), "bfloat16", 2), bed.xp
    table = xp.arange(len(k), dtype="int32").reshape(len(q), -1)
    lengths = xp.full(len(q), table.shape[1] * k.shape[2], "int32")
    return (lambda: paged.forward(q, k, v, table, lengths)), k.nbytes + v.nbytes


def _adamw(bed):
    sizes = [4096 * 4096] * 15 + [4096 * 11 + 3] * 16
    lists = [[abs(bed.random((n,), "float32", i)) for n in sizes] for i in range(4)]
    how = {"lr": 1e-4, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
    moved = 28 * sum(math.prod(x.shape) for x in lists[0])
    return (lambda: adamw.adamw_(*lists, 5, **how)), moved


WORK = {
    "rms_norm": _rms,
    "rms_norm vjp": _rms_vjp,
    "rope interleaved": _rope("interleaved"),
    "rope half": _rope("half"),
    "cross_entropy": _entropy("cross_entropy", 1),
    "cross_entropy with gradient": _entropy("cross_entropy_both", 2),
    "paged_decode": _paged,
    "adamw": _adamw,
}
