"""Each kernel against float64 on the device, by the rule of the project, before anything is timed.

    max |x - ref| <= 2 max |naive - ref| + u max |ref|,   |x - ref| <= 4 |naive - ref| + u |ref| in norm

where the naive form rounds every intermediate array to the storage dtype. Results are poisoned with NaN first,
reruns must give the same bits.
"""

import itertools

from backends.fused.cupy import (
    _attention,
    _problem,
    adamw,
    flash,
    paged,
    rms_norm,
    rope,
    softmax_cross_entropy,
    varlen,
)
from backends.fused.cupy._levels import LEVELS, choose, level_of
from backends.kernels.device import storage, using

UNIT = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SHAPES = ((2, 4, 2, 257, 257), (1, 4, 4, 130, 530), (1, 2, 1, 530, 130), (1, 2, 2, 1, 700))  # B H G T S


class Band:
    """A causal mask of either alignment, as the launchers read a rule."""

    def __init__(self, align):
        self.align = align

    def band(self, T, S):
        return None, S - T if self.align == "bottom_right" else 0

    def edges(self):
        return None, 0, self.align

    def keep(self, xp, T, S):
        return xp.arange(S)[None] <= xp.arange(T)[:, None] + self.band(T, S)[1]


def reference(xp, q, k, v, g, keep, softcap=None, rounded=None):
    """(o, lse, dq, dk, dv); in float64, or with every array rounded by `rounded` in float32."""
    kind, r = ("float64", lambda x: x) if rounded is None else ("float32", rounded)
    R, (d, S) = q.shape[-3] // k.shape[-3], (q.shape[-1], k.shape[-2])
    q, k, v, g = (x.astype(kind) for x in (q, k, v, g))
    groups, scale = k.shape, d**-0.5
    k, v = (xp.repeat(x, R, axis=-3) for x in (k, v))
    s = r(q @ k.swapaxes(-1, -2) * scale)
    t = xp.tanh(s / softcap) if softcap else xp.zeros_like(s)
    s = xp.where(keep, r(softcap * t) if softcap else s, -xp.inf)
    m = s.max(-1, keepdims=True)
    m = xp.where(xp.isinf(m), 0, m)
    p = xp.exp(s - m)
    total = p.sum(-1, keepdims=True)
    lse = (m + xp.log(total))[..., 0]
    p = r(p / xp.where(total == 0, 1, total))
    o = r(p @ v)
    ds = r(p * (r(g @ v.swapaxes(-1, -2)) - (g * o).sum(-1, keepdims=True)) * (1 - t * t))

    def by_group(x):
        return r(x.reshape(*groups[:-2], R, S, x.shape[-1]).sum(-3))

    return o, lse, r(ds @ k * scale), by_group(ds.swapaxes(-1, -2) @ q * scale), by_group(p.swapaxes(-1, -2) @ g)


def attention(level, bed):
    """One level over the dtypes and head dimensions that it declares."""
    declared, here = LEVELS[level], bed.device.capability
    if here < declared.capability or (declared.only and here != declared.capability):
        yield {"what": level, "missing": f"capability {here}"}
        return
    if level in bed.wrong():
        yield {"what": level, "missing": "its probe failed"}
        return
    dtypes = [name for name in UNIT if storage(bed.dtype(name)) in declared.storages]
    aligns = (None, "bottom_right", "top_left")
    for dtype, d, shape, align in itertools.product(dtypes, sorted(declared.head_dims or (80, 128)), SHAPES, aligns):
        for cap in (None, 20.0) if align == "bottom_right" else (None,):
            yield {"kernel": level, "what": f"{dtype} d={d} {align} B H G T S={shape} softcap={cap}",
                   **_attention_row(bed, level, dtype, d, shape, align, cap)}  # fmt: skip


def dispatch(bed):
    """What the dispatcher chooses, over dtypes and head dimensions that no one level takes; packed segments."""
    for dtype, d, align in itertools.product(("float32", "bfloat16"), (64, 128, 81), (None, "bottom_right")):
        yield {"kernel": "dispatch", "what": f"{dtype} d={d} {align}",
               **_attention_row(bed, None, dtype, d, SHAPES[0], align, None)}  # fmt: skip
    yield {"kernel": "dispatch", "what": "varlen", **_varlen_row(bed)}


