// Level 0 attention, backward: FlashAttention-2 (2307.08691) Alg. 2 in float32, in passes without atomics.
//
//     attention_delta     delta = rowsum(g o) - g_lse
//     attention_simt_dkv  a block owns keys:    dV = P^T g,  dK = scale dS^T Q
//     attention_simt_dq   a block owns queries: dQ = scale dS K
//     P = exp(s - lse),  dS = P (g V^T - delta) slope
#include "attention_simt.cuh"

// Grid (T / 8, H, B), 256 threads: a warp is a row.
KERNEL void BOUNDS(256, 1) attention_delta(const Attention p) {
  const int lane = thread() % 32, i = block_x() * kWarps + thread() / 32, h = block_y();
  const Segment s = segment(p, block_z());
  if (i >= s.T) return;
  const i64 at = lse_at(p, s, h) + i;
  const scalar* o = head_of(p.o, s.batch, h) + (s.q_row + i) * p.o.row;
  const scalar* g = head_of(p.g, s.batch, h) + (s.q_row + i) * p.g.row;
  float sum = 0;
  for (int c = lane; c < p.e; c += 32) sum += load(o + c) * load(g + c);
  sum = warp_sum(sum);
  if (lane == 0) p.delta[at] = p.lse[at] == NEG_INF ? 0.f : sum - (p.g_lse ? p.g_lse[at] : 0.f);
}

// Of the pair (i, j): its weight in dV and its dS, from q . k and g . v.
struct Pair {
  float weight, ds;
};
DEVICE Pair pair(const Attention& p, const Segment& s, int b, int h, int i, int j, float qk, float gv) {
  float slope;
  const float x = logit(p, s, b, h, i, j, qk, slope);
  if (x == NEG_INF) return {0.f, 0.f};
  const i64 at = lse_at(p, s, h) + i;
  if (p.lse[at] == NEG_INF) return {0.f, 0.f};
  const float prob = exp2f((x - p.lse[at]) * kLog2e), keep = kept(p, s, b, h, i, j);
  const float dp = keep == 0 ? 0.f : gv * keep;
  return {prob * keep, prob * (dp - p.delta[at]) * slope};
}

DEVICE void store(const float (&sum)[kPerWarp][kLanes], scalar* to, i64 stride, int row0, int rows, int first,
                  int channels, float scale) {
  for (int i = 0; i < kPerWarp; i++)
    for (int n = 0; n < kLanes; n++) {
      const int row = row0 + i, c = first + 32 * n + thread() % 32;
      if (row < rows && c < channels) to[row * stride + c] = narrow(sum[i][n] * scale);
    }
}

// Grid (row blocks x chunks of d, H, B), 256 threads.
KERNEL void BOUNDS(256, 1) attention_simt_dq(const Attention p) {
  Tiles& tiles = *(Tiles*)shared_base();
  const int warp = thread() / 32, lane = thread() % 32, h = block_y(), b = block_z();
  const int chunks = (p.d + kWidth - 1) / kWidth, first = block_x() % chunks * kWidth;
  const Segment s = segment(p, b);
  const int i0 = block_x() / chunks * kOwn, i_warp = i0 + warp * kPerWarp;
  if (i0 >= s.T) return;
  const scalar* q = head_of(p.q, s.batch, h) + s.q_row * p.q.row;
  const scalar* g = head_of(p.g, s.batch, h) + s.q_row * p.g.row;
  const scalar* k = head_of(p.k, s.batch, key_head(p, h)) + s.k_row * p.k.row;
  const scalar* v = head_of(p.v, s.batch, key_head(p, h)) + s.k_row * p.v.row;
  auto query = [&](int r) { return i0 + r < s.T ? q + (i0 + r) * p.q.row : nullptr; };
  auto cotangent = [&](int r) { return i0 + r < s.T ? g + (i0 + r) * p.g.row : nullptr; };

  float dq[kPerWarp][kLanes] = {};
  const Span seen = columns_seen(s, i0, kOwn);
  for (int j0 = seen.first; j0 < seen.last; j0 += kTile) {
    auto key = [&](int r) { return j0 + r < s.S ? k + (j0 + r) * p.k.row : nullptr; };
    auto value = [&](int r) { return j0 + r < s.S ? v + (j0 + r) * p.v.row : nullptr; };
    float qk[kPerWarp], gv[kPerWarp];
    dots(qk, tiles, query, key, p.d);
    dots(gv, tiles, cotangent, value, p.e);
    UNROLL
    for (int i = 0; i < kPerWarp; i++) qk[i] = pair(p, s, b, h, i_warp + i, j0 + lane, qk[i], gv[i]).ds;
    accumulate(dq, qk, tiles, key, first, p.d);
  }
  store(dq, head_of(p.dq, s.batch, h) + s.q_row * p.dq.row, p.dq.row, i_warp, s.T, first, p.d, p.scale);
}

// Grid (column blocks x chunks of max(d, e), G, B), 256 threads. The query heads of a group in turn.
KERNEL void BOUNDS(256, 1) attention_simt_dkv(const Attention p) {
  Tiles& tiles = *(Tiles*)shared_base();
  const int warp = thread() / 32, lane = thread() % 32, group = block_y(), b = block_z();
  const int chunks = (most(p.d, p.e) + kWidth - 1) / kWidth, first = block_x() % chunks * kWidth;
  const Segment s = segment(p, b);
  const int j0 = block_x() / chunks * kOwn, j_warp = j0 + warp * kPerWarp;
  if (j0 >= s.S) return;
  const scalar* k = head_of(p.k, s.batch, group) + s.k_row * p.k.row;
  const scalar* v = head_of(p.v, s.batch, group) + s.k_row * p.v.row;
  auto key = [&](int r) { return j0 + r < s.S ? k + (j0 + r) * p.k.row : nullptr; };
  auto value = [&](int r) { return j0 + r < s.S ? v + (j0 + r) * p.v.row : nullptr; };

  float dk[kPerWarp][kLanes] = {}, dv[kPerWarp][kLanes] = {};
  const Span seeing = rows_seeing(s, j0, kOwn);
  const int heads = p.H / p.G;
  for (int h = group * heads; h < (group + 1) * heads; h++) {
    const scalar* q = head_of(p.q, s.batch, h) + s.q_row * p.q.row;
    const scalar* g = head_of(p.g, s.batch, h) + s.q_row * p.g.row;
    for (int i0 = seeing.first; i0 < seeing.last; i0 += kTile) {
      auto query = [&](int r) { return i0 + r < s.T ? q + (i0 + r) * p.q.row : nullptr; };
      auto cotangent = [&](int r) { return i0 + r < s.T ? g + (i0 + r) * p.g.row : nullptr; };
      float qk[kPerWarp], gv[kPerWarp];
      dots(qk, tiles, key, query, p.d);
      dots(gv, tiles, value, cotangent, p.e);
      UNROLL
      for (int i = 0; i < kPerWarp; i++) {
        const Pair x = pair(p, s, b, h, i0 + lane, j_warp + i, qk[i], gv[i]);
        qk[i] = x.ds;
        gv[i] = x.weight;
      }
      accumulate(dk, qk, tiles, query, first, p.d);
      accumulate(dv, gv, tiles, cotangent, first, p.e);
    }
  }
  store(dk, head_of(p.dk, s.batch, group) + s.k_row * p.dk.row, p.dk.row, j_warp, s.S, first, p.d, p.scale);
  store(dv, head_of(p.dv, s.batch, group) + s.k_row * p.dv.row, p.dv.row, j_warp, s.S, first, p.e, 1.f);
}
