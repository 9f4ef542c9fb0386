// AdamW (1711.05101, Alg. 2) on many tensors in one launch, in place.
//
//     m <- b1 m + (1 - b1) g            v <- b2 v + (1 - b2) g^2
//     p <- p keep - rate m / (sqrt(v) + floor)
//     keep = 1 - lr decay,  rate = lr sqrt(c2) / c1,  floor = eps sqrt(c2),  c = 1 - b^t
//
// A block takes one chunk of one tensor: rows of `chunks` are (tensor, first element). Grid (chunks), 256 threads.
// 28 bytes an element move: p, m, v both ways, g one way.
#include "common.cuh"

struct AdamW {
  u64* tensors;  // [n, 5]: addresses of p, g, m, v; number of elements
  i64* chunks;   // [grid, 2]
  int chunk;     // elements of a chunk, a multiple of 4
  float b1, b2, a1, a2, keep, rate, floor;  // a = 1 - b
};

DEVICE void step(const AdamW& p, float& x, float g, float& m, float& v) {
  m = p.b1 * m + p.a1 * g;
  v = p.b2 * v + p.a2 * g * g;
  const float root = sqrtf(v) + p.floor;
  x = p.keep * x - (root == 0 ? 0.f : p.rate * m / root);
}

KERNEL void BOUNDS(256, 1) adamw(const AdamW p) {
  const i64 first = p.chunks[2 * block_x() + 1];
  const u64* tensor = p.tensors + 5 * p.chunks[2 * block_x()];
  float* at[4];
  bool whole = true;
  UNROLL
  for (int i = 0; i < 4; i++) {
    at[i] = (float*)tensor[i] + first;
    whole &= (u64)at[i] % 16 == 0;
  }
  const i64 rest = (i64)tensor[4] - first;
  const int n = rest < p.chunk ? (int)rest : p.chunk;
  for (int c = 4 * thread(); c < n; c += 4 * 256) {
    if (whole && c + 4 <= n) {
      union {
        Vec4 bits;
        float each[4];
      } x[4];
      UNROLL
      for (int i = 0; i < 4; i++) x[i].bits = load_vec4(at[i] + c);
      UNROLL
      for (int k = 0; k < 4; k++) step(p, x[0].each[k], x[1].each[k], x[2].each[k], x[3].each[k]);
      UNROLL
      for (int i = 0; i < 4; i++)
        if (i != 1) store_vec4(at[i] + c, x[i].bits);
    } else {
      for (int k = c; k < least(c + 4, n); k++) step(p, at[0][k], at[1][k], at[2][k], at[3][k]);
    }
  }
}