def _attention_row(bed, level, dtype, d, shape, align, cap):
    B, H, G, T, S = shape
    sizes = ((H, T), (G, S), (G, S), (H, T))
    q, k, v, g = (bed.random((B, h, n, d), dtype, i) for i, (h, n) in enumerate(sizes))
    rule, xp = Band(align) if align else None, bed.xp
    options = {"mask": rule, "softcap": cap}
    with using(bed.device):
        p = _problem.problem(xp, q, k, v, **options)
        level = level or choose(bed.device, p)
        o, lse = (xp.full(x.shape, xp.nan, x.dtype) for x in _attention.allocate(xp, p))
        _attention.forward(bed.device, level, p, o, lse)
        found, back = [o, lse], "L1" if level == "L2" else level
        if level_of(bed.device.capability, p.storage, d, {"backward"}):
            made = [xp.full(x.shape, xp.nan, x.dtype) for x in (q, k, v)]
            _attention.backward(bed.device, back, p, o, lse, g, None, made)
            found += made
        again = [xp.full(x.shape, xp.nan, x.dtype) for x in (o, lse)]
        _attention.forward(bed.device, level, p, *again)
    if bed.dry:
        return {"level": level, "dry": True}
    keep = rule.keep(xp, T, S) if rule else xp.ones((T, S), bool)
    wanted = reference(xp, q, k, v, g, keep, cap)
    plain = reference(xp, q, k, v, g, keep, cap, lambda x: x.astype(q.dtype).astype("float32"))
    row = _judged(xp, ("o", "lse", "dq", "dk", "dv"), found, wanted, plain, dtype)
    if any(a.tobytes() != b.tobytes() for a, b in zip((o, lse), again, strict=True)):
        row |= {"status": "wrong", "rerun": "other bits"}
    return row | {"level": level}


def _varlen_row(bed):
    xp, lengths = bed.xp, (0, 5, 300, 129)
    cu = xp.asarray([0, 0, 5, 305, 434], "int32")
    q, k, v = (bed.random((h, 434, 64), "bfloat16", i) for i, h in enumerate((4, 2, 2)))
    if bed.dry:
        return {"dry": True, "segments": len(lengths)}
    with using(bed.device):
        (o, _), _ = varlen.forward(q, k, v, cu_q=cu, cu_k=cu, mask=Band("bottom_right"))
        worst = 0.0
        for a, n in zip((0, 0, 5, 305), lengths, strict=True):
            parts = [x[None, :, a : a + n] for x in (q, k, v)]
            if n:
                (alone, _), _ = flash.forward(*parts, mask=Band("bottom_right"))
                apart = alone[0].astype("float32") - o[:, a : a + n].astype("float32")
                worst = max(worst, float(abs(apart).max()))
    return {"status": "right" if worst <= 2.0**-6 else "wrong", "worst": worst}


def _judged(xp, names, found, wanted, naive, dtype):
    row = {"status": "right"}
    for name, x, ref, plain in zip(names, found, wanted, naive, strict=False):
        low = xp.isinf(ref)
        if not bool((xp.isinf(x) == low).all()):
            row |= {"status": "wrong", name: "infinite elsewhere"}
            continue
        error, allowed = (xp.where(low, 0, abs(y.astype("float64") - ref)) for y in (x, plain))
        size, u = xp.where(low, 0, abs(ref)), UNIT[dtype]
        peak = float(2 * allowed.max() + u * size.max() + 1e-6)
        norm = float(4 * xp.linalg.norm(allowed) + u * xp.linalg.norm(size) + 1e-6)
        row[name] = float(xp.linalg.norm(error) / max(float(xp.linalg.norm(size)), 1e-30))
        if not (float(error.max()) <= peak and float(xp.linalg.norm(error)) <= norm):
            row |= {"status": "wrong", f"{name} max": float(error.max()), f"{name} allowed": peak}
    return row


def rows(bed):
    """The memory-bound kernels, at ragged and at whole widths."""
    for dtype, width in itertools.product(("float32", "float16", "bfloat16"), (4096, 1001)):
        x, g, w = bed.random((64, width), dtype, 1), bed.random((64, width), dtype, 2), bed.random((width,), dtype, 3)
        for name, check in (("rms_norm", _rms), ("cross_entropy", _entropy), ("rope", _rope)):
            if name != "rope" or width % 2 == 0:
                with using(bed.device):
                    yield {"kernel": name, "what": f"{dtype} width {width}", **check(bed, x, g, w, dtype)}
    with using(bed.device):
        for dtype in UNIT:
            yield {"kernel": "paged_decode", "what": dtype, **_paged(bed, dtype)}
        yield {"kernel": "adamw", "what": "three tensors", **_adamw(bed)}


