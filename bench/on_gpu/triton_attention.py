"""A flash-attention forward in Triton, for comparison: one program a block of rows, tiles of keys in turn."""

import torch
import triton
import triton.language as tl


@triton.jit
def _attend(q, k, v, o, S, scale, head_stride, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
            CAUSAL: tl.constexpr):  # fmt: skip
    start, head = tl.program_id(0) * M, tl.program_id(1).to(tl.int64) * head_stride
    rows, cols, channels = start + tl.arange(0, M), tl.arange(0, N), tl.arange(0, D)
    own = head + rows[:, None] * D + channels[None, :]
    query = tl.load(q + own, mask=rows[:, None] < S, other=0.0)
    top = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    out = tl.zeros([M, D], tl.float32)
    end = tl.minimum(start + M, S) if CAUSAL else S
    for first in range(0, end, N):
        at = first + cols
        other = head + at[:, None] * D + channels[None, :]
        key = tl.load(k + other, mask=at[:, None] < S, other=0.0)
        s = tl.dot(query, tl.trans(key)) * scale
        seen = at[None, :] < S
        if CAUSAL:
            seen = seen & (at[None, :] <= rows[:, None])
        s = tl.where(seen, s, float("-inf"))
        new = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - new[:, None])
        shrink = tl.exp2(top - new)
        total = total * shrink + tl.sum(p, 1)
        value = tl.load(v + other, mask=at[:, None] < S, other=0.0)
        out = out * shrink[:, None] + tl.dot(p.to(value.dtype), value)
        top = new
    tl.store(o + own, (out / total[:, None]).to(query.dtype), mask=rows[:, None] < S)


def attend(q, k, v, causal):
    """o of contiguous q, k, v [B H S D], square, no groups."""
    B, H, S, D = q.shape
    o = torch.empty_like(q)
    M, N = 128, 64 if D == 128 else 128
    grid = (triton.cdiv(S, M), B * H)
    _attend[grid](q, k, v, o, S, D**-0.5 * 1.4426950408889634, S * D, D, M, N, causal, num_warps=8 if D == 128 else 4,
                  num_stages=3)  # fmt: skip
    return o
