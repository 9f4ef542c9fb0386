"""Convolution against torch's: forward and backward, by shape, in float32."""

import numpy as np

from bench.common import Case, Engine, Ratio, main

# name: (x, w, options, largest ratio that meets the target); the transposed one takes w as [in, out, *K], the depthwise
# one has no matrix product to gain by
SHAPES = {
    "3x3, 64 channels, 16x16, batch 64": ((64, 64, 16, 16), (64, 64, 3, 3), {"padding": 1}, 2.2),
    "first layer": ((8, 3, 64, 64), (32, 3, 3, 3), {"padding": 1}, 2.2),
    "3x3, 64 channels, 28x28": ((8, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}, 2.2),
    "3x3, stride 2": ((8, 64, 28, 28), (128, 64, 3, 3), {"padding": 1, "stride": 2}, 2.2),
    "1x1, 256 to 64": ((8, 256, 14, 14), (64, 256, 1, 1), {}, 2.2),
    "5x5, dilation 2": ((4, 16, 40, 40), (32, 16, 5, 5), {"padding": 4, "dilation": 2}, 2.2),
    "depthwise 3x3": ((8, 64, 28, 28), (64, 1, 3, 3), {"padding": 1, "groups": 64}, 6.0),
    "late layer": ((8, 256, 7, 7), (256, 256, 3, 3), {"padding": 1}, 2.2),
    "one line": ((8, 32, 1024), (64, 32, 5), {"padding": 2}, 2.2),
    "transposed 4x4": ((4, 64, 14, 14), (64, 32, 4, 4), {"padding": 1, "stride": 2, "transposed": True}, 2.2),
}


def arrays(shape):
    rng = np.random.default_rng(0)
    return (rng.standard_normal(s, dtype=np.float32) for s in SHAPES[shape][:2])


def engine(call, wrap, unwrap, tx, tw, g, loops=2):
    """Forward, and backward from a fixed cotangent, `loops` times each."""

    def forward(_=None):
        return [call() for _ in range(loops)]

    def backward(outs):
        for out in outs:
            tx.grad = tw.grad = None
            out.backward(wrap(g))

    def values():
        out = call()
        tx.grad = tw.grad = None
        out.backward(wrap(g))
        return {"value": unwrap(out), "gradient of x": unwrap(tx.grad), "gradient of w": unwrap(tw.grad)}

    return Engine({"forward": forward, "backward": backward}, values)


def ours(shape):
    from autodiff import raw, tensor
    from autodiff.convolution import conv, conv_transpose

    options = {k: v for k, v in SHAPES[shape][2].items() if k != "transposed"}
    function = conv_transpose if SHAPES[shape][2].get("transposed") else conv
    tx, tw = (tensor(a, requires_grad=True) for a in arrays(shape))
    g = cotangent(function(raw(tx), raw(tw), **options).shape)
    return engine(lambda: function(tx, tw, **options), lambda a: a, raw, tx, tw, g)


def torch_eager(shape):
    import torch

    torch.set_num_threads(1)
    options = {k: v for k, v in SHAPES[shape][2].items() if k != "transposed"}
    kind = "conv_transpose" if SHAPES[shape][2].get("transposed") else "conv"
    tx, tw = (torch.from_numpy(a).requires_grad_() for a in arrays(shape))
    function = getattr(torch.nn.functional, f"{kind}{tx.ndim - 2}d")
    g = cotangent(tuple(function(tx, tw, **options).shape))
    return engine(lambda: function(tx, tw, **options), torch.from_numpy, lambda t: t.detach().numpy(), tx, tw, g)


def cotangent(shape):
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def _case(shape):
    sides = (("ours", ""), ("torch", ""))
    return Case(
        shape,
        {"torch": lambda _: torch_eager(shape), "ours": lambda _: ours(shape)},
        (Ratio(f"conv, {shape}", *sides, {1: SHAPES[shape][3]}),),
        rounds=15,
        loops=2,
    )


CASES = [_case(shape) for shape in SHAPES]

if __name__ == "__main__":
    main("bench.conv", CASES)
