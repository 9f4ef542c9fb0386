// Level 1 attention, forward: FlashAttention-2 (2307.08691) Alg. 1 on the tensor cores of sm_80 and later.
//
// A block owns 128 query rows: 8 warps of 16 rows (HEAD_DIM 128) or 4 of 32 (64). Tiles of 64 keys and
// values come through two stages: while K[n] is multiplied V[n] is on its way, and K[n + 1] behind it.
// HEAD_DIM 64 or 128, STORAGE float16 or bfloat16; d = e = HEAD_DIM. Grid (row blocks, H, B).
#include "attention_mma.cuh"

constexpr int kM = HEAD_DIM == 64 ? 2 : 1, kWarps = 8 / kM, kThreads = 32 * kWarps;
constexpr int kRows = 128, kCols = 64;
constexpr u32 kTileBytes = kCols * kRowBytes;

struct Softmax {  // of rows g and g + 8 of each 16: maximum before scaling, this lane's share of the sum
  float m[kM][2], l[kM][2];
};

// s becomes exp(s - m) under the new maximum; what was summed and accumulated before is rescaled.
// In units of 2: 2^(s factor - m factor), one multiply-add and one ex2 an element.
DEVICE void absorb(Softmax& state, float (&acc)[kM][kDim / 8][4], float (&s)[kM][kCols / 8][4], float factor) {
  UNROLL
  for (int i = 0; i < kM; i++)
    UNROLL
    for (int r = 0; r < 2; r++) {
      float m = state.m[i][r];
      UNROLL
      for (int j = 0; j < kCols / 8; j++) m = fmaxf(m, fmaxf(s[i][j][2 * r], s[i][j][2 * r + 1]));
      m = quad_max(m);
      const float base = SEEDED(4, m == NEG_INF, false) ? 0.f : m * factor;  // (-inf) - (-inf) is NaN
      const float shrink = exp2_approx(state.m[i][r] * factor - base);
      state.m[i][r] = m;
      float sum = 0;
      UNROLL
      for (int j = 0; j < kCols / 8; j++)
        UNROLL
        for (int n = 2 * r; n < 2 * r + 2; n++) {
          s[i][j][n] = exp2_approx(s[i][j][n] * factor - base);
          sum += s[i][j][n];
        }
      state.l[i][r] = SEEDED(5, state.l[i][r] * shrink, state.l[i][r]) + sum;
      UNROLL
      for (int j = 0; j < kDim / 8; j++) {
        acc[i][j][2 * r] *= SEEDED(6, shrink, 1.f);
        acc[i][j][2 * r + 1] *= SEEDED(6, shrink, 1.f);
      }
    }
}

DEVICE void hide(float (&s)[kM][kCols / 8][4], const Segment& seg, int row0, int j0) {
  const int lane = thread() % 32;
  UNROLL
  for (int i = 0; i < kM; i++)
    UNROLL
    for (int j = 0; j < kCols / 8; j++)
      UNROLL
      for (int n = 0; n < 4; n++) {
        const int row = row0 + 16 * i + lane / 4 + 8 * (n >> 1), col = j0 + 8 * j + 2 * (lane % 4) + (n & 1);
        const bool right = col < SEEDED(7, seg.S, 1 << 30) && col <= row + seg.high;
        if (!right || col < row + SEEDED(8, seg.low, -(1 << 30))) s[i][j][n] = NEG_INF;
      }
}

KERNEL void BOUNDS(kThreads, 1) attention_mma(const Attention p) {
  const int warp = thread() / 32, lane = thread() % 32, h = block_y(), b = block_z();
  const Segment seg = segment(p, b);
  const int i0 = block_x() * kRows, row0 = i0 + warp * 16 * kM;
  if (i0 >= seg.T) return;
  const int group = SEEDED(9, key_head(p, h), h % p.G);
  const scalar* q = head_of(p.q, seg.batch, h) + seg.q_row * p.q.row;
  const scalar* k = head_of(p.k, seg.batch, group) + seg.k_row * p.k.row;
  const scalar* v = head_of(p.v, seg.batch, group) + seg.k_row * p.v.row;
  const u32 q_tile = shared_address(), k_tiles = q_tile + kRows * kRowBytes, v_tiles = k_tiles + 2 * kTileBytes;

  const Span seen = columns_seen(seg, i0, kRows);
  const int first = seen.first / kCols;
  const int last = SEEDED(10, (seen.last + kCols - 1) / kCols, seen.last / kCols);
  auto fetch = [&](u32 tiles, const scalar* from, i64 stride, int n) {
    load_rows<kCols, kThreads>(tiles + (n & 1) * kTileBytes, from, stride, n * kCols, seen);
  };
  load_rows<kRows, kThreads>(q_tile, q, p.q.row, i0, Span{0, seg.T});
  if (first < last) fetch(k_tiles, k, p.k.row, first);
  copy_commit();

  Softmax state;
  float acc[kM][kDim / 8][4];
  clear(acc);
  UNROLL
  for (int i = 0; i < kM; i++)
    for (int r = 0; r < 2; r++) state.m[i][r] = NEG_INF, state.l[i][r] = 0;
  const bool capped = p.softcap > 0;
  const float to_cap = capped ? p.scale / p.softcap : 0.f, factor = kLog2e * (capped ? p.softcap : p.scale);

  for (int n = first; n < last; n++) {
    fetch(v_tiles, v, p.v.row, n);
    copy_commit();
    copy_wait<1>();  // all but V[n]: Q and K[n] are here
    if (BUG != 11) sync_block();
    float s[kM][kCols / 8][4];
    rows_times_rows<kM, kCols>(s, q_tile, warp * 16 * kM, k_tiles + (n & 1) * kTileBytes);
    if (n + 1 < last) fetch(k_tiles, k, p.k.row, n + 1);
    copy_commit();
    if (capped) {
      UNROLL
      for (int i = 0; i < kM; i++)
        UNROLL
        for (int j = 0; j < kCols / 8; j++)
          UNROLL
          for (int x = 0; x < 4; x++) s[i][j][x] = tanh_exp2(s[i][j][x] * to_cap);
    }
    if (!tile_is_full(seg, i0, kRows, n * kCols, kCols)) hide(s, seg, row0, n * kCols);
    absorb(state, acc, s, factor);
    if (BUG == 12) copy_wait<2>();
    else copy_wait<1>();  // all but K[n + 1]: V[n] is here
    sync_block();
    weights_times_rows<kM, kCols>(acc, s, v_tiles + SEEDED(13, n & 1, 0) * kTileBytes);
  }
  copy_wait<0>();

  scalar* o = head_of(p.o, seg.batch, h) + seg.q_row * p.o.row;
  float* lse = p.lse + lse_at(p, seg, h);
  UNROLL
  for (int i = 0; i < kM; i++) {
    float inverse[2];
    UNROLL
    for (int r = 0; r < 2; r++) {
      const float l = quad_sum(state.l[i][r]);
      const int row = row0 + 16 * i + lane / 4 + 8 * r;
      inverse[r] = l == 0 ? 0.f : 1.f / l;
      if (row < seg.T && lane % 4 == 0)
        lse[row] = l == 0 ? NEG_INF : (state.m[i][r] * factor + log2_approx(l)) * SEEDED(14, kLn2, 1.f);
    }
    store_rows(o, p.o.row, row0 + 16 * i, seg.T, acc[i], inverse[0], inverse[1]);
  }
}
