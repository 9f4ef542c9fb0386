"""Attention's times: ours by level beside torch's backends, a Triton kernel and the naive form.

B S = 16384 and H D = 2048, as FlashAttention's papers measure: every case has the same arithmetic but for S.
TFLOP/s count 4 B H T S D multiply-adds twice over, half of them where causal; 2.5 times that backward.
"""

from backends.fused.cupy import _attention, _problem
from backends.fused.cupy._levels import LEVELS
from backends.kernels.device import storage, using
from bench.on_gpu.bed import Missing
from bench.on_gpu.correct import Band

TOKENS, WIDTH = 16384, 2048
LENGTHS = (4096, 512, 2048, 16384)  # what is most read comes first
TORCH = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")


def forward(bed):
    """Rows of the forward pass alone."""
    engines = {name: _ours(name.split()[0]) for name in ("L0", "L1", "L1 again", "L2")}
    engines |= {f"torch {n}": _torch(n) for n in TORCH} | {"triton": _triton, "naive": _naive}
    yield from _times(bed, "forward", engines)


def backward(bed):
    """Rows of the backward pass alone."""
    engines = {name: _ours_backward("L1") for name in ("L1", "L1 again")}
    yield from _times(bed, "backward", engines | {f"torch {n}": _torch_backward(n) for n in TORCH})


def _times(bed, direction, engines):
    for S in LENGTHS:
        for d in (128, 64):
            for causal in (False, True):
                yield from _case(bed, direction, engines, S, d, causal)


def _case(bed, direction, engines, S, d, causal):
    case = {"direction": direction, "S": S, "d": d, "causal": causal}
    functions = {}
    for name, make in engines.items():
        kernel = name.split()[0]
        if kernel in bed.wrong():
            yield {**case, "engine": name, "missing": "not right, or not judged to the end"}
            continue
        try:
            functions[name] = make(bed, S, d, causal)
        except Exception as error:  # one engine's trouble (no such package, out of memory) is one row
            yield {**case, "engine": name, "missing": f"{type(error).__name__}: {error}"[:300]}
    flop = 4 * TOKENS * S * WIDTH * (0.5 if causal else 1) * (2.5 if direction == "backward" else 1)
    for name, found in bed.times(functions, {n for n in functions if n[0] != "L"}).items():
        rate = {} if found["ms"] is None else {"tflop_s": flop / found["ms"] / 1e9}
        yield {**case, "engine": name, **found, **rate}


def _arrays(bed, S, d):
    return [bed.random((TOKENS // S, WIDTH // d, S, d), "bfloat16", i) for i in range(4)]


def _problem_of(bed, level, S, d, causal):
    q, k, v, g = _arrays(bed, S, d)
    declared = LEVELS[level]
    if bed.device.capability < declared.capability or (declared.only and bed.device.capability != declared.capability):
        raise Missing(f"capability {bed.device.capability}")
    if storage(q.dtype) not in declared.storages:
        raise Missing(f"{q.dtype}")
    p = _problem.problem(bed.xp, q, k, v, mask=Band("bottom_right") if causal else None)
    return p, g, _attention.allocate(bed.xp, p)


def _ours(level):
    def make(bed, S, d, causal):
        if level == "L0" and S > 2048:
            raise Missing("level 0 is timed at S <= 2048")
        p, _, (o, lse) = _problem_of(bed, level, S, d, causal)
        return lambda: _attention.forward(bed.device, level, p, o, lse)

    return make


def _ours_backward(level):
    def make(bed, S, d, causal):
        p, g, (o, lse) = _problem_of(bed, level, S, d, causal)
        with using(bed.device):
            _attention.forward(bed.device, level, p, o, lse)
        made = [bed.xp.empty(x.shape, x.dtype) for x in (p.q, p.k, p.v)]
        return lambda: _attention.backward(bed.device, level, p, o, lse, g, None, made)

    return make


def _tensors(bed, S, d):
    torch = bed.peer("torch")
    shape, where = ((2, 2, 8, d), "cpu") if bed.dry else ((TOKENS // S, WIDTH // d, S, d), "cuda")
    return torch, [torch.randn(shape, device=where, dtype=torch.bfloat16) for _ in range(4)]


def _sdpa(bed, torch, backend, q, k, v, causal):
    kernel = torch.nn.attention.sdpa_kernel, getattr(torch.nn.attention.SDPBackend, "MATH" if bed.dry else backend)

    def run():
        with kernel[0]([kernel[1]]):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return run


def _torch(backend):
    def make(bed, S, d, causal):
        torch, (q, k, v, _) = _tensors(bed, S, d)
        bed.peer("torch.nn.attention")
        run = _sdpa(bed, torch, backend, q, k, v, causal)
        run()
        return run

    return make


def _torch_backward(backend):
    def make(bed, S, d, causal):
        torch, (q, k, v, g) = _tensors(bed, S, d)
        bed.peer("torch.nn.attention")
        inputs = [x.requires_grad_() for x in (q, k, v)]
        out = _sdpa(bed, torch, backend, *inputs, causal)()

        def run():
            return torch.autograd.grad(out, inputs, g, retain_graph=True)

        run()
        return run

    return make


def _triton(bed, S, d, causal):
    _, (q, k, v, _) = _tensors(bed, S, d)
    bed.peer("triton")
    from bench.on_gpu.triton_attention import attend

    if bed.dry:
        return lambda: None
    attend(q, k, v, causal)
    return lambda: attend(q, k, v, causal)


def _naive(bed, S, d, causal):
    torch, (q, k, v, _) = _tensors(bed, S, d)
    n = q.shape[2]
    hidden = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1) if causal else None

    def run():
        s = q @ k.transpose(-1, -2) * d**-0.5
        if causal:
            s = s.masked_fill(hidden, float("-inf"))
        return torch.softmax(s, -1) @ v

    run()
    return run
