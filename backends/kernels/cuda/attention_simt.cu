// Level 0 attention, forward: FlashAttention-2 (2307.08691) Alg. 1 in float32, for any head dimension and
// every option. The oracle of the other levels.
//
// Grid (row blocks x chunks of e, H, B), 256 threads.
#include "attention_simt.cuh"

KERNEL void BOUNDS(256, 1) attention_simt(const Attention p) {
  Tiles& tiles = *(Tiles*)shared_base();
  const int warp = thread() / 32, lane = thread() % 32, h = block_y(), b = block_z();
  const int chunks = (p.e + kWidth - 1) / kWidth, first = block_x() % chunks * kWidth;
  const Segment s = segment(p, b);
  const int i0 = block_x() / chunks * kOwn, i_warp = i0 + warp * kPerWarp;
  if (i0 >= s.T) return;
  const scalar* q = head_of(p.q, s.batch, h);
  const scalar* k = head_of(p.k, s.batch, key_head(p, h));
  const scalar* v = head_of(p.v, s.batch, key_head(p, h));
  auto query = [&](int r) { return i0 + r < s.T ? q + (s.q_row + i0 + r) * p.q.row : nullptr; };

  Softmax state;
  start(state);
  const Span seen = columns_seen(s, i0, kOwn);
  for (int j0 = seen.first; j0 < seen.last; j0 += kTile) {
    auto key = [&](int r) { return j0 + r < s.S ? k + (s.k_row + j0 + r) * p.k.row : nullptr; };
    auto value = [&](int r) { return j0 + r < s.S ? v + (s.k_row + j0 + r) * p.v.row : nullptr; };
    float x[kPerWarp], slope;
    dots(x, tiles, query, key, p.d);
    UNROLL
    for (int i = 0; i < kPerWarp; i++) x[i] = logit(p, s, b, h, i_warp + i, j0 + lane, x[i], slope);
    absorb(state, x);
    UNROLL
    for (int i = 0; i < kPerWarp; i++) x[i] *= kept(p, s, b, h, i_warp + i, j0 + lane);
    accumulate(state.out, x, tiles, value, first, p.e);
  }

  scalar* o = head_of(p.o, s.batch, h);
  for (int i = 0; i < kPerWarp; i++) {
    const Finish end = finish(state, i);
    const int row = i_warp + i;
    if (row >= s.T) continue;
    for (int n = 0; n < kLanes; n++) {
      const int c = first + 32 * n + lane;
      if (c < p.e) o[(s.q_row + row) * p.o.row + c] = narrow(state.out[i][n] * end.inverse);
    }
    if (first == 0 && lane == 0) p.lse[lse_at(p, s, h) + row] = end.lse;
  }
}
