// Level 1 attention, backward: FlashAttention-2 (2307.08691) Alg. 2 in two passes without atomics, so that
// two runs give the same bits. Seven products for five.
//
//     attention_mma_dkv  grid (key blocks, G, B): a block owns 64 keys, streams queries of the group's heads
//     attention_mma_dq   grid (row blocks, H, B): a block owns 64 queries, streams keys
//
// Needs delta (attention_delta) and lse. 128 threads, a warp owns 16 rows. Streamed tiles have 64 rows, or 32
// where HEAD_DIM is 128: two accumulators of 16 x 128 leave no room for two of 16 x 64.
#include "attention_mma.cuh"

constexpr int kThreads = 128, kOwn = 64, kStream = HEAD_DIM == 64 ? 64 : 32;
constexpr u32 kOwnBytes = kOwn * kRowBytes, kStreamBytes = kStream * kRowBytes;

struct Scale {
  float factor, to_cap;
  bool capped;
};
DEVICE Scale scale_of(const Attention& p) {
  const bool capped = p.softcap > 0;
  return {kLog2e * (capped ? p.softcap : p.scale), capped ? p.scale / p.softcap : 0.f, capped};
}

// (P, dS) of a pair from s = q . k and g . v; lse in units of 2. Zeros, by selection, where not seen.
DEVICE void weigh(float& s, float& dp, const Scale& scale, bool seen, float lse2, float delta) {
  float slope = 1;
  if (scale.capped) {
    s = tanh_exp2(s * scale.to_cap);
    slope = SEEDED(21, 1 - s * s, 1.f);
  }
  const float prob = SEEDED(22, seen, true) ? exp2_approx(s * scale.factor - lse2) : 0.f;
  dp = seen ? prob * (dp - SEEDED(23, delta, 0.f)) * slope : 0.f;
  s = prob;
}

// A row's lse in units of 2 and its delta; a row that saw nothing has lse -inf, and no pair asks for it.
struct RowFacts {
  float lse2, delta;
};
DEVICE RowFacts facts(const float* lse, const float* delta, int i, int rows) {
  if (i >= rows || lse[i] == NEG_INF) return {0.f, 0.f};
  return {lse[i] * kLog2e, delta[i]};
}

KERNEL void BOUNDS(kThreads, 2) attention_mma_dkv(const Attention p) {
  const int warp = thread() / 32, lane = thread() % 32, group = block_y();
  const Segment seg = segment(p, block_z());
  const int j0 = block_x() * kOwn, heads = SEEDED(24, p.H / p.G, 1);
  if (j0 >= seg.S) return;
  const scalar* k = head_of(p.k, seg.batch, group) + seg.k_row * p.k.row;
  const scalar* v = head_of(p.v, seg.batch, group) + seg.k_row * p.v.row;
  const u32 k_tile = shared_address(), v_tile = k_tile + kOwnBytes, stages = v_tile + kOwnBytes;

  // Tiles of queries that see some of these keys, head after head of the group.
  const Span seeing = rows_seeing(seg, j0, kOwn);
  const int first = seeing.first / kStream, per_head = (seeing.last + kStream - 1) / kStream - first;
  const int count = seeing.first < seeing.last ? per_head * heads : 0;
  auto fetch = [&](int n) {
    const int h = group * heads + n / per_head, i0 = (first + n % per_head) * kStream;
    const u32 stage = stages + (n & 1) * 2 * kStreamBytes;
    load_rows<kStream, kThreads>(stage, head_of(p.q, seg.batch, h) + seg.q_row * p.q.row, p.q.row, i0, seeing);
    load_rows<kStream, kThreads>(stage + kStreamBytes, head_of(p.g, seg.batch, h) + seg.q_row * p.g.row, p.g.row, i0,
                                 seeing);
  };
  load_rows<kOwn, kThreads>(k_tile, k, p.k.row, j0, Span{0, seg.S});
  load_rows<kOwn, kThreads>(v_tile, v, p.v.row, j0, Span{0, seg.S});
  if (count) fetch(0);
  copy_commit();

  float dk[1][kDim / 8][4], dv[1][kDim / 8][4];
  clear(dk);
  clear(dv);
  const Scale scale = scale_of(p);
  for (int n = 0; n < count; n++) {
    const int h = group * heads + n / per_head, i0 = (SEEDED(25, first, 0) + n % per_head) * kStream;
    const u32 q_tile = stages + (n & 1) * 2 * kStreamBytes, g_tile = q_tile + kStreamBytes;
    const i64 at = lse_at(p, seg, h);
    if (n + 1 < count) fetch(n + 1);
    copy_commit();
    copy_wait<1>();
    sync_block();
    float s[1][kStream / 8][4], dp[1][kStream / 8][4];  // S^T and dP^T: rows are keys
    rows_times_rows<1, kStream>(s, k_tile, warp * 16, q_tile);
    rows_times_rows<1, kStream>(dp, v_tile, warp * 16, g_tile);
    UNROLL
    for (int x = 0; x < kStream / 8; x++)
      UNROLL
      for (int c = 0; c < 2; c++) {
        const int i = i0 + 8 * x + 2 * (lane % 4) + c;
        const RowFacts row = facts(p.lse + at, p.delta + at, i, seg.T);
        UNROLL
        for (int r = 0; r < 2; r++) {
          const int j = j0 + warp * 16 + lane / 4 + 8 * r;
          weigh(s[0][x][2 * r + c], dp[0][x][2 * r + c], scale, in_band(seg, i, j), row.lse2, row.delta);
        }
      }
    weights_times_rows<1, kStream>(dv, s, g_tile);
    weights_times_rows<1, kStream>(dk, dp, q_tile);
    if (BUG != 26) sync_block();  // the next round overwrites the other stage
  }
  copy_wait<0>();
  const float unscaled = SEEDED(27, p.scale, 1.f);
  store_rows(head_of(p.dk, seg.batch, group) + seg.k_row * p.dk.row, p.dk.row, j0 + warp * 16, seg.S, dk[0], unscaled,
             unscaled);
  store_rows(head_of(p.dv, seg.batch, group) + seg.k_row * p.dv.row, p.dv.row, j0 + warp * 16, seg.S, dv[0], 1.f, 1.f);
}

