"""Gradient of an embedding: the cotangents of each id added up, against torch's index_add_."""

import numpy as np

from bench.common import Case, Engine, Ratio, main

# Rows of the table, channels, tokens, whether the ids follow Zipf's law.
SIZES = ((256, 256, 1024, False), (32000, 256, 1024, False), (32000, 1024, 4096, True), (32000, 64, 16384, True))


def arrays(V, d, n, zipf):
    rng = np.random.default_rng(0)
    ids = np.minimum(rng.zipf(1.2, n) - 1, V - 1) if zipf else rng.integers(0, V, n)
    return ids.astype(np.int64), rng.standard_normal((n, d), dtype=np.float32)


def ours(size):
    from backends.fused.numpy import embedding

    ids, g = arrays(*size)
    weight = np.zeros(size[:2], np.float32)

    def pull(_=None):
        return embedding.vjp(g, None, (), (True,), weight, ids)[0]

    return Engine({"gradient": pull}, lambda: {"gradient": pull()})


def torch_index_add(size):
    import torch

    torch.set_num_threads(1)
    ids, g = map(torch.from_numpy, arrays(*size))

    def pull(_=None):
        return torch.zeros(size[:2]).index_add_(0, ids, g)

    return Engine({"gradient": pull}, lambda: {"gradient": pull().numpy()})


def _case(size):
    V, d, n, zipf = size
    name = f"V {V}, d {d}, n {n}{', Zipf' if zipf else ''}"
    return Case(
        name,
        {"index_add_": lambda _: torch_index_add(size), "ours": lambda _: ours(size)},
        (Ratio(f"embedding gradient, {name}", ("ours", "gradient"), ("index_add_", "gradient"), {1: 1.35}),),
        rounds=25,
    )


CASES = [_case(size) for size in SIZES]

if __name__ == "__main__":
    main("bench.embedding", CASES)
