// Root-mean-square normalisation (1910.07467, Eq. 4), forward and backward.
//
//     r = 1 / sqrt(mean_j x_j^2 + eps),   y = (x r) w
//     dx = r (g w - x r c),  c = mean_j (g w x r)_j,   dw = sum over rows of g x r
//
// A block takes a row; in the backward it takes every gridDim-th row and keeps its share of dw in shared memory,
// a column always in the same thread. Arrays are contiguous; half-precision x r is rounded before w (as LLaMA).
#include "rows.cuh"

struct RmsNorm {
  scalar* x;       // [rows, d]
  scalar* weight;  // [d]
  scalar* y;       // [rows, d]
  float* r;        // [rows]
  scalar* g;       // [rows, d]
  scalar* dx;      // [rows, d], or null
  float* part;     // [blocks, d]: shares of dw, or null
  scalar* dw;      // [d]
  i64 rows;
  int d, threads, blocks, whole;  // whole: rows and weight start at multiples of 16 bytes
  float eps;
};

// Grid (rows), `threads` threads, shared: a float a warp.
KERNEL void BOUNDS(1024, 1) rms_norm(const RmsNorm p) {
  const scalar* x = p.x + (i64)block_x() * p.d;
  float squares = 0, value[kPack], weight[kPack];
  for (int c = thread() * kPack; c < p.d; c += p.threads * kPack) {
    load_pack(value, x, c, p.d, p.whole);
    UNROLL
    for (int i = 0; i < kPack; i++) squares += value[i] * value[i];
  }
  const float r = rsqrt_(block_sum(squares, (float*)shared_base(), p.threads) / p.d + p.eps);
  for (int c = thread() * kPack; c < p.d; c += p.threads * kPack) {
    load_pack(value, x, c, p.d, p.whole);
    load_pack(weight, p.weight, c, p.d, p.whole);
    UNROLL
    for (int i = 0; i < kPack; i++) value[i] = rounded(value[i] * r) * weight[i];
    store_pack(p.y + (i64)block_x() * p.d, value, c, p.d, p.whole);
  }
  if (thread() == 0) p.r[block_x()] = r;
}

// Grid (blocks), `threads` threads, shared: a float a warp and d floats.
KERNEL void BOUNDS(1024, 1) rms_norm_vjp(const RmsNorm p) {
  float* scratch = (float*)shared_base();
  float* share = scratch + 32;
  float value[kPack], weight[kPack], g[kPack];
  for (int c = thread() * kPack; c < p.d; c += p.threads * kPack)
    for (int i = 0; i < least(kPack, p.d - c); i++) share[c + i] = 0;
  for (i64 row = block_x(); row < p.rows; row += p.blocks) {
    const i64 at = row * p.d;
    const float r = p.r[row];
    float dot = 0;
    for (int c = thread() * kPack; c < p.d; c += p.threads * kPack) {
      load_pack(value, p.x + at, c, p.d, p.whole);
      load_pack(g, p.g + at, c, p.d, p.whole);
      load_pack(weight, p.weight, c, p.d, p.whole);
      UNROLL
      for (int i = 0; i < kPack; i++) {
        dot += value[i] * r * g[i] * weight[i];
        if (c + i < p.d) share[c + i] += g[i] * value[i] * r;
      }
    }
    if (!p.dx) continue;
    const float mean = block_sum(dot, scratch, p.threads) / p.d;
    for (int c = thread() * kPack; c < p.d; c += p.threads * kPack) {
      load_pack(value, p.x + at, c, p.d, p.whole);
      load_pack(g, p.g + at, c, p.d, p.whole);
      load_pack(weight, p.weight, c, p.d, p.whole);
      UNROLL
      for (int i = 0; i < kPack; i++) value[i] = r * (g[i] * weight[i] - value[i] * r * mean);
      store_pack(p.dx + at, value, c, p.d, p.whole);
    }
  }
  if (!p.part) return;
  for (int c = thread() * kPack; c < p.d; c += p.threads * kPack)
    for (int i = 0; i < least(kPack, p.d - c); i++) p.part[(i64)block_x() * p.d + c + i] = share[c + i];
}

// Grid (d / 256), 256 threads: a thread sums a column's shares, in order.
KERNEL void BOUNDS(256, 1) rms_norm_dw(const RmsNorm p) {
  const int c = block_x() * 256 + thread();
  if (c >= p.d) return;
  float sum = 0;
  for (int b = 0; b < p.blocks; b++) sum += p.part[(i64)b * p.d + c];
  p.dw[c] = narrow(sum);
}
