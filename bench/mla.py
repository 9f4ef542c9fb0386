"""One decoded token of multi-head latent attention: absorbed, over cached keys and values, and re-expanded.

    python -m bench.mla [--tokens 16384] [--heads 16 128] [--rounds 7]

One thread, CPU time, float32, cases alternating in one process; read the ratios. What differs is timed: from the
rotated query to the heads' outputs. `absorbed` has the cache of latents and the two halves of W_kv_b. `full` has all
keys and values cached; the faster of two ways over them is compared with (a matrix product a head, and `flash`).
`expanded` makes keys and values of the latents anew, as every step must that neither caches them nor absorbs.
"""

from __future__ import annotations

import argparse
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from backends.threads import threads  # noqa: E402
from bench.common import alternating, print_table, row, save, settle_process  # noqa: E402
from ref.attention.flash import flash  # noqa: E402
from ref.attention.mla import Config, attend_absorbed, attend_expanded, expand, scale_of  # noqa: E402

TARGETS = {16: 1.5, 128: 3.0}  # absorbed faster than full by at least this


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--heads", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    settle_process(1)
    rows = [compare(Config(h, nope=128, rope=64, value=128, latent=512), args.tokens, args.rounds) for h in args.heads]
    print_table(rows)
    save("bench.mla", 1, rows)


def compare(f, S, rounds):
    g = np.random.default_rng(0)
    rows = f.heads * (f.nope + f.value)
    shapes = (f.heads, 1, f.nope), (f.heads, 1, f.rope), (S, f.latent + f.rope), (rows, f.latent)
    args = [g.standard_normal(shape, dtype=np.float32) / 8 for shape in shapes]
    with threads(1):
        times = against_full(f, args, rounds)
        times |= alternating({"expanded": repeated(lambda: attend_expanded(*args, f))}, 1, 1)
    report(f, S, times)
    best = min(times["full"], times["full, flash"])
    target = 1 / TARGETS.get(f.heads, 1.0)
    return row(f"MLA, one token, S {S}, {f.heads} heads", "full K, V", 1, "s", times["absorbed"], best, target)


def against_full(f, args, rounds):
    nope, rotated, cache, kv_b = args
    k, v = (np.ascontiguousarray(x) for x in expand(cache, kv_b, f))
    q, scale = np.concatenate((nope, rotated), -1), scale_of(f)
    works = {
        "absorbed": lambda: attend_absorbed(*args, f),
        "full": lambda: by_products(q, k, v, scale),
        "full, flash": lambda: flash(q, k, v, scale=scale)[0],
    }
    wanted = works["full"]()
    for name, work in works.items():
        assert np.allclose(work(), wanted, rtol=1e-3, atol=1e-4), f"{name} is another function"
    return alternating({name: repeated(work) for name, work in works.items()}, 1, rounds)


def repeated(work):
    def case(n):
        for _ in range(n):
            work()

    return case


def by_products(q, k, v, scale):
    """softmax(q k^T) v, a matrix product a head."""
    s = np.matmul(q, k.swapaxes(-1, -2)) * np.float32(scale)
    np.exp(s - s.max(-1, keepdims=True), out=s)
    return np.matmul(s, v) / s.sum(-1, keepdims=True)


def report(f, S, times):
    """Times, and beside them the numbers read (4 bytes each) and the multiply-adds (2 FLOPs each) of one step."""
    H, c, r, d, e = f.heads, f.latent, f.rope, f.nope, f.value
    latents = S * (c + r) + H * (d + e) * c
    read = {"absorbed": latents, "full": H * S * (d + r + e), "expanded": latents}
    work = {
        "absorbed": H * S * (2 * c + r) + H * (d + e) * c,
        "full": H * S * (d + r + e),
        "expanded": H * S * (d + r + e) + S * c * H * (d + e),
    }
    for name, t in times.items():
        kind = name.split(",")[0]
        print(
            f"S {S} heads {H:4d}  {name:12s} {t * 1e3:10.2f} ms   {t / times['absorbed']:7.2f} x absorbed"
            f"   {4 * read[kind] / 1e6:9.1f} MB   {2 * work[kind] / 1e9:8.3f} GFLOP"
        )


if __name__ == "__main__":
    main()