KERNEL void BOUNDS(kThreads, 2) attention_mma_dq(const Attention p) {
  const int warp = thread() / 32, lane = thread() % 32, h = block_y(), group = key_head(p, h);
  const Segment seg = segment(p, block_z());
  const int i0 = block_x() * kOwn, row0 = i0 + warp * 16;
  if (i0 >= seg.T) return;
  const scalar* q = head_of(p.q, seg.batch, h) + seg.q_row * p.q.row;
  const scalar* g = head_of(p.g, seg.batch, h) + seg.q_row * p.g.row;
  const scalar* k = head_of(p.k, seg.batch, group) + seg.k_row * p.k.row;
  const scalar* v = head_of(p.v, seg.batch, group) + seg.k_row * p.v.row;
  const u32 q_tile = shared_address(), g_tile = q_tile + kOwnBytes, stages = g_tile + kOwnBytes;

  const Span seen = columns_seen(seg, i0, kOwn);
  const int first = seen.first / kStream, last = (seen.last + kStream - 1) / kStream;
  auto fetch = [&](int n) {
    const u32 stage = stages + (n & 1) * 2 * kStreamBytes;
    load_rows<kStream, kThreads>(stage, k, p.k.row, n * kStream, seen);
    load_rows<kStream, kThreads>(stage + kStreamBytes, v, p.v.row, n * kStream, seen);
  };
  load_rows<kOwn, kThreads>(q_tile, q, p.q.row, i0, Span{0, seg.T});
  load_rows<kOwn, kThreads>(g_tile, g, p.g.row, i0, Span{0, seg.T});
  if (first < last) fetch(first);
  copy_commit();

  float dq[1][kDim / 8][4];
  clear(dq);
  const Scale scale = scale_of(p);
  RowFacts row[2];
  UNROLL
  for (int r = 0; r < 2; r++) {
    const i64 at = lse_at(p, seg, h);
    row[r] = facts(p.lse + at, p.delta + at, row0 + lane / 4 + 8 * r, seg.T);
  }
  for (int n = first; n < last; n++) {
    const u32 k_tile = stages + (n & 1) * 2 * kStreamBytes, v_tile = k_tile + kStreamBytes;
    if (n + 1 < last) fetch(n + 1);
    copy_commit();
    if (BUG == 28) copy_wait<2>();
    else copy_wait<1>();
    sync_block();
    float s[1][kStream / 8][4], dp[1][kStream / 8][4];
    rows_times_rows<1, kStream>(s, q_tile, warp * 16, k_tile);
    rows_times_rows<1, kStream>(dp, g_tile, warp * 16, v_tile);
    UNROLL
    for (int x = 0; x < kStream / 8; x++)
      UNROLL
      for (int c = 0; c < 4; c++) {
        const int i = row0 + lane / 4 + 8 * (c >> 1), j = n * kStream + 8 * x + 2 * (lane % 4) + (c & 1);
        weigh(s[0][x][c], dp[0][x][c], scale, in_band(seg, i, j), row[c >> 1].lse2, row[c >> 1].delta);
      }
    weights_times_rows<1, kStream>(dq, dp, k_tile);
    sync_block();
  }
  copy_wait<0>();
  store_rows(head_of(p.dq, seg.batch, h) + seg.q_row * p.dq.row, p.dq.row, row0, seg.T, dq[0], p.scale, p.scale);
}
