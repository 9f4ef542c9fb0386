// Rotary position embedding (2104.09864, Eq. 34): pairs turned by angles whose cosines and sines are given.
//
//     (a, b) -> (a cos - b sin, a sin + b cos)
//     interleaved: (a, b) = (x_2i, x_2i+1)        half: (a, b) = (x_i, x_i+d/2)
//
// A thread turns one pack of interleaved pairs, or two packs of halves. Grid (threads needed / 256), 256 threads.
// Rows x[B H T d] are contiguous; row (b, h, t) uses row b table_batch + t of the table. sign -1 turns back: the
// gradient.
#include "rows.cuh"

struct Rope {
  scalar* x;   // [B, H, T, d]
  scalar* y;   // the same
  float* cos;  // [table rows, d / 2]
  float* sin;
  i64 rows;         // B H T
  i64 table_batch;  // T, or 0 where the batch shares positions
  int heads, T, d, half, whole;
  float sign;
};

struct Turned {
  float a, b;
};
DEVICE Turned turned(const Rope& p, i64 at, float a, float b) {
  const float c = p.cos[at], s = p.sin[at] * p.sign;
  return {a * c - b * s, a * s + b * c};
}

KERNEL void BOUNDS(256, 1) rope(const Rope p) {
  const int pairs = p.d / 2, each = p.half ? kPack : kPack / 2, parts = (pairs + each - 1) / each;
  const i64 item = (i64)block_x() * 256 + thread(), row = item / parts;
  const int first = (int)(item % parts) * each;  // number of the first pair
  if (row >= p.rows) return;
  const scalar* x = p.x + row * p.d;
  scalar* y = p.y + row * p.d;
  const i64 table = (row / ((i64)p.heads * p.T) * p.table_batch + row % p.T) * pairs + first;
  float a[kPack], b[kPack];
  if (p.half) {
    load_pack(a, x, first, pairs, p.whole);
    load_pack(b, x + pairs, first, pairs, p.whole);
    UNROLL
    for (int i = 0; i < kPack; i++) {
      if (first + i >= pairs) break;
      const Turned t = turned(p, table + i, a[i], b[i]);
      a[i] = t.a;
      b[i] = t.b;
    }
    store_pack(y, a, first, pairs, p.whole);
    store_pack(y + pairs, b, first, pairs, p.whole);
  } else {
    load_pack(a, x, 2 * first, p.d, p.whole);
    UNROLL
    for (int i = 0; i < kPack / 2; i++) {
      if (first + i >= pairs) break;
      const Turned t = turned(p, table + i, a[2 * i], a[2 * i + 1]);
      a[2 * i] = t.a;
      a[2 * i + 1] = t.b;
    }
    store_pack(y, a, 2 * first, p.d, p.whole);
  }
}