def _rms(bed, x, g, w, dtype):
    y, saved = rms_norm.forward(x, w)
    dx, dw = rms_norm.vjp(g, y, saved, (True, True), x, w)
    if bed.dry:
        return {"dry": True}
    X, G, W = (a.astype("float64") for a in (x, g, w))
    r = 1 / bed.xp.sqrt((X * X).mean(-1, keepdims=True) + 1e-5)
    wanted = X * r * W, r * (G * W - X * r * (G * W * X * r).mean(-1, keepdims=True)), (G * X * r).sum(0)
    return _near(bed.xp, ("y", "dx", "dw"), (y, dx, dw), wanted, 4 * UNIT[dtype])


def _entropy(bed, x, g, w, dtype):
    targets = bed.xp.arange(len(x)) % x.shape[1]
    loss, saved = softmax_cross_entropy.forward(x, targets)
    (dx,) = softmax_cross_entropy.vjp(g[:, 0], loss, saved, (True,), x, targets)
    if bed.dry:
        return {"dry": True}
    X = x.astype("float64")
    lse = bed.xp.log(bed.xp.exp(X).sum(-1))
    hot = bed.xp.arange(x.shape[1]) == targets[:, None]
    wanted = lse - (X * hot).sum(-1), g[:, :1].astype("float64") * (bed.xp.exp(X - lse[:, None]) - hot)
    return _near(bed.xp, ("loss", "dx"), (loss, dx), wanted, 4 * UNIT[dtype])


def _rope(bed, x, g, w, dtype):
    row = {}
    for layout in rope.LAYOUTS:
        y, _ = rope.forward(x[None], bed.xp.arange(len(x)), layout=layout)
        (back,) = rope.vjp(y, y, (), (True,), x[None], bed.xp.arange(len(x)), layout=layout)
        if not bed.dry:
            row |= _near(bed.xp, (layout,), (back[0],), (x.astype("float64"),), 8 * UNIT[dtype])
    return row or {"dry": True}


def _paged(bed, dtype):
    """Two tokens of three sequences of 0, 1 and 75 keys in pages of 16, of which two are of nobody."""
    xp, lengths = bed.xp, (0, 1, 75)
    q, k, v = (bed.random((n, h, t, 64), dtype, i) for i, (n, h, t) in enumerate(((3, 4, 2), (8, 2, 16), (8, 2, 16))))
    table = xp.asarray([[0] * 5, [6, 9, 9, 9, 9], [3, 1, 7, 0, 4]], "int32")
    (o, lse), _ = paged.forward(q, k, v, table, xp.asarray(lengths, "int32"), splits=3)
    if bed.dry:
        return {"dry": True}
    row = {"status": "right"}
    for b, n in enumerate(lengths):
        own = [x[table[b, : -(-n // 16)]].swapaxes(0, 1).reshape(2, -(-n // 16) * 16, 64)[:, :n] for x in (k, v)]
        keep = xp.arange(n)[None] <= n - 2 + xp.arange(2)[:, None]
        if n:
            wanted, plain = (reference(xp, q[b], *own, q[b], keep, None, r) for r in
                             (None, lambda x: x.astype(q.dtype).astype("float32")))  # fmt: skip
            found = _judged(xp, ("o", "lse"), (o[b], lse[b].astype("float32")), wanted, plain, dtype)
            row |= {f"{name} of {n} keys": value for name, value in found.items() if name != "status"}
            row["status"] = "wrong" if "wrong" in (row["status"], found["status"]) else "right"
        elif bool(o[b].any()) or not bool(xp.isneginf(lse[b]).all()):
            row["status"] = "wrong"
    return row


def _adamw(bed):
    sizes = (5, 100_000, 33)
    lists = [[abs(bed.random((n,), "float32", 10 * i + j)) for j, n in enumerate(sizes)] for i in range(4)]
    before = [[x.astype("float64") for x in group] for group in lists]
    adamw.adamw_(*lists, 3, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-6, weight_decay=0.1)
    if bed.dry:
        return {"dry": True}
    wanted = []
    for p, g, m, v in zip(*before, strict=True):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        wanted.append(p * 0.99 - 0.1 * m / (1 - 0.9**3) / (bed.xp.sqrt(v / (1 - 0.99**3)) + 1e-6))
    return _near(bed.xp, ("0", "1", "2"), lists[0], wanted, 8 * UNIT["float32"])


def _near(xp, names, found, wanted, u):
    row = {"status": "right"}
    for name, x, ref in zip(names, found, wanted, strict=True):
        row[name] = float(xp.linalg.norm(x.astype("float64") - ref) / xp.linalg.norm(ref))
        if not row[name] <= u + 1e-6:
            row["status"] = "wrong"
    return row
